#!/usr/bin/env bash
# down.sh [--kill] [--wipe] [mysql] [kafka] [connect] [azurite] [shop]: ends these (without a name: all), each by the pid that
# up.sh wrote. --kill: at once, as a crash would; --wipe: their data goes too.
set -euo pipefail
. "$(cd "$(dirname "$0")" && pwd)/settings.sh"
signal=TERM wipe= names=
for word in "$@"; do
    case $word in --kill) signal=KILL ;; --wipe) wipe=1 ;; *) names="$names $word" ;; esac
done
for name in ${names:-shop connect kafka azurite mysql}; do
    if alive "$name"; then
        read -r pid _ <"$run/$name.pid"
        kill -"$signal" "$pid"
        for _ in $(seq 150); do alive "$name" || break; sleep 0.2; done
        if alive "$name"; then kill -KILL "$pid"; fi
        say "$name is down"
    fi
    rm -f "$run/$name.pid"
done
if [ -n "$wipe" ]; then rm -rf "$home"; fi
