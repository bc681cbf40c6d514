//! Compaction and vacuum of a table that only grows, beside the stream.
//!
//! Receives the table between two of its commits. Promises that reading and writing files never wait in the table's
//! turn: a task does it, and only the commit of what it wrote is made here. One that fails or was overtaken is dropped
//! and tried again after more commits. A run to the end waits for it, or one that is never long would never compact.
//! Never stops a table.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::error::Result;
use crate::table::{Packed, Upkeep};

/// Time between two vacuums of a table that is written to.
const VACUUM_INTERVAL: Duration = Duration::from_secs(3600);

/// The upkeep of one table.
#[derive(Debug)]
pub(super) struct Packing {
    running: Option<JoinHandle<Result<Option<Packed>>>>,
    vacuumed: Instant,
}

impl Packing {
    pub(super) fn new() -> Self {
        Packing { running: None, vacuumed: Instant::now() }
    }

    /// Commits what is ready, and begins what is due.
    pub(super) async fn tend(&mut self, table: &str, mut upkeep: Upkeep<'_>) {
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        self.settle(table, &mut upkeep).await;
        let vacuum = self.vacuumed.elapsed() >= VACUUM_INTERVAL;
        if vacuum || upkeep.is_due() {
            // a vacuum must not meet files that a compaction has written and not committed
            let vacuuming = vacuum.then(|| upkeep.vacuuming());
            let packing = upkeep.packing();
            self.running = Some(tokio::spawn(async move {
                if let Some(vacuuming) = vacuuming {
                    vacuuming.await?;
                }
                packing.await
            }));
            if vacuum {
                self.vacuumed = Instant::now();
            }
        }
    }

    /// Waits for what runs, and commits it.
    pub(super) async fn settle(&mut self, table: &str, upkeep: &mut Upkeep<'_>) {
        let Some(running) = self.running.take() else { return };
        let outcome = match running.await {
            Ok(Ok(Some(packed))) => upkeep.commit(packed).await.map(drop).map_err(|e| e.to_string()),
            Ok(Ok(None)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        if let Err(error) = outcome {
            tracing::warn!(%table, %error, "compaction put off");
        }
    }
}

impl Drop for Packing {
    /// What it has written and not committed is left to vacuum.
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}
