//! The column gate: what a guest says is a column becomes an Arrow array here, or an error. Nothing else builds arrays
//! from guest bytes.
//!
//! Order matters: counts, then the length of every buffer against the row count (in `u64`, so that nothing wraps), then
//! contents (offsets, UTF-8, null counts, decimal digits), then alignment, then Arrow's own full validation. Nothing
//! here allocates by a number that a guest gave: buffers are as long as what was copied out of it. Never panics.

use arrow::array::{Array, ArrayData, ArrayRef, Decimal128Array, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::DataType;

/// A column as a guest gives it, copied out of its memory.
pub(super) struct Claimed {
    pub(super) length: u32,
    pub(super) null_count: u32,
    pub(super) buffers: Vec<Vec<u8>>,
    pub(super) children: u32,
}

/// The array of `data_type` and `rows` values that `claimed` is, or what is wrong with it.
pub(super) fn admit(claimed: Claimed, data_type: &DataType, nullable: bool, rows: u32) -> Result<ArrayRef, String> {
    check_counts(&claimed, data_type, nullable, rows)?;
    match data_type {
        DataType::Boolean => drop(exactly(&claimed, 1, u64::from(rows).div_ceil(8))?),
        DataType::Utf8 | DataType::Binary => {
            let offsets = exactly(&claimed, 1, (u64::from(rows) + 1) * 4)?;
            let data = claimed.buffers.get(2).ok_or("buffer 2 (data) is missing")?;
            check_offsets(offsets, data)?;
            if *data_type == DataType::Utf8 {
                check_utf8(offsets, data)?;
            }
        }
        other => {
            let width = other.primitive_width().ok_or_else(|| format!("`{other}` is no type of the contract"))?;
            exactly(&claimed, 1, u64::from(rows) * width as u64)?;
        }
    }
    let mut buffers = claimed.buffers.into_iter();
    let nulls = admit_validity(buffers.next(), claimed.null_count, rows)?;
    let data = ArrayData::builder(data_type.clone())
        .len(rows as usize)
        .nulls(nulls)
        .buffers(buffers.map(Buffer::from).collect())
        // A copy where the allocator gave less than the type needs, which it hardly ever does.
        .align_buffers(true)
        // This is Arrow's own full validation.
        .build()
        .map_err(|e| format!("arrow refuses it: {e}"))?;
    let array = make_array(data);
    check_digits(&array)?;
    Ok(array)
}

fn check_counts(claimed: &Claimed, data_type: &DataType, nullable: bool, rows: u32) -> Result<(), String> {
    if claimed.length != rows {
        return Err(format!("it has `{}` values where there are `{rows}` rows", claimed.length));
    }
    if claimed.children != 0 {
        return Err(format!("it has `{}` children where `{data_type}` has none", claimed.children));
    }
    if !nullable && claimed.null_count > 0 {
        return Err(format!("it has `{}` nulls though it was declared without", claimed.null_count));
    }
    let expected = if matches!(data_type, DataType::Utf8 | DataType::Binary) { 3 } else { 2 };
    if claimed.buffers.len() != expected {
        return Err(format!("it has `{}` buffers where `{data_type}` has `{expected}`", claimed.buffers.len()));
    }
    Ok(())
}

fn admit_validity(bits: Option<Vec<u8>>, null_count: u32, rows: u32) -> Result<Option<NullBuffer>, String> {
    let bits = bits.ok_or("buffer 0 (validity) is missing")?;
    if bits.is_empty() {
        return match null_count {
            0 => Ok(None),
            count => Err(format!("it claims `{count}` nulls without a validity buffer")),
        };
    }
    let expected = u64::from(rows).div_ceil(8);
    if bits.len() as u64 != expected {
        return Err(wrong_size(0, bits.len(), expected));
    }
    let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from(bits), 0, rows as usize));
    if nulls.null_count() != null_count as usize {
        return Err(format!("it claims `{null_count}` nulls where its validity has `{}`", nulls.null_count()));
    }
    Ok((null_count > 0).then_some(nulls))
}

fn wrong_size(index: usize, bytes: usize, expected: u64) -> String {
    format!("buffer {index} holds `{bytes}` bytes where `{expected}` are expected")
}

fn exactly(claimed: &Claimed, index: usize, bytes: u64) -> Result<&[u8], String> {
    let buffer = claimed.buffers.get(index).ok_or_else(|| format!("buffer {index} is missing"))?;
    if buffer.len() as u64 != bytes {
        return Err(wrong_size(index, buffer.len(), bytes));
    }
    Ok(buffer)
}

fn offsets_of(buffer: &[u8]) -> impl Iterator<Item = i32> {
    buffer.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes))
}

fn check_offsets(offsets: &[u8], data: &[u8]) -> Result<(), String> {
    let mut last = 0_i32;
    for (at, offset) in offsets_of(offsets).enumerate() {
        if at == 0 && offset != 0 {
            return Err(format!("its first offset is `{offset}`, not 0"));
        }
        if offset < last {
            return Err(format!("offset `{offset}` at {at} is less than the one before it"));
        }
        last = offset;
    }
    if last as usize != data.len() {
        return Err(format!("its last offset is `{last}` where its data has `{}` bytes", data.len()));
    }
    Ok(())
}

fn check_utf8(offsets: &[u8], data: &[u8]) -> Result<(), String> {
    let text =
        simdutf8::compat::from_utf8(data).map_err(|e| format!("it is not UTF-8 at byte `{}`", e.valid_up_to()))?;
    if text.is_ascii() {
        return Ok(());
    }
    for offset in offsets_of(offsets) {
        if !text.is_char_boundary(offset as usize) {
            return Err(format!("offset `{offset}` is inside a character"));
        }
    }
    Ok(())
}

fn check_digits(array: &ArrayRef) -> Result<(), String> {
    let DataType::Decimal128(precision, _) = array.data_type() else { return Ok(()) };
    let decimals = array.as_any().downcast_ref::<Decimal128Array>().ok_or("it is not a decimal")?;
    // Of 38 digits at most, so no power overflows.
    let bound = 10_u128.pow(u32::from(*precision));
    let fits = |value: &i128| value.unsigned_abs() < bound;
    // Mostly all fit, also what stands behind nulls; where it does not, only the values count.
    let all = decimals.values().iter().all(fits) || decimals.iter().flatten().all(|value| fits(&value));
    all.then_some(()).ok_or_else(|| format!("a value has more than the `{precision}` digits declared"))
}

/// The rows a guest's output comes from, checked against the `rows` it was given.
pub(super) fn check_rows(source_rows: Option<&[u32]>, rejected: &[(u32, String)], rows: u32) -> Result<(), String> {
    let Some(source_rows) = source_rows else {
        return match rejected.first() {
            None => Ok(()),
            Some((row, _)) => Err(format!("row `{row}` is rejected though the output is one to one")),
        };
    };
    if rejected.is_empty() {
        return match source_rows.iter().find(|row| **row >= rows) {
            Some(row) => Err(format!("a row comes from row `{row}` where there are `{rows}`")),
            None => Ok(()),
        };
    }
    let mut refused = vec![false; rows as usize];
    for (row, _) in rejected {
        match refused.get_mut(*row as usize) {
            None => return Err(format!("row `{row}` is rejected where there are `{rows}`")),
            Some(true) => return Err(format!("row `{row}` is rejected twice")),
            Some(seen) => *seen = true,
        }
    }
    for row in source_rows {
        match refused.get(*row as usize) {
            None => return Err(format!("a row comes from row `{row}` where there are `{rows}`")),
            Some(true) => return Err(format!("row `{row}` is both rejected and a source row")),
            Some(false) => {}
        }
    }
    Ok(())
}
