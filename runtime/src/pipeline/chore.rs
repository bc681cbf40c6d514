//! Work on a table that its commits do not wait for: checkpoints, vacuums.
//!
//! Receives what is due between two commits. Promises that it runs in a task of its own, one at a time, and that a
//! failure is told and stops nothing: a checkpoint that failed is due again, a vacuum when the next one is. Never changes
//! a row or a position.

use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};

/// One kind of such work on one table.
#[derive(Debug)]
pub(super) struct Chore {
    what: &'static str,
    running: Option<JoinHandle<Result<()>>>,
}

impl Chore {
    pub(super) fn new(what: &'static str) -> Self {
        Chore { what, running: None }
    }

    /// Begins what is due, unless the last one still runs.
    pub(super) async fn tend<F: Future<Output = Result<()>> + Send + 'static>(
        &mut self,
        table: &str,
        due: impl FnOnce() -> Option<F>,
    ) {
        if self.is_running() {
            return;
        }
        self.settle(table).await;
        self.running = due().map(tokio::spawn);
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.is_finished())
    }

    /// Waits for the one that runs.
    pub(super) async fn settle(&mut self, table: &str) {
        let Some(running) = self.running.take() else { return };
        let ended =
            running.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "its task ended").caused_by(e)));
        if let Err(error) = ended {
            tracing::warn!(%table, %error, "{} put off", self.what);
        }
    }
}

impl Drop for Chore {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}
