//! Arrow arrays as the buffers a guest gets. Buffers are shared, not copied, save where a slice of an array does not
//! begin where the contract wants it to.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{ArrowNativeType, BinaryType, ByteArrayType, DataType, Utf8Type};

use super::contract::WitColumn;

/// The buffers of one column, ready to cross.
pub(super) struct Lent {
    length: u32,
    null_count: u32,
    buffers: Vec<Buffer>,
}

impl Lent {
    /// The buffers of `array`, whose type is one that crosses.
    pub(super) fn new(array: &ArrayRef) -> Result<Lent, String> {
        let too_long = |_| format!("a column of `{}` rows is too long to cross", array.len());
        let length = u32::try_from(array.len()).map_err(too_long)?;
        let null_count = u32::try_from(array.null_count()).map_err(too_long)?;
        let validity = match array.nulls() {
            Some(nulls) if null_count > 0 => nulls.inner().sliced(),
            _ => Buffer::default(),
        };
        let mut buffers = Vec::with_capacity(3);
        buffers.push(validity);
        match array.data_type() {
            DataType::Boolean => buffers.push(array.as_boolean().values().sliced()),
            DataType::Utf8 => push_bytes::<Utf8Type>(array, &mut buffers)?,
            DataType::Binary => push_bytes::<BinaryType>(array, &mut buffers)?,
            other => {
                let width =
                    other.primitive_width().ok_or_else(|| format!("a column of type `{other}` cannot cross"))?;
                let data = array.to_data();
                let values = data.buffers().first().ok_or("a column has no values")?;
                buffers.push(values.slice_with_length(data.offset() * width, data.len() * width));
            }
        }
        Ok(Lent { length, null_count, buffers })
    }

    /// The column as the contract has it.
    pub(super) fn as_column(&self) -> WitColumn<'_> {
        WitColumn {
            length: self.length,
            null_count: self.null_count,
            buffers: self.buffers.iter().map(Buffer::as_slice).collect(),
            children: 0,
        }
    }
}

fn push_bytes<T: ByteArrayType<Offset = i32>>(array: &ArrayRef, buffers: &mut Vec<Buffer>) -> Result<(), String> {
    let strings = array.as_bytes_opt::<T>().ok_or("a column is not what its type says")?;
    let offsets: &OffsetBuffer<i32> = strings.offsets();
    let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
    if first == 0 {
        buffers.push(offsets.inner().inner().clone());
    } else {
        buffers.push(Buffer::from_iter(offsets.iter().map(|offset| offset - first)));
    }
    buffers.push(strings.values().slice_with_length(first.as_usize(), (last - first).as_usize()));
    Ok(())
}

/// Bytes of `rows` of `array`, which may name a row more than once; `usize::MAX` where that cannot be said. No less
/// than what taking them allocates for values.
pub(super) fn bytes_taken(array: &ArrayRef, rows: &[u32]) -> usize {
    let lengths = |offsets: &[i32]| {
        let length = |row: &u32| match offsets.get(*row as usize..).and_then(|rest| rest.first_chunk::<2>()) {
            Some([from, to]) => to.abs_diff(*from) as usize,
            None => 0,
        };
        rows.iter().map(length).fold(0, usize::saturating_add)
    };
    match array.data_type() {
        DataType::Utf8 => lengths(array.as_string::<i32>().value_offsets()),
        DataType::Binary => lengths(array.as_binary::<i32>().value_offsets()),
        other => match other.primitive_width() {
            Some(width) => rows.len().saturating_mul(width),
            // As if every row taken were as large as all of them; such columns come from no source as yet.
            None => rows.len().saturating_mul(bytes_of(array)),
        },
    }
}

/// Bytes that `array` is, near enough to choose how many rows go in one call.
pub(super) fn bytes_of(array: &ArrayRef) -> usize {
    let span = |offsets: &[i32]| match (offsets.first(), offsets.last()) {
        (Some(first), Some(last)) => size_of_val(offsets) + last.abs_diff(*first) as usize,
        _ => 0,
    };
    match array.data_type() {
        DataType::Utf8 => span(array.as_string::<i32>().value_offsets()),
        DataType::Binary => span(array.as_binary::<i32>().value_offsets()),
        other => match other.primitive_width() {
            Some(width) => array.len() * width,
            None => array.to_data().get_slice_memory_size().unwrap_or(usize::MAX),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Int32Array, StringArray};

    use super::*;

    #[test]
    fn a_slice_crosses_as_if_it_were_an_array_of_its_own() {
        let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("aa"), None, Some("b"), Some("ccc")]));
        let slice = strings.slice(1, 3);
        let lent = Lent::new(&slice).unwrap();
        let column = lent.as_column();
        assert_eq!((column.length, column.null_count), (3, 1));
        assert_eq!(column.buffers[0], [0b110]);
        assert_eq!(column.buffers[1], [0, 0, 0, 1, 4].map(i32::to_le_bytes)[1..].concat().as_slice());
        assert_eq!(column.buffers[2], b"bccc");
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let lent = Lent::new(&ints.slice(2, 1)).unwrap();
        assert_eq!(lent.as_column().buffers, [&[][..], &3_i32.to_le_bytes()[..]]);
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true, true]));
        let lent = Lent::new(&flags.slice(1, 3)).unwrap();
        assert_eq!(lent.as_column().buffers[1][0] & 0b111, 0b110);
    }
}
