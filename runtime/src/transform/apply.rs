//! A batch through a module: chunks, calls, the search for rows that make a module fail, and the output put together
//! from computed and passed columns.

use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, concat_batches, take};

use super::columns::{Lent, bytes_of, bytes_taken};
use super::contract::{WitColumnOut, WitOutput};
use super::describe::{Prepared, Write};
use super::gate::{Claimed, admit, check_rows};
use super::instance::{Live, clean};
use crate::error::{Error, ErrorKind, Result};

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// for the author of the module
    Debug,
    /// good to know
    Info,
    /// likely to need somebody's eye
    Warn,
    /// something is wrong
    Error,
}

/// A line that a module logged; control characters are escaped, and it is cut at the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// how much it matters
    pub level: LogLevel,
    /// the text
    pub message: String,
}

/// What a batch has become.
#[derive(Debug, Clone)]
pub struct Applied {
    /// the output rows, of [`Prepared::schema`]
    pub rows: RecordBatch,
    /// the input row of each output row; `None`: one to one, and nothing rejected
    pub source_rows: Option<Vec<u32>>,
    /// input rows that have no output, and why: rejected by the module, or found to make it fail
    pub rejected: Vec<(u32, String)>,
    /// how many of `rejected` made the module fail (trap, time, memory, broken output, whole-batch error)
    pub failed: usize,
    /// what the module logged
    pub logs: Vec<LogLine>,
    /// log lines past the limit
    pub logs_dropped: u64,
    /// calls made
    pub calls: usize,
}

impl Prepared {
    /// Puts `batch` through the module. The batch holds the columns of [`Prepared::columns`], found by name: those of
    /// the driving relation under their own, those of a lookup as `lookup.field`.
    ///
    /// Rows that make the module fail are found by halving the batch, and end up in [`Applied::rejected`].
    ///
    /// # Errors
    /// `Module` where more rows fail than [`super::Limits::failed_ratio`] allows, or finding them takes too long: the
    /// table stops rather than drain into dead letters. `Unavailable` where this machine gives no memory for an
    /// instance. `Internal` where the batch is not what was described.
    pub fn apply(&self, batch: &RecordBatch) -> Result<Applied> {
        let limits = &self.module.limits;
        if u32::try_from(batch.num_rows()).is_err() {
            return Err(Error::new(ErrorKind::Internal, "a batch for a module has more than 4 billion rows"));
        }
        let inputs = self.read_columns(batch)?;
        let mut work = Work {
            prepared: self,
            batch,
            inputs: &inputs,
            parts: Vec::new(),
            source_rows: Vec::new(),
            one_to_one: true,
            bytes: 0,
            rejected: Vec::new(),
            failed: 0,
            may_fail: limits.failed_rows.max((batch.num_rows() as f64 * limits.failed_ratio) as usize),
            failing_since: None,
            logs: Vec::new(),
            logs_dropped: 0,
            calls: 0,
        };
        work.run()?;
        work.finish()
    }

    fn read_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(self.plan.reads.len());
        for read in &self.plan.reads {
            let column = batch.column_by_name(&read.name).ok_or_else(|| missing(&read.name))?;
            columns.push(if *column.data_type() == read.data_type {
                column.clone()
            } else {
                cast(column, &read.data_type).map_err(|e| {
                    Error::new(ErrorKind::Internal, format!("column `{}` is not of the type described", read.name))
                        .caused_by(e)
                })?
            });
        }
        Ok(columns)
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the batch has no column `{name}`, which was offered to the module"))
}

/// Half-open range of input rows.
#[derive(Clone, Copy)]
struct Rows {
    from: usize,
    to: usize,
}

impl Rows {
    fn len(self) -> usize {
        self.to - self.from
    }

    fn halves(self) -> [Rows; 2] {
        let middle = self.from + self.len() / 2;
        [Rows { from: middle, to: self.to }, Rows { from: self.from, to: middle }]
    }
}

/// What one call gave, checked.
struct Given {
    columns: Vec<ArrayRef>,
    rows: usize,
    source_rows: Option<Vec<u32>>,
    rejected: Vec<(u32, String)>,
}

struct Work<'a> {
    prepared: &'a Prepared,
    batch: &'a RecordBatch,
    inputs: &'a [ArrayRef],
    parts: Vec<RecordBatch>,
    source_rows: Vec<u32>,
    one_to_one: bool,
    /// of `parts`
    bytes: usize,
    rejected: Vec<(u32, String)>,
    failed: usize,
    may_fail: usize,
    failing_since: Option<Instant>,
    logs: Vec<LogLine>,
    logs_dropped: u64,
    calls: usize,
}

impl Work<'_> {
    fn run(&mut self) -> Result<()> {
        let limits = &self.prepared.module.limits;
        let bytes_a_row =
            self.inputs.iter().map(bytes_of).fold(0, usize::saturating_add) / self.batch.num_rows().max(1);
        let chunk = (limits.input_bytes / bytes_a_row.max(1)).clamp(1, limits.input_rows.max(1));
        let mut from = 0;
        while from < self.batch.num_rows() {
            let to = (from + chunk).min(self.batch.num_rows());
            self.search(Rows { from, to })?;
            from = to;
        }
        Ok(())
    }

    /// Calls the module on `all`; where that fails, on its halves, and so on down to the rows at fault. A stack, not
    /// recursion, and rows stay in order.
    fn search(&mut self, all: Rows) -> Result<()> {
        let mut waiting = vec![all];
        while let Some(rows) = waiting.pop() {
            // What worked when the module was loaded fails for want of something on this machine, not of these rows.
            let live = Live::new(&self.prepared.module.compiled, &self.prepared.module.limits).map_err(|e| {
                Error::new(ErrorKind::Unavailable, format!("module `{}` gets no instance", self.prepared.module.name()))
                    .caused_by(e)
            })?;
            match self.call(live, rows) {
                Ok(given) => self.keep(rows, given)?,
                Err(reason) => {
                    self.check_failures(&reason)?;
                    if rows.len() > 1 {
                        waiting.extend(rows.halves());
                        continue;
                    }
                    self.failed += 1;
                    self.one_to_one = false;
                    self.rejected.push((rows.from as u32, reason));
                    if self.failed > self.may_fail {
                        let (_, reason) = self.rejected.last().cloned().unwrap_or_default();
                        return Err(self.stop(format!(
                            "failed on `{}` of `{}` rows, more than the `{}` allowed; last: {reason}",
                            self.failed,
                            self.batch.num_rows(),
                            self.may_fail
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_failures(&mut self, reason: &str) -> Result<()> {
        let limit = self.prepared.module.limits.search_time;
        if limit.is_zero() {
            return Err(self.stop(format!("failed: {reason}")));
        }
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() > limit {
            return Err(self.stop(format!(
                "kept failing for `{} ms` while the rows at fault were sought; last: {reason}",
                limit.as_millis()
            )));
        }
        Ok(())
    }

    fn stop(&self, message: String) -> Error {
        self.prepared.module.broken(&message).hint("mend the module and replace its file; the table goes on from here")
    }

    fn call(&mut self, mut live: Live, rows: Rows) -> Result<Given, String> {
        let Prepared { module, plan } = self.prepared;
        let lent: Vec<Lent> =
            self.inputs.iter().map(|array| Lent::new(&array.slice(rows.from, rows.len()))).collect::<Result<_, _>>()?;
        let columns: Vec<_> = lent.iter().map(Lent::as_column).collect();
        let count = u32::try_from(rows.len()).map_err(|_| "too many rows for one call".to_owned())?;
        self.calls += 1;
        let called = live.transform(&module.compiled, (&plan.params, &plan.fields, count, &columns));
        let (logs, dropped) = live.take_logs();
        self.keep_logs(logs, dropped);
        let limits = &module.limits;
        match called? {
            (Ok(output),) => self.admit(output, rows).map_err(|e| clean(&e, limits.error_bytes)),
            (Err(message),) => Err(clean(&message, limits.error_bytes)),
        }
    }

    fn keep_logs(&mut self, mut logs: Vec<LogLine>, dropped: u64) {
        let room = self.prepared.module.limits.log_lines.saturating_sub(self.logs.len());
        self.logs_dropped += dropped + logs.len().saturating_sub(room) as u64;
        logs.truncate(room);
        self.logs.append(&mut logs);
    }

    fn admit(&self, output: WitOutput, input: Rows) -> Result<Given, String> {
        let Prepared { module, plan } = self.prepared;
        let limits = &module.limits;
        let rows = input.len() as u32;
        let WitOutput { columns, source_rows, rejected } = output;
        if columns.len() != plan.computed {
            return Err(format!("it gave `{}` columns where it declared `{}`", columns.len(), plan.computed));
        }
        if rejected.len() > rows as usize {
            return Err(format!("it rejected `{}` of `{rows}` rows", rejected.len()));
        }
        let out_rows = source_rows.as_ref().map_or(rows as usize, Vec::len);
        // One to one never gives more rows than it was given.
        if out_rows > limits.output_rows.max(rows as usize) {
            return Err(format!("it gave `{out_rows}` rows, more than `{}`", limits.output_rows));
        }
        let out_rows = u32::try_from(out_rows).map_err(|_| "it gave too many rows".to_owned())?;
        let rejected: Vec<(u32, String)> =
            rejected.into_iter().map(|r| (r.row, clean(&r.reason, limits.error_bytes))).collect();
        check_rows(source_rows.as_deref(), &rejected, rows)?;
        if let Some(list) = &source_rows {
            self.check_passed(list, input)?;
        }
        let mut claimed: Vec<Option<WitColumnOut>> = columns.into_iter().map(Some).collect();
        let mut admitted: Vec<Option<ArrayRef>> = vec![None; plan.computed];
        for (write, field) in plan.writes.iter().zip(plan.schema.fields()) {
            let Write::Computed { place, nullable } = write else { continue };
            let column = claimed.get_mut(*place).and_then(Option::take);
            let (Some(column), Some(slot)) = (column, admitted.get_mut(*place)) else { continue };
            let WitColumnOut { length, null_count, buffers, children } = column;
            let array =
                admit(Claimed { length, null_count, buffers, children }, field.data_type(), *nullable, out_rows);
            *slot = Some(array.map_err(|e| format!("output column `{}`: {e}", field.name()))?);
        }
        Ok(Given { columns: admitted.into_iter().flatten().collect(), rows: out_rows as usize, source_rows, rejected })
    }

    /// A row named a million times takes its passed columns along as often: more than the input was they may only be
    /// within the limit.
    fn check_passed(&self, source_rows: &[u32], input: Rows) -> Result<(), String> {
        let limit = self.prepared.module.limits.output_bytes;
        let (mut taken, mut given) = (0_usize, 0_usize);
        for write in &self.prepared.plan.writes {
            let Write::Passed(name) = write else { continue };
            let Some(column) = self.batch.column_by_name(name) else { continue };
            let column = column.slice(input.from, input.len());
            taken = taken.saturating_add(bytes_taken(&column, source_rows));
            given = given.saturating_add(bytes_of(&column));
        }
        match taken > limit.max(given) {
            true => Err(format!("the rows it multiplied come to `{taken}` bytes, more than `{limit}`")),
            false => Ok(()),
        }
    }

    fn keep(&mut self, rows: Rows, given: Given) -> Result<()> {
        let first = rows.from as u32;
        let plan = &self.prepared.plan;
        let indices =
            given.source_rows.as_ref().map(|list| UInt32Array::from_iter_values(list.iter().map(|row| row + first)));
        let mut columns = Vec::with_capacity(plan.writes.len());
        for write in &plan.writes {
            columns.push(match write {
                Write::Computed { place, .. } => given
                    .columns
                    .get(*place)
                    .cloned()
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "a computed column was lost on the way"))?,
                Write::Passed(name) => {
                    let column = self.batch.column_by_name(name).ok_or_else(|| missing(name))?;
                    match &indices {
                        None => column.slice(rows.from, rows.len()),
                        Some(indices) => take(column, indices, None).map_err(|e| {
                            Error::new(ErrorKind::Internal, format!("rows of `{name}` cannot be taken")).caused_by(e)
                        })?,
                    }
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(given.rows));
        let part = RecordBatch::try_new_with_options(plan.schema.clone(), columns, &options).map_err(|e| {
            Error::new(ErrorKind::Internal, "a batch is not of the schema that was offered").caused_by(e)
        })?;
        self.bytes = part.columns().iter().map(bytes_of).fold(self.bytes, usize::saturating_add);
        let limit = self.prepared.module.limits.batch_output_bytes;
        if self.bytes > limit {
            return Err(self.stop(format!("made more than `{limit}` bytes of `{}` rows", self.batch.num_rows())));
        }
        self.parts.push(part);
        match given.source_rows {
            None => self.source_rows.extend(first..first + rows.len() as u32),
            Some(list) => {
                self.one_to_one = false;
                self.source_rows.extend(list.iter().map(|row| row + first));
            }
        }
        self.rejected.extend(given.rejected.into_iter().map(|(row, reason)| (row + first, reason)));
        Ok(())
    }

    fn finish(mut self) -> Result<Applied> {
        let rows = match self.parts.len() {
            1 => self.parts.remove(0),
            _ => concat_batches(&self.prepared.plan.schema, &self.parts)
                .map_err(|e| Error::new(ErrorKind::Internal, "the parts of a batch cannot be joined").caused_by(e))?,
        };
        Ok(Applied {
            rows,
            source_rows: (!self.one_to_one).then_some(self.source_rows),
            rejected: self.rejected,
            failed: self.failed,
            logs: self.logs,
            logs_dropped: self.logs_dropped,
            calls: self.calls,
        })
    }
}
