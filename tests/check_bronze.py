"""check_bronze.py BRONZE_DIR CAPTURE [--verbose]

Compares Bronze with the capture that was sent: every record of every topic exactly once, key, value, headers and
timestamp equal byte by byte, nothing else. Reads with Polars. Exit status 1 if anything differs.
"""
import argparse, base64, collections, gzip, json, os, re, sys
import polars as pl


def wanted(path):
    """topic -> {(partition, offset): (timestamp, key, value, headers)}"""
    topics = collections.defaultdict(dict)
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            e = json.loads(line)
            part = lambda name: base64.b64decode(e[name + "_b64"]) if name + "_b64" in e else (
                None if e[name] is None else e[name].encode())
            headers = [list(pair) for pair in e["headers"]]
            topics[e["topic"]][e["partition"], e["offset"]] = (e["ts"], part("key"), part("value"), headers)
    return topics


def stored(folder):
    """rows of one Bronze table, in the same form"""
    frame = pl.scan_delta(folder).collect()
    bytes_of = lambda row, name: (
        row[name].encode() if row[name] is not None
        else row.get(name + "_bytes") if row.get(name + "_bytes") is not None else None)
    stamps = frame["_timestamp"].dt.epoch("ms") if frame["_timestamp"].dtype.is_temporal() else frame["_timestamp"]
    for row, stamp in zip(frame.iter_rows(named=True), stamps):
        headers = json.loads(row["_headers"]) if row["_headers"] else []
        body = (stamp, bytes_of(row, "_key"), bytes_of(row, "_value"), headers)
        yield row["_topic"], (row["_partition"], row["_offset"]), body


def compare(topic, want, folder):
    """what is wrong with one topic's table, in words"""
    if folder is None:
        return ["no Bronze table"]
    got, wrong = collections.Counter(), []
    for name, place, body in stored(folder):
        got[place] += 1
        if name != topic:
            wrong.append(f"{place} is of `{name}`")
        elif place not in want:
            wrong.append(f"{place} was never sent")
        elif body != want[place]:
            names = ("timestamp", "key", "value", "headers")
            part = next(n for n, a, b in zip(names, body, want[place]) if a != b)
            a, b = body[names.index(part)], want[place][names.index(part)]
            wrong.append(f"{part} of {place}: {str(a)[:80]!r} is not {str(b)[:80]!r}")
    wrong += [f"{place} is there {n} times" for place, n in got.items() if n > 1]
    wrong += [f"{place} is missing" for place in want if place not in got]
    return wrong


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("bronze"); p.add_argument("capture"); p.add_argument("--verbose", action="store_true")
    a = p.parse_args()
    topics, bad, used = wanted(a.capture), 0, set()
    for topic, want in sorted(topics.items()):
        names = (topic, re.sub(r"[^0-9A-Za-z_.-]", "_", topic), re.sub(r"[^0-9A-Za-z_]", "_", topic))
        name = next((n for n in names if os.path.isdir(os.path.join(a.bronze, n))), None)
        used.add(name)
        wrong = compare(topic, want, name and os.path.join(a.bronze, name))
        bad += len(wrong)
        if wrong or a.verbose:
            print(f"{'DIFFER' if wrong else 'exact '} {topic}: {len(want)} records" + "".join(f"\n    {w}" for w in wrong[:5]))
    for name in sorted(set(os.listdir(a.bronze)) - used):
        bad += 1
        print(f"DIFFER {name}: a table of no topic that was sent")
    print(f"{sum(map(len, topics.values()))} records in {len(topics)} topics, {bad} differences")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
