"""fold_changes.py LAKE OUT [--capture CAPTURE]

Folds every feed `silver/<table>_changes` of the lake as its readers are told to, fails unless that gives exactly the
Silver table, `_seq` included, and writes the outcome as a Delta table `OUT/<table>`, to be compared with the database.
With the capture (bare JSON, decimals as strings, times in microseconds) each key's history is compared too: every
change of the source once, in order, with its image. Shares no code with the runtime.
"""
import argparse, base64, collections, datetime as dt, json, pathlib, struct, sys
import polars as pl
from fold import read, typed

OWN = {"_change", "_partition", "_offset"}
WORDS = {"c": "insert", "u": "update", "d": "delete", "r": "snapshot"}


def fold(feed, key):
    """the newest rows of each key, without deletes and what a truncate has voided"""
    void = feed.filter(pl.col("_change") == "truncate")["_seq"].max()
    rows = feed.filter(pl.col("_change") != "truncate")
    rows = rows.filter(pl.col("_seq") == pl.col("_seq").max().over(key)).filter(pl.col("_change") != "delete")
    rows = rows if void is None else rows.filter(pl.col("_seq") >= void)
    return rows.select([name for name in rows.columns if name not in OWN])


def same(got, value, kind):
    if kind == "DATETIME" and got is not None and value is not None:
        # up to three digits of a second Debezium writes milliseconds
        return (got - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1) in (value, value * 1000)
    if kind == "FLOAT" and value is not None:
        return got == struct.unpack("f", struct.pack("f", value))[0]
    if isinstance(got, bytes) and value is not None:
        return got == base64.b64decode(value)
    return got == typed(value, kind)


def history(feed, key, capture, table):
    """differences between the feed and the capture's changes, each taken once, by key"""
    types, _, events = read(capture, table)
    want, seen = collections.defaultdict(list), set()
    for order, op, k, image in events:
        k = tuple(k[name] for name in key)
        if (order, k) not in seen:
            seen.add((order, k))
            want[k].append((op, image))
    got = collections.defaultdict(list)
    for row in feed.sort("_seq").iter_rows(named=True):
        got[tuple(row[name] for name in key)].append(row)
    wrong = [f"{table} {k}: a history of nothing" for k in got.keys() - want.keys()]
    for k, changes in want.items():
        words = [row["_change"] for row in got[k]]
        if words != [WORDS[op] for op, _ in changes]:
            wrong.append(f"{table} {k}: {words} is not {changes}")
            continue
        for row, (op, image) in zip(got[k], changes):
            names = key if op == "d" else [name for name in image if name in types]
            for name in names:
                value = k[key.index(name)] if op == "d" else image[name]
                if not same(row[name], value, types[name][0]):
                    wrong.append(f"{table} {k}: {name} is {row[name]!r}, not {value!r}")
    return wrong


def key_of(table):
    """the key's columns, as the table's first commit says"""
    for line in open(table / "_delta_log" / f"{0:020}.json"):
        metadata = json.loads(line).get("metaData")
        if metadata:
            return json.loads(metadata["configuration"]["lode.key"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("lake"); p.add_argument("out"); p.add_argument("--capture")
    a = p.parse_args()
    wrong, feeds = [], sorted(pathlib.Path(a.lake, "silver").glob("*_changes"))
    for path in feeds:
        table = path.name.removesuffix("_changes")
        silver = pl.scan_delta(str(path.parent / table)).collect()
        feed = pl.scan_delta(str(path)).collect()
        key = key_of(path.parent / table)
        folded = fold(feed, key).select(silver.columns)
        if not folded.sort(key).equals(silver.sort(key)):
            wrong.append(f"{table}: the fold of the feed is not the table ({folded.height} and {silver.height} rows)")
        names = feed.group_by([*key, "_seq"]).len().filter(pl.col("len") > 1)
        if names.height:
            wrong.append(f"{table}: {names.height} changes are there more than once")
        if a.capture:
            wrong += history(feed, key, a.capture, table)
        folded.write_delta(str(pathlib.Path(a.out, table)))
        print(f"{table}: {feed.height} changes fold to {folded.height} rows")
    print("".join(f"    {w}\n" for w in wrong[:20]) + f"{len(feeds)} feeds, {len(wrong)} differences")
    return 1 if wrong or not feeds else 0


if __name__ == "__main__":
    sys.exit(main())
