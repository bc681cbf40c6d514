#!/usr/bin/env bash
# Licences, sources, bans and advisories of the dependencies, by deny.toml. Ends with 1 for what it found alone: where the
# database of advisories cannot be fetched (it comes by git), it says so and checks the rest.
#
#   LODE_CACHE   folder for what outlives a clone (default: ~/.cache/lodestream); cargo-deny is installed there if it is
#                missing, which takes some minutes, once
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
say() { printf 'deny: %s\n' "$*" >&2; }

if ! command -v cargo-deny >/dev/null; then
    home=${LODE_CACHE:-$HOME/.cache/lodestream}/cargo-deny-$version
    export PATH=$home/bin:$PATH
    if ! command -v cargo-deny >/dev/null; then
        say "installing cargo-deny $version into $home: some minutes, once"
        env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$home" --version "$version" cargo-deny
    fi
fi

found=0
cargo deny check --hide-inclusion-graph licenses bans sources || found=1
if cargo deny fetch db; then
    cargo deny check --disable-fetch --hide-inclusion-graph advisories || found=1
else
    say "advisories were not checked: their database cannot be fetched"
    say "hint: run it where git reaches the address of \`db-urls\`, by default that of RustSec"
fi
exit "$found"
