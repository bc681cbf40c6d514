#!/usr/bin/env bash
# A second reader from another world: Spark with Delta reads the Silver tables of one capture, written in small flushes
# and compacted, and compares them with the database's own state.
#
#   scripts/test-spark.sh LODE     LODE: the program
#
#   LODE_CACHE    folder for what outlives a clone (default: ~/.cache/lodestream)
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
lode=$1
cache=${LODE_CACHE:-$HOME/.cache/lodestream}
captures=$here/tests/captures

missing=
for tool in java:default-jre-headless mvn:maven; do
    command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool#*:}"
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "error: missing:$missing; hint: install them (Debian names), then run this again" >&2
        exit 1
    fi
    echo "setup: installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
python=$cache/spark-venv/bin/python
if ! "$python" -c 'import pyspark, polars' 2>/dev/null; then
    echo "setup: making Spark's Python in $cache/spark-venv"
    python3 -m venv "$cache/spark-venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$here/tests/requirements-spark.txt"
fi
if ! ls "$cache/spark-jars/"delta-spark*.jar >/dev/null 2>&1; then
    echo "setup: fetching Delta for Spark into $cache/spark-jars"
    mvn -q -B -f "$here/scripts/bench/peers/spark/pom.xml" dependency:copy-dependencies \
        -DoutputDirectory="$cache/spark-jars" -DexcludeTransitive=true
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/pipeline.toml" <<TOML
name = "open_b"
mirror_tables = ["*"]
[source.replay]
files = "$captures/open_b.events.jsonl.gz"
[lake]
root = "lake"
[flush]
rows = 50
TOML
"$lode" run "$folder/pipeline.toml" --until-end
"$python" "$here/tests/spark_check.py" "$cache/spark-jars" "$folder/lake/silver" "$captures/truth_mariadb"
"$lode" maintain "$folder/pipeline.toml"
"$python" "$here/tests/spark_check.py" "$cache/spark-jars" "$folder/lake/silver" "$captures/truth_mariadb"
