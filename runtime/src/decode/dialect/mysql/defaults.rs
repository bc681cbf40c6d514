//! What a column that a statement adds holds in the rows that were there before it.
//!
//! Receives the default as the schema-change topic writes it. Promises an array of that one value, or `None` where MySQL
//! does not say it exactly.

use std::sync::Arc;

use arrow::array::ArrayRef;

use crate::decode::format::json::cursor::{Token, ValueKind};
use crate::decode::value::codec::Codec;
use crate::decode::value::column::one_value;
use crate::decode::value::column_type::ColumnType;

/// The default that the DDL text `text` names.
pub(crate) fn ddl_default(column_type: ColumnType, text: &str) -> Option<ArrayRef> {
    let end = u32::try_from(text.len()).ok()?;
    let whole = |kind| Token { kind, start: 0, end };
    let token = match column_type {
        ColumnType::Int8 | ColumnType::Int16 if text.eq_ignore_ascii_case("true") => whole(ValueKind::True),
        ColumnType::Int8 | ColumnType::Int16 if text.eq_ignore_ascii_case("false") => whole(ValueKind::False),
        ColumnType::Int8
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::UInt64
        | ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Year => whole(ValueKind::Number),
        ColumnType::Bit | ColumnType::Bits { .. } => return bit_default(column_type, text),
        ColumnType::Binary | ColumnType::Json => return None,
        _ => whole(ValueKind::Text),
    };
    one_value(column_type, Codec::of_ddl(column_type), text, token)
}

fn bit_default(column_type: ColumnType, text: &str) -> Option<ArrayRef> {
    let digits = text.trim_start_matches("b'").trim_end_matches('\'');
    let n = match digits {
        "true" => 1,
        "false" => 0,
        _ => u64::from_str_radix(digits, 2).ok()?,
    };
    let flag = n == 1;
    match column_type {
        ColumnType::Bit if n <= 1 => Some(Arc::new(arrow::array::BooleanArray::from(vec![flag]))),
        ColumnType::Bits { length: 64 } => Some(Arc::new(
            arrow::array::Decimal128Array::from(vec![i128::from(n)]).with_precision_and_scale(20, 0).ok()?,
        )),
        ColumnType::Bits { .. } => Some(Arc::new(arrow::array::Int64Array::from(vec![i64::try_from(n).ok()?]))),
        _ => None,
    }
}

/// What MySQL puts into old rows when a column that must not be null is added without a default.
pub(crate) fn implicit_default(column_type: ColumnType, first_label: Option<&str>) -> Option<ArrayRef> {
    match column_type {
        ColumnType::Text => ddl_default(column_type, first_label.unwrap_or("")),
        ColumnType::Binary => Some(Arc::new(arrow::array::BinaryArray::from(vec![b"".as_slice()]))),
        ColumnType::Time { places } => {
            let zero = match places.unwrap_or(0) {
                0 => "00:00:00".to_owned(),
                n => format!("00:00:00.{}", "0".repeat(usize::from(n))),
            };
            ddl_default(column_type, &zero)
        }
        ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp | ColumnType::Json => None,
        ColumnType::BigDecimal { scale: n @ 1.. } => {
            ddl_default(column_type, &format!("0.{}", "0".repeat(usize::from(n))))
        }
        _ => ddl_default(column_type, "0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_typed() {
        use arrow::array::AsArray;
        use arrow::datatypes::{Decimal128Type, Int32Type};
        let int = ddl_default(ColumnType::Int32, "7").unwrap();
        assert_eq!(int.as_primitive::<Int32Type>().value(0), 7);
        let dec = ddl_default(ColumnType::Decimal { precision: 12, scale: 2 }, "0.00").unwrap();
        assert_eq!(dec.as_primitive::<Decimal128Type>().value(0), 0);
        assert!(ddl_default(ColumnType::Bit, "0").is_some());
        assert!(ddl_default(ColumnType::Int8, "300").is_none());
        assert!(ddl_default(ColumnType::DateTime { places: 6 }, "2024-01-02 03:04:05.6").is_some());
        assert_eq!(implicit_default(ColumnType::Text, Some("a")).unwrap().as_string::<i32>().value(0), "a");
    }
}
