//! The SDK's glue against the host: every type both ways, lookups, params, panics, and what arrives in another layout
//! than the one it crosses in.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, DictionaryArray, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Schema};
use serde_json::json;

use super::{ENGINE, batch, decimals, driving, probe};
use crate::error::ErrorKind;
use crate::transform::{ColumnRef, LogLevel, Prepared, Relation};

fn rows() -> RecordBatch {
    let texts = StringArray::from(vec![Some("äöü"), None, Some(""), Some("x")]);
    let list =
        ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, Some(vec![]), Some(vec![None])]);
    let nan = f64::from_bits(0x7ff8_0000_0000_0000);
    batch(vec![
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)])) as ArrayRef),
        ("i8", Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(0), Some(i8::MAX)]))),
        ("i16", Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(0), Some(i16::MAX)]))),
        ("i32", Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(0), Some(i32::MAX)]))),
        ("i64", Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(0), Some(i64::MAX)]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(f32::MIN), None, Some(-0.0), Some(f32::INFINITY)]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(f64::MIN), None, Some(nan), Some(f64::EPSILON)]))),
        ("u", Arc::new(texts.clone())),
        ("z", Arc::new(BinaryArray::from_opt_vec(vec![Some(&[0, 255]), None, Some(b""), Some(b"z")]))),
        ("d", decimals(&[Some(-(10_i128.pow(38) - 1)), None, Some(0), Some(10_i128.pow(38) - 1)], 38, 9)),
        ("day", Arc::new(Date32Array::from(vec![Some(i32::MIN), None, Some(0), Some(i32::MAX)]))),
        (
            "at",
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(i64::MIN), None, Some(0), Some(1)]).with_timezone("UTC"),
            ),
        ),
        ("local", Arc::new(TimestampMicrosecondArray::from(vec![Some(i64::MAX), None, Some(0), Some(1)]))),
        ("other", Arc::new(list)),
        ("_op", Arc::new(StringArray::from(vec!["r", "c", "u", "u"]))),
        ("found.u", Arc::new(texts)),
        ("found.v", Arc::new(Int64Array::from(vec![None, None, Some(5), None]))),
    ])
}

/// The columns before `found.` as the driving relation, the others as a lookup.
fn relations(rows: &RecordBatch) -> Vec<Relation<'static>> {
    let (own, found): (Vec<usize>, Vec<usize>) =
        (0..rows.num_columns()).partition(|n| !rows.schema().field(*n).name().starts_with("found."));
    let found = rows.schema().project(&found).unwrap();
    let found = found
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_name(f.name().trim_start_matches("found.")).with_nullable(false));
    let found = Arc::new(Schema::new(found.collect::<Vec<_>>()));
    vec![driving("t", &rows.project(&own).unwrap(), &[]), Relation { name: "found", schema: found, key: vec![] }]
}

fn prepare(rows: &RecordBatch, params: serde_json::Value) -> Prepared {
    ENGINE.load(probe(), "probe").unwrap().describe(&params, &relations(rows)).unwrap()
}

#[test]
fn every_type_crosses_in_both_directions() {
    let rows = rows();
    let prepared = prepare(&rows, json!({}));
    let given = prepared.apply(&rows).unwrap();
    assert_eq!((&given.source_rows, given.failed), (&None, 0), "{:?}", given.rejected);
    for name in ["b", "i8", "i16", "i32", "i64", "f32", "f64", "u", "z", "d", "day", "at", "local", "other"] {
        let (output, input) = (given.rows.column_by_name(name).unwrap(), rows.column_by_name(name).unwrap());
        assert_eq!(output, input, "{name}");
    }
    assert_eq!(given.rows.column_by_name("looked_up").unwrap(), rows.column_by_name("u").unwrap());
    assert_eq!(given.rows.column_by_name("op").unwrap(), rows.column_by_name("_op").unwrap());
    assert_eq!(given.rows.column_by_name("v").unwrap(), rows.column_by_name("found.v").unwrap());
    let schema = prepared.schema();
    assert!(schema.field_with_name("v").unwrap().is_nullable(), "a lookup may find nothing");
    assert!(schema.field_with_name("op").unwrap().is_nullable(), "only a key forbids nulls in the table");
    assert!(prepared.columns().contains(&ColumnRef { relation: 1, field: 1 }));
    assert_eq!(prepared.columns().len(), 17);
}

#[test]
fn slices_of_every_type_cross() {
    let rows = rows();
    let prepared = prepare(&rows, json!({}));
    for (from, len) in [(1, 3), (3, 1), (0, 2), (2, 0)] {
        let slice = rows.slice(from, len);
        let given = prepared.apply(&slice).unwrap();
        assert_eq!(given.rows.project(&(0..13).collect::<Vec<_>>()).unwrap().columns(), &slice.columns()[..13]);
    }
}

#[test]
fn views_and_dictionaries_cross_as_texts() {
    let mut columns = rows().columns().to_vec();
    columns[7] =
        Arc::new(StringViewArray::from(vec![Some("äöü"), None, Some("a text longer than twelve bytes"), Some("x")]));
    columns[14] = Arc::new(["r", "c", "u", "u"].into_iter().collect::<DictionaryArray<Int32Type>>());
    let names: Vec<String> = rows().schema().fields().iter().map(|f| f.name().clone()).collect();
    let rows = RecordBatch::try_from_iter_with_nullable(names.iter().zip(columns).map(|(n, c)| (n, c, true))).unwrap();
    let given = prepare(&rows, json!({})).apply(&rows).unwrap();
    assert_eq!(given.rows.column_by_name("u").unwrap(), &cast(rows.column(7), &DataType::Utf8).unwrap());
    assert_eq!(given.rows.column_by_name("op").unwrap().as_string::<i32>().value(1), "c");
}

#[test]
fn a_panic_is_a_dead_letter_with_its_text() {
    let rows = rows();
    let given = prepare(&rows, json!({"panic_on": 0})).apply(&rows).unwrap();
    assert_eq!(given.source_rows.as_deref(), Some(&[0, 1, 3][..]));
    let (row, reason) = &given.rejected[0];
    assert_eq!(*row, 2);
    assert!(reason.starts_with("it trapped; it logged: panicked at src/lib.rs:"), "{reason}");
    assert!(reason.contains("the value Some(0) is bad"), "{reason}");
    assert!(given.logs.iter().any(|line| line.level == LogLevel::Info && line.message == "about to panic"));
}

#[test]
fn a_null_where_none_may_be_rejects_its_row() {
    let mut columns = rows().columns().to_vec();
    columns[14] = Arc::new(StringArray::from(vec![Some("r"), None, Some("u"), Some("u")]));
    let rows = RecordBatch::try_new(rows().schema(), columns).unwrap();
    let given = prepare(&rows, json!({})).apply(&rows).unwrap();
    assert_eq!((given.rejected, given.failed), (vec![(1, "`_op` is null".to_owned())], 0));
}

#[test]
fn a_batch_that_is_not_what_was_described_is_our_fault() {
    let rows = rows();
    let prepared = prepare(&rows, json!({}));
    let without = rows.project(&[0, 1, 2]).unwrap();
    let error = prepared.apply(&without).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("no column `i32`"), "{error}");
}

#[test]
fn a_type_that_cannot_be_read_is_named() {
    let mut columns = rows().columns().to_vec();
    columns[7] = columns[13].clone();
    let names: Vec<String> = rows().schema().fields().iter().map(|f| f.name().clone()).collect();
    let rows = RecordBatch::try_from_iter_with_nullable(names.iter().zip(columns).map(|(n, c)| (n, c, true))).unwrap();
    let error = ENGINE.load(probe(), "probe").unwrap().describe(&json!({}), &relations(&rows)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Misfit);
    assert!(
        error.to_string().ends_with("column `u` is of a type that can only be passed; the module reads it as a text"),
        "{error}"
    );
}
