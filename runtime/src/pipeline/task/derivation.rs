//! From a batch of input rows to the rows that a table holds of them: as they are, or through a module.
//!
//! Receives the tables it reads ([`Offer`]) whenever their columns change, and batches in these columns. Promises output
//! rows in the table's columns, for each the input row it comes from, and a reason for every input row that has none; that
//! key columns which the module leaves out are kept beside its own; and that a module on probation which fails or rejects
//! too much is told from one that serves. Pure but for the module it holds: never touches a table.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, SchemaRef};
use serde_json::Value;

use super::columns::{arrow_error, kept_key, offered, source_key, with_defaults};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Columns;
use crate::model::schema::TableSchema;
use crate::model::schema::widen::align;
use crate::model::table_id::TableId;
use crate::pipeline::observe::progress::ModuleUse;
use crate::pipeline::task::recent::Recent;
use crate::pipeline::task::serving::Serving;
use crate::transform::{ColumnRef, Module, Prepared, Relation};

/// Batches in which a module that took over can be taken back.
const PROBATION_BATCHES: u32 = 100;

/// The tables that a derivation reads, with their columns and keys: the driving one, then each that is looked up.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct Offer {
    tables: Vec<Offered>,
    /// the driving table's columns as a copy of it has them
    copied: SchemaRef,
}

#[derive(Debug, Clone)]
struct Offered {
    name: String,
    columns: SchemaRef,
    key: Vec<String>,
}

impl Offered {
    fn relation(&self) -> Relation<'_> {
        Relation { name: &self.name, schema: Arc::clone(&self.columns), key: self.key.clone() }
    }
}

impl Offer {
    /// Rows of one source table, with the pseudo-columns that a module may read.
    pub(in crate::pipeline) fn of_source(schema: &TableSchema) -> Self {
        let table = Offered { name: schema.table.clone(), columns: offered(&schema.fields), key: source_key(schema) };
        Offer { tables: vec![table], copied: with_defaults(schema) }
    }

    /// A driving table with those that are looked up, each by its name; `copied`: the columns of a table without a module.
    pub(in crate::pipeline) fn of_join(tables: Vec<(String, SchemaRef, Vec<String>)>, copied: SchemaRef) -> Self {
        let tables = tables.into_iter().map(|(name, columns, key)| Offered { name, columns, key });
        Offer { tables: tables.collect(), copied }
    }

    /// As a module is asked about them.
    pub(in crate::pipeline) fn relations(&self) -> Vec<Relation<'_>> {
        self.tables.iter().map(Offered::relation).collect()
    }

    /// True when the columns of `batch` are those that batches have of these tables: the driving one's under their own
    /// names, those of one that is looked up as `<name>.<column>`.
    pub(in crate::pipeline) fn is_met_by(&self, batch: &RecordBatch) -> bool {
        let names = self.tables.iter().enumerate().flat_map(|(at, table)| {
            table.columns.fields().iter().map(move |field| match at {
                0 => (field.name().clone(), field.data_type()),
                _ => (format!("{}.{}", table.name, field.name()), field.data_type()),
            })
        });
        let has = batch.schema_ref().fields().iter().map(|field| (field.name().clone(), field.data_type()));
        names.eq(has)
    }
}

/// What a derivation makes of the tables it was described against.
#[derive(Clone)]
pub(in crate::pipeline) struct Described {
    fields: SchemaRef,
    /// `None`: a copy
    prepared: Option<Arc<Prepared>>,
    /// key columns of the driving table that the module's output lacks: their name there, and in the derived table
    kept: Vec<(String, String)>,
}

impl Described {
    /// The columns of the derived table.
    pub(in crate::pipeline) fn fields(&self) -> &SchemaRef {
        &self.fields
    }

    /// The columns of the tables that a module wants; `None`: a copy.
    pub(in crate::pipeline) fn wanted(&self) -> Option<&[ColumnRef]> {
        self.prepared.as_ref().map(|prepared| prepared.columns())
    }

    /// The key's columns of the driving table as the derived table names them.
    pub(in crate::pipeline) fn stored_key(&self, key: &[String]) -> Vec<String> {
        let stored = |name: &String| self.kept.iter().find(|(source, _)| source == name).map(|(_, stored)| stored);
        key.iter().map(|name| stored(name).unwrap_or(name).clone()).collect()
    }
}

/// What a batch has become.
#[derive(Debug)]
pub(in crate::pipeline) struct Derived {
    pub(in crate::pipeline) rows: RecordBatch,
    /// for each of them its input row; `None`: one to one
    pub(in crate::pipeline) source_rows: Option<Vec<u32>>,
    /// input rows that have no output, with the reason
    pub(in crate::pipeline) rejected: Vec<(u32, String)>,
    /// how many of them made the module fail
    failed: usize,
    pub(in crate::pipeline) used: ModuleUse,
}

impl Derived {
    fn untouched(rows: RecordBatch) -> Self {
        Derived { rows, source_rows: None, rejected: Vec::new(), failed: 0, used: ModuleUse::default() }
    }
}

/// What makes the rows of one table.
pub(in crate::pipeline) struct Derivation {
    table: TableId,
    module: Option<(Module, Value)>,
    described: Option<Described>,
    /// the module before the one on probation
    previous: Option<Previous>,
    serving: Arc<Serving>,
    recent: Arc<Recent>,
}

struct Previous {
    module: Module,
    params: Value,
    /// in which it can come back
    batches_left: u32,
}

impl Derivation {
    /// Makes the rows of `table` by `module` with its params; `None`: copies of the driving table's.
    pub(in crate::pipeline) fn new(
        table: &TableId,
        module: Option<(Module, Value)>,
        serving: Arc<Serving>,
        recent: Arc<Recent>,
    ) -> Self {
        Derivation { table: table.clone(), module, described: None, previous: None, serving, recent }
    }

    /// The module at work with its params, where there is one.
    pub(in crate::pipeline) fn module(&self) -> Option<&(Module, Value)> {
        self.module.as_ref()
    }

    /// The tables that the module at work was described against.
    pub(in crate::pipeline) fn offer(&self) -> Option<Offer> {
        self.recent.met().offer
    }

    /// What goes on with the rows elsewhere, to be described anew; what is left here makes copies.
    pub(in crate::pipeline) fn take(&mut self) -> Derivation {
        Derivation {
            table: self.table.clone(),
            module: self.module.take(),
            described: None,
            previous: self.previous.take(),
            serving: Arc::clone(&self.serving),
            recent: Arc::clone(&self.recent),
        }
    }

    /// True where rows are as the driving table has them.
    pub(in crate::pipeline) fn is_copy(&self) -> bool {
        self.module.is_none()
    }

    /// sha256 of the module at work, where there is one.
    pub(in crate::pipeline) fn module_hash(&self) -> Option<String> {
        self.module.as_ref().map(|(module, _)| module.sha256())
    }

    /// The derived table's columns for these tables. Changes nothing before [`Self::take_up`].
    pub(in crate::pipeline) fn describe(&self, offer: &Offer) -> Result<Described> {
        let Some((module, params)) = &self.module else {
            return Ok(Described { fields: Arc::clone(&offer.copied), prepared: None, kept: Vec::new() });
        };
        let prepared = module.describe(params, &offer.relations())?;
        let mut fields: Vec<Arc<Field>> = prepared.schema().fields().iter().cloned().collect();
        let driving = offer.tables.first();
        let kept = driving.map(|table| kept_key(&table.key, prepared.schema())).unwrap_or_default();
        for (source, stored) in &kept {
            if let Some((_, field)) = driving.and_then(|table| table.columns.fields().find(source)) {
                fields.push(Arc::new(field.as_ref().clone().with_name(stored)));
            }
        }
        Ok(Described { fields: Arc::new(Schema::new(fields)), prepared: Some(Arc::new(prepared)), kept })
    }

    /// The table has `columns` now, for what was `described` of `offer`: batches come in these columns from here on.
    pub(in crate::pipeline) fn take_up(&mut self, described: Described, offer: Offer, columns: Columns) {
        if described.prepared.is_some() {
            self.recent.note_offer(offer, columns, described.prepared.clone());
        }
        self.described = Some(described);
    }

    /// The rows that `input` becomes in the columns `to` of the table. Where there is a module, `input` has the columns
    /// that were offered.
    ///
    /// # Errors
    /// `Module` where it fails on too much; see [`Self::judge`].
    pub(in crate::pipeline) async fn derive(&self, input: RecordBatch, to: &SchemaRef) -> Result<Derived> {
        if input.num_rows() == 0 {
            return Ok(Derived::untouched(RecordBatch::new_empty(Arc::clone(to))));
        }
        let Some(described) = &self.described else {
            let message = format!("`{}` has rows to be made before the columns are known", self.table);
            return Err(Error::new(ErrorKind::Internal, message));
        };
        let Some(prepared) = described.prepared.clone() else {
            return Ok(Derived::untouched(align(&input, to)?));
        };
        let batch = input.clone();
        let (applied, took) = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            (prepared.apply(&batch), begun.elapsed())
        })
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a transform's thread ended").caused_by(e))?;
        let applied = applied?;
        let rejected: Vec<u32> = applied.rejected.iter().map(|(row, _)| *row).collect();
        self.recent.note_batch(&input, &rejected);
        for line in &applied.logs {
            tracing::info!(table = %self.table, level = ?line.level, message = %line.message, "module");
        }
        let rows = described.with_kept_key(&applied.rows, applied.source_rows.as_deref(), &input)?;
        Ok(Derived {
            rows: align(&rows, to)?,
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
}

impl Described {
    /// The module's rows, with the key columns that it leaves out taken from the input.
    fn with_kept_key(
        &self,
        rows: &RecordBatch,
        source_rows: Option<&[u32]>,
        input: &RecordBatch,
    ) -> Result<RecordBatch> {
        let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
        let mut columns = rows.columns().to_vec();
        let picked = source_rows.map(|rows| UInt32Array::from(rows.to_vec()));
        for (source, stored) in &self.kept {
            let Some(column) = input.column_by_name(source) else { continue };
            let column = match &picked {
                Some(rows) => take(column, rows, None).map_err(arrow_error)?,
                None => Arc::clone(column),
            };
            fields.push(Arc::new(Field::new(stored, column.data_type().clone(), true)));
            columns.push(column);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)
    }
}

/// Another module takes over, on probation: the one before can come back.
impl Derivation {
    /// Puts `module` in the place of the one that serves, which is given back. It is to be described and then either
    /// [`Self::begin_probation`] or, where it does not fit, [`Self::put_back`] follows.
    pub(in crate::pipeline) fn exchange(&mut self, module: Module, params: Value) -> Option<(Module, Value)> {
        self.module.replace((module, params))
    }

    /// Takes back what [`Self::exchange`] did.
    pub(in crate::pipeline) fn put_back(&mut self, before: Option<(Module, Value)>) {
        self.module = before;
    }

    /// The module at work serves from now on; `before` comes back should it fail.
    pub(in crate::pipeline) fn begin_probation(&mut self, before: Option<(Module, Value)>) {
        self.previous = before.map(|(module, params)| Previous { module, params, batches_left: PROBATION_BATCHES });
        self.tell_serving();
    }

    /// Why the module on probation has to make room, after what came of a batch of `rows` rows; `None` where it is on none.
    pub(in crate::pipeline) fn judge(&mut self, derived: &Result<Derived>, rows: usize) -> Option<Error> {
        let failure = match derived {
            Ok(derived) => self.excess_of(derived, rows),
            Err(error) if error.kind() == ErrorKind::Module => Some(Error::new(ErrorKind::Module, error.to_string())),
            Err(_) => None,
        };
        let previous = self.previous.as_mut()?;
        previous.batches_left -= 1;
        if failure.is_none() && previous.batches_left == 0 {
            self.previous = None;
        }
        failure
    }

    /// Lets the module before serve again, because of `failure`. It is to be described anew.
    pub(in crate::pipeline) fn roll_back(&mut self, failure: &Error) {
        let Some(Previous { module, params, .. }) = self.previous.take() else { return };
        let back = module.sha256();
        let failed = self.module.replace((module, params)).map(|(failed, _)| failed.sha256());
        self.tell_serving();
        let message = format!("rolled back to the module `{back}`: {failure}");
        let told = Error::new(ErrorKind::Module, message).hint("mend the module and replace its file");
        self.serving.refuse(&self.table, failed, &told);
    }

    fn tell_serving(&self) {
        if let Some((module, params)) = self.module.clone() {
            self.serving.set(&self.table, module, params);
        }
    }

    /// What to say of a module that failed on, or rejected, more than it may on probation.
    fn excess_of(&self, derived: &Derived, rows: usize) -> Option<Error> {
        let limits = self.module.as_ref()?.0.limits();
        let share = (rows as f64 * limits.failed_ratio) as usize;
        let (_, last) = derived.rejected.last()?;
        let (done, count, may) = match derived.failed > share {
            true => ("failed on", derived.failed, share),
            false => ("rejected", derived.rejected.len(), share.max(limits.failed_rows)),
        };
        let message = format!("it {done} `{count}` of `{rows}` rows; last: {last}");
        (count > may).then(|| Error::new(ErrorKind::Module, message))
    }
}

#[cfg(test)]
mod tests;
