//! What a run says of itself: counts for those who watch, and the report in the lake.

pub(super) mod progress;
pub(super) mod report;
