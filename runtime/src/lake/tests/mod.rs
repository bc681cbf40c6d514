//! Tests of the table core on local disk, read back through DataFusion.

mod basic;
mod broken;
mod changes;
mod conformance;
mod differs;
mod evolve;
mod faults;
mod follow;
pub(crate) mod faulty;
mod keyless;
pub(crate) mod model;
pub(crate) mod bronze;
mod stores;
mod tombstones;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use serde_json::Map;

use super::*;
use crate::error::Result;
use crate::model::change::{Changes, Op, Records};
use crate::model::positions::{PartitionId, Range, Ranges};
use crate::model::schema::TableSchema;
use crate::model::sequence::Sequence;

pub(crate) const TOPIC: &str = "shop.orders";

pub(crate) fn lake() -> (tempfile::TempDir, Location) {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::open(dir.path().to_str().unwrap(), &HashMap::new()).unwrap();
    (dir, location)
}

pub(crate) fn fields() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Utf8, true)]))
}

pub(crate) fn spec() -> TableSpec {
    TableSpec {
        name: "silver/orders".into(),
        fields: fields(),
        key: vec!["id".into()],
        renamed: 0,
        generation: 0,
        partition_by: vec![],
        freshness: Freshness::Newer,
    }
}

/// id, value, op, sequence, partition, offset
pub(crate) type Row = (i64, &'static str, Op, u128, i32, i64);

pub(crate) fn changes(rows: &[(i64, String, Op, u128, i32, i64)], key: Vec<usize>) -> Changes {
    let schema = Arc::new(TableSchema {
        database: "shop".into(),
        table: "orders".into(),
        fields: fields(),
        key,
        defaults: vec![None, None],
        renamed: 0,
    });
    let nullable =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1.as_str())));
    Changes {
        schema,
        rows: RecordBatch::try_new(nullable, vec![ids, values]).unwrap(),
        ops: rows.iter().map(|r| r.2).collect(),
        sequences: rows.iter().map(|r| Sequence(r.3)).collect(),
        source_ts_ms: vec![1_700_000_000_000; rows.len()],
        records: Some(Records {
            topic: TOPIC.into(),
            partitions: rows.iter().map(|r| r.4).collect(),
            offsets: rows.iter().map(|r| r.5).collect(),
        }),
    }
}

pub(crate) fn of(rows: &[Row]) -> Vec<Changes> {
    let rows: Vec<_> = rows.iter().map(|r| (r.0, r.1.to_string(), r.2, r.3, r.4, r.5)).collect();
    vec![changes(&rows, vec![0])]
}

pub(crate) fn partition(number: i32) -> PartitionId {
    PartitionId { topic: TOPIC.into(), partition: number }
}

pub(crate) fn ranges(all: &[(i32, i64, i64)]) -> Ranges {
    all.iter().map(|(p, from, to)| (partition(*p), Range { from: *from, to: *to })).collect()
}

/// A typed copy of the selected changes.
pub(crate) async fn copy(table: &mut KeyedTable, changes: &[Changes], ranges: &Ranges) -> Result<Outcome> {
    let selection = table.select(changes, &[])?;
    let output = selection.upserts().clone();
    let outcome = table.replace(OwnerRows::copied(&selection, &output), ranges, Map::new()).await?;
    Ok(version_of(outcome))
}

pub(super) fn version_of(outcome: Outcome<Committed>) -> Outcome {
    match outcome {
        Outcome::Committed(committed) => Outcome::Committed(committed.version),
        Outcome::AlreadyCommitted { version } => Outcome::AlreadyCommitted { version },
        Outcome::Fenced => Outcome::Fenced,
    }
}

/// What a transform gave for `selection`.
pub(super) fn given<'a>(
    selection: &'a Selection,
    output: &'a RecordBatch,
    sources: &'a [u32],
    rejected: &'a [u32],
) -> OwnerRows<'a> {
    OwnerRows { selection, output, source_rows: Some(sources), rejected }
}

pub(crate) async fn query(location: &Location, sql: &str) -> Vec<RecordBatch> {
    let mut table = deltalake::DeltaTable::new(location.log_store().unwrap());
    table.load().await.unwrap();
    let context = SessionContext::new();
    table.update_datafusion_session(&context.state()).unwrap();
    let provider = table.table_provider().await.unwrap();
    context.register_table("t", provider).unwrap();
    context.sql(sql).await.unwrap().collect().await.unwrap()
}

/// id and value of every row, sorted.
pub(crate) async fn rows(location: &Location) -> Vec<(i64, String)> {
    let batches = query(location, "SELECT id, CAST(v AS VARCHAR) AS v FROM t").await;
    let mut rows = Vec::new();
    for batch in batches {
        let ids = batch.column(0).as_primitive::<Int64Type>().clone();
        let values = arrow::compute::cast(batch.column(1), &DataType::Utf8).unwrap();
        let values = values.as_string::<i32>();
        for row in 0..batch.num_rows() {
            assert!(ids.is_valid(row));
            rows.push((ids.value(row), values.value(row).to_string()));
        }
    }
    rows.sort();
    rows
}

pub(crate) fn map(rows: &[(i64, &str)]) -> Vec<(i64, String)> {
    let rows: BTreeMap<i64, String> = rows.iter().map(|(id, v)| (*id, v.to_string())).collect();
    rows.into_iter().collect()
}
