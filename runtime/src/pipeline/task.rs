//! One table, one task: how tasks are started, told to end, watched and taken up again.

mod handle;
mod health;
mod registry;

pub(super) use handle::{Ending, Handle, Inbox, Order};
pub(super) use health::{Health, Retry, retrying};
pub(super) use registry::{Tasks, Turn};
