//! Writing: from values of Rust types to the buffers of a column.

use std::borrow::Cow;

use crate::contract::{Column, Field};
use crate::types::{Date, DateTime, Decimal, Timestamp};

/// A type that a column can be written from.
pub trait Value: Sized {
    /// Collects the values of one column.
    type Builder: Build;
    /// Whether the column may hold nulls.
    const NULLABLE: bool = false;

    /// The column's format.
    fn format() -> String;

    /// Adds the value.
    fn append_to(self, builder: &mut Self::Builder);
}

/// Collects the values of one column.
pub trait Build: Sized {
    /// An empty one with room for `rows` values.
    fn with_capacity(rows: usize) -> Self;

    /// Adds a null.
    fn push_null(&mut self);

    /// The column of the values added.
    fn finish(self) -> Column;
}

/// A struct whose fields become columns; `#[derive(Output)]` makes it one.
pub trait Output: Sized {
    /// Collects the columns.
    type Builders;

    /// The columns, in the order of [`Output::finish`].
    fn fields() -> Vec<Field>;

    /// Empty ones with room for `rows` rows.
    fn builders(rows: usize) -> Self::Builders;

    /// Adds a row.
    fn push(self, builders: &mut Self::Builders);

    /// The columns of the rows added.
    fn finish(builders: Self::Builders) -> Vec<Column>;
}

/// The column that `values` make, for modules that work on whole columns.
#[inline(never)]
pub fn column_of<T: Value>(values: impl IntoIterator<Item = T>) -> Column {
    // An iterator may promise more than it gives, so that is no reason to ask for more than a call's rows.
    const MOST: usize = 1 << 16;
    let values = values.into_iter();
    let (least, most) = values.size_hint();
    let mut builder = T::Builder::with_capacity(least.max(most.unwrap_or(0)).min(MOST));
    for value in values {
        value.append_to(&mut builder);
    }
    builder.finish()
}

/// Validity, of which nothing is stored until the first null.
#[derive(Debug, Default)]
struct Validity {
    length: u32,
    null_count: u32,
    bits: Vec<u8>,
}

impl Validity {
    #[inline]
    fn push_valid(&mut self) {
        if self.null_count > 0 {
            push_bit(&mut self.bits, self.length, true);
        }
        self.length += 1;
    }

    fn push_null(&mut self) {
        if self.null_count == 0 {
            self.bits = vec![0xff; self.length.div_ceil(8) as usize];
        }
        self.null_count += 1;
        push_bit(&mut self.bits, self.length, false);
        self.length += 1;
    }

    fn finish(self, mut rest: Vec<Vec<u8>>) -> Column {
        rest.insert(0, self.bits);
        Column { length: self.length, null_count: self.null_count, buffers: rest, children: 0 }
    }
}

#[inline]
fn push_bit(bits: &mut Vec<u8>, position: u32, value: bool) {
    if position.is_multiple_of(8) {
        bits.push(0);
    }
    if let Some(last) = bits.last_mut() {
        let mask = 1 << (position % 8);
        *last = if value { *last | mask } else { *last & !mask };
    }
}

/// A column of values of a fixed number of bytes.
#[derive(Debug)]
pub struct FixedBuilder<const W: usize> {
    values: Vec<[u8; W]>,
    validity: Validity,
}

impl<const W: usize> FixedBuilder<W> {
    #[inline]
    fn push(&mut self, bytes: [u8; W]) {
        self.values.push(bytes);
        self.validity.push_valid();
    }
}

impl<const W: usize> Build for FixedBuilder<W> {
    fn with_capacity(rows: usize) -> Self {
        FixedBuilder { values: Vec::with_capacity(rows), validity: Validity::default() }
    }

    fn push_null(&mut self) {
        self.values.push([0; W]);
        self.validity.push_null();
    }

    fn finish(self) -> Column {
        self.validity.finish(vec![self.values.into_flattened()])
    }
}

/// A column of texts or byte strings.
#[derive(Debug)]
pub struct BytesBuilder {
    offsets: Vec<[u8; 4]>,
    data: Vec<u8>,
    validity: Validity,
}

impl BytesBuilder {
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.end_value();
        self.validity.push_valid();
    }

    #[inline]
    fn end_value(&mut self) {
        // A guest's memory is far below the 2 GiB that an offset counts to.
        self.offsets.push((self.data.len() as u32).to_le_bytes());
    }
}

impl Build for BytesBuilder {
    fn with_capacity(rows: usize) -> Self {
        // A guess; texts of a database are mostly longer than this and rarely much longer.
        const BYTES_A_VALUE: usize = 8;
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push([0; 4]);
        BytesBuilder { offsets, data: Vec::with_capacity(rows * BYTES_A_VALUE), validity: Validity::default() }
    }

    fn push_null(&mut self) {
        self.end_value();
        self.validity.push_null();
    }

    fn finish(self) -> Column {
        self.validity.finish(vec![self.offsets.into_flattened(), self.data])
    }
}

/// A column of booleans.
#[derive(Debug)]
pub struct BitsBuilder {
    values: Vec<u8>,
    validity: Validity,
}

impl Build for BitsBuilder {
    fn with_capacity(rows: usize) -> Self {
        BitsBuilder { values: Vec::with_capacity(rows.div_ceil(8)), validity: Validity::default() }
    }

    fn push_null(&mut self) {
        push_bit(&mut self.values, self.validity.length, false);
        self.validity.push_null();
    }

    fn finish(self) -> Column {
        self.validity.finish(vec![self.values])
    }
}

impl<T: Value> Value for Option<T> {
    type Builder = T::Builder;
    const NULLABLE: bool = true;

    fn format() -> String {
        T::format()
    }

    #[inline]
    fn append_to(self, builder: &mut T::Builder) {
        match self {
            Some(value) => value.append_to(builder),
            None => builder.push_null(),
        }
    }
}

macro_rules! fixed {
    ($($type:ty, $width:literal, $format:literal, $bytes:expr;)*) => {$(
        impl Value for $type {
            type Builder = FixedBuilder<$width>;

            fn format() -> String {
                $format.to_owned()
            }

            #[inline]
            fn append_to(self, builder: &mut FixedBuilder<$width>) {
                let bytes: fn($type) -> [u8; $width] = $bytes;
                builder.push(bytes(self));
            }
        }
    )*};
}

fixed! {
    i8, 1, "c", i8::to_le_bytes;
    i16, 2, "s", i16::to_le_bytes;
    i32, 4, "i", i32::to_le_bytes;
    i64, 8, "l", i64::to_le_bytes;
    f32, 4, "f", f32::to_le_bytes;
    f64, 8, "g", f64::to_le_bytes;
    Date, 4, "tdD", |v| v.0.to_le_bytes();
    Timestamp, 8, "tsu:UTC", |v| v.0.to_le_bytes();
    DateTime, 8, "tsu:", |v| v.0.to_le_bytes();
}

impl<const P: u8, const S: u8> Value for Decimal<P, S> {
    type Builder = FixedBuilder<16>;

    fn format() -> String {
        format!("d:{P},{S}")
    }

    #[inline]
    fn append_to(self, builder: &mut FixedBuilder<16>) {
        builder.push(self.0.to_le_bytes());
    }
}

impl Value for bool {
    type Builder = BitsBuilder;

    fn format() -> String {
        "b".to_owned()
    }

    #[inline]
    fn append_to(self, builder: &mut BitsBuilder) {
        push_bit(&mut builder.values, builder.validity.length, self);
        builder.validity.push_valid();
    }
}

macro_rules! bytes {
    ($($type:ty, $format:literal;)*) => {$(
        impl Value for $type {
            type Builder = BytesBuilder;

            fn format() -> String {
                $format.to_owned()
            }

            #[inline]
            fn append_to(self, builder: &mut BytesBuilder) {
                builder.push(self.as_ref());
            }
        }
    )*};
}

bytes! {
    &[u8], "z";
    Vec<u8>, "z";
}

macro_rules! texts {
    ($($type:ty;)*) => {$(
        impl Value for $type {
            type Builder = BytesBuilder;

            fn format() -> String {
                "u".to_owned()
            }

            #[inline]
            fn append_to(self, builder: &mut BytesBuilder) {
                builder.push(self.as_bytes());
            }
        }
    )*};
}

texts! {
    &str;
    String;
    Cow<'_, str>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Batch;

    #[test]
    fn what_is_written_reads_back() {
        let words =
            vec![Some("ä"), None, Some(""), Some("xyz"), None, Some("1"), Some("2"), Some("3"), Some("4"), None];
        let numbers: Vec<Option<i64>> = (0..20).map(|n| (n % 9 != 8).then_some(n * -7)).collect();
        let flags = vec![Some(true), Some(false), None, Some(true)];
        for (column, rows) in
            [(column_of(words.clone()), 10), (column_of(numbers.clone()), 20), (column_of(flags.clone()), 4)]
        {
            assert_eq!(column.length, rows);
            assert_eq!(column.buffers[0].len(), rows.div_ceil(8) as usize);
        }
        let batch = |format: &str, column: Column| Batch {
            fields: vec![Field { name: "c".into(), format: format.into(), nullable: true }],
            rows: column.length,
            columns: vec![column],
        };
        let read = batch("u", column_of(words.clone()));
        assert_eq!(read.read::<&str>("c").unwrap().iter().collect::<Vec<_>>(), words);
        let read = batch("l", column_of(numbers.clone()));
        assert_eq!(read.read::<i64>("c").unwrap().iter().collect::<Vec<_>>(), numbers);
        let read = batch("b", column_of(flags.clone()));
        assert_eq!(read.read::<bool>("c").unwrap().iter().collect::<Vec<_>>(), flags);
        assert!(column_of([1_i64, 2]).buffers[0].is_empty());
    }
}
