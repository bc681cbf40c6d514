//! Hostile guests. Each must be contained, and named in words that help; the table of them is printed
//! (`cargo test -- --nocapture`).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use serde_json::json;

use super::super::inspect;
use super::guests::{Claim, DATA, Guest, echo_after};
use super::{batch, built, driving};
use crate::error::Result;
use crate::transform::{Applied, Engine, Limits};

/// Tight limits, so that the faults are quick.
static TIGHT: LazyLock<Engine> = LazyLock::new(|| {
    Engine::new(Limits {
        memory_bytes: 8 << 20,
        // Long enough for a busy machine to run an honest call in.
        call_time: Duration::from_millis(150),
        output_bytes: 1 << 20,
        output_rows: 1_000,
        log_lines: 3,
        log_line_bytes: 20,
        error_bytes: 300,
        search_time: Duration::from_secs(20),
        ..Limits::default()
    })
    .unwrap()
});

pub(super) fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    batch(vec![("n", Arc::new(Int64Array::from_iter_values(values)) as ArrayRef)])
}

pub(super) fn run(wasm: &[u8], rows: &RecordBatch) -> Result<Applied> {
    let module = TIGHT.load(wasm, "guest")?;
    module.describe(&json!({}), &[driving("t", rows, &[])])?.apply(rows)
}

/// What became of three batches of one row: the reason it was rejected for, or the error.
fn verdict(wasm: &[u8]) -> String {
    let rows = numbers([7]);
    let prepared =
        TIGHT.load(wasm, "guest").and_then(|module| module.describe(&json!({}), &[driving("t", &rows, &[])]));
    let word = |applied: Result<Applied>| match applied {
        Err(error) => format!("refused: {error}"),
        Ok(applied) if applied.failed == 1 => format!("row rejected: {}", applied.rejected[0].1),
        Ok(Applied { logs_dropped: 0, rows, .. }) => format!("went through with {} rows", rows.num_rows()),
        Ok(Applied { logs_dropped, rows, .. }) => {
            format!("went through with {} rows, {logs_dropped} log lines dropped", rows.num_rows())
        }
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return format!("refused: {error}"),
    };
    let mut words: Vec<String> = (0..3).map(|_| word(prepared.apply(&rows))).collect();
    words.dedup();
    words.join(" | then: ")
}

fn u32s(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A claim of four texts with these offsets and this data.
fn texts(offsets: [u32; 5], data: &[u8]) -> Guest {
    let mut bytes = u32s(&offsets);
    bytes.extend(data);
    let claim =
        Claim { buffers: vec![[1, 0], [DATA, 20], [DATA + 20, data.len() as u32]], data: bytes, ..Claim::sound() };
    Guest { writes: vec![("out", "u", true, 0)], ..claim.guest() }
}

fn claiming(change: impl FnOnce(&mut Claim)) -> Guest {
    let mut claim = Claim::sound();
    change(&mut claim);
    claim.guest()
}

pub(super) fn doing(before: &str) -> Guest {
    Guest { transform: echo_after(before), ..Guest::default() }
}

fn with(guest: Guest, change: impl FnOnce(&mut Guest)) -> Guest {
    let mut guest = guest;
    change(&mut guest);
    guest
}

#[test]
fn hostile_guests_are_contained_and_named() {
    let default = Guest::default;
    let cases: Vec<(&str, Guest, &str)> = vec![
        ("sound", default(), "went through with 1 rows"),
        ("sound claim", Claim::sound().guest(), "went through with 4 rows"),
        // what it does
        ("trap", doing("unreachable"), "it trapped"),
        ("endless loop", doing("(loop $l (br $l))"), "ran longer than `150 ms`"),
        (
            "deep recursion",
            with(doing("(call $deep)"), |g| g.more = "(func $deep (call $deep) (call $deep))".into()),
            "recursed",
        ),
        (
            "out of memory",
            doing("(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))"),
            "more memory than `8 MiB`",
        ),
        ("reads outside its memory", doing("(drop (i32.load (i32.const -8)))"), "outside its memory"),
        (
            "trap on the nth batch",
            with(doing("(if (i32.eqz (global.get $left)) (then unreachable)) (global.set $left (i32.const 0))"), |g| {
                g.more = "(global $left (mut i32) (i32.const 1))".into()
            }),
            "went through with 1 rows",
        ),
        (
            "memory that remembers a batch",
            doing("(if (i32.load (i32.const 200000)) (then unreachable)) (i32.store (i32.const 200000) (i32.const 1))"),
            "went through with 1 rows",
        ),
        (
            "grown memory that remembers a batch",
            doing(
                "(drop (memory.grow (i32.const 60)))
                 (if (i32.load (i32.const 4000000)) (then unreachable)) (i32.store (i32.const 4000000) (i32.const 1))",
            ),
            "went through with 1 rows",
        ),
        (
            "table that remembers a batch",
            with(
                doing(
                    "(if (i32.eqz (ref.is_null (table.get $t (i32.const 9)))) (then unreachable))
                       (table.set $t (i32.const 9) (ref.func $f))",
                ),
                |g| g.more = "(table $t 10 funcref) (func $f) (elem declare func $f)".into(),
            ),
            "went through with 1 rows",
        ),
        (
            "log flood",
            doing(
                "(loop $l (call $log (i32.const 2) (i32.const 16384) (i32.const 30)) (br_if $l (i32.lt_u
                    (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 500))))",
            ),
            "went through with 1 rows, 497 log lines dropped",
        ),
        ("division by zero", doing("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), "divided by zero"),
        (
            "endless allocation",
            with(default(), |g| g.realloc = "(loop $l (br $l)) (local.get $at)".into()),
            "ran longer than",
        ),
        ("allocates outside", with(default(), |g| g.realloc = "(i32.const -16)".into()), "realloc return"),
        (
            "log that is not text",
            with(doing("(call $log (i32.const 1) (i32.const 16384) (i32.const 2))"), |g| {
                g.more = format!("(data (i32.const {DATA}) \"\\ff\\fe\")")
            }),
            "utf-8",
        ),
        ("log of no level", doing("(call $log (i32.const 77) (i32.const 0) (i32.const 0))"), "discriminant"),
        ("log from outside", doing("(call $log (i32.const 1) (i32.const -1) (i32.const 100))"), "out of bounds"),
        // what it claims
        ("length past the rows", claiming(|c| c.length = 5), "`5` values where there are `4`"),
        ("length that overflows", claiming(|c| c.length = u32::MAX), "values where there are `4`"),
        ("short buffer", claiming(|c| c.buffers[1][1] = 31), "`31` bytes where `32`"),
        ("long buffer", claiming(|c| c.buffers[1][1] = 33), "`33` bytes where `32`"),
        ("huge buffer", claiming(|c| c.buffers[1][1] = u32::MAX), "out of bounds"),
        ("buffer outside", claiming(|c| c.buffers[1] = [u32::MAX - 7, 32]), "out of bounds"),
        ("no buffers", claiming(|c| c.buffers = vec![]), "`0` buffers where `Int64` has `2`"),
        ("many buffers", claiming(|c| c.buffers = vec![[DATA, 32]; 8]), "8` buffers"),
        ("children", claiming(|c| c.children = 1), "`1` children"),
        ("nulls without validity", claiming(|c| c.null_count = 1), "without a validity buffer"),
        (
            "wrong null count",
            claiming(|c| {
                c.null_count = 1;
                c.buffers[0] = [DATA, 1];
            }),
            "claims `1` nulls where its validity has `3`",
        ),
        (
            "long validity",
            claiming(|c| {
                c.null_count = 3;
                c.buffers[0] = [DATA, 2];
            }),
            "`2` bytes where `1`",
        ),
        (
            "nulls where none may be",
            with(
                claiming(|c| {
                    c.null_count = 3;
                    c.buffers[0] = [DATA, 1];
                }),
                |g| g.writes = vec![("out", "l", false, 0)],
            ),
            "declared without",
        ),
        ("offset outside", texts([0, 1, 2, 3, 9], b"abcd"), "last offset is `9`"),
        ("offset that falls", texts([0, 3, 2, 3, 4], b"abcd"), "less than the one before"),
        ("negative offset", texts([0, u32::MAX, 2, 3, 4], b"abcd"), "less than the one before"),
        ("offset not from 0", texts([1, 1, 2, 3, 4], b"abcd"), "first offset is `1`"),
        ("data past the offsets", texts([0, 1, 2, 3, 3], b"abcd"), "last offset is `3`"),
        ("invalid UTF-8", texts([0, 1, 2, 3, 4], b"ab\xffd"), "not UTF-8 at byte `2`"),
        ("half a character", texts([0, 1, 2, 3, 4], "äö".as_bytes()), "inside a character"),
        (
            "too many digits",
            with(
                claiming(|c| {
                    c.data = [i128::MAX; 4].into_iter().flat_map(i128::to_le_bytes).collect();
                    c.buffers[1][1] = 64;
                }),
                |g| g.writes = vec![("out", "d:5,2", true, 0)],
            ),
            "more than the `5` digits",
        ),
        (
            "wrong type",
            with(Claim::sound().guest(), |g| g.writes = vec![("out", "i", true, 0)]),
            "`32` bytes where `16`",
        ),
        (
            "too few columns",
            with(Claim::sound().guest(), |g| g.writes.push(("two", "l", true, 1))),
            "`1` columns where it declared `2`",
        ),
        (
            "source row outside",
            claiming(|c| {
                c.source_rows = Some([DATA + 32, 4]);
                c.data.extend(u32s(&[0, 1, 2, 4]));
            }),
            "comes from row `1`",
        ),
        (
            "more rows than allowed",
            claiming(|c| {
                c.source_rows = Some([DATA, 1_001]);
                c.data = vec![0; 1_001 * 4];
                c.length = 1_001;
            }),
            "`1001` rows, more than `1000`",
        ),
        (
            "rejected row outside",
            claiming(|c| {
                c.source_rows = Some([DATA, 0]);
                c.rejected = [DATA, 1];
                c.data = u32s(&[9, 1, 0]);
            }),
            "row `9` is rejected",
        ),
        (
            "rejected without source rows",
            claiming(|c| {
                c.source_rows = None;
                c.rejected = [DATA, 1];
                c.data = u32s(&[0, 1, 0]);
            }),
            "one to one",
        ),
        (
            "many rejections",
            claiming(|c| {
                c.rejected = [DATA, 5];
                c.data = u32s(&[0; 15]);
            }),
            "rejected `5` of `1`",
        ),
        (
            "rejected and a source row",
            claiming(|c| {
                c.rejected = [DATA, 1];
                c.data = u32s(&[0, 1, 0]);
            }),
            "both rejected and a source row",
        ),
        ("output list outside", claiming(|c| c.source_rows = Some([DATA, u32::MAX / 4])), "out of bounds"),
        ("unaligned list", claiming(|c| c.source_rows = Some([DATA + 1, 4])), "aligned"),
        (
            "whole-batch error",
            with(default(), |g| {
                g.transform = "(i32.const 16384)".into();
                g.more = format!(
                    "(data (i32.const {DATA}) \"\\01\\00\\00\\00\\20\\40\\00\\00\\03\\00\\00\\00\") (data (i32.const 16416) \"no\\0a\")"
                );
            }),
            "no\\n",
        ),
        (
            "huge output",
            with(
                Claim {
                    buffers: vec![[1, 0], [DATA, 20], [0, 2 << 20]],
                    data: u32s(&[0, 0, 0, 0, 2 << 20]),
                    ..Claim::sound()
                }
                .guest(),
                |g| {
                    g.writes = vec![("out", "u", true, 0)];
                    g.memory_pages = 40;
                },
            ),
            "`1048576` bytes",
        ),
        ("the same bytes many times", claiming(|c| c.buffers = vec![[0, 200_000]; 8]), "`1048576` bytes"),
        (
            "long error",
            with(default(), |g| {
                g.transform = "(i32.const 16384)".into();
                g.more = format!("(data (i32.const {DATA}) \"\\01\\00\\00\\00\\00\\00\\00\\00\\00\\00\\02\\00\")");
            }),
            "\\u{0}…",
        ),
        (
            "long reason",
            claiming(|c| {
                c.rejected = [DATA, 1];
                c.data = u32s(&[0, 140_000, 100_000]);
                c.source_rows = Some([DATA, 0]);
                c.length = 0;
                c.buffers[1][1] = 0;
            }),
            "went through with 0 rows",
        ),
        (
            "trap while it frees its output",
            with(default(), |g| {
                g.more =
                    "(func (export \"cabi_post_lodestream:transform/guest@0.1.0#transform\") (param i32) unreachable)"
                        .into();
            }),
            "it trapped",
        ),
        // what it says of itself
        (
            "reads more columns than allowed",
            with(default(), |g| g.reads = vec![[0, 0]; 2_001]),
            "more columns than `2000`",
        ),
        ("reads a column not offered", with(default(), |g| g.reads = vec![[0, 7]]), "column 7 of relation 0"),
        ("reads a relation not offered", with(default(), |g| g.reads = vec![[3, 0]]), "relation 3"),
        ("writes nothing", with(default(), |g| g.writes = vec![]), "no output column"),
        ("writes of an unknown type", with(default(), |g| g.writes = vec![("out", "+s", true, 0)]), "format `+s`"),
        (
            "writes one column twice",
            with(default(), |g| g.writes = vec![("a", "l", true, 0), ("A", "l", true, 1)]),
            "two output columns are named `A`",
        ),
        (
            "one place twice",
            with(default(), |g| g.writes = vec![("a", "l", true, 0), ("b", "l", true, 0)]),
            "named twice",
        ),
        ("place outside", with(default(), |g| g.writes = vec![("a", "l", true, 1)]), "computed column 1 of `1`"),
        ("key outside", with(default(), |g| g.key = vec![1]), "key"),
        ("bad column name", with(default(), |g| g.writes = vec![("a;b", "l", true, 0)]), "has a `;` in its name"),
        (
            "the host's column name",
            with(default(), |g| g.writes = vec![("_seq", "l", true, 0)]),
            "host itself writes `_seq`",
        ),
        (
            "endless describe",
            with(default(), |g| g.describe = "(loop $l (br $l)) (i32.const 0)".into()),
            "failed in `describe`: it ran longer",
        ),
        ("result outside", with(default(), |g| g.describe = "(i32.const -4)".into()), "failed in `describe`"),
        // what it is
        ("another version", with(default(), |g| g.version = "9.9.9"), "version `9.9.9`"),
        (
            "unexpected import",
            with(default(), |g| {
                g.imports += "(import \"wasi_snapshot_preview1\" \"random_get\" (func (param i32 i32) (result i32)))"
            }),
            "imports `wasi_snapshot_preview1#random_get`",
        ),
        (
            "import of a later host",
            with(default(), |g| {
                g.imports += "(import \"lodestream:transform/host@0.1.0\" \"now\" (func (result i64)))"
            }),
            "host@0.1.0#now`",
        ),
        ("huge memory", with(default(), |g| g.memory_pages = 1_000), "memory"),
        ("huge table", with(default(), |g| g.more = "(table 1000000 funcref)".into()), "table"),
        ("endless start", with(default(), |g| g.more = "(func $s (loop $l (br $l))) (start $s)".into()), "ran longer"),
        ("64-bit memory", with(default(), |g| g.more = "(memory i64 1)".into()), "guest"),
    ];
    let mut wrong = Vec::new();
    println!("| guest | contained as |\n|---|---|");
    for (name, guest, expected) in cases {
        let verdict = verdict(&guest.wasm());
        println!("| {name} | {verdict} |");
        if !verdict.contains(expected) {
            wrong.push(format!("{name}: `{verdict}` does not say `{expected}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(verdict(&Guest::default().wasm()), "went through with 1 rows", "the host goes on");
}

#[test]
fn what_is_no_module_is_refused() {
    for (bytes, expected) in [
        (&b"hello"[..], "is not WebAssembly"),
        (&b""[..], "is not WebAssembly"),
        (&b"\0asm\x01\0\0\0"[..], "exports no `lodestream:transform/guest@0.1.0`"),
        (&Guest::default().wasm()[..60], "is not WebAssembly"),
    ] {
        let error = TIGHT.load(bytes, "x").err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.next_step().is_some());
    }
    let small = Engine::new(Limits { module_bytes: 100, ..Limits::default() }).unwrap();
    assert!(small.load(&Guest::default().wasm(), "x").err().unwrap().to_string().contains("more than `100`"));
    let hasty = Engine::new(Limits { compile_time: Duration::ZERO, ..Limits::default() }).unwrap();
    assert!(hasty.load(&built("shop_customers"), "x").err().unwrap().to_string().contains("did not compile within"));
}

#[test]
fn a_module_loads_again_from_memory_and_has_a_hash() {
    let bytes = Guest::default().wasm();
    let (one, two) = (TIGHT.load(&bytes, "one").unwrap(), TIGHT.load(&bytes, "two").unwrap());
    assert!(Arc::ptr_eq(&one.compiled, &two.compiled));
    assert_eq!((one.sha256(), two.name()), (two.sha256(), "two"));
    assert_eq!(one.sha256().len(), 64);
}

#[test]
fn a_flood_of_log_lines_is_cut_and_counted() {
    let guest = with(
        doing(
            "(loop $l (call $log (i32.const 2) (i32.const 16384) (i32.const 30)) (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 500))))",
        ),
        |g| g.more = format!("(data (i32.const {DATA}) \"a\\1b[31mline that is far too long\")"),
    );
    let applied = run(&guest.wasm(), &numbers(1..=4)).unwrap();
    assert_eq!((applied.logs.len(), applied.logs_dropped), (3, 497));
    assert_eq!(applied.logs[0].message, "a\\u{1b}[31mline that…");
}

#[test]
fn a_guest_cannot_multiply_passed_columns_without_bound() {
    let large: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(100_000)]));
    let rows = batch(vec![("n", Arc::new(Int64Array::from(vec![7])) as ArrayRef), ("large", large)]);
    let guest = |times: u32| {
        let mut claim = Claim { length: times, source_rows: Some([0, times]), ..Claim::sound() };
        claim.buffers[1] = [DATA, times * 8];
        with(claim.guest(), |g| g.passes = vec![("large", [0, 1])])
    };
    assert_eq!(run(&guest(4).wasm(), &rows).unwrap().rows.num_rows(), 4);
    let applied = run(&guest(40).wasm(), &rows).unwrap();
    assert_eq!(applied.failed, 1);
    assert_eq!(applied.rejected[0].1, "the rows it multiplied come to `4000000` bytes, more than `1048576`");
    let limits = Limits { batch_output_bytes: 100_000, ..Limits::default() };
    let module = Engine::new(limits).unwrap().load(&guest(4).wasm(), "guest").unwrap();
    let error = module.describe(&json!({}), &[driving("t", &rows, &[])]).unwrap().apply(&rows).unwrap_err();
    assert!(error.to_string().contains("made more than `100000` bytes of `1` rows"), "{error}");
}

#[test]
fn a_component_is_taken_as_it_is() {
    let core = Guest::default().wasm();
    let component = inspect::to_component(&core, inspect::BinaryKind::Core).unwrap();
    assert_eq!(inspect::inspect(&component, "c").unwrap(), inspect::BinaryKind::Component);
    assert_eq!(run(&component, &numbers([5, 6])).unwrap().rows.num_rows(), 2);
    let newer = Guest { version: "0.2.0", ..Guest::default() };
    assert!(inspect::inspect(&newer.wasm(), "c").unwrap_err().to_string().contains("version `0.2.0`"));
}

/// wit-bindgen's guests free their output in `cabi_post_…`, which runs before the call returns.
#[test]
fn output_is_copied_before_a_guest_frees_it() {
    let guest = with(Claim::sound().guest(), |g| {
        g.more += "(func (export \"cabi_post_lodestream:transform/guest@0.1.0#transform\") (param i32)
            (memory.fill (i32.const 4096) (i32.const 255) (i32.const 32768)))";
    });
    let applied = run(&guest.wasm(), &numbers([7])).unwrap();
    assert_eq!(applied.rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3, 4], "{:?}", applied.rejected);
}
