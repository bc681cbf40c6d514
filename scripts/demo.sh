#!/usr/bin/env bash
# demo.sh PROGRAMS MODULES FOLDER: the online store on an embedded broker, into Delta tables in FOLDER.
#
#   DEMO_SECONDS   ends on its own after so many seconds: swaps a module on the way, compares every table with the store at
#                  the end, and exits with 1 if anything differs (default: goes on until Ctrl-C)
#   DEMO_RATE      changes a second (default: 200)
set -euo pipefail
programs=$1 modules=$2 folder=$3
cd "$(dirname "$0")/.."

options=(--modules "$modules" --folder "$folder")
if [ -n "${DEMO_SECONDS:-}" ]; then options+=(--seconds "$DEMO_SECONDS"); fi
if [ -n "${DEMO_RATE:-}" ]; then options+=(--rate "$DEMO_RATE"); fi
exec "$programs/lode" demo "${options[@]}"
