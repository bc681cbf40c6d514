#!/usr/bin/env bash
# Installs what building and testing need and is not there yet. Quick and silent about what is.
#
#   scripts/setup.sh         everything
#   scripts/setup.sh build   what compiling needs
#
#   LODE_CACHE   folder for what outlives a clone (default: ~/.cache/lodestream)
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
cache=${LODE_CACHE:-$HOME/.cache/lodestream}
say() { printf 'setup: %s\n' "$*"; }
need() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# C compiler, OpenSSL, zlib and curl (tokens of OAuth) for librdkafka; Python for the checkers.
packages() {
    have cc || echo build-essential
    have make || echo make
    have pkg-config || echo pkg-config
    if ! have pkg-config || ! pkg-config --exists openssl; then echo libssl-dev; fi
    if ! have pkg-config || ! pkg-config --exists zlib; then echo zlib1g-dev; fi
    if ! have pkg-config || ! pkg-config --exists libcurl; then echo libcurl4-openssl-dev; fi
    if [ "$what" = all ] && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then echo python3-venv; fi
}
missing=$(packages | sort -u | tr '\n' ' ')
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && have apt-get; then
        say "installing $missing"
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        need "missing: $missing; hint: install them (Debian names), then run this again"
    fi
fi

# The compiler that rust-toolchain.toml names, with its components and the target of the modules.
have rustup || need "rustup is missing; hint: install it from your distribution or its home page"
field() { sed -n "s/^$1 *= *//p" rust-toolchain.toml | tr -d '[]",'; }
channel=$(field channel)
if ! rustup run "$channel" rustc --version >/dev/null 2>&1; then
    say "installing the Rust toolchain $channel"
    rustup toolchain install "$channel" --profile minimal --no-self-update
fi
installed=$(rustup component list --installed --toolchain "$channel")
for component in $(field components); do
    grep -q "^$component" <<<"$installed" || { say "adding $component"; rustup component add "$component" --toolchain "$channel"; }
done
installed=$(rustup target list --installed --toolchain "$channel")
for target in $(field targets); do
    grep -qx "$target" <<<"$installed" || { say "adding $target"; rustup target add "$target" --toolchain "$channel"; }
done

[ "$what" = all ] || exit 0

# The checkers' Python: independent readers of Delta tables, pinned.
venv=$cache/venv
if ! cmp -s tests/requirements.txt "$venv/requirements.txt"; then
    say "making the checkers' Python in $venv"
    rm -rf "$venv"
    mkdir -p "$cache"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt "$venv/requirements.txt"
fi
