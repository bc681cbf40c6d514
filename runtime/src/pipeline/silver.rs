//! One Silver table: decodes its topic's records, lets its module work on the winning changes, and commits.
//!
//! A table is *live* (it takes what the router hands over), or it is *behind*: new, overtaken, held for a schema, or
//! just started. Behind, it reads Bronze from its own position until it meets what Bronze has committed, and then
//! goes over to live. That handover is the same for every cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::{mpsc, watch};

use super::bronze::at;
use super::connector::Connector;
use super::progress::Progress;
use super::retry::Backoff;
use super::upsert::Upsert;
use crate::buffer::Pending;
use crate::decode::{Decoded, Decoder, Patience, Step, TableName};
use crate::error::{Action, Error, ErrorKind, Result};
use crate::record::{Block, PartitionId, Positions, Range};
use crate::schema::Rename;
use crate::source::{Delivery, EndQueries};
use crate::table::{BronzeTable, Location, Settings};

/// Deliveries that wait for a table.
const QUEUE: usize = 32;

pub(super) enum Order {
    Take(Delivery),
    /// nothing more will come: catch up with Bronze, commit, end
    Drain(Ending),
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// the source holds no more: what is not explained now never will be
    Complete,
    /// the run is broken off: what waits for a schema goes on waiting at the next start
    BrokenOff,
}

/// The pipeline's end of a Silver task.
pub(super) struct Silver {
    pub(super) name: String,
    pub(super) orders: mpsc::Sender<Order>,
    /// false while the table reads Bronze: what is handed over would be dropped
    pub(super) live: Arc<AtomicBool>,
    pub(super) task: tokio::task::JoinHandle<Result<()>>,
}

/// What a Silver task works with.
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) topic: Arc<str>,
    /// the table in the database
    pub(super) source: TableName,
    /// false where the pipeline file says the types itself
    pub(super) follows_schema: bool,
    pub(super) decoder: Decoder,
    pub(super) connector: Arc<Connector>,
    pub(super) upsert: Upsert,
    pub(super) flush: crate::config::Flush,
    /// how long a record that nothing explains waits for the schema-change topic
    pub(super) schema_wait: Duration,
    pub(super) committed: watch::Receiver<Positions>,
    pub(super) bronze: Location,
    pub(super) settings: Settings,
    pub(super) ends: EndQueries,
    pub(super) progress: Arc<Progress>,
}

impl Reader {
    pub(super) fn spawn(self) -> Silver {
        let (orders, inbox) = mpsc::channel(QUEUE);
        let live = Arc::new(AtomicBool::new(false));
        let name = self.name.clone();
        let worker = Worker {
            next: self.upsert.positions().clone(),
            decoded: Decoded::new(),
            pending: Pending::new(self.flush),
            inbox,
            live: Arc::clone(&live),
            ending: None,
            alone: false,
            told_gone: false,
            learned: self.connector.changed(),
            reader: self,
        };
        let (progress, table) = (Arc::clone(&worker.reader.progress), name.clone());
        let task = tokio::spawn(async move {
            let ended = worker.run().await;
            if let Err(error) = &ended {
                progress.stop(&table, error);
            }
            ended
        });
        Silver { name, orders, live, task }
    }
}

struct Worker {
    reader: Reader,
    inbox: mpsc::Receiver<Order>,
    live: Arc<AtomicBool>,
    /// next offset to decode of each Kafka partition
    next: Positions,
    decoded: Decoded,
    pending: Pending,
    ending: Option<Ending>,
    /// the source has no schema-change topic: there is nothing to wait for
    alone: bool,
    /// it was said that the source has no such table any more
    told_gone: bool,
    /// changes once something was learned after the last decoding
    learned: watch::Receiver<u64>,
}

/// What stopped the decoding of a block.
enum Taken {
    All,
    Held(String),
}

impl Worker {
    async fn run(mut self) -> Result<()> {
        let mut learned = self.reader.connector.changed();
        self.reach_bronze().await?;
        loop {
            if self.ending.is_some() {
                return self.finish().await;
            }
            let due = self.pending.due_at();
            tokio::select! {
                biased;
                () = at(due) => self.flush().await?,
                Ok(()) = learned.changed() => self.follow_schema().await?,
                order = self.inbox.recv() => match order {
                    None => self.ending = Some(Ending::BrokenOff),
                    Some(Order::Drain(ending)) => self.ending = Some(ending),
                    Some(Order::Take(delivery)) => self.take(delivery).await?,
                },
            }
        }
    }

    async fn finish(&mut self) -> Result<()> {
        self.reach_bronze().await?;
        self.flush().await?;
        self.follow_schema().await?;
        self.reader.upsert.settle().await
    }

    /// Takes a delivery in, or falls behind when it does not follow on what is decoded.
    async fn take(&mut self, delivery: Delivery) -> Result<()> {
        let id = delivery.block.partition();
        let next = self.next.get(id).copied().unwrap_or(0);
        if delivery.range.to <= next {
            return Ok(());
        }
        if delivery.range.from > next {
            return self.fill_gap(delivery).await;
        }
        match self.decode(&delivery.block, Some(delivery.range), Patience::Hold)? {
            Taken::All => {}
            Taken::Held(reason) => {
                drop(delivery);
                return self.wait_and_reach(&reason).await;
            }
        }
        drop(delivery);
        if self.pending.is_full() {
            self.flush().await?;
        }
        Ok(())
    }

    /// Reads from Bronze what lies before the delivery, then takes it.
    async fn fill_gap(&mut self, delivery: Delivery) -> Result<()> {
        let id = delivery.block.partition().clone();
        let from = delivery.range.from;
        let mut committed = self.reader.committed.clone();
        let reached = committed.wait_for(|p| p.get(&id).copied().unwrap_or(0) >= from).await.is_ok();
        if !reached {
            return Err(bronze_ended(&self.reader.topic));
        }
        // The queue is kept: what follows on this delivery is in it, and Bronze may not hold it for a while.
        if let Taken::Held(reason) = self.read_bronze(Patience::Hold).await? {
            drop(delivery);
            return self.wait_and_reach(&reason).await;
        }
        Box::pin(self.take(delivery)).await
    }

    async fn wait_and_reach(&mut self, reason: &str) -> Result<()> {
        match self.hold(reason).await? {
            Some(patience) => self.catch_up(patience).await,
            None => Ok(()),
        }
    }

    /// Reads Bronze from our position until it holds nothing that we lack; then the table is live.
    async fn reach_bronze(&mut self) -> Result<()> {
        self.catch_up(Patience::Hold).await
    }

    async fn catch_up(&mut self, mut patience: Patience) -> Result<()> {
        self.live.store(false, Relaxed);
        loop {
            if self.ending.is_none() {
                // What was queued is in Bronze by the time it is needed; room for it must not be kept.
                self.drop_queue();
            }
            let behind = {
                let committed = self.reader.committed.borrow();
                committed.iter().any(|(id, end)| self.next.get(id).copied().unwrap_or(0) < *end)
            };
            if !behind {
                break;
            }
            match self.read_bronze(patience).await? {
                Taken::All => patience = Patience::Hold,
                Taken::Held(reason) => match self.hold(&reason).await? {
                    Some(next) => patience = next,
                    None => return Ok(()),
                },
            }
        }
        self.live.store(true, Relaxed);
        Ok(())
    }

    fn drop_queue(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            if let Order::Drain(ending) = order {
                self.ending = Some(ending);
                return;
            }
        }
    }

    async fn read_bronze(&mut self, patience: Patience) -> Result<Taken> {
        let mut backoff = Backoff::new();
        loop {
            match self.read_bronze_once(patience).await {
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.reader.name, &error).await,
                other => return other,
            }
        }
    }

    async fn read_bronze_once(&mut self, patience: Patience) -> Result<Taken> {
        let table =
            BronzeTable::open_or_create(self.reader.bronze.clone(), &self.reader.topic, self.reader.settings.clone())
                .await?;
        let ends = table.positions().clone();
        let mut blocks = table.read(&self.next).await?;
        while let Some(block) = blocks.next().await {
            let block = block?;
            if let Taken::Held(reason) = self.decode(&block, None, patience)? {
                return Ok(Taken::Held(reason));
            }
            if self.pending.is_full() {
                self.flush().await?;
            }
        }
        // Offsets that Bronze skipped (transaction markers, compacted topics) are passed as well.
        for (id, end) in ends {
            let next = self.next.get(&id).copied().unwrap_or(0);
            if next < end {
                self.pending.add(&id, Range { from: next, to: end }, 0, 0);
                self.next.insert(id, end);
            }
        }
        Ok(Taken::All)
    }

    /// Decodes what of `block` lies at or past our position. `range`: what the block covers, gaps included.
    fn decode(&mut self, block: &Block, range: Option<Range>, patience: Patience) -> Result<Taken> {
        let id: &PartitionId = block.partition();
        let Some(covered) = range.or_else(|| block.range()) else { return Ok(Taken::All) };
        let next = self.next.get(id).copied().unwrap_or(0);
        let row = block.iter().take_while(|r| r.offset < next).count();
        let alone = self.alone && self.reader.connector.is_silent();
        let patience = if alone { Patience::LastChance } else { patience };
        self.learned.borrow_and_update();
        if self.renames().last().map_or(0, |r| r.mark) < self.reader.upsert.renamed() {
            let reason = "the schema-change topic is not read as far as the table has followed it";
            return match patience {
                Patience::Hold => Ok(Taken::Held(reason.to_owned())),
                Patience::LastChance => Err(forgotten(&self.reader)),
            };
        }
        let mut evidence = self.reader.connector.evidence();
        let before = self.decoded.bytes();
        let step = self.reader.connector.with_history(|history| {
            self.reader.decoder.decode(block, row, history, &mut evidence, patience, &mut self.decoded)
        });
        self.reader.connector.learn(evidence);
        let (end, last, held) = match step {
            Step::Done => (covered.to.max(next), block.len(), None),
            Step::Held { row: at, reason } => (block.get(at).map_or(next, |r| r.offset), at, Some(reason)),
            Step::Jump { reason, .. } => {
                return Err(jumped(&self.reader.name, &reason));
            }
        };
        let bytes = self.decoded.bytes().saturating_sub(before);
        self.pending.add(id, Range { from: next, to: end }, last.saturating_sub(row), bytes);
        self.next.insert(id.clone(), end);
        Ok(held.map_or(Taken::All, Taken::Held))
    }

    /// What renamed columns of the table, as far as the schema-change topic has been read.
    fn renames(&self) -> Vec<Arc<Rename>> {
        self.reader.connector.with_history(|history| history.renames(&self.reader.source))
    }

    /// Waits until more is known, or until nothing more can come; `None` when the run is broken off meanwhile.
    async fn hold(&mut self, reason: &str) -> Result<Option<Patience>> {
        self.live.store(false, Relaxed);
        tracing::debug!(table = %self.reader.name, reason, "held");
        self.flush().await?;
        let ends = self.reader.ends.clone();
        let topic = self.reader.connector.topic.clone();
        let mut asked = Box::pin(async move { ends.end_of(&topic).await.unwrap_or_default() });
        let mut ends: Option<Positions> = None;
        // Topics have no order among each other: what explains the record may arrive after it.
        let patient_until = Instant::now() + self.reader.schema_wait;
        loop {
            match self.ending {
                Some(Ending::Complete) => return Ok(Some(Patience::LastChance)),
                Some(Ending::BrokenOff) => return Ok(None),
                None => {}
            }
            self.alone |= ends.as_ref().is_some_and(Positions::is_empty);
            let reached = ends.as_ref().is_some_and(|ends| self.reader.connector.has_reached(ends));
            if self.alone && self.reader.connector.is_silent() || reached && Instant::now() >= patient_until {
                return Ok(Some(Patience::LastChance));
            }
            tokio::select! {
                Ok(()) = self.learned.changed() => return Ok(Some(Patience::Hold)),
                () = at(Some(patient_until)), if reached => {}
                known = &mut asked, if ends.is_none() => ends = Some(known),
                order = self.inbox.recv() => match order {
                    None => self.ending = Some(Ending::BrokenOff),
                    Some(Order::Drain(ending)) => self.ending = Some(ending),
                    Some(Order::Take(delivery)) => drop(delivery),
                },
            }
        }
    }

    fn tell_gone(&mut self) {
        let gone = self.reader.connector.with_history(|history| history.is_gone(&self.reader.source));
        if gone && !self.told_gone {
            let source = &self.reader.source;
            tracing::warn!(table = %self.reader.name, %source, "dropped or renamed in the source; the table keeps its last rows");
        }
        self.told_gone = gone;
    }

    /// Brings the table to the structure that the connector announced last.
    async fn follow_schema(&mut self) -> Result<()> {
        self.tell_gone();
        if !self.reader.connector.clearings(&self.reader.source, &self.next).is_empty() {
            self.flush().await?;
        }
        let renames = self.renames();
        if renames.last().is_some_and(|r| r.mark > self.reader.upsert.renamed()) {
            self.flush().await?;
            self.reader.upsert.rename(&renames).await?;
        }
        if !self.reader.follows_schema {
            return Ok(());
        }
        let schema = self.reader.connector.with_history(|history| history.latest(&self.reader.source));
        if let Some(schema) = schema
            && self.reader.upsert.needs(&schema)
        {
            self.flush().await?;
            match self.reader.upsert.follow(&schema).await {
                // Rows of that structure become dead letters; older ones still fit.
                Err(error) if error.kind() == ErrorKind::Config => {
                    tracing::warn!(table = %self.reader.name, %error, "the table cannot follow its source's structure");
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Takes in the statements that left the table without the rows it had: each is an input of the table like its
    /// records, with a position in the same commits.
    fn take_clearings(&mut self) -> Result<()> {
        if self.decoded.rows() == 0 && !self.reader.upsert.is_made() {
            return Ok(());
        }
        for clearing in self.reader.connector.clearings(&self.reader.source, &self.next) {
            let (id, change) = (clearing.told_in, clearing.change);
            let floor = self.reader.decoder.floor(&change, &id.topic, id.partition);
            let floor = floor.map_err(|reason| jumped(&self.reader.name, &reason))?;
            // Without a row there is nothing to clear; what follows waits with it.
            let Some(floor) = floor else { return Ok(()) };
            tracing::info!(table = %self.reader.name, what = ?change.kind, "older rows are taken away, as in the source");
            self.decoded.push_floor(floor);
            let next = self.next.get(&id).copied().unwrap_or(0);
            self.pending.add(&id, Range { from: next, to: change.offset + 1 }, 0, 0);
            self.next.insert(id, change.offset + 1);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.take_clearings()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let (changes, floors, bad) = self.decoded.finish();
        // Rows of an older structure come under the names that their columns have by now.
        let renames = self.renames();
        self.reader.upsert.rename(&renames).await?;
        let changes = changes.into_iter().map(|c| c.carried(&renames)).collect::<Result<Vec<_>>>()?;
        let epochs = self.reader.decoder.epochs().to_string();
        let counts = self.reader.upsert.write(&changes, &floors, &bad, self.pending.ranges(), epochs).await?;
        self.reader.progress.table(&self.reader.name, |t| {
            t.changes += counts.changes;
            t.rows += counts.rows;
            t.dead_letters += counts.dead_letters;
            t.commits += 1;
        });
        self.pending.clear();
        self.reader.upsert.maintain().await
    }
}

fn jumped(table: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Gap, format!("silver `{table}`: {reason}"))
}

fn forgotten(reader: &Reader) -> Error {
    let (name, topic) = (&reader.name, &reader.connector.topic);
    let message =
        format!("silver `{name}`: its columns were renamed by a record that `{topic}` does not have any more");
    Error::new(ErrorKind::Gap, message)
        .hint(format!("bring `{topic}` back, or remove the table: it is then made anew from Bronze"))
}

fn bronze_ended(topic: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("bronze `{topic}` has stopped")).hint("see its own message")
}
