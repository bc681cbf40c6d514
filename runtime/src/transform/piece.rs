//! A piece of a batch through the module: calls, the search for rows that make it fail, and the check of what it gives.
//!
//! Pieces of one batch run side by side. What they share is a budget: how many rows may fail, for how long the rows at
//! fault are sought, how many bytes come out. Past it the whole batch fails, and the other pieces end early.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arrow::array::{Array, ArrayRef, RecordBatch};

use super::apply::LogLine;
use super::columns::{Lent, bytes_of, bytes_taken};
use super::contract::{WitColumnOut, WitOutput};
use super::describe::{Prepared, Write};
use super::gate::{Claimed, admit, check_rows};
use super::instance::{Live, clean};
use crate::error::{Error, ErrorKind, Result};

/// Half-open range of input rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) from: usize,
    pub(super) to: usize,
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

/// A batch on its way, as all its pieces see it.
pub(super) struct Job<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) batch: &'a RecordBatch,
    /// the columns that the module reads, in its order
    pub(super) inputs: Vec<ArrayRef>,
    /// columns that pass, each as often as it is written
    passed: Vec<ArrayRef>,
    may_fail: usize,
    failed: AtomicUsize,
    failing_since: OnceLock<Instant>,
    bytes: AtomicUsize,
    stopped: AtomicBool,
}

/// What the rows of a piece have become.
#[derive(Default)]
pub(super) struct Piece {
    /// the computed columns that each call gave
    pub(super) computed: Vec<Vec<ArrayRef>>,
    /// the input row of each output row
    pub(super) source_rows: Vec<u32>,
    /// whether any row was left out, multiplied or moved
    pub(super) rearranged: bool,
    pub(super) rejected: Vec<(u32, String)>,
    pub(super) failed: usize,
    pub(super) logs: Vec<LogLine>,
    pub(super) logs_dropped: u64,
    pub(super) calls: usize,
    /// the most linear memory that an instance came to
    pub(super) memory_bytes: usize,
}

/// What one call gave, checked.
struct Given {
    columns: Vec<ArrayRef>,
    source_rows: Option<Vec<u32>>,
    rejected: Vec<(u32, String)>,
    /// of all columns of the output, the passed ones included
    bytes: usize,
}

impl<'a> Job<'a> {
    pub(super) fn new(prepared: &'a Prepared, batch: &'a RecordBatch, inputs: Vec<ArrayRef>) -> Job<'a> {
        let limits = &prepared.module.limits;
        let passed = prepared.plan.writes.iter().filter_map(|write| match write {
            Write::Passed(name) => batch.column_by_name(name).cloned(),
            Write::Computed { .. } => None,
        });
        Job {
            prepared,
            batch,
            inputs,
            passed: passed.collect(),
            may_fail: limits.failed_rows.max((batch.num_rows() as f64 * limits.failed_ratio) as usize),
            failed: AtomicUsize::new(0),
            failing_since: OnceLock::new(),
            bytes: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Puts `rows` through the module. Where that fails, their halves, and so on down to the rows at fault: a stack, not
    /// recursion, and rows stay in order.
    ///
    /// What it gives is incomplete where another piece has failed meanwhile.
    pub(super) fn run(&self, rows: Rows) -> Result<Piece> {
        let mut piece = Piece::default();
        let done = self.search(rows, &mut piece);
        if done.is_err() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        done.map(|()| piece)
    }

    fn search(&self, all: Rows, piece: &mut Piece) -> Result<()> {
        let Prepared { module, .. } = self.prepared;
        let mut waiting = vec![all];
        while let Some(rows) = waiting.pop() {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            // What worked when the module was loaded fails for want of something on this machine, not of these rows.
            let live = Live::new(&module.compiled, &module.limits).map_err(|e| {
                Error::new(ErrorKind::Unavailable, format!("module `{}` gets no instance", module.name())).caused_by(e)
            })?;
            match self.call(live, rows, piece) {
                Ok(given) => self.keep(rows, given, piece)?,
                Err(reason) => {
                    self.check_search(&reason)?;
                    if rows.len() > 1 {
                        waiting.extend(rows.halves());
                    } else {
                        self.give_up(rows.from as u32, reason, piece)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_search(&self, reason: &str) -> Result<()> {
        let limit = self.prepared.module.limits.search_time;
        if limit.is_zero() {
            return Err(self.stop(format!("failed: {reason}")));
        }
        if self.failing_since.get_or_init(Instant::now).elapsed() > limit {
            return Err(self.stop(format!(
                "kept failing for `{} ms` while the rows at fault were sought; last: {reason}",
                limit.as_millis()
            )));
        }
        Ok(())
    }

    fn give_up(&self, row: u32, reason: String, piece: &mut Piece) -> Result<()> {
        if self.failed.fetch_add(1, Ordering::Relaxed) >= self.may_fail {
            return Err(self.stop(format!(
                "failed on more than the `{}` of `{}` rows that may fail; last: {reason}",
                self.may_fail,
                self.batch.num_rows()
            )));
        }
        piece.failed += 1;
        piece.rearranged = true;
        piece.rejected.push((row, reason));
        Ok(())
    }

    fn stop(&self, message: String) -> Error {
        self.prepared.module.broken(&message).hint("mend the module and replace its file; the table goes on from here")
    }

    fn call(&self, mut live: Live, rows: Rows, piece: &mut Piece) -> Result<Given, String> {
        let Prepared { module, plan } = self.prepared;
        let lent: Vec<Lent> =
            self.inputs.iter().map(|array| Lent::new(&array.slice(rows.from, rows.len()))).collect::<Result<_, _>>()?;
        let columns: Vec<_> = lent.iter().map(Lent::as_column).collect();
        let count = u32::try_from(rows.len()).map_err(|_| "too many rows for one call".to_owned())?;
        piece.calls += 1;
        let called = live.transform(&module.compiled, (&plan.params, &plan.fields, count, &columns));
        let (logs, dropped) = live.take_logs();
        piece.add_logs(logs, dropped, module.limits.log_lines);
        piece.memory_bytes = piece.memory_bytes.max(live.memory_bytes());
        // The next instance need not wait for the check.
        drop(live);
        let limits = &module.limits;
        match called? {
            (Ok(output),) => self.admit(output, rows).map_err(|e| clean(&e, limits.error_bytes)),
            (Err(message),) => Err(clean(&message, limits.error_bytes)),
        }
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
        let mut bytes = self.passed_bytes(source_rows.as_deref(), input)?;
        let mut claimed: Vec<Option<WitColumnOut>> = columns.into_iter().map(Some).collect();
        let mut admitted: Vec<Option<ArrayRef>> = vec![None; plan.computed];
        for (write, field) in plan.writes.iter().zip(plan.schema.fields()) {
            let Write::Computed { place, nullable } = write else { continue };
            let column = claimed.get_mut(*place).and_then(Option::take);
            let (Some(column), Some(slot)) = (column, admitted.get_mut(*place)) else { continue };
            let WitColumnOut { length, null_count, buffers, children } = column;
            let claimed = Claimed { length, null_count, buffers, children };
            bytes = claimed.buffers.iter().map(Vec::len).fold(bytes, usize::saturating_add);
            let array = admit(claimed, field.data_type(), *nullable, out_rows);
            *slot = Some(array.map_err(|e| format!("output column `{}`: {e}", field.name()))?);
        }
        Ok(Given { columns: admitted.into_iter().flatten().collect(), source_rows, rejected, bytes })
    }

    /// Bytes of the passed columns of the output. A row named a million times takes them along as often: more than the
    /// input was they may only be within the limit.
    fn passed_bytes(&self, source_rows: Option<&[u32]>, input: Rows) -> Result<usize, String> {
        let limit = self.prepared.module.limits.output_bytes;
        let (mut taken, mut given) = (0_usize, 0_usize);
        for column in &self.passed {
            let column = column.slice(input.from, input.len());
            let whole = bytes_of(&column);
            given = given.saturating_add(whole);
            taken = taken.saturating_add(source_rows.map_or(whole, |rows| bytes_taken(&column, rows)));
        }
        match taken > limit.max(given) {
            true => Err(format!("the rows it multiplied come to `{taken}` bytes, more than `{limit}`")),
            false => Ok(taken),
        }
    }

    fn keep(&self, rows: Rows, given: Given, piece: &mut Piece) -> Result<()> {
        let limit = self.prepared.module.limits.batch_output_bytes;
        if self.bytes.fetch_add(given.bytes, Ordering::Relaxed).saturating_add(given.bytes) > limit {
            return Err(self.stop(format!("made more than `{limit}` bytes of `{}` rows", self.batch.num_rows())));
        }
        let first = rows.from as u32;
        match given.source_rows {
            None => piece.source_rows.extend(first..rows.to as u32),
            Some(list) => {
                piece.rearranged = true;
                piece.source_rows.extend(list.iter().map(|row| row + first));
            }
        }
        piece.computed.push(given.columns);
        piece.rejected.extend(given.rejected.into_iter().map(|(row, reason)| (row + first, reason)));
        Ok(())
    }
}

impl Piece {
    /// Appends what the rows after these have become.
    pub(super) fn append(&mut self, mut next: Piece, log_lines: usize) {
        self.computed.append(&mut next.computed);
        self.source_rows.append(&mut next.source_rows);
        self.rearranged |= next.rearranged;
        self.rejected.append(&mut next.rejected);
        self.failed += next.failed;
        self.calls += next.calls;
        self.memory_bytes = self.memory_bytes.max(next.memory_bytes);
        self.add_logs(next.logs, next.logs_dropped, log_lines);
    }

    fn add_logs(&mut self, mut logs: Vec<LogLine>, dropped: u64, most: usize) {
        let room = most.saturating_sub(self.logs.len());
        self.logs_dropped += dropped + logs.len().saturating_sub(room) as u64;
        logs.truncate(room);
        self.logs.append(&mut logs);
    }
}
