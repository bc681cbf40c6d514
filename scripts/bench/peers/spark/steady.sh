#!/bin/bash
# steady.sh BOOTSTRAP ROWS OUT JARS [stream.py arguments...]: seconds a batch of 10,000 random updates takes on a Silver of ROWS rows.
# Seeds OUT/silver, fills topic steady-ROWS.shop.orders with CHANGES (100000) updates unless KEEP_TOPIC is set (what is expected then
# lies beside OUT), runs the stream over it.
set -eu
boot=$1 rows=$2 out=$3 jars=$4; shift 4
bench=$(cd "$(dirname "$0")/../.." && pwd); PYTHON=${PYTHON:-python3}
topic=steady-$rows.shop.orders CHANGES=${CHANGES:-100000}
mkdir -p "$out"
"$PYTHON" "$bench/seed.py" "$out/silver" "$rows"
[ -n "${KEEP_TOPIC:-}" ] || "$PYTHON" "$bench/generate.py" --bootstrap "$boot" --topic "$topic" --snapshot "$rows" --changes "$CHANGES" --mix 100,0,0 --phase changes --expect "$(dirname "$out")/steady-$rows.json"
"$PYTHON" "$bench/measure.py" --folder "$out/bronze" --folder "$out/silver" -- "$PYTHON" "$bench/peers/spark/stream.py" silver --bootstrap "$boot" --topic "$topic" --out "$out" --jars "$jars" --max-offsets 10000 --log "$out/batches.jsonl" "$@" 2>"$out/stream.err"
"$PYTHON" - "$out/batches.jsonl" <<'P'
import json, statistics as st, sys
b = [json.loads(l) for l in open(sys.argv[1])]
w = b[3:]
print(f"all {len(b)} merges: {[x['merge_s'] for x in b]}\nafter 3 warm-up batches: median merge {st.median(x['merge_s'] for x in w):.2f} s, bronze append {st.median(x['bronze_s'] for x in w):.2f} s")
P
