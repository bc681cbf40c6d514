//! One topic's Bronze table: opens it, takes records in, appends them, tells how far it is committed.
//!
//! Promises that nothing but its own topic waits for it, be the lake slow, refused or away, and that records follow on each
//! other without a gap: a delivery that does not is a defect and stops the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::upkeep::Upkeep;
use super::{Ending, Health, Inbox, Order, Retry, retrying};
use crate::buffer::{Pending, Room};
use crate::decode;
use crate::decode::TopicKind;
use crate::error::{Action, Error, ErrorKind, Result};
use crate::lake::{BronzeDraft, BronzeRows, BronzeTable, Location, Outcome, Pace, Packed, Settings, positions_of};
use crate::model::positions::{Positions, Range};
use crate::pipeline::connector::Connectors;
use crate::pipeline::observe::progress::Progress;
use crate::pipeline::task::at;
use crate::pipeline::{Bounds, Notice};
use crate::source::{Delivery, Requests};

/// Bytes of records that are encoded together: small enough for a processor's cache.
const BATCH_BYTES: usize = 1 << 20;
/// How long the source waits for a table that is being opened before it goes on without the topic.
const OPENING_PATIENCE: Duration = Duration::from_secs(2);

/// What a Bronze task works with.
pub(in crate::pipeline) struct Bronze {
    pub(in crate::pipeline) topic: Arc<str>,
    pub(in crate::pipeline) location: Location,
    pub(in crate::pipeline) settings: Settings,
    /// only if the table holds something: nothing is made of a topic that is only looked for
    pub(in crate::pipeline) only_if_there: bool,
    pub(in crate::pipeline) bounds: watch::Receiver<Bounds>,
    pub(in crate::pipeline) room: Room,
    pub(in crate::pipeline) connectors: Arc<Connectors>,
    pub(in crate::pipeline) committed: Arc<watch::Sender<Positions>>,
    pub(in crate::pipeline) requests: Requests,
    pub(in crate::pipeline) words: mpsc::UnboundedSender<Notice>,
    pub(in crate::pipeline) progress: Arc<Progress>,
}

impl Bronze {
    pub(in crate::pipeline) async fn work(self, mut inbox: Inbox) -> Result<()> {
        let opened = self.open(&inbox.health).await?;
        let Some((table, kind)) = opened else {
            let _ = self.words.send(Notice::NoBronze(Arc::clone(&self.topic)));
            return Ok(());
        };
        self.committed.send_replace(table.positions().clone());
        self.progress.bronze_at(&self.topic, table.positions());
        let _ = self.words.send(Notice::Opened { topic: Arc::clone(&self.topic), kind });
        inbox.live.set(true);
        let bounds = self.bounds.borrow().flush;
        let mut writer = Writer {
            next: table.positions().clone(),
            table,
            rows: BronzeRows::new(),
            draft: BronzeDraft::default(),
            pending: Pending::new(bounds, self.room.clone()),
            upkeep: Upkeep::new(inbox.health.id()),
            newest_ms: None,
            health: inbox.health.clone(),
            bronze: self,
        };
        writer.run(&mut inbox).await
    }

    /// Opens the table and finds out what the topic carries; `None` where only what is there is wanted, and nothing is.
    async fn open(&self, health: &Health) -> Result<Option<(BronzeTable, TopicKind)>> {
        let mut retry = Retry::of(health);
        loop {
            let mut opening = std::pin::pin!(self.open_once());
            let opened = match tokio::time::timeout(OPENING_PATIENCE, &mut opening).await {
                Ok(opened) => opened,
                Err(_) => {
                    self.requests.wait(&self.topic);
                    opening.await
                }
            };
            match opened {
                Err(error) if error.action() == Action::Retry => {
                    self.requests.wait(&self.topic);
                    if !retry.pause(&error).await {
                        return Err(error);
                    }
                }
                ended => return ended,
            }
        }
    }

    async fn open_once(&self) -> Result<Option<(BronzeTable, TopicKind)>> {
        if self.only_if_there && positions_of(&self.location).await?.is_empty() {
            return Ok(None);
        }
        let table = BronzeTable::open_or_create(self.location.clone(), &self.topic, self.settings.clone()).await?;
        let kind = self.connectors.classify(&self.topic, &table).await?;
        Ok(Some((table, kind)))
    }
}

struct Writer {
    bronze: Bronze,
    table: BronzeTable,
    rows: BronzeRows,
    /// what comes before `rows`
    draft: BronzeDraft,
    pending: Pending,
    /// next offset that is expected of each partition
    next: Positions,
    upkeep: Upkeep<Packed>,
    /// Kafka's timestamp of the newest record that is pending, as far as the last ones of its blocks tell
    newest_ms: Option<i64>,
    health: Health,
}

impl Writer {
    async fn run(&mut self, inbox: &mut Inbox) -> Result<()> {
        let mut bounds = self.bronze.bounds.clone();
        loop {
            let due = self.pending.due_at();
            tokio::select! {
                biased;
                () = at(due) => self.flush().await?,
                ending = inbox.health.ended() => {
                    self.take_all(inbox).await?;
                    return self.finish(ending).await;
                }
                Ok(()) = bounds.changed() => self.pending.tune(bounds.borrow_and_update().flush),
                Some(order) = inbox.orders.recv() => {
                    self.take_all(inbox).await?;
                    if let Order::Flush(done) = order {
                        self.flush().await?;
                        let _ = done.send(());
                    }
                }
                Some(delivery) = inbox.deliveries.recv() => self.take(delivery).await?,
            }
        }
    }

    /// Takes in what was handed over before.
    async fn take_all(&mut self, inbox: &mut Inbox) -> Result<()> {
        while let Ok(delivery) = inbox.deliveries.try_recv() {
            self.take(delivery).await?;
        }
        Ok(())
    }

    async fn finish(&mut self, ending: Ending) -> Result<()> {
        if ending == Ending::AtOnce {
            return Ok(());
        }
        self.flush().await?;
        self.upkeep.finish(&mut self.table.append_only(), ending).await;
        Ok(())
    }

    async fn take(&mut self, delivery: Delivery) -> Result<()> {
        let block = &delivery.block;
        let id = block.partition();
        let Range { from, to } = delivery.range;
        let next = self.next.get(id).unwrap_or(from);
        if from > next {
            let message =
                format!("bronze `{}` [{}]: offsets {next} to {from} were not handed over", id.topic, id.partition);
            return Err(Error::new(ErrorKind::Internal, message)
                .hint(format!("start `lode` again: it reads on from offset `{next}`")));
        }
        if to <= next {
            return Ok(());
        }
        let first = block.iter().take_while(|record| record.offset < next).count();
        let meta = |row: usize| block.get(row).and_then(|r| r.value).map_or((None, None), decode::op_and_time);
        self.rows.push(block, first, meta);
        self.pending.add(id, Range { from: next, to }, block.len() - first, block.bytes());
        self.next.insert(id, to);
        self.newest_ms = self.newest_ms.max(block.last().map(|record| record.timestamp_ms));
        drop(delivery);
        if self.rows.bytes() >= BATCH_BYTES {
            self.encode()?;
        }
        if self.pending.is_full() {
            self.flush().await?;
        }
        Ok(())
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
        let mut ranges = self.pending.ranges().clone();
        while !ranges.is_empty() {
            let info = serde_json::Map::from_iter([("rows".to_owned(), rows.into())]);
            match retrying!(&self.health, self.table.append(&files, &ranges, info.clone()))? {
                Outcome::Committed { .. } => {
                    appended = rows;
                    break;
                }
                Outcome::AlreadyCommitted { .. } => break,
                // Another instance was faster with some of it: the rest is still ours to append.
                Outcome::Fenced => {
                    ranges = ranges.still_missing(self.table.positions()).ok_or_else(|| self.went_back())?;
                }
            }
        }
        self.bronze.committed.send_replace(self.table.positions().clone());
        let newest_ms = self.newest_ms.take();
        self.bronze.progress.bronze(&self.bronze.topic, appended, self.table.positions(), begun.elapsed(), newest_ms);
        self.pending.clear();
        self.upkeep.tend(&mut self.table.append_only(), Pace::Steady).await;
        Ok(())
    }

    fn went_back(&self) -> Error {
        Error::new(ErrorKind::Fenced, format!("bronze `{}`: the table stands before what was read", self.bronze.topic))
            .hint("it was restored to an older version while `lode` ran; start `lode` again")
    }
}
