//! Reading: from the buffers of a column to values of Rust types.

use crate::contract::{Batch, Column};
use crate::text::Text;
use crate::types::{AnyDecimal, Date, DateTime, Decimal, Timestamp};

/// A type that a column can be read as.
pub trait Cell<'a>: Sized {
    /// The column, opened.
    type Reader;

    /// What the column may be, for messages.
    fn expects() -> String;

    /// Whether a column of this format can be read as this type without loss.
    fn accepts(format: &str) -> bool;

    /// Opens a column.
    ///
    /// # Errors
    /// The column's buffers are not those of its format.
    fn open(column: &'a Column, format: &str) -> Result<Self::Reader, String>;

    /// The value of a row; `None` where it is null.
    fn read(reader: &Self::Reader, row: usize) -> Option<Self>;
}

/// A struct whose fields are read from columns; `#[derive(Input)]` makes it one.
pub trait Input<'a>: Sized {
    /// The columns, opened.
    type Readers;

    /// The columns wanted, in the order of [`Input::open`].
    fn wanted() -> Vec<Wanted>;

    /// Opens the columns.
    ///
    /// # Errors
    /// The batch does not hold the columns wanted.
    fn open(batch: &'a Batch) -> Result<Self::Readers, String>;

    /// The row.
    ///
    /// # Errors
    /// A value is null that must not be; the row is rejected with this text.
    fn read(readers: &Self::Readers, row: usize) -> Result<Self, String>;
}

/// A column that a struct reads.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// its name; of a lookup `lookup.column`
    pub name: &'static str,
    /// what it may be, for messages
    pub expects: String,
    /// whether it may have this format
    pub accepts: fn(&str) -> bool,
}

/// The values of one column, for modules that work on whole columns.
pub struct Values<'a, T: Cell<'a>> {
    pub(crate) reader: T::Reader,
    pub(crate) rows: usize,
}

impl<'a, T: Cell<'a>> Values<'a, T> {
    /// The value of a row; `None` where it is null or there is no such row.
    pub fn get(&self, row: usize) -> Option<T> {
        T::read(&self.reader, row)
    }

    /// All values in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<T>> + use<'_, 'a, T> {
        (0..self.rows).map(|row| self.get(row))
    }
}

/// Opens column `position` of a batch; what derived code calls.
#[doc(hidden)]
pub fn open_at<'a, T: Cell<'a>>(batch: &'a Batch, position: usize) -> Result<T::Reader, String> {
    let found = batch.fields.get(position).zip(batch.columns.get(position));
    let (field, column) = found.ok_or_else(|| format!("column {position} is missing from the batch"))?;
    T::open(column, &field.format).map_err(|e| format!("column `{}`: {e}", field.name))
}

/// Which values are null.
#[derive(Clone, Copy)]
pub(crate) struct Nulls<'a>(Option<&'a [u8]>);

impl<'a> Nulls<'a> {
    fn of(column: &'a Column) -> Self {
        Nulls(column.buffers.first().map(Vec::as_slice).filter(|bits| !bits.is_empty()))
    }

    fn is_null(self, row: usize) -> bool {
        self.0.is_some_and(|bits| !bit(bits, row))
    }
}

fn bit(bits: &[u8], row: usize) -> bool {
    bits.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1)
}

fn buffer(column: &Column, index: usize) -> Result<&[u8], String> {
    column.buffers.get(index).map(Vec::as_slice).ok_or_else(|| format!("buffer {index} is missing"))
}

/// A column of values of `W` bytes each.
pub struct Fixed<'a, const W: usize> {
    values: &'a [[u8; W]],
    nulls: Nulls<'a>,
}

impl<'a, const W: usize> Fixed<'a, W> {
    fn open(column: &'a Column) -> Result<Self, String> {
        Ok(Fixed { values: buffer(column, 1)?.as_chunks::<W>().0, nulls: Nulls::of(column) })
    }

    fn get(&self, row: usize) -> Option<[u8; W]> {
        if self.nulls.is_null(row) {
            return None;
        }
        self.values.get(row).copied()
    }
}

impl<'a, T: Cell<'a>> Cell<'a> for Option<T> {
    type Reader = T::Reader;

    fn expects() -> String {
        T::expects()
    }

    fn accepts(format: &str) -> bool {
        T::accepts(format)
    }

    fn open(column: &'a Column, format: &str) -> Result<T::Reader, String> {
        T::open(column, format)
    }

    #[inline]
    fn read(reader: &T::Reader, row: usize) -> Option<Self> {
        Some(T::read(reader, row))
    }
}

/// An integer column of any width.
pub enum Integers<'a> {
    /// `c`
    W1(Fixed<'a, 1>),
    /// `s`
    W2(Fixed<'a, 2>),
    /// `i`
    W4(Fixed<'a, 4>),
    /// `l`
    W8(Fixed<'a, 8>),
}

macro_rules! integers {
    ($($type:ty: $expects:literal from $($format:literal)*;)*) => {$(
        impl<'a> Cell<'a> for $type {
            type Reader = Integers<'a>;

            fn expects() -> String {
                $expects.to_owned()
            }

            fn accepts(format: &str) -> bool {
                matches!(format, $($format)|*)
            }

            fn open(column: &'a Column, format: &str) -> Result<Integers<'a>, String> {
                Ok(match format {
                    "c" => Integers::W1(Fixed::open(column)?),
                    "s" => Integers::W2(Fixed::open(column)?),
                    "i" => Integers::W4(Fixed::open(column)?),
                    "l" => Integers::W8(Fixed::open(column)?),
                    _ => return Err(format!("`{format}` is no integer")),
                })
            }

            #[inline]
            fn read(reader: &Integers<'a>, row: usize) -> Option<$type> {
                let wide = match reader {
                    Integers::W1(column) => i64::from(i8::from_le_bytes(column.get(row)?)),
                    Integers::W2(column) => i64::from(i16::from_le_bytes(column.get(row)?)),
                    Integers::W4(column) => i64::from(i32::from_le_bytes(column.get(row)?)),
                    Integers::W8(column) => i64::from_le_bytes(column.get(row)?),
                };
                // `accepts` leaves no column that is wider than the type.
                Some(wide as $type)
            }
        }
    )*};
}

integers! {
    i8: "an integer of 8 bits" from "c";
    i16: "an integer of at most 16 bits" from "c" "s";
    i32: "an integer of at most 32 bits" from "c" "s" "i";
    i64: "an integer" from "c" "s" "i" "l";
}

macro_rules! fixed {
    ($($type:ty, $width:literal: $expects:literal from $format:literal, $make:expr;)*) => {$(
        impl<'a> Cell<'a> for $type {
            type Reader = Fixed<'a, $width>;

            fn expects() -> String {
                $expects.to_owned()
            }

            fn accepts(format: &str) -> bool {
                format == $format
            }

            fn open(column: &'a Column, _: &str) -> Result<Fixed<'a, $width>, String> {
                Fixed::open(column)
            }

            #[inline]
            fn read(reader: &Fixed<'a, $width>, row: usize) -> Option<$type> {
                reader.get(row).map($make)
            }
        }
    )*};
}

fixed! {
    f32, 4: "a float" from "f", f32::from_le_bytes;
    f64, 8: "a double" from "g", f64::from_le_bytes;
    Date, 4: "a date" from "tdD", |bytes| Date(i32::from_le_bytes(bytes));
    Timestamp, 8: "a timestamp in UTC" from "tsu:UTC", |bytes| Timestamp(i64::from_le_bytes(bytes));
    DateTime, 8: "a timestamp without zone" from "tsu:", |bytes| DateTime(i64::from_le_bytes(bytes));
}

/// A column of booleans.
pub struct Bits<'a> {
    values: &'a [u8],
    nulls: Nulls<'a>,
}

impl<'a> Cell<'a> for bool {
    type Reader = Bits<'a>;

    fn expects() -> String {
        "a boolean".to_owned()
    }

    fn accepts(format: &str) -> bool {
        format == "b"
    }

    fn open(column: &'a Column, _: &str) -> Result<Bits<'a>, String> {
        Ok(Bits { values: buffer(column, 1)?, nulls: Nulls::of(column) })
    }

    #[inline]
    fn read(reader: &Bits<'a>, row: usize) -> Option<bool> {
        (!reader.nulls.is_null(row)).then(|| bit(reader.values, row))
    }
}

#[inline]
fn span(offsets: &[[u8; 4]], row: usize) -> Option<std::ops::Range<usize>> {
    let [start, end] = offsets.get(row..)?.first_chunk()?;
    Some(u32::from_le_bytes(*start) as usize..u32::from_le_bytes(*end) as usize)
}

/// A column of texts. UTF-8 is checked once for all of them.
pub struct Texts<'a> {
    offsets: &'a [[u8; 4]],
    text: Text<'a>,
    nulls: Nulls<'a>,
}

impl<'a> Cell<'a> for &'a str {
    type Reader = Texts<'a>;

    fn expects() -> String {
        "a text".to_owned()
    }

    fn accepts(format: &str) -> bool {
        format == "u"
    }

    fn open(column: &'a Column, _: &str) -> Result<Texts<'a>, String> {
        Ok(Texts {
            offsets: buffer(column, 1)?.as_chunks::<4>().0,
            text: Text::new(buffer(column, 2)?)?,
            nulls: Nulls::of(column),
        })
    }

    #[inline]
    fn read(reader: &Texts<'a>, row: usize) -> Option<&'a str> {
        if reader.nulls.is_null(row) {
            return None;
        }
        reader.text.get(span(reader.offsets, row)?)
    }
}

impl<'a> Cell<'a> for String {
    type Reader = Texts<'a>;

    fn expects() -> String {
        <&str>::expects()
    }

    fn accepts(format: &str) -> bool {
        <&str>::accepts(format)
    }

    fn open(column: &'a Column, format: &str) -> Result<Texts<'a>, String> {
        <&str>::open(column, format)
    }

    #[inline]
    fn read(reader: &Texts<'a>, row: usize) -> Option<String> {
        <&str>::read(reader, row).map(str::to_owned)
    }
}

/// A column of byte strings.
pub struct Blobs<'a> {
    offsets: &'a [[u8; 4]],
    data: &'a [u8],
    nulls: Nulls<'a>,
}

impl<'a> Cell<'a> for &'a [u8] {
    type Reader = Blobs<'a>;

    fn expects() -> String {
        "a binary or a text".to_owned()
    }

    fn accepts(format: &str) -> bool {
        matches!(format, "z" | "u")
    }

    fn open(column: &'a Column, _: &str) -> Result<Blobs<'a>, String> {
        Ok(Blobs { offsets: buffer(column, 1)?.as_chunks::<4>().0, data: buffer(column, 2)?, nulls: Nulls::of(column) })
    }

    #[inline]
    fn read(reader: &Blobs<'a>, row: usize) -> Option<&'a [u8]> {
        if reader.nulls.is_null(row) {
            return None;
        }
        reader.data.get(span(reader.offsets, row)?)
    }
}

/// A column of decimals, and what its numbers are multiplied with.
pub struct Decimals<'a> {
    values: Fixed<'a, 16>,
    /// None, not 1: the compiler knows that times 1 changes nothing, and would multiply always
    factor: Option<i128>,
    scale: u8,
}

/// Precision and scale of the format `d:precision,scale`.
pub(crate) fn decimal_format(format: &str) -> Option<(u8, u8)> {
    let (precision, scale) = format.strip_prefix("d:")?.split_once(',')?;
    Some((precision.parse().ok()?, scale.parse().ok()?))
}

impl<'a, const P: u8, const S: u8> Cell<'a> for Decimal<P, S> {
    type Reader = Decimals<'a>;

    fn expects() -> String {
        format!("a decimal that fits decimal({P},{S})")
    }

    fn accepts(format: &str) -> bool {
        decimal_format(format).is_some_and(|(p, s)| s <= S && p.saturating_sub(s) <= P.saturating_sub(S))
    }

    fn open(column: &'a Column, format: &str) -> Result<Decimals<'a>, String> {
        let (_, scale) = decimal_format(format).ok_or_else(|| format!("`{format}` is no decimal"))?;
        let factor = match S.saturating_sub(scale) {
            0 => None,
            digits => Some(10_i128.checked_pow(u32::from(digits)).ok_or("the scale is too large")?),
        };
        Ok(Decimals { values: Fixed::open(column)?, factor, scale })
    }

    #[inline]
    fn read(reader: &Decimals<'a>, row: usize) -> Option<Self> {
        let unscaled = i128::from_le_bytes(reader.values.get(row)?);
        Some(Decimal(match reader.factor {
            None => unscaled,
            Some(factor) => unscaled.wrapping_mul(factor),
        }))
    }
}

impl<'a> Cell<'a> for AnyDecimal {
    type Reader = Decimals<'a>;

    fn expects() -> String {
        "a decimal".to_owned()
    }

    fn accepts(format: &str) -> bool {
        decimal_format(format).is_some()
    }

    fn open(column: &'a Column, format: &str) -> Result<Decimals<'a>, String> {
        let (_, scale) = decimal_format(format).ok_or_else(|| format!("`{format}` is no decimal"))?;
        Ok(Decimals { values: Fixed::open(column)?, factor: None, scale })
    }

    #[inline]
    fn read(reader: &Decimals<'a>, row: usize) -> Option<Self> {
        Some(AnyDecimal { unscaled: i128::from_le_bytes(reader.values.get(row)?), scale: reader.scale })
    }
}
