#!/usr/bin/env bash
# register.sh LODE: loads the store's schema, makes the lake's container and registers the connector, each if it is not
# there yet. Waits until the connector's task runs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/settings.sh"
lode=$1
store=$here/../../pipelines/online_store
MYSQL_PASSWORD=$(<"$home/secret")
export MYSQL_PASSWORD MYSQL_HOST=127.0.0.1 MYSQL_PORT=$STACK_MYSQL_PORT MYSQL_USER=cdc MYSQL_SERVER_ID=5400
export MYSQL_SSL_MODE=disabled KAFKA_BROKERS=127.0.0.1:$STACK_KAFKA_PORT TOPIC_PARTITIONS=${TOPIC_PARTITIONS:-2} TOPIC_REPLICAS=1

"$python" "$here/shop.py" load "$store/oltp.sql"
"$python" "$here/lake.py" make
connect=http://127.0.0.1:$STACK_CONNECT_PORT
"$lode" connector apply "$store/connector.json" --connect "$connect"
deadline=$((SECONDS + 90))
until "$lode" connector status "$store/connector.json" --connect "$connect" >"$logs/connector.txt" 2>&1; do
    [ $SECONDS -lt $deadline ] || { cat "$logs/connector.txt" >&2; fail "the connector does not run"; }
    sleep 0.5
done
cat "$logs/connector.txt"
