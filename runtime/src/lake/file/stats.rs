//! Statistics of a data file, as the log keeps them.
//!
//! Receives the rows of one file. Promises bounds that hold for every value: numbers are written digit by digit
//! (a JSON float would round a 38-digit decimal to the wrong side), text is cut to 32 characters and its upper bound
//! raised. A column whose bounds cannot be stated has none. Only the first 32 columns that have bounds are kept.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate};

use super::WHOLE_RECORDS;

const COLUMNS_MAX: usize = 32;
const TEXT_CHARS: usize = 32;

#[derive(Debug, Clone, PartialEq)]
enum Bound {
    Integer(i128),
    Float(f64),
    Text(String),
}

#[derive(Debug)]
struct Column {
    name: String,
    of: DataType,
    nulls: u64,
    bounds: Option<(Bound, Bound)>,
    /// has no bounds, or a value was seen that none can state
    open: bool,
}

/// Statistics of the rows seen so far.
#[derive(Debug)]
pub(in crate::lake) struct Stats {
    columns: Vec<(usize, Column)>,
}

impl Stats {
    /// No rows yet.
    pub(in crate::lake) fn of(schema: &SchemaRef) -> Self {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| is_simple(field.data_type()))
            .take(COLUMNS_MAX)
            .map(|(at, field)| {
                (
                    at,
                    Column {
                        name: field.name().clone(),
                        of: field.data_type().clone(),
                        nulls: 0,
                        bounds: None,
                        open: WHOLE_RECORDS.contains(&field.name().as_str()),
                    },
                )
            })
            .collect();
        Stats { columns }
    }

    /// Takes in rows of the schema given at the start.
    pub(in crate::lake) fn push(&mut self, batch: &RecordBatch) {
        for (at, column) in &mut self.columns {
            let Some(array) = batch.columns().get(*at) else { continue };
            column.nulls += array.null_count() as u64;
            if column.open || array.null_count() == array.len() {
                continue;
            }
            match bounds(array) {
                None => column.open = true,
                Some((low, high)) => {
                    column.bounds = Some(match column.bounds.take() {
                        None => (low, high),
                        Some((l, h)) => (least(l, low), greatest(h, high)),
                    });
                }
            }
        }
    }

    /// The `stats` text of an add action.
    pub(in crate::lake) fn text(&self, rows: u64) -> String {
        let mut low = String::new();
        let mut high = String::new();
        let mut nulls = String::new();
        for (_, column) in &self.columns {
            let name = serde_json::Value::from(column.name.as_str()).to_string();
            member(&mut nulls, &name, &column.nulls.to_string());
            if column.open {
                continue;
            }
            let Some((min, max)) = &column.bounds else { continue };
            if let (Some(min), Some(max)) = (write(min, &column.of, false), write(max, &column.of, true)) {
                member(&mut low, &name, &min);
                member(&mut high, &name, &max);
            }
        }
        format!(
            r#"{{"numRecords":{rows},"tightBounds":true,"minValues":{{{low}}},"maxValues":{{{high}}},"nullCount":{{{nulls}}}}}"#
        )
    }
}

/// The same statistics with bounds that rows may have left.
pub(in crate::lake) fn loosen(stats: &str) -> String {
    if stats.contains(r#""tightBounds":false"#) {
        return stats.to_string();
    }
    if stats.contains(r#""tightBounds":true"#) {
        return stats.replacen(r#""tightBounds":true"#, r#""tightBounds":false"#, 1);
    }
    match stats.trim_start().strip_prefix('{') {
        Some(rest) if rest.trim() != "}" => format!(r#"{{"tightBounds":false,{rest}"#),
        _ => r#"{"tightBounds":false}"#.to_string(),
    }
}

/// `numRecords` of a stats text.
pub(in crate::lake) fn records(stats: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(stats).ok()?.get("numRecords")?.as_u64()
}

/// A whole-number bound of a column in a stats text.
pub(in crate::lake) fn integer_bound(stats: &serde_json::Value, which: &str, column: &str) -> Option<i64> {
    stats.get(which)?.get(column)?.as_i64()
}

fn member(to: &mut String, name: &str, value: &str) {
    if !to.is_empty() {
        to.push(',');
    }
    let _ = write!(to, "{name}:{value}");
}

fn is_simple(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Decimal128(..)
            | DataType::Float32
            | DataType::Float64
            | DataType::Utf8
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Microsecond, _)
    )
}

fn integers<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<(Bound, Bound)>
where
    T::Native: Into<i128>,
{
    let array = array.as_primitive_opt::<T>()?;
    Some((Bound::Integer(compute::min(array)?.into()), Bound::Integer(compute::max(array)?.into())))
}

fn floats<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<(Bound, Bound)>
where
    T::Native: Into<f64>,
{
    let array = array.as_primitive_opt::<T>()?;
    let (low, high): (f64, f64) = (compute::min(array)?.into(), compute::max(array)?.into());
    // NaN sorts last: when there is one, the maximum is it
    (low.is_finite() && high.is_finite()).then_some((Bound::Float(low), Bound::Float(high)))
}

fn bounds(array: &ArrayRef) -> Option<(Bound, Bound)> {
    match array.data_type() {
        DataType::Int8 => integers::<Int8Type>(array),
        DataType::Int16 => integers::<Int16Type>(array),
        DataType::Int32 => integers::<Int32Type>(array),
        DataType::Int64 => integers::<Int64Type>(array),
        DataType::Date32 => integers::<Date32Type>(array),
        DataType::Decimal128(..) => integers::<Decimal128Type>(array),
        DataType::Timestamp(TimeUnit::Microsecond, _) => integers::<TimestampMicrosecondType>(array),
        DataType::Float32 => floats::<Float32Type>(array),
        DataType::Float64 => floats::<Float64Type>(array),
        DataType::Utf8 => {
            let array = array.as_string_opt::<i32>()?;
            let low = compute::min_string(array)?.chars().take(TEXT_CHARS).collect();
            Some((Bound::Text(low), Bound::Text(raised(compute::max_string(array)?)?)))
        }
        _ => None,
    }
}

/// A short text not less than `text`.
fn raised(text: &str) -> Option<String> {
    let mut chars = text.char_indices().skip(TEXT_CHARS);
    let Some((cut, next)) = chars.next() else { return Some(text.to_string()) };
    // the tie-breaker must be above what is cut off
    (next < char::MAX).then(|| {
        let mut short = text.get(..cut).unwrap_or_default().to_string();
        short.push(char::MAX);
        short
    })
}

fn least(a: Bound, b: Bound) -> Bound {
    if less(&b, &a) { b } else { a }
}

fn greatest(a: Bound, b: Bound) -> Bound {
    if less(&a, &b) { b } else { a }
}

fn less(a: &Bound, b: &Bound) -> bool {
    match (a, b) {
        (Bound::Integer(a), Bound::Integer(b)) => a < b,
        (Bound::Float(a), Bound::Float(b)) => a < b,
        (Bound::Text(a), Bound::Text(b)) => a < b,
        _ => false,
    }
}

fn write(bound: &Bound, of: &DataType, upper: bool) -> Option<String> {
    match (bound, of) {
        (Bound::Integer(n), DataType::Decimal128(_, scale)) => Some(decimal(*n, *scale)),
        (Bound::Integer(n), DataType::Date32) => {
            let date = NaiveDate::from_num_days_from_ce_opt(i32::try_from(*n).ok()?.checked_add(719_163)?)?;
            (0..=9999).contains(&date.year()).then(|| format!("\"{}\"", date.format("%Y-%m-%d")))
        }
        (Bound::Integer(n), DataType::Timestamp(_, zone)) => {
            // readers may keep milliseconds only: round to the side that holds
            let step = if upper { n.div_euclid(1000) + i128::from(n.rem_euclid(1000) > 0) } else { n.div_euclid(1000) };
            let time = DateTime::from_timestamp_millis(i64::try_from(step).ok()?)?;
            let end = if zone.is_some() { "Z" } else { "" };
            (0..=9999).contains(&time.year()).then(|| format!("\"{}{end}\"", time.format("%Y-%m-%dT%H:%M:%S%.3f")))
        }
        (Bound::Integer(n), _) => Some(n.to_string()),
        (Bound::Float(f), _) => Some(serde_json::Value::from(*f).to_string()),
        (Bound::Text(text), _) => Some(serde_json::Value::from(text.as_str()).to_string()),
    }
}

fn decimal(value: i128, scale: i8) -> String {
    let Ok(scale) = usize::try_from(scale) else { return value.to_string() };
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        assert_eq!(decimal(5, 2), "0.05");
        assert_eq!(decimal(-12345, 2), "-123.45");
        assert_eq!(
            decimal(5_316_911_983_139_663_491_615_228_241_121_378_303, 0),
            "5316911983139663491615228241121378303"
        );
    }

    #[test]
    fn long_text_is_raised() {
        let long = "x".repeat(40);
        let bound = raised(&long).unwrap();
        assert!(bound.as_str() >= long.as_str() && bound.chars().count() == 33);
        assert_eq!(raised("abc").unwrap(), "abc");
        assert_eq!(raised(&char::MAX.to_string().repeat(33)), None);
    }

    #[test]
    fn loosening_keeps_the_rest() {
        assert_eq!(loosen(r#"{"numRecords":3,"tightBounds":true}"#), r#"{"numRecords":3,"tightBounds":false}"#);
        assert_eq!(loosen(r#"{"numRecords":3}"#), r#"{"tightBounds":false,"numRecords":3}"#);
        assert_eq!(loosen("{}"), r#"{"tightBounds":false}"#);
    }
}
