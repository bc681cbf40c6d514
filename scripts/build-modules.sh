#!/usr/bin/env bash
# Builds every module of transforms/ for WebAssembly and copies the .wasm files to a folder.
#
#   scripts/build-modules.sh [folder]        default: transforms/target/modules
#
# MODULES_WORKSPACE builds another Cargo workspace of modules (examples/modules, say), MODULES_TARGET_DIR elsewhere.
#
# Needs the Rust target wasm32-unknown-unknown. Where it is missing, rustup is asked for it; where rustup cannot reach
# its server, Debian's rustc-web and rust-web-src build the standard library for it (about two CPU minutes, once).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=wasm32-unknown-unknown
workspace=${MODULES_WORKSPACE:-$root/transforms}
target_dir=${MODULES_TARGET_DIR:-$workspace/target}
out=${1:-$target_dir/modules}

cd "$workspace"
# The host resets what a module may have touched after every call, the stack first: a small one is quicker.
options=(--config "target.$target.rustflags=['-Clink-arg=-zstack-size=131072']")
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] && ! rustup target add "$target"; then
    if ! [ -x /usr/bin/rustc ] || ! [ -d /usr/lib/rustlib/wasm32-unknown-unknown ] && ! ls /usr/src/rustc-*/library >/dev/null 2>&1; then
        echo "the Rust target $target is missing: rustup cannot reach its server, and Debian's rustc-web and rust-web-src are not installed" >&2
        echo "try: apt-get install rustc-web rust-web-src" >&2
        exit 1
    fi
    # Another compiler than the workspace's: its files must not mix with ours.
    target_dir=$target_dir-debian
    lld=$(ls "$(rustc --print sysroot)"/lib/rustlib/*/bin/rust-lld 2>/dev/null | head -n 1 || true)
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=${lld:-wasm-ld-19}
    options+=(-Zbuild-std=std,panic_abort)
fi
cargo build --release --target "$target" --target-dir "$target_dir" "${options[@]}"

mkdir -p "$out"
# Each package of the workspace is one module.
for id in $(cargo metadata --no-deps --format-version 1 | grep -o '"name":"[^"]*","version"' | grep -o '"name":"[^"]*"' | cut -d '"' -f 4); do
    module=${id//-/_}
    # Copied beside, then renamed: whoever watches the folder sees whole files only.
    cp "$target_dir/$target/release/$module.wasm" "$out/.$module.wasm.new"
    mv "$out/.$module.wasm.new" "$out/$module.wasm"
    printf '%8d  %s\n' "$(stat -c %s "$out/$module.wasm")" "$out/$module.wasm"
done
