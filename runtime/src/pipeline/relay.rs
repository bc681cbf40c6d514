//! Hands a topic's deliveries to its tables: to Bronze, and to the Silver tables that are live.
//!
//! A task of its own for each topic, so that a table which takes nothing in holds up its own topic and no other: what waits
//! here is bounded by what the source's budget grants one topic. A Silver table that is too slow is left behind; nothing is
//! lost, it reads from Bronze what it misses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::task::Handle;
use crate::source::Delivery;

/// Longest wait for a live Silver table before it is left behind to read Bronze.
const SILVER_PATIENCE: Duration = Duration::from_secs(5);

/// The tables of a topic.
#[derive(Clone, Default)]
pub(super) struct Recipients {
    /// the turn that Bronze reads; what is left of an earlier one is dropped, and comes again
    pub(super) turn: u64,
    pub(super) bronze: Option<Handle>,
    pub(super) silvers: Vec<Handle>,
}

/// The way to a topic's tables.
pub(super) struct Relay {
    inlet: mpsc::UnboundedSender<Delivery>,
    recipients: watch::Sender<Arc<Recipients>>,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) fn start() -> Self {
        let (inlet, mut deliveries) = mpsc::unbounded_channel::<Delivery>();
        let (recipients, current) = watch::channel(Arc::<Recipients>::default());
        let task = tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                let recipients = Arc::clone(&current.borrow());
                hand_over(&recipients, delivery).await;
            }
        });
        Relay { inlet, recipients, task }
    }

    /// Never waits.
    pub(super) fn take(&self, delivery: Delivery) {
        let _ = self.inlet.send(delivery);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Recipients)) {
        self.recipients.send_modify(|recipients| change(Arc::make_mut(recipients)));
    }

    pub(super) fn turn(&self) -> u64 {
        self.recipients.borrow().turn
    }

    /// Ends when everything is handed over.
    pub(super) async fn end(self) {
        drop(self.inlet);
        let _ = self.task.await;
    }
}

async fn hand_over(recipients: &Recipients, delivery: Delivery) {
    let Some(bronze) = &recipients.bronze else { return };
    // What a Bronze table that ended did not take comes again, in another turn.
    if delivery.turn != recipients.turn || bronze.deliveries.send(delivery.clone()).await.is_err() {
        return;
    }
    for silver in recipients.silvers.iter().filter(|silver| silver.is_live()) {
        if silver.deliveries.send_timeout(delivery.clone(), SILVER_PATIENCE).await.is_err() {
            silver.leave_behind();
        }
    }
}
