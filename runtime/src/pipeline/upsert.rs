//! From decoded changes to a committed Silver table: evolve, select, transform, dead letters, flush.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::columns::{
    align, arrow_error, default_of, is_wider, same, source_key, stored_key, with_defaults, with_pseudo_columns,
};
use super::packing::Packing;
use super::plan::Plan;
use super::reload::Serving;
use super::retry::Backoff;
use super::trial::{Recent, relation};
use crate::change::{Changes, Floor};
use crate::config::OnIncompatible;
use crate::deadletter::{DeadLetter, DeadLetters, Stage};
use crate::decode::BadRow;
use crate::error::{Action, Error, ErrorKind, Result};
use crate::failpoint;
use crate::record::{Positions, Ranges, still_missing};
use crate::schema::{Rename, RenamedColumn, TableSchema};
use crate::table::{
    ChangesTable, KeyedTable, Location, News, Outcome, Rewritten, Selection, Settings, Settled, TableSpec,
};
use crate::transform::{Module, Prepared};

/// Commits in which a module that took over can be taken back.
const PROBATION_COMMITS: u32 = 100;
/// Time between two vacuums of a table that is written to.
const VACUUM_INTERVAL: Duration = Duration::from_secs(3600);

/// What one commit did.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) changes: u64,
    pub(super) rows: u64,
    pub(super) dead_letters: u64,
}

/// What is needed to open a Silver table, once and again.
pub(super) struct Opening {
    pub(super) plan: Plan,
    pub(super) location: Location,
    /// where its feed of changes lies, if it has one
    pub(super) feed: Option<Location>,
    /// the generation that a rebuild makes; `None` outside of one
    pub(super) generation: Option<u64>,
    pub(super) settings: Settings,
    pub(super) letters: Arc<DeadLetters>,
    pub(super) serving: Arc<Serving>,
    pub(super) recent: Arc<Recent>,
}

impl Opening {
    /// Opens the table if it is there; it is made when the first schema is known.
    pub(super) async fn open(&self) -> Result<Upsert> {
        let mut backoff = Backoff::new();
        loop {
            match self.try_open().await {
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                other => return other,
            }
        }
    }

    async fn try_open(&self) -> Result<Upsert> {
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
            recent: Arc::clone(&self.recent),
            prior: None,
            compaction: None,
            packing: Packing::new(),
            vacuumed: Instant::now(),
        })
    }
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
}

impl Transformed {
    fn untouched(output: RecordBatch) -> Self {
        Transformed { output, source_rows: None, rejected: Vec::new(), failed: 0 }
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
    /// of the feed
    packing: Packing,
    vacuumed: Instant,
}

impl Upsert {
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

    /// From the next batch on, `module` with `params` makes the table's rows.
    ///
    /// # Errors
    /// Why it does not; the module before goes on.
    pub(super) async fn adopt(&mut self, module: Module, params: Value) -> Result<()> {
        let prior = self.plan.module.replace((module.clone(), params.clone()));
        if let Some(schema) = self.schema.clone()
            && let Err(error) = self.follow(&schema).await
        {
            self.plan.module = prior;
            return Err(error);
        }
        self.prior = prior.map(|(module, params)| (module, params, PROBATION_COMMITS));
        self.serving.set(&self.plan.name, module, params);
        Ok(())
    }

    /// Lets the module before serve again, after `error` of the one on probation; false where there is none.
    async fn roll_back(&mut self, error: &Error) -> Result<bool> {
        let Some((module, params, _)) = self.prior.take() else { return Ok(false) };
        let failed = self.plan.module.replace((module.clone(), params.clone()));
        if let Some(schema) = self.schema.clone() {
            self.follow(&schema).await?;
        }
        let sha256 = failed.map(|(failed, _)| failed.sha256());
        let back = module.sha256();
        self.serving.set(&self.plan.name, module, params);
        self.serving.refuse(
            &self.plan.name,
            sha256,
            &Error::new(ErrorKind::Module, format!("rolled back to the module `{back}`: {error}"))
                .hint("mend the module and replace its file"),
        );
        Ok(true)
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
        if let Some(at) = &self.feed_at {
            let mut backoff = Backoff::new();
            self.feed = Some(loop {
                match open_feed(at, &self.plan.name, table, &fills).await {
                    Ok(feed) => break feed,
                    Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                    Err(error) => return Err(error),
                }
            });
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
        let news = self.news(changes, floors).await?;
        let Some(table) = &self.table else { return Err(unmade(&self.plan.name)) };
        let own = if news.is_none() { Some(table.select(changes, floors)?) } else { None };
        let Some(selection) = news.as_ref().map(News::all).or(own.as_ref()) else {
            return Err(unmade(&self.plan.name));
        };
        let Transformed { output, source_rows, rejected, .. } = self.transform_or_roll_back(selection).await?;
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
        let mut backoff = Backoff::new();
        loop {
            let done =
                table.flush(&selection, &output, source_rows.as_deref(), &rejected_rows, ranges, info.clone()).await;
            match done {
                Ok(Outcome::Fenced) => return Ok(false),
                Ok(_) => break,
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                Err(error) => return Err(error),
            }
        }
        self.complete_feed().await?;
        Ok(true)
    }

    /// What the feed lacks of a batch; `None` of a table without a feed.
    async fn news(&mut self, changes: &[Changes], floors: &[Floor]) -> Result<Option<News>> {
        let (Some(feed), Some(table)) = (&mut self.feed, &self.table) else { return Ok(None) };
        let mut backoff = Backoff::new();
        loop {
            match feed.select(table, changes, floors).await {
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                other => return other.map(Some),
            }
        }
    }

    /// Writes the feed's files of a batch; what the table's commit has to name.
    async fn feed_files(
        &self,
        news: &News,
        output: &RecordBatch,
        source_rows: Option<&[u32]>,
        rejected: &[u32],
    ) -> Result<Value> {
        let Some(feed) = &self.feed else { return Err(unmade(&self.plan.name)) };
        let mut backoff = Backoff::new();
        loop {
            match feed.write(news, output, source_rows, rejected).await {
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                other => return other,
            }
        }
    }

    /// Adds to the feed what the table's commits name.
    async fn complete_feed(&mut self) -> Result<()> {
        let (Some(feed), Some(table)) = (&mut self.feed, &self.table) else { return Ok(()) };
        let mut backoff = Backoff::new();
        loop {
            match feed.follow(table).await {
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.plan.name, &error).await,
                other => return other,
            }
        }
    }

    /// True when `schema` has a column that the table lacks, a wider one or another key: an older structure brings nothing.
    fn is_newer(&self, schema: &TableSchema) -> bool {
        let Some(known) = &self.schema else { return true };
        source_key(schema) != source_key(known)
            || schema.fields.fields().iter().any(|f| match known.fields.field_with_name(f.name()) {
                Err(_) => true,
                Ok(have) => have.data_type() != f.data_type() && !is_wider(have.data_type(), f.data_type()),
            })
    }

    /// As [`Self::transform`]; a module on probation that fails or rejects too much makes room for the one before it.
    async fn transform_or_roll_back(&mut self, selection: &Selection) -> Result<Transformed> {
        let transformed = self.transform(selection).await;
        let Some((_, _, left)) = &mut self.prior else { return transformed };
        *left -= 1;
        let ended = *left == 0;
        let failure = match &transformed {
            Ok(transformed) => self.excess_of(transformed, selection.upserts().num_rows()),
            Err(error) if error.kind() == ErrorKind::Module => Some(Error::new(ErrorKind::Module, error.to_string())),
            Err(_) => None,
        };
        if let Some(failure) = failure
            && self.roll_back(&failure).await?
        {
            return self.transform(selection).await;
        }
        if ended {
            self.prior = None;
        }
        transformed
    }

    /// What to say of a module that failed on, or rejected, more than it may on probation.
    fn excess_of(&self, transformed: &Transformed, rows: usize) -> Option<Error> {
        let limits = self.plan.module.as_ref()?.0.limits();
        let share = (rows as f64 * limits.failed_ratio) as usize;
        let (_, last) = transformed.rejected.last()?;
        let (done, count, may) = match transformed.failed > share {
            true => ("failed on", transformed.failed, share),
            false => ("rejected", transformed.rejected.len(), share.max(limits.failed_rows)),
        };
        let message = format!("it {done} `{count}` of `{rows}` rows; last: {last}");
        (count > may).then(|| Error::new(ErrorKind::Module, message))
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
        let applied = tokio::task::spawn_blocking(move || prepared.apply(&input))
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "a transform's thread ended").caused_by(e))??;
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
        })
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
        if let Some(feed) = &mut self.feed {
            feed.checkpoint().await?;
            self.packing.tend(&self.plan.name, feed.upkeep()).await;
        }
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

fn unmade(table: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("silver `{table}` is not made yet"))
}
