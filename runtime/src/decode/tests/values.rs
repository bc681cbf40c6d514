//! Values of each type in every mode of the connector: exact, or a bad record.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};

use super::records::{change, decode_with, history, sent};
use crate::decode::{BinaryHandling, DecimalHandling, Patience, Settings, Step, TimePrecision};

fn value_of(
    kind: (&str, Option<i64>, Option<i64>),
    json: &str,
    settings: Settings,
) -> std::result::Result<Arc<dyn Array>, String> {
    let columns = [("id", "INT", None, None), ("v", kind.0, kind.1, kind.2)];
    let record = sent(r#"{"id":1}"#, change("c", "null", &format!(r#"{{"id":1,"v":{json}}}"#), 20));
    let got = decode_with(&[record], &history(&columns, &["id"]), settings, Patience::LastChance);
    match got.changes.first() {
        Some(c) => Ok(Arc::clone(c.rows.column(1))),
        None => Err(got.bad[0].reason.clone()),
    }
}

#[test]
fn unsigned_bits_and_binary() {
    let value = |kind, json: &str| value_of(kind, json, Settings::default());
    let decimal = |kind, json: &str| value(kind, json).map(|a| a.as_primitive::<Decimal128Type>().value(0));
    let big = ("BIGINT UNSIGNED", Some(20), None);
    assert_eq!(decimal(big, "-1"), Ok(u64::MAX.into()));
    assert_eq!(decimal(big, "18446744073709551615"), Ok(u64::MAX.into()));
    assert_eq!(decimal(big, "\"AP//////////\""), Ok(u64::MAX.into()));
    assert!(decimal(big, "18446744073709551616").is_err());
    assert!(decimal(big, "1.5").is_err());
    assert_eq!(decimal(("BIT", Some(64), None), "\"//////////8=\""), Ok(u64::MAX.into()));
    let bits = value(("BIT", Some(9), None), "\"BQE=\"").unwrap();
    assert_eq!(bits.as_primitive::<Int64Type>().value(0), 0x105);
    assert!(value(("BIT", Some(9), None), "\"BQM=\"").is_err());
    assert!(value(("BIT", Some(1), None), "true").unwrap().as_boolean().value(0));
    assert_eq!(value(("BLOB", None, None), "\"AAH/\"").unwrap().as_binary::<i32>().value(0), [0, 1, 255]);
    assert!(value(("BLOB", None, None), "\"#\"").is_err());
    let hex = Settings { binary_handling: Some(BinaryHandling::Hex), ..Settings::default() };
    assert_eq!(
        value_of(("BLOB", None, None), "\"0001fF\"", hex.clone()).unwrap().as_binary::<i32>().value(0),
        [0, 1, 255]
    );
    assert!(value_of(("BLOB", None, None), "\"0\"", hex).is_err());
    assert!(value(("TINYINT", Some(4), None), "128").is_err());
    assert!(value(("TINYINT", Some(4), None), "-128").is_ok());
    assert!(value(("FLOAT", None, None), "1e39").is_err());
    assert!(value(("DOUBLE", None, None), "1e309").is_err());
    assert_eq!(
        value(("JSON", None, None), r#""{\"b\": 1,  \"a\": 2}""#).unwrap().as_string::<i32>().value(0),
        r#"{"b": 1,  "a": 2}"#
    );
}

#[test]
fn decimals_in_every_mode() {
    let money = ("DECIMAL", Some(12), Some(2));
    let with = |json: &str, mode| {
        let settings = Settings { decimal_handling: mode, ..Settings::default() };
        value_of(money, json, settings).map(|a| a.as_primitive::<Decimal128Type>().value(0))
    };
    use DecimalHandling::{Double, Precise, String};
    assert_eq!(with("\"D+y6\"", None), Ok(1_043_642));
    assert_eq!(with("\"10436.42\"", None), Ok(1_043_642));
    assert_eq!(with("10436.42", None), Ok(1_043_642));
    assert_eq!(with("1.043642E4", Some(Double)), Ok(1_043_642));
    assert_eq!(with("10436.420000", None), Ok(1_043_642));
    assert!(with("10436.421", None).unwrap_err().contains("more digits"));
    assert!(with("1234567890.1234567", Some(Double)).unwrap_err().contains("15 digits"));
    assert!(with("\"10436.42\"", Some(Precise)).unwrap_err().contains("`decimal_handling`"));
    assert!(with("\"D+y6\"", Some(String)).unwrap_err().contains("`decimal_handling`"));
    assert!(with("10436.42", Some(String)).is_err());
    let whole = value_of(("DECIMAL", Some(12), Some(0)), "\"1234\"", Settings::default()).unwrap_err();
    assert!(whole.contains("`decimal_handling`"), "{whole}");
    let wide = ("DECIMAL", Some(65), Some(3));
    let text = |json: &str, mode| {
        let settings = Settings { decimal_handling: mode, ..Settings::default() };
        value_of(wide, json, settings).map(|a| a.as_string::<i32>().value(0).to_owned())
    };
    assert_eq!(text("\"123456789012345678901234567890123456789012.345\"", None).unwrap().len(), 46);
    assert_eq!(text("\"/w==\"", Some(Precise)).unwrap(), "-0.001");
}

#[test]
fn times_in_every_mode() {
    use TimePrecision::{AdaptiveTimeMicroseconds, Connect, Nanoseconds};
    let with = |kind, json: &str, mode| {
        let settings = Settings { time_precision: mode, ..Settings::default() };
        value_of(kind, json, settings)
    };
    let micros =
        |kind, json: &str, mode| with(kind, json, mode).map(|a| a.as_primitive::<TimestampMicrosecondType>().value(0));
    let text = |kind, json: &str, mode| with(kind, json, mode).map(|a| a.as_string::<i32>().value(0).to_owned());
    let (fine, coarse) = (("DATETIME", Some(6), None), ("DATETIME", None, None));
    assert_eq!(micros(fine, "1735770351627740", None), Ok(1_735_770_351_627_740));
    assert_eq!(micros(fine, "1735770351627", None), Ok(1_735_770_351_627_000));
    assert_eq!(micros(fine, "\"2025-01-01T22:25:51.62774Z\"", None), Ok(1_735_770_351_627_740));
    assert_eq!(micros(coarse, "1735770351000", None), Ok(1_735_770_351_000_000));
    assert_eq!(micros(fine, "1735770351627740000", Some(Nanoseconds)), Ok(1_735_770_351_627_740));
    assert!(micros(fine, "1735770351627740001", Some(Nanoseconds)).is_err());
    assert_eq!(micros(fine, "1735770351627740", Some(AdaptiveTimeMicroseconds)), Ok(1_735_770_351_627_740));
    assert!(micros(fine, "1735770351627740", Some(Connect)).unwrap_err().contains("`time_precision`"));
    assert!(micros(coarse, "1735770351627740", None).unwrap_err().contains("`time_precision`"));
    assert!(micros(fine, "4102444800001", None).unwrap_err().contains("`time_precision`"));
    let time = ("TIME", None, None);
    assert_eq!(text(time, "37800000000", None).unwrap(), "10:30:00");
    assert_eq!(text(time, "37800000", None).unwrap(), "10:30:00");
    assert_eq!(text(time, "-3020399000000", None).unwrap(), "-838:59:59");
    assert_eq!(text(time, "0", None).unwrap(), "00:00:00");
    assert!(text(time, "36000000", None).unwrap_err().contains("`time_precision`"));
    assert!(text(time, "37800000000", Some(Connect)).is_err());
    assert_eq!(text(("TIME", Some(3), None), "86399856000", Some(AdaptiveTimeMicroseconds)).unwrap(), "23:59:59.856");
    assert!(with(("TIMESTAMP", None, None), "\"2025-01-01T10:00:00+02:00\"", None).is_ok());
    assert!(with(("TIMESTAMP", None, None), "12", None).is_err());
}

#[test]
fn evidence_later_in_a_block_serves_the_rows_before() {
    let columns = [("id", "INT", None, None), ("d", "DATETIME", Some(6), None), ("x", "DECIMAL", Some(9), Some(0))];
    let row = |id: u32, d: &str, x: &str| {
        sent(
            &format!(r#"{{"id":{id}}}"#),
            change("c", "null", &format!(r#"{{"id":{id},"d":{d},"x":{x}}}"#), 20 + u64::from(id)),
        )
    };
    let records = [row(1, "4102444800001", "\"1234\""), row(2, "1735770351627740", "\"-5\"")];
    let got = decode_with(&records, &history(&columns, &["id"]), Settings::default(), Patience::Hold);
    assert_eq!(got.step, Step::Done);
    let c = &got.changes[0];
    assert_eq!(c.rows.column(1).as_primitive::<TimestampMicrosecondType>().value(0), 4_102_444_800_001);
    assert_eq!(c.rows.column(2).as_primitive::<Decimal128Type>().values(), &[1234, -5]);
    let got = decode_with(&records[..1], &history(&columns, &["id"]), Settings::default(), Patience::Hold);
    assert!(
        matches!(got.step, Step::Held { row: 0, ref reason } if reason.contains("no value has told")),
        "{:?}",
        got.step
    );
}
