#!/usr/bin/env bash
# Speed of each stage in the release profile: decode, keyed tables beside delta-rs's MERGE, transforms beside native code.
#
#   scripts/bench.sh <folder>      what the benchmarks read is made there; called by `make bench`
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$1
mkdir -p "$out"
command -v python3 >/dev/null || { echo "bench: \`python3\` is missing; hint: scripts/setup.sh installs it" >&2; exit 1; }

run() { local example=$1; shift; echo "== $example"; cargo run --quiet --release -p lodestream --example "$example" -- "$@"; echo; }

cd "$root"
echo "bench: building in the release profile; the first time takes about half an hour on two cores" >&2
cargo build --release -p lodestream --examples
MODULES_WORKSPACE=$root/examples/modules scripts/build-modules.sh "$out" >/dev/null
python3 scripts/bench/generate.py --snapshot 300 --changes 700 --out "$out/bare.jsonl" >/dev/null
python3 scripts/bench/generate.py --snapshot 300 --changes 700 --envelope --out "$out/envelope.jsonl" >/dev/null

run bench_decode "$out/bare.jsonl" "$out/envelope.jsonl"
run bench_table
run bench_transform "$out/bench_columns.wasm"
