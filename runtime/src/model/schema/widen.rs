//! Which type is wider than which, and batches brought to other columns.
//!
//! Receives columns as they were decoded, read from a file or given by a module. Promises the columns asked for, every
//! value what it was: a narrower type is widened exactly, and one that is not narrower is an error that names the column.
//! Never rounds, cuts or nulls a value. The one rule of what is wider, for every stage.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{DEFAULT, TableSchema};
use crate::error::{Error, ErrorKind, Result};

/// True when every value of `from` is a value of `to`.
pub(crate) fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Null, Timestamp};
    match (from, to) {
        (a, b) if a == b => true,
        (Null, _) => true,
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) | (Float32, Float64) => true,
        (Int8 | Int16 | Int32, Float64) => true,
        (Int8 | Int16 | Int32 | Int64, Decimal128(p, s)) => {
            let digits = match from {
                Int8 => 3,
                Int16 => 5,
                Int32 => 10,
                _ => 19,
            };
            *s >= 0 && i32::from(*p) - i32::from(*s) >= digits
        }
        (Decimal128(p, s), Decimal128(q, t)) => {
            t >= s && i32::from(*q) - i32::from(*t) >= i32::from(*p) - i32::from(*s)
        }
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::Utf8) => true,
        (DataType::Binary | DataType::LargeBinary | DataType::BinaryView, DataType::Binary) => true,
        // foreign writers may keep other units in files; micro is the finest Delta has
        (Timestamp(unit, a), Timestamp(TimeUnit::Microsecond, b)) => {
            a.is_some() == b.is_some() && !matches!(unit, TimeUnit::Nanosecond)
        }
        (DataType::Dictionary(_, values), to) => widens(values, to),
        _ => false,
    }
}

/// The wider of two types; `None` where neither holds every value of the other.
pub(crate) fn wider<'a>(a: &'a DataType, b: &'a DataType) -> Option<&'a DataType> {
    if widens(b, a) {
        Some(a)
    } else if widens(a, b) {
        Some(b)
    } else {
        None
    }
}

/// `schema` with the types of `known` where those are wider.
pub(crate) fn widest(schema: &Arc<TableSchema>, known: &TableSchema) -> Arc<TableSchema> {
    let wide = |field: &Field| {
        let known = known.fields.field_with_name(field.name()).ok()?.data_type();
        (known != field.data_type() && widens(field.data_type(), known)).then(|| known.clone())
    };
    let types: Vec<Option<DataType>> = schema.fields.fields().iter().map(|field| wide(field)).collect();
    if types.iter().all(Option::is_none) {
        return Arc::clone(schema);
    }
    let mut widened = schema.as_ref().clone();
    let mut fields = Vec::with_capacity(types.len());
    for ((field, to), default) in schema.fields.fields().iter().zip(types).zip(&mut widened.defaults) {
        let Some(to) = to else {
            fields.push(Arc::clone(field));
            continue;
        };
        *default = default.take().and_then(|one| widen(&one, &to, field.name()).ok());
        fields.push(Arc::new(field.as_ref().clone().with_data_type(to)));
    }
    widened.fields = Arc::new(Schema::new(fields));
    Arc::new(widened)
}

/// The array as type `to`, where that is wider.
///
/// # Errors
/// `Misfit`, naming the column, where it is not.
pub(crate) fn widen(array: &ArrayRef, to: &DataType, name: &str) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    if !widens(array.data_type(), to) {
        return Err(Error::new(
            ErrorKind::Misfit,
            format!("column `{name}` is {} where the table has {to}", array.data_type()),
        )
        .hint("widen the table's column, or rebuild the table"));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options)
        .map_err(|e| Error::new(ErrorKind::Corrupt, format!("column `{name}` cannot be read as {to}")).caused_by(e))
}

/// The column `field` of `batch`: widened where it is narrower; where it is absent, `default` (an array of one value) or
/// nulls.
pub(crate) fn column_of(batch: &RecordBatch, field: &Field, default: Option<&ArrayRef>) -> Result<ArrayRef> {
    match (batch.column_by_name(field.name()), default) {
        (Some(column), _) => widen(column, field.data_type(), field.name()),
        (None, Some(one)) => repeat(&widen(one, field.data_type(), field.name())?, batch.num_rows()),
        (None, None) => Ok(new_null_array(field.data_type(), batch.num_rows())),
    }
}

/// `batch` in exactly the columns `fields`: widened where narrower; where absent, at the field's default, else null.
pub(crate) fn align(batch: &RecordBatch, fields: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref().fields() == fields.fields() {
        return Ok(batch.clone());
    }
    let column = |field: &Arc<Field>| {
        let default = if batch.column_by_name(field.name()).is_none() { default_of(field) } else { None };
        column_of(batch, field, default.as_ref())
    };
    let columns = fields.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(fields), columns, &options)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "rows do not fit the table's columns").caused_by(e))
}

/// The one value of [`DEFAULT`].
pub(crate) fn default_of(field: &Field) -> Option<ArrayRef> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![field.metadata().get(DEFAULT)?.as_str()]));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, field.data_type(), &options).ok()
}

fn repeat(one: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    take(one, &UInt32Array::from(vec![0u32; rows]), None)
        .map_err(|e| Error::new(ErrorKind::Internal, "a default cannot be repeated").caused_by(e))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, Float64Array, Int32Array};
    use arrow::datatypes::Float64Type;

    use super::*;

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("v", column, true)]).unwrap()
    }

    fn fields(data_type: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("v", data_type, true)]))
    }

    #[test]
    fn a_type_is_wider_exactly_where_it_holds_every_value() {
        use DataType::{
            Binary, Boolean, Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, Timestamp, Utf8,
        };
        let local = Timestamp(TimeUnit::Microsecond, None);
        let utc = Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let all = [
            Int8,
            Int16,
            Int32,
            Int64,
            Float32,
            Float64,
            Decimal128(5, 2),
            Decimal128(12, 2),
            Decimal128(20, 0),
            Decimal128(38, 10),
            Boolean,
            Date32,
            local,
            utc,
            Utf8,
            Binary,
        ];
        // a row: from; a column: to; `x`: every value of the one is a value of the other
        let rows = [
            "xxxx.xxxxx......", // Int8: 3 digits before the point
            ".xxx.x.xxx......", // Int16: 5
            "..xx.x.xxx......", // Int32: 10
            "...x....xx......", // Int64: 19
            "....xx..........", // Float32
            ".....x..........", // Float64
            "......xx.x......", // Decimal(5,2)
            ".......x.x......", // Decimal(12,2)
            "........xx......", // Decimal(20,0)
            ".........x......", // Decimal(38,10)
            "..........x.....", // Boolean
            "...........x....", // Date32
            "............x...", // Timestamp without zone
            ".............x..", // Timestamp in UTC
            "..............x.", // Utf8
            "...............x", // Binary
        ];
        for (from, row) in all.iter().zip(rows) {
            let found: String = all.iter().map(|to| if widens(from, to) { 'x' } else { '.' }).collect();
            assert_eq!(found, row, "{from}");
        }
    }

    #[test]
    fn a_value_is_never_cut_to_a_narrower_type() {
        let half = batch(Arc::new(Float64Array::from(vec![1.5])));
        let error = align(&half, &fields(DataType::Int32)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misfit);
        assert!(error.to_string().contains("`v`"), "{error}");
        assert!(align(&half, &fields(DataType::Decimal128(12, 0))).is_err());
        let whole = batch(Arc::new(Int32Array::from(vec![7])));
        let widened = align(&whole, &fields(DataType::Float64)).unwrap();
        assert_eq!(widened.column(0).as_primitive::<Float64Type>().value(0).to_bits(), 7.0f64.to_bits());
    }

    #[test]
    fn an_absent_column_has_its_default_or_is_null() {
        let rows = batch(Arc::new(Int32Array::from(vec![1, 2])));
        let plain = Field::new("w", DataType::Int32, true);
        let with_default = plain.clone().with_name("d").with_metadata([(DEFAULT.to_owned(), "5".to_owned())].into());
        let aligned = align(&rows, &Arc::new(Schema::new(vec![plain, with_default]))).unwrap();
        assert_eq!(aligned.column(0).null_count(), 2);
        assert_eq!(aligned.column(1).as_ref(), &Int32Array::from(vec![5, 5]) as &dyn Array);
    }
}
