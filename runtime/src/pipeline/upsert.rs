//! From decoded changes to a committed Silver table: evolve, select, transform, dead letters, flush.
//!
//! Receives the changes of a batch and the ranges of offsets they stand for. Promises that both are in one commit, and
//! that dead letters and files of the feed are written before it. Never commits a range that the table has.

mod feed;
mod opening;
mod probation;
mod upkeep;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::chore::Chore;
use super::columns::{arrow_error, brings, same, source_key, stored_key, with_defaults, with_pseudo_columns};
use super::packing::Packing;
use super::plan::Plan;
use super::progress::ModuleUse;
use super::reload::Serving;
use super::task::{Health, retrying};
use super::trial::{Recent, relation};
use crate::change::{Changes, Floor};
use crate::config::OnIncompatible;
use crate::deadletter::{DeadLetter, DeadLetters, Stage};
use crate::decode::BadRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::record::{PartitionId, Positions, Ranges};
use crate::schema::widen::{align, widest};
use crate::schema::{Rename, RenamedColumn, TableSchema};
use crate::table::{
    ChangesTable, Freshness, KeyedTable, Location, News, Outcome, OwnerRows, Rewritten, Selection, Settings, Settled,
    TableSpec,
};
use crate::transform::{Module, Prepared};
use opening::open_feed;

pub(super) use opening::Opening;

/// What one commit did.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) changes: u64,
    pub(super) rows: u64,
    pub(super) dead_letters: u64,
    /// rows that the module rejected, or that made it fail
    pub(super) rejected: u64,
    pub(super) module: ModuleUse,
}

/// What a selection has become.
struct Transformed {
    output: RecordBatch,
    /// for each output row its row of the selection; `None`: one to one
    source_rows: Option<Vec<u32>>,
    /// rows that have no output, with the reason
    rejected: Vec<(u32, String)>,
    /// how many of them made the module fail
    failed: usize,
    used: ModuleUse,
}

impl Transformed {
    fn untouched(output: RecordBatch) -> Self {
        let used = ModuleUse::default();
        Transformed { output, source_rows: None, rejected: Vec::new(), failed: 0, used }
    }
}

/// One Silver table and what writes it.
pub(super) struct Upsert {
    plan: Plan,
    location: Location,
    /// of the table when it is made
    generation: u64,
    settings: Settings,
    letters: Arc<DeadLetters>,
    health: Health,
    table: Option<KeyedTable>,
    feed_at: Option<Location>,
    /// open whenever the table is and the plan asks for it
    feed: Option<ChangesTable>,
    /// as the table had them at start
    positions: Positions,
    /// floors met before the table could be made
    floors: Vec<Floor>,
    /// the schema that the table, or its module, was last brought to
    schema: Option<Arc<TableSchema>>,
    prepared: Option<Arc<Prepared>>,
    serving: Arc<Serving>,
    recent: Arc<Recent>,
    /// the module that served before, and the commits left in which it can come back
    prior: Option<(Module, Value, u32)>,
    compaction: Option<JoinHandle<Result<Rewritten>>>,
    checkpoint: Chore,
    vacuum: Chore,
    feed_checkpoint: Chore,
    /// of the feed
    packing: Packing,
    vacuumed: Instant,
    /// what the index took when it was last looked at, and when that was
    index_bytes: Option<(usize, Instant)>,
}

impl Upsert {
    /// Next offset of each Kafka partition, as committed at start.
    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Next offset of each Kafka partition, as committed by now.
    pub(super) fn stands(&self) -> &Positions {
        self.table.as_ref().map_or(&self.positions, KeyedTable::positions)
    }

    /// True once there is a table to commit to.
    pub(super) fn is_made(&self) -> bool {
        self.table.is_some()
    }

    /// The decoder's epochs, as committed.
    pub(super) fn epochs(&self) -> Option<&str> {
        self.table.as_ref().and_then(KeyedTable::epochs)
    }

    /// True when the table was last brought to something else than `schema`, whose columns may be narrower.
    pub(super) fn needs(&self, schema: &Arc<TableSchema>) -> bool {
        let brought_to = |known: &TableSchema| same(known, &widest(schema, known));
        self.table.is_some() && !self.schema.as_deref().is_some_and(brought_to)
    }

    /// [`Rename::mark`] of the last renaming that the table has followed; a module's output has names of its own.
    pub(super) fn renamed(&self) -> i64 {
        self.table.as_ref().filter(|_| self.plan.module.is_none()).map_or(0, KeyedTable::renamed)
    }

    /// Gives columns the names that they got in the source, each renaming once.
    pub(super) async fn rename(&mut self, renames: &[Arc<Rename>]) -> Result<()> {
        if self.plan.module.is_some() {
            return Ok(());
        }
        let Some(table) = &mut self.table else { return Ok(()) };
        for rename in renames {
            if rename.mark <= table.renamed() {
                continue;
            }
            retrying!(&self.health, table.rename(rename))?;
            for RenamedColumn { from, to, .. } in &rename.columns {
                tracing::info!(table = %self.plan.name, from, to, "column renamed, as in the source");
            }
            self.schema = None;
        }
        Ok(())
    }

    /// Brings the table to `schema`: columns are added and widened, never taken away.
    pub(super) async fn follow(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        // rows of a wider structure may still come in the same batch, and a module must not get them cut
        let schema = &self.schema.as_deref().map_or_else(|| Arc::clone(schema), |known| widest(schema, known));
        let (fields, prepared) = self.target(schema)?;
        if let Some(table) = &self.table {
            self.plan.permit(table, schema, &fields)?;
        }
        if self.table.is_none() {
            if self.plan.changes {
                ChangesTable::check(&fields, &source_key(schema))?;
            }
            let spec = TableSpec {
                name: format!("silver/{}", self.plan.name),
                fields: Arc::clone(&fields),
                key: stored_key(schema, &fields),
                renamed: schema.renamed,
                generation: self.generation,
                partition_by: self.plan.partition_by.clone(),
                freshness: Freshness::Newer,
            };
            self.table = Some(retrying!(
                &self.health,
                KeyedTable::open_or_create(self.location.clone(), spec.clone(), self.settings.clone())
            )?);
        }
        let Some(table) = &mut self.table else { return Err(unmade(&self.plan.name)) };
        let fills: HashMap<String, ArrayRef> = if prepared.is_some() {
            HashMap::new()
        } else {
            let named = schema.fields.fields().iter().zip(&schema.defaults);
            named.filter_map(|(f, d)| Some((f.name().clone(), d.clone()?))).collect()
        };
        if matches!(retrying!(&self.health, table.evolve(&fields, &fills))?, Outcome::Fenced) {
            return Err(went_back(&self.plan.name));
        }
        if let Some(at) = &self.feed_at {
            self.feed = Some(retrying!(&self.health, open_feed(at, &self.plan.name, table, &fills))?);
        }
        if self.plan.module.is_some() {
            self.recent.note_schema(schema, table.columns(), prepared.clone());
        }
        self.prepared = prepared;
        self.schema = Some(Arc::clone(schema));
        Ok(())
    }

    /// The table's columns for `schema`, and the module described against it.
    fn target(&self, schema: &Arc<TableSchema>) -> Result<(SchemaRef, Option<Arc<Prepared>>)> {
        let Some((module, params)) = &self.plan.module else {
            return Ok((with_defaults(schema), None));
        };
        let prepared = module.describe(params, &[relation(schema)])?;
        let mut fields: Vec<Arc<Field>> = prepared.schema().fields().iter().cloned().collect();
        for (source, stored) in self.dropped_keys(schema, prepared.schema()) {
            if let Some((_, field)) = schema.fields.fields().find(&source) {
                fields.push(Arc::new(field.as_ref().clone().with_name(stored)));
            }
        }
        Ok((Arc::new(Schema::new(fields)), Some(Arc::new(prepared))))
    }

    /// Owner key columns that the module's output lacks, with the name that the host keeps them under.
    fn dropped_keys(&self, schema: &TableSchema, output: &Schema) -> Vec<(String, String)> {
        source_key(schema)
            .into_iter()
            .filter(|k| output.column_with_name(k).is_none())
            .map(|k| (k.clone(), format!("_key_{k}")))
            .collect()
    }

    /// Applies one batch in one commit.
    pub(super) async fn write(
        &mut self,
        changes: &[Changes],
        floors: &[Floor],
        bad: &[BadRecord],
        ranges: &Ranges,
        epochs: String,
    ) -> Result<Counts> {
        let mut fitting = Vec::with_capacity(changes.len());
        let mut bad = bad.to_vec();
        for chunk in changes {
            if self.schema.as_deref().is_none_or(|known| brings(&chunk.schema, known)) {
                match self.follow(&chunk.schema).await {
                    Ok(()) => {}
                    Err(error) if self.table.is_some() && error.kind() == ErrorKind::Config => {
                        if self.plan.on_incompatible == OnIncompatible::Stop {
                            return Err(self.plan.stopped(&error));
                        }
                        bad.extend(refused(chunk, &error));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            fitting.push(chunk.clone());
        }
        let (changes, bad) = (fitting.as_slice(), bad.as_slice());
        let renamed = self.renamed();
        let mut counts = Counts::default();
        if self.table.is_none() {
            // No schema to make a table of yet. Floors are kept for the table's first commit; should the process end
            // before it, everything is read again.
            self.floors.extend_from_slice(floors);
            counts.dead_letters = self.set_aside(bad, Vec::new(), None).await?;
            return Ok(counts);
        }
        let mut kept = std::mem::take(&mut self.floors);
        kept.extend_from_slice(floors);
        let floors = kept.as_slice();
        counts.changes = changes.iter().map(|c| c.ops.len() as u64).sum();
        let mut ranges = ranges.clone();
        while !ranges.is_empty() {
            if self.commit(changes, floors, bad, &ranges, &epochs, &mut counts).await? {
                break;
            }
            if self.renamed() != renamed {
                let message = format!("silver `{}`: another instance gave its columns other names", self.plan.name);
                return Err(Error::new(ErrorKind::Fenced, message).hint("start this instance again"));
            }
            // Another instance was faster with some of it: what is left is selected and transformed anew.
            ranges = ranges.still_missing(self.stands()).ok_or_else(|| went_back(&self.plan.name))?;
        }
        Ok(counts)
    }

    /// One try to commit `ranges`; false when the table holds some of them already.
    async fn commit(
        &mut self,
        changes: &[Changes],
        floors: &[Floor],
        bad: &[BadRecord],
        ranges: &Ranges,
        epochs: &str,
        counts: &mut Counts,
    ) -> Result<bool> {
        let news = self.news(changes, floors).await?;
        let Some(table) = &self.table else { return Err(unmade(&self.plan.name)) };
        let own = if news.is_none() { Some(table.select(changes, floors)?) } else { None };
        let Some(selection) = news.as_ref().map(News::all).or(own.as_ref()) else {
            return Err(unmade(&self.plan.name));
        };
        let Transformed { output, source_rows, rejected, used, .. } = self.transform_or_roll_back(selection).await?;
        counts.module.add(used);
        counts.rejected = rejected.len() as u64;
        let module = self.plan.module.as_ref().map(|(m, _)| m.sha256());
        let mut letters = Vec::new();
        let mut rejected_rows = Vec::new();
        for (row, reason) in rejected {
            rejected_rows.push(row);
            if let Some(origin) = selection.origin(row as usize)
                && let Some(PartitionId { topic, partition }) = origin.input.partition()
            {
                letters.push(DeadLetter {
                    topic: Arc::clone(topic),
                    partition: *partition,
                    offset: origin.offset,
                    stage: Stage::Transform,
                    table: self.plan.name.clone(),
                    reason,
                    module: module.clone(),
                });
            }
        }
        counts.dead_letters = self.set_aside(bad, letters, module.clone()).await?;
        counts.rows = output.num_rows() as u64;
        let mut info = Map::new();
        info.insert("changes".to_owned(), counts.changes.into());
        info.insert("rows".to_owned(), counts.rows.into());
        info.insert("dead_letters".to_owned(), counts.dead_letters.into());
        if let Some(module) = module {
            info.insert("module".to_owned(), module.into());
        }
        let (selection, output, source_rows, rejected_rows) = match (news, own) {
            (Some(news), _) => {
                info.insert(
                    "feed".to_owned(),
                    self.feed_files(&news, &output, source_rows.as_deref(), &rejected_rows).await?,
                );
                let Some(table) = &self.table else { return Err(unmade(&self.plan.name)) };
                let Settled { selection, output, source_rows } =
                    news.settle(table, &output, source_rows.as_deref(), &rejected_rows)?;
                (selection, output, Some(source_rows), Vec::new())
            }
            (None, Some(selection)) => (selection, output, source_rows, rejected_rows),
            (None, None) => return Err(unmade(&self.plan.name)),
        };
        let Some(table) = &mut self.table else { return Err(unmade(&self.plan.name)) };
        if table.epochs() != Some(epochs) {
            table.set_epochs(epochs);
        }
        let rows = OwnerRows {
            selection: &selection,
            output: &output,
            source_rows: source_rows.as_deref(),
            rejected: &rejected_rows,
        };
        let outcome = retrying!(&self.health, table.replace(rows, ranges, info.clone()))?;
        if matches!(outcome, Outcome::Fenced) {
            return Ok(false);
        }
        self.complete_feed(&outcome).await?;
        Ok(true)
    }

    /// Puts the selection through the module, where there is one.
    async fn transform(&self, selection: &Selection) -> Result<Transformed> {
        let Some(table) = &self.table else { return Err(unmade(&self.plan.name)) };
        if selection.upserts().num_rows() == 0 {
            return Ok(Transformed::untouched(RecordBatch::new_empty(Arc::clone(table.schema()))));
        }
        let Some(schema) = self.schema.clone() else { return Err(unmade(&self.plan.name)) };
        let Some(prepared) = self.prepared.clone() else {
            return Ok(Transformed::untouched(align(selection.upserts(), table.schema())?));
        };
        let upserts = align(selection.upserts(), &with_defaults(&schema))?;
        let input = with_pseudo_columns(&upserts, selection)?;
        let kept = input.clone();
        let (applied, took) = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            (prepared.apply(&input), begun.elapsed())
        })
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a transform's thread ended").caused_by(e))?;
        let applied = applied?;
        let rejected: Vec<u32> = applied.rejected.iter().map(|(row, _)| *row).collect();
        self.recent.note_batch(&kept, &rejected);
        for line in &applied.logs {
            tracing::info!(table = %self.plan.name, level = ?line.level, message = %line.message, "module");
        }
        let mut fields: Vec<Arc<Field>> = applied.rows.schema().fields().iter().cloned().collect();
        let mut columns = applied.rows.columns().to_vec();
        let picked = applied.source_rows.as_ref().map(|rows| UInt32Array::from(rows.clone()));
        for (source, stored) in self.dropped_keys(&schema, &applied.rows.schema()) {
            let Some(column) = upserts.column_by_name(&source) else { continue };
            let column = match &picked {
                Some(rows) => take(column, rows, None).map_err(arrow_error)?,
                None => Arc::clone(column),
            };
            fields.push(Arc::new(Field::new(stored, column.data_type().clone(), true)));
            columns.push(column);
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)?;
        Ok(Transformed {
            output: align(&rows, table.schema())?,
            source_rows: applied.source_rows,
            rejected: applied.rejected,
            failed: applied.failed,
            used: ModuleUse {
                calls: applied.calls as u64,
                seconds: took.as_secs_f64(),
                memory_bytes: applied.memory_bytes,
            },
        })
    }

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

fn went_back(table: &str) -> Error {
    Error::new(ErrorKind::Fenced, format!("silver `{table}`: the table stands before what was read"))
        .hint("it was restored to an older version while `lode` ran; start `lode` again")
}

fn unmade(table: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("silver `{table}` is not made yet"))
}
