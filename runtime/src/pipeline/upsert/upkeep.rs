//! Upkeep of a Silver table between two flushes: compaction, checkpoints, vacuum, and the feed's.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Upsert;
use crate::error::{Action, Error, ErrorKind, Result};
use crate::pipeline::progress::Stand;
use crate::pipeline::task::Ending;
use crate::table::Pace;

/// Time between two vacuums of a table that is written to.
const VACUUM_INTERVAL: Duration = Duration::from_secs(3600);

/// Time between two looks at the memory of an index.
const INDEX_INTERVAL: Duration = Duration::from_secs(10);

impl Upsert {
    /// Upkeep that is due, between two flushes. Compaction reads and writes files beside the stream; only its commit
    /// takes a turn here.
    pub(in crate::pipeline) async fn maintain(&mut self, pace: Pace) -> Result<()> {
        match self.upkeep(pace).await {
            // Upkeep can wait: the next flush brings it up again.
            Err(error) if error.action() == Action::Retry => {
                tracing::warn!(table = %self.plan.name, %error, "maintenance put off");
                Ok(())
            }
            other => other,
        }
    }

    async fn upkeep(&mut self, pace: Pace) -> Result<()> {
        if self.compaction.as_ref().is_some_and(JoinHandle::is_finished) {
            self.commit_compaction().await?;
        }
        let Some(table) = &mut self.table else { return Ok(()) };
        // A vacuum must not meet files that a compaction has written and not committed.
        if self.vacuumed.elapsed() >= VACUUM_INTERVAL && self.compaction.is_none() {
            self.vacuumed = Instant::now();
            let vacuuming = table.vacuuming();
            self.vacuum.tend(&self.plan.name, || Some(async { vacuuming.await.map(drop) })).await;
        }
        if self.compaction.is_none()
            && !self.vacuum.is_running()
            && let Some(plan) = table.plan_compaction(pace)
        {
            self.compaction = Some(tokio::spawn(plan.rewrite()));
        }
        self.checkpoint.tend(&self.plan.name, || table.checkpointing()).await;
        table.merge_owners().await?;
        if let Some(feed) = &mut self.feed {
            self.feed_checkpoint.tend(&self.plan.name, || feed.upkeep().checkpointing()).await;
            self.packing.tend(&self.plan.name, feed.upkeep()).await;
        }
        Ok(())
    }

    /// Waits for the compaction that runs, and commits it; false when there was none, or it was overtaken.
    async fn commit_compaction(&mut self) -> Result<bool> {
        let (Some(running), Some(table)) = (self.compaction.take(), &mut self.table) else { return Ok(false) };
        let ended = |e| Error::new(ErrorKind::Internal, "a compaction's task ended").caused_by(e);
        table.commit_compaction(running.await.map_err(ended)??).await
    }

    /// Compacts until nothing is worth it, after the compaction that runs.
    async fn compact_all(&mut self) -> Result<()> {
        self.commit_compaction().await?;
        while let Some(plan) = self.table.as_ref().and_then(|table| table.plan_compaction(Pace::Steady)) {
            self.compaction = Some(tokio::spawn(plan.rewrite()));
            if !self.commit_compaction().await? {
                break;
            }
        }
        Ok(())
    }

    /// How the table stands, as committed.
    pub(in crate::pipeline) fn stand(&mut self) -> Stand {
        let positions = self.stands().clone();
        let Some(table) = &self.table else { return Stand { positions, ..Stand::default() } };
        // Of some tables it takes a look at every owner.
        if self.index_bytes.is_none_or(|(_, at)| at.elapsed() >= INDEX_INTERVAL) {
            self.index_bytes = Some((table.index_size().1, Instant::now()));
        }
        Stand { positions, extent: Some(table.extent()), index_bytes: self.index_bytes.map(|(bytes, _)| bytes) }
    }

    /// The end of a run. A checkpoint is waited for, a vacuum is given up. Where the source holds no more, what is worth
    /// compacting is compacted: runs that are never long would never do it, and after a backlog files are worn. A run that is
    /// broken off gives up the compaction that works, and leaves what it wrote to vacuum. Every row is committed by now, so a
    /// failure stops nothing.
    pub(in crate::pipeline) async fn settle(&mut self, ending: Ending) {
        if ending == Ending::Complete {
            if let Err(error) = self.compact_all().await {
                tracing::warn!(table = %self.plan.name, %error, "compaction put off");
            }
            if let Some(feed) = &mut self.feed {
                self.packing.settle(&self.plan.name, &mut feed.upkeep()).await;
            }
        }
        if let Some(running) = self.compaction.take() {
            running.abort();
        }
        self.checkpoint.settle(&self.plan.name).await;
        self.feed_checkpoint.settle(&self.plan.name).await;
    }
}
