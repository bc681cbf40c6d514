//! The tasks of a pipeline's tables: started, told to end, and taken up again where what ended them may pass.
//!
//! Receives the work of tables. Promises that a table has one task at a time (a new one waits for the one before), that a
//! task which ends, fails or panics is told at once, and that the one match of `error.rs` alone decides whether its table
//! is opened anew or stops. A table that stopped stays stopped until somebody asks for it again. Knows no layer.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::{Ending, Handle, Health, Inbox};
use crate::error::pauses::Pauses;
use crate::error::{Action, Error, ErrorKind, Result, panicked};
use crate::model::table_id::TableId;
use crate::pipeline::observe::progress::Progress;
use crate::pipeline::task::at;

/// Pauses before a table is opened anew.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(200), longest: Duration::from_secs(60) };
/// A task that went on for so long was well: what ends it is a new failure.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// How often in a row a run to the end opens a table anew.
const OPENINGS_MAX: u32 = 8;

/// What became of a table's task.
#[derive(Debug)]
pub(in crate::pipeline) enum Turn {
    /// it did what it was told and ended
    Ended,
    /// it failed; the table is due again after a while
    Failed,
    /// the table is due: it is to be started again
    Due(TableId),
    /// it failed for good
    Stopped(TableId),
}

struct Running {
    handle: Handle,
    number: u64,
    started: Instant,
    abort: AbortHandle,
}

struct Ended {
    id: TableId,
    number: u64,
    outcome: Result<()>,
}

/// Every table's task.
pub(in crate::pipeline) struct Tasks {
    progress: Arc<Progress>,
    until_end: bool,
    running: BTreeMap<TableId, Running>,
    /// closed when the table's newest task has ended
    newest: HashMap<TableId, watch::Receiver<()>>,
    /// failures in a row
    failures: HashMap<TableId, (u32, Error)>,
    due: BTreeMap<TableId, Instant>,
    /// commits of each table, told by its task
    commits: HashMap<TableId, watch::Sender<u64>>,
    stopped: BTreeMap<TableId, Error>,
    first_stop: Option<Error>,
    number: u64,
    tell: mpsc::UnboundedSender<Ended>,
    told: mpsc::UnboundedReceiver<Ended>,
}

impl Tasks {
    /// `until_end`: a table that cannot be opened is given up after a while, so that the run can end.
    pub(in crate::pipeline) fn new(progress: Arc<Progress>, until_end: bool) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Tasks {
            progress,
            until_end,
            running: BTreeMap::new(),
            newest: HashMap::new(),
            failures: HashMap::new(),
            due: BTreeMap::new(),
            commits: HashMap::new(),
            stopped: BTreeMap::new(),
            first_stop: None,
            number: 0,
            tell,
            told,
        }
    }

    /// Starts the table's task, once the one before has ended. `reads`: the tables that it reads.
    pub(in crate::pipeline) fn start<F>(
        &mut self,
        id: &TableId,
        reads: Vec<TableId>,
        work: impl FnOnce(Inbox) -> F + Send + 'static,
    ) -> Handle
    where
        F: Future<Output = Result<()>> + Send,
    {
        self.end(id, Ending::AtOnce);
        self.due.remove(id);
        self.stopped.remove(id);
        self.number += 1;
        let number = self.number;
        let commits = self.commits.entry(id.clone()).or_default().clone();
        let health = |told| Health::new(id.clone(), Arc::clone(&self.progress), commits, told);
        let (handle, inbox) = Handle::new(id.clone(), reads, health);
        let (alive, gone) = watch::channel(());
        let before = self.newest.insert(id.clone(), gone);
        let (tell, name) = (self.tell.clone(), id.clone());
        let task = tokio::spawn(async move {
            let _alive = alive;
            if let Some(mut before) = before {
                while before.changed().await.is_ok() {}
            }
            let worked = AssertUnwindSafe(async move { work(inbox).await }).catch_unwind().await;
            let outcome = worked.unwrap_or_else(|panic| Err(panicked(&format!("the task of `{name}`"), &*panic)));
            let _ = tell.send(Ended { id: name, number, outcome });
        });
        let running = Running { handle: handle.clone(), number, started: Instant::now(), abort: task.abort_handle() };
        self.running.insert(id.clone(), running);
        handle
    }

    /// Moves with every commit of the table, whichever task makes it.
    pub(in crate::pipeline) fn commits_of(&mut self, id: &TableId) -> watch::Receiver<u64> {
        self.commits.entry(id.clone()).or_default().subscribe()
    }

    /// The table's task, where one runs and was not told to end.
    pub(in crate::pipeline) fn get(&self, id: &TableId) -> Option<&Handle> {
        self.running.get(id).map(|running| &running.handle).filter(|handle| handle.ending().is_none())
    }

    /// Those that run.
    pub(in crate::pipeline) fn running(&self) -> impl Iterator<Item = &Handle> {
        self.running.values().map(|running| &running.handle)
    }

    /// True while the table has a task, or is to get one.
    pub(in crate::pipeline) fn has(&self, id: &TableId) -> bool {
        self.running.contains_key(id) || self.due.contains_key(id)
    }

    /// True while some table waits to be started again.
    pub(in crate::pipeline) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Tells the table's task to end. Nobody waits for it; a task that is started meanwhile does.
    pub(in crate::pipeline) fn end(&mut self, id: &TableId, ending: Ending) {
        if let Some(running) = self.running.get(id) {
            running.handle.end(ending);
        }
    }

    /// Lets go of the table: whoever takes the task over ends it. Its end is closed when the task has ended.
    pub(in crate::pipeline) fn release(&mut self, id: &TableId) -> Option<(Handle, AbortHandle, watch::Receiver<()>)> {
        self.due.remove(id);
        self.failures.remove(id);
        self.stopped.remove(id);
        let Running { handle, abort, .. } = self.running.remove(id)?;
        Some((handle, abort, self.newest.get(id)?.clone()))
    }

    /// Nobody asks for the table any more.
    pub(in crate::pipeline) fn forget(&mut self, id: &TableId) {
        self.end(id, Ending::AtOnce);
        self.due.remove(id);
        self.failures.remove(id);
        self.stopped.remove(id);
    }

    /// What happens next to any of them; ends at `None` never.
    pub(in crate::pipeline) async fn next(&mut self) -> Turn {
        loop {
            let next = self.due.iter().min_by_key(|(_, at)| **at).map(|(id, at)| (id.clone(), *at));
            tokio::select! {
                biased;
                Some(ended) = self.told.recv() => if let Some(turn) = self.judge(ended) { return turn },
                () = at(next.as_ref().map(|(_, at)| *at)) => if let Some((id, _)) = next {
                    self.due.remove(&id);
                    return Turn::Due(id);
                },
            }
        }
    }

    /// A table that could not even start.
    pub(in crate::pipeline) fn stop(&mut self, id: &TableId, error: Error) {
        self.progress.stop(id, &error);
        self.first_stop.get_or_insert_with(|| error.clone());
        self.stopped.insert(id.clone(), error);
    }

    /// Those that stopped.
    pub(in crate::pipeline) fn stopped(&self) -> Vec<TableId> {
        self.stopped.keys().cloned().collect()
    }

    /// What stopped the first that stopped.
    pub(in crate::pipeline) fn first_stop(&mut self) -> Option<Error> {
        self.first_stop.take()
    }

    /// What the table's task failed with last.
    pub(in crate::pipeline) fn error_of(&self, id: &TableId) -> Error {
        let failed = self.failures.get(id).map(|(_, error)| error.clone());
        failed.unwrap_or_else(|| Error::new(ErrorKind::Internal, format!("the task of `{id}` ended without a word")))
    }

    fn judge(&mut self, ended: Ended) -> Option<Turn> {
        let Ended { id, number, outcome } = ended;
        if self.running.get(&id).is_none_or(|running| running.number != number) {
            if let Err(error) = outcome {
                tracing::warn!(table = %id, %error, "a former task of the table had failed");
            }
            return None;
        }
        let running = self.running.remove(&id)?;
        let Err(error) = outcome else { return Some(Turn::Ended) };
        if running.started.elapsed() >= WELL_AFTER {
            self.failures.remove(&id);
        }
        let may_pass = matches!(error.action(), Action::Retry | Action::Reopen);
        match running.handle.ending() {
            Some(Ending::BrokenOff | Ending::AtOnce) if may_pass => {
                tracing::warn!(table = %id, %error, "not all is committed; the next start goes on from there");
                return Some(Turn::Ended);
            }
            _ => {}
        }
        let failures = self.failures.get(&id).map_or(0, |(before, _)| *before) + 1;
        self.failures.insert(id.clone(), (failures, error.clone()));
        if !may_pass || self.until_end && failures > OPENINGS_MAX {
            self.stop(&id, error);
            return Some(Turn::Stopped(id));
        }
        let pause = PAUSES.after(failures);
        tracing::warn!(table = %id, %error, hint = error.next_step(), pause_ms = pause.as_millis() as u64, "the table is opened anew");
        self.progress.retrying(&id, &error);
        self.due.insert(id.clone(), Instant::now() + pause);
        Some(Turn::Failed)
    }
}
