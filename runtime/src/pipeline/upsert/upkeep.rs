//! Upkeep of a Silver table between two flushes: compaction, checkpoints, vacuum, and the feed's.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Upsert;
use crate::error::{Action, Error, ErrorKind, Result};
use crate::pipeline::progress::Stand;

/// Time between two vacuums of a table that is written to.
const VACUUM_INTERVAL: Duration = Duration::from_secs(3600);

/// Time between two looks at the memory of an index.
const INDEX_INTERVAL: Duration = Duration::from_secs(10);

impl Upsert {
    /// Upkeep that is due, between two flushes. Compaction reads and writes files beside the stream; only its commit
    /// takes a turn here.
    pub(in crate::pipeline) async fn maintain(&mut self) -> Result<()> {
        match self.upkeep().await {
            // Upkeep can wait: the next flush brings it up again.
            Err(error) if error.action() == Action::Retry => {
                tracing::warn!(table = %self.plan.name, %error, "maintenance put off");
                Ok(())
            }
            other => other,
        }
    }

    async fn upkeep(&mut self) -> Result<()> {
        let Some(table) = &mut self.table else { return Ok(()) };
        if self.compaction.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(done) = self.compaction.take()
        {
            let rewritten =
                done.await.map_err(|e| Error::new(ErrorKind::Internal, "a compaction's task ended").caused_by(e))??;
            table.commit_compaction(rewritten).await?;
        }
        if self.compaction.is_none()
            && let Some(plan) = table.plan_compaction()
        {
            self.compaction = Some(tokio::spawn(plan.rewrite()));
        }
        table.checkpoint().await?;
        table.merge_owners().await?;
        if let Some(feed) = &mut self.feed {
            feed.checkpoint().await?;
            self.packing.tend(&self.plan.name, feed.upkeep()).await;
        }
        if self.vacuumed.elapsed() >= VACUUM_INTERVAL {
            self.vacuumed = Instant::now();
            table.vacuum().await?;
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

    /// The end of a run: a compaction that still works is given up, what it wrote is left to vacuum.
    pub(in crate::pipeline) async fn settle(&mut self) -> Result<()> {
        if let Some(running) = self.compaction.take() {
            running.abort();
        }
        Ok(())
    }
}
