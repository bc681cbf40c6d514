//! The feed of a table's changes: its files are written before the table's commit, which names them, and committed after.

use arrow::array::RecordBatch;
use serde_json::Value;

use super::{Upsert, unmade};
use crate::change::{Changes, Floor};
use crate::error::Result;
use crate::pipeline::task::retrying;
use crate::table::{Committed, News, Outcome};

impl Upsert {
    /// What the feed lacks of a batch; `None` of a table without a feed.
    pub(super) async fn news(&mut self, changes: &[Changes], floors: &[Floor]) -> Result<Option<News>> {
        let (Some(feed), Some(table)) = (&mut self.feed, &self.table) else { return Ok(None) };
        retrying!(&self.health, feed.select(table, changes, floors)).map(Some)
    }

    /// Writes the feed's files of a batch; what the table's commit has to name.
    pub(super) async fn feed_files(
        &self,
        news: &News,
        output: &RecordBatch,
        source_rows: Option<&[u32]>,
        rejected: &[u32],
    ) -> Result<Value> {
        let Some(feed) = &self.feed else { return Err(unmade(&self.plan.name)) };
        retrying!(&self.health, feed.write(news, output, source_rows, rejected))
    }

    /// Adds to the feed what the table's commits name, the last one of which ended so.
    pub(super) async fn complete_feed(&mut self, outcome: &Outcome<Committed>) -> Result<()> {
        let (Some(feed), Some(table)) = (&mut self.feed, &self.table) else { return Ok(()) };
        match outcome {
            Outcome::Committed(committed) => retrying!(&self.health, feed.follow_commit(table, committed)),
            _ => retrying!(&self.health, feed.follow(table)),
        }
    }
}
