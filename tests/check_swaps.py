"""check_swaps.py SILVER_TABLE MARKS TRUTH KEY

Fails unless each row that a commit added carries the mark of the module whose hash the commit names (MARKS: a JSON
object, hash to mark), at least two marks occur, and the table's keys are those of the database (TRUTH: a file of
captures/truth_*), each once.
"""
import gzip, json, pathlib, sys
import polars as pl

table, marks, truth, key = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
wrong, seen, commits = [], set(), 0
for log in sorted((table / "_delta_log").glob("*.json")):
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    info = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
    old = {a["remove"]["path"] for a in actions if "remove" in a}
    new = [a["add"] for a in actions if "add" in a and a["add"]["dataChange"] and a["add"]["path"] not in old]
    if not new:
        continue
    mark = marks.get(info.get("lode", {}).get("module"))
    commits += 1
    for add in new:
        written = set(pl.read_parquet(table / add["path"])["mark"].to_list())
        seen |= written
        if written != {mark}:
            wrong.append(f"{log.name}: rows marked {written} in a commit of the module that marks {mark}")
got = [str(k) for k in pl.scan_delta(str(table)).collect()[key].to_list()]
with gzip.open(truth, "rt") as lines:
    want = [json.loads(line)[key] for line in lines if not line.startswith('{"_meta"')]
if sorted(got) != sorted(want):
    wrong.append(f"{len(got)} keys ({len(set(got))} distinct), {len(want)} in the database; "
                 f"lost {sorted(set(want) - set(got))[:5]}, too many {sorted(set(got) - set(want))[:5]}")
if len(seen) < 2:
    wrong.append(f"only the marks {seen} occur")
print(f"{commits} commits with rows, marks {sorted(seen)}, {len(got)} keys; {len(wrong)} wrong")
print("\n".join(wrong[:10]))
sys.exit(1 if wrong else 0)
