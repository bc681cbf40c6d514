//! Upkeep of a Silver table between two flushes, and of its feed; how the table stands.

use std::time::{Duration, Instant};

use super::Upsert;
use crate::pipeline::progress::Stand;
use crate::pipeline::silver::Ending;
use crate::table::Pace;

/// Time between two looks at the memory of an index.
const INDEX_INTERVAL: Duration = Duration::from_secs(10);

impl Upsert {
    /// Upkeep that is due, between two flushes.
    pub(in crate::pipeline) async fn maintain(&mut self, pace: Pace) {
        let Some(table) = &mut self.table else { return };
        self.upkeep.tend(table, pace).await;
        if let Some(feed) = &mut self.feed {
            self.feed_upkeep.tend(&mut feed.append_only(), pace).await;
        }
    }

    /// How the table stands, as committed.
    pub(in crate::pipeline) fn stand(&mut self) -> Stand {
        let positions = self.stands().clone();
        let Some(table) = &self.table else { return Stand { positions, ..Stand::default() } };
        // Of some tables it takes a look at every owner.
        if self.index_bytes.is_none_or(|(_, at)| at.elapsed() >= INDEX_INTERVAL) {
            self.index_bytes = Some((table.index_size().1, Instant::now()));
        }
        Stand { positions, extent: Some(table.extent()), index_bytes: self.index_bytes.map(|(bytes, _)| bytes) }
    }

    /// The end of a run. Every row is committed by now, so a failure stops nothing.
    pub(in crate::pipeline) async fn settle(&mut self, ending: Ending) {
        let Some(table) = &mut self.table else { return };
        self.upkeep.settle(table, ending).await;
        if let Some(feed) = &mut self.feed {
            self.feed_upkeep.settle(&mut feed.append_only(), ending).await;
        }
    }
}
