//! The feed of a keyed table: every change that the table took in, once, for readers downstream and for history.
//!
//! Receives the changes of a flush and the rows they became. Promises that the feed holds each change exactly once,
//! whatever is delivered again, and that folding it gives the table. Never hides or changes a row.
//!
//! # Form
//!
//! A Delta table to which rows are only added, without partitions and without deletion vectors. Columns:
//!
//! | column | holds |
//! |---|---|
//! | `_change` | `insert`, `update`, `delete`, `truncate`, or `snapshot`: a row as it stood, read by the connector's snapshot or found in the table when its feed began |
//! | `_seq` | the change's [`Sequence`]; the key and `_seq` name a change |
//! | `_source_ts` | the source's time |
//! | `_partition`, `_offset` | the record in Bronze; null in rows found in the table |
//! | the table's columns, all nullable | of a delete only those of the key, of a truncate none |
//!
//! A change from which the transform makes no row is a `delete`: the key has no row after it. One from which it makes
//! several has several rows of one `_seq`, always in one commit. One that it rejects is missing, and a dead letter
//! says so.
//!
//! **To fold it:** of each key take the rows with the greatest `_seq`; drop deletes, and what is older than the
//! greatest `_seq` of a truncate. A late change, older than what the feed has of its key, is a row like any other:
//! it changes no fold, but it changes history, so whoever keeps history folds that key again.
//!
//! # Why each change is there once
//!
//! The feed has no Kafka positions. Its files are written before the table's commit, and the table's commit names them
//! (`commitInfo.lode.feed`, add actions); only afterwards are they added to the feed, in a commit whose `txn`
//! `lode/feed/<id of the table>/g<generation>` says up to which version of the table the feed has gone. So the table's
//! log alone decides what a change is; a process that ends between the two commits leaves what
//! [`ChangesTable::follow`] completes at the next start, and a version that was added is never added again. A table
//! that was rebuilt, or committed to while `changes` was off, has left its feed behind: that is an error.
//!
//! A change is new when it is newer than what the table's index knows of its key. Any other is either late or there
//! already, and the feed itself is asked: files whose `_seq` bounds leave it out are not read. The answer holds at
//! commit, because a flush with a feed is made again when another one came first. As for the table itself, a deleted
//! key is known for [`super::Settings::owners_window`].
//!
//! A feed that is begun on a table with rows begins with these rows, in the commit that makes it; `lode.since` of its
//! configuration is the newest sequence known then, and changes up to it that do nothing to the table are left out.
mod rows;

pub use rows::{CHANGE, FeedSelection, NewestRows};

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use deltalake::kernel::Add;
use futures::TryStreamExt;
use hashbrown::HashSet;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::file::shown;
use super::file::upload::Upload;
use super::file::{Codec, DataFile, repeat, scan};
use super::freshness::Freshness;
use super::keyed::evolve::{Evolution, changed, due_fills, with_columns};
use super::keyed::key::{Hasher, Owner};
use super::keyed::reader::OwnerReader;
use super::keyed::replace::Committed;
use super::keyed::select::{At, Chosen, fresh, gather, key_columns, newest_floor, rows_of};
use super::keyed::{KeyedTable, Owners};
use super::log::commit::{Attempts, Committer, Put, add_action, configuration, create, now_ms, pause};
use super::log::retention;
use super::log::schema::{SEQ_TYPE, TableSchema, batch_of, utc};
use super::upkeep::append_only::AppendOnly;
use super::upkeep::vacuum::Vacuumed;
use super::{Location, SEQ, SOURCE_TS, Settings, log};
use crate::error::{Error, ErrorKind, Result};
use crate::model::change::{Changes, Floor, Op};
use crate::model::positions::Origin;
use crate::model::sequence::Sequence;
use rows::{OFFSET, PARTITION, SNAPSHOT};

/// The feed's own columns; they come first, where statistics are kept.
const OWN: &[&str] = &[CHANGE, SEQ, SOURCE_TS, PARTITION, OFFSET];

/// Versions of the table without a change that the feed passes before it notes how far it has gone.
const LAG_MAX: u64 = 50;
const ATTEMPTS: u32 = 5;
const ROUNDS_MAX: u32 = 8;

/// What names a change.
type Name = (Owner, Sequence);

/// The feed of one keyed table.
#[derive(Debug)]
pub struct ChangesTable {
    committer: Committer,
    key: Vec<String>,
    hasher: Hasher,
    /// application id of the table's version
    app_id: String,
    /// the owner that a row without any key has: a truncate's
    nobody: Owner,
    since: Sequence,
    /// version of the table up to which its log has been read
    seen: u64,
}

impl ChangesTable {
    /// Fails with `Config` where a table of the columns `fields` and the key `key` cannot have a feed.
    pub fn check(fields: &SchemaRef, key: &[String]) -> Result<()> {
        if key.is_empty() {
            return Err(Error::new(ErrorKind::Config, "`changes` needs a source table with a primary key")
                .hint("give the source table a primary key, or leave `changes` out"));
        }
        schema_of(fields).map(|_| ())
    }

    /// True when there is a Delta table at `location`.
    pub async fn lies_at(location: &Location, settings: &Settings) -> Result<bool> {
        log::open(location, settings).await.map(|opened| opened.is_some())
    }

    /// Opens the feed of `table` at `location`, or makes it of the rows that the table has; then completes it up to
    /// the table's version.
    ///
    /// Errors: `Config` when the table has no key, or columns with names of the feed's own, or when another table's
    /// feed lies there.
    pub async fn open_or_create(location: Location, name: &str, table: &KeyedTable) -> Result<Self> {
        Self::check(table.schema(), &table.key)?;
        if table.freshness != Freshness::Newer {
            return Err(Error::new(ErrorKind::Config, "a table that replaces rows when they differ has no feed"));
        }
        let settings = &table.committer.settings;
        for attempt in 0..ATTEMPTS {
            pause(attempt).await;
            if let Some(opened) = log::open(&location, settings).await? {
                let mut feed = Self::of(opened, table)?.ok_or_else(|| {
                    Error::new(ErrorKind::Config, format!("the Delta table at `{}` is no feed", location.url()))
                        .hint("move it away, or give its table another name")
                })?;
                if !retention::raise(&mut feed.committer).await? {
                    continue;
                }
                feed.follow(table).await?;
                return Ok(feed);
            }
            let actions = beginning(&location, name, table).await?;
            // whoever makes the feed first, the next round reads what stands there
            let (Put::Written | Put::Taken(_)) = create(&location.store()?, settings, &actions).await?;
        }
        Err(Error::new(ErrorKind::Unavailable, format!("feed `{name}` can be neither opened nor made")))
    }

    /// Opens the feed of `table` at `location` and completes it; `None` where there is no feed.
    ///
    /// Errors: `Config` when it is another table's feed.
    pub async fn open(location: &Location, table: &KeyedTable) -> Result<Option<Self>> {
        let Some(opened) = log::open(location, &table.committer.settings).await? else { return Ok(None) };
        let Some(mut feed) = Self::of(opened, table)? else { return Ok(None) };
        feed.follow(table).await?;
        Ok(Some(feed))
    }

    fn of(opened: log::Opened, table: &KeyedTable) -> Result<Option<Self>> {
        let mut committer = opened.committer;
        let settled = configuration(&committer.metadata);
        let Some(source) = settled.get("lode.feed_of") else { return Ok(None) };
        if *source != source_of(table) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the feed at `{}` is of a table that is no more", committer.location.url()),
            )
            .hint("move it away: a new feed begins with the rows that its table has"));
        }
        let corrupt = |what: &str| Error::new(ErrorKind::Corrupt, format!("the feed's {what} cannot be read"));
        let since = settled.get("lode.since").and_then(|s| s.parse().ok()).ok_or_else(|| corrupt("`lode.since`"))?;
        let app_id = app_id(source);
        let seen = committer.other_txns.get(&app_id).and_then(|v| u64::try_from(*v).ok());
        let seen = seen.ok_or_else(|| corrupt("`txn`"))?;
        committer.schema = committer.schema.with_own(OWN);
        let nulls: Vec<ArrayRef> = table.key.iter().map(|_| new_null_array(&DataType::Utf8, 1)).collect();
        let nobody = table.hasher.owners(&nulls)?.first().copied().unwrap_or(0);
        let (key, hasher) = (table.key.clone(), table.hasher);
        Ok(Some(ChangesTable { committer, key, hasher, app_id, nobody, since: Sequence(since), seen }))
    }

    /// Version of the Delta table as last seen.
    pub fn version(&self) -> u64 {
        self.committer.version
    }

    /// Version of the table up to which the feed's last commit says it has gone.
    fn stored(&self) -> u64 {
        self.committer.other_txns.get(&self.app_id).and_then(|v| u64::try_from(*v).ok()).unwrap_or(0)
    }

    /// Adds what the commits of `table` name and the feed lacks, up to the table's version.
    ///
    /// Errors: the lake's; calling again is right. `Gap` when a commit of the table is gone, or was made with
    /// `changes` turned off.
    pub async fn follow(&mut self, table: &KeyedTable) -> Result<()> {
        self.take_in(table, None).await
    }

    /// The same after a commit of our own, which is not read again.
    pub async fn follow_commit(&mut self, table: &KeyedTable, committed: &Committed) -> Result<()> {
        self.take_in(table, committed.feed.as_ref().map(|files| (committed.version, files))).await
    }

    async fn take_in(&mut self, table: &KeyedTable, own: Option<(u64, &Vec<Add>)>) -> Result<()> {
        let mut due: Vec<(u64, Vec<Add>)> = Vec::new();
        let mut to = self.seen;
        while to < table.version() {
            if let Some((version, files)) = own
                && version == to + 1
            {
                to = version;
                due.extend((!files.is_empty()).then(|| (to, files.clone())));
                continue;
            }
            let gone = || gap(format!("version `{}` of the table is gone, and its feed lacks it", to + 1));
            let commit = table.committer.read(to + 1).await?.ok_or_else(gone)?;
            to += 1;
            let generation = table.committer.generation;
            match commit.feed {
                Some(files) if files.is_empty() => {}
                Some(files) => due.push((to, files)),
                None if commit.moves(generation) => {
                    return Err(gap(format!("version `{to}` of the table was committed without its feed")));
                }
                // what others commit is no change of the source
                None => {}
            }
        }
        if due.is_empty() && to.saturating_sub(self.stored()) < LAG_MAX {
            self.seen = to;
            return Ok(());
        }
        crate::failpoint::pass("changes.before_commit");
        let mut attempts = Attempts::of("WRITE", Map::new());
        loop {
            let stored = self.stored();
            if stored >= to {
                self.seen = to;
                return Ok(());
            }
            let mut actions = vec![json!({"txn": {"appId": self.app_id, "version": to, "lastUpdated": now_ms()}})];
            for (_, files) in due.iter().filter(|(version, _)| *version > stored) {
                for add in files {
                    actions.push(add_action(add)?);
                }
            }
            match attempts.put(&self.committer, &actions).await? {
                Put::Written => {
                    crate::failpoint::pass("changes.after_commit");
                    self.committer.other_txns.insert(self.app_id.clone(), i64::try_from(to).unwrap_or(i64::MAX));
                    self.committer.advance();
                    self.committer.grown += actions.len() - 1;
                    self.seen = to;
                    return Ok(());
                }
                Put::Taken(other) => self.committer.follow(*other)?,
            }
        }
    }

    /// Brings the feed to the columns `fields` of its table, as [`KeyedTable::evolve`] does the table.
    ///
    /// Errors: `Config` when a name clashes with one of the feed's own.
    pub async fn evolve(&mut self, fields: &SchemaRef, fills: &HashMap<String, ArrayRef>) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            let before = self.committer.schema.clone();
            let (schema, wider, added) = changed(&before, fields)?;
            if wider.is_empty() && added.is_empty() && schema.all.fields() == before.all.fields() {
                return Ok(());
            }
            let due = due_fills(&schema, &added, fills)?;
            let mut first = vec![json!({"metaData": with_columns(self.committer.metadata.clone(), &schema)?})];
            if schema.has_ntz() && !before.has_ntz() {
                first.insert(0, json!({"protocol": schema.protocol(false)}));
            }
            let mut evolution = Evolution { data_change: !due.is_empty(), fills: due, renaming: None };
            if wider.is_empty() && evolution.fills.is_empty() {
                evolution.data_change = false;
                if self.commit_columns(&first).await? {
                    self.take_columns(schema, &first);
                    return Ok(());
                }
                continue;
            }
            let Some(packed) = self.committer.rewrite_all(&schema, evolution).await? else { continue };
            if self.committer.commit_packed(&packed, "CHANGE COLUMN", &first).await? {
                self.take_columns(schema, &first);
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Conflict, "other writers change the feed faster than its columns can be changed"))
    }

    fn take_columns(&mut self, schema: TableSchema, first: &[Value]) {
        if let Some(metadata) = first.iter().find_map(|action| action.get("metaData")) {
            self.committer.metadata = metadata.clone();
        }
        self.committer.schema = schema;
    }

    /// Commits columns that touch no file; false when somebody else came first.
    async fn commit_columns(&mut self, actions: &[Value]) -> Result<bool> {
        match Attempts::of("ADD COLUMNS", Map::new()).put(&self.committer, actions).await? {
            Put::Written => {
                self.committer.advance();
                Ok(true)
            }
            Put::Taken(other) => self.committer.follow(*other).map(|()| false),
        }
    }

    /// What of `changes` and `floors` the feed lacks; `table` stands as it was when they were read.
    pub async fn select(&mut self, table: &KeyedTable, changes: &[Changes], floors: &[Floor]) -> Result<FeedSelection> {
        self.follow(table).await?;
        let Owners::Keyed(index) = &table.owners else {
            return Err(Error::new(ErrorKind::Internal, "a table without a key has no feed"));
        };
        let positions = table.positions();
        let mut seen: HashSet<Name> = HashSet::new();
        let mut doubtful: HashSet<Name> = HashSet::new();
        let mut picked: Vec<(Name, Op, At)> = Vec::new();
        let owners = |change: &Changes| self.hasher.owners(&key_columns(change)?);
        fresh(changes, positions, Sequence::MIN, owners, |at, owner, op, seq| {
            if !seen.insert((owner, seq)) {
                return;
            }
            if seq < table.floor || index.sequence(owner).is_some_and(|known| seq <= known) {
                if seq <= self.since {
                    return;
                }
                doubtful.insert((owner, seq));
            }
            picked.push(((owner, seq), op, at));
        })?;
        let mut truncates: Vec<(Sequence, Origin)> = Vec::new();
        for floor in floors {
            let name = (self.nobody, floor.sequence);
            if positions.hold(&floor.origin) || !seen.insert(name) {
                continue;
            }
            // a truncate that comes late takes rows away all the same, those that the feed began with among them
            if floor.sequence <= table.floor {
                if floor.sequence <= self.since {
                    continue;
                }
                doubtful.insert(name);
            }
            truncates.push((floor.sequence, floor.origin.clone()));
        }
        let held = if doubtful.is_empty() { HashSet::new() } else { self.held(&doubtful).await? };
        truncates.retain(|(seq, _)| !held.contains(&(self.nobody, *seq)));
        let mut chosen = Chosen::default();
        for (name, op, at) in picked.into_iter().filter(|(name, _, _)| !held.contains(name)) {
            let to = if op == Op::Delete { &mut chosen.gone } else { &mut chosen.upserts };
            to.push((name.0, at));
        }
        let gone: Vec<(Owner, At)> = chosen.gone.clone();
        let all = gather(changes, chosen, newest_floor(floors, positions, table.floor), positions.clone())?;
        let (mut gone_key, mut gone_ts) = (Vec::new(), Vec::with_capacity(gone.len()));
        if let Some(schema) = all.schema() {
            let rows = rows_of(changes, schema, &gone)?;
            gone_key = schema.key.iter().filter_map(|at| rows.columns().get(*at).cloned()).collect();
            let ts = |(batch, row): At| Some(*changes.get(batch)?.source_ts_ms.get(row)?);
            gone_ts.extend(gone.iter().map(|(_, at)| ts(*at).unwrap_or(0)));
        }
        Ok(FeedSelection { all, gone_key, gone_ts, truncates })
    }

    /// Those of `asked` that the feed holds.
    async fn held(&self, asked: &HashSet<Name>) -> Result<HashSet<Name>> {
        let (low, high) = asked
            .iter()
            .fold((u128::MAX, 0), |(low, high), (_, seq)| (std::cmp::min(low, seq.0), std::cmp::max(high, seq.0)));
        let mut held = HashSet::new();
        let Some(opened) = log::open(&self.committer.location, &self.committer.settings).await? else {
            return Ok(held);
        };
        let store = &self.committer.store;
        let reader = OwnerReader::new(store.clone(), self.committer.schema.clone(), self.key.clone(), self.hasher);
        for add in opened.files {
            if bounds(&add).is_some_and(|(least, greatest)| greatest < low || high < least) {
                continue;
            }
            let (rows, _) = reader.rows(&add, |_| true).await?;
            held.extend(rows.into_iter().map(|(_, owner, seq)| (owner, seq)).filter(|name| asked.contains(name)));
        }
        Ok(held)
    }

    /// Writes the files of `news`, the changes that the feed lacks; what the table's commit has to name as `feed`. `output` and
    /// the rest are the transform's answer to [`FeedSelection::all`], as [`KeyedTable::replace`] takes it.
    pub async fn write(
        &self,
        news: &FeedSelection,
        output: &RecordBatch,
        source_rows: Option<&[u32]>,
        rejected: &[u32],
    ) -> Result<Value> {
        let rows = news.rows(&self.committer.schema, &self.key, output, source_rows, rejected)?;
        let mut adds = Vec::new();
        if rows.num_rows() > 0 {
            let mut file = DataFile::new(&self.committer.schema, Codec::Fast)?;
            file.push(&rows)?;
            let add = file.write(&self.committer.store, HashMap::new(), true).await?;
            adds.extend(add_action(&add)?.get("add").cloned());
        }
        crate::failpoint::pass("changes.after_data_file");
        Ok(Value::from(adds))
    }

    /// The feed as its upkeep sees it.
    pub fn append_only(&mut self) -> AppendOnly<'_> {
        AppendOnly(&mut self.committer)
    }

    /// One round of compaction, checkpoint and vacuum, in turn; for callers without a background task.
    pub async fn maintain(&mut self) -> Result<Vacuumed> {
        self.committer.keep_house().await
    }
}

fn gap(message: String) -> Error {
    Error::new(ErrorKind::Gap, message).hint("move the feed away: a new one begins with the rows that its table has")
}

/// What a feed is of: a table made anew is another.
fn source_of(table: &KeyedTable) -> String {
    format!("{}/g{}", table.id(), table.generation())
}

fn app_id(source: &str) -> String {
    format!("lode/feed/{source}")
}

/// The feed's columns for a table with the columns `fields`.
fn schema_of(fields: &SchemaRef) -> Result<TableSchema> {
    let own = [
        Field::new(CHANGE, DataType::Utf8, true),
        Field::new(SEQ, SEQ_TYPE, true),
        Field::new(SOURCE_TS, utc(), true),
        Field::new(PARTITION, DataType::Int32, true),
        Field::new(OFFSET, DataType::Int64, true),
    ];
    let mut all: Vec<FieldRef> = own.into_iter().map(Arc::new).collect();
    for field in fields.fields() {
        if OWN.iter().any(|own| own.eq_ignore_ascii_case(field.name())) {
            return Err(Error::new(
                ErrorKind::Misfit,
                format!("column `{}` of the table is one of its feed's own", field.name()),
            )
            .hint("let a transform rename the column, or leave `changes` out"));
        }
        all.push(Arc::new(field.as_ref().clone().with_nullable(true)));
    }
    Ok(TableSchema::new(Arc::new(Schema::new(all)), Vec::new())?.with_own(OWN))
}

/// The actions that make the feed: its columns, the rows of the table, and the table's version.
async fn beginning(location: &Location, name: &str, table: &KeyedTable) -> Result<Vec<Value>> {
    let schema = schema_of(table.schema())?;
    let source = source_of(table);
    let since = match &table.owners {
        Owners::Keyed(index) => index.newest().max(table.floor),
        Owners::Multiset(_) => table.floor,
    };
    let configuration = json!({
        "lode.generation": "0",
        "lode.table": name,
        "lode.feed_of": source,
        "lode.since": since.0.to_string(),
    });
    let version = table.version();
    let mut actions = vec![
        json!({"protocol": schema.protocol(false)}),
        json!({"metaData": schema.metadata(name, retention::configure(configuration, &table.committer.settings))?}),
        json!({"txn": {"appId": app_id(&source), "version": version, "lastUpdated": now_ms()}}),
    ];
    let store = location.store()?;
    let mut open: Option<Upload> = None;
    let new = || Upload::new(&store, &schema, Codec::Small, HashMap::new());
    for (_, file) in table.files.iter() {
        let mut batches = scan(&table.committer.store, &file.add, table.committer.schema.all.clone()).await?;
        let mut row = 0u32;
        while let Some(batch) = batches.try_next().await? {
            let first = row;
            row = row.saturating_add(batch.num_rows() as u32);
            let Some(rows) = shown(&batch, first, &file.hidden)? else { continue };
            let mut target = match open.take() {
                Some(file) if file.bytes() >= table.committer.settings.target_file_bytes => {
                    actions.push(add_action(&file.write(true).await?)?);
                    new()?
                }
                Some(file) => file,
                None => new()?,
            };
            target.push(&as_found(&rows, &schema)?).await?;
            open = Some(target);
        }
    }
    if let Some(file) = open {
        actions.push(add_action(&file.write(true).await?)?);
    }
    Ok(actions)
}

/// Rows of the table as rows of its feed.
fn as_found(rows: &RecordBatch, schema: &TableSchema) -> Result<RecordBatch> {
    let word: ArrayRef = Arc::new(StringArray::from(vec![SNAPSHOT]));
    let columns = schema
        .all
        .fields()
        .iter()
        .map(|field| match (field.name().as_str(), rows.column_by_name(field.name())) {
            (CHANGE, _) => repeat(&word, rows.num_rows()),
            (PARTITION | OFFSET, _) | (_, None) => Ok(new_null_array(field.data_type(), rows.num_rows())),
            (_, Some(column)) => Ok(column.clone()),
        })
        .collect::<Result<Vec<_>>>()?;
    batch_of(schema.all.clone(), columns, rows.num_rows())
}

/// Least and greatest `_seq` in a file, where its statistics say them.
fn bounds(add: &Add) -> Option<(u128, u128)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Bounds<'a> {
        #[serde(borrow)]
        min_values: HashMap<&'a str, &'a RawValue>,
        #[serde(borrow)]
        max_values: HashMap<&'a str, &'a RawValue>,
    }
    let bounds: Bounds<'_> = serde_json::from_str(add.stats.as_deref()?).ok()?;
    let number = |of: &HashMap<&str, &RawValue>| of.get(SEQ)?.get().parse().ok();
    Some((number(&bounds.min_values)?, number(&bounds.max_values)?))
}
