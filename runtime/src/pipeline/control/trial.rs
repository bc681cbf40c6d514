//! Whether a module may take over a table: it is described against the table, and tried on the table's last batch
//! beside the module that serves.
//!
//! Receives a loaded module and what the table last met. Promises that a module which traps, hangs, lies, does not take
//! the table, or rejects what the serving one accepts is refused with the reason, and that the table does not wait
//! meanwhile. Never touches the table.

use arrow::array::{Array, RecordBatch};
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::SchemaRef;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::task::recent::Recent;
use crate::transform::{Limits, Module};

/// Tries `module` with `params` on what the table last met; what would change. Takes as long as the module takes: run
/// it on a blocking thread.
///
/// # Errors
/// Why the module may not take over: `Config` or `Module`.
pub(in crate::pipeline) fn stand_trial(module: &Module, params: &Value, recent: &Recent) -> Result<String> {
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
