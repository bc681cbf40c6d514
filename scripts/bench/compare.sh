#!/bin/bash
# compare.sh EXPECTED.json OUT "COMMAND" [check.py arguments...]
# Runs COMMAND (consumes its topic to the end and exits; its Bronze and Silver are under OUT, an empty folder made here and
# exported as OUT), measures it with GNU time and with measure.py, then checks the tables against EXPECTED.
# Default tables: OUT/bronze and OUT/silver; others by BRONZE=... SILVER=... (BRONZE= for none).
# PYTHON: interpreter with requirements.txt.   WARM=1: no cache dropping (default). COLD=1: drop the page cache first (root).
set -eu
exp=$1; export OUT=$2; cmd=$3; shift 3
here=$(dirname "$(readlink -f "$0")"); PYTHON=${PYTHON:-python3}
[ ! -e "$OUT" ] || [ -z "$(ls -A "$OUT")" ] || { echo "$OUT is not empty" >&2; exit 2; }
mkdir -p "$OUT"; OUT=$(readlink -f "$OUT")
SILVER=${SILVER-$OUT/silver}; BRONZE=${BRONZE-$OUT/bronze}
[ -z "${COLD:-}" ] || { sync; echo 3 > /proc/sys/vm/drop_caches; }
"$PYTHON" "$here/measure.py" ${BRONZE:+--folder "$BRONZE"} --folder "$SILVER" -- /usr/bin/time -v -o "$OUT.time" bash -c "$cmd" | tee "$OUT.log"
"$PYTHON" - "$exp" "$OUT.log" <<'P'
import json, sys
e = json.load(open(sys.argv[1])); m = json.loads([l for l in open(sys.argv[2]) if l.startswith("MEASURE")][-1][8:])
print(f"records/s (process start to exit): {e['records'] / m['wall_s']:.0f}   cpu us/record: {m['cpu_s'] * 1e6 / e['records']:.1f}   MB/s of values: {e['value_bytes'] / 1e6 / m['wall_s']:.1f}")
P
grep -E 'Elapsed|Maximum resident|User time|System time|File system outputs' "$OUT.time"
"$PYTHON" "$here/check.py" "$exp" --silver "$SILVER" ${BRONZE:+--bronze "$BRONZE"} "$@"
