//! A keyed table as others read it: its rows at a version, and what each later version did to them.
//!
//! Receives the location of a table that this process or another one writes. Promises that the rows at a version, with
//! the differences after it laid over them one after the other, are the rows at the last one's version, whoever
//! committed: a flush, a DELETE, an OPTIMIZE, an overwrite, a RESTORE. A commit that changes no row costs no read of a file.
//! Needs the log and the files it names, and nothing of the writer. Never writes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::{Add, Remove};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use roaring::RoaringBitmap;

use super::own_key;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::file::{deletion_vector, scan, shown};
use crate::lake::log::commit::{Commit, Committer, configuration};
use crate::lake::log::schema::TableSchema;
use crate::lake::log::{self, Opened};
use crate::lake::{Location, SEQ, Settings};
use crate::model::positions::InputId;

/// Follows a table through its versions.
#[derive(Debug)]
pub struct Follower {
    committer: Committer,
    key: Vec<String>,
    /// files of the version at which it was opened
    files: Vec<Add>,
    /// the newest version when it was opened
    newest: u64,
}

/// What the next version of a table did.
#[derive(Debug)]
pub enum Next {
    /// there is none yet
    Nothing,
    /// these rows came and went
    Difference(Difference),
    /// it is not to be followed from here: its rows are to be read anew, for the reason that is given
    Anew(String),
}

/// The rows that a version took away and those that it brought.
#[derive(Debug, Default)]
pub struct Difference {
    /// keys of the rows that went, in the key's columns; an owner that has other rows now is among [`Self::came`]
    pub went: Vec<RecordBatch>,
    /// the rows that came, in the columns asked for
    pub came: Vec<RecordBatch>,
}

impl Difference {
    /// True where readers see the same rows.
    pub fn is_empty(&self) -> bool {
        self.went.is_empty() && self.came.is_empty()
    }
}

impl Follower {
    /// Opens the table at its newest version; `None` where there is none.
    ///
    /// Errors: `Config` when lode did not make the table, or it asks for features lode does not know.
    pub async fn open(location: &Location, settings: &Settings) -> Result<Option<Self>> {
        let Some(Opened { committer, files }) = log::open(location, settings).await? else { return Ok(None) };
        let key = own_key(&committer)?;
        Ok(Some(Follower { newest: committer.version, committer, key, files }))
    }

    /// Opens the feed of changes at `location` at its newest version, of a table with this key; `None` where there is none.
    /// A change is named by the key and its sequence; rows come, and none goes.
    ///
    /// # Errors
    /// The lake's.
    pub async fn open_feed(location: &Location, key: &[String], settings: &Settings) -> Result<Option<Self>> {
        let Some(Opened { committer, files }) = log::open(location, settings).await? else { return Ok(None) };
        let key = key.iter().cloned().chain([SEQ.to_owned()]).collect();
        Ok(Some(Follower { newest: committer.version, committer, key, files }))
    }

    /// The table as an input of others: a rebuild, or a table made anew in its place, is another one.
    pub fn input(&self) -> InputId {
        let id = self.committer.metadata.get("id").and_then(serde_json::Value::as_str).unwrap_or_default();
        InputId::Table { id: id.into(), generation: self.committer.generation }
    }

    /// The version at which it stands.
    pub fn version(&self) -> u64 {
        self.committer.version
    }

    /// The table's columns without its own ones.
    pub fn schema(&self) -> &SchemaRef {
        &self.committer.schema.data
    }

    /// Names of the owner key's columns; empty: the source has no key.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// The rows of the version at which it was opened, file by file, in `columns`.
    ///
    /// # Errors
    /// The lake's; `Gap` once it has gone on from there.
    pub fn rows(&self, columns: &SchemaRef) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        if self.committer.version != self.newest {
            return Err(Error::new(ErrorKind::Internal, "the rows of a former version are asked for"));
        }
        let (store, columns) = (Arc::clone(&self.committer.store), Arc::clone(columns));
        let files = stream::iter(self.files.clone()).then(move |add| {
            let (store, columns) = (Arc::clone(&store), Arc::clone(&columns));
            async move {
                let hidden = hidden_in(&store, add.deletion_vector.as_ref()).await?;
                visible(&store, &add, &columns, hidden).await
            }
        });
        Ok(files.try_flatten().boxed())
    }

    /// Goes back to `version`, from which [`Self::next`] is to go on; false where the log does not reach back there.
    ///
    /// # Errors
    /// The lake's.
    pub async fn go_back(&mut self, version: u64) -> Result<bool> {
        if version > self.newest || (version < self.newest && self.committer.read(version + 1).await?.is_none()) {
            return Ok(false);
        }
        self.committer.version = version;
        Ok(true)
    }

    /// What the next version did, with the rows that came in `columns`; stands at that version afterwards.
    ///
    /// # Errors
    /// The lake's. It stands where it stood, and may be asked again.
    pub async fn next(&mut self, columns: &SchemaRef) -> Result<Next> {
        let version = self.committer.version + 1;
        let Some(mut commit) = self.committer.read(version).await? else {
            if version <= self.newest {
                return Ok(Next::Anew(format!("version `{version}` of its log is gone")));
            }
            return Ok(Next::Nothing);
        };
        let before = self.input();
        if let Some(metadata) = commit.metadata.take() {
            let columns = Arc::clone(&self.committer.schema.all);
            self.take_metadata(metadata)?;
            if self.input() != before {
                return Ok(Next::Anew("it was made anew".to_owned()));
            }
            if columns != self.committer.schema.all {
                return Ok(Next::Anew("its columns have changed".to_owned()));
            }
        }
        let difference = match commit.changes_rows() {
            true => self.difference(&commit, columns).await,
            false => Ok(Difference::default()),
        };
        match difference {
            Ok(difference) => {
                self.committer.version = version;
                self.newest = self.newest.max(version);
                Ok(Next::Difference(difference))
            }
            // a vacuum took what the commit took away
            Err(error) if error.action() == crate::error::Action::Stop => Ok(Next::Anew(error.to_string())),
            Err(error) => Err(error),
        }
    }

    async fn difference(&self, commit: &Commit, columns: &SchemaRef) -> Result<Difference> {
        let store = &self.committer.store;
        let mut removed: HashMap<&str, &Remove> =
            commit.removes.iter().filter(|remove| remove.data_change).map(|r| (r.path.as_str(), r)).collect();
        let key = self.key_columns()?;
        let mut difference = Difference::default();
        for add in commit.adds.iter().filter(|add| add.data_change) {
            let hidden = hidden_in(store, add.deletion_vector.as_ref()).await?;
            let Some(remove) = removed.remove(add.path.as_str()) else {
                difference.came.extend(visible(store, add, columns, hidden).await?.try_collect::<Vec<_>>().await?);
                continue;
            };
            // the same file with another vector
            let were = hidden_in(store, remove.deletion_vector.as_ref()).await?;
            difference.went.extend(only(store, add, &key, &hidden - &were).await?);
            difference.came.extend(only(store, add, columns, &were - &hidden).await?);
        }
        for remove in removed.into_values() {
            let hidden = hidden_in(store, remove.deletion_vector.as_ref()).await?;
            let rows = visible(store, &as_added(remove), &key, hidden).await?;
            difference.went.extend(rows.try_collect::<Vec<_>>().await?);
        }
        Ok(difference)
    }

    /// Goes on to the newest version without reading a row; true where rows may have changed on the way.
    ///
    /// # Errors
    /// The lake's. It stands where it came to, and may be asked again.
    pub async fn pass(&mut self) -> Result<bool> {
        let mut has_changed = false;
        loop {
            let version = self.committer.version + 1;
            match self.committer.read(version).await? {
                Some(mut commit) => {
                    has_changed |= commit.changes_rows();
                    if let Some(metadata) = commit.metadata.take() {
                        self.take_metadata(metadata)?;
                        has_changed = true;
                    }
                    self.committer.version = version;
                    self.newest = self.newest.max(version);
                }
                None if version <= self.newest => {
                    (self.committer.version, has_changed) = (self.newest, true);
                }
                None => return Ok(has_changed),
            }
        }
    }

    /// Other columns, or another generation.
    fn take_metadata(&mut self, metadata: serde_json::Value) -> Result<()> {
        let schema = TableSchema::of_metadata(&metadata)?;
        let generation = configuration(&metadata).get("lode.generation").and_then(|g| g.parse().ok()).unwrap_or(0);
        (self.committer.schema, self.committer.generation) = (schema, generation);
        self.committer.metadata = metadata;
        Ok(())
    }

    fn key_columns(&self) -> Result<SchemaRef> {
        let fields = &self.committer.schema.all;
        let key = self.key.iter().map(|name| fields.field_with_name(name).cloned()).collect::<Result<Vec<_>, _>>();
        let lost = |e| Error::new(ErrorKind::Corrupt, "the table has lost a column of its key").caused_by(e);
        Ok(Arc::new(Schema::new(key.map_err(lost)?)))
    }
}

async fn hidden_in(
    store: &Arc<dyn ObjectStore>,
    vector: Option<&deltalake::kernel::DeletionVectorDescriptor>,
) -> Result<RoaringBitmap> {
    match vector {
        Some(vector) => deletion_vector::read(store, vector).await,
        None => Ok(RoaringBitmap::new()),
    }
}

/// The rows of a file but for those that are hidden.
async fn visible(
    store: &Arc<dyn ObjectStore>,
    add: &Add,
    columns: &SchemaRef,
    hidden: RoaringBitmap,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let mut first = 0u32;
    let rows = scan(store, add, Arc::clone(columns)).await?.map(move |batch| {
        let batch = batch?;
        let from = first;
        first = first.saturating_add(batch.num_rows() as u32);
        shown(&batch, from, &hidden)
    });
    Ok(rows.try_filter_map(|rows| async move { Ok(rows) }).boxed())
}

/// The rows `wanted` of a file.
async fn only(
    store: &Arc<dyn ObjectStore>,
    add: &Add,
    columns: &SchemaRef,
    wanted: RoaringBitmap,
) -> Result<Vec<RecordBatch>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut first = 0u32;
    let mut found = Vec::new();
    let mut batches = scan(store, add, Arc::clone(columns)).await?;
    while let Some(batch) = batches.try_next().await? {
        let rows = first..first.saturating_add(batch.num_rows() as u32);
        first = rows.end;
        if wanted.range_cardinality(rows.clone()) > 0 {
            let mut hidden = RoaringBitmap::new();
            hidden.insert_range(rows.clone());
            hidden -= &wanted;
            found.extend(shown(&batch, rows.start, &hidden)?);
        }
    }
    Ok(found)
}

/// What a removed file was, to read it once more.
fn as_added(remove: &Remove) -> Add {
    Add {
        path: remove.path.clone(),
        partition_values: remove.partition_values.clone().unwrap_or_default(),
        size: remove.size.unwrap_or(0),
        modification_time: 0,
        data_change: remove.data_change,
        stats: None,
        tags: None,
        deletion_vector: remove.deletion_vector.clone(),
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}
