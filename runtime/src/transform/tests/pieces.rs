//! Rows that make a module fail are found, and pieces of a batch on several cores give what one piece gives.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use serde_json::json;

use super::faults::{doing, numbers, run};
use super::{batch, built, decimals, driving};
use crate::error::Result;
use crate::transform::{Applied, Engine, Limits};

/// An engine that gives a module at most `rows` rows a call.
fn engine(rows: usize) -> Engine {
    Engine::new(Limits { input_rows: rows, ..Limits::default() }).unwrap()
}

fn apply(engine: &Engine, wasm: &[u8], rows: &RecordBatch) -> Result<Applied> {
    engine.load(wasm, "guest")?.describe(&json!({}), &[driving("t", rows, &[])])?.apply(rows)
}

/// Fails unless both say the same of every row.
fn expect_same(pieces: &Applied, whole: &Applied) {
    assert_eq!(pieces.rows, whole.rows);
    assert_eq!(pieces.source_rows, whole.source_rows);
    assert_eq!(pieces.rejected, whole.rejected);
    assert_eq!(pieces.failed, whole.failed);
}

#[test]
fn pieces_on_several_cores_give_what_one_piece_gives() {
    let count = 20_011;
    let interests = (0..count).map(|n| match n % 7 {
        0 => None,
        1 => Some(String::new()),
        some => Some((0..some).map(|k| format!("ü{n}-{k}")).collect::<Vec<_>>().join(",")),
    });
    let mut items = batch(vec![
        ("customer_id", decimals(&(0..count).map(|n| Some(n as i128)).collect::<Vec<_>>(), 20, 0)),
        ("interests", Arc::new(StringArray::from_iter(interests)) as ArrayRef),
    ]);
    let (whole, small) = (engine(usize::MAX), engine(1_000));
    for (name, from) in [("shop_tags", 0), ("shop_tags", 5)] {
        items = items.slice(from, items.num_rows() - from);
        let (one, many) = (apply(&whole, &built(name), &items), apply(&small, &built(name), &items));
        let (one, many) = (one.unwrap(), many.unwrap());
        assert_eq!((one.calls, many.calls), (1, 21));
        expect_same(&many, &one);
    }
}

#[test]
fn a_row_that_fails_in_a_piece_is_the_same_dead_letter() {
    let bad = [0, 999, 1_000, 7_777, 19_999];
    let rows = numbers((0..20_000).map(|n| if bad.contains(&n) { 13 } else { n + 100 }));
    let one = apply(&engine(usize::MAX), &superstitious().wasm(), &rows).unwrap();
    let many = apply(&engine(1_000), &superstitious().wasm(), &rows).unwrap();
    assert_eq!(one.rejected.iter().map(|(row, _)| i64::from(*row)).collect::<Vec<_>>(), bad);
    expect_same(&many, &one);
}

#[test]
fn too_many_failing_rows_stop_the_batch_whichever_piece_they_are_in() {
    let rows = numbers((0..20_000).map(|n| if n % 90 == 0 { 13 } else { n + 100 }));
    for engine in [engine(usize::MAX), engine(1_000)] {
        let error = apply(&engine, &superstitious().wasm(), &rows).unwrap_err().to_string();
        assert!(error.contains("failed on more than the `200` of `20000` rows that may fail"), "{error}");
    }
}

#[test]
fn log_lines_of_all_pieces_stay_within_the_limit_and_in_order() {
    let rows = numbers(0..20_000);
    let guest = doing("(call $log (i32.const 1) (i32.const 16384) (i32.const 1))");
    let engine = Engine::new(Limits { input_rows: 1_000, log_lines: 15, ..Limits::default() }).unwrap();
    let applied = apply(&engine, &guest.wasm(), &rows).unwrap();
    assert_eq!((applied.calls, applied.logs.len(), applied.logs_dropped), (20, 15, 5));
}

/// Traps where a value of the batch is 13, loops where it is 14.
fn superstitious() -> super::guests::Guest {
    doing(
        "(local.set $values (i32.load offset=8 (i32.load offset=8 (local.get $columns))))
         (block $done (loop $l
            (br_if $done (i32.ge_u (local.get $n) (local.get $rows)))
            (if (i64.eq (i64.const 13) (i64.load (i32.add (local.get $values) (i32.mul (local.get $n) (i32.const 8))))) (then unreachable))
            (if (i64.eq (i64.const 14) (i64.load (i32.add (local.get $values) (i32.mul (local.get $n) (i32.const 8))))) (then (loop $x (br $x))))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br $l)))",
    )
}

#[test]
fn rows_that_make_a_module_fail_are_found_and_the_others_go_through() {
    let values: Vec<i64> = (0..3_000)
        .map(|n| match n {
            7 | 2_999 => 13,
            1_500 => 14,
            n => n + 100,
        })
        .collect();
    let applied = run(&superstitious().wasm(), &numbers(values.clone())).unwrap();
    let rejected: Vec<u32> = applied.rejected.iter().map(|(row, _)| *row).collect();
    assert_eq!(rejected, [7, 1_500, 2_999]);
    assert!(applied.rejected[1].1.contains("ran longer"), "{:?}", applied.rejected);
    assert_eq!(applied.failed, 3);
    let source_rows = applied.source_rows.unwrap();
    let expected: Vec<i64> = source_rows.iter().map(|row| values[*row as usize]).collect();
    assert_eq!(applied.rows.column(0).as_primitive::<Int64Type>().values(), expected.as_slice());
    assert_eq!(source_rows.len(), 2_997);
    assert!(applied.calls < 100, "{}", applied.calls);
}

#[test]
fn a_module_that_fails_on_too_many_rows_stops_the_table() {
    let error = run(&superstitious().wasm(), &numbers((0..2_000).map(|n| if n % 50 == 0 { 13 } else { n + 100 })))
        .err()
        .unwrap();
    assert!(error.to_string().contains("failed on more than the `20` of `2000` rows that may fail"), "{error}");
    assert_eq!(error.action(), crate::error::Action::Stop);
}

#[test]
fn the_search_for_failing_rows_ends() {
    let limits =
        Limits { call_time: Duration::from_millis(50), search_time: Duration::from_millis(200), ..Limits::default() };
    let engine = Engine::new(limits).unwrap();
    let rows = numbers(0..10_000);
    let module = engine.load(&doing("(loop $l (br $l))").wasm(), "guest").unwrap();
    let error = module.describe(&json!({}), &[driving("t", &rows, &[])]).unwrap().apply(&rows).unwrap_err();
    assert!(error.to_string().contains("kept failing for `200 ms`"), "{error}");
}
