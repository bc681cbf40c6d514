//! How a table's task fares: it tries again what may pass, says so at once, and hears when it is to end.
//!
//! Promises that a table that tries again is told as such from its first failure to its first success, that no try is the
//! last word (after [`RETRY_FOR`] the task ends with the error, and the table is opened anew), and that who is told to end
//! waits for nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Ending;
use crate::error::Error;
use crate::error::pauses::Pauses;
use crate::model::table_id::TableId;
use crate::pipeline::observe::progress::Progress;

/// Pauses between a task's tries of the same thing.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(200), longest: Duration::from_secs(10) };
/// How long a task tries the same thing before it ends with the error.
const RETRY_FOR: Duration = Duration::from_secs(120);

/// What a task knows of its own table beside the table's content.
#[derive(Clone)]
pub(in crate::pipeline) struct Health {
    id: TableId,
    progress: Arc<Progress>,
    commits: watch::Sender<u64>,
    told: watch::Receiver<Option<Ending>>,
}

impl Health {
    pub(super) fn new(
        id: TableId,
        progress: Arc<Progress>,
        commits: watch::Sender<u64>,
        told: watch::Receiver<Option<Ending>>,
    ) -> Self {
        Health { id, progress, commits, told }
    }

    /// Whoever reads the table may look.
    pub(in crate::pipeline) fn committed(&self) {
        self.commits.send_modify(|commits| *commits += 1);
    }

    pub(in crate::pipeline) fn id(&self) -> &TableId {
        &self.id
    }

    /// How the task is to end, once it was told.
    pub(in crate::pipeline) fn ending(&self) -> Option<Ending> {
        *self.told.borrow()
    }

    /// Ends when the task is told to end, and how.
    pub(in crate::pipeline) async fn ended(&mut self) -> Ending {
        match self.told.wait_for(Option::is_some).await.map(|told| *told) {
            Ok(Some(ending)) => ending,
            // Nobody is left to tell it.
            Ok(None) | Err(_) => Ending::BrokenOff,
        }
    }

    /// Ends when nothing is to be waited for any more.
    async fn broken_off(&mut self) {
        let _ = self.told.wait_for(|told| told.is_some_and(|ending| ending != Ending::Complete)).await;
    }
}

/// Tries of one thing, with growing pauses.
pub(in crate::pipeline) struct Retry {
    health: Health,
    begun: Instant,
    tries: u32,
}

impl Retry {
    pub(in crate::pipeline) fn of(health: &Health) -> Self {
        Retry { health: health.clone(), begun: Instant::now(), tries: 0 }
    }

    /// Says what failed, and waits; false where another try is not worth it.
    pub(in crate::pipeline) async fn pause(&mut self, error: &Error) -> bool {
        let table = &self.health.id;
        if self.tries == 0 {
            tracing::warn!(%table, %error, hint = error.next_step(), "trying again");
        } else {
            tracing::debug!(%table, %error, tries = self.tries, "trying again");
        }
        self.tries += 1;
        self.health.progress.retrying(table, error);
        if self.begun.elapsed() >= RETRY_FOR {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSES.after(self.tries)) => true,
            () = self.health.broken_off() => false,
        }
    }
}

impl Drop for Retry {
    fn drop(&mut self) {
        if self.tries > 0 {
            let table = &self.health.id;
            tracing::debug!(%table, tries = self.tries, seconds = self.begun.elapsed().as_secs_f64(), "tried enough");
            self.health.progress.well(table);
        }
    }
}

/// Attempts a fallible future until it works, or fails in a way that another try does not mend. A macro, because each
/// attempt borrows anew what the one before had.
macro_rules! retrying {
    ($health:expr, $attempt:expr) => {{
        let mut retry = $crate::pipeline::task::Retry::of($health);
        loop {
            match $attempt.await {
                Err(error) if error.action() == $crate::error::Action::Retry && retry.pause(&error).await => {}
                ended => break ended,
            }
        }
    }};
}

pub(in crate::pipeline) use retrying;
