//! One topic's Bronze table: takes records in, appends them, tells how far it is committed.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use super::chore::Chore;
use super::packing::Packing;
use super::progress::Progress;
use super::retry::Backoff;
use crate::buffer::{Pending, Room};
use crate::config::Flush;
use crate::decode;
use crate::error::{Action, Error, ErrorKind, Result};
use crate::record::Positions;
use crate::source::Delivery;
use crate::table::{BronzeDraft, BronzeRows, BronzeTable, Outcome};

/// Deliveries that wait for a table.
const QUEUE: usize = 32;
/// Bytes of records that are encoded together: small enough for a processor's cache.
const BATCH_BYTES: usize = 1 << 20;

pub(super) enum Order {
    Take(Delivery),
    /// commit what is pending, then answer
    Flush(oneshot::Sender<()>),
    /// the source holds no more: finish the upkeep that runs
    Settle,
    /// other bounds on what is buffered
    Tune(Flush),
}

/// The pipeline's end of a Bronze task.
pub(super) struct Bronze {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) committed: watch::Receiver<Positions>,
    pub(super) task: tokio::task::JoinHandle<Result<()>>,
}

impl Bronze {
    pub(super) fn spawn(
        topic: Arc<str>,
        table: BronzeTable,
        flush: Flush,
        room: Room,
        progress: Arc<Progress>,
    ) -> Self {
        let (orders, inbox) = mpsc::channel(QUEUE);
        let name = format!("bronze/{topic}");
        let (committed_in, committed) = watch::channel(table.positions().clone());
        progress.bronze_at(&topic, table.positions());
        let writer = Writer {
            topic,
            table,
            rows: BronzeRows::new(),
            draft: BronzeDraft::default(),
            pending: Pending::new(flush, room),
            committed: committed_in,
            checkpoint: Chore::new("checkpoint"),
            packing: Packing::new(),
            newest_ms: None,
            progress: Arc::clone(&progress),
        };
        let task = tokio::spawn(async move {
            let ended = writer.run(inbox).await;
            if let Err(error) = &ended {
                progress.stop(&name, error);
            }
            ended
        });
        Bronze { orders, committed, task }
    }
}

struct Writer {
    topic: Arc<str>,
    table: BronzeTable,
    rows: BronzeRows,
    /// what comes before `rows`
    draft: BronzeDraft,
    pending: Pending,
    committed: watch::Sender<Positions>,
    checkpoint: Chore,
    packing: Packing,
    /// Kafka's timestamp of the newest record that is pending, as far as the last ones of its blocks tell
    newest_ms: Option<i64>,
    progress: Arc<Progress>,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) -> Result<()> {
        loop {
            let due = self.pending.due_at();
            let order = tokio::select! {
                biased;
                () = at(due) => { self.flush().await?; continue }
                order = inbox.recv() => order,
            };
            match order {
                None => {
                    self.flush().await?;
                    self.checkpoint.settle(&self.topic).await;
                    return Ok(());
                }
                Some(Order::Flush(done)) => {
                    self.flush().await?;
                    let _ = done.send(());
                }
                Some(Order::Settle) => {
                    self.flush().await?;
                    self.packing.settle(&self.topic, &mut self.table.upkeep()).await;
                }
                Some(Order::Tune(flush)) => self.pending.tune(flush),
                Some(Order::Take(delivery)) => {
                    let block = &delivery.block;
                    let meta = |row: usize| block.get(row).and_then(|r| r.value).map_or((None, None), decode::peek);
                    self.rows.push(block, 0, meta);
                    self.pending.add(block.partition(), delivery.range, block.len(), block.bytes());
                    self.newest_ms = self.newest_ms.max(block.last().map(|record| record.timestamp_ms));
                    drop(delivery);
                    if self.rows.bytes() >= BATCH_BYTES {
                        self.encode()?;
                    }
                    if self.pending.is_full() {
                        self.flush().await?;
                    }
                }
            }
        }
    }

    fn encode(&mut self) -> Result<()> {
        let batch = self.rows.finish(chrono::Utc::now().timestamp_millis())?;
        self.rows = BronzeRows::like(&batch);
        self.table.add(&mut self.draft, &batch)
    }

    async fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let mut appended = 0;
        self.encode()?;
        let files = std::mem::take(&mut self.draft).finish(self.pending.ranges())?;
        let rows = files.rows();
        let mut backoff = Backoff::new();
        let mut ranges = self.pending.ranges().clone();
        while !ranges.is_empty() {
            let info = serde_json::Map::from_iter([("rows".to_owned(), rows.into())]);
            match self.table.append(&files, &ranges, info).await {
                Ok(Outcome::Committed { .. }) => {
                    appended = rows;
                    break;
                }
                Ok(Outcome::AlreadyCommitted { .. }) => break,
                // Another instance was faster with some of it: the rest is still ours to append.
                Ok(Outcome::Fenced) => {
                    ranges = ranges.still_missing(self.table.positions()).ok_or_else(|| self.went_back())?;
                }
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.topic, &error).await,
                Err(error) => return Err(error),
            }
        }
        self.committed.send_replace(self.table.positions().clone());
        let newest_ms = self.newest_ms.take();
        self.progress.bronze(&self.topic, appended, self.table.positions(), begun.elapsed(), newest_ms);
        self.pending.clear();
        // Without checkpoints every start would read the whole log.
        self.checkpoint.tend(&self.topic, || self.table.upkeep().checkpointing()).await;
        self.packing.tend(&self.topic, self.table.upkeep()).await;
        Ok(())
    }

    fn went_back(&self) -> Error {
        Error::new(ErrorKind::Fenced, format!("bronze `{}`: the table stands before what was read", self.topic))
            .hint("it was restored to an older version while `lode` ran; start `lode` again")
    }
}

/// Ends at `due`, or never.
pub(super) async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
