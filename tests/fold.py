"""fold.py SILVER_TABLE CAPTURE TABLE --rule NAME

Folds the changes of one table by key in the source's own order, applies the module's rule to what is left, and
compares the outcome with the Silver table, row by row and column by column. For captures of bare JSON with decimals
as strings and times in microseconds. Shares no code with the runtime, the SDK or the modules.
"""
import argparse, datetime as dt, decimal, gzip, json, re, sys
import polars as pl


def shop_customers(row):
    """the e-mail address masked; the telephone number as digits after a plus, if it had one; everything else as it is"""
    if row["email"] is not None:
        person, at, domain = row["email"].rpartition("@") if "@" in row["email"] else (row["email"], "", "")
        row["email"] = person[:1] + "***" + at + domain
    if row["phone"] is not None:
        digits = re.sub(r"[^0-9]", "", row["phone"])
        plus = row["phone"].strip().startswith("+")
        row["phone"] = None if not digits else "+" + digits if plus else re.sub("^00", "+", digits)
    return [row]


RULES = {"as_is": lambda row: [row], "shop_customers": shop_customers}


def read(path, table):
    """newest columns of the table, its key, its events as (sequence, op, key, image)"""
    columns, events = {}, []
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            value = record["value"] and json.loads(record["value"])
            if not value:
                continue
            source = value["source"]
            place = (int(source["file"].rsplit(".", 1)[1]), source["pos"], source["row"])
            for change in value.get("tableChanges", []):
                if change["table"] and change["id"].endswith(f'"{table}"') and place >= columns.get("place", ()):
                    columns = {"place": place, "key": change["table"]["primaryKeyColumnNames"],
                               "types": {c["name"]: (c["typeName"], c["defaultValueExpression"]) for c in change["table"]["columns"]}}
            if record["topic"].endswith("." + table):
                # at one place of the source, the delete of a key change comes first
                newkey = any(name == "__debezium.newkey" for name, _ in record["headers"])
                order = (source["snapshot"] == "false", *place, not newkey)
                events.append((order, value["op"], json.loads(record["key"]), value["after"]))
    return columns["types"], columns["key"], sorted(events, key=lambda e: e[0])


def fold(events, key):
    rows = {}
    for _, op, k, image in events:
        k = tuple(k[name] for name in key)
        if op == "d":
            rows.pop(k, None)
        else:
            rows[k] = dict(image)
    return rows.values()


class Either:
    """equal to each of some values"""

    def __init__(self, *values): self.values = values
    def __eq__(self, other): return other in self.values
    def __repr__(self): return " or ".join(map(repr, self.values))


def typed(value, kind):
    """the value that Silver must hold for one that Debezium wrote"""
    epoch = dt.datetime(1970, 1, 1)
    if value is None:
        return None
    if kind == "DECIMAL" or "BIGINT UNSIGNED" in kind:
        return decimal.Decimal(str(value))
    if kind == "DATE":
        return epoch.date() + dt.timedelta(days=value)
    if kind == "DATETIME":
        return epoch + dt.timedelta(microseconds=value)
    if kind == "TIMESTAMP":
        return dt.datetime.fromisoformat(value)
    if "INT" in kind:
        return int(value)
    return value


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("silver"); p.add_argument("capture"); p.add_argument("table"); p.add_argument("--rule", choices=RULES, required=True)
    a = p.parse_args()
    types, key, events = read(a.capture, a.table)
    want = []
    for row in fold(events, key):
        full = {name: typed(row.get(name, default), kind) for name, (kind, default) in types.items()}
        # a column that was added after the row's last event holds its default; behind a module it may stay empty in
        # rows that were written before, until the table is rebuilt
        for name in full.keys() - row.keys() if a.rule != "as_is" else ():
            full[name] = Either(None, full[name])
        want += RULES[a.rule](full)
    frame = pl.scan_delta(a.silver).collect()
    frame = frame.select([name for name in frame.columns if not name.startswith("_")])
    got = list(frame.iter_rows(named=True))
    order = lambda row: tuple(str(row[name]) for name in key)
    got, want, wrong = sorted(got, key=order), sorted(want, key=order), []
    for g, w in zip(got, want):
        wrong += [f"{n} of {order(w)}: {g.get(n)!r} is not {w[n]!r}" for n in w if n not in g or not w[n] == g[n]]
        wrong += [f"{n} of {order(w)}: {g[n]!r} is not wanted" for n in g if n not in w]
    if len(got) != len(want):
        wrong.insert(0, f"{len(got)} rows where {len(want)} are wanted")
    print(f"{a.table} by {a.rule}: {len(want)} rows, {len(wrong)} differences" + "".join(f"\n    {w}" for w in wrong[:8]))
    return 1 if wrong or not want else 0


if __name__ == "__main__":
    sys.exit(main())
