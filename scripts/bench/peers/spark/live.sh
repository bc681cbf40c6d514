#!/bin/bash
# live.sh BOOTSTRAP TOPIC OUT JARS [stream.py arguments...]: freshness of the Spark baseline. RATE (2000), SECONDS_ (60), ROWS (300000).
# Fills TOPIC with a snapshot, lands it, then runs the stream live while changes come at RATE; prints the age of rows in Silver.
set -eu
boot=$1 topic=$2 out=$3 jars=$4; shift 4
bench=$(cd "$(dirname "$0")/../.." && pwd); PYTHON=${PYTHON:-python3}
RATE=${RATE:-2000} SECONDS_=${SECONDS_:-60} ROWS=${ROWS:-300000} SETTLE=${SETTLE:-12}
g() { "$PYTHON" "$bench/generate.py" --bootstrap "$boot" --topic "$topic" --snapshot "$ROWS" --changes $((RATE * SECONDS_)) "$@"; }
s() { "$PYTHON" "$bench/peers/spark/stream.py" silver --bootstrap "$boot" --topic "$topic" --out "$out" --jars "$jars" "$@"; }
mkdir -p "$out"
[ -n "${SKIP_LOAD:-}" ] || g --phase snapshot
s "$@" --max-offsets 0 2>"$out/load.err"
life=$((SETTLE + SECONDS_ + 25))
s "$@" --live $life 2>"$out/live.err" >"$out/live.out" & spark=$!
until grep -q READY "$out/live.out" 2>/dev/null; do kill -0 $spark; sleep 0.2; done
"$PYTHON" "$bench/freshness.py" watch "$out/silver" "$out/commits.jsonl" $((life + 5)) & watch=$!
sleep "$SETTLE"
g --phase changes --rate "$RATE" --expect "$out/expected.json"
wait $spark $watch
cat "$out/live.out"
"$PYTHON" "$bench/freshness.py" report "$out/silver" "$out/commits.jsonl"
"$PYTHON" "$bench/freshness.py" report "$out/silver" "$out/commits.jsonl" "${SKIP:-20}"
