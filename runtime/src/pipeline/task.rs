//! One table, one task: how tasks are started, told to end, watched and taken up again, and what they are made of.

pub(super) mod derivation;
mod handle;
mod health;
mod registry;
pub(super) mod upkeep;
pub(super) mod writer;

pub(super) use handle::{Ending, Handle, Inbox, Order};
pub(super) use health::{Health, Retry, retrying};
pub(super) use registry::{Tasks, Turn};

#[cfg(test)]
pub(super) mod tests {
    //! A task's own end, without a registry.

    use std::sync::Arc;

    use super::{Handle, Health, Inbox};
    use crate::buffer::Room;
    use crate::pipeline::progress::Progress;
    use crate::pipeline::report::Reporter;
    use crate::table_id::TableId;

    /// Of a task that is never told to end.
    pub(in crate::pipeline) fn inbox(id: TableId) -> Inbox {
        let progress = Progress::new("shop", Room::new(1 << 20), Arc::new(Reporter::new("shop", false)));
        let (handle, inbox) = Handle::new(id.clone(), Vec::new(), |told| Health::new(id, Arc::new(progress), told));
        // A task whose handle is gone is broken off.
        std::mem::forget(handle);
        inbox
    }
}
