//! Which Gold tables run here, and what each reads.
//!
//! Where instances share the tables, a Gold table belongs to whoever has its driving table; alone, every one runs from the
//! start, so that another section or module is followed though nothing comes from the source.

use std::sync::Arc;

use super::Pipeline;
use super::task::gold::{GoldTask, InputSpec};
use super::task::writer::Place;
use crate::config::{GoldRows, Joined};
use crate::error::{Error, ErrorKind, Result};
use crate::model::table_id::TableId;

impl Pipeline {
    /// Starts the Gold tables of the pipeline file, where no other instance may have them.
    pub(super) fn start_gold(&mut self) {
        if !self.bronzes.are_shared() {
            let names: Vec<String> = self.config.gold.iter().map(|gold| gold.name.clone()).collect();
            names.iter().for_each(|name| self.start_gold_table(name));
        }
    }

    /// Starts those that a Silver table drives, which has been started here.
    pub(super) fn start_driven_gold(&mut self, silver: &TableId) {
        for id in self.gold_driven_by(silver) {
            if self.bronzes.are_shared() && self.tasks.get(&id).is_none() {
                self.start_gold_table(&id.name);
            }
        }
    }

    /// The Gold tables that a Silver table drives.
    pub(super) fn gold_driven_by(&self, silver: &TableId) -> Vec<TableId> {
        let driven = self.config.gold.iter().filter(|gold| match &gold.rows {
            GoldRows::Joined(joined) => joined.from == *silver.name,
            GoldRows::Sql { .. } => false,
        });
        driven.map(|gold| TableId::gold(gold.name.as_str())).collect()
    }

    /// Starts a Gold table, as the pipeline file and the serving modules have it by now.
    pub(super) fn start_gold_table(&mut self, name: &str) {
        let id = TableId::gold(name);
        match self.gold_task(&id) {
            Ok(Some(task)) => {
                self.progress.start_gold(&id);
                self.tasks.start(&id, Vec::new(), |inbox| task.work(inbox));
            }
            Ok(None) => {}
            Err(error) => self.tasks.stop(&id, error),
        }
    }

    fn gold_task(&mut self, id: &TableId) -> Result<Option<GoldTask>> {
        let Some(section) = self.config.gold.iter().find(|gold| gold.name == *id.name).cloned() else {
            return Ok(None);
        };
        let joined = match section.rows {
            GoldRows::Joined(joined) => joined,
            GoldRows::Sql { .. } => {
                let message = format!("gold `{}`: tables of a query are not made yet", id.name);
                return Err(Error::new(ErrorKind::Config, message).hint("take the section out"));
            }
        };
        Ok(Some(GoldTask {
            inputs: self.inputs_of(&joined)?,
            joined,
            partition_by: section.partition_by,
            place: Place {
                name: id.name.to_string(),
                location: self.root.table(&id.path())?,
                feed: None,
                settings: self.settings.clone(),
            },
            letters: Arc::clone(&self.letters),
            serving: Arc::clone(&self.serving),
            progress: Arc::clone(&self.progress),
        }))
    }

    fn inputs_of(&mut self, joined: &Joined) -> Result<Vec<InputSpec>> {
        let names = std::iter::once(&joined.from).chain(joined.lookups.iter().map(|lookup| &lookup.table));
        let mut inputs = Vec::new();
        for name in names {
            let silver = TableId::silver(name.as_str());
            let (location, committed) = (self.root.table(&silver.path())?, self.tasks.commits_of(&silver));
            inputs.push(InputSpec { name: name.clone(), location, committed });
        }
        Ok(inputs)
    }
}
