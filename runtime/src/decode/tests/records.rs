//! Records one at a time: what is wrong becomes one bad row, what may be explained later is held, the rest is exact.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};

use crate::decode::{BadRecord, Decoded, Decoder, Evidence, Patience, SchemaHistory, Settings, Step};
use crate::model::change::{Changes, Floor, Op};
use crate::model::positions::PartitionId;
use crate::model::record::{Block, Record};

const TOPIC: &str = "p.shop.t";

/// What one record is made of.
#[derive(Clone, Default)]
pub(super) struct Sent {
    key: Option<String>,
    value: Option<Vec<u8>>,
    headers: String,
}

pub(super) fn sent(key: &str, value: impl Into<Vec<u8>>) -> Sent {
    Sent { key: (!key.is_empty()).then(|| key.to_owned()), value: Some(value.into()), headers: "[]".into() }
}

fn source(pos: u64) -> String {
    format!(
        r#"{{"db":"shop","table":"t","server_id":1,"file":"binlog.000001","pos":{pos},"row":0,"ts_ms":1000,"snapshot":"false"}}"#
    )
}

pub(super) fn change(op: &str, before: &str, after: &str, pos: u64) -> String {
    format!(r#"{{"before":{before},"after":{after},"source":{},"op":"{op}","ts_ms":1}}"#, source(pos))
}

pub(super) fn history(columns: &[(&str, &str, Option<i64>, Option<i64>)], key: &[&str]) -> SchemaHistory {
    let columns: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, (name, kind, length, scale))| {
            serde_json::json!({"name": name, "typeName": kind, "length": length, "scale": scale, "position": at + 1, "optional": at > 0})
        })
        .collect();
    let record = serde_json::json!({
        "source": {"file": "binlog.000001", "pos": 1, "snapshot": "true"}, "databaseName": "shop", "ddl": "CREATE TABLE t",
        "tableChanges": [{"type": "CREATE", "id": "\"shop\".\"t\"", "table": {"primaryKeyColumnNames": key, "columns": columns}}]
    });
    let mut history = SchemaHistory::new();
    let value = record.to_string();
    history
        .apply(Record { offset: 0, timestamp_ms: 0, key: None, value: Some(value.as_bytes()), headers: b"" })
        .unwrap();
    history
}

/// `history` with one more structure, from `pos` of `base`.000001 on.
fn altered(history: &mut SchemaHistory, base: &str, pos: u64, columns: &[(&str, &str)]) {
    let columns: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, (name, kind))| {
            serde_json::json!({"name": name, "typeName": kind, "position": at + 1, "optional": at > 0, "defaultValueExpression": (at > 0).then_some("5")})
        })
        .collect();
    let record = serde_json::json!({
        "source": {"file": format!("{base}.000001"), "pos": pos, "snapshot": "false"}, "databaseName": "shop", "ddl": "ALTER TABLE t",
        "tableChanges": [{"type": "ALTER", "id": "\"shop\".\"t\"", "table": {"primaryKeyColumnNames": ["id"], "columns": columns}}]
    });
    let value = record.to_string();
    history
        .apply(Record { offset: 0, timestamp_ms: 0, key: None, value: Some(value.as_bytes()), headers: b"" })
        .unwrap();
}

fn keyed() -> SchemaHistory {
    history(
        &[("id", "BIGINT", None, None), ("name", "VARCHAR", Some(20), None), ("price", "DECIMAL", Some(8), Some(2))],
        &["id"],
    )
}

pub(super) struct Result {
    pub(super) step: Step,
    pub(super) changes: Vec<Changes>,
    pub(super) floors: Vec<Floor>,
    pub(super) bad: Vec<BadRecord>,
}

pub(super) fn decode_with(records: &[Sent], history: &SchemaHistory, settings: Settings, patience: Patience) -> Result {
    let mut block = Block::new(PartitionId { topic: Arc::from(TOPIC), partition: 0 });
    for (offset, sent) in records.iter().enumerate() {
        let pushed = block.push(Record {
            offset: offset as i64,
            timestamp_ms: 0,
            key: sent.key.as_deref().map(str::as_bytes),
            value: sent.value.as_deref(),
            headers: sent.headers.as_bytes(),
        });
        assert!(pushed);
    }
    let mut out = Decoded::new();
    let mut decoder = Decoder::new(Arc::from(TOPIC), settings);
    let step = decoder.decode(&block, 0, history, &mut Evidence::new(), patience, &mut out);
    let (changes, floors, bad) = out.finish();
    Result { step, changes, floors, bad }
}

fn decode(records: &[Sent], history: &SchemaHistory) -> Result {
    decode_with(records, history, Settings::default(), Patience::LastChance)
}

fn good(id: u64, pos: u64) -> Sent {
    let row = format!(r#"{{"id":{id},"name":"n{id}","price":"1.50"}}"#);
    sent(&format!(r#"{{"id":{id}}}"#), change("c", "null", &row, pos))
}

/// `wrong` between two good records: one bad row with this reason, the good ones untouched.
fn refused(wrong: Sent, because: &str) {
    let got = decode(&[good(1, 10), wrong, good(2, 30)], &keyed());
    assert_eq!(got.step, Step::Done);
    assert_eq!(got.bad.len(), 1, "{because}: {:?}", got.bad);
    assert_eq!((got.bad[0].offset, got.bad[0].partition, &*got.bad[0].topic), (1, 0, TOPIC));
    assert!(got.bad[0].reason.contains(because), "{:?} does not say {because:?}", got.bad[0].reason);
    assert!(got.bad[0].reason.len() <= 300);
    let rows: usize = got.changes.iter().map(|c| c.rows.num_rows()).sum();
    assert_eq!(rows, 2, "{because}");
    assert_eq!(got.changes[0].rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
}

const ROW: &str = r#"{"id":7,"name":"x","price":"1.00"}"#;
const KEY: &str = r#"{"id":7}"#;

#[test]
fn a_record_that_is_not_a_change_is_one_bad_row() {
    refused(sent(KEY, "not json"), "not JSON");
    refused(sent(KEY, "17"), "not an object");
    refused(sent(KEY, "[1,2]"), "not an object");
    refused(sent(KEY, ""), "not JSON");
    refused(sent(KEY, "{}"), "no `source` block");
    refused(sent(KEY, change("c", "null", &ROW.replace("\"1.00\"", "NaN"), 20)), "not JSON");
    refused(sent(KEY, change("c", "null", &ROW.replace("\"1.00\"", "Infinity"), 20)), "not JSON");
    refused(sent(KEY, b"{\"a\":\"\xff\xfe\"}".to_vec()), "not UTF-8");
    refused(sent(KEY, "[".repeat(20_000)), "nested deeper than 128 levels");
    refused(
        sent(KEY, change("c", "null", &format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000)), 20)),
        "nested deeper",
    );
    refused(sent(KEY, format!("{}x", change("c", "null", ROW, 20))), "something follows");
    refused(sent(KEY, change("c", "null", ROW, 20).replace("\"op\":\"c\"", "\"op\":\"q\"")), "unknown `op`");
    refused(sent(KEY, change("c", "null", ROW, 20).replace(",\"op\":\"c\"", "")), "no `op`");
    refused(sent(KEY, change("c", "null", ROW, 20).replace("\"source\"", "\"sauce\"")), "no `source` block");
    refused(sent(KEY, change("c", "null", ROW, 20).replace("\"pos\":20,", "")), "no binlog position");
    refused(sent(KEY, change("c", "null", ROW, 20).replace("binlog.000001", "binlog")), "has no number");
    refused(sent(KEY, change("c", "null", "5", 20)), "`after` is not an object");
    refused(sent(KEY, change("c", "null", "null", 20)), "no row image");
    refused(sent(KEY, change("c", "null", ROW, 20).replacen("\"after\"", "\"before\"", 1)), "a member twice");
}

#[test]
fn a_row_that_is_not_one_of_the_table_is_one_bad_row() {
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":"x","price":"1.00","id":7}"#, 20)), "a member twice");
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":"x"}"#, 20)), "lacks column `price`");
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":"x","price":"1.00","more":1}"#, 20)), "no column `more`");
    refused(sent(KEY, change("c", "null", r#"{"id":"7","name":"x","price":"1.00"}"#, 20)), "another row than its key");
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":5,"price":"1.00"}"#, 20)), "column `name`");
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":"x","price":true}"#, 20)), "column `price`");
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":"x","price":"1.005"}"#, 20)), "more digits");
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":"x","price":"1234567.00"}"#, 20)), "more digits");
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":"\ud83d","price":"1.00"}"#, 20)), "surrogate");
    refused(sent(KEY, change("c", "null", r#"{"id":7,"name":{"a":1},"price":"1.00"}"#, 20)), "column `name`");
    let secret = refused_reason(sent(KEY, change("c", "null", r#"{"id":7,"name":"x","price":"topsecret"}"#, 20)));
    assert!(!secret.contains("topsecret"), "{secret}");
}

fn refused_reason(wrong: Sent) -> String {
    decode(&[wrong], &keyed()).bad.remove(0).reason
}

#[test]
fn the_key_must_be_there_and_be_that_of_the_row() {
    refused(sent("", change("c", "null", ROW, 20)), "no key");
    refused(sent("null", change("c", "null", ROW, 20)), "no key");
    refused(sent("{\"id\":8}", change("c", "null", ROW, 20)), "another row than its key");
    refused(sent("{\"id\":8}", change("d", ROW, "null", 20)), "another row than its key");
    refused(sent("{\"id\":null}", change("d", "null", "null", 20)), "null");
    refused(sent("{\"id\":null}", change("c", "null", &ROW.replace("7", "null"), 20)), "null");
    refused(sent("{\"other\":7}", change("d", "null", "null", 20)), "key lacks a column");
    refused(sent("{", change("c", "null", ROW, 20)), "the record's key is not JSON");
    refused(sent("7", change("c", "null", ROW, 20)), "key is not an object");
}

#[test]
fn nothing_is_made_of_tombstones_messages_and_empty_payloads() {
    let tombstone = Sent { value: None, ..sent(KEY, "") };
    let message = sent("", change("m", "null", "null", 20));
    let empty = sent(KEY, r#"{"schema":null,"payload":null}"#);
    let got = decode(&[tombstone, message, empty], &keyed());
    assert!(got.changes.is_empty() && got.bad.is_empty() && got.floors.is_empty());
}

#[test]
fn deletes_take_the_key_and_a_key_change_deletes_first() {
    let mut delete = sent(KEY, change("d", ROW, "null", 20));
    delete.headers = r#"[["__debezium.newkey","{\"id\":9}"]]"#.into();
    let plain = sent("{\"id\":8}", change("d", "null", "null", 20));
    let create = sent("{\"id\":9}", change("c", "null", &ROW.replace('7', "9"), 20));
    let got = decode(&[delete, plain, create], &keyed());
    assert!(got.bad.is_empty(), "{:?}", got.bad);
    let c = &got.changes[0];
    assert_eq!(c.ops, [Op::Delete, Op::Delete, Op::Create]);
    assert_eq!(c.rows.column(0).as_primitive::<Int64Type>().values(), &[7, 8, 9]);
    assert!(c.rows.column(1).is_null(0) && c.rows.column(2).is_null(1));
    assert!(c.sequences[0] < c.sequences[1] && c.sequences[1] == c.sequences[2]);
}

#[test]
fn a_truncate_is_a_floor() {
    let got = decode(&[good(1, 10), sent("", change("t", "null", "null", 20)), good(2, 30)], &keyed());
    assert_eq!(got.floors.len(), 1);
    assert_eq!(got.floors[0].origin.offset, 1);
    let sequences = &got.changes[0].sequences;
    assert!(sequences[0] < got.floors[0].sequence && got.floors[0].sequence < sequences[1]);
}

#[test]
fn a_key_written_in_another_way_is_the_same_key() {
    let columns = [("id", "VARCHAR", Some(20), None), ("n", "INT", None, None)];
    let record = sent(r#"{"id":"\u0061b"}"#, change("c", "null", r#"{"id":"ab","n":1}"#, 20));
    let got = decode(&[record], &history(&columns, &["id"]));
    assert!(got.bad.is_empty(), "{:?}", got.bad);
}

#[test]
fn an_update_without_a_key_is_two_rows() {
    let columns = [("a", "INT", None, None), ("b", "VARCHAR", Some(9), None)];
    let update = sent("", change("u", r#"{"a":1,"b":"x"}"#, r#"{"a":1,"b":"y\n"}"#, 20));
    let wrong = sent("", change("u", r#"{"a":1,"b":"x"}"#, r#"{"a":"","b":"y"}"#, 21));
    let lost = sent("", change("u", "null", r#"{"a":1,"b":"y"}"#, 22));
    let delete = sent("", change("d", r#"{"a":3,"b":"z"}"#, "null", 23));
    let got = decode(&[update, wrong, lost, delete], &history(&columns, &[]));
    let c = &got.changes[0];
    assert_eq!(c.ops, [Op::Delete, Op::Update, Op::Delete]);
    assert_eq!(c.records.as_ref().unwrap().offsets, [0, 0, 3]);
    assert_eq!(c.sequences[0], c.sequences[1]);
    assert_eq!(c.rows.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["x", "y\n", "z"]);
    assert_eq!(got.bad.iter().map(|b| b.offset).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_a_newer_schema_may_explain_is_held_without_a_trace() {
    let strange = [
        r#"{"id":7,"name":"x","price":"1.00","more":1}"#,
        r#"{"id":7,"name":"x"}"#,
        r#"{"id":7,"name":"x","price":"1.00001"}"#,
        r#"{"id":7,"name":1,"price":"1.00"}"#,
    ];
    for row in strange {
        let records = [good(1, 10), sent(KEY, change("c", "null", row, 20)), good(2, 30)];
        let got = decode_with(&records, &keyed(), Settings::default(), Patience::Hold);
        assert!(matches!(got.step, Step::Held { row: 1, .. }), "{:?}", got.step);
        assert!(got.bad.is_empty());
        assert_eq!(got.changes[0].rows.num_rows(), 1);
    }
}

#[test]
fn a_large_record_is_decoded_or_refused_by_the_limit() {
    let row = format!(r#"{{"id":7,"name":"{}","price":"1.00"}}"#, "x".repeat(20 << 20));
    let record = sent(KEY, change("c", "null", &row, 20));
    let got = decode(std::slice::from_ref(&record), &keyed());
    assert_eq!(got.changes[0].rows.column(1).as_string::<i32>().value(0).len(), 20 << 20);
    let settings = Settings { record_bytes_max: 1 << 20, ..Settings::default() };
    let got = decode_with(&[record], &keyed(), settings, Patience::LastChance);
    assert!(got.bad[0].reason.contains("record_bytes_max"));
}

#[test]
fn columns_of_the_pipeline_file_win_and_can_stand_alone() {
    let columns = [("id", "int"), ("name", "text"), ("price", "decimal(9,3)")];
    let columns =
        columns.into_iter().map(|(n, t)| (n.to_owned(), crate::decode::mysql_column_type(t).unwrap())).collect();
    let settings = Settings { columns, ..Settings::default() };
    for history in [keyed(), SchemaHistory::new()] {
        let got = decode_with(&[good(1, 10), good(2, 20)], &history, settings.clone(), Patience::Hold);
        assert_eq!(got.step, Step::Done);
        assert_eq!(got.changes[0].rows.column(2).as_primitive::<Decimal128Type>().value_as_string(0), "1.500");
        assert_eq!(got.changes[0].schema.key, [0]);
    }
}

#[test]
fn a_jump_that_nothing_explains_stops_before_the_record() {
    let again = |ts: &str| {
        let mut record = good(2, 5);
        record.value = record.value.map(|v| String::from_utf8(v).unwrap().replace("\"ts_ms\":1000", ts).into_bytes());
        record
    };
    let got = decode(&[good(1, 10), again("\"ts_ms\":70000")], &keyed());
    assert!(matches!(got.step, Step::Jump { row: 1, ref reason } if reason.contains("lode rebuild")), "{:?}", got.step);
    let got = decode(&[good(1, 10), again("\"ts_ms\":2000")], &keyed());
    assert_eq!(got.step, Step::Done);
    let sequences = &got.changes[0].sequences;
    assert!(sequences[1] < sequences[0]);
}

#[test]
fn clashing_names_refuse_the_rows_of_the_table() {
    let columns = [("id", "INT", None, None), ("a b", "INT", None, None), ("a;b", "INT", None, None)];
    let record = sent(r#"{"id":1}"#, change("c", "null", r#"{"id":1,"a b":1,"a;b":2}"#, 20));
    let got = decode_with(&[record], &history(&columns, &["id"]), Settings::default(), Patience::Hold);
    assert!(got.bad[0].reason.contains("`a b`") && got.bad[0].reason.contains("`a;b`"), "{:?}", got.bad);
}

#[test]
fn flattened_rows_need_their_position() {
    let flat = |more: &str| sent(KEY, format!(r#"{{"id":7,"name":"x","price":"1.00","__op":"c"{more}}}"#));
    let full =
        r#","__table":"t","__source_file":"binlog.000001","__source_pos":20,"__source_row":0,"__source_ts_ms":5"#;
    let got = decode(&[flat(full), flat("")], &keyed());
    assert_eq!(got.changes[0].ops, [Op::Create]);
    assert_eq!(got.changes[0].source_ts_ms, [5]);
    assert!(got.bad[0].reason.contains("`add.fields`"), "{:?}", got.bad);
    let deleted = flat(&full.replace("\"__table\"", "\"__deleted\":\"true\",\"__table\""));
    assert_eq!(decode(&[deleted], &keyed()).changes[0].ops, [Op::Delete]);
}

#[test]
fn rows_have_the_structure_in_force_at_their_position() {
    let mut history = history(&[("id", "INT", None, None), ("a", "INT", None, None)], &["id"]);
    altered(&mut history, "binlog", 100, &[("id", "INT"), ("a", "BIGINT")]);
    altered(&mut history, "binlog", 200, &[("id", "INT"), ("a", "BIGINT"), ("b", "INT")]);
    // another server's binlog does not count
    altered(&mut history, "other", 10, &[("id", "INT"), ("a", "TEXT")]);
    let two =
        |id: u32, pos| sent(&format!("{{\"id\":{id}}}"), change("c", "null", &format!("{{\"id\":{id},\"a\":1}}"), pos));
    let three = |id: u32, pos| {
        sent(&format!("{{\"id\":{id}}}"), change("c", "null", &format!("{{\"id\":{id},\"a\":1,\"b\":2}}"), pos))
    };
    let records = [two(1, 50), two(2, 150), three(3, 250), two(4, 60), three(5, 199), two(6, 201)];
    let got = decode_with(&records, &history, Settings::default(), Patience::Hold);
    assert_eq!(got.step, Step::Done);
    let offsets: Vec<_> = got.changes.iter().map(|c| c.records.clone().unwrap().offsets).collect();
    // a row beside the ALTER may have the structure of either side, as its fields tell
    assert_eq!(offsets, [vec![0, 3], vec![1, 5], vec![2, 4]]);
    let types: Vec<_> = got.changes.iter().map(|c| c.schema.fields.field(1).data_type().clone()).collect();
    use arrow::datatypes::DataType::{Int32, Int64};
    assert_eq!(types, [Int32, Int64, Int64]);
    let default = got.changes[2].schema.defaults[2].as_ref().unwrap();
    assert_eq!(default.as_primitive::<arrow::datatypes::Int32Type>().value(0), 5);
}

#[test]
fn a_record_may_bring_its_own_schema() {
    let field =
        |name: &str, kind: &str, more: &str| format!(r#"{{"type":"{kind}","optional":true{more},"field":"{name}"}}"#);
    let row = |name: &str| {
        format!(
            r#"{{"type":"struct","fields":[{},{},{},{}],"optional":true,"field":"{name}"}}"#,
            field("id", "int64", ""),
            field("at", "int64", r#","name":"io.debezium.time.Timestamp""#),
            field(
                "x",
                "bytes",
                r#","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"1","connect.decimal.precision":"5"}"#
            ),
            field("n", "int16", r#","default":7"#),
        )
    };
    let schema = format!(
        r#"{{"type":"struct","fields":[{},{},{{"type":"struct","field":"source"}},{{"type":"string","field":"op"}}]}}"#,
        row("before"),
        row("after")
    );
    let wrapped = |id: u32, payload_first: bool| {
        let image = format!(r#"{{"id":{id},"at":1735770351627,"x":"Hg==","n":null}}"#);
        let payload = change("c", "null", &image, 20 + u64::from(id));
        let key = format!(r#"{{"schema":{{"type":"struct"}},"payload":{{"id":{id}}}}}"#);
        let value = if payload_first {
            format!(r#"{{"payload":{payload},"schema":{schema}}}"#)
        } else {
            format!(r#"{{"schema":{schema},"payload":{payload}}}"#)
        };
        sent(&key, value)
    };
    let records = [wrapped(1, false), wrapped(2, false), wrapped(3, true), wrapped(4, false)];
    let got = decode_with(&records, &SchemaHistory::new(), Settings::default(), Patience::Hold);
    assert!(matches!(got.step, Step::Held { row: 0, .. }), "{:?}", got.step);
    let got = decode(&records, &SchemaHistory::new());
    assert!(got.bad.is_empty(), "{:?}", got.bad);
    let c = &got.changes[0];
    assert_eq!(got.changes.len(), 1);
    assert_eq!((c.rows.num_rows(), &c.schema.key), (4, &vec![0]));
    assert_eq!(c.rows.column(1).as_primitive::<TimestampMicrosecondType>().value(3), 1_735_770_351_627_000);
    assert_eq!(c.rows.column(2).as_primitive::<Decimal128Type>().value_as_string(0), "3.0");
    assert_eq!(c.schema.defaults[3].as_ref().unwrap().as_primitive::<arrow::datatypes::Int16Type>().value(0), 7);
}
