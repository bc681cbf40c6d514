"""check_silver.py SILVER TRUTH [--tables A,B] [--ms] [--allow FILE] [--verbose]

Compares Silver tables (a folder of one Delta table each) with the database's own final state, row by row and column by
column: TRUTH is a folder as captures/README.md describes it, packed or not. Reads with Polars, which honours deletion vectors. Prints a
line a table and at last `N exact, M differ`; exit status 1 if any differs. Columns whose name begins with `_` are the
pipeline's own and not compared. Shares no code with the runtime.
  --ms      the connector's time.precision.mode was connect: times are cut to milliseconds
  --allow   {"table": {"missing": n, "extra": n, "columns": {"col": n}}}: differences that the capture cannot avoid
"""
import argparse, base64, collections, datetime as dt, decimal, gzip, json, os, re, struct, sys
import polars as pl

def truth(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
        meta = json.loads(f.readline())["_meta"]
        return meta, [json.loads(line) for line in f]

def base(sql): return re.split(r"[( ]", sql)[0].lower()

def micros(text):
    """'2025-01-01 10:00:00.5' -> microseconds since 1970, without zone"""
    day, _, clock = text.partition(" ")
    y, m, d = map(int, day.split("-"))
    h, mi, s = (clock or "00:00:00").split(":")
    sec, _, frac = s.partition(".")
    return ((dt.date(y, m, d).toordinal() - 719163) * 86400 + int(h) * 3600 + int(mi) * 60 + int(sec)) * 10**6 + int((frac + "000000")[:6])

def clock(text):
    """'-838:59:59.5' -> microseconds"""
    sign = -1 if text.startswith("-") else 1
    h, m, s = text.lstrip("-").split(":")
    sec, _, frac = s.partition(".")
    return sign * ((int(h) * 3600 + int(m) * 60 + int(sec)) * 10**6 + int((frac + "000000")[:6]))

def canonical(value, column, ms):
    """one comparable form for a truth text and for a Silver value"""
    if value is None: return None
    kind = base(column["type"])
    if column["encoding"] == "base64":
        return value if isinstance(value, str) else base64.b64encode(value).decode()
    if kind in ("decimal", "numeric") or kind.endswith("int") or kind in ("integer", "year"):
        if isinstance(value, bool): value = int(value)
        return decimal.Decimal(str(value)).normalize()
    if kind == "bit": return int(value) if not isinstance(value, (bytes, bytearray)) else int.from_bytes(value, "big")
    if kind == "float": return struct.unpack("<f", struct.pack("<f", float(value)))[0]
    if kind == "double": return float(value)
    if kind == "json":                                # 1e20 and 100000000000000000000 are one number
        number = lambda text: "n" + str(decimal.Decimal(text).normalize())
        return json.dumps(json.loads(value, parse_int=number, parse_float=lambda text: number(repr(float(text)))), sort_keys=True)
    if kind == "date":
        return value.isoformat() if isinstance(value, dt.date) else value
    if kind in ("datetime", "timestamp"):
        if isinstance(value, dt.datetime): value = value.replace(tzinfo=None).isoformat(sep=" ")
        try: us = micros(str(value))
        except ValueError: return str(value)          # 0000-00-00 and the like
        return us - us % 1000 if ms else us
    if kind == "time":
        us = clock(str(value))
        return us - us % 1000 if ms else us
    return str(value)

def silver(folder, columns):
    frame = pl.scan_delta(folder).collect()
    names = {}
    for c in columns:
        safe = re.sub(r"[ ,;{}()\n\t=]", "_", c["name"])
        hit = next((n for n in (c["name"], safe, re.sub(r"[^0-9A-Za-z_]", "_", c["name"])) if n in frame.columns), None)
        names[c["name"]] = hit
    absent = [n for n, hit in names.items() if hit is None]
    surplus = [n for n in frame.columns if not n.startswith("_") and n not in names.values()]
    rows = [{n: (r[hit] if hit else None) for n, hit in names.items()} for r in frame.iter_rows(named=True)]
    return rows, absent, surplus

def compare(folder, path, ms):
    meta, want_rows = truth(path)
    columns, key = meta["columns"], meta["primary_key"]
    got_rows, absent, surplus = silver(folder, columns)
    form = lambda row: tuple(canonical(row[c["name"]], c, ms) for c in columns)
    got, want = [form(r) for r in got_rows], [form(r) for r in want_rows]
    result = dict(rows=len(want), missing=0, extra=0, columns={}, absent=absent, surplus=surplus, example=None)
    if key:
        at = [i for i, c in enumerate(columns) if c["name"] in key]
        pick = lambda r: tuple(r[i] for i in at)
        g, w = collections.defaultdict(list), {pick(r): r for r in want}
        for r in got: g[pick(r)].append(r)
        result["missing"] = sum(k not in g for k in w)
        result["extra"] = sum(len(v) - (k in w) for k, v in g.items())
        wrong = collections.Counter()
        for k, r in w.items():
            for c, a, b in zip(columns, (g[k][0] if k in g else r), r):
                if a != b and not (a != a and b != b):
                    wrong[c["name"]] += 1
                    result["example"] = result["example"] or f"{c['name']} of {k}: {str(a)[:60]!r} is not {str(b)[:60]!r}"
        result["columns"] = dict(wrong)
    else:
        a, b = collections.Counter(got), collections.Counter(want)
        result["missing"], result["extra"] = (b - a).total(), (a - b).total()
    return result

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("silver"); p.add_argument("truth"); p.add_argument("--tables"); p.add_argument("--ms", action="store_true")
    p.add_argument("--allow"); p.add_argument("--verbose", action="store_true")
    a = p.parse_args()
    allow = json.load(open(a.allow)) if a.allow else {}
    only = a.tables.split(",") if a.tables else None
    exact = differ = 0
    for file in sorted(f for f in os.listdir(a.truth) if f.endswith((".jsonl", ".jsonl.gz"))):
        table = file.partition(".jsonl")[0]
        if only and table not in only: continue
        folder = next((os.path.join(a.silver, n) for n in (table, table.lower(), re.sub(r"[^0-9A-Za-z_]", "_", table)) if os.path.isdir(os.path.join(a.silver, n))), None)
        if folder is None:
            empty = truth(os.path.join(a.truth, file))[0]["rows"] == 0
            exact, differ = exact + empty, differ + (not empty)
            print(f"{'exact ' if empty else 'DIFFER'} {table}: no Silver table" + (" (and no rows in the database)" if empty else "")); continue
        try: r = compare(folder, os.path.join(a.truth, file), a.ms)
        except Exception as e:
            differ += 1; print(f"DIFFER {table}: cannot compare: {type(e).__name__}: {str(e)[:200]}"); continue
        ok = allow.get(table, {})
        good = r["missing"] <= ok.get("missing", 0) and r["extra"] <= ok.get("extra", 0) and not r["absent"] and all(n <= ok.get("columns", {}).get(c, 0) for c, n in r["columns"].items())
        exact, differ = exact + good, differ + (not good)
        note = "" if good and not a.verbose else f" missing {r['missing']}, extra {r['extra']}, wrong {r['columns']}" + (f", absent columns {r['absent']}" if r["absent"] else "") + (f", surplus columns {r['surplus']}" if r["surplus"] else "") + (f"; {r['example']}" if r["example"] else "")
        print(f"{'exact ' if good else 'DIFFER'} {table}: {r['rows']} rows{note}")
    print(f"{exact} exact, {differ} differ")
    return 1 if differ else 0

if __name__ == "__main__": sys.exit(main())
