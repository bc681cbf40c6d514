//! What a table's log says when it is opened.
//!
//! Receives a location. Promises the state of one version: files with their vectors, every application id, protocol
//! and metadata. Uses deltalake's snapshot for the files and its kernel's log segment for the rest. Promises that however
//! many tables are opened at once, all of them get their turn. Never writes.
pub(super) mod commit;
pub(super) mod detour;
pub(super) mod retention;
pub(super) mod schema;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, StructArray};
use arrow::datatypes::Int64Type;
use deltalake::DeltaTable;
use deltalake::kernel::Add;
use kernel::engine::arrow_data::EngineDataArrowExt;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failure::store_error;
use super::{Location, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::model::positions::Positions;
use commit::{Committer, Put, configuration, create};
use detour::Detour;
use schema::{TableSchema, check_protocol};

const ATTEMPTS: u32 = 5;
/// Logs that are read at once in this process, far fewer than a runtime has threads for blocking work (512).
const TURNS_MAX: usize = 32;
const READING: &str = "reading the table's log";

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
        super::log::commit::pause(attempt).await;
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
    if !is_there(location, settings).await? {
        return Ok(None);
    }
    let mut way = Detour::of(location);
    loop {
        match open_at(&way.view()?, location, settings).await {
            Ok(opened) => {
                way.tell();
                return Ok(Some(opened));
            }
            Err(error) => way.after(error).await?,
        }
    }
}

async fn is_there(location: &Location, settings: &Settings) -> Result<bool> {
    let log_store = location.log_store()?;
    match tokio::time::timeout(settings.request_timeout, log_store.is_delta_table_location()).await {
        Ok(found) => found.map_err(|e| store_error("looking for the table", e)),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, "looking for the table took too long")),
    }
}

/// The table at `location`, whose log is read as `view` shows it.
async fn open_at(view: &Location, location: &Location, settings: &Settings) -> Result<Opened> {
    let table = load(view, None).await?;
    let state = table.snapshot().map_err(|e| store_error(READING, e))?;
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
        .map_err(|e| store_error(READING, e))?
        .iter()
        .map(|file| file.add_action())
        .collect();
    let schema = TableSchema::of_metadata(&metadata)?;
    let (txns, checkpointed) = read_txns(view, version).await?;
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
    Ok(Opened { committer, files })
}

/// The positions that the table at `location` has committed; empty where there is no table.
///
/// Errors: the lake's, or a log that cannot be read.
pub async fn positions_of(location: &Location) -> Result<Positions> {
    let opened = open(location, &Settings::default()).await?;
    Ok(opened.map(|o| o.committer.positions).unwrap_or_default())
}

/// Every application id with its version, and the version of the last checkpoint.
async fn read_txns(location: &Location, version: u64) -> Result<(BTreeMap<String, i64>, u64)> {
    replay(location, version, "txn", BTreeMap::new(), |txns, txn| {
        let (Some(ids), Some(versions)) = (
            txn.column_by_name("appId").and_then(|c| c.as_string_opt::<i32>()),
            txn.column_by_name("version").and_then(|c| c.as_primitive_opt::<Int64Type>()),
        ) else {
            return Ok(());
        };
        for row in 0..txn.len() {
            if txn.is_valid(row) && ids.is_valid(row) && versions.is_valid(row) {
                // newest first: the first word on an id is the last one said
                txns.entry(ids.value(row).to_string()).or_insert(versions.value(row));
            }
        }
        Ok(())
    })
    .await
}

/// Hands the actions called `name` of every version up to `version` to `each`, the newest first; what it gathered, and the
/// version of the last checkpoint (0: none).
pub(super) async fn replay<T: Send + 'static>(
    location: &Location,
    version: u64,
    name: &'static str,
    mut gathered: T,
    each: impl Fn(&mut T, &StructArray) -> Result<()> + Send + 'static,
) -> Result<(T, u64)> {
    let failed = |e: kernel::Error| store_error(READING, e);
    let log_store = location.log_store()?;
    let (engine, url) = (log_store.engine(None), log_store.root_url().clone());
    let task = move || {
        let snapshot = kernel::Snapshot::builder_for(url).at_version(version).build(engine.as_ref()).map_err(failed)?;
        let segment = snapshot.log_segment();
        let first = segment.listed.ascending_commit_files.first().map(|file| file.version);
        if segment.checkpoint_version.is_none() && first != Some(0) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the first versions of the log are missing, and no checkpoint has them",
            ));
        }
        let schema = kernel::actions::get_commit_schema().project(&[name]).map_err(failed)?;
        for batch in segment.read_actions(engine.as_ref(), schema).map_err(failed)? {
            let batch = batch.map_err(failed)?.actions.try_into_record_batch().map_err(failed)?;
            if let Some(actions) = batch.column_by_name(name).and_then(|c| c.as_struct_opt()) {
                each(&mut gathered, actions)?;
            }
        }
        Ok((gathered, segment.checkpoint_version.unwrap_or(0)))
    };
    let _turn = turn().await;
    tokio::task::spawn_blocking(task)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "reading the table's log failed").caused_by(e))?
}

/// deltalake's table at this location and version (`None`: the newest), for checkpoints and reads.
pub(crate) async fn delta_table(location: &Location, version: Option<u64>) -> Result<DeltaTable> {
    let mut way = Detour::of(location);
    loop {
        match load(&way.view()?, version).await {
            Ok(table) => {
                way.tell();
                return Ok(table);
            }
            Err(error) => way.after(error).await?,
        }
    }
}

async fn load(location: &Location, version: Option<u64>) -> Result<DeltaTable> {
    let mut table = DeltaTable::new(location.log_store()?);
    let _turn = turn().await;
    match version {
        Some(version) => table.load_version(version).await,
        None => table.load().await,
    }
    .map_err(|e| store_error(READING, e))?;
    Ok(table)
}

/// Waits for a turn at a work of deltalake's or DataFusion's that blocks threads while it waits for other blocking threads,
/// as everything does that reads a log. Without a bound all threads of the pool wait for one more, for good. Whoever has
/// a turn asks for no other.
pub(crate) async fn turn() -> Option<SemaphorePermit<'static>> {
    static TURNS: Semaphore = Semaphore::const_new(TURNS_MAX);
    TURNS.acquire().await.ok()
}
