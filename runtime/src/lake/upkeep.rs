//! What a table offers to whoever keeps it in order beside its commits.
//!
//! Receives a table between two of its commits. Promises that compacting, checkpoints and vacuums are work that needs the
//! table no more once it has begun, so that commits never wait for it; only [`Maintained::commit_compacted`] and
//! [`Maintained::merge_owners`] take a turn among them. Never changes a row or a position.
pub(super) mod compact;
pub(super) mod vacuum;
pub(super) mod append_only;

pub use append_only::{AppendOnly, Packed};
pub use compact::{Compaction, Pace, Rewritten};
pub use vacuum::Vacuumed;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::keyed::KeyedTable;
use crate::error::Result;
use vacuum::vacuum;

/// A table whose upkeep goes on beside its commits.
pub trait Maintained: Send {
    /// what a compaction wrote, ready for its commit
    type Compacted: Send + 'static;

    /// True where a run to its end goes on compacting until nothing is worth it; false where it only waits for the
    /// compaction that works.
    const COMPACTS_TO_THE_END: bool;

    /// Rewrites files, `None` when none are worth it; one at a time.
    fn compacting(&mut self, pace: Pace) -> Option<BoxFuture<'static, Result<Option<Self::Compacted>>>>;

    /// Commits what [`Self::compacting`] wrote; false when it was overtaken and dropped.
    fn commit_compacted(&mut self, compacted: Self::Compacted) -> impl Future<Output = Result<bool>> + Send;

    /// Writes the checkpoint that is due, `None` when none is. One that fails stays due.
    fn checkpointing(&self) -> Option<BoxFuture<'static, Result<()>>>;

    /// Deletes the files that no retained version uses; not beside [`Self::compacting`], whose files no version uses yet,
    /// nor beside a change of columns that takes longer than the retention time.
    fn vacuuming(&mut self) -> BoxFuture<'static, Result<Vacuumed>>;

    /// Merges the files of owners without rows, where the table has such files and there are many.
    fn merge_owners(&mut self) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

impl Maintained for KeyedTable {
    type Compacted = Rewritten;

    // After a backlog files are worn, and runs that are never long would never compact.
    const COMPACTS_TO_THE_END: bool = true;

    fn compacting(&mut self, pace: Pace) -> Option<BoxFuture<'static, Result<Option<Rewritten>>>> {
        let plan = self.plan_compaction(pace)?;
        Some(async move { plan.rewrite().await.map(Some) }.boxed())
    }

    async fn commit_compacted(&mut self, rewritten: Rewritten) -> Result<bool> {
        self.commit_compaction(rewritten).await
    }

    fn checkpointing(&self) -> Option<BoxFuture<'static, Result<()>>> {
        self.committer.checkpointing().map(FutureExt::boxed)
    }

    fn vacuuming(&mut self) -> BoxFuture<'static, Result<Vacuumed>> {
        let (location, settings) = (self.committer.location.clone(), self.committer.settings.clone());
        async move { vacuum(&location, &settings).await }.boxed()
    }

    async fn merge_owners(&mut self) -> Result<()> {
        self.merge_owner_files().await.map(drop)
    }
}
