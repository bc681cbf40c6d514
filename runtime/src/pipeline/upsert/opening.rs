//! What is needed to open a Silver table and its feed, once and again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::ArrayRef;

use super::Upsert;
use crate::deadletter::DeadLetters;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::chore::Chore;
use crate::pipeline::packing::Packing;
use crate::pipeline::plan::Plan;
use crate::pipeline::reload::Serving;
use crate::pipeline::task::{Inbox, retrying};
use crate::schema::widen::default_of;
use crate::table::{ChangesTable, KeyedTable, Location, Settings};

/// What is needed to open a Silver table, once and again.
pub(in crate::pipeline) struct Opening {
    pub(in crate::pipeline) plan: Plan,
    pub(in crate::pipeline) location: Location,
    /// where its feed of changes lies, if it has one
    pub(in crate::pipeline) feed: Option<Location>,
    /// the generation that a rebuild makes; `None` outside of one
    pub(in crate::pipeline) generation: Option<u64>,
    pub(in crate::pipeline) settings: Settings,
    pub(in crate::pipeline) letters: Arc<DeadLetters>,
    pub(in crate::pipeline) serving: Arc<Serving>,
}

impl Opening {
    /// Opens the table if it is there; it is made when the first schema is known.
    pub(in crate::pipeline) async fn open(&self, inbox: &Inbox) -> Result<Upsert> {
        retrying!(&inbox.health, self.try_open(inbox))
    }

    async fn try_open(&self, inbox: &Inbox) -> Result<Upsert> {
        let mut plan = self.plan.clone();
        // Another module may have taken over since.
        if let Some(module) = &mut plan.module
            && let Some(serving) = self.serving.get(&plan.name)
        {
            *module = serving;
        }
        // The letters of the table in force stay while another generation grows.
        if self.generation.is_none() {
            self.letters.forget_from(&plan.name, &self.location).await?;
        }
        let table = KeyedTable::open(self.location.clone(), self.settings.clone()).await?;
        let positions = table.as_ref().map(|t| t.positions().clone()).unwrap_or_default();
        let feed = match (&table, &self.feed) {
            (Some(table), Some(at)) => Some(open_feed(at, &plan.name, table, &HashMap::new()).await?),
            (None, Some(at)) if ChangesTable::lies_at(at, &self.settings).await? => return Err(leftover(at)),
            _ => None,
        };
        Ok(Upsert {
            plan,
            feed_at: self.feed.clone(),
            feed,
            location: self.location.clone(),
            generation: self.generation.unwrap_or(0),
            settings: self.settings.clone(),
            letters: Arc::clone(&self.letters),
            table,
            positions,
            floors: Vec::new(),
            schema: None,
            prepared: None,
            serving: Arc::clone(&self.serving),
            recent: Arc::clone(&inbox.recent),
            health: inbox.health.clone(),
            prior: None,
            compaction: None,
            checkpoint: Chore::new("checkpoint"),
            vacuum: Chore::new("vacuum"),
            feed_checkpoint: Chore::new("checkpoint of the feed"),
            packing: Packing::new(),
            vacuumed: Instant::now(),
            index_bytes: None,
        })
    }
}

/// Opens the feed of `table` and brings it to the table's columns; `fills` as in [`KeyedTable::evolve`].
pub(super) async fn open_feed(
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
