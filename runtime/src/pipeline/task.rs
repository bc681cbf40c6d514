//! One table, one task: how tasks are started, told to end, watched and taken up again, and what they are made of.

pub(super) mod bronze;
pub(super) mod columns;
pub(super) mod derivation;
pub(super) mod gold;
mod handle;
mod health;
pub(super) mod recent;
mod registry;
pub(super) mod serving;
pub(super) mod silver;
pub(super) mod upkeep;
pub(super) mod writer;

use std::time::Instant;

pub(super) use handle::{Ending, Handle, Inbox, Order};
pub(super) use health::{Health, Retry, retrying};
pub(super) use registry::{Tasks, Turn};

/// Ends at `due`, or never.
pub(super) async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! A task's own end, without a registry.

    use std::sync::Arc;

    use super::{Handle, Health, Inbox};
    use crate::buffer::Room;
    use crate::model::table_id::TableId;
    use crate::pipeline::observe::progress::Progress;
    use crate::pipeline::observe::report::Reporter;

    /// Of a task that is never told to end.
    pub(in crate::pipeline) fn inbox(id: TableId) -> Inbox {
        let progress = Progress::new("shop", Room::new(1 << 20), Arc::new(Reporter::new("shop", false)));
        let (handle, inbox) =
            Handle::new(id.clone(), Vec::new(), |told| Health::new(id, Arc::new(progress), Default::default(), told));
        // A task whose handle is gone is broken off.
        std::mem::forget(handle);
        inbox
    }
}
