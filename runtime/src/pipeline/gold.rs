//! Which Gold tables run here, and what each reads.
//!
//! Where instances share the tables, a Gold table belongs to whoever has its driving table, that of a query to whoever has
//! the first table that it leads back to; alone, every one runs from the start, so that another section or module is followed
//! though nothing comes from the source.

use std::sync::Arc;

use super::Pipeline;
use super::task::gold::whole::{WholeRows, WholeTask};
use super::task::gold::{GoldTask, InputSpec};
use super::task::writer::Place;
use super::topics::feed_name;
use crate::config::{Config, Gold, GoldRows, Joined, Query, nearest, resolve};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::{Lake, tables_named};
use crate::model::table_id::{Layer, TableId};

impl Pipeline {
    /// Starts the Gold tables of the pipeline file, where no other instance may have them.
    pub(super) fn start_gold(&mut self) {
        let is_ours = |gold: &&Gold| !self.bronzes.are_shared() || driver_of(&self.config, gold).is_none();
        let names: Vec<String> = self.config.gold.iter().filter(is_ours).map(|gold| gold.name.clone()).collect();
        names.iter().for_each(|name| self.start_gold_table(name));
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
        let driven = self.config.gold.iter().filter(|gold| driver_of(&self.config, gold).as_ref() == Some(silver));
        driven.map(|gold| TableId::gold(gold.name.as_str())).collect()
    }

    /// Starts a Gold table, as the pipeline file and the serving modules have it by now.
    pub(super) fn start_gold_table(&mut self, name: &str) {
        let id = TableId::gold(name);
        if let Err(error) = self.begin_gold(&id) {
            self.tasks.stop(&id, error);
        }
    }

    fn begin_gold(&mut self, id: &TableId) -> Result<()> {
        let Some(section) = self.config.gold.iter().find(|gold| gold.name == *id.name).cloned() else { return Ok(()) };
        let place = Place {
            name: id.name.to_string(),
            location: self.root.table(&id.path())?,
            feed: None,
            settings: self.settings.clone(),
        };
        let (partition_by, progress) = (section.partition_by, Arc::clone(&self.progress));
        let (rows, tables) = match section.rows {
            GoldRows::Joined(joined) => {
                let inputs = self.inputs_of(&joined)?;
                let (letters, serving) = (Arc::clone(&self.letters), Arc::clone(&self.serving));
                let task = GoldTask { joined, partition_by, inputs, place, letters, serving, progress };
                self.progress.start_gold(id);
                self.tasks.start(id, Vec::new(), |inbox| task.work(inbox));
                return Ok(());
            }
            GoldRows::Query(query) => {
                let read = reads_of(&self.config, &query)?;
                check_circle(&self.config, &id.name)?;
                let (written, tables) = read.into_iter().unzip();
                let memory_bytes = self.config.limits.query_memory_bytes;
                (WholeRows::Query { query, memory_bytes, written }, tables)
            }
            GoldRows::Calendar(days) => (WholeRows::Calendar(days), Vec::new()),
        };
        let inputs = tables.iter().map(|table| self.input(table, false)).collect::<Result<Vec<_>>>()?;
        let lake = Lake::new(self.root.clone());
        let task = WholeTask { rows, partition_by, inputs, lake, place, progress };
        // it ends after those that it reads
        let reads = tables.into_iter().filter(|table| table.layer == Layer::Gold).collect();
        self.progress.start_gold(id);
        self.tasks.start(id, reads, |inbox| task.work(inbox));
        Ok(())
    }

    fn inputs_of(&mut self, joined: &Joined) -> Result<Vec<InputSpec>> {
        let mut inputs = vec![self.input(&TableId::silver(joined.from.as_str()), false)?];
        for lookup in &joined.lookups {
            inputs.push(self.input(&TableId::silver(lookup.table.as_str()), lookup.as_of.is_some())?);
        }
        Ok(inputs)
    }

    /// A table that is read; with `feed` the changes of it.
    fn input(&mut self, id: &TableId, feed: bool) -> Result<InputSpec> {
        let (location, committed) = (self.root.table(&id.path())?, self.tasks.commits_of(id));
        let feed = feed.then(|| TableId::silver(feed_name(&id.name)));
        let feed = feed.map(|feed| Ok((self.root.table(&feed.path())?, feed))).transpose()?;
        Ok(InputSpec { id: id.clone(), location, feed, committed })
    }
}

/// The tables that a query reads, as it writes them and as the pipeline file names them.
fn reads_of(config: &Config, query: &Query) -> Result<Vec<(TableId, TableId)>> {
    let named = tables_named(&query.sql)?.into_iter().map(|written| {
        let silver = config.silver.iter().map(|table| table.name.as_str());
        let gold = config.gold.iter().map(|table| table.name.as_str());
        let table = match written.layer {
            Layer::Gold => TableId::gold(resolve(&written.name, gold.clone()).ok_or_else(|| {
                let near = nearest(&written.name, gold);
                let error = Error::new(ErrorKind::Config, format!("`{written}` is no table of the pipeline"));
                match near {
                    Some(near) => error.hint(format!("did you mean `gold.{near}`?")),
                    None => error.hint(format!("add a section `[{written}]`")),
                }
            })?),
            // it may be one that is mirrored
            _ => TableId::silver(resolve(&written.name, silver).unwrap_or(&written.name)),
        };
        Ok((written, table))
    });
    named.collect()
}

/// The Silver table whose owner has a Gold table: the one that drives it, or the first that its query leads back to.
fn driver_of(config: &Config, gold: &Gold) -> Option<TableId> {
    let mut gold = gold;
    // a circle is told of where the table is started
    for _ in 0..=config.gold.len() {
        match &gold.rows {
            GoldRows::Joined(joined) => return Some(TableId::silver(joined.from.as_str())),
            GoldRows::Calendar(_) => return None,
            GoldRows::Query(query) => {
                let reads = reads_of(config, query).ok()?;
                if let Some((_, table)) = reads.iter().find(|(_, table)| table.layer == Layer::Silver) {
                    return Some(table.clone());
                }
                let (_, first) = reads.first()?;
                gold = config.gold.iter().find(|table| table.name == *first.name)?;
            }
        }
    }
    None
}

/// Refuses queries that read each other.
fn check_circle(config: &Config, name: &str) -> Result<()> {
    let (mut seen, mut left) = (Vec::new(), vec![name.to_owned()]);
    while let Some(at) = left.pop() {
        let Some(GoldRows::Query(query)) = config.gold.iter().find(|gold| gold.name == at).map(|gold| &gold.rows)
        else {
            continue;
        };
        // what another table cannot read is told of there
        let reads = match reads_of(config, query) {
            Err(error) if at == name => return Err(error),
            reads => reads.unwrap_or_default(),
        };
        for (_, table) in reads.into_iter().filter(|(_, table)| table.layer == Layer::Gold) {
            if *table.name == *name {
                let message = match at == name {
                    true => format!("the query of gold `{name}` reads its own table"),
                    false => format!("the queries of gold `{name}` and gold `{at}` read each other"),
                };
                return Err(Error::new(ErrorKind::Config, message).hint("let one of them read Silver alone"));
            }
            if !seen.contains(&table.name) {
                seen.push(Arc::clone(&table.name));
                left.push(table.name.to_string());
            }
        }
    }
    Ok(())
}
