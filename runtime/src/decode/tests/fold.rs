//! Folds changes into the state they leave, and compares it with the database's own.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use base64::Engine;
use serde_json::Value;

use super::capture;
use crate::decode::value::time_text as moment;
use crate::model::change::{Changes, Op};
use crate::model::schema::{SOURCE_NAME, TableSchema};
use crate::model::sequence::Sequence;

/// A row: column name and plain form of the value.
type Row = BTreeMap<String, Option<String>>;

/// The state of one table.
#[derive(Default)]
pub(super) struct State {
    keyed: HashMap<Vec<Option<String>>, (Sequence, Option<Row>)>,
    counted: HashMap<Row, i64>,
}

impl State {
    pub(super) fn apply(&mut self, changes: &Changes) {
        let names: Vec<String> = changes
            .schema
            .fields
            .fields()
            .iter()
            .map(|f| f.metadata().get(SOURCE_NAME).unwrap_or(f.name()).clone())
            .collect();
        assert_eq!(changes.ops.len(), changes.rows.num_rows());
        for at in 0..changes.rows.num_rows() {
            let row: Row = names
                .iter()
                .zip(changes.rows.columns())
                .map(|(name, column)| (name.clone(), plain(column.as_ref(), at)))
                .collect();
            if changes.schema.key.is_empty() {
                *self.counted.entry(row).or_default() += if changes.ops[at] == Op::Delete { -1 } else { 1 };
                continue;
            }
            let key: Vec<_> = changes.schema.key.iter().map(|&k| row[&names[k]].clone()).collect();
            let sequence = changes.sequences[at];
            let slot = self.keyed.entry(key).or_default();
            if sequence > slot.0 {
                *slot = (sequence, (changes.ops[at] != Op::Delete).then_some(row));
            }
        }
    }

    /// Rows that stand, with what `newest` says of columns they do not have.
    fn rows(&self, newest: &TableSchema) -> Vec<Row> {
        let keyed = self.keyed.values().filter_map(|(_, row)| row.clone());
        let counted = self.counted.iter().flat_map(|(row, n)| (0..*n).map(|_| row.clone()));
        let mut rows: Vec<Row> = keyed.chain(counted).collect();
        for row in &mut rows {
            for (field, default) in newest.fields.fields().iter().zip(&newest.defaults) {
                let name = field.metadata().get(SOURCE_NAME).unwrap_or(field.name());
                row.entry(name.clone()).or_insert_with(|| default.as_ref().and_then(|d| plain(d.as_ref(), 0)));
            }
        }
        rows
    }
}

fn plain(column: &dyn Array, at: usize) -> Option<String> {
    if column.is_null(at) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Int8 => column.as_primitive::<Int8Type>().value(at).to_string(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(at).to_string(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(at).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(at).to_string(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(at).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(at).to_string(),
        DataType::Date32 => (i64::from(column.as_primitive::<Date32Type>().value(at)) * 86_400_000_000).to_string(),
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(at).to_string(),
        DataType::Boolean => u8::from(column.as_boolean().value(at)).to_string(),
        DataType::Utf8 => column.as_string::<i32>().value(at).to_owned(),
        DataType::Binary => base64::prelude::BASE64_STANDARD.encode(column.as_binary::<i32>().value(at)),
        DataType::Decimal128(..) => column.as_primitive::<Decimal128Type>().value_as_string(at),
        other => panic!("no column should have the type {other}"),
    })
}

/// One comparable form for a value of ours and for the server's text.
fn canonical(value: Option<&str>, kind: &str, base64: bool, ms: bool, truth: bool) -> Option<String> {
    let value = value?;
    let base = kind.split(['(', ' ']).next().unwrap().to_ascii_lowercase();
    let cut = |micros: i64| if ms { micros - micros.rem_euclid(1000) } else { micros };
    Some(match base.as_str() {
        _ if base64 => value.to_owned(),
        "decimal" => {
            let text = value.trim_start_matches('+');
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text.to_owned()
            }
        }
        "float" => (value.parse::<f64>().unwrap() as f32).to_bits().to_string(),
        "double" => value.parse::<f64>().unwrap().to_bits().to_string(),
        "json" => sorted(&serde_json::from_str(value).unwrap()),
        "date" | "datetime" | "timestamp" if truth => {
            cut(moment::micros_of_text(value.as_bytes()).unwrap()).to_string()
        }
        "date" | "datetime" | "timestamp" => cut(value.parse().unwrap()).to_string(),
        "time" => cut(moment::time_of_text(value.as_bytes()).unwrap()).to_string(),
        _ => value.to_owned(),
    })
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let members: BTreeMap<_, _> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            format!("{members:?}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(sorted).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

/// Rows that are not in the truth, and rows of the truth that are not there.
pub(super) fn differences(
    state: &State,
    newest: &TableSchema,
    truth_folder: &str,
    ms: bool,
) -> (Vec<String>, Vec<String>) {
    let path = capture::folder().join(truth_folder).join(format!("{}.jsonl.gz", newest.table));
    let mut lines = capture::lines(&path);
    let meta = lines.next().unwrap()["_meta"].clone();
    let columns: Vec<(String, String, bool)> = meta["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap().into(), c["type"].as_str().unwrap().into(), c["encoding"] == "base64"))
        .collect();
    let form = |get: &dyn Fn(&str) -> Option<String>, truth: bool| {
        let values =
            columns.iter().map(|(name, kind, b64)| (name, canonical(get(name).as_deref(), kind, *b64, ms, truth)));
        format!("{:?}", values.collect::<Vec<_>>())
    };
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for row in state.rows(newest) {
        assert!(row.keys().all(|n| columns.iter().any(|c| c.0 == *n)), "a column too many: {:?}", row.keys());
        *counts.entry(form(&|n| row.get(n).unwrap_or_else(|| panic!("no column {n}")).clone(), false)).or_default() +=
            1;
    }
    for row in lines {
        *counts.entry(form(&|n| row[n].as_str().map(str::to_owned), true)).or_default() -= 1;
    }
    let (mut extra, mut missing) = (Vec::new(), Vec::new());
    for (row, n) in counts {
        let list = if n > 0 { &mut extra } else { &mut missing };
        list.extend((0..n.abs()).map(|_| row.clone()));
    }
    (extra, missing)
}
