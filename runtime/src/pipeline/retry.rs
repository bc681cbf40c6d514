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

/// Attempts a fallible future until it works, or fails in a way that another try does not mend. A macro, because each
/// attempt borrows anew what the one before had.
macro_rules! retrying {
    ($table:expr, $attempt:expr) => {{
        let mut backoff = $crate::pipeline::retry::Backoff::new();
        loop {
            match $attempt.await {
                Err(error) if error.action() == $crate::error::Action::Retry => backoff.wait($table, &error).await,
                ended => break ended,
            }
        }
    }};
}

pub(super) use retrying;
