//! Columns of a source fitted to those of a table or of a module: widened, defaulted, with pseudo-columns beside them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
    UInt32Array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;

use crate::error::{Error, ErrorKind, Result};
use crate::schema::{DEFAULT, TableSchema};
use crate::table::Selection;

/// `batch` in the columns `fields`: narrower types widened, absent columns at the field's default.
pub(super) fn align(batch: &RecordBatch, fields: &SchemaRef) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let columns = fields.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(column, field.data_type(), &options).map_err(arrow_error)
        }
        None => match default_of(field) {
            Some(default) => take(&default, &UInt32Array::from(vec![0; rows]), None).map_err(arrow_error),
            None => Ok(new_null_array(field.data_type(), rows)),
        },
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new_with_options(
        Arc::clone(fields),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
    .map_err(arrow_error)
}

/// The schema's fields, each with its default where it has one.
pub(super) fn with_defaults(schema: &TableSchema) -> SchemaRef {
    let fields = schema.fields.fields().iter().zip(&schema.defaults).map(|(field, default)| {
        let text = default.as_ref().and_then(|d| array_value_to_string(d, 0).ok().map(|text| (d, text)));
        let Some((default, text)) = text else { return Arc::clone(field) };
        let mut metadata = field.metadata().clone();
        metadata.insert(DEFAULT.to_owned(), text);
        let marked = Arc::new(field.as_ref().clone().with_metadata(metadata));
        // What the text does not give back exactly is better left out.
        if default_of(&marked).is_some_and(|d| d.to_data() == default.to_data()) { marked } else { Arc::clone(field) }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The one value of [`DEFAULT`].
pub(super) fn default_of(field: &Field) -> Option<ArrayRef> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![field.metadata().get(DEFAULT)?.as_str()]));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, field.data_type(), &options).ok()
}

/// Names of the source table's key columns, in key order.
pub(super) fn source_key(schema: &TableSchema) -> Vec<String> {
    schema.key.iter().filter_map(|&i| schema.fields.fields().get(i)).map(|f| f.name().clone()).collect()
}

/// The key's columns as a table with the columns `fields` names them.
pub(super) fn stored_key(schema: &TableSchema, fields: &Schema) -> Vec<String> {
    let key = source_key(schema);
    let kept: HashMap<String, String> = kept_key(&key, fields).into_iter().collect();
    key.into_iter().map(|name| kept.get(&name).cloned().unwrap_or(name)).collect()
}

/// Columns of `key` that `output` lacks, with the name that the table keeps them under.
pub(super) fn kept_key(key: &[String], output: &Schema) -> Vec<(String, String)> {
    let lacking = key.iter().filter(|name| output.column_with_name(name).is_none());
    lacking.map(|name| (name.clone(), format!("_key_{name}"))).collect()
}

pub(super) fn same(a: &TableSchema, b: &TableSchema) -> bool {
    a.fields.fields().len() == b.fields.fields().len()
        && source_key(a) == source_key(b)
        && a.fields
            .fields()
            .iter()
            .zip(b.fields.fields())
            .all(|(x, y)| x.name() == y.name() && x.data_type() == y.data_type())
}

/// True when `a` holds every value of `b`.
pub(super) fn is_wider(a: &DataType, b: &DataType) -> bool {
    let rank = |t: &DataType| match t {
        DataType::Int8 => 1,
        DataType::Int16 => 2,
        DataType::Int32 => 3,
        DataType::Int64 => 4,
        _ => 0,
    };
    match (a, b) {
        (DataType::Float64, DataType::Float32) => true,
        (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => {
            s >= t && i16::from(*p) - i16::from(*s) >= i16::from(*q) - i16::from(*t)
        }
        _ => rank(b) > 0 && rank(a) > rank(b),
    }
}

/// The source's columns and the pseudo-columns that a module may read.
pub(super) fn offered(fields: &Schema) -> SchemaRef {
    let mut all: Vec<Arc<Field>> = fields.fields().iter().cloned().collect();
    all.push(Arc::new(Field::new("_op", DataType::Utf8, false)));
    all.push(Arc::new(Field::new("_seq", DataType::Decimal128(38, 0), false)));
    all.push(Arc::new(Field::new("_source_ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true)));
    Arc::new(Schema::new(all))
}

pub(super) fn with_pseudo_columns(rows: &RecordBatch, selection: &Selection) -> Result<RecordBatch> {
    let ops: StringArray = selection.ops().iter().map(|op| Some(op.letter())).collect();
    let sequences = Decimal128Array::from_iter_values(selection.sequences().iter().map(|s| s.0 as i128))
        .with_precision_and_scale(38, 0)
        .map_err(arrow_error)?;
    let times: TimestampMicrosecondArray =
        selection.source_ts_ms().iter().map(|&ms| (ms != 0).then_some(ms.saturating_mul(1000))).collect();
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(ops));
    columns.push(Arc::new(sequences));
    columns.push(Arc::new(times.with_timezone("UTC")));
    let fields = offered(&rows.schema());
    RecordBatch::try_new(fields, columns).map_err(arrow_error)
}

pub(super) fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "columns do not fit together").caused_by(error)
}
