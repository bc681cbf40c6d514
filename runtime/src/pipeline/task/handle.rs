//! The pipeline's end of a table's task, and the task's own.
//!
//! Every layer has the same: records go in one way, what is to be done between two batches another, the end a third, so
//! that none of them waits behind the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::Health;
use crate::error::Result;
use crate::model::table_id::TableId;
use crate::pipeline::task::recent::Recent;
use crate::source::Delivery;
use crate::transform::Module;

/// Deliveries that wait for a table.
const DELIVERIES: usize = 32;
/// Orders that wait for a table.
const ORDERS: usize = 32;

/// What a table does between two batches.
pub(in crate::pipeline) enum Order {
    /// commit what was handed over, then answer
    Flush(oneshot::Sender<()>),
    /// another module, or other params, make its rows from now on
    Adopt { module: Module, params: Value, reply: oneshot::Sender<Result<()>> },
}

/// How a table's task is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum Ending {
    /// the source holds no more: what is not explained now never will be
    Complete,
    /// the run is broken off: what waits for a schema goes on waiting at the next start
    BrokenOff,
    /// nobody asks for the table any more, or it starts anew: what is not committed is read again
    AtOnce,
}

/// The pipeline's end of a task. Cheap to clone.
#[derive(Clone)]
pub(in crate::pipeline) struct Handle {
    pub(in crate::pipeline) id: TableId,
    /// the tables that it reads: they go on until it has ended
    pub(in crate::pipeline) reads: Vec<TableId>,
    pub(in crate::pipeline) deliveries: mpsc::Sender<Delivery>,
    pub(in crate::pipeline) orders: mpsc::Sender<Order>,
    /// false while it does not take what is handed over
    live: Arc<AtomicBool>,
    /// what it last met, for trials of modules
    pub(in crate::pipeline) recent: Arc<Recent>,
    ending: watch::Sender<Option<Ending>>,
}

/// The task's own end.
pub(in crate::pipeline) struct Inbox {
    pub(in crate::pipeline) deliveries: mpsc::Receiver<Delivery>,
    pub(in crate::pipeline) orders: mpsc::Receiver<Order>,
    pub(in crate::pipeline) live: Live,
    pub(in crate::pipeline) recent: Arc<Recent>,
    pub(in crate::pipeline) health: Health,
}

/// Whether a task takes what is handed over.
pub(in crate::pipeline) struct Live(Arc<AtomicBool>);

impl Live {
    pub(in crate::pipeline) fn set(&self, live: bool) {
        self.0.store(live, Relaxed);
    }
}

impl Handle {
    /// Both ends of a task that is about to start.
    pub(super) fn new(
        id: TableId,
        reads: Vec<TableId>,
        health: impl FnOnce(watch::Receiver<Option<Ending>>) -> Health,
    ) -> (Handle, Inbox) {
        let (deliveries, delivered) = mpsc::channel(DELIVERIES);
        let (orders, ordered) = mpsc::channel(ORDERS);
        let (ending, told) = watch::channel(None);
        let (live, recent) = (Arc::new(AtomicBool::new(false)), Arc::<Recent>::default());
        let inbox = Inbox {
            deliveries: delivered,
            orders: ordered,
            live: Live(Arc::clone(&live)),
            recent: Arc::clone(&recent),
            health: health(told),
        };
        (Handle { id, reads, deliveries, orders, live, recent, ending }, inbox)
    }

    /// True while it takes what is handed over.
    pub(in crate::pipeline) fn is_live(&self) -> bool {
        self.live.load(Relaxed)
    }

    /// What it misses from now on it reads from Bronze.
    pub(in crate::pipeline) fn leave_behind(&self) {
        self.live.store(false, Relaxed);
    }

    /// Tells it to end; the first word counts, save that [`Ending::AtOnce`] comes before all.
    pub(in crate::pipeline) fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|told| {
            let is_new = told.is_none() || (ending == Ending::AtOnce && *told != Some(ending));
            if is_new {
                *told = Some(ending);
            }
            is_new
        });
    }

    /// How it was told to end.
    pub(in crate::pipeline) fn ending(&self) -> Option<Ending> {
        *self.ending.borrow()
    }
}
