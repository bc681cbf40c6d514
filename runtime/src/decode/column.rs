//! Columns that grow by one JSON value a row, and how the values are written.
//!
//! Receives tokens of a record. Promises typed Arrow arrays whose every value is exactly what was written; a value that
//! does not fit leaves the column as it was. Never rounds, clips or turns a value into null.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, NullBufferBuilder,
    PrimitiveArray, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::columntype::ColumnType;
use super::connect::Field;
use super::evidence;
use super::json::{self, Kind, Token};
use super::scalar::{self, Digits};
use super::{BinaryHandling, DecimalHandling, TimePrecision};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// What a number of a time column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
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

/// The modes that say how values are written; `None` is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modes {
    pub(super) time: Option<TimePrecision>,
    pub(super) decimal: Option<DecimalHandling>,
    pub(super) binary: BinaryHandling,
}

/// How the values of one column are written, and what they become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Int8,
    Int16,
    Int32,
    Int64,
    UInt64,
    /// `written`: the scale of base64 values
    Decimal { precision: u8, scale: i8, written: i8, form: Option<DecimalHandling> },
    BigDecimal { scale: u8, form: Option<DecimalHandling> },
    Float32,
    Float64,
    Date,
    DateTime(Option<Unit>),
    Timestamp(Option<Unit>),
    Time(Option<Unit>, Option<u8>),
    Year,
    Bit,
    Bits { length: u8 },
    Text,
    Json,
    Binary(BinaryHandling),
}

impl Codec {
    /// How a column is written under these modes, with nothing else known.
    pub(super) fn of_modes(column: ColumnType, modes: Modes) -> Codec {
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
    pub(super) fn of_field(column: ColumnType, field: &Field, modes: Modes) -> Codec {
        let unit = match field.semantic.as_str() {
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" | "io.debezium.time.Time"
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

    /// How a default of the DDL is written.
    pub(super) fn of_ddl(column: ColumnType) -> Codec {
        let modes = Modes { time: None, decimal: Some(DecimalHandling::String), binary: BinaryHandling::Base64 };
        Codec::of_modes(column, modes)
    }
}

/// Why a value does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// under no setting
    Value(&'static str),
    /// as long as this setting of the connector is not known
    Unsettled(&'static str),
}

const WRONG_KIND: Misfit = Misfit::Value("is not written as values of that type are");
const OUT_OF_RANGE: Misfit = Misfit::Value("is out of the type's range");
const TOO_PRECISE: Misfit = Misfit::Value("has more digits than the type");

enum Data {
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    I128(Vec<i128>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bits(BooleanBufferBuilder),
    /// ends of the values, after a first zero
    Bytes(Vec<i32>, Vec<u8>),
}

/// One column that grows.
pub(super) struct Column {
    kind: ColumnType,
    data: Data,
    nulls: NullBufferBuilder,
}

impl Column {
    /// An empty column with room for `rows` values.
    pub(super) fn new(kind: ColumnType, rows: usize) -> Self {
        let data = match kind.data_type() {
            DataType::Int8 => Data::I8(Vec::with_capacity(rows)),
            DataType::Int16 => Data::I16(Vec::with_capacity(rows)),
            DataType::Int32 | DataType::Date32 => Data::I32(Vec::with_capacity(rows)),
            DataType::Int64 | DataType::Timestamp(..) => Data::I64(Vec::with_capacity(rows)),
            DataType::Float32 => Data::F32(Vec::with_capacity(rows)),
            DataType::Float64 => Data::F64(Vec::with_capacity(rows)),
            DataType::Decimal128(..) => Data::I128(Vec::with_capacity(rows)),
            DataType::Boolean => Data::Bits(BooleanBufferBuilder::new(rows)),
            _ => {
                let mut ends = Vec::with_capacity(rows + 1);
                ends.push(0);
                Data::Bytes(ends, Vec::with_capacity(rows * 16))
            }
        };
        Column { kind, data, nulls: NullBufferBuilder::new(rows) }
    }

    /// Takes back every value from row `rows` on.
    pub(super) fn truncate(&mut self, rows: usize) {
        match &mut self.data {
            Data::I8(v) => v.truncate(rows),
            Data::I16(v) => v.truncate(rows),
            Data::I32(v) => v.truncate(rows),
            Data::I64(v) => v.truncate(rows),
            Data::I128(v) => v.truncate(rows),
            Data::F32(v) => v.truncate(rows),
            Data::F64(v) => v.truncate(rows),
            Data::Bits(v) => v.truncate(rows),
            Data::Bytes(ends, bytes) => {
                ends.truncate(rows + 1);
                bytes.truncate(ends.last().map_or(0, |&end| end.unsigned_abs() as usize));
            }
        }
        self.nulls.truncate(rows);
    }

    pub(super) fn append_null(&mut self) {
        match &mut self.data {
            Data::I8(v) => v.push(0),
            Data::I16(v) => v.push(0),
            Data::I32(v) => v.push(0),
            Data::I64(v) => v.push(0),
            Data::I128(v) => v.push(0),
            Data::F32(v) => v.push(0.0),
            Data::F64(v) => v.push(0.0),
            Data::Bits(v) => v.append(false),
            Data::Bytes(ends, _) => ends.push(ends.last().copied().unwrap_or(0)),
        }
        self.nulls.append_null();
    }

    /// Appends one value. `text` is what `token` was found in; `scratch` is a buffer to work in.
    #[inline]
    pub(super) fn append(&mut self, codec: Codec, token: Token, text: &[u8], scratch: &mut Vec<u8>) -> Result<(), Misfit> {
        if token.kind == Kind::Null {
            self.append_null();
            return Ok(());
        }
        let value = match (token.kind, codec) {
            (Kind::Escaped, Codec::Text | Codec::Json) => b"",
            (Kind::Escaped, _) => {
                scratch.clear();
                json::unescape(token.of(text), scratch).ok_or(WRONG_KIND)?;
                scratch.as_slice()
            }
            _ => token.of(text),
        };
        match (&mut self.data, codec) {
            (Data::I64(v), Codec::Int64) => v.push(integer(token, value)?),
            (Data::Bytes(ends, bytes), Codec::Text) => {
                match token.kind {
                    Kind::Text => bytes.extend_from_slice(value),
                    Kind::Escaped => unescape(token, text, bytes)?,
                    _ => return Err(WRONG_KIND),
                }
                seal(ends, bytes)?;
            }
            (Data::I32(v), Codec::Int32) => v.push(i32::try_from(integer(token, value)?).map_err(|_| OUT_OF_RANGE)?),
            (Data::I128(v), Codec::Decimal { precision, scale, written, form }) => {
                v.push(decimal(token, value, precision, scale, written, form)?);
            }
            (Data::I64(v), Codec::DateTime(unit)) => v.push(datetime(token, value, unit)?),
            (Data::I64(v), Codec::Timestamp(unit)) => v.push(timestamp(token, value, unit)?),
            (Data::I8(v), Codec::Int8) => v.push(match token.kind {
                // a converter may write TINYINT(1) as a boolean
                Kind::True => 1,
                Kind::False => 0,
                _ => i8::try_from(integer(token, value)?).map_err(|_| OUT_OF_RANGE)?,
            }),
            (Data::I16(v), Codec::Int16) => v.push(match token.kind {
                Kind::True => 1,
                Kind::False => 0,
                _ => i16::try_from(integer(token, value)?).map_err(|_| OUT_OF_RANGE)?,
            }),
            (Data::I32(v), Codec::Year) => v.push(i32::try_from(integer(token, value)?).map_err(|_| OUT_OF_RANGE)?),
            (Data::I128(v), Codec::UInt64) => v.push(unsigned(token, value)?),
            (Data::I32(v), Codec::Date) => v.push(match token.kind {
                Kind::Number => scalar::date_of_days(integer(token, value)?).ok_or(OUT_OF_RANGE)?,
                Kind::Text | Kind::Escaped => scalar::date_of_text(value).ok_or(WRONG_KIND)?,
                _ => return Err(WRONG_KIND),
            }),
            (Data::F32(v), Codec::Float32) => {
                let n: f32 = number(token, value)?;
                if n.is_infinite() {
                    return Err(OUT_OF_RANGE);
                }
                v.push(n);
            }
            (Data::F64(v), Codec::Float64) => {
                let n: f64 = number(token, value)?;
                if n.is_infinite() {
                    return Err(OUT_OF_RANGE);
                }
                v.push(n);
            }
            (Data::Bits(v), Codec::Bit) => v.append(match (token.kind, value) {
                (Kind::True, _) | (Kind::Number, b"1") => true,
                (Kind::False, _) | (Kind::Number, b"0") => false,
                _ => return Err(WRONG_KIND),
            }),
            (Data::I64(v), Codec::Bits { length }) => {
                v.push(i64::try_from(bits(token, value, length)?).map_err(|_| OUT_OF_RANGE)?);
            }
            (Data::I128(v), Codec::Bits { length }) => v.push(i128::from(bits(token, value, length)?)),
            (Data::Bytes(ends, bytes), Codec::Time(unit, places)) => {
                time(token, value, unit, places, bytes)?;
                seal(ends, bytes)?;
            }
            (Data::Bytes(ends, bytes), Codec::Json) => {
                match token.kind {
                    Kind::Escaped => unescape(token, text, bytes)?,
                    _ => bytes.extend_from_slice(value),
                }
                seal(ends, bytes)?;
            }
            (Data::Bytes(ends, bytes), Codec::BigDecimal { scale, form }) => {
                big_decimal(token, value, scale, form, bytes)?;
                seal(ends, bytes)?;
            }
            (Data::Bytes(ends, bytes), Codec::Binary(form)) => {
                binary(token, value, form, bytes)?;
                seal(ends, bytes)?;
            }
            _ => return Err(WRONG_KIND),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Bytes held, for limits.
    pub(super) fn bytes(&self) -> usize {
        match &self.data {
            Data::I8(v) => v.len(),
            Data::I16(v) => v.len() * 2,
            Data::I32(v) => v.len() * 4,
            Data::I64(v) => v.len() * 8,
            Data::I128(v) => v.len() * 16,
            Data::F32(v) => v.len() * 4,
            Data::F64(v) => v.len() * 8,
            Data::Bits(v) => v.len() / 8,
            Data::Bytes(ends, bytes) => ends.len() * 4 + bytes.len(),
        }
    }

    /// The column as an array.
    pub(super) fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        fn primitive<T: ArrowPrimitiveType>(
            values: Vec<T::Native>,
            nulls: Option<arrow::buffer::NullBuffer>,
        ) -> Result<PrimitiveArray<T>, ArrowError> {
            PrimitiveArray::try_new(ScalarBuffer::from(values), nulls)
        }
        let data_type = self.kind.data_type();
        Ok(match (self.data, &data_type) {
            (Data::I8(v), _) => Arc::new(primitive::<Int8Type>(v, nulls)?),
            (Data::I16(v), _) => Arc::new(primitive::<Int16Type>(v, nulls)?),
            (Data::I32(v), DataType::Date32) => Arc::new(primitive::<Date32Type>(v, nulls)?),
            (Data::I32(v), _) => Arc::new(primitive::<Int32Type>(v, nulls)?),
            (Data::I64(v), DataType::Timestamp(_, zone)) => {
                Arc::new(TimestampMicrosecondArray::try_new(v.into(), nulls)?.with_timezone_opt(zone.clone()))
            }
            (Data::I64(v), _) => Arc::new(primitive::<Int64Type>(v, nulls)?),
            (Data::I128(v), DataType::Decimal128(precision, scale)) => {
                Arc::new(Decimal128Array::try_new(v.into(), nulls)?.with_precision_and_scale(*precision, *scale)?)
            }
            (Data::I128(v), _) => Arc::new(Decimal128Array::try_new(v.into(), nulls)?),
            (Data::F32(v), _) => Arc::new(primitive::<Float32Type>(v, nulls)?),
            (Data::F64(v), _) => Arc::new(primitive::<Float64Type>(v, nulls)?),
            (Data::Bits(mut v), _) => Arc::new(BooleanArray::new(v.finish(), nulls)),
            (Data::Bytes(ends, bytes), kind) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                let bytes = Buffer::from_vec(bytes);
                if *kind == DataType::Binary {
                    Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
                } else {
                    Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
                }
            }
        })
    }
}

/// Ends a value of a column of bytes; takes it back where the column has no room for it.
#[inline]
fn seal(ends: &mut Vec<i32>, bytes: &mut Vec<u8>) -> Result<(), Misfit> {
    match i32::try_from(bytes.len()) {
        Ok(end) => {
            ends.push(end);
            Ok(())
        }
        Err(_) => Err(Misfit::Value("is too large")),
    }
}

fn unescape(token: Token, text: &[u8], bytes: &mut Vec<u8>) -> Result<(), Misfit> {
    json::unescape(token.of(text), bytes).ok_or(Misfit::Value("holds half of a surrogate pair"))
}

#[inline]
fn integer(token: Token, value: &[u8]) -> Result<i64, Misfit> {
    if token.kind != Kind::Number {
        return Err(WRONG_KIND);
    }
    scalar::int64(value).ok_or(if value.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) { WRONG_KIND } else { OUT_OF_RANGE })
}

fn number<T: std::str::FromStr>(token: Token, value: &[u8]) -> Result<T, Misfit> {
    if token.kind != Kind::Number {
        return Err(WRONG_KIND);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(WRONG_KIND)
}

/// BIGINT UNSIGNED: the mode `long` writes values past 2^63 as negative numbers, `precise` writes base64.
fn unsigned(token: Token, value: &[u8]) -> Result<i128, Misfit> {
    let n = match token.kind {
        Kind::Number => match scalar::int128(value).ok_or(WRONG_KIND)? {
            n if n < 0 => i128::from(i64::try_from(n).map_err(|_| OUT_OF_RANGE)?.cast_unsigned()),
            n => n,
        },
        Kind::Text | Kind::Escaped => small_base64(value)?,
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
    evidence::decimal(scale, whole, value).ok_or(match token.kind {
        Kind::Text => Misfit::Unsettled("decimal_handling"),
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
        (DecimalHandling::String, Kind::Text | Kind::Escaped) => scalar::digits(value).ok_or(WRONG_KIND)?,
        (DecimalHandling::Precise, Kind::Text | Kind::Escaped) => {
            Digits { unscaled: small_base64(value)?, scale: i32::from(written), significant: 0 }
        }
        (DecimalHandling::Double, Kind::Number) => double_digits(value)?,
        _ => return Err(WRONG_KIND),
    };
    digits.rescale(precision, scale).ok_or(TOO_PRECISE)
}

fn big_decimal(token: Token, value: &[u8], scale: u8, form: Option<DecimalHandling>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let signed = i8::try_from(scale).unwrap_or(i8::MAX);
    match (form_of(token, value, signed, form)?, token.kind) {
        (DecimalHandling::String, Kind::Text | Kind::Escaped) => {
            let body = value.strip_prefix(b"-").unwrap_or(value);
            let points = body.iter().filter(|b| **b == b'.').count();
            if body.is_empty() || points > 1 || body.iter().any(|b| !b.is_ascii_digit() && *b != b'.') {
                return Err(WRONG_KIND);
            }
            out.extend_from_slice(value);
        }
        (DecimalHandling::Precise, Kind::Text | Kind::Escaped) => {
            let mut buffer = [0u8; 64];
            let len = BASE64.decode_slice(value, &mut buffer).map_err(|_| WRONG_KIND)?;
            if len == 0 {
                return Err(WRONG_KIND);
            }
            scalar::write_big_endian(buffer.get(..len).unwrap_or_default(), usize::from(scale), out);
        }
        (DecimalHandling::Double, Kind::Number) => {
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
        Kind::Number => {
            let n = integer(token, value)?;
            match unit {
                Some(unit) => unit.micros(n).and_then(scalar::in_range).ok_or(OUT_OF_RANGE),
                None if n == 0 => Ok(0),
                None => Err(Misfit::Unsettled("time_precision")),
            }
        }
        Kind::Text | Kind::Escaped => scalar::micros_of_text(value).ok_or(WRONG_KIND),
        _ => Err(WRONG_KIND),
    }
}

#[inline]
fn timestamp(token: Token, value: &[u8], unit: Option<Unit>) -> Result<i64, Misfit> {
    match (token.kind, unit) {
        (Kind::Text | Kind::Escaped, _) => scalar::micros_of_text(value).ok_or(WRONG_KIND),
        (Kind::Number, Some(_)) => datetime(token, value, unit),
        _ => Err(WRONG_KIND),
    }
}

fn time(token: Token, value: &[u8], unit: Option<Unit>, places: Option<u8>, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let micros = match (token.kind, unit) {
        (Kind::Number, Some(unit)) => unit.micros(integer(token, value)?).ok_or(OUT_OF_RANGE)?,
        (Kind::Number, None) => match integer(token, value)? {
            0 => 0,
            _ => return Err(Misfit::Unsettled("time_precision")),
        },
        (Kind::Text | Kind::Escaped, _) => scalar::time_of_text(value).ok_or(WRONG_KIND)?,
        _ => return Err(WRONG_KIND),
    };
    scalar::write_time(micros, places, out).ok_or(OUT_OF_RANGE)
}

fn bits(token: Token, value: &[u8], length: u8) -> Result<u64, Misfit> {
    let n = match token.kind {
        Kind::Text | Kind::Escaped => {
            let mut buffer = [0u8; 16];
            let len = BASE64.decode_slice(value, &mut buffer).map_err(|_| WRONG_KIND)?;
            let (low, high) = buffer.split_at(8);
            if len > 8 && high.iter().any(|b| *b != 0) {
                return Err(OUT_OF_RANGE);
            }
            low.first_chunk::<8>().map_or(0, |low| u64::from_le_bytes(*low))
        }
        Kind::True => 1,
        Kind::False => 0,
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
