//! Growing pauses between tries.

use std::time::Duration;

use crate::error::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Pauses that double up to half a minute.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Backoff(FIRST_PAUSE)
    }

    /// Says what failed, and waits.
    pub(super) async fn wait(&mut self, table: &str, error: &Error) {
        tracing::warn!(%table, %error, pause_ms = self.0.as_millis() as u64, "trying again");
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}
