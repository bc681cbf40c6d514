//! Upkeep of one table beside its stream: compaction, checkpoint, vacuum.
//!
//! Receives the table between two of its commits. Promises that reading and writing files never wait in the table's turn:
//! each kind of work is a task of its own, at most one of a kind, and only the commit of a compaction and a merge of owner
//! files are made here; that a vacuum never meets files which a compaction has written and not committed; and that what
//! fails or panics is told and tried again later. Never stops a table: its next commit of rows meets the same lake and
//! decides.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Ending;
use crate::error::pauses::Pauses;
use crate::error::{Action, Error, ErrorKind, Result, panicked};
use crate::lake::DEAD_LETTERS;
use crate::lake::dead_letters::DeadLetters;
use crate::lake::{Maintained, Pace, Rewritten, Vacuumed};

/// Time between two vacuums of a table that is written to.
const VACUUM_INTERVAL: Duration = Duration::from_secs(3600);
/// Pauses after failures of one kind of upkeep.
const PAUSES: Pauses = Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(600) };

/// The upkeep of one table whose compactions write `C`.
#[derive(Debug)]
pub(in crate::pipeline) struct Upkeep<C: Send + 'static> {
    table: String,
    compaction: Work<Option<C>>,
    checkpoint: Work<()>,
    vacuum: Work<Vacuumed>,
    vacuum_at: Instant,
}

impl<C: Send + 'static> Upkeep<C> {
    /// `table`: its name in messages.
    pub(in crate::pipeline) fn new(table: impl Display) -> Self {
        Upkeep {
            table: table.to_string(),
            compaction: Work::new("compaction"),
            checkpoint: Work::new("checkpoint"),
            vacuum: Work::new("vacuum"),
            vacuum_at: Instant::now() + VACUUM_INTERVAL,
        }
    }

    /// Takes what is ready, and begins what is due.
    pub(in crate::pipeline) async fn tend<T: Maintained<Compacted = C>>(&mut self, table: &mut T, pace: Pace) {
        if self.compaction.is_ready() {
            self.commit_compaction(table).await;
        }
        if self.checkpoint.is_ready() {
            self.checkpoint.end(&self.table).await;
        }
        if self.vacuum.is_ready() {
            self.vacuum.end(&self.table).await;
        }
        if self.compaction.is_idle() && self.vacuum.is_idle() {
            if self.vacuum_at <= Instant::now() {
                self.vacuum_at = Instant::now() + VACUUM_INTERVAL;
                self.vacuum.begin(table.vacuuming());
            } else if self.compaction.may_begin()
                && let Some(compacting) = table.compacting(pace)
            {
                self.compaction.begin(compacting);
            }
        }
        if self.checkpoint.may_begin()
            && let Some(checkpointing) = table.checkpointing()
        {
            self.checkpoint.begin(checkpointing);
        }
        if let Err(error) = table.merge_owners().await {
            tell(&self.table, "merge of owner files", &error);
        }
    }

    /// The end of a run. A checkpoint is waited for, a vacuum is given up. Where the source holds no more, the compaction
    /// that works is waited for and committed, and those that are worth it follow where the table is to have them; a run
    /// that is broken off gives it up, and leaves what it wrote to vacuum.
    pub(in crate::pipeline) async fn finish<T: Maintained<Compacted = C>>(&mut self, table: &mut T, ending: Ending) {
        self.vacuum.give_up().await;
        if ending == Ending::Complete {
            let mut go_on = self.compaction.is_idle() || self.commit_compaction(table).await;
            while go_on
                && T::COMPACTS_TO_THE_END
                && let Some(compacting) = table.compacting(Pace::Steady)
            {
                self.compaction.begin(compacting);
                go_on = self.commit_compaction(table).await;
            }
        }
        self.compaction.give_up().await;
        self.checkpoint.end(&self.table).await;
    }

    /// Waits for the compaction that works, and commits it; false when nothing was committed.
    async fn commit_compaction<T: Maintained<Compacted = C>>(&mut self, table: &mut T) -> bool {
        let Some(Some(compacted)) = self.compaction.end(&self.table).await else { return false };
        match table.commit_compacted(compacted).await {
            Ok(committed) => committed,
            Err(error) => {
                self.compaction.put_off(&self.table, &error);
                false
            }
        }
    }
}

/// The upkeep of the dead letters, which every table of the pipeline writes: a task of its own, so that no letter waits
/// for it longer than the commit of a compaction takes. It ends with the last who writes them.
#[derive(Debug)]
pub(in crate::pipeline) struct LettersUpkeep {
    ending: Option<oneshot::Sender<Ending>>,
    task: JoinHandle<()>,
}

impl LettersUpkeep {
    pub(in crate::pipeline) fn start(letters: &Arc<DeadLetters>) -> Self {
        let (ending, ended) = oneshot::channel();
        let work = keep(Arc::downgrade(letters), Upkeep::new(DEAD_LETTERS), ended);
        let task = tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                tell(DEAD_LETTERS, "upkeep", &panicked("the upkeep of the dead letters", &*panic));
            }
        });
        LettersUpkeep { ending: Some(ending), task }
    }

    /// False once nobody writes these letters any more.
    pub(in crate::pipeline) fn goes_on(&self) -> bool {
        !self.task.is_finished()
    }

    /// The end of a run, when the last letter is written. A run that is broken off leaves everything.
    pub(in crate::pipeline) async fn finish(mut self, ending: Ending) {
        if ending != Ending::Complete {
            return;
        }
        let told = self.ending.take().map(|tell| tell.send(ending));
        if told.is_some_and(|told| told.is_ok()) {
            // It has said itself how it went.
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for LettersUpkeep {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(letters: Weak<DeadLetters>, mut upkeep: Upkeep<Rewritten>, mut ended: oneshot::Receiver<Ending>) {
    let Some(mut commits) = letters.upgrade().map(|letters| letters.commits()) else { return };
    loop {
        let ending = tokio::select! {
            changed = commits.changed() => changed.ok().map(|()| None),
            ending = &mut ended => ending.ok().map(Some),
        };
        let Some(ending) = ending else { return };
        let Some(letters) = letters.upgrade() else { return };
        let mut table = letters.table().await;
        match (table.as_mut(), ending) {
            (Some(table), None) => upkeep.tend(table, Pace::Steady).await,
            (Some(table), Some(ending)) => return upkeep.finish(table, ending).await,
            (None, Some(_)) => return,
            (None, None) => {}
        }
    }
}

/// One kind of work, in a task of its own.
#[derive(Debug)]
struct Work<R> {
    what: &'static str,
    running: Option<JoinHandle<Result<R>>>,
    /// failures since it last succeeded
    failures: u32,
    /// when it may be begun after a failure
    due: Option<Instant>,
}

impl<R: Send + 'static> Work<R> {
    fn new(what: &'static str) -> Self {
        Work { what, running: None, failures: 0, due: None }
    }

    fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// True when it has ended and nobody has asked how.
    fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(JoinHandle::is_finished)
    }

    fn may_begin(&self) -> bool {
        self.is_idle() && self.due.is_none_or(|due| due <= Instant::now())
    }

    fn begin(&mut self, work: impl Future<Output = Result<R>> + Send + 'static) {
        self.running = Some(tokio::spawn(work));
    }

    /// Waits for the one that runs; what it gave.
    async fn end(&mut self, table: &str) -> Option<R> {
        let running = self.running.as_mut()?;
        let ended = running.await;
        self.running = None;
        let panicked = |e| Error::new(ErrorKind::Internal, "its task ended").caused_by(e);
        match ended.unwrap_or_else(|e| Err(panicked(e))) {
            Ok(done) => {
                (self.failures, self.due) = (0, None);
                Some(done)
            }
            Err(error) => {
                self.put_off(table, &error);
                None
            }
        }
    }

    fn put_off(&mut self, table: &str, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        self.due = Some(Instant::now() + PAUSES.after(self.failures));
        tell(table, self.what, error);
    }

    /// Ends the one that runs, and waits until it has ended.
    async fn give_up(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
    }
}

impl<R> Drop for Work<R> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

fn tell(table: &str, what: &str, error: &Error) {
    match error.action() {
        Action::Retry => tracing::warn!(%table, %error, "{what} put off"),
        _ => tracing::error!(%table, %error, hint = error.next_step(), "{what} put off"),
    }
}

#[cfg(test)]
mod tests;
