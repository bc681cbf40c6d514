//! From rows to a commit: one keyed table that is made, its feed where it has one, and the upkeep of both.
//!
//! Receives what a batch became, with the ranges of offsets it stands for. Promises that both are in one commit, and that
//! the feed's files are written before it and added to the feed after it. Never commits a range that the table has, and
//! never makes rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value};

use super::derivation::Derived;
use super::upkeep::Upkeep;
use super::{Ending, Health, retrying};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{
    ChangesTable, Columns, FeedSelection, KeyedTable, Location, Memo, NewestRows, Outcome, OwnerRows, Pace, Packed,
    Rewritten, Selection, Settings, TableSpec,
};
use crate::model::change::{Changes, Floor};
use crate::model::positions::Ranges;
use crate::model::schema::widen::default_of;
use crate::model::schema::{Rename, RenamedColumn};
use crate::model::table_id::TableId;
use crate::pipeline::observe::progress::TableState;

/// Time between two looks at the memory of an index.
const INDEX_INTERVAL: Duration = Duration::from_secs(10);

/// Where a table lies.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Place {
    /// as the pipeline file has it
    pub(in crate::pipeline) name: String,
    pub(in crate::pipeline) location: Location,
    /// where its feed of changes lies, if it is to have one
    pub(in crate::pipeline) feed: Option<Location>,
    pub(in crate::pipeline) settings: Settings,
}

/// A table that is made, and what keeps it.
pub(in crate::pipeline) struct Writer {
    name: String,
    health: Health,
    table: KeyedTable,
    upkeep: Upkeep<Rewritten>,
    feed: Option<Feed>,
    /// what the index took when it was last looked at, and when that was
    index_bytes: Option<(usize, Instant)>,
}

struct Feed {
    location: Location,
    table: ChangesTable,
    upkeep: Upkeep<Packed>,
}

/// The changes of a batch that the table lacks, or its feed.
pub(in crate::pipeline) enum Selected {
    /// of each owner the newest change
    Newest(Selection),
    /// every change that the feed lacks, and of these the table takes the newest
    ForFeed(FeedSelection),
}

impl Selected {
    /// What is to become rows.
    pub(in crate::pipeline) fn selection(&self) -> &Selection {
        match self {
            Selected::Newest(selection) => selection,
            Selected::ForFeed(lacking) => lacking.all(),
        }
    }
}

impl Writer {
    /// Opens the table, and its feed; `None` where it is not made yet.
    pub(in crate::pipeline) async fn open(place: &Place, health: &Health) -> Result<Option<Self>> {
        let table = KeyedTable::open(place.location.clone(), place.settings.clone()).await?;
        let Some(table) = table else {
            return match &place.feed {
                Some(at) if ChangesTable::lies_at(at, &place.settings).await? => Err(leftover(at)),
                _ => Ok(None),
            };
        };
        let feed = Self::feed_of(place, health, &table, &HashMap::new()).await?;
        Ok(Some(Self::with(place, health, table, feed)))
    }

    /// Makes the table. `fills` as in [`KeyedTable::evolve`].
    pub(in crate::pipeline) async fn make(
        place: &Place,
        health: &Health,
        spec: TableSpec,
        fills: &HashMap<String, ArrayRef>,
    ) -> Result<Self> {
        let (location, settings) = (&place.location, &place.settings);
        let fields = spec.fields.clone();
        let mut table =
            retrying!(health, KeyedTable::open_or_create(location.clone(), spec.clone(), settings.clone()))?;
        // another instance may have made it, for other columns
        evolve(&mut table, &place.name, health, &fields, fills).await?;
        let feed = retrying!(health, Self::feed_of(place, health, &table, fills))?;
        Ok(Self::with(place, health, table, feed))
    }

    fn with(place: &Place, health: &Health, table: KeyedTable, feed: Option<Feed>) -> Self {
        let (name, health, upkeep) = (place.name.clone(), health.clone(), Upkeep::new(health.id()));
        Writer { name, health, table, upkeep, feed, index_bytes: None }
    }

    async fn feed_of(
        place: &Place,
        health: &Health,
        table: &KeyedTable,
        fills: &HashMap<String, ArrayRef>,
    ) -> Result<Option<Feed>> {
        let Some(location) = &place.feed else { return Ok(None) };
        let feed = open_feed(location, &place.name, table, fills).await?;
        let upkeep = Upkeep::new(format!("{}_changes", health.id()));
        Ok(Some(Feed { location: location.clone(), table: feed, upkeep }))
    }

    /// Whose table it is.
    pub(in crate::pipeline) fn id(&self) -> &TableId {
        self.health.id()
    }

    /// The table, to be asked.
    pub(in crate::pipeline) fn table(&self) -> &KeyedTable {
        &self.table
    }

    /// The table, for who commits rows that take the place of others when they differ.
    pub(in crate::pipeline) fn table_mut(&mut self) -> &mut KeyedTable {
        &mut self.table
    }

    /// The columns as they are now.
    pub(in crate::pipeline) fn columns(&self) -> Columns {
        self.table.columns()
    }

    /// Gives columns the names that they got in the source, each renaming once; true when there was one.
    pub(in crate::pipeline) async fn rename(&mut self, renames: &[Arc<Rename>]) -> Result<bool> {
        let mut renamed = false;
        for rename in renames {
            if rename.mark <= self.table.renamed() {
                continue;
            }
            retrying!(&self.health, self.table.rename(rename))?;
            for RenamedColumn { from, to, .. } in &rename.columns {
                tracing::info!(table = %self.name, from, to, "column renamed, as in the source");
            }
            renamed = true;
        }
        Ok(renamed)
    }

    /// Brings the table and its feed to `fields`: columns are added and widened, never taken away. `fills` as in
    /// [`KeyedTable::evolve`].
    pub(in crate::pipeline) async fn evolve(
        &mut self,
        fields: &SchemaRef,
        fills: &HashMap<String, ArrayRef>,
    ) -> Result<()> {
        evolve(&mut self.table, &self.name, &self.health, fields, fills).await?;
        if let Some(feed) = &mut self.feed {
            feed.table = retrying!(&self.health, open_feed(&feed.location, &self.name, &self.table, fills))?;
        }
        Ok(())
    }

    /// What of `changes` and `floors` is to be committed.
    pub(in crate::pipeline) async fn select(&mut self, changes: &[Changes], floors: &[Floor]) -> Result<Selected> {
        match &mut self.feed {
            Some(feed) => {
                retrying!(&self.health, feed.table.select(&self.table, changes, floors)).map(Selected::ForFeed)
            }
            None => self.table.select(changes, floors).map(Selected::Newest),
        }
    }

    /// Commits the rows that `selected` became, with `ranges`, `epochs` and `info`; false when the table holds some of
    /// `ranges` already and nothing was committed.
    pub(in crate::pipeline) async fn commit(
        &mut self,
        selected: Selected,
        derived: Derived,
        ranges: &Ranges,
        epochs: &str,
        mut info: Map<String, Value>,
    ) -> Result<bool> {
        let Derived { rows, source_rows, rejected, .. } = derived;
        let rejected: Vec<u32> = rejected.into_iter().map(|(row, _)| row).collect();
        let (selection, rows, source_rows, rejected) = match (selected, &self.feed) {
            (Selected::Newest(selection), _) => (selection, rows, source_rows, rejected),
            (Selected::ForFeed(lacking), Some(feed)) => {
                let files =
                    retrying!(&self.health, feed.table.write(&lacking, &rows, source_rows.as_deref(), &rejected))?;
                info.insert("feed".to_owned(), files);
                let NewestRows { selection, output, source_rows } =
                    lacking.newest(&self.table, &rows, source_rows.as_deref(), &rejected)?;
                (selection, output, Some(source_rows), Vec::new())
            }
            (Selected::ForFeed(_), None) => {
                return Err(Error::new(ErrorKind::Internal, format!("silver `{}` has lost its feed", self.name)));
            }
        };
        if self.table.memo(Memo::Epochs) != Some(epochs) {
            self.table.set_memo(Memo::Epochs, epochs);
        }
        let rows = OwnerRows {
            selection: &selection,
            output: &rows,
            source_rows: source_rows.as_deref(),
            rejected: &rejected,
        };
        let outcome = retrying!(&self.health, self.table.replace(rows, ranges, info.clone()))?;
        match (&outcome, &mut self.feed) {
            (Outcome::Fenced, _) => return Ok(false),
            (_, None) => {}
            (Outcome::Committed(committed), Some(feed)) => {
                retrying!(&self.health, feed.table.follow_commit(&self.table, committed))?;
            }
            (_, Some(feed)) => retrying!(&self.health, feed.table.follow(&self.table))?,
        }
        Ok(true)
    }

    /// What of `ranges` another instance has left to commit.
    pub(in crate::pipeline) fn missing_of(&self, ranges: &Ranges) -> Result<Ranges> {
        ranges.still_missing(self.table.positions()).ok_or_else(|| went_back(&self.name))
    }

    /// Upkeep that is due, between two commits.
    pub(in crate::pipeline) async fn tend(&mut self, pace: Pace) {
        self.upkeep.tend(&mut self.table, pace).await;
        if let Some(feed) = &mut self.feed {
            feed.upkeep.tend(&mut feed.table.append_only(), pace).await;
        }
    }

    /// The end of a run. Every row is committed by now, so a failure stops nothing.
    pub(in crate::pipeline) async fn finish(&mut self, ending: Ending) {
        self.upkeep.finish(&mut self.table, ending).await;
        if let Some(feed) = &mut self.feed {
            feed.upkeep.finish(&mut feed.table.append_only(), ending).await;
        }
    }

    /// How the table stands, as committed.
    pub(in crate::pipeline) fn stand(&mut self) -> TableState {
        // Of some tables it takes a look at every owner.
        if self.index_bytes.is_none_or(|(_, at)| at.elapsed() >= INDEX_INTERVAL) {
            self.index_bytes = Some((self.table.index_size().1, Instant::now()));
        }
        TableState {
            positions: self.table.positions().clone(),
            extent: Some(self.table.extent()),
            index_bytes: self.index_bytes.map(|(bytes, _)| bytes),
        }
    }
}

async fn evolve(
    table: &mut KeyedTable,
    name: &str,
    health: &Health,
    fields: &SchemaRef,
    fills: &HashMap<String, ArrayRef>,
) -> Result<()> {
    match retrying!(health, table.evolve(fields, fills))? {
        Outcome::Fenced => Err(went_back(name)),
        _ => Ok(()),
    }
}

/// Opens the feed of `table` and brings it to the table's columns; `fills` as in [`KeyedTable::evolve`].
async fn open_feed(
    at: &Location,
    name: &str,
    table: &KeyedTable,
    fills: &HashMap<String, ArrayRef>,
) -> Result<ChangesTable> {
    let mut feed = ChangesTable::open_or_create(at.clone(), &format!("silver/{name}_changes"), table).await?;
    let stored = table.schema().fields().iter().filter_map(|f| Some((f.name().clone(), default_of(f)?)));
    let mut all: HashMap<String, ArrayRef> = stored.collect();
    all.extend(fills.iter().map(|(name, one)| (name.clone(), Arc::clone(one))));
    feed.evolve(table.schema(), &all).await?;
    Ok(feed)
}

fn leftover(at: &Location) -> Error {
    Error::new(ErrorKind::Config, format!("the feed at `{}` is of a table that is no more", at.url()))
        .hint("move it away: the new table gets a new one")
}

fn went_back(table: &str) -> Error {
    Error::new(ErrorKind::Fenced, format!("silver `{table}`: the table stands before what was read"))
        .hint("it was restored to an older version while `lode` ran; start `lode` again")
}

#[cfg(test)]
mod tests;
