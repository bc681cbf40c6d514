#!/usr/bin/env bash
# up.sh [mysql] [kafka] [connect] [azurite] [shop]: starts these (without a name: all but the shop) and waits until they
# answer. What runs already is left alone. Everything listens on the loopback address only.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/settings.sh"
umask 077
mkdir -p "$data" "$run" "$logs" "$conf"

# One secret of this stack, made once: the password of the database and of the broker, and the storage's key.
[ -s "$home/secret" ] || head -c 48 /dev/urandom | base64 -w0 >"$home/secret"
secret=$(<"$home/secret")

start() { # NAME COMMAND...
    local name=$1
    shift
    nohup setsid "$@" >>"$logs/$name.log" 2>&1 </dev/null &
    printf '%s %s\n' $! "$(birth $!)" >"$run/$name.pid"
}
await() { # NAME SECONDS COMMAND...
    local name=$1 end=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        alive "$name" || { tail -n 5 "$logs/$name.log" >&2; fail "$name ended; hint: see $logs/$name.log"; }
        [ $SECONDS -lt $end ] || fail "$name does not answer; hint: see $logs/$name.log"
        sleep 0.2
    done
    say "$name is up"
}
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# Who answers on a port that was taken is another stack, and what is meant for this one would be written there.
free() { # PORT...
    local port
    for port; do
        if listens "$port"; then fail "port $port is taken; hint: end what listens there, or choose other ports by STACK_*_PORT"; fi
    done
}
logging="-Dorg.slf4j.simpleLogger.showDateTime=true -Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients=warn"
# A virtual machine that lives for minutes: the quick compiler is enough, and memory is scarce.
small="-XX:+UseSerialGC -XX:TieredStopAtLevel=1"

mysql() {
    local base=$downloads/mysql at=$data/mysql
    local options=(--no-defaults --user="$(id -un)" --basedir="$base" --datadir="$at" --lc-messages-dir="$base/share")
    free "$STACK_MYSQL_PORT"
    if [ ! -d "$at/mysql" ]; then
        mkdir -p "$at"
        "$base/bin/mysqld" "${options[@]}" --initialize-insecure >>"$logs/mysql.log" 2>&1
        # `shop` owns the store; `cdc` has what Debezium needs and no more.
        cat >"$conf/users.sql" <<SQL
CREATE USER 'shop'@'127.0.0.1' IDENTIFIED BY '$secret';
GRANT ALL ON online_store.* TO 'shop'@'127.0.0.1';
GRANT ALL ON store_dw.* TO 'shop'@'127.0.0.1';
CREATE USER 'cdc'@'127.0.0.1' IDENTIFIED BY '$secret';
GRANT SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT, LOCK TABLES ON *.* TO 'cdc'@'127.0.0.1';
SQL
        options+=(--init-file="$conf/users.sql")
    fi
    start mysql "$base/bin/mysqld" "${options[@]}" --socket="$run/mysql.sock" --pid-file="$run/mysqld.own" \
        --bind-address=127.0.0.1 --port="$STACK_MYSQL_PORT" --mysqlx=0 --skip-name-resolve --server-id=1 \
        --log-bin=binlog --binlog-format=ROW --binlog-row-image=FULL --binlog-row-metadata=FULL \
        --gtid-mode=ON --enforce-gtid-consistency=ON --default-authentication-plugin=mysql_native_password \
        --default-time-zone=+00:00 --innodb-buffer-pool-size=64M --performance-schema=OFF
    await mysql 60 "$python" "$here/shop.py" ping
}

# The broker's key and certificate, signed by itself; broker.crt is what a client trusts.
certificate() {
    [ -s "$conf/broker.crt" ] && return
    rm -f "$conf/broker.p12"
    printf '%s' "$secret" >"$conf/broker.pass"
    local store=(-keystore "$conf/broker.p12" -storetype PKCS12 -storepass:file "$conf/broker.pass" -alias broker)
    keytool -genkeypair "${store[@]}" -keyalg EC -validity 3650 -dname CN=127.0.0.1 -ext san=ip:127.0.0.1 2>>"$logs/kafka.log"
    keytool -exportcert "${store[@]}" -rfc -file "$conf/broker.crt" 2>>"$logs/kafka.log"
}

kafka() {
    local classes="$downloads/kafka-libs/*" quiet=-Dorg.slf4j.simpleLogger.defaultLogLevel=error
    free "$STACK_KAFKA_PORT" "$STACK_SASL_PORT" "$STACK_TLS_PORT" "$STACK_CONTROLLER_PORT"
    certificate
    cat >"$conf/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$STACK_CONTROLLER_PORT
listeners=PLAINTEXT://127.0.0.1:$STACK_KAFKA_PORT,SASL_PLAINTEXT://127.0.0.1:$STACK_SASL_PORT,SASL_SSL://127.0.0.1:$STACK_TLS_PORT,CONTROLLER://127.0.0.1:$STACK_CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$STACK_KAFKA_PORT,SASL_PLAINTEXT://127.0.0.1:$STACK_SASL_PORT,SASL_SSL://127.0.0.1:$STACK_TLS_PORT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_lode="$secret";
listener.name.sasl_ssl.ssl.keystore.type=PKCS12
listener.name.sasl_ssl.ssl.keystore.location=$conf/broker.p12
listener.name.sasl_ssl.ssl.keystore.password=$secret
listener.name.sasl_ssl.sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms=3600000
log.dirs=$data/kafka
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=16777216
P
    if [ ! -f "$data/kafka/meta.properties" ]; then
        local id
        id=$(java -Xmx128m $quiet -cp "$classes" kafka.tools.StorageTool random-uuid 2>/dev/null)
        java -Xmx128m $quiet -cp "$classes" kafka.tools.StorageTool format -t "$id" -c "$conf/server.properties" \
            --add-scram "SCRAM-SHA-512=[name=lode,password=$secret]" >>"$logs/kafka.log" 2>&1
    fi
    # shellcheck disable=SC2086 # lists of words
    start kafka java -Xmx512m $small $logging -cp "$classes" kafka.Kafka "$conf/server.properties"
    await kafka 90 listens "$STACK_TLS_PORT"
}

connect() {
    free "$STACK_CONNECT_PORT"
    cat >"$conf/connect.properties" <<P
bootstrap.servers=127.0.0.1:$STACK_KAFKA_PORT
group.id=stack
listeners=http://127.0.0.1:$STACK_CONNECT_PORT
rest.advertised.host.name=127.0.0.1
plugin.path=$downloads/plugins
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
config.storage.topic=_connect_configs
offset.storage.topic=_connect_offsets
status.storage.topic=_connect_status
config.storage.replication.factor=1
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.replication.factor=1
status.storage.partitions=1
offset.flush.interval.ms=2000
scheduled.rebalance.max.delay.ms=0
P
    # shellcheck disable=SC2086 # lists of words
    start connect java -Xmx512m $small $logging -cp "$downloads/kafka-libs/*" \
        org.apache.kafka.connect.cli.ConnectDistributed "$conf/connect.properties"
    await connect 150 curl -fs -m 3 "http://127.0.0.1:$STACK_CONNECT_PORT/connectors"
}

azurite() {
    free "$STACK_BLOB_PORT"
    AZURITE_ACCOUNTS="devstoreaccount1:$secret" start azurite node "$downloads/azurite/node_modules/azurite/dist/src/blob/main.js" \
        --blobHost 127.0.0.1 --blobPort "$STACK_BLOB_PORT" --location "$data/azurite" --silent --disableTelemetry --skipApiVersionCheck
    await azurite 60 listens "$STACK_BLOB_PORT"
}

# The store itself: transactions without an end, STACK_RATE a second.
shop() {
    start shop "$python" "$here/shop.py" run --rate "${STACK_RATE:-20}" --seed "${STACK_SEED:-1}"
    say "the store works at ${STACK_RATE:-20} transactions a second"
}

# shellcheck disable=SC2048 # a list of names
for name in ${*:-mysql azurite kafka connect}; do alive "$name" || "$name"; done
