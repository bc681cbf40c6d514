//! From decoded changes to a committed Silver table: evolve, select, derive, dead letters, commit.
//!
//! Receives the changes of a batch and the ranges of offsets they stand for. Promises that both are in one commit, and
//! that dead letters and files of the feed are written before it. A table is made once a schema is known; until then
//! only dead letters are written. Never commits a range that the table has.

mod opening;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use serde_json::{Map, Value};

use super::plan::SilverSpec;
use crate::config::OnIncompatible;
use crate::decode::BadRecord;
use crate::error::{Action, Error, ErrorKind, Result};
use crate::failpoint;
use crate::lake::dead_letters::{DeadLetter, DeadLetters, Stage};
use crate::lake::{ChangesTable, Freshness, KeyedTable, Memo, Pace, Selection, TableSpec};
use crate::model::change::{Changes, Floor};
use crate::model::positions::{PartitionId, Positions, Ranges};
use crate::model::schema::widen::{align, widest};
use crate::model::schema::{Rename, TableSchema};
use crate::pipeline::observe::progress::{ModuleUse, TableState};
use crate::pipeline::task::columns::{brings, same, source_key, stored_key, with_defaults, with_pseudo_columns};
use crate::pipeline::task::derivation::{Derivation, Derived, Offer};
use crate::pipeline::task::writer::{Place, Writer};
use crate::pipeline::task::{Ending, Health, retrying};
use crate::transform::Module;

pub(in crate::pipeline) use opening::Opening;

/// What one commit did.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Counts {
    pub(in crate::pipeline) changes: u64,
    pub(in crate::pipeline) rows: u64,
    pub(in crate::pipeline) dead_letters: u64,
    /// rows that the module rejected, or that made it fail
    pub(in crate::pipeline) rejected: u64,
    pub(in crate::pipeline) module: ModuleUse,
}

/// One Silver table: how its rows are made, and what writes them once it is made.
pub(in crate::pipeline) struct Upsert {
    recipe: Recipe,
    state: State,
    /// met before the table's first commit; should the process end before it, everything is read again
    floors: Vec<Floor>,
}

enum State {
    /// no schema is known to make a table of
    Unmade,
    Made(Box<Writer>),
}

/// How the table's rows are made, and what becomes of changes that make none.
struct Recipe {
    /// without the module, which the derivation has
    plan: SilverSpec,
    place: Place,
    /// of the table when it is made
    generation: u64,
    letters: Arc<DeadLetters>,
    health: Health,
    derivation: Derivation,
    /// the schema that the table was last brought to; `None`: it is looked at with the next rows
    schema: Option<Arc<TableSchema>>,
}

/// What is to be committed together.
struct Batch<'a> {
    changes: &'a [Changes],
    floors: &'a [Floor],
    bad: &'a [BadRecord],
    epochs: &'a str,
}

impl Upsert {
    fn made(&self) -> Option<&KeyedTable> {
        match &self.state {
            State::Made(writer) => Some(writer.table()),
            State::Unmade => None,
        }
    }

    /// Next offset of each Kafka partition, as committed.
    pub(in crate::pipeline) fn positions(&self) -> &Positions {
        static NONE: Positions = Positions::new();
        self.made().map_or(&NONE, KeyedTable::positions)
    }

    /// True once there is a table to commit to.
    pub(in crate::pipeline) fn is_made(&self) -> bool {
        self.made().is_some()
    }

    /// The decoder's epochs, as committed.
    pub(in crate::pipeline) fn epochs(&self) -> Option<&str> {
        self.made().and_then(|table| table.memo(Memo::Epochs))
    }

    /// How the table stands, as committed.
    pub(in crate::pipeline) fn stand(&mut self) -> TableState {
        match &mut self.state {
            State::Made(writer) => writer.stand(),
            State::Unmade => TableState::default(),
        }
    }

    /// True when the table was last brought to something else than `schema`, whose columns may be narrower.
    pub(in crate::pipeline) fn needs(&self, schema: &Arc<TableSchema>) -> bool {
        let brought_to = |known: &TableSchema| same(known, &widest(schema, known));
        self.is_made() && !self.recipe.schema.as_deref().is_some_and(brought_to)
    }

    /// [`Rename::mark`] of the last renaming that the table has followed; a module's output has names of its own.
    pub(in crate::pipeline) fn renamed(&self) -> i64 {
        self.made().map_or(0, |table| self.recipe.renamed(table))
    }

    /// Gives columns the names that they got in the source, each renaming once.
    pub(in crate::pipeline) async fn rename(&mut self, renames: &[Arc<Rename>]) -> Result<()> {
        if let State::Made(writer) = &mut self.state
            && self.recipe.derivation.is_copy()
            && writer.rename(renames).await?
        {
            self.recipe.schema = None;
        }
        Ok(())
    }

    /// Brings the table to `schema`, or makes it: columns are added and widened, never taken away.
    pub(in crate::pipeline) async fn follow(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        match &mut self.state {
            State::Made(writer) => self.recipe.follow(writer, schema).await,
            State::Unmade => {
                self.state = State::Made(Box::new(self.recipe.make(schema).await?));
                Ok(())
            }
        }
    }

    /// From the next batch on, `module` with `params` makes the table's rows.
    ///
    /// # Errors
    /// Why it does not; the module before goes on.
    pub(in crate::pipeline) async fn adopt(&mut self, module: Module, params: Value) -> Result<()> {
        let before = self.recipe.derivation.exchange(module, params);
        if let Some(schema) = self.recipe.schema.clone()
            && let Err(error) = self.follow(&schema).await
        {
            self.recipe.derivation.put_back(before);
            return Err(error);
        }
        self.recipe.derivation.begin_probation(before);
        Ok(())
    }

    /// Applies one batch in one commit.
    pub(in crate::pipeline) async fn write(
        &mut self,
        changes: &[Changes],
        floors: &[Floor],
        bad: &[BadRecord],
        ranges: &Ranges,
        epochs: String,
    ) -> Result<Counts> {
        let (changes, bad) = self.fitting(changes, bad).await?;
        self.floors.extend_from_slice(floors);
        match &mut self.state {
            State::Unmade => {
                let dead_letters = self.recipe.set_aside(&bad, Vec::new(), None).await?;
                Ok(Counts { dead_letters, ..Counts::default() })
            }
            State::Made(writer) => {
                let floors = std::mem::take(&mut self.floors);
                let batch = Batch { changes: &changes, floors: &floors, bad: &bad, epochs: &epochs };
                self.recipe.write(writer, &batch, ranges).await
            }
        }
    }

    /// The changes that the table can take, after it was brought to their newest structure, and what is to be set aside.
    async fn fitting(&mut self, changes: &[Changes], bad: &[BadRecord]) -> Result<(Vec<Changes>, Vec<BadRecord>)> {
        let mut fitting = Vec::with_capacity(changes.len());
        let mut bad = bad.to_vec();
        for chunk in changes {
            let is_due = self.recipe.schema.as_deref().is_none_or(|known| brings(&chunk.schema, known));
            let followed = if is_due { self.follow(&chunk.schema).await } else { Ok(()) };
            match followed {
                Ok(()) => fitting.push(chunk.clone()),
                Err(error) if self.is_made() && error.action() == Action::DeadLetter => {
                    if self.recipe.plan.on_incompatible == OnIncompatible::Stop {
                        return Err(self.recipe.plan.stopped(&error));
                    }
                    bad.extend(refused(chunk, &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((fitting, bad))
    }

    /// Upkeep that is due, between two commits.
    pub(in crate::pipeline) async fn maintain(&mut self, pace: Pace) {
        if let State::Made(writer) = &mut self.state {
            writer.tend(pace).await;
        }
    }

    /// The end of a run, for the table's upkeep.
    pub(in crate::pipeline) async fn finish(&mut self, ending: Ending) {
        if let State::Made(writer) = &mut self.state {
            writer.finish(ending).await;
        }
    }
}

impl Recipe {
    fn renamed(&self, table: &KeyedTable) -> i64 {
        if self.derivation.is_copy() { table.renamed() } else { 0 }
    }

    /// By column, the value that rows get which were there before the column was.
    fn fills(&self, schema: &TableSchema) -> HashMap<String, ArrayRef> {
        if !self.derivation.is_copy() {
            return HashMap::new();
        }
        let named = schema.fields.fields().iter().zip(&schema.defaults);
        named.filter_map(|(field, default)| Some((field.name().clone(), default.clone()?))).collect()
    }

    async fn make(&mut self, schema: &Arc<TableSchema>) -> Result<Writer> {
        let offer = Offer::of_source(schema);
        let described = self.derivation.describe(&offer)?;
        let fields = described.fields();
        if self.plan.changes {
            ChangesTable::check(fields, &source_key(schema))?;
        }
        let spec = TableSpec {
            name: format!("silver/{}", self.plan.name),
            fields: Arc::clone(fields),
            key: stored_key(schema, fields),
            renamed: schema.renamed,
            generation: self.generation,
            partition_by: self.plan.partition_by.clone(),
            freshness: Freshness::Newer,
        };
        let writer = Writer::make(&self.place, &self.health, spec, &self.fills(schema)).await?;
        self.derivation.take_up(described, offer, writer.columns());
        self.schema = Some(Arc::clone(schema));
        Ok(writer)
    }

    async fn follow(&mut self, writer: &mut Writer, schema: &Arc<TableSchema>) -> Result<()> {
        // rows of a wider structure may still come in the same batch, and a module must not get them cut
        let schema = &self.schema.as_deref().map_or_else(|| Arc::clone(schema), |known| widest(schema, known));
        let offer = Offer::of_source(schema);
        let described = self.derivation.describe(&offer)?;
        self.plan.permit(writer.table(), schema, described.fields())?;
        writer.evolve(described.fields(), &self.fills(schema)).await?;
        self.derivation.take_up(described, offer, writer.columns());
        self.schema = Some(Arc::clone(schema));
        Ok(())
    }

    async fn write(&mut self, writer: &mut Writer, batch: &Batch<'_>, ranges: &Ranges) -> Result<Counts> {
        let renamed = self.renamed(writer.table());
        let mut counts =
            Counts { changes: batch.changes.iter().map(|c| c.ops.len() as u64).sum(), ..Counts::default() };
        let mut ranges = ranges.clone();
        while !ranges.is_empty() && !self.commit(writer, batch, &ranges, &mut counts).await? {
            if self.renamed(writer.table()) != renamed {
                let message = format!("silver `{}`: another instance gave its columns other names", self.plan.name);
                return Err(Error::new(ErrorKind::Fenced, message).hint("start this instance again"));
            }
            // Another instance was faster with some of it: what is left is selected and derived anew.
            ranges = writer.missing_of(&ranges)?;
        }
        Ok(counts)
    }

    /// One try to commit `ranges`; false when the table holds some of them already.
    async fn commit(
        &mut self,
        writer: &mut Writer,
        batch: &Batch<'_>,
        ranges: &Ranges,
        counts: &mut Counts,
    ) -> Result<bool> {
        let selected = writer.select(batch.changes, batch.floors).await?;
        let selection = selected.selection();
        let derived = self.derive(writer, selection).await?;
        let rejected = self.letters_of(&derived, selection);
        counts.module.add(derived.used);
        counts.rejected = derived.rejected.len() as u64;
        counts.rows = derived.rows.num_rows() as u64;
        let module = self.derivation.module_hash();
        counts.dead_letters = self.set_aside(batch.bad, rejected, module.clone()).await?;
        let mut info = Map::new();
        info.insert("changes".to_owned(), counts.changes.into());
        info.insert("rows".to_owned(), counts.rows.into());
        info.insert("dead_letters".to_owned(), counts.dead_letters.into());
        if let Some(module) = module {
            info.insert("module".to_owned(), module.into());
        }
        writer.commit(selected, derived, ranges, batch.epochs, info).await
    }

    /// The rows of `selection`; where a module on probation fails on them, those of the module before it.
    async fn derive(&mut self, writer: &mut Writer, selection: &Selection) -> Result<Derived> {
        let derived = self.derivation.derive(self.input(selection)?, writer.table().schema()).await;
        let Some(failure) = self.derivation.judge(&derived, selection.upserts().num_rows()) else { return derived };
        self.derivation.roll_back(&failure);
        if let Some(schema) = self.schema.clone() {
            self.follow(writer, &schema).await?;
        }
        self.derivation.derive(self.input(selection)?, writer.table().schema()).await
    }

    /// The rows of `selection` as the derivation reads them.
    fn input(&self, selection: &Selection) -> Result<RecordBatch> {
        let rows = selection.upserts();
        match &self.schema {
            Some(schema) if !self.derivation.is_copy() && rows.num_rows() > 0 => {
                with_pseudo_columns(&align(rows, &with_defaults(schema))?, selection)
            }
            _ => Ok(rows.clone()),
        }
    }

    fn letters_of(&self, derived: &Derived, selection: &Selection) -> Vec<DeadLetter> {
        let module = self.derivation.module_hash();
        let letter = |(row, reason): &(u32, String)| {
            let origin = selection.origin(*row as usize)?;
            let PartitionId { topic, partition } = origin.input.partition()?;
            Some(DeadLetter {
                topic: Arc::clone(topic),
                partition: *partition,
                offset: origin.offset,
                stage: Stage::Transform,
                table: self.plan.name.clone(),
                reason: reason.clone(),
                module: module.clone(),
            })
        };
        derived.rejected.iter().filter_map(letter).collect()
    }

    /// Writes `letters` and those of `bad`; how many.
    async fn set_aside(&self, bad: &[BadRecord], mut letters: Vec<DeadLetter>, module: Option<String>) -> Result<u64> {
        letters.extend(bad.iter().map(|row| DeadLetter {
            topic: Arc::clone(&row.topic),
            partition: row.partition,
            offset: row.offset,
            stage: Stage::Decode,
            table: self.plan.name.clone(),
            reason: row.reason.clone(),
            module: module.clone(),
        }));
        if letters.is_empty() {
            return Ok(0);
        }
        retrying!(&self.health, self.letters.write(&letters))?;
        failpoint::pass("dead_letters.after_write");
        Ok(letters.len() as u64)
    }
}

/// The rows of a structure that the table cannot take, set aside.
fn refused<'a>(chunk: &'a Changes, error: &'a Error) -> impl Iterator<Item = BadRecord> + 'a {
    chunk.records.iter().flat_map(move |records| {
        records.partitions.iter().zip(&records.offsets).map(move |(&partition, &offset)| BadRecord {
            topic: Arc::clone(&records.topic),
            partition,
            offset,
            reason: error.to_string(),
        })
    })
}

#[cfg(test)]
mod tests;
