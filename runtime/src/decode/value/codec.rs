//! How the values of a column are written, and how they are read.
//!
//! Receives one token at a time with what says how it was written: the record's own schema, or the connector's modes.
//! Promises the exact value or a [`Misfit`]. Never rounds, clips or turns a value into null.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::column_type::ColumnType;
use super::modes::{self, BinaryHandling, DecimalHandling, Modes, TimePrecision};
use super::scalar::{self, Digits};
use super::time_text;
use crate::decode::format::embedded_schema::Field;
use crate::decode::format::json::cursor::{Token, ValueKind};
use crate::decode::format::json::escape;
use crate::decode::format::json::number::{int64, int128};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What a number of a time column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// `None` where the number does not fit microseconds.
    #[inline]
    fn micros(self, n: i64) -> Option<i64> {
        match self {
            Unit::Millis => n.checked_mul(1000),
            Unit::Micros => Some(n),
            Unit::Nanos => (n % 1000 == 0).then_some(n / 1000),
        }
    }
}

/// How the values of one column are written, and what they become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Int8,
    Int16,
    Int32,
    Int64,
    UInt64,
    /// `written`: the scale of base64 values
    Decimal {
        precision: u8,
        scale: i8,
        written: i8,
        form: Option<DecimalHandling>,
    },
    BigDecimal {
        scale: u8,
        form: Option<DecimalHandling>,
    },
    Float32,
    Float64,
    Date,
    DateTime(Option<Unit>),
    Timestamp(Option<Unit>),
    Time(Option<Unit>, Option<u8>),
    Year,
    Bit,
    Bits {
        length: u8,
    },
    Text,
    Json,
    Binary(BinaryHandling),
}

impl Codec {
    /// How a column is written under these modes, with nothing else known.
    pub(crate) fn of_modes(column: ColumnType, modes: Modes) -> Codec {
        use TimePrecision as P;
        let datetime = |places: u8| match modes.time {
            Some(P::Connect) => Some(Unit::Millis),
            Some(P::Microseconds) => Some(Unit::Micros),
            Some(P::Nanoseconds) => Some(Unit::Nanos),
            _ if places <= 3 => Some(Unit::Millis),
            Some(P::Adaptive | P::AdaptiveTimeMicroseconds) => Some(Unit::Micros),
            Some(P::IsoString) | None => None,
        };
        let time = |places: Option<u8>| match modes.time {
            Some(P::Connect) => Some(Unit::Millis),
            Some(P::Nanoseconds) => Some(Unit::Nanos),
            Some(P::Adaptive) if places.is_some_and(|p| p <= 3) => Some(Unit::Millis),
            Some(P::Adaptive | P::Microseconds | P::AdaptiveTimeMicroseconds) => Some(Unit::Micros),
            Some(P::IsoString) | None => None,
        };
        match column {
            ColumnType::Int8 => Codec::Int8,
            ColumnType::Int16 => Codec::Int16,
            ColumnType::Int32 => Codec::Int32,
            ColumnType::Int64 => Codec::Int64,
            ColumnType::UInt64 => Codec::UInt64,
            ColumnType::Decimal { precision, scale } => {
                Codec::Decimal { precision, scale, written: scale, form: modes.decimal }
            }
            ColumnType::BigDecimal { scale } => Codec::BigDecimal { scale, form: modes.decimal },
            ColumnType::Float32 => Codec::Float32,
            ColumnType::Float64 => Codec::Float64,
            ColumnType::Date => Codec::Date,
            ColumnType::DateTime { places } => Codec::DateTime(datetime(places)),
            ColumnType::Timestamp => Codec::Timestamp(None),
            ColumnType::Time { places } => Codec::Time(time(places), places),
            ColumnType::Year => Codec::Year,
            ColumnType::Bit => Codec::Bit,
            ColumnType::Bits { length } => Codec::Bits { length },
            ColumnType::Text => Codec::Text,
            ColumnType::Json => Codec::Json,
            ColumnType::Binary => Codec::Binary(modes.binary),
        }
    }

    /// How a column is written that has this field in the record's own schema.
    pub(crate) fn of_field(column: ColumnType, field: &Field, modes: Modes) -> Codec {
        let unit = match field.semantic.as_str() {
            "io.debezium.time.Timestamp"
            | "org.apache.kafka.connect.data.Timestamp"
            | "io.debezium.time.Time"
            | "org.apache.kafka.connect.data.Time" => Some(Unit::Millis),
            "io.debezium.time.MicroTimestamp" | "io.debezium.time.MicroTime" => Some(Unit::Micros),
            "io.debezium.time.NanoTimestamp" | "io.debezium.time.NanoTime" => Some(Unit::Nanos),
            _ => None,
        };
        let form = match (field.semantic.as_str(), field.base.as_str()) {
            ("org.apache.kafka.connect.data.Decimal", _) => Some(DecimalHandling::Precise),
            (_, "string") => Some(DecimalHandling::String),
            (_, "double" | "float64" | "float" | "float32") => Some(DecimalHandling::Double),
            _ => modes.decimal,
        };
        match column {
            ColumnType::Decimal { precision, scale } => {
                let written = field.parameter("scale").and_then(|s| s.parse().ok()).unwrap_or(scale);
                Codec::Decimal { precision, scale, written, form }
            }
            ColumnType::BigDecimal { scale } => {
                let scale = field.parameter("scale").and_then(|s| s.parse().ok()).unwrap_or(scale);
                Codec::BigDecimal { scale, form }
            }
            ColumnType::DateTime { .. } => Codec::DateTime(unit),
            ColumnType::Timestamp => Codec::Timestamp(unit),
            ColumnType::Time { places } => Codec::Time(unit, places),
            other => Codec::of_modes(other, modes),
        }
    }

    /// A value of a column of 8-bit integers.
    #[inline]
    pub(crate) fn int8(self, token: Token, value: &[u8]) -> Result<i8, Misfit> {
        match (self, token.kind) {
            // a converter may write TINYINT(1) as a boolean
            (Codec::Int8, ValueKind::True) => Ok(1),
            (Codec::Int8, ValueKind::False) => Ok(0),
            (Codec::Int8, _) => i8::try_from(integer(token, value)?).map_err(|_| OUT_OF_RANGE),
            _ => Err(WRONG_KIND),
        }
    }

    /// A value of a column of 16-bit integers.
    #[inline]
    pub(crate) fn int16(self, token: Token, value: &[u8]) -> Result<i16, Misfit> {
        match (self, token.kind) {
            (Codec::Int16, ValueKind::True) => Ok(1),
            (Codec::Int16, ValueKind::False) => Ok(0),
            (Codec::Int16, _) => i16::try_from(integer(token, value)?).map_err(|_| OUT_OF_RANGE),
            _ => Err(WRONG_KIND),
        }
    }

    /// A value of a column of 32-bit integers, or days since 1970.
    #[inline]
    pub(crate) fn int32(self, token: Token, value: &[u8]) -> Result<i32, Misfit> {
        match (self, token.kind) {
            (Codec::Int32 | Codec::Year, _) => i32::try_from(integer(token, value)?).map_err(|_| OUT_OF_RANGE),
            (Codec::Date, ValueKind::Number) => time_text::date_of_days(integer(token, value)?).ok_or(OUT_OF_RANGE),
            (Codec::Date, ValueKind::Text | ValueKind::Escaped) => time_text::date_of_text(value).ok_or(WRONG_KIND),
            _ => Err(WRONG_KIND),
        }
    }

    /// A value of a column of 64-bit integers, or microseconds since 1970.
    #[inline]
    pub(crate) fn int64(self, token: Token, value: &[u8]) -> Result<i64, Misfit> {
        match self {
            Codec::Int64 => integer(token, value),
            Codec::DateTime(unit) => datetime(token, value, unit),
            Codec::Timestamp(unit) => timestamp(token, value, unit),
            Codec::Bits { length } => i64::try_from(bits(token, value, length)?).map_err(|_| OUT_OF_RANGE),
            _ => Err(WRONG_KIND),
        }
    }

    /// A value of a column of decimals, without its point.
    #[inline]
    pub(crate) fn int128(self, token: Token, value: &[u8]) -> Result<i128, Misfit> {
        match self {
            Codec::Decimal { precision, scale, written, form } => {
                decimal(token, value, precision, scale, written, form)
            }
            Codec::UInt64 => unsigned(token, value),
            Codec::Bits { length } => bits(token, value, length).map(i128::from),
            _ => Err(WRONG_KIND),
        }
    }

    /// A value of a column of 32-bit floats.
    pub(crate) fn float32(self, token: Token, value: &[u8]) -> Result<f32, Misfit> {
        if self != Codec::Float32 {
            return Err(WRONG_KIND);
        }
        let n: f32 = number(token, value)?;
        if n.is_infinite() { Err(OUT_OF_RANGE) } else { Ok(n) }
    }

    /// A value of a column of 64-bit floats.
    pub(crate) fn float64(self, token: Token, value: &[u8]) -> Result<f64, Misfit> {
        if self != Codec::Float64 {
            return Err(WRONG_KIND);
        }
        let n: f64 = number(token, value)?;
        if n.is_infinite() { Err(OUT_OF_RANGE) } else { Ok(n) }
    }

    /// A value of a column of booleans.
    pub(crate) fn bit(self, token: Token, value: &[u8]) -> Result<bool, Misfit> {
        match (self, token.kind, value) {
            (Codec::Bit, ValueKind::True, _) | (Codec::Bit, ValueKind::Number, b"1") => Ok(true),
            (Codec::Bit, ValueKind::False, _) | (Codec::Bit, ValueKind::Number, b"0") => Ok(false),
            _ => Err(WRONG_KIND),
        }
    }

    /// A value of a column of text or bytes, appended to `out`. `text` is what `token` was found in: text with escapes is
    /// taken from there rather than from `value`.
    #[inline]
    pub(crate) fn bytes(self, token: Token, text: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Misfit> {
        match (self, token.kind) {
            (Codec::Text, ValueKind::Text) => out.extend_from_slice(value),
            (Codec::Text | Codec::Json, ValueKind::Escaped) => {
                escape::unescape(token.of(text), out).ok_or(Misfit::Value("holds half of a surrogate pair"))?;
            }
            (Codec::Json, _) => out.extend_from_slice(value),
            (Codec::Time(unit, places), _) => time(token, value, unit, places, out)?,
            (Codec::BigDecimal { scale, form }, _) => big_decimal(token, value, scale, form, out)?,
            (Codec::Binary(form), _) => binary(token, value, form, out)?,
            _ => return Err(WRONG_KIND),
        }
        Ok(())
    }

    /// How a default of the DDL is written.
    pub(crate) fn of_ddl(column: ColumnType) -> Codec {
        let modes = Modes { time: None, decimal: Some(DecimalHandling::String), binary: BinaryHandling::Base64 };
        Codec::of_modes(column, modes)
    }
}

/// Why a value does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// under no setting
    Value(&'static str),
    /// as long as this setting of the connector is not known
    Unsettled(&'static str),
}

pub(crate) const WRONG_KIND: Misfit = Misfit::Value("is not written as values of that type are");
const OUT_OF_RANGE: Misfit = Misfit::Value("is out of the type's range");
const TOO_PRECISE: Misfit = Misfit::Value("has more digits than the type");

#[inline]
fn integer(token: Token, value: &[u8]) -> Result<i64, Misfit> {
    if token.kind != ValueKind::Number {
        return Err(WRONG_KIND);
    }
    int64(value)
        .ok_or_else(|| if value.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) { WRONG_KIND } else { OUT_OF_RANGE })
}

fn number<T: std::str::FromStr>(token: Token, value: &[u8]) -> Result<T, Misfit> {
    if token.kind != ValueKind::Number {
        return Err(WRONG_KIND);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(WRONG_KIND)
}

/// BIGINT UNSIGNED: the mode `long` writes values past 2^63 as negative numbers, `precise` writes base64.
fn unsigned(token: Token, value: &[u8]) -> Result<i128, Misfit> {
    let n = match token.kind {
        ValueKind::Number => match int128(value).ok_or(WRONG_KIND)? {
            n if n < 0 => i128::from(i64::try_from(n).map_err(|_| OUT_OF_RANGE)?.cast_unsigned()),
            n => n,
        },
        ValueKind::Text | ValueKind::Escaped => small_base64(value)?,
        _ => return Err(WRONG_KIND),
    };
    if u64::try_from(n).is_ok() { Ok(n) } else { Err(OUT_OF_RANGE) }
}

/// A base64 integer that fits 38 digits.
fn small_base64(value: &[u8]) -> Result<i128, Misfit> {
    let mut buffer = [0u8; 48];
    let len = BASE64.decode_slice(value, &mut buffer).map_err(|_| WRONG_KIND)?;
    scalar::big_endian(buffer.get(..len).unwrap_or_default()).ok_or(OUT_OF_RANGE)
}

fn form_of(token: Token, value: &[u8], scale: i8, form: Option<DecimalHandling>) -> Result<DecimalHandling, Misfit> {
    if let Some(form) = form {
        return Ok(form);
    }
    let whole = Token { kind: token.kind, start: 0, end: value.len() as u32 };
    modes::decimal(scale, whole, value).ok_or(match token.kind {
        ValueKind::Text => Misfit::Unsettled("decimal_handling"),
        _ => WRONG_KIND,
    })
}

/// A double holds 15 digits for certain.
fn double_digits(value: &[u8]) -> Result<Digits, Misfit> {
    let digits = scalar::digits(value).ok_or(OUT_OF_RANGE)?;
    if digits.significant > 15 {
        return Err(Misfit::Value(
            "has over 15 digits, which `double` cannot hold exactly; set decimal.handling.mode of the connector to `precise` or `string`",
        ));
    }
    Ok(digits)
}

#[inline]
fn decimal(
    token: Token,
    value: &[u8],
    precision: u8,
    scale: i8,
    written: i8,
    form: Option<DecimalHandling>,
) -> Result<i128, Misfit> {
    let digits = match (form_of(token, value, scale, form)?, token.kind) {
        (DecimalHandling::String, ValueKind::Text | ValueKind::Escaped) => scalar::digits(value).ok_or(WRONG_KIND)?,
        (DecimalHandling::Precise, ValueKind::Text | ValueKind::Escaped) => {
            Digits { unscaled: small_base64(value)?, scale: i32::from(written), significant: 0 }
        }
        (DecimalHandling::Double, ValueKind::Number) => double_digits(value)?,
        _ => return Err(WRONG_KIND),
    };
    digits.rescale(precision, scale).ok_or(TOO_PRECISE)
}

fn big_decimal(
    token: Token,
    value: &[u8],
    scale: u8,
    form: Option<DecimalHandling>,
    out: &mut Vec<u8>,
) -> Result<(), Misfit> {
    let signed = i8::try_from(scale).unwrap_or(i8::MAX);
    match (form_of(token, value, signed, form)?, token.kind) {
        (DecimalHandling::String, ValueKind::Text | ValueKind::Escaped) => {
            let body = value.strip_prefix(b"-").unwrap_or(value);
            let points = body.iter().filter(|b| **b == b'.').count();
            if body.is_empty() || points > 1 || body.iter().any(|b| !b.is_ascii_digit() && *b != b'.') {
                return Err(WRONG_KIND);
            }
            out.extend_from_slice(value);
        }
        (DecimalHandling::Precise, ValueKind::Text | ValueKind::Escaped) => {
            let mut buffer = [0u8; 64];
            let len = BASE64.decode_slice(value, &mut buffer).map_err(|_| WRONG_KIND)?;
            if len == 0 {
                return Err(WRONG_KIND);
            }
            scalar::write_big_endian(buffer.get(..len).unwrap_or_default(), usize::from(scale), out);
        }
        (DecimalHandling::Double, ValueKind::Number) => {
            let n = double_digits(value)?.rescale(38, signed).ok_or(TOO_PRECISE)?;
            scalar::write_big_endian(&n.to_be_bytes(), usize::from(scale), out);
        }
        _ => return Err(WRONG_KIND),
    }
    Ok(())
}

#[inline]
fn datetime(token: Token, value: &[u8], unit: Option<Unit>) -> Result<i64, Misfit> {
    match token.kind {
        ValueKind::Number => {
            let n = integer(token, value)?;
            match unit {
                Some(unit) => unit.micros(n).and_then(time_text::in_range).ok_or(OUT_OF_RANGE),
                None if n == 0 => Ok(0),
                None => Err(Misfit::Unsettled("time_precision")),
            }
        }
        ValueKind::Text | ValueKind::Escaped => time_text::micros_of_text(value).ok_or(WRONG_KIND),
        _ => Err(WRONG_KIND),
    }
}

#[inline]
fn timestamp(token: Token, value: &[u8], unit: Option<Unit>) -> Result<i64, Misfit> {
    match (token.kind, unit) {
        (ValueKind::Text | ValueKind::Escaped, _) => time_text::micros_of_text(value).ok_or(WRONG_KIND),
        (ValueKind::Number, Some(_)) => datetime(token, value, unit),
        _ => Err(WRONG_KIND),
    }
}

fn time(token: Token, value: &[u8], unit: Option<Unit>, places: Option<u8>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let micros = match (token.kind, unit) {
        (ValueKind::Number, Some(unit)) => unit.micros(integer(token, value)?).ok_or(OUT_OF_RANGE)?,
        (ValueKind::Number, None) => match integer(token, value)? {
            0 => 0,
            _ => return Err(Misfit::Unsettled("time_precision")),
        },
        (ValueKind::Text | ValueKind::Escaped, _) => time_text::time_of_text(value).ok_or(WRONG_KIND)?,
        _ => return Err(WRONG_KIND),
    };
    time_text::write_time(micros, places, out).ok_or(OUT_OF_RANGE)
}

fn bits(token: Token, value: &[u8], length: u8) -> Result<u64, Misfit> {
    let n = match token.kind {
        ValueKind::Text | ValueKind::Escaped => {
            let mut buffer = [0u8; 16];
            let len = BASE64.decode_slice(value, &mut buffer).map_err(|_| WRONG_KIND)?;
            let (low, high) = buffer.split_at(8);
            if len > 8 && high.iter().any(|b| *b != 0) {
                return Err(OUT_OF_RANGE);
            }
            low.first_chunk::<8>().map_or(0, |low| u64::from_le_bytes(*low))
        }
        ValueKind::True => 1,
        ValueKind::False => 0,
        _ => return Err(WRONG_KIND),
    };
    if length < 64 && n >> length != 0 { Err(OUT_OF_RANGE) } else { Ok(n) }
}

fn binary(token: Token, value: &[u8], form: BinaryHandling, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if !token.is_text() {
        return Err(WRONG_KIND);
    }
    match form {
        BinaryHandling::Base64 => BASE64.decode_vec(value, out).map_err(|_| WRONG_KIND),
        BinaryHandling::Base64UrlSafe => BASE64_URL.decode_vec(value, out).map_err(|_| WRONG_KIND),
        BinaryHandling::Hex => {
            for pair in value.chunks(2) {
                let digit = |at: usize| pair.get(at).and_then(|d| (*d as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(WRONG_KIND) };
                out.push((high << 4 | low) as u8);
            }
            Ok(())
        }
    }
}
