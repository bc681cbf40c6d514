#!/usr/bin/env bash
# demo.sh PROGRAMS MODULES FOLDER: the example `shop` from an embedded broker into Delta tables in FOLDER.
set -euo pipefail
programs=$1 modules=$2 folder=$3
cd "$(dirname "$0")/.."

lode=$programs/lode
rm -rf "$folder/lake"
mkdir -p "$folder"
cp "$modules/shop_customers.wasm" examples/shop/events.jsonl.gz "$folder"

# the broker lives until its standard input closes, that is, as long as this script
coproc broker { "$programs/broker" --capture examples/shop/events.jsonl.gz --seed 1; }
read -r _ address <&"${broker[0]}"
read -r _ records <&"${broker[0]}"
sed "s/localhost:9092/$address/" examples/shop/pipeline.toml >"$folder/pipeline.toml"
cd "$folder"

show() {
    printf '\n\033[1m$ lode'
    for word in "$@"; do
        case $word in *" "*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\033[0m\n'
    "$lode" "$@"
}

echo "$records change events of three tables wait on $address"
show run pipeline.toml --until-end
show status pipeline.toml
show query pipeline.toml "SELECT customer_id, email, phone, credit_limit FROM silver.customers ORDER BY customer_id LIMIT 5"
show query pipeline.toml "SELECT status, count(*) AS orders, sum(total_amount) AS amount FROM silver.orders GROUP BY status ORDER BY status"
show query pipeline.toml "SELECT _op, count(*) AS events FROM bronze.\"demo.shop.orders\" GROUP BY _op ORDER BY _op"

cat <<TXT

Every event is in Bronze once; Silver is the database as it is now, the customers masked by a WebAssembly module.
Any reader of Delta tables can read $folder/lake.

Try next, in $folder:
  $lode query pipeline.toml "SELECT …"          ask something else
  $lode dead-letters pipeline.toml              what could not be applied (here: nothing)
  edit pipeline.toml: [source.replay] files = "events.jsonl.gz", then
  $lode run pipeline.toml --until-end           the same without a broker: nothing is there twice
TXT
