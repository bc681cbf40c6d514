//! What is needed to open a Silver table and its feed, once and again.

use std::sync::Arc;

use super::{Recipe, State, Upsert};
use crate::error::Result;
use crate::lake::dead_letters::DeadLetters;
use crate::lake::{Location, Settings};
use crate::model::table_id::TableId;
use crate::pipeline::task::derivation::Derivation;
use crate::pipeline::task::serving::Serving;
use crate::pipeline::task::silver::plan::SilverSpec;
use crate::pipeline::task::writer::{Place, Writer};
use crate::pipeline::task::{Inbox, retrying};

/// What is needed to open a Silver table, once and again.
pub(in crate::pipeline) struct Opening {
    pub(in crate::pipeline) plan: SilverSpec,
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
        let name = &self.plan.name;
        let id = TableId::silver(name.as_str());
        // Another module may have taken over since.
        let module = plan.module.take().map(|module| self.serving.get(&id).unwrap_or(module));
        // The letters of the table in force stay while another generation grows.
        if self.generation.is_none() {
            self.letters.forget_from(name, &self.location).await?;
        }
        let place = Place {
            name: name.clone(),
            location: self.location.clone(),
            feed: self.feed.clone(),
            settings: self.settings.clone(),
        };
        let writer = Writer::open(&place, &inbox.health).await?;
        Ok(Upsert {
            recipe: Recipe {
                derivation: Derivation::new(&id, module, Arc::clone(&self.serving), Arc::clone(&inbox.recent)),
                plan,
                place,
                generation: self.generation.unwrap_or(0),
                letters: Arc::clone(&self.letters),
                health: inbox.health.clone(),
                schema: None,
            },
            state: writer.map_or(State::Unmade, |writer| State::Made(Box::new(writer))),
            floors: Vec::new(),
        })
    }
}
