//! The one place that writes to a Delta log.
//!
//! Receives actions built against the version that [`Committer::version`] names. Promises that [`Attempts::put`]
//! answers `Written` only when that version holds these very actions and `Taken` only when it holds others; what
//! happened is read from the log after any error, hang or lost answer. Never rebases: the caller replays the other
//! commit and builds its actions anew.
//!
//! A late put of an attempt that was given up is harmless: it is a put-if-absent of a version that is either still
//! ours to write or taken.
//!
//! Who commits makes the actions and puts them by one [`Attempts`], takes a commit of others in where that was `Taken`,
//! and goes on from the start until it is `Written` or there is nothing left to commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use deltalake::kernel::{Add, Remove};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, PutMode, PutOptions};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::schema::{TableSchema, check_protocol};
use crate::error::pauses::Pauses;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::failure::{store_error, way_out};
use crate::lake::{Location, Outcome, Settings};
use crate::model::positions::{InputId, Positions, Ranges, Standing};

/// The largest commit we are willing to read.
const COMMIT_BYTES_MAX: u64 = 1 << 30;
/// More commits of others than this before one of ours is a table we cannot keep up with.
pub(in crate::lake) const REPLAYS_MAX: u32 = 1000;

/// Pauses between attempts to write or make one version.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(100), longest: Duration::from_millis(6400) };

/// What a version of the log holds, as far as it matters here.
#[derive(Debug, Default)]
pub(in crate::lake) struct Commit {
    pub(in crate::lake) adds: Vec<Add>,
    pub(in crate::lake) removes: Vec<Remove>,
    pub(in crate::lake) txns: BTreeMap<String, i64>,
    pub(in crate::lake) metadata: Option<Value>,
    pub(in crate::lake) protocol: Option<Value>,
    /// `commitInfo.lode.batch`
    pub(in crate::lake) batch: Option<String>,
    /// `commitInfo.lode.feed`: files of the table's feed, see [`crate::lake::feed`]
    pub(in crate::lake) feed: Option<Vec<Add>>,
}

impl Commit {
    /// True when it moves a position of the table's generation.
    pub(in crate::lake) fn moves(&self, generation: u64) -> bool {
        self.txns.keys().any(|id| InputId::of_app_id(generation, id).is_some())
    }

    /// True when readers see other rows after it.
    pub(in crate::lake) fn changes_rows(&self) -> bool {
        self.adds.iter().any(|add| add.data_change) || self.removes.iter().any(|remove| remove.data_change)
    }

    /// Reads the lines of a commit file.
    pub(in crate::lake) fn parse(bytes: &[u8], version: u64) -> Result<Self> {
        let bad = |e: serde_json::Error| {
            Error::new(ErrorKind::Corrupt, format!("version `{version}` of the log is not readable")).caused_by(e)
        };
        let mut commit = Commit::default();
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let action: Map<String, Value> = serde_json::from_slice(line).map_err(bad)?;
            for (name, value) in action {
                match name.as_str() {
                    "add" => commit.adds.push(Add::deserialize(value).map_err(bad)?),
                    "remove" => commit.removes.push(Remove::deserialize(value).map_err(bad)?),
                    "txn" => {
                        if let (Some(id), Some(to)) =
                            (value.get("appId").and_then(Value::as_str), value.get("version").and_then(Value::as_i64))
                        {
                            commit.txns.insert(id.to_string(), to);
                        }
                    }
                    "metaData" => commit.metadata = Some(value),
                    "protocol" => commit.protocol = Some(value),
                    "commitInfo" => {
                        commit.batch = value.pointer("/lode/batch").and_then(Value::as_str).map(ToString::to_string);
                        if let Some(files) = value.pointer("/lode/feed").and_then(Value::as_array) {
                            let adds = files.iter().map(Add::deserialize).collect::<std::result::Result<_, _>>();
                            commit.feed = Some(adds.map_err(bad)?);
                        }
                    }
                    // what else a commit may hold changes neither rows nor positions
                    _ => {}
                }
            }
        }
        Ok(commit)
    }
}

/// What stands in the log for our version.
#[derive(Debug)]
pub(in crate::lake) enum Put {
    /// our actions
    Written,
    /// somebody else's
    Taken(Box<Commit>),
}

/// A table's place in its log, and the only writer to it.
#[derive(Debug)]
pub(in crate::lake) struct Committer {
    pub(in crate::lake) location: Location,
    pub(in crate::lake) store: Arc<dyn ObjectStore>,
    pub(in crate::lake) settings: Settings,
    pub(in crate::lake) version: u64,
    pub(in crate::lake) generation: u64,
    pub(in crate::lake) positions: Positions,
    /// all application ids that are not positions of ours
    pub(in crate::lake) other_txns: BTreeMap<String, i64>,
    pub(in crate::lake) metadata: Value,
    pub(in crate::lake) schema: TableSchema,
    /// version of the newest checkpoint that we know of; one that is written beside the stream says here that it is there
    pub(in crate::lake) checkpointed: Arc<AtomicU64>,
    /// tables that only grow: the newest rewrite that was planned
    pub(in crate::lake) planned: Arc<()>,
    /// tables that only grow: paths that others removed since then
    pub(in crate::lake) removed: HashSet<String>,
    /// tables that only grow: files added since one was last looked through for a compaction
    pub(in crate::lake) grown: usize,
}

impl Committer {
    /// Takes over the positions a commit carries.
    pub(in crate::lake) fn note_txns(&mut self, txns: &BTreeMap<String, i64>) {
        for (id, to) in txns {
            match InputId::of_app_id(self.generation, id) {
                Some(input) => self.positions.insert(input, *to),
                None => {
                    self.other_txns.insert(id.clone(), *to);
                }
            }
        }
    }

    /// The `txn` actions that move the positions to the ends of `ranges`.
    pub(in crate::lake) fn txn_actions(&self, ranges: &Ranges) -> Vec<Value> {
        let now = now_ms();
        ranges
            .iter()
            .map(|(input, range)| {
                json!({"txn": {"appId": input.app_id(self.generation), "version": range.to, "lastUpdated": now}})
            })
            .collect()
    }

    /// Reads version `version` of the log; `None` when there is none yet.
    pub(in crate::lake) async fn read(&self, version: u64) -> Result<Option<Commit>> {
        match self.read_bytes(version).await? {
            Some(bytes) => Commit::parse(&bytes, version).map(Some).map_err(|e| e.hint(way_out(&self.location, None))),
            None => Ok(None),
        }
    }

    async fn read_bytes(&self, version: u64) -> Result<Option<Bytes>> {
        let get = async {
            let found = self.store.get_opts(&log_path(version), GetOptions::default()).await?;
            if found.meta.size > COMMIT_BYTES_MAX {
                return Ok(None);
            }
            found.bytes().await.map(Some)
        };
        match tokio::time::timeout(self.settings.request_timeout, get).await {
            Ok(Ok(Some(bytes))) => Ok(Some(bytes)),
            Ok(Ok(None)) => Err(Error::new(ErrorKind::Corrupt, format!("version `{version}` of the log is too large"))),
            Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Ok(Err(e)) => Err(store_error("reading the log", e)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "reading the log took too long")),
        }
    }

    /// What of `ranges` was not taken in at `seen` and is to be committed; otherwise how the commit ends without a try.
    pub(in crate::lake) fn due<C>(&self, ranges: &Ranges, seen: &Positions) -> std::result::Result<Ranges, Outcome<C>> {
        let due = ranges.still_missing(seen).ok_or(Outcome::Fenced)?;
        if due.is_empty() && !ranges.is_empty() {
            return Err(Outcome::AlreadyCommitted { version: self.version });
        }
        self.ended_by_others(&due).map_or(Ok(due), Err)
    }

    /// How a commit of `due` ends because of what others have committed; `None` while it can still be made.
    pub(in crate::lake) fn ended_by_others<C>(&self, due: &Ranges) -> Option<Outcome<C>> {
        match due.standing(&self.positions) {
            Standing::Ready => None,
            Standing::Past => Some(Outcome::AlreadyCommitted { version: self.version }),
            Standing::Elsewhere => Some(Outcome::Fenced),
        }
    }

    /// Takes over a commit of others: a table that only grows needs no more of it than ids, columns and what was
    /// removed.
    pub(in crate::lake) fn follow(&mut self, commit: Commit) -> Result<()> {
        if let Some(protocol) = &commit.protocol {
            check_protocol(protocol)?;
        }
        if let Some(metadata) = commit.metadata {
            let settled = configuration(&metadata);
            let generation = settled.get("lode.generation").and_then(|g| g.parse().ok()).unwrap_or(0);
            if generation != self.generation || settled.contains_key("delta.setTransactionRetentionDuration") {
                return Err(Error::new(
                    ErrorKind::Fenced,
                    "somebody changed the table's generation or its retention of ids",
                )
                .hint("restart this instance"));
            }
            self.schema = TableSchema::of_metadata(&metadata)?.with_own(self.schema.own());
            self.metadata = metadata;
        }
        self.removed.extend(commit.removes.into_iter().map(|remove| remove.path));
        self.note_txns(&commit.txns);
        self.advance();
        Ok(())
    }

    /// The table moved one version on.
    pub(in crate::lake) fn advance(&mut self) {
        self.version += 1;
    }
}

/// The attempts to make one commit.
#[derive(Debug)]
pub(in crate::lake) struct Attempts<'a> {
    operation: &'a str,
    info: Map<String, Value>,
    left: u32,
}

impl<'a> Attempts<'a> {
    /// None so far; `info` is what the commit says as `commitInfo.lode`.
    pub(in crate::lake) fn of(operation: &'a str, info: Map<String, Value>) -> Self {
        Attempts { operation, info, left: REPLAYS_MAX }
    }

    /// What the commit says as `commitInfo.lode`.
    pub(in crate::lake) fn info(&self) -> &Map<String, Value> {
        &self.info
    }

    /// Writes `actions` as the version after the one that `committer` stands at, with a `commitInfo` before them.
    ///
    /// Errors: when it is not known what the version holds; `Conflict` when others were faster too often.
    pub(in crate::lake) async fn put(&mut self, committer: &Committer, actions: &[Value]) -> Result<Put> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            let name = committer.metadata.get("name").and_then(Value::as_str).unwrap_or_default();
            Error::new(ErrorKind::Conflict, format!("other writers commit to `{name}` faster than lode can follow"))
        })?;
        // unique to these very actions
        let batch = uuid::Uuid::new_v4().to_string();
        self.info.insert("batch".to_string(), Value::from(batch.as_str()));
        let head = json!({"commitInfo": {
            "timestamp": now_ms(),
            "operation": self.operation,
            "operationParameters": {},
            "readVersion": committer.version,
            "isBlindAppend": false,
            "engineInfo": concat!("lodestream/", env!("CARGO_PKG_VERSION")),
            "lode": self.info,
        }});
        let body = encode(&head, actions)?;
        put_body(&committer.store, &committer.settings, committer.version + 1, &batch, body).await
    }
}

/// Makes a table: version 0 with its protocol and metadata. `Taken` when somebody made it first.
pub(in crate::lake) async fn create(
    store: &Arc<dyn ObjectStore>,
    settings: &Settings,
    actions: &[Value],
) -> Result<Put> {
    let batch = uuid::Uuid::new_v4().to_string();
    let head = json!({"commitInfo": {
        "timestamp": now_ms(),
        "operation": "CREATE TABLE",
        "operationParameters": {},
        "engineInfo": concat!("lodestream/", env!("CARGO_PKG_VERSION")),
        "lode": {"batch": batch},
    }});
    put_body(store, settings, 0, &batch, encode(&head, actions)?).await
}

fn encode(head: &Value, actions: &[Value]) -> Result<Bytes> {
    let mut body = Vec::with_capacity(512 * (actions.len() + 1));
    for action in std::iter::once(head).chain(actions) {
        serde_json::to_writer(&mut body, action)
            .map_err(|e| Error::new(ErrorKind::Internal, "a commit cannot be written as JSON").caused_by(e))?;
        body.push(b'\n');
    }
    Ok(body.into())
}

/// The only put into `_delta_log`.
async fn put_body(
    store: &Arc<dyn ObjectStore>,
    settings: &Settings,
    version: u64,
    batch: &str,
    body: Bytes,
) -> Result<Put> {
    let path = log_path(version);
    let mut last = None;
    for attempt in 0..settings.commit_attempts.max(1) {
        pause(attempt).await;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = store.put_opts(&path, body.clone().into(), options);
        match tokio::time::timeout(settings.request_timeout, put).await {
            Ok(Ok(_)) => return Ok(Put::Written),
            Ok(Err(object_store::Error::AlreadyExists { .. })) => {}
            Ok(Err(e)) => last = Some(store_error("writing the log", e)),
            Err(_) => last = Some(Error::new(ErrorKind::Unavailable, "writing the log took too long")),
        }
        let read = async { store.get_opts(&path, GetOptions::default()).await?.bytes().await };
        match tokio::time::timeout(settings.request_timeout, read).await {
            Ok(Ok(found)) => {
                let commit = Commit::parse(&found, version)?;
                if commit.batch.as_deref() == Some(batch) {
                    return Ok(Put::Written);
                }
                return Ok(Put::Taken(Box::new(commit)));
            }
            Ok(Err(object_store::Error::NotFound { .. })) => {}
            Ok(Err(e)) => last = Some(store_error("reading the log back", e)),
            Err(_) => last = Some(Error::new(ErrorKind::Unavailable, "reading the log back took too long")),
        }
        // denied stays denied: more attempts only delay the message
        if last.as_ref().is_some_and(|e| e.kind() == ErrorKind::Denied) {
            break;
        }
    }
    Err(last.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, format!("version `{version}` could not be written"))))
}

/// Waits before attempt number `attempt`, of which the first is 0.
pub(in crate::lake) async fn pause(attempt: u32) {
    tokio::time::sleep(PAUSES.after(attempt)).await;
}

/// Path of a version in the log.
pub(in crate::lake) fn log_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

/// Milliseconds since 1970.
pub(in crate::lake) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// An `add` action without its empty members.
pub(in crate::lake) fn add_action(add: &Add) -> Result<Value> {
    action("add", add)
}

/// A `remove` action without its empty members.
pub(in crate::lake) fn remove_action(remove: &Remove) -> Result<Value> {
    action("remove", remove)
}

fn action<T: serde::Serialize>(name: &str, of: &T) -> Result<Value> {
    let mut value = serde_json::to_value(of)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("action `{name}` cannot be written")).caused_by(e))?;
    if let Some(members) = value.as_object_mut() {
        members.retain(|_, member| !member.is_null());
    }
    Ok(Value::Object(Map::from_iter([(name.to_string(), value)])))
}

/// The `remove` of a file as `add` last stated it, of now.
pub(in crate::lake) fn removal(add: &Add, data_change: bool) -> Remove {
    Remove {
        path: add.path.clone(),
        data_change,
        deletion_timestamp: Some(now_ms()),
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        tags: add.tags.clone(),
        deletion_vector: add.deletion_vector.clone(),
        base_row_id: add.base_row_id,
        default_row_commit_version: add.default_row_commit_version,
    }
}

/// Configuration of a table's metadata as text values.
pub(in crate::lake) fn configuration(metadata: &Value) -> HashMap<String, String> {
    metadata
        .get("configuration")
        .and_then(Value::as_object)
        .map(|members| members.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect())
        .unwrap_or_default()
}
