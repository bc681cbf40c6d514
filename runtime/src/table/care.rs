//! Housekeeping of Bronze: what compaction and vacuum are to keyed tables, without an index to keep.
//!
//! Receives nothing but the table. Promises the same rows before and after, and that an append is never in the way: the
//! files are found by reading the log, rewriting needs no table, and the commit gives up when a chosen file was
//! touched meanwhile. Never changes a position.

use serde_json::Map;

use super::append::BronzeTable;
use super::commit::{Put, REPLAYS_MAX};
use super::compact::{Compaction, Rewritten, choose};
use super::live::{LiveFile, LiveFiles};
use super::vacuum::{Vacuumed, checkpoint, vacuum};
use super::{log, stats, vector};
use crate::error::{Error, ErrorKind, Result};

impl BronzeTable {
    /// Files worth rewriting now; `None` when there are none. Reads the log.
    pub async fn plan_compaction(&self) -> Result<Option<(Compaction, BronzeFiles)>> {
        let settings = &self.committer.settings;
        let Some(opened) = log::open(&self.committer.location, settings).await? else { return Ok(None) };
        let mut files = LiveFiles::default();
        for add in opened.files {
            let hidden = match &add.deletion_vector {
                Some(described) => vector::read(&self.committer.store, described).await?,
                None => roaring::RoaringBitmap::new(),
            };
            // a file of unknown length is left alone
            let Some(rows) = add.stats.as_deref().and_then(stats::records) else { continue };
            let Ok(rows) = u32::try_from(rows) else { continue };
            files.insert(LiveFile { add, rows, hidden })?;
        }
        let Some(mut chosen) = choose(&files, settings) else { return Ok(None) };
        // in the order they were written, so that offsets stay in order within a file
        chosen.sort_by_key(|id| files.get(*id).map_or(0, |file| file.add.modification_time));
        let inputs = chosen.into_iter().filter_map(|id| Some((id, files.get(id)?.clone()))).collect();
        let compaction = Compaction {
            store: self.committer.store.clone(),
            schema: opened.committer.schema,
            reader: None,
            target_bytes: settings.target_file_bytes,
            inputs,
            evolution: None,
        };
        Ok(Some((compaction, BronzeFiles(files))))
    }

    /// Commits what [`Compaction::rewrite`] wrote; false when it was overtaken and dropped.
    pub async fn commit_compaction(&mut self, rewritten: Rewritten, files: BronzeFiles) -> Result<bool> {
        crate::failpoint::pass("compact.before_commit");
        for _ in 0..REPLAYS_MAX {
            let inline = self.committer.settings.inline_vector_bytes;
            let built = rewritten.actions(&files.0, &self.committer.store, inline).await?;
            let Some((actions, _)) = built else { return Ok(false) };
            let batch = uuid::Uuid::new_v4().to_string();
            match self.committer.put("OPTIMIZE", &batch, Map::new(), &actions).await? {
                Put::Written => {
                    self.committer.advance();
                    return Ok(true);
                }
                Put::Taken(other) => {
                    let touched = other.removes.iter().any(|remove| rewritten.has_input(&remove.path));
                    self.follow(*other)?;
                    if touched {
                        return Ok(false);
                    }
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "other writers commit to the table faster than lode can follow"))
    }

    /// Writes a checkpoint when one is due; true when it wrote one.
    pub async fn checkpoint(&mut self) -> Result<bool> {
        if self.committer.since_checkpoint < self.committer.settings.checkpoint_every {
            return Ok(false);
        }
        checkpoint(&self.committer.location, self.committer.version).await?;
        self.committer.since_checkpoint = 0;
        Ok(true)
    }

    /// Deletes the files that no retained version uses.
    pub async fn vacuum(&mut self) -> Result<Vacuumed> {
        vacuum(&self.committer.location, &self.committer.settings).await
    }

    /// One round of compaction, checkpoint and vacuum, in turn; for callers without a background task.
    pub async fn maintain(&mut self) -> Result<Vacuumed> {
        while let Some((compaction, files)) = self.plan_compaction().await? {
            let rewritten = compaction.rewrite().await?;
            if !self.commit_compaction(rewritten, files).await? {
                break;
            }
        }
        self.checkpoint().await?;
        self.vacuum().await
    }
}

/// The files of Bronze as a compaction found them.
#[derive(Debug)]
pub struct BronzeFiles(LiveFiles);
