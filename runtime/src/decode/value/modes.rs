//! The connector's modes: how it writes values, told by the pipeline file or by the values themselves.
//!
//! Receives values of DECIMAL, DATETIME and TIME columns of bare records. Promises a mode only where a value rules the
//! other ones out (certain) or makes them absurd (strong). One [`Evidence`] serves all tables of a connector, because
//! its modes hold for all of them. Never overrides a setting.

use super::column_type::ColumnType;
use super::time_text::TIME_MICROS_MAX;
use crate::decode::format::json::cursor::{Token, ValueKind};
use crate::decode::format::json::number::int64;

/// The connector's `time.precision.mode`: what a number of a DATETIME or TIME column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimePrecision {
    /// `adaptive_time_microseconds`, Debezium's default: DATETIME(0..3) milliseconds, DATETIME(4..6) and TIME microseconds
    AdaptiveTimeMicroseconds,
    /// `adaptive`: as above, TIME(0..3) in milliseconds
    Adaptive,
    /// `connect`: everything in milliseconds
    Connect,
    /// `microseconds`: everything in microseconds
    Microseconds,
    /// `nanoseconds`: everything in nanoseconds
    Nanoseconds,
    /// `isostring`: ISO 8601 text (text is understood in every mode)
    IsoString,
}

/// The connector's `decimal.handling.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecimalHandling {
    /// `precise`: base64 of the unscaled big-endian integer
    Precise,
    /// `string`: the digits
    String,
    /// `double`: a JSON number
    Double,
}

/// The connector's `binary.handling.mode`, as the JSON converter writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryHandling {
    /// `bytes` and `base64`: standard base64
    Base64,
    /// `base64-url-safe`
    Base64UrlSafe,
    /// `hex`
    Hex,
}

/// The modes that say how values are written; `None` is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) time: Option<TimePrecision>,
    pub(crate) decimal: Option<DecimalHandling>,
    pub(crate) binary: BinaryHandling,
}

/// Milliseconds of the last DATETIME that MySQL holds, generously: a larger number counts microseconds.
const DATETIME_MILLIS_MAX: u64 = 260_000_000_000_000;
/// 1962 to 1978 in microseconds, 1990 to 2100 in milliseconds.
const ABSURD_AS_MICROS: std::ops::Range<i64> = -252_460_800_000_000..283_996_800_000_000;
const LIKELY_AS_MILLIS: std::ops::Range<i64> = 631_152_000_000..4_102_444_800_000;

/// The modes of one connector, as far as its values have told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    time: Option<TimePrecision>,
    time_is_certain: bool,
    decimal: Option<DecimalHandling>,
}

impl Evidence {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Evidence::default()
    }

    /// What numbers in time columns count, once known.
    pub fn time_precision(&self) -> Option<TimePrecision> {
        self.time
    }

    /// How DECIMAL is written, once known.
    pub fn decimal_handling(&self) -> Option<DecimalHandling> {
        self.decimal
    }

    /// Takes in what another reader of the connector's values learned: nothing known is lost.
    pub fn merge(&mut self, other: Evidence) {
        self.observe_time(other.time.map(|mode| (mode, other.time_is_certain)));
        self.decimal = self.decimal.or(other.decimal);
    }

    /// True when nothing a value says can change anything.
    pub fn is_settled(&self) -> bool {
        self.time_is_certain && self.decimal.is_some()
    }

    /// Takes in one value of a bare record.
    pub(crate) fn observe(&mut self, column: ColumnType, token: Token, text: &[u8]) {
        match column {
            ColumnType::DateTime { places } if token.kind == ValueKind::Number => {
                if let Some(n) = int64(token.of(text)) {
                    self.observe_time(datetime(n, places));
                }
            }
            ColumnType::Time { places } if token.kind == ValueKind::Number => {
                if let Some(n) = int64(token.of(text)) {
                    self.observe_time(time(n, places));
                }
            }
            ColumnType::Decimal { scale, .. } if self.decimal.is_none() => self.decimal = decimal(scale, token, text),
            ColumnType::BigDecimal { scale } if self.decimal.is_none() => {
                self.decimal = decimal(i8::try_from(scale).unwrap_or(i8::MAX), token, text);
            }
            _ => {}
        }
    }

    fn observe_time(&mut self, seen: Option<(TimePrecision, bool)>) {
        let Some((mode, certain)) = seen else { return };
        if self.time.is_none() || (certain && !self.time_is_certain) {
            self.time = Some(mode);
            self.time_is_certain = certain;
        }
    }
}

fn datetime(n: i64, places: u8) -> Option<(TimePrecision, bool)> {
    if places <= 3 {
        return None;
    }
    if n.unsigned_abs() > DATETIME_MILLIS_MAX {
        return Some((TimePrecision::AdaptiveTimeMicroseconds, true));
    }
    (ABSURD_AS_MICROS.contains(&n) && LIKELY_AS_MILLIS.contains(&n)).then_some((TimePrecision::Connect, false))
}

fn time(n: i64, places: Option<u8>) -> Option<(TimePrecision, bool)> {
    // a TIME in milliseconds is at most 838:59:59.999
    if n.unsigned_abs() > (TIME_MICROS_MAX / 1000).unsigned_abs() {
        return Some((TimePrecision::AdaptiveTimeMicroseconds, true));
    }
    let unit = 10i64.pow(6 - u32::from(places?.min(6)));
    (n % unit != 0).then_some((TimePrecision::Connect, true))
}

/// How a DECIMAL with `scale` fractional digits is written, where the value can be only one of the three.
pub(crate) fn decimal(scale: i8, token: Token, text: &[u8]) -> Option<DecimalHandling> {
    match token.kind {
        ValueKind::Number => return Some(DecimalHandling::Double),
        ValueKind::Text => {}
        _ => return None,
    }
    let text = token.of(text);
    if text.is_empty() {
        return None;
    }
    let numeric = text.iter().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'E' | b'e'))
        && text.iter().any(u8::is_ascii_digit)
        && !text.first().is_some_and(|b| matches!(b, b'E' | b'e'));
    let body = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let base64 =
        text.len().is_multiple_of(4) && body.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    match (numeric, base64) {
        (true, false) => Some(DecimalHandling::String),
        (false, true) => Some(DecimalHandling::Precise),
        // digits alone: a decimal with fractional digits would be written with its point
        (true, true) if scale > 0 && text.iter().all(u8::is_ascii_digit) => Some(DecimalHandling::Precise),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(column: ColumnType, json: &str) -> Evidence {
        let mut evidence = Evidence::new();
        let mut cursor = crate::decode::format::json::cursor::Cursor::new(json.as_bytes());
        evidence.observe(column, cursor.value().unwrap(), json.as_bytes());
        evidence
    }

    #[test]
    fn times_tell_what_they_count() {
        let datetime = ColumnType::DateTime { places: 6 };
        let time = ColumnType::Time { places: Some(0) };
        let micros = Some(TimePrecision::AdaptiveTimeMicroseconds);
        let millis = Some(TimePrecision::Connect);
        assert_eq!(seen(datetime, "1735770351627740").time_precision(), micros);
        assert_eq!(seen(datetime, "1735770351627").time_precision(), millis);
        assert_eq!(seen(datetime, "0").time_precision(), None);
        assert_eq!(seen(ColumnType::DateTime { places: 3 }, "1735770351627").time_precision(), None);
        assert_eq!(seen(time, "37800000000").time_precision(), micros);
        assert_eq!(seen(time, "37800000").time_precision(), millis);
        assert_eq!(seen(time, "36000000").time_precision(), None);
    }

    #[test]
    fn certain_evidence_wins_over_strong() {
        let mut evidence = seen(ColumnType::DateTime { places: 6 }, "1735770351627");
        let json = b"1735770351627740";
        let token = crate::decode::format::json::cursor::Cursor::new(json).value().unwrap();
        evidence.observe(ColumnType::DateTime { places: 6 }, token, json);
        assert_eq!(evidence.time_precision(), Some(TimePrecision::AdaptiveTimeMicroseconds));
    }

    #[test]
    fn a_merge_loses_nothing() {
        let decimal = seen(ColumnType::Decimal { precision: 12, scale: 2 }, "\"10436.42\"");
        let strong = seen(ColumnType::DateTime { places: 6 }, "1735770351627");
        let certain = seen(ColumnType::DateTime { places: 6 }, "1735770351627740");
        let mut known = decimal;
        known.merge(Evidence::new());
        assert_eq!(known, decimal);
        known.merge(strong);
        known.merge(certain);
        known.merge(strong);
        assert_eq!(known.decimal_handling(), Some(DecimalHandling::String));
        assert_eq!(known.time_precision(), Some(TimePrecision::AdaptiveTimeMicroseconds));
    }

    #[test]
    fn decimals_tell_how_they_are_written() {
        let two = ColumnType::Decimal { precision: 12, scale: 2 };
        let none = ColumnType::Decimal { precision: 12, scale: 0 };
        assert_eq!(seen(two, "10436.42").decimal_handling(), Some(DecimalHandling::Double));
        assert_eq!(seen(two, "\"10436.42\"").decimal_handling(), Some(DecimalHandling::String));
        assert_eq!(seen(none, "\"-12\"").decimal_handling(), Some(DecimalHandling::String));
        assert_eq!(seen(none, "\"123\"").decimal_handling(), Some(DecimalHandling::String));
        assert_eq!(seen(none, "\"1234\"").decimal_handling(), None);
        assert_eq!(seen(two, "\"D+y6\"").decimal_handling(), Some(DecimalHandling::Precise));
        assert_eq!(seen(two, "\"1234\"").decimal_handling(), Some(DecimalHandling::Precise));
        assert_eq!(seen(two, "null").decimal_handling(), None);
    }
}
