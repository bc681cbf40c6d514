//! A table's columns, as Arrow and as Delta know them.
//!
//! Receives the columns asked for. Promises protocol and metadata actions that name exactly the features used, and
//! casts that only widen: a value never changes. Never reads a file.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::{TryIntoArrow, TryIntoKernel};
use serde_json::{Value, json};

use super::commit::now_ms;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::freshness::Freshness;
use crate::lake::{FINGERPRINT, OWNER, SEQ, SOURCE_TS, TableSpec};

const READER_FEATURES: &[&str] = &["deletionVectors", "timestampNtz"];
/// Writer features that ask nothing of a writer that never sets them off.
const WRITER_FEATURES: &[&str] = &["deletionVectors", "timestampNtz", "appendOnly", "invariants", "domainMetadata"];

/// Columns of a table and what is special about some.
#[derive(Debug, Clone)]
pub(in crate::lake) struct TableSchema {
    /// every column, in table order, the table's own included
    pub(in crate::lake) all: SchemaRef,
    /// the columns without the table's own
    pub(in crate::lake) data: SchemaRef,
    /// names of the table's own columns
    own: &'static [&'static str],
    /// columns that are in the log and not in the files
    pub(in crate::lake) partition_by: Vec<String>,
}

/// Decimal of `_seq` and `_fingerprint`.
pub(in crate::lake) const SEQ_TYPE: DataType = DataType::Decimal128(38, 0);

/// Timestamp in UTC, microseconds.
pub(in crate::lake) fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl TableSchema {
    /// From every column of the table.
    pub(in crate::lake) fn new(all: SchemaRef, partition_by: Vec<String>) -> Result<Self> {
        for name in &partition_by {
            let Ok(field) = all.field_with_name(name) else {
                return Err(Error::new(ErrorKind::Config, format!("no column `{name}` to partition by"))
                    .hint("name a column of the table in `partition_by`"));
            };
            if matches!(field.data_type(), DataType::Binary) {
                return Err(Error::new(ErrorKind::Config, format!("column `{name}` is binary and cannot partition")));
            }
        }
        Ok(TableSchema { data: all.clone(), all, partition_by, own: &[] }.with_own(Freshness::Newer.own()))
    }

    /// The same columns, of which `own` are the table's.
    pub(in crate::lake) fn with_own(mut self, own: &'static [&'static str]) -> Self {
        let data: Vec<FieldRef> =
            self.all.fields().iter().filter(|f| !own.contains(&f.name().as_str())).cloned().collect();
        self.data = Arc::new(Schema::new(data));
        self.own = own;
        self
    }

    /// Names of the table's own columns.
    pub(in crate::lake) fn own(&self) -> &'static [&'static str] {
        self.own
    }

    /// The columns of a keyed table by its spec.
    pub(in crate::lake) fn of_spec(spec: &TableSpec) -> Result<Self> {
        let mut fields: Vec<FieldRef> = Vec::with_capacity(spec.fields.fields().len() + 3);
        for field in spec.fields.fields() {
            if spec.freshness.own().contains(&field.name().as_str()) {
                return Err(Error::new(ErrorKind::Config, format!("column `{}` is the table's own", field.name()))
                    .hint("give the column another name"));
            }
            if fields.iter().any(|f| f.name().eq_ignore_ascii_case(field.name())) {
                return Err(Error::new(ErrorKind::Config, format!("two columns are named `{}`", field.name()))
                    .hint("Delta does not tell upper from lower case in names"));
            }
            fields.push(field.clone());
        }
        for key in &spec.key {
            if spec.fields.field_with_name(key).is_err() {
                return Err(Error::new(ErrorKind::Config, format!("key column `{key}` is not a column of the table")));
            }
        }
        match spec.freshness {
            Freshness::Newer => {
                fields.push(Arc::new(Field::new(SEQ, SEQ_TYPE, true)));
                fields.push(Arc::new(Field::new(SOURCE_TS, utc(), true)));
                if spec.key.is_empty() {
                    fields.push(Arc::new(Field::new(OWNER, DataType::Binary, true)));
                }
            }
            Freshness::Differs if spec.key.is_empty() => {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("table `{}` needs a key to tell which rows differ", spec.name),
                ));
            }
            Freshness::Differs => fields.push(Arc::new(Field::new(FINGERPRINT, SEQ_TYPE, true))),
        }
        let schema = TableSchema::new(Arc::new(Schema::new(fields)), spec.partition_by.clone())?;
        Ok(schema.with_own(spec.freshness.own()))
    }

    /// From a `metaData` action.
    pub(in crate::lake) fn of_metadata(metadata: &Value) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Corrupt, "the table's schema is not readable");
        let text = metadata.get("schemaString").and_then(Value::as_str).ok_or_else(bad)?;
        let schema: StructType = serde_json::from_str(text).map_err(|e| bad().caused_by(e))?;
        let all: Schema = (&schema).try_into_arrow().map_err(|e| bad().caused_by(e))?;
        let partition_by = metadata
            .get("partitionColumns")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(|n| n.as_str().map(ToString::to_string)).collect())
            .unwrap_or_default();
        Ok(TableSchema::new(Arc::new(all), partition_by)?.with_own(Freshness::of_metadata(metadata)?.own()))
    }

    /// The column with what marks a row's owner: its sequence or its fingerprint.
    pub(in crate::lake) fn mark(&self) -> &'static str {
        if self.own.contains(&FINGERPRINT) { FINGERPRINT } else { SEQ }
    }

    /// The columns that stand in data files.
    pub(in crate::lake) fn in_files(&self) -> SchemaRef {
        let fields: Vec<FieldRef> =
            self.all.fields().iter().filter(|f| !self.partition_by.contains(f.name())).cloned().collect();
        Arc::new(Schema::new(fields))
    }

    /// Delta's schema text.
    pub(in crate::lake) fn schema_string(&self) -> Result<String> {
        let bad = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Config, "a column has a type that Delta does not know").caused_by(e)
        };
        let schema: StructType =
            self.all.as_ref().try_into_kernel().map_err(|e: arrow::error::ArrowError| bad(e.into()))?;
        serde_json::to_string(&schema).map_err(|e| bad(e.into()))
    }

    /// The `metaData` action of a new table.
    pub(in crate::lake) fn metadata(&self, name: &str, configuration: Value) -> Result<Value> {
        Ok(json!({
            "id": uuid::Uuid::new_v4().to_string(),
            "name": name,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": self.schema_string()?,
            "partitionColumns": self.partition_by,
            "configuration": configuration,
            "createdTime": now_ms(),
        }))
    }

    /// The `protocol` action of a table with these columns.
    pub(in crate::lake) fn protocol(&self, vectors: bool) -> Value {
        let mut features = Vec::new();
        if vectors {
            features.push("deletionVectors");
        }
        if self.has_ntz() {
            features.push("timestampNtz");
        }
        if features.is_empty() {
            return json!({"minReaderVersion": 1, "minWriterVersion": 2});
        }
        // Spark refuses a column that is not nullable without it.
        let writers: Vec<&str> = features.iter().copied().chain(["invariants"]).collect();
        json!({"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": writers})
    }

    /// True when a column is a timestamp without zone.
    pub(in crate::lake) fn has_ntz(&self) -> bool {
        self.all.fields().iter().any(|f| matches!(f.data_type(), DataType::Timestamp(_, None)))
    }
}

/// Refuses a protocol that asks for more than this program knows.
pub(in crate::lake) fn check_protocol(protocol: &Value) -> Result<()> {
    let listed = |name: &str| -> Vec<&str> {
        protocol
            .get(name)
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    };
    let number = |name: &str| protocol.get(name).and_then(Value::as_i64).unwrap_or(0);
    let unknown = listed("readerFeatures")
        .into_iter()
        .find(|f| !READER_FEATURES.contains(f))
        .or_else(|| listed("writerFeatures").into_iter().find(|f| !WRITER_FEATURES.contains(f)));
    if let Some(feature) = unknown {
        return Err(Error::new(ErrorKind::Config, format!("the table asks for the feature `{feature}`"))
            .hint("drop the feature from the table with the engine that set it"));
    }
    let (reader, writer) = (number("minReaderVersion"), number("minWriterVersion"));
    if reader > 3 || writer > 7 || reader == 2 || (3..7).contains(&writer) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the table's protocol is reader {reader}, writer {writer}, which lode does not write"),
        )
        .hint("tables made by lode have reader 3 and writer 7, or 1 and 2"));
    }
    Ok(())
}

fn cast(array: &ArrayRef, to: &DataType, name: &str) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options)
        .map_err(|e| Error::new(ErrorKind::Corrupt, format!("column `{name}` cannot be read as {to}")).caused_by(e))
}

/// A batch, also of no columns.
pub(in crate::lake) fn batch_of(fields: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(fields, columns, &options)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "rows do not fit the table's columns").caused_by(e))
}

/// A partition value of the log as an array of one value; Delta has no empty text there.
pub(in crate::lake) fn partition_value(text: Option<&str>, to: &DataType, name: &str) -> Result<ArrayRef> {
    match text {
        None | Some("") => Ok(new_null_array(to, 1)),
        Some(text) => {
            let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
            cast(&array, to, name)
        }
    }
}

/// Value `row` as the log writes partition values.
pub(in crate::lake) fn partition_text(array: &dyn Array, row: usize) -> Result<Option<String>> {
    if array.is_null(row) {
        return Ok(None);
    }
    let bad = |e: arrow::error::ArrowError| {
        Error::new(ErrorKind::Internal, "a partition value cannot be written").caused_by(e)
    };
    if let DataType::Utf8 = array.data_type() {
        let text = array.as_string::<i32>().value(row);
        if text.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "a partition column holds empty text, which Delta would read as null",
            )
            .hint("partition by another column, or let the transform fill this one"));
        }
        return Ok(Some(text.to_string()));
    }
    let options = FormatOptions::new()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.6f"))
        .with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.6fZ"));
    let formatter = ArrayFormatter::try_new(array, &options).map_err(bad)?;
    formatter.value(row).try_to_string().map(Some).map_err(bad)
}
