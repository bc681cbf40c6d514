//! Housekeeping of tables that only grow, Bronze and feeds of changes: what compaction and vacuum are to keyed tables,
//! without an index to keep.
//!
//! Receives nothing but the table. Promises the same rows before and after, and that an append is never in the way: the
//! files are found by reading the log, finding and rewriting need no table, and the commit gives up when a chosen file
//! was touched meanwhile, or when the same table planned another rewrite or was opened anew. Never changes a position.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

use super::Maintained;
use super::compact::{Compaction, Pace, Rewritten, choose};
use super::vacuum::{Vacuumed, checkpoint, expire, vacuum};
use crate::error::Result;
use crate::lake::append::BronzeTable;
use crate::lake::file::live_files::{LiveFile, LiveFiles};
use crate::lake::file::{deletion_vector, stats};
use crate::lake::keyed::evolve::Evolution;
use crate::lake::log::commit::{Attempts, Committer, Put};
use crate::lake::log::schema::TableSchema;
use crate::lake::{Location, Settings, log};

/// Commits between two looks for log entries that are expired: it lists the whole log.
const EXPIRE_EVERY: u64 = 1000;

/// What a compaction of a table that only grows wrote, ready for its commit.
#[derive(Debug)]
pub struct Packed {
    rewritten: Rewritten,
    files: LiveFiles,
    plan: Arc<()>,
}

impl Packed {
    /// Files that were read.
    pub fn files(&self) -> usize {
        self.rewritten.inputs.len()
    }
}

/// The live files of the table at `location`, and its columns.
async fn live_files(location: &Location, settings: &Settings) -> Result<Option<(LiveFiles, TableSchema)>> {
    let Some(opened) = log::open(location, settings).await? else { return Ok(None) };
    let store = location.store()?;
    let mut files = LiveFiles::default();
    for add in opened.files {
        let hidden = match &add.deletion_vector {
            Some(described) => deletion_vector::read(&store, described).await?,
            None => roaring::RoaringBitmap::new(),
        };
        // a file of unknown length is left alone
        let Some(rows) = add.stats.as_deref().and_then(stats::records) else { continue };
        let Ok(rows) = u32::try_from(rows) else { continue };
        files.insert(LiveFile { add, rows, hidden, vector_ms: None })?;
    }
    Ok(Some((files, opened.committer.schema)))
}

/// Rewrites the files of the table at `location` that are worth it; `None` when none are.
async fn pack(location: &Location, settings: &Settings, plan: Arc<()>) -> Result<Option<Packed>> {
    let Some((files, schema)) = live_files(location, settings).await? else { return Ok(None) };
    let Some(chosen) = choose(&files, settings, Pace::Steady) else { return Ok(None) };
    let rewritten = rewrite(location, settings, &files, chosen, schema, None).await?;
    Ok(Some(Packed { rewritten, files, plan }))
}

async fn rewrite(
    location: &Location,
    settings: &Settings,
    files: &LiveFiles,
    mut chosen: Vec<u32>,
    schema: TableSchema,
    evolution: Option<Evolution>,
) -> Result<Rewritten> {
    // in the order they were written, so that offsets stay in order within a file
    chosen.sort_by_key(|id| files.get(*id).map_or(0, |file| file.add.modification_time));
    let inputs = chosen.into_iter().filter_map(|id| Some((id, files.get(id)?.clone()))).collect();
    let compaction = Compaction {
        store: location.store()?,
        schema,
        reader: None,
        target_bytes: settings.target_file_bytes,
        inputs,
        evolution,
    };
    compaction.rewrite().await
}

impl Committer {
    /// Finds and rewrites files that are worth it, `None` when none are; to be awaited beside appends and then committed.
    pub(in crate::lake) fn packing(&mut self) -> impl Future<Output = Result<Option<Packed>>> + Send + use<> {
        let plan = self.plan();
        self.grown = 0;
        let (location, settings) = (self.location.clone(), self.settings.clone());
        async move { pack(&location, &settings, plan).await }
    }

    fn plan(&mut self) -> Arc<()> {
        self.removed.clear();
        self.planned = Arc::default();
        Arc::clone(&self.planned)
    }

    /// Rewrites every file to `schema`.
    pub(in crate::lake) async fn rewrite_all(
        &mut self,
        schema: &TableSchema,
        evolution: Evolution,
    ) -> Result<Option<Packed>> {
        let plan = self.plan();
        let Some((files, _)) = live_files(&self.location, &self.settings).await? else { return Ok(None) };
        let all = files.iter().map(|(id, _)| id).collect();
        let rewritten = rewrite(&self.location, &self.settings, &files, all, schema.clone(), Some(evolution)).await?;
        Ok(Some(Packed { rewritten, files, plan }))
    }

    /// Commits what was rewritten, with `first` before it; false when it was overtaken and dropped.
    pub(in crate::lake) async fn commit_packed(
        &mut self,
        packed: &Packed,
        operation: &str,
        first: &[Value],
    ) -> Result<bool> {
        // Only what others commit is followed: its files may have been taken away by ourselves.
        if !Arc::ptr_eq(&self.planned, &packed.plan) {
            return Ok(false);
        }
        let mut attempts = Attempts::of(operation, Map::new());
        loop {
            if self.removed.iter().any(|path| packed.rewritten.has_input(path)) {
                return Ok(false);
            }
            let Some((actions, _)) = packed.rewritten.actions(&packed.files, self).await? else {
                return Ok(false);
            };
            let actions: Vec<Value> = first.iter().cloned().chain(actions).collect();
            match attempts.put(self, &actions).await? {
                Put::Written => {
                    self.advance();
                    return Ok(true);
                }
                Put::Taken(other) => {
                    // the files were written for the columns of before, or for ours
                    let reshaped = other.metadata.is_some() || (!first.is_empty() && !other.adds.is_empty());
                    self.follow(*other)?;
                    if reshaped {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Writes the checkpoint that is due, `None` when none is; to be awaited beside commits. One that fails stays due.
    pub(in crate::lake) fn checkpointing(&self) -> Option<impl Future<Output = Result<()>> + Send + use<>> {
        let (location, version, checkpointed) = (self.location.clone(), self.version, Arc::clone(&self.checkpointed));
        let last = checkpointed.load(Relaxed);
        let due = version.saturating_sub(last) >= self.settings.checkpoint_every;
        due.then_some(async move {
            checkpoint(&location, version).await?;
            checkpointed.store(version, Relaxed);
            // runs that are never long never vacuum
            if version / EXPIRE_EVERY != last / EXPIRE_EVERY { expire(&location, version).await } else { Ok(()) }
        })
    }

    /// One round of compaction, checkpoint and vacuum, in turn.
    pub(in crate::lake) async fn keep_house(&mut self) -> Result<Vacuumed> {
        while let Some(packed) = self.packing().await? {
            crate::failpoint::pass("compact.before_commit");
            if !self.commit_packed(&packed, "OPTIMIZE", &[]).await? {
                break;
            }
        }
        if let Some(checkpoint) = self.checkpointing() {
            checkpoint.await?;
        }
        vacuum(&self.location, &self.settings).await
    }
}

/// A table that only grows, Bronze or a feed, as its upkeep sees it.
#[derive(Debug)]
pub struct AppendOnly<'a>(pub(in crate::lake) &'a mut Committer);

impl Maintained for AppendOnly<'_> {
    type Compacted = Packed;

    // Bronze gets many files an hour; the next run takes up what this one leaves.
    const COMPACTS_TO_THE_END: bool = false;

    fn compacting(&mut self, _: Pace) -> Option<BoxFuture<'static, Result<Option<Packed>>>> {
        (self.0.grown >= self.0.settings.small_files_min).then(|| self.0.packing().boxed())
    }

    async fn commit_compacted(&mut self, packed: Packed) -> Result<bool> {
        crate::failpoint::pass("compact.before_commit");
        let done = self.0.commit_packed(&packed, "OPTIMIZE", &[]).await?;
        crate::failpoint::pass("compact.after_commit");
        // there may be more of another day or size, or the same again
        self.look_again();
        Ok(done)
    }

    fn checkpointing(&self) -> Option<BoxFuture<'static, Result<()>>> {
        self.0.checkpointing().map(FutureExt::boxed)
    }

    fn vacuuming(&mut self) -> BoxFuture<'static, Result<Vacuumed>> {
        // what other writers added was not counted
        self.look_again();
        let (location, settings) = (self.0.location.clone(), self.0.settings.clone());
        async move { vacuum(&location, &settings).await }.boxed()
    }
}

impl AppendOnly<'_> {
    fn look_again(&mut self) {
        self.0.grown = self.0.grown.max(self.0.settings.small_files_min);
    }
}

impl BronzeTable {
    /// The table as its upkeep sees it.
    pub fn append_only(&mut self) -> AppendOnly<'_> {
        AppendOnly(&mut self.committer)
    }

    /// Deletes the files that no retained version uses.
    pub async fn vacuum(&mut self) -> Result<Vacuumed> {
        vacuum(&self.committer.location, &self.committer.settings).await
    }

    /// One round of compaction, checkpoint and vacuum, in turn; for callers without a background task.
    pub async fn maintain(&mut self) -> Result<Vacuumed> {
        self.committer.keep_house().await
    }
}
