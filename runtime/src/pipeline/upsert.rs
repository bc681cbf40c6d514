//! From decoded changes to a committed Silver table: evolve, select, transform, dead letters, flush.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, Decimal128Array, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
    UInt32Array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::reload::Serving;
use super::retry::Backoff;
use super::trial::{Recent, relation};
use crate::change::{Changes, Floor};
use crate::deadletter::{DeadLetter, DeadLetters, Stage};
use crate::decode::BadRow;
use crate::error::{Action, Error, ErrorKind, Result};
use crate::failpoint;
use crate::record::{Positions, Ranges, still_missing};
use crate::schema::{DEFAULT, Rename, RenamedColumn, TableSchema};
use crate::table::{KeyedTable, Location, Outcome, Rewritten, Selection, Settings, TableSpec};
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

/// How the table is to be made.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) module: Option<(Module, Value)>,
    pub(super) partition_by: Vec<String>,
}

/// What is needed to open a Silver table, once and again.
pub(super) struct Opening {
    pub(super) plan: Plan,
    pub(super) location: Location,
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
        self.letters.forget_from(&plan.name, &self.location).await?;
        let table = KeyedTable::open(self.location.clone(), self.settings.clone()).await?;
        let positions = table.as_ref().map(|t| t.positions().clone()).unwrap_or_default();
        Ok(Upsert {
            plan,
            location: self.location.clone(),
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
    settings: Settings,
    letters: Arc<DeadLetters>,
    table: Option<KeyedTable>,
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
        if self.table.is_none() {
            let spec = TableSpec {
                name: format!("silver/{}", self.plan.name),
                fields: Arc::clone(&fields),
                key: source_key(schema),
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
        let Some(table) = &self.table else { return Err(unmade(&self.plan.name)) };
        let selection = table.select(changes, floors)?;
        let Transformed { output, source_rows, rejected, .. } = self.transform_or_roll_back(&selection).await?;
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

    /// True when `schema` has a column that the table lacks, or a wider one: an older structure brings nothing.
    fn is_newer(&self, schema: &TableSchema) -> bool {
        let Some(known) = &self.schema else { return true };
        schema.fields.fields().iter().any(|f| match known.fields.field_with_name(f.name()) {
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

/// `batch` in the columns `fields`: narrower types widened, absent columns at the field's default.
fn align(batch: &RecordBatch, fields: &SchemaRef) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let columns = fields.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(column, field.data_type(), &options).map_err(arrow_error)
        }
        None => match default_of(field) {
            Some(default) => take(&default, &UInt32Array::from(vec![0; rows]), None).map_err(arrow_error),
            None => Ok(new_null_array(field.data_type(), rows)),
        },
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new_with_options(
        Arc::clone(fields),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
    .map_err(arrow_error)
}

/// The schema's fields, each with its default where it has one.
fn with_defaults(schema: &TableSchema) -> SchemaRef {
    let fields = schema.fields.fields().iter().zip(&schema.defaults).map(|(field, default)| {
        let text = default.as_ref().and_then(|d| array_value_to_string(d, 0).ok().map(|text| (d, text)));
        let Some((default, text)) = text else { return Arc::clone(field) };
        let mut metadata = field.metadata().clone();
        metadata.insert(DEFAULT.to_owned(), text);
        let marked = Arc::new(field.as_ref().clone().with_metadata(metadata));
        // What the text does not give back exactly is better left out.
        if default_of(&marked).is_some_and(|d| d.to_data() == default.to_data()) { marked } else { Arc::clone(field) }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The one value of [`DEFAULT`].
fn default_of(field: &Field) -> Option<ArrayRef> {
    let text: ArrayRef = Arc::new(StringArray::from(vec![field.metadata().get(DEFAULT)?.as_str()]));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, field.data_type(), &options).ok()
}

/// Names of the source table's key columns, in key order.
pub(super) fn source_key(schema: &TableSchema) -> Vec<String> {
    schema.key.iter().filter_map(|&i| schema.fields.fields().get(i)).map(|f| f.name().clone()).collect()
}

fn same(a: &TableSchema, b: &TableSchema) -> bool {
    a.fields.fields().len() == b.fields.fields().len()
        && a.fields
            .fields()
            .iter()
            .zip(b.fields.fields())
            .all(|(x, y)| x.name() == y.name() && x.data_type() == y.data_type())
}

/// True when `a` holds every value of `b`.
fn is_wider(a: &DataType, b: &DataType) -> bool {
    let rank = |t: &DataType| match t {
        DataType::Int8 => 1,
        DataType::Int16 => 2,
        DataType::Int32 => 3,
        DataType::Int64 => 4,
        _ => 0,
    };
    match (a, b) {
        (DataType::Float64, DataType::Float32) => true,
        (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) => {
            s >= t && i16::from(*p) - i16::from(*s) >= i16::from(*q) - i16::from(*t)
        }
        _ => rank(b) > 0 && rank(a) > rank(b),
    }
}

/// The source's columns and the pseudo-columns that a module may read.
pub(super) fn offered(fields: &Schema) -> SchemaRef {
    let mut all: Vec<Arc<Field>> = fields.fields().iter().cloned().collect();
    all.push(Arc::new(Field::new("_op", DataType::Utf8, false)));
    all.push(Arc::new(Field::new("_seq", DataType::Decimal128(38, 0), false)));
    all.push(Arc::new(Field::new("_source_ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true)));
    Arc::new(Schema::new(all))
}

fn with_pseudo_columns(rows: &RecordBatch, selection: &Selection) -> Result<RecordBatch> {
    let ops: StringArray = selection.ops().iter().map(|op| Some(op.letter())).collect();
    let sequences = Decimal128Array::from_iter_values(selection.sequences().iter().map(|s| s.0 as i128))
        .with_precision_and_scale(38, 0)
        .map_err(arrow_error)?;
    let times: TimestampMicrosecondArray =
        selection.source_ts_ms().iter().map(|&ms| (ms != 0).then_some(ms.saturating_mul(1000))).collect();
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(ops));
    columns.push(Arc::new(sequences));
    columns.push(Arc::new(times.with_timezone("UTC")));
    let fields = offered(&rows.schema());
    RecordBatch::try_new(fields, columns).map_err(arrow_error)
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "columns do not fit together").caused_by(error)
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
