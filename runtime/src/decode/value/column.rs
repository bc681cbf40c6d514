//! Columns that grow by one JSON value a row.
//!
//! Receives tokens of a record and how they are written. Promises typed Arrow arrays; a value that does not fit leaves a
//! column that [`Column::truncate`] puts right. Never changes a value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, NullBufferBuilder,
    PrimitiveArray, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::error::ArrowError;

use super::codec::{Codec, Misfit, WRONG_KIND};
use super::column_type::ColumnType;
use crate::decode::format::json::cursor::{Token, ValueKind};
use crate::decode::format::json::escape;

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
pub(crate) struct Column {
    kind: ColumnType,
    data: Data,
    nulls: NullBufferBuilder,
}

impl Column {
    /// An empty column with room for `rows` values.
    pub(crate) fn new(kind: ColumnType, rows: usize) -> Self {
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
    pub(crate) fn truncate(&mut self, rows: usize) {
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

    pub(crate) fn append_null(&mut self) {
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
    pub(crate) fn append(
        &mut self,
        codec: Codec,
        token: Token,
        text: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<(), Misfit> {
        if token.kind == ValueKind::Null {
            self.append_null();
            return Ok(());
        }
        let value = match (token.kind, codec) {
            (ValueKind::Escaped, Codec::Text | Codec::Json) => b"",
            (ValueKind::Escaped, _) => {
                scratch.clear();
                escape::unescape(token.of(text), scratch).ok_or(WRONG_KIND)?;
                scratch.as_slice()
            }
            _ => token.of(text),
        };
        match &mut self.data {
            Data::I64(v) => v.push(codec.int64(token, value)?),
            Data::Bytes(ends, bytes) => {
                codec.bytes(token, text, value, bytes)?;
                seal(ends, bytes)?;
            }
            Data::I32(v) => v.push(codec.int32(token, value)?),
            Data::I128(v) => v.push(codec.int128(token, value)?),
            Data::I8(v) => v.push(codec.int8(token, value)?),
            Data::I16(v) => v.push(codec.int16(token, value)?),
            Data::F32(v) => v.push(codec.float32(token, value)?),
            Data::F64(v) => v.push(codec.float64(token, value)?),
            Data::Bits(v) => v.append(codec.bit(token, value)?),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Bytes held, for limits.
    pub(crate) fn bytes(&self) -> usize {
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
    pub(crate) fn finish(mut self) -> Result<ArrayRef, ArrowError> {
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

/// An array of the one value that `text` writes; `None` where it does not fit.
pub(crate) fn one_value(column_type: ColumnType, codec: Codec, text: &str, token: Token) -> Option<ArrayRef> {
    let mut column = Column::new(column_type, 1);
    column.append(codec, token, text.as_bytes(), &mut Vec::new()).ok()?;
    let array = column.finish().ok()?;
    (array.null_count() == 0).then_some(array)
}

/// Ends a value of a column of bytes, where the column has room for it.
#[inline]
fn seal(ends: &mut Vec<i32>, bytes: &[u8]) -> Result<(), Misfit> {
    match i32::try_from(bytes.len()) {
        Ok(end) => {
            ends.push(end);
            Ok(())
        }
        Err(_) => Err(Misfit::Value("is too large")),
    }
}
