# What the scripts of the stack agree on: folders, ports, versions. Sourced, never run.
# LODE_CACHE holds what was downloaded, LODE_STACK what runs (data, logs, pid files); both outlive a clone.

downloads=${LODE_CACHE:-$HOME/.cache/lodestream}/stack
home=${LODE_STACK:-$downloads/home}
data=$home/data run=$home/run logs=$home/logs conf=$home/conf
python=$downloads/venv/bin/python

# Listeners of the broker: Connect takes the plain one, lode one that asks for a password, or by TLS for a password or a token.
: "${STACK_MYSQL_PORT:=23306}" "${STACK_KAFKA_PORT:=29092}" "${STACK_SASL_PORT:=29094}" "${STACK_CONTROLLER_PORT:=29093}" "${STACK_TLS_PORT:=29095}"
: "${STACK_CONNECT_PORT:=28083}" "${STACK_BLOB_PORT:=21000}"

debezium=3.6.1.Final mysql_jar=8.0.12-5 azurite=3.35.0

say() { printf 'stack: %s\n' "$*"; }
fail() { printf 'stack: %s\n' "$*" >&2; exit 1; }

# A pid alone may have gone to another process; with its start time it has not.
birth() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
alive() {
    local pid born
    read -r pid born 2>/dev/null <"$run/$1.pid" && [ "$(birth "$pid")" = "$born" ]
}
