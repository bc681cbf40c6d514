//! Owner keys as numbers of 128 bits.
//!
//! Receives the key's columns (or, of a table without a key, all columns of the row image). Promises that equal keys
//! give equal numbers and, but for a chance of about 1 in 2^64 over four billion keys, different keys different
//! ones; that widening a column's type keeps the number; and no allocation a row. Never fails on a value.
//!
//! # Encoding, which `_owner` makes lasting
//!
//! xxh3-128 with the seed `lode.seed` of the table's configuration (hexadecimal, at random when it was made), over the columns in order. A column is a tag byte and
//! its bytes, little endian: 0 null; 1 integer or boolean (i128); 2 decimal (scale i8, i128, without trailing zeros;
//! scale 0 or less counts as an integer); 3 float (f64 bits, one NaN, no negative zero); 4 text or 5 binary (length
//! u32, bytes); 6 date (i32); 7 timestamp (µs, i64). Of a row image, null columns are left out and each other column
//! is preceded by its name (length u32, bytes), so that a column added later changes no number.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType,
};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::error::{Error, ErrorKind, Result};

/// The owner of a row.
pub type Owner = u128;

enum Values<'a> {
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Bool(&'a BooleanArray),
    Decimal(&'a [i128], i8),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Date(&'a [i32]),
    Timestamp(&'a [i64]),
}

struct Column<'a> {
    array: &'a dyn Array,
    nulls: bool,
    values: Values<'a>,
    name: Option<&'a str>,
}

/// Turns rows into owners.
#[derive(Debug, Clone, Copy)]
pub(in crate::lake) struct Hasher {
    seed: u64,
}

impl Hasher {
    /// The numbers of a table with this `lode.seed`.
    pub(in crate::lake) fn with_seed(seed: u64) -> Self {
        Hasher { seed }
    }

    /// The owner of each row by its key columns.
    pub(in crate::lake) fn owners(self, key: &[ArrayRef]) -> Result<Vec<Owner>> {
        let columns = key.iter().map(|array| column(array, None)).collect::<Result<Vec<_>>>()?;
        Ok(self.run(&columns, key.first().map_or(0, |array| array.len())))
    }

    /// The owner of each row by its whole image.
    pub(in crate::lake) fn images(self, columns: &[(&str, &ArrayRef)], rows: usize) -> Result<Vec<Owner>> {
        let columns = columns.iter().map(|(name, array)| column(array, Some(name))).collect::<Result<Vec<_>>>()?;
        Ok(self.run(&columns, rows))
    }

    /// The owner of each row of `batch` by its whole image.
    pub(in crate::lake) fn batch_images(self, batch: &RecordBatch) -> Result<Vec<Owner>> {
        let schema = batch.schema_ref();
        let columns: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).zip(batch.columns()).collect();
        self.images(&columns, batch.num_rows())
    }

    fn run(self, columns: &[Column<'_>], rows: usize) -> Vec<Owner> {
        let mut scratch = Vec::with_capacity(64);
        (0..rows)
            .map(|row| {
                scratch.clear();
                for column in columns {
                    encode(column, row, &mut scratch);
                }
                xxh3_128_with_seed(&scratch, self.seed)
            })
            .collect()
    }
}

/// A number for each row of the key columns `key`, in key order: the same in every table, and for every width of an
/// integer or decimal. Not the owner that a table stores, which has a seed of its own.
///
/// # Errors
/// `Config` where a column has a type that no key has.
pub fn owners_of(key: &[ArrayRef]) -> Result<Vec<Owner>> {
    Hasher::with_seed(0).owners(key)
}

/// A number for the whole of each row, by name and value of its columns; that of a row does not depend on the table.
///
/// # Errors
/// As [`owners_of`].
pub fn images_of(rows: &RecordBatch) -> Result<Vec<Owner>> {
    Hasher::with_seed(0).batch_images(rows)
}

fn column<'a>(array: &'a ArrayRef, name: Option<&'a str>) -> Result<Column<'a>> {
    let values = match array.data_type() {
        DataType::Int8 => Values::Int8(array.as_primitive::<Int8Type>().values()),
        DataType::Int16 => Values::Int16(array.as_primitive::<Int16Type>().values()),
        DataType::Int32 => Values::Int32(array.as_primitive::<Int32Type>().values()),
        DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>().values()),
        DataType::Boolean => Values::Bool(array.as_boolean()),
        DataType::Decimal128(_, scale) => Values::Decimal(array.as_primitive::<Decimal128Type>().values(), *scale),
        DataType::Float32 => Values::Float32(array.as_primitive::<Float32Type>().values()),
        DataType::Float64 => Values::Float64(array.as_primitive::<Float64Type>().values()),
        DataType::Utf8 => Values::Text(array.as_string::<i32>()),
        DataType::Binary => Values::Binary(array.as_binary::<i32>()),
        DataType::Date32 => Values::Date(array.as_primitive::<Date32Type>().values()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Values::Timestamp(array.as_primitive::<TimestampMicrosecondType>().values())
        }
        other => {
            return Err(Error::new(ErrorKind::Config, format!("a key column of type {other} is not supported"))
                .hint("a key is made of integers, decimals, text, binary, dates and timestamps"));
        }
    };
    Ok(Column { array: array.as_ref(), nulls: array.null_count() > 0, values, name })
}

fn encode(column: &Column<'_>, row: usize, to: &mut Vec<u8>) {
    if column.nulls && column.array.is_null(row) {
        if column.name.is_none() {
            to.push(0);
        }
        return;
    }
    if let Some(name) = column.name {
        bytes(name.as_bytes(), to);
    }
    match &column.values {
        Values::Int8(v) => integer(i128::from(at(v, row)), to),
        Values::Int16(v) => integer(i128::from(at(v, row)), to),
        Values::Int32(v) => integer(i128::from(at(v, row)), to),
        Values::Int64(v) => integer(i128::from(at(v, row)), to),
        Values::Bool(v) => integer(i128::from(v.value(row)), to),
        Values::Decimal(v, scale) => decimal(at(v, row), *scale, to),
        Values::Float32(v) => float(f64::from(at(v, row)), to),
        Values::Float64(v) => float(at(v, row), to),
        Values::Text(v) => {
            to.push(4);
            bytes(v.value(row).as_bytes(), to);
        }
        Values::Binary(v) => {
            to.push(5);
            bytes(v.value(row), to);
        }
        Values::Date(v) => {
            to.push(6);
            to.extend_from_slice(&at(v, row).to_le_bytes());
        }
        Values::Timestamp(v) => {
            to.push(7);
            to.extend_from_slice(&at(v, row).to_le_bytes());
        }
    }
}

fn at<T: Copy + Default>(values: &[T], row: usize) -> T {
    values.get(row).copied().unwrap_or_default()
}

fn bytes(value: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&(value.len() as u32).to_le_bytes());
    to.extend_from_slice(value);
}

fn integer(value: i128, to: &mut Vec<u8>) {
    to.push(1);
    to.extend_from_slice(&value.to_le_bytes());
}

fn decimal(mut value: i128, mut scale: i8, to: &mut Vec<u8>) {
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    if scale <= 0 {
        return integer(value, to);
    }
    to.push(2);
    to.push(scale as u8);
    to.extend_from_slice(&value.to_le_bytes());
}

fn float(value: f64, to: &mut Vec<u8>) {
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    to.push(3);
    to.extend_from_slice(&value.to_bits().to_le_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Int32Array, Int64Array};

    use super::*;

    fn of(arrays: Vec<ArrayRef>) -> Vec<Owner> {
        Hasher::with_seed(7).owners(&arrays).unwrap()
    }

    #[test]
    fn widening_a_key_keeps_its_owner() {
        let narrow = of(vec![Arc::new(Int32Array::from(vec![7, -1]))]);
        assert_eq!(narrow, of(vec![Arc::new(Int64Array::from(vec![7, -1]))]));
        let decimals = |v: Vec<i128>, p, s| -> ArrayRef {
            Arc::new(Decimal128Array::from(v).with_precision_and_scale(p, s).unwrap())
        };
        assert_eq!(narrow, of(vec![decimals(vec![7, -1], 20, 0)]));
        assert_eq!(of(vec![decimals(vec![150, 7], 10, 2)]), of(vec![decimals(vec![15_000, 700], 12, 4)]));
    }

    #[test]
    fn the_border_between_columns_counts() {
        let text = |v: &str| -> ArrayRef { Arc::new(StringArray::from(vec![v])) };
        assert_ne!(of(vec![text("ab"), text("c")]), of(vec![text("a"), text("bc")]));
        assert_ne!(of(vec![text("")]), of(vec![Arc::new(StringArray::from(vec![None::<&str>]))]));
    }

    #[test]
    fn an_image_ignores_columns_that_are_null() {
        let a: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let null: ArrayRef = Arc::new(Int32Array::from(vec![None::<i32>]));
        let hasher = Hasher::with_seed(7);
        let one = hasher.images(&[("a", &a)], 1).unwrap();
        assert_eq!(one, hasher.images(&[("a", &a), ("b", &null)], 1).unwrap());
        assert_ne!(one, hasher.images(&[("b", &a), ("a", &null)], 1).unwrap());
    }
}
