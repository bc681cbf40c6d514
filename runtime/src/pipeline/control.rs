//! What changes while the stream runs: files that are watched, modules that are tried, the pipeline file taken over.

mod difference;
pub(super) mod reload;
pub(super) mod trial;
pub(super) mod watch;
