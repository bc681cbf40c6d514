#!/usr/bin/env bash
# A second reader from another world: Spark with Delta reads the Silver tables of one capture, written in small flushes
# and compacted, and compares them with the database's own state.
#
#   scripts/test-spark.sh LODE     LODE: the program
#
#   LODE_CACHE    folder for what outlives a clone (default: ~/.cache/lodestream)
#   LODE_SHARED   folder of the captures (default: `shared` beside this repository)
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
lode=$1
cache=${LODE_CACHE:-$HOME/.cache/lodestream}
shared=${LODE_SHARED:-$here/../shared}
corpus=$shared/corpus
[ -f "$corpus/check.py" ] || { echo "error: no captures in \`$corpus\`; hint: set LODE_SHARED" >&2; exit 1; }

for tool in java mvn; do
    command -v $tool >/dev/null && continue
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing a Java runtime and Maven"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends default-jre-headless maven >/dev/null
    else
        echo "error: \`$tool\` is missing; hint: install Java 17 and Maven" >&2
        exit 1
    fi
done
python=$cache/spark-venv/bin/python
if ! "$python" -c 'import pyspark, polars' 2>/dev/null; then
    echo "setup: making Spark's Python in $cache/spark-venv"
    python3 -m venv "$cache/spark-venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$here/tests/requirements-spark.txt"
fi
if ! ls "$cache/spark-jars/"delta-spark*.jar >/dev/null 2>&1; then
    echo "setup: fetching Delta for Spark into $cache/spark-jars"
    mvn -q -B -f "$shared/bench/peers/spark/pom.xml" dependency:copy-dependencies \
        -DoutputDirectory="$cache/spark-jars" -DexcludeTransitive=true
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/pipeline.toml" <<TOML
name = "open_b"
mirror_tables = ["*"]
[source.replay]
files = "$corpus/open_b.events.jsonl.gz"
[lake]
root = "lake"
[flush]
rows = 50
TOML
"$lode" run "$folder/pipeline.toml" --until-end
"$python" "$here/tests/spark_check.py" "$corpus/check.py" "$cache/spark-jars" "$folder/lake/silver" "$corpus/truth_mariadb"
"$lode" maintain "$folder/pipeline.toml"
"$python" "$here/tests/spark_check.py" "$corpus/check.py" "$cache/spark-jars" "$folder/lake/silver" "$corpus/truth_mariadb"
