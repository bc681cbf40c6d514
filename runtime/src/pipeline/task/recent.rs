//! What a table last met, kept so that a module can be tried on it beside the stream.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take;

use super::derivation::Offer;
use crate::error::Result;
use crate::lake::Columns;
use crate::transform::Prepared;

/// Rows of a batch that are kept for trials.
const ROWS: usize = 1000;

/// What a table last met. Shared between the table's task, which writes it, and trials.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Recent(Mutex<LastBatch>);

#[derive(Default, Clone)]
pub(in crate::pipeline) struct LastBatch {
    pub(in crate::pipeline) offer: Option<Offer>,
    pub(in crate::pipeline) columns: Option<Columns>,
    pub(in crate::pipeline) batch: Option<RecordBatch>,
    pub(in crate::pipeline) serving: Option<Arc<Prepared>>,
}

impl std::fmt::Debug for LastBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LastBatch")
            .field("rows", &self.batch.as_ref().map(RecordBatch::num_rows))
            .finish_non_exhaustive()
    }
}

impl Recent {
    /// The module was offered `offer`, and the table has `columns` now.
    pub(in crate::pipeline) fn note_offer(&self, offer: Offer, columns: Columns, serving: Option<Arc<Prepared>>) {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = met.batch.take().filter(|batch| offer.is_met_by(batch));
        *met = LastBatch { offer: Some(offer), columns: Some(columns), batch, serving };
    }

    /// The module that serves gave a row for all rows of `input` but `rejected`, which is in order.
    pub(in crate::pipeline) fn note_batch(&self, input: &RecordBatch, rejected: &[u32]) {
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

    pub(in crate::pipeline) fn met(&self) -> LastBatch {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
