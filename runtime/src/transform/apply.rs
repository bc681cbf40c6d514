//! A batch through a module: divided into pieces, the pieces on as many cores as are free, and the output put together
//! from computed and passed columns. The pieces are the same on every machine; how many run at a time is not.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_empty_array};
use arrow::compute::{concat, take};

use super::columns::bytes_of;
use super::describe::{Prepared, Write};
use super::piece::{Job, Piece, Rows};
use crate::error::{Error, ErrorKind, Result};
use crate::model::schema::widen::widen;

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
    /// the most linear memory that one of them came to
    pub memory_bytes: usize,
}

impl Prepared {
    /// Puts `batch` through the module. The batch holds the columns of [`Prepared::columns`], found by name: those of
    /// the driving relation under their own, those of a lookup as `lookup.field`.
    ///
    /// A batch of more rows than [`super::Limits::input_rows`] goes in pieces, on as many cores as no other table uses.
    /// Rows that make the module fail are found by halving a piece, and end up in [`Applied::rejected`].
    ///
    /// # Errors
    /// `Module` where more rows fail than [`super::Limits::failed_ratio`] allows, or finding them takes too long: the
    /// table stops rather than drain into dead letters. `Unavailable` where this machine gives no memory for an
    /// instance. `Internal` where the batch is not what was described.
    pub fn apply(&self, batch: &RecordBatch) -> Result<Applied> {
        if u32::try_from(batch.num_rows()).is_err() {
            return Err(Error::new(ErrorKind::Internal, "a batch for a module has more than 4 billion rows"));
        }
        let job = Job::new(self, batch, self.read_columns(batch)?);
        let pieces = self.divide(batch.num_rows(), job.inputs.iter().map(bytes_of).fold(0, usize::saturating_add));
        let mut whole = Piece::default();
        for piece in self.run_all(&job, &pieces)? {
            whole.append(piece, self.module.limits.log_lines);
        }
        self.join(batch, whole)
    }

    fn read_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(self.plan.reads.len());
        for read in &self.plan.reads {
            let column = batch.column_by_name(&read.name).ok_or_else(|| missing(&read.name))?;
            columns.push(if *column.data_type() == read.data_type {
                column.clone()
            } else {
                widen(column, &read.data_type, &read.name).map_err(|e| {
                    Error::new(ErrorKind::Internal, format!("column `{}` is not of the type described", read.name))
                        .caused_by(e)
                })?
            });
        }
        Ok(columns)
    }

    /// The rows of each piece: about equal, none larger than one call may be.
    fn divide(&self, rows: usize, bytes: usize) -> Vec<Rows> {
        let limits = &self.module.limits;
        let bytes_a_row = (bytes / rows.max(1)).max(1);
        let most = (limits.input_bytes / bytes_a_row).clamp(1, limits.input_rows.max(1));
        let size = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        (0..rows).step_by(size).map(|from| Rows { from, to: (from + size).min(rows) }).collect()
    }

    /// What each piece has become, in order. The caller's thread works through them; as many more help as there are
    /// free slots for instances, since a thread without one would only wait.
    fn run_all(&self, job: &Job<'_>, pieces: &[Rows]) -> Result<Vec<Piece>> {
        if let [only] = pieces {
            return Ok(vec![job.run(*only)?]);
        }
        let limits = &self.module.limits;
        let done: Vec<OnceLock<Result<Piece>>> = pieces.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((rows, done)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                pieces.get(at).zip(done.get(at))
            } {
                // Each place is set once.
                let _ = done.set(job.run(*rows));
            }
        };
        std::thread::scope(|scope| {
            let helpers = self.module.compiled.slots.free().min(pieces.len()).saturating_sub(1);
            for _ in 0..helpers {
                let helper = std::thread::Builder::new().name("lode-transform".into());
                // Fewer hands where the system gives no thread.
                let _ = helper.stack_size(limits.stack_bytes + CALLER_STACK).spawn_scoped(scope, work);
            }
            work();
        });
        let lost = || Err(Error::new(ErrorKind::Internal, "a piece of a batch was lost on the way"));
        done.into_iter().map(|piece| piece.into_inner().unwrap_or_else(lost)).collect()
    }

    fn join(&self, batch: &RecordBatch, whole: Piece) -> Result<Applied> {
        let Piece { computed, source_rows, rearranged, rejected, failed, logs, logs_dropped, calls, memory_bytes } =
            whole;
        let plan = &self.plan;
        let out_rows = source_rows.len();
        let source_rows = rearranged.then_some(source_rows);
        let indices = source_rows.as_ref().map(|rows| UInt32Array::from(rows.clone()));
        let mut columns = Vec::with_capacity(plan.writes.len());
        for (write, field) in plan.writes.iter().zip(plan.schema.fields()) {
            columns.push(match write {
                Write::Computed { place, .. } => {
                    let parts: Vec<&dyn Array> =
                        computed.iter().filter_map(|call| call.get(*place)).map(AsRef::as_ref).collect();
                    match (parts.as_slice(), computed.first().and_then(|call| call.get(*place))) {
                        ([_], Some(only)) => only.clone(),
                        ([], _) => new_empty_array(field.data_type()),
                        _ => concat(&parts).map_err(|e| {
                            Error::new(ErrorKind::Internal, "the pieces of a batch cannot be joined").caused_by(e)
                        })?,
                    }
                }
                Write::Passed(name) => {
                    let column = batch.column_by_name(name).ok_or_else(|| missing(name))?;
                    match &indices {
                        None => column.clone(),
                        Some(indices) => take(column, indices, None).map_err(|e| {
                            Error::new(ErrorKind::Internal, format!("rows of `{name}` cannot be taken")).caused_by(e)
                        })?,
                    }
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(out_rows));
        let rows = RecordBatch::try_new_with_options(plan.schema.clone(), columns, &options).map_err(|e| {
            Error::new(ErrorKind::Internal, "a batch is not of the schema that was offered").caused_by(e)
        })?;
        Ok(Applied { rows, source_rows, rejected, failed, logs, logs_dropped, calls, memory_bytes })
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the batch has no column `{name}`, which was offered to the module"))
}

/// Stack of a thread beside what the guest may use, bytes.
const CALLER_STACK: usize = 2 << 20;
