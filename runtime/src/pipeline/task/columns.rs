//! Columns of a source fitted to those of a table or of a module: widened, defaulted, with pseudo-columns beside them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::Selection;
use crate::model::schema::widen::{default_of, widens};
use crate::model::schema::{DEFAULT, TableSchema};

/// The schema's fields, each with its default where it has one.
pub(in crate::pipeline) fn with_defaults(schema: &TableSchema) -> SchemaRef {
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

/// Names of the source table's key columns, in key order.
pub(in crate::pipeline) fn source_key(schema: &TableSchema) -> Vec<String> {
    schema.key.iter().filter_map(|&i| schema.fields.fields().get(i)).map(|f| f.name().clone()).collect()
}

/// The key's columns as a table with the columns `fields` names them.
pub(in crate::pipeline) fn stored_key(schema: &TableSchema, fields: &Schema) -> Vec<String> {
    let key = source_key(schema);
    let kept: HashMap<String, String> = kept_key(&key, fields).into_iter().collect();
    key.into_iter().map(|name| kept.get(&name).cloned().unwrap_or(name)).collect()
}

/// Columns of `key` that `output` lacks, with the name that the table keeps them under.
pub(in crate::pipeline) fn kept_key(key: &[String], output: &Schema) -> Vec<(String, String)> {
    let lacking = key.iter().filter(|name| output.column_with_name(name).is_none());
    lacking.map(|name| (name.clone(), format!("_key_{name}"))).collect()
}

pub(in crate::pipeline) fn same(a: &TableSchema, b: &TableSchema) -> bool {
    a.fields.fields().len() == b.fields.fields().len()
        && source_key(a) == source_key(b)
        && a.fields
            .fields()
            .iter()
            .zip(b.fields.fields())
            .all(|(x, y)| x.name() == y.name() && x.data_type() == y.data_type())
}

/// True when `schema` has a column that `known` lacks, one that is not narrower, or another key: an older structure brings
/// nothing.
pub(in crate::pipeline) fn brings(schema: &TableSchema, known: &TableSchema) -> bool {
    source_key(schema) != source_key(known)
        || schema.fields.fields().iter().any(|f| match known.fields.field_with_name(f.name()) {
            Err(_) => true,
            Ok(have) => !widens(f.data_type(), have.data_type()),
        })
}

/// The source's columns and the pseudo-columns that a module may read.
pub(in crate::pipeline) fn offered(fields: &Schema) -> SchemaRef {
    let mut all: Vec<Arc<Field>> = fields.fields().iter().cloned().collect();
    all.push(Arc::new(Field::new("_op", DataType::Utf8, false)));
    all.push(Arc::new(Field::new("_seq", DataType::Decimal128(38, 0), false)));
    all.push(Arc::new(Field::new("_source_ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true)));
    Arc::new(Schema::new(all))
}

pub(in crate::pipeline) fn with_pseudo_columns(rows: &RecordBatch, selection: &Selection) -> Result<RecordBatch> {
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

pub(in crate::pipeline) fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "columns do not fit together").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::widen::widest;

    fn schema(value: DataType) -> Arc<TableSchema> {
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("v", value, true)];
        Arc::new(TableSchema {
            database: "shop".into(),
            table: "t".into(),
            fields: Arc::new(Schema::new(fields)),
            key: vec![0],
            defaults: vec![None, None],
            renamed: 0,
        })
    }

    #[test]
    fn an_older_narrower_structure_after_a_newer_one_is_not_followed() {
        let old = schema(DataType::Int32);
        for new in [DataType::Int64, DataType::Float64, DataType::Decimal128(12, 1)] {
            let new = schema(new);
            assert!(brings(&new, &old) && !brings(&old, &new), "{new:?}");
            assert!(same(&widest(&old, &new), &new), "a narrower column of a followed structure stays wide");
        }
    }
}
