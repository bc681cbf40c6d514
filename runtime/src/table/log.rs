//! What a table's log says when it is opened.
//!
//! Receives a location. Promises the state of one version: files with their vectors, every application id, protocol
//! and metadata. Uses deltalake's snapshot for the files and its kernel's log segment for the rest. Never writes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use deltalake::DeltaTable;
use deltalake::kernel::Add;
use kernel::engine::arrow_data::EngineDataArrowExt;
use serde_json::{Value, json};

use super::commit::{Committer, Put, configuration, create, delta_error};
use super::schema::{TableSchema, check_protocol};
use super::{Location, Settings, retention};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Positions;

const ATTEMPTS: u32 = 5;

/// A table's log at one version.
pub(super) struct Opened {
    pub(super) committer: Committer,
    pub(super) files: Vec<Add>,
}

/// Opens the table at `location`; `make` gives the schema, protocol and configuration of one that is not there yet.
pub(super) async fn open_or_create(
    location: Location,
    name: &str,
    settings: Settings,
    make: impl Fn() -> Result<(TableSchema, Value, Value)>,
) -> Result<Opened> {
    for attempt in 0..ATTEMPTS {
        super::commit::pause(attempt).await;
        if let Some(mut opened) = open(&location, &settings).await? {
            if retention::raise(&mut opened.committer).await? {
                return Ok(opened);
            }
            continue;
        }
        let (schema, protocol, configuration) = make()?;
        let metadata = schema.metadata(name, retention::configure(configuration, &settings))?;
        let actions = [json!({"protocol": protocol}), json!({"metaData": metadata})];
        // whoever makes the table first, the next round reads what stands there
        let (Put::Written | Put::Taken(_)) = create(&location.store()?, &settings, &actions).await?;
    }
    Err(Error::new(ErrorKind::Unavailable, format!("table `{name}` can be neither opened nor made")))
}

/// Opens the table at `location`; `None` where there is no log.
pub(super) async fn open(location: &Location, settings: &Settings) -> Result<Option<Opened>> {
    let log_store = location.log_store()?;
    let found = tokio::time::timeout(settings.request_timeout, log_store.is_delta_table_location());
    match found.await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return Ok(None),
        Ok(Err(e)) => return Err(delta_error("looking for the table", e)),
        Err(_) => return Err(Error::new(ErrorKind::Unavailable, "looking for the table took too long")),
    }
    let mut table = DeltaTable::new(log_store.clone());
    table.load().await.map_err(|e| delta_error("reading the table's log", e))?;
    let state = table.snapshot().map_err(|e| delta_error("reading the table's log", e))?;
    let version = state.version();
    let to_json = |e: serde_json::Error| Error::new(ErrorKind::Internal, "metadata as JSON").caused_by(e);
    let metadata = serde_json::to_value(state.metadata()).map_err(to_json)?;
    let protocol = serde_json::to_value(state.protocol()).map_err(to_json)?;
    check_protocol(&protocol)?;
    let settled = configuration(&metadata);
    if settled.contains_key("delta.setTransactionRetentionDuration") {
        return Err(Error::new(
            ErrorKind::Config,
            "the table forgets transaction ids (`delta.setTransactionRetentionDuration` is set)",
        )
        .hint("unset the property: lode keeps its Kafka positions in those ids"));
    }
    let generation = settled.get("lode.generation").and_then(|g| g.parse().ok()).unwrap_or(0);
    #[allow(deprecated)]
    let files: Vec<Add> = state
        .snapshot()
        .try_log_data()
        .map_err(|e| delta_error("reading the table's log", e))?
        .iter()
        .map(|file| file.add_action())
        .collect();
    let schema = TableSchema::of_metadata(&metadata)?;
    let (txns, checkpointed) = read_txns(&log_store, version).await?;
    let mut committer = Committer {
        location: location.clone(),
        store: location.store()?,
        settings: settings.clone(),
        version,
        generation,
        positions: Positions::new(),
        other_txns: BTreeMap::new(),
        metadata,
        schema,
        checkpointed: Arc::new(checkpointed.into()),
        planned: Arc::default(),
        removed: HashSet::new(),
        // what lies there from before is worth a look
        grown: settings.small_files_min,
    };
    committer.note_txns(&txns);
    Ok(Some(Opened { committer, files }))
}

/// The positions that the table at `location` has committed; empty where there is no table.
///
/// Errors: the lake's, or a log that cannot be read.
pub async fn positions_of(location: &Location) -> Result<Positions> {
    let opened = open(location, &Settings::default()).await?;
    Ok(opened.map(|o| o.committer.positions).unwrap_or_default())
}

/// Every application id with its version, and the version of the last checkpoint.
async fn read_txns(log_store: &deltalake::logstore::LogStoreRef, version: u64) -> Result<(BTreeMap<String, i64>, u64)> {
    let bad =
        |e: kernel::Error| Error::new(ErrorKind::Unavailable, "reading the table's positions failed").caused_by(e);
    let engine = log_store.engine(None);
    let url = log_store.root_url().clone();
    let task = move || {
        let snapshot = kernel::Snapshot::builder_for(url).at_version(version).build(engine.as_ref()).map_err(bad)?;
        let segment = snapshot.log_segment();
        let checkpointed = segment.checkpoint_version.unwrap_or(0);
        let schema = kernel::actions::get_commit_schema().project(&["txn"]).map_err(bad)?;
        let mut txns = BTreeMap::new();
        // newest first: the first word on an id is the last one said
        for batch in segment.read_actions(engine.as_ref(), schema).map_err(bad)? {
            let batch = batch.map_err(bad)?.actions.try_into_record_batch().map_err(bad)?;
            let Some(txn) = batch.column_by_name("txn").and_then(|c| c.as_struct_opt()) else { continue };
            let (Some(ids), Some(versions)) = (
                txn.column_by_name("appId").and_then(|c| c.as_string_opt::<i32>()),
                txn.column_by_name("version").and_then(|c| c.as_primitive_opt::<Int64Type>()),
            ) else {
                continue;
            };
            for row in 0..txn.len() {
                if txn.is_valid(row) && ids.is_valid(row) && versions.is_valid(row) {
                    txns.entry(ids.value(row).to_string()).or_insert(versions.value(row));
                }
            }
        }
        Ok((txns, checkpointed))
    };
    tokio::task::spawn_blocking(task)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "reading the table's positions failed").caused_by(e))?
}

/// deltalake's table at this location and version, for checkpoints and reads.
pub(super) async fn delta_table(location: &Location, version: u64) -> Result<DeltaTable> {
    let mut table = DeltaTable::new(Arc::clone(&location.log_store()?));
    table.load_version(version).await.map_err(|e| delta_error("reading the table's log", e))?;
    Ok(table)
}
