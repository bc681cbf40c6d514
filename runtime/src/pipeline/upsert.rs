//! From decoded changes to a committed Silver table: evolve, select, transform, dead letters, flush.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::columns::{align, arrow_error, is_wider, key_names, offered, same, with_defaults, with_pseudo_columns};
use super::retry::Backoff;
use crate::change::{Changes, Floor};
use crate::config::OnIncompatible;
use crate::deadletter::{DeadLetter, DeadLetters, Stage};
use crate::decode::BadRow;
use crate::error::{Action, Error, ErrorKind, Result};
use crate::failpoint;
use crate::record::{Positions, Ranges, still_missing};
use crate::schema::{Rename, RenamedColumn, TableSchema};
use crate::table::{KeyedTable, Location, Outcome, Rewritten, Selection, Settings, TableSpec};
use crate::transform::{Module, Prepared, Relation};

/// Time between two vacuums of a table that is written to.
const VACUUM_INTERVAL: Duration = Duration::from_secs(3600);

/// What one commit did.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) changes: u64,
    pub(super) rows: u64,
    pub(super) dead_letters: u64,
}

/// How the table is to be made.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) module: Option<(Module, Value)>,
    pub(super) partition_by: Vec<String>,
    /// what to do when the source changes a type or the key
    pub(super) on_incompatible: OnIncompatible,
}

impl Plan {
    /// Refuses columns that the table is not to follow: another key ever, a wider type only where the pipeline file says so.
    fn permit(&self, table: &KeyedTable, schema: &TableSchema, fields: &Schema) -> Result<()> {
        let key = key_names(schema);
        if key != table.key() {
            let (now, had) = (key.join(", "), table.key().join(", "));
            return Err(Error::new(
                ErrorKind::Config,
                format!("the source's key is now ({now}), the table's is ({had})"),
            )
            .hint("`lode rebuild` makes the table anew with another key"));
        }
        if self.on_incompatible == OnIncompatible::Evolve {
            return Ok(());
        }
        let changed = fields.fields().iter().find_map(|field| {
            let have = table.schema().field_with_name(field.name()).ok()?;
            let fits = have.data_type() == field.data_type() || is_wider(have.data_type(), field.data_type());
            (!fits).then_some((have, field))
        });
        let Some((have, field)) = changed else { return Ok(()) };
        let (name, from, to) = (field.name(), have.data_type(), field.data_type());
        Err(Error::new(ErrorKind::Config, format!("column `{name}` is {from} and was changed to {to} in the source"))
            .hint("`on_incompatible = \"evolve\"` lets the table follow where no value is lost"))
    }

    fn stopped(&self, error: &Error) -> Error {
        let message = format!("silver `{}`: {error}; `on_incompatible` is `stop`", self.name);
        Error::new(ErrorKind::Gap, message).hint(
            "set `on_incompatible` to `evolve` or `dead_letter` to go on from here, or remove the table: it is then made anew",
        )
    }
}

/// One Silver table and what writes it.
pub(super) struct Upsert {
    plan: Plan,
    location: Location,
    settings: Settings,
    letters: Arc<DeadLetters>,
    table: Option<KeyedTable>,
    /// as the table had them at start
    positions: Positions,
    /// the schema that the table, or its module, was last brought to
    schema: Option<Arc<TableSchema>>,
    prepared: Option<Arc<Prepared>>,
    compaction: Option<JoinHandle<Result<Rewritten>>>,
    vacuumed: Instant,
}

impl Upsert {
    /// Opens the table if it is there; it is made when the first schema is known.
    pub(super) async fn open(
        plan: Plan,
        location: Location,
        settings: Settings,
        letters: Arc<DeadLetters>,
    ) -> Result<Self> {
        let table = KeyedTable::open(location.clone(), settings.clone()).await?;
        let positions = table.as_ref().map(|t| t.positions().clone()).unwrap_or_default();
        letters.forget_from(&plan.name, &positions).await?;
        Ok(Upsert {
            plan,
            location,
            settings,
            letters,
            table,
            positions,
            schema: None,
            prepared: None,
            compaction: None,
            vacuumed: Instant::now(),
        })
    }

    /// Next offset of each Kafka partition, as committed at start.
    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// True once there is a table to commit to.
    pub(super) fn is_made(&self) -> bool {
        self.table.is_some()
    }

    /// The decoder's epochs, as committed.
    pub(super) fn epochs(&self) -> Option<&str> {
        self.table.as_ref().and_then(KeyedTable::epochs)
    }

    /// True when `schema` is not what the table was last brought to.
    pub(super) fn needs(&self, schema: &TableSchema) -> bool {
        self.table.is_some() && !self.schema.as_deref().is_some_and(|known| same(known, schema))
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
            let mut backoff = Backoff::new();
            while let Err(error) = table.rename(rename).await {
                match error.action() {
                    Action::Retry => backoff.wait(&self.plan.name, &error).await,
                    _ => return Err(error),
                }
            }
            for RenamedColumn { from, to, .. } in &rename.columns {
                tracing::info!(table = %self.plan.name, from, to, "column renamed, as in the source");
            }
            self.schema = None;
        }
        Ok(())
    }

    /// Brings the table to `schema`: columns are added and widened, never taken away.
    pub(super) async fn follow(&mut self, schema: &Arc<TableSchema>) -> Result<()> {
        let (fields, prepared) = self.target(schema)?;
        if let Some(table) = &self.table {
            self.plan.permit(table, schema, &fields)?;
        }
        if self.table.is_none() {
            let spec = TableSpec {
                name: format!("silver/{}", self.plan.name),
                fields: Arc::clone(&fields),
                key: key_names(schema),
                renamed: schema.renamed,
                partition_by: self.plan.partition_by.clone(),
            };
            let mut backoff = Backoff::new();
            self.table = Some(loop {
                match KeyedTable::open_or_create(self.location.clone(), spec.clone(), self.settings.clone()).await {
                    Ok(table) => break table,
                    Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                    Err(error) => return Err(error),
                }
            });
        }
        let Some(table) = &mut self.table else { return Err(unmade(&self.plan.name)) };
        let fills: HashMap<String, ArrayRef> = if prepared.is_some() {
            HashMap::new()
        } else {
            let named = schema.fields.fields().iter().zip(&schema.defaults);
            named.filter_map(|(f, d)| Some((f.name().clone(), d.clone()?))).collect()
        };
        let mut backoff = Backoff::new();
        loop {
            match table.evolve(&fields, &fills).await {
                Ok(Outcome::Fenced) => return Err(went_back(&self.plan.name)),
                Ok(_) => break,
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                Err(error) => return Err(error),
            }
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
        let offered = offered(&schema.fields);
        let relation = Relation { name: &schema.table, schema: offered, key: key_names(schema) };
        let prepared = module.describe(params, &[relation])?;
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
        key_names(schema)
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
        bad: &[BadRow],
        ranges: &Ranges,
        epochs: String,
    ) -> Result<Counts> {
        let mut fitting = Vec::with_capacity(changes.len());
        let mut bad = bad.to_vec();
        for chunk in changes {
            if self.schema.is_none() || self.needs(&chunk.schema) && self.is_newer(&chunk.schema) {
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
            // Nothing but bad rows so far, and no schema to make a table of: they are read again at the next start.
            counts.dead_letters = self.set_aside(bad, Vec::new(), None).await?;
            return Ok(counts);
        }
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
            let positions = self.table.as_ref().map(|t| t.positions().clone()).unwrap_or_default();
            ranges = still_missing(&ranges, &positions).ok_or_else(|| went_back(&self.plan.name))?;
        }
        Ok(counts)
    }

    /// One try to commit `ranges`; false when the table holds some of them already.
    async fn commit(
        &mut self,
        changes: &[Changes],
        floors: &[Floor],
        bad: &[BadRow],
        ranges: &Ranges,
        epochs: &str,
        counts: &mut Counts,
    ) -> Result<bool> {
        let Some(table) = &self.table else { return Err(unmade(&self.plan.name)) };
        let selection = table.select(changes, floors)?;
        let (output, source_rows, rejected) = self.transform(&selection).await?;
        let module = self.plan.module.as_ref().map(|(m, _)| m.sha256());
        let mut letters = Vec::new();
        let mut rejected_rows = Vec::new();
        for (row, reason) in rejected {
            rejected_rows.push(row);
            if let Some(origin) = selection.origin(row as usize) {
                letters.push(DeadLetter {
                    topic: Arc::clone(&origin.topic),
                    partition: origin.partition,
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
        let Some(table) = &mut self.table else { return Err(unmade(&self.plan.name)) };
        if table.epochs() != Some(epochs) {
            table.set_epochs(epochs);
        }
        let mut backoff = Backoff::new();
        loop {
            let done =
                table.flush(&selection, &output, source_rows.as_deref(), &rejected_rows, ranges, info.clone()).await;
            match done {
                Ok(Outcome::Fenced) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// True when `schema` has a column that the table lacks, a wider one or another key: an older structure brings nothing.
    fn is_newer(&self, schema: &TableSchema) -> bool {
        let Some(known) = &self.schema else { return true };
        key_names(schema) != key_names(known)
            || schema.fields.fields().iter().any(|f| match known.fields.field_with_name(f.name()) {
                Err(_) => true,
                Ok(have) => have.data_type() != f.data_type() && !is_wider(have.data_type(), f.data_type()),
            })
    }

    /// Output rows, for each its row of the selection, and the rows rejected with the reason.
    async fn transform(&self, selection: &Selection) -> Result<(RecordBatch, Option<Vec<u32>>, Vec<(u32, String)>)> {
        let Some(table) = &self.table else { return Err(unmade(&self.plan.name)) };
        if selection.upserts().num_rows() == 0 {
            return Ok((RecordBatch::new_empty(Arc::clone(table.schema())), None, Vec::new()));
        }
        let Some(schema) = self.schema.clone() else { return Err(unmade(&self.plan.name)) };
        let Some(prepared) = self.prepared.clone() else {
            return Ok((align(selection.upserts(), table.schema())?, None, Vec::new()));
        };
        let upserts = align(selection.upserts(), &with_defaults(&schema))?;
        let input = with_pseudo_columns(&upserts, selection)?;
        let applied = tokio::task::spawn_blocking(move || prepared.apply(&input))
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "a transform's thread ended").caused_by(e))??;
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
        Ok((align(&rows, table.schema())?, applied.source_rows, applied.rejected))
    }

    async fn set_aside(&self, bad: &[BadRow], mut letters: Vec<DeadLetter>, module: Option<String>) -> Result<u64> {
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
        let mut backoff = Backoff::new();
        loop {
            match self.letters.write(&letters).await {
                Ok(()) => break,
                Err(error) if error.action() == Action::Retry => backoff.wait("dead_letters", &error).await,
                Err(error) => return Err(error),
            }
        }
        failpoint::pass("dead_letters.after_write");
        Ok(letters.len() as u64)
    }

    /// Upkeep that is due, between two flushes. Compaction reads and writes files beside the stream; only its commit
    /// takes a turn here.
    pub(super) async fn maintain(&mut self) -> Result<()> {
        match self.upkeep().await {
            // Upkeep can wait: the next flush brings it up again.
            Err(error) if error.action() == Action::Retry => {
                tracing::warn!(table = %self.plan.name, %error, "maintenance put off");
                Ok(())
            }
            other => other,
        }
    }

    async fn upkeep(&mut self) -> Result<()> {
        let Some(table) = &mut self.table else { return Ok(()) };
        if self.compaction.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(done) = self.compaction.take()
        {
            let rewritten =
                done.await.map_err(|e| Error::new(ErrorKind::Internal, "a compaction's task ended").caused_by(e))??;
            table.commit_compaction(rewritten).await?;
        }
        if self.compaction.is_none()
            && let Some(plan) = table.plan_compaction()
        {
            self.compaction = Some(tokio::spawn(plan.rewrite()));
        }
        table.checkpoint().await?;
        table.merge_owners().await?;
        if self.vacuumed.elapsed() >= VACUUM_INTERVAL {
            self.vacuumed = Instant::now();
            table.vacuum().await?;
        }
        Ok(())
    }

    /// The end of a run: a compaction that still works is given up, what it wrote is left to vacuum.
    pub(super) async fn settle(&mut self) -> Result<()> {
        if let Some(running) = self.compaction.take() {
            running.abort();
        }
        Ok(())
    }
}

/// The rows of a structure that the table cannot take, set aside.
fn refused<'a>(chunk: &'a Changes, error: &'a Error) -> impl Iterator<Item = BadRow> + 'a {
    chunk.partitions.iter().zip(&chunk.offsets).map(move |(&partition, &offset)| BadRow {
        topic: Arc::clone(&chunk.topic),
        partition,
        offset,
        reason: error.to_string(),
    })
}

fn went_back(table: &str) -> Error {
    Error::new(ErrorKind::Fenced, format!("silver `{table}`: the table stands before what was read"))
        .hint("it was restored to an older version while `lode` ran; start `lode` again")
}

fn unmade(table: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("silver `{table}` is not made yet"))
}
