//! Whether a module may take over a table: it is described against the table, and tried on the table's last batch
//! beside the module that serves.
//!
//! Receives a loaded module and what the table last met. Promises that a module which traps, hangs, lies, does not take
//! the table, or rejects what the serving one accepts is refused with the reason, and that the table does not wait
//! meanwhile. Never touches the table.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use serde_json::Value;

use super::task::derivation::Offer;
use crate::error::{Error, ErrorKind, Result};
use crate::table::Columns;
use crate::transform::{Limits, Module, Prepared};

/// Rows of a batch that are kept for trials.
const ROWS: usize = 1000;

/// What a table last met. Shared between the table's task, which writes it, and trials.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Met>);

#[derive(Default, Clone)]
struct Met {
    offer: Option<Offer>,
    columns: Option<Columns>,
    batch: Option<RecordBatch>,
    serving: Option<Arc<Prepared>>,
}

impl std::fmt::Debug for Met {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Met").field("rows", &self.batch.as_ref().map(RecordBatch::num_rows)).finish_non_exhaustive()
    }
}

impl Recent {
    /// The module was offered `offer`, and the table has `columns` now.
    pub(super) fn note_offer(&self, offer: Offer, columns: Columns, serving: Option<Arc<Prepared>>) {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = met.batch.take().filter(|batch| offer.is_met_by(batch));
        *met = Met { offer: Some(offer), columns: Some(columns), batch, serving };
    }

    /// The module that serves gave a row for all rows of `input` but `rejected`, which is in order.
    pub(super) fn note_batch(&self, input: &RecordBatch, rejected: &[u32]) {
        let step = input.num_rows().div_ceil(ROWS).max(1);
        let good = (0..input.num_rows() as u32).step_by(step).filter(|row| rejected.binary_search(row).is_err());
        let rows = UInt32Array::from_iter_values(good);
        let columns: Result<Vec<_>, _> = input.columns().iter().map(|column| take(column, &rows, None)).collect();
        // Rows of their own: a slice would keep the whole batch in memory.
        if !rows.is_empty()
            && let Ok(batch) = columns.and_then(|columns| RecordBatch::try_new(input.schema(), columns))
        {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).batch = Some(batch);
        }
    }

    fn met(&self) -> Met {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Tries `module` with `params` on what the table last met; what would change. Takes as long as the module takes: run
/// it on a blocking thread.
///
/// # Errors
/// Why the module may not take over: `Config` or `Module`.
pub(super) fn stand_trial(module: &Module, params: &Value, recent: &Recent) -> Result<String> {
    let met = recent.met();
    let (Some(offer), Some(columns)) = (met.offer, met.columns) else {
        return Ok("the table has no row yet to try it on".to_owned());
    };
    // The first failure is answer enough, and nobody waits for the search of its row.
    let impatient =
        Limits { failed_ratio: 0.0, failed_rows: 0, search_time: std::time::Duration::ZERO, ..module.limits().clone() };
    let candidate = module.held_to(impatient).describe(params, &offer.relations())?;
    columns.takes(candidate.schema())?;
    let Some(batch) = met.batch else { return Ok("the table has no row yet to try it on".to_owned()) };
    let applied = candidate.apply(&batch)?;
    let may_reject = (batch.num_rows() as f64 * module.limits().failed_ratio) as usize;
    if applied.rejected.len() > may_reject {
        let (_, reason) = applied.rejected.last().cloned().unwrap_or_default();
        return Err(Error::new(
            ErrorKind::Module,
            format!(
                "module `{}` rejects `{}` of `{}` rows that the module before accepted; last: {reason}",
                module.name(),
                applied.rejected.len(),
                batch.num_rows()
            ),
        )
        .hint("mend the module and replace its file, or raise `limits.rejected_ratio`"));
    }
    let before = met.serving.and_then(|serving| serving.apply(&batch).ok());
    Ok(match before {
        Some(before) => difference(&before.rows, &applied.rows, batch.num_rows()),
        None => format!("{} rows become {}", batch.num_rows(), applied.rows.num_rows()),
    })
}

fn difference(before: &RecordBatch, after: &RecordBatch, tried: usize) -> String {
    if before.num_rows() != after.num_rows() {
        return format!("of the last {tried} rows it makes {}, before {}", after.num_rows(), before.num_rows());
    }
    let columns = changed_columns(before, after);
    let changed = match columns.as_slice() {
        [] => "the same".to_owned(),
        columns => format!("with differences in {}", columns.join(", ")),
    };
    format!("of the last {tried} rows it makes {}, {changed}", after.num_rows())
}

/// `column (rows that differ)`, or `column (new)`, `column (gone)`.
fn changed_columns(before: &RecordBatch, after: &RecordBatch) -> Vec<String> {
    let names = |schema: &SchemaRef| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    let (old, new) = (names(&before.schema()), names(&after.schema()));
    let mut changed: Vec<String> = old.iter().filter(|n| !new.contains(n)).map(|n| format!("`{n}` (gone)")).collect();
    for name in new {
        let (was, is) = (before.column_by_name(&name), after.column_by_name(&name));
        let (Some(was), Some(is)) = (was, is) else {
            changed.push(format!("`{name}` (new)"));
            continue;
        };
        match distinct(was, is) {
            Ok(differs) if differs.true_count() == 0 => {}
            Ok(differs) => changed.push(format!("`{name}` ({} rows)", differs.true_count())),
            Err(_) if was.to_data() == is.to_data() => {}
            Err(_) => changed.push(format!("`{name}`")),
        }
    }
    changed
}
