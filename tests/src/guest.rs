//! Modules written by hand in WebAssembly text: good ones that mark their rows, and ones that do harm.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// What a guest does with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// gives each row the number in the column `mark`
    Mark(i64),
    /// gives each row the digit before the last byte of its params
    MarkOfParams,
    /// as `Mark(3)` for batches of up to so many rows; rejects every row of a larger one
    RejectAbove(u32),
    /// half of a good module's file
    Partial,
    /// no WebAssembly at all
    Junk,
    /// traps
    Trap,
    /// never ends
    Loop,
    /// takes all the memory there is
    Eat,
    /// says that its column is a row longer than its rows
    Lie,
    /// speaks a version of the contract that does not exist
    WrongVersion,
    /// makes the column `mark` a text
    Incompatible,
}

/// Those that must be refused, with a word of the reason.
pub const HARMFUL: [(Behaviour, &str); 8] = [
    (Behaviour::Partial, "WebAssembly"),
    (Behaviour::Junk, "WebAssembly"),
    (Behaviour::Trap, "trapped"),
    (Behaviour::Loop, "ms"),
    (Behaviour::Eat, "memory"),
    (Behaviour::Lie, "mark"),
    (Behaviour::WrongVersion, "version"),
    (Behaviour::Incompatible, "cannot become"),
];

/// The file of a module that keeps the first column of its table under the name `key`; no two `nonce` give the same.
pub fn module(behaviour: Behaviour, key: &str, nonce: usize) -> Vec<u8> {
    match behaviour {
        Behaviour::Junk => format!("not a module, number {nonce}").into_bytes(),
        Behaviour::Partial => {
            let whole = module(Behaviour::Mark(0), key, nonce);
            whole[..whole.len() / 2].to_vec()
        }
        _ => wat::parse_str(text(behaviour, key, nonce)).expect("sound WebAssembly text"),
    }
}

/// The sha256 of a file, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a string");
        hex
    })
}

// Places in the guest's memory.
const DESCRIPTION: u32 = 1024;
const WRITES: u32 = 1100;
const TEXTS: u32 = 2000;
const OUTPUT: u32 = 4096;
const COLUMN: u32 = 4160;
const BUFFERS: u32 = 4200;
const NONCE: u32 = 8000;

fn text(behaviour: Behaviour, key: &str, nonce: usize) -> String {
    let version = if behaviour == Behaviour::WrongVersion { "9.9.9" } else { "0.1.0" };
    let format = if behaviour == Behaviour::Incompatible { "u" } else { "l" };
    let mark = match behaviour {
        Behaviour::Mark(mark) => mark,
        Behaviour::RejectAbove(_) => 3,
        _ => -1,
    };
    let mark = match behaviour {
        Behaviour::MarkOfParams => "(i64.extend_i32_u (i32.add (i32.const -48)
            (i32.load8_u (i32.sub (i32.add (local.get 0) (local.get 1)) (i32.const 2)))))"
            .to_owned(),
        _ => format!("(i64.const {mark})"),
    };
    let limit = if let Behaviour::RejectAbove(rows) = behaviour { i64::from(rows) } else { i64::from(u32::MAX) };
    let more = u32::from(behaviour == Behaviour::Lie);
    let first = match behaviour {
        Behaviour::Trap => "unreachable",
        Behaviour::Loop => "(loop (br 0))",
        Behaviour::Eat => {
            "(loop (br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 256)))))
             (drop (i32.load8_u offset=65535 (i32.shl (memory.size) (i32.const 16))))"
        }
        _ => "",
    };
    let name_bytes = key.len() as u32;
    // ok(description): no column read, one passed, one computed, the passed one is the key
    let description = words(&[0, 4, 0, WRITES, 2, WRITES + 56, 1, 0]);
    let writes = words(
        &[[1, TEXTS, name_bytes, 0, 0, 0, 0], [0, TEXTS + name_bytes, 4, TEXTS + name_bytes + 4, 1, 1, 0]].concat(),
    );
    // ok(output): one column, one to one, nothing rejected
    let output = words(&[0, COLUMN, 1, 0, 0, 0, 4, 0]);
    let passed_key = words(&[0]);
    format!(
        "(module
            (memory (export \"memory\") 4)
            (global $top (mut i32) (i32.const 65536))
            (func $realloc (export \"cabi_realloc\") (param i32 i32 i32) (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
                (global.set $top (i32.add (local.get $at) (local.get $size)))
                (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
                    (then (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $size) (i32.const 16)))))))
                (local.get $at))
            (func $reject (param $rows i32) (result i32)
                (local $list i32) (local $n i32) (local $at i32)
                (local.set $list (call $realloc (i32.const 0) (i32.const 0) (i32.const 4)
                    (i32.mul (local.get $rows) (i32.const 12))))
                (block $done (loop $next
                    (br_if $done (i32.ge_u (local.get $n) (local.get $rows)))
                    (local.set $at (i32.add (local.get $list) (i32.mul (local.get $n) (i32.const 12))))
                    (i32.store (local.get $at) (local.get $n))
                    (i32.store offset=4 (local.get $at) (i32.const {NONCE}))
                    (i32.store offset=8 (local.get $at) (i32.const 1))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br $next)))
                (local.get $list))
            (func (export \"lodestream:transform/guest@{version}#describe\") (param i32 i32 i32 i32) (result i32)
                (i32.const {DESCRIPTION}))
            (func (export \"lodestream:transform/guest@{version}#transform\")
                (param i32 i32 i32 i32) (param $rows i32) (param i32 i32) (result i32)
                (local $values i32) (local $n i32)
                {first}
                (local.set $values (call $realloc (i32.const 0) (i32.const 0) (i32.const 8)
                    (i32.mul (local.get $rows) (i32.const 8))))
                (block $done (loop $next
                    (br_if $done (i32.ge_u (local.get $n) (local.get $rows)))
                    (i64.store (i32.add (local.get $values) (i32.mul (local.get $n) (i32.const 8))) {mark})
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (br $next)))
                (if (i64.gt_u (i64.extend_i32_u (local.get $rows)) (i64.const {limit})) (then
                    (i32.store (i32.const {COLUMN}) (i32.const 0))
                    (i32.store offset=8 (i32.const {COLUMN}) (i32.const {BUFFERS}))
                    (i32.store offset=12 (i32.const {COLUMN}) (i32.const 2))
                    (i32.store (i32.const {BUFFERS}) (i32.const 4))
                    (i32.store offset=8 (i32.const {BUFFERS}) (i32.const 8))
                    (i32.store8 offset=12 (i32.const {OUTPUT}) (i32.const 1))
                    (i32.store offset=16 (i32.const {OUTPUT}) (i32.const 4))
                    (i32.store offset=24 (i32.const {OUTPUT}) (call $reject (local.get $rows)))
                    (i32.store offset=28 (i32.const {OUTPUT}) (local.get $rows))
                    (return (i32.const {OUTPUT}))))
                (i32.store (i32.const {COLUMN}) (i32.add (local.get $rows) (i32.const {more})))
                (i32.store offset=8 (i32.const {COLUMN}) (i32.const {BUFFERS}))
                (i32.store offset=12 (i32.const {COLUMN}) (i32.const 2))
                (i32.store (i32.const {BUFFERS}) (i32.const 4))
                (i32.store offset=8 (i32.const {BUFFERS}) (local.get $values))
                (i32.store offset=12 (i32.const {BUFFERS}) (i32.mul (local.get $rows) (i32.const 8)))
                (i32.const {OUTPUT}))
            (data (i32.const {DESCRIPTION}) \"{description}\")
            (data (i32.const {WRITES}) \"{writes}{passed_key}\")
            (data (i32.const {TEXTS}) \"{key}mark{format}\")
            (data (i32.const {OUTPUT}) \"{output}\")
            (data (i32.const {NONCE}) \"{nonce}\"))"
    )
}

fn words(words: &[u32]) -> String {
    words.iter().flat_map(|word| word.to_le_bytes()).fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").expect("writing to a string");
        text
    })
}
