//! One Silver table: decodes its topic's records, lets its module work on the winning changes, and commits.
//!
//! A table is *live* (it takes what the router hands over), or it is *behind*: new, overtaken, held for a schema, or
//! just started. Behind, it reads Bronze from its own position until it meets what Bronze has committed, and then
//! goes over to live. That handover is the same for every cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::ancestry::{Bronzes, Source, grown};
use super::bronze::at;
use super::connector::Connector;
use super::progress::Progress;
use super::reload::Desk;
use super::retry::Backoff;
use super::upsert::{Opening, Upsert};
use crate::buffer::Pending;
use crate::decode::{self, Ancestor, Decoded, Decoder, Epochs, Lineage, Patience, Step, TableName, topic_of};
use crate::error::{Action, Error, ErrorKind, Result};
use crate::record::{Block, PartitionId, Positions, Range};
use crate::schema::Rename;
use crate::source::{Delivery, EndQueries};
use crate::table::{BronzeTable, Location, Settings};
use crate::transform::Module;

/// Pause before a source that could not tell the end of a topic is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Deliveries that wait for a table.
const QUEUE: usize = 32;

pub(super) enum Order {
    Take(Delivery),
    /// nothing more will come: catch up with Bronze, commit, end
    Drain(Ending),
}

/// What a table does between two batches.
pub(super) enum Between {
    /// another module, or other params, make its rows from now on
    Adopt { module: Module, params: Value, reply: oneshot::Sender<Result<()>> },
    /// other bounds
    Tune { flush: crate::config::Flush, schema_wait: Duration },
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
    pub(super) desk: Desk,
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
    pub(super) decode: decode::Settings,
    pub(super) connector: Arc<Connector>,
    pub(super) opening: Opening,
    pub(super) flush: crate::config::Flush,
    /// how long a record that nothing explains waits for the schema-change topic
    pub(super) schema_wait: Duration,
    pub(super) committed: watch::Receiver<Positions>,
    /// true where nothing past `committed` may be read, though Bronze holds it
    pub(super) within_committed: bool,
    pub(super) bronze: Location,
    pub(super) settings: Settings,
    pub(super) bronzes: Arc<Bronzes>,
    pub(super) ends: EndQueries,
    pub(super) progress: Arc<Progress>,
}

impl Reader {
    pub(super) fn spawn(self) -> Silver {
        let (orders, inbox) = mpsc::channel(QUEUE);
        let (between, due) = mpsc::channel(QUEUE);
        let desk = Desk { between, recent: Arc::clone(&self.opening.recent) };
        let live = Arc::new(AtomicBool::new(false));
        let (name, progress) = (self.name.clone(), Arc::clone(&self.progress));
        let (table, switch) = (name.clone(), Arc::clone(&live));
        let task = tokio::spawn(async move {
            let ended = self.work(inbox, due, switch).await;
            if let Err(error) = &ended {
                progress.stop(&table, error);
            }
            ended
        });
        Silver { name, orders, live, desk, task }
    }

    async fn work(
        self,
        inbox: mpsc::Receiver<Order>,
        due: mpsc::Receiver<Between>,
        live: Arc<AtomicBool>,
    ) -> Result<()> {
        let upsert = self.opening.open().await?;
        let mut worker = Worker {
            decoder: self.decoder(&upsert)?,
            next: upsert.positions().clone(),
            upsert,
            decoded: Decoded::new(),
            pending: Pending::new(self.flush),
            inbox,
            due,
            live,
            ending: None,
            alone: false,
            lineage: Lineage::default(),
            ancestors: Vec::new(),
            told_gone: false,
            held: None,
            waited: None,
            learned: self.connector.changed(),
            reader: self,
        };
        if worker.reader.within_committed {
            worker.begin_with_newest().await?;
        }
        loop {
            match worker.run().await {
                Err(error) if error.kind() == ErrorKind::Rebuilt => {
                    tracing::info!(table = %worker.reader.name, "the table was rebuilt: going on from where that ended");
                    worker.reopen().await?;
                }
                ended => return ended,
            }
        }
    }

    /// A decoder that goes on from the epochs that the table has.
    fn decoder(&self, upsert: &Upsert) -> Result<Decoder> {
        let mut decoder = Decoder::new(Arc::clone(&self.topic), self.decode.clone());
        if let Some(epochs) = upsert.epochs() {
            decoder.set_epochs(epochs.parse::<Epochs>().map_err(|e| {
                Error::new(ErrorKind::Corrupt, format!("silver `{}`: `lode.epochs` cannot be read", self.name))
                    .caused_by(e.to_string())
            })?);
        }
        Ok(decoder)
    }
}

struct Worker {
    reader: Reader,
    upsert: Upsert,
    decoder: Decoder,
    inbox: mpsc::Receiver<Order>,
    /// what is to be done between two batches
    due: mpsc::Receiver<Between>,
    live: Arc<AtomicBool>,
    /// next offset to decode of each Kafka partition
    next: Positions,
    decoded: Decoded,
    pending: Pending,
    ending: Option<Ending>,
    /// the source has no schema-change topic: there is nothing to wait for
    alone: bool,
    /// the partition whose record is held
    held: Option<PartitionId>,
    /// up to where records have waited long enough to be given up; `None`: all have
    waited: Option<Positions>,
    /// the names that the table had before
    lineage: Lineage,
    /// their Bronze tables
    ancestors: Vec<Source>,
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
    async fn run(&mut self) -> Result<()> {
        let mut learned = self.reader.connector.changed();
        let mut committed = self.reader.committed.clone();
        self.reach_bronze().await?;
        loop {
            if self.ending.is_some() {
                return self.finish().await;
            }
            let due = self.pending.due_at();
            tokio::select! {
                biased;
                () = at(due) => self.flush().await?,
                Some(between) = self.due.recv() => self.do_between(between).await?,
                Ok(()) = learned.changed() => self.follow_schema().await?,
                () = grown(&mut self.ancestors) => self.catch_up(Patience::Hold).await?,
                order = self.inbox.recv() => match order {
                    None => self.ending = Some(Ending::BrokenOff),
                    Some(Order::Drain(ending)) => self.ending = Some(ending),
                    Some(Order::Take(delivery)) => self.take(delivery).await?,
                },
                // What was not handed over (too slow, held, or just started) is in Bronze, and the topic may be quiet
                // from now on.
                Ok(()) = committed.changed(), if self.inbox.is_empty() => self.reach_bronze().await?,
            }
        }
    }

    /// Makes the table in the structure that the source has by now, so that no row is written in an older one.
    async fn begin_with_newest(&mut self) -> Result<()> {
        let newest = self.reader.connector.with_history(|history| history.latest(&self.reader.source));
        match newest {
            Some(schema) if self.reader.follows_schema => self.upsert.follow(&schema).await,
            _ => Ok(()),
        }
    }

    /// Begins anew at the table as it is now.
    async fn reopen(&mut self) -> Result<()> {
        self.upsert.settle().await?;
        self.upsert = self.reader.opening.open().await?;
        self.decoder = self.reader.decoder(&self.upsert)?;
        self.next = self.upsert.positions().clone();
        (self.lineage, self.ancestors) = (Lineage::default(), Vec::new());
        self.decoded = Decoded::new();
        self.pending = Pending::new(self.reader.flush);
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.reach_bronze().await?;
        self.flush().await?;
        self.follow_schema().await?;
        self.upsert.settle().await
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
        if let Taken::Held(reason) = self.read_bronze(&self.own_source(), Patience::Hold).await? {
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
        loop {
            self.learn_lineage()?;
            let Some(source) = self.behind() else { break };
            self.live.store(false, Relaxed);
            if self.ending.is_none() {
                // What was queued is in Bronze by the time it is needed; room for it must not be kept.
                self.drop_queue();
            }
            match self.read_bronze(&source, patience).await? {
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

    fn own_source(&self) -> Source {
        Source {
            topic: Arc::clone(&self.reader.topic),
            bronze: self.reader.bronze.clone(),
            committed: self.reader.committed.clone(),
        }
    }

    /// A topic of which Bronze holds something that we lack, those of earlier names first.
    fn behind(&self) -> Option<Source> {
        let lacks = |committed: &watch::Receiver<Positions>| {
            committed.borrow().iter().any(|(id, end)| self.next.get(id).copied().unwrap_or(0) < *end)
        };
        let earlier = self.ancestors.iter().rev().find(|source| lacks(&source.committed)).cloned();
        earlier.or_else(|| lacks(&self.reader.committed).then(|| self.own_source()))
    }

    /// Takes up the names that the table had before, as far as the schema-change topic tells them by now.
    fn learn_lineage(&mut self) -> Result<()> {
        let lineage = self.reader.connector.with_history(|history| history.lineage(&self.reader.source));
        if lineage == Lineage::default() {
            return Ok(());
        }
        let (found, missing) = self.reader.bronzes.of(&self.reader.topic, &lineage);
        if lineage != self.lineage {
            let name = &self.reader.name;
            if lineage.since.is_some() && !self.has_read(&found) {
                if self.upsert.is_made() {
                    return Err(reused(name, &lineage));
                }
                // what was decoded and not committed may be the other table's
                (self.decoded, self.next) = (Decoded::new(), Positions::new());
                self.pending.clear();
                self.decoder.set_epochs(Epochs::new());
            }
            if let Some(by) = &lineage.replaced_by {
                tracing::warn!(table = %name, %by, "another table took this one's place; its rows are taken to be the same");
            }
            for ancestor in &lineage.ancestors {
                tracing::info!(table = %name, from = %ancestor.table, "renamed in the source; what came under the old name is read");
            }
            for topic in &missing {
                tracing::warn!(table = %name, topic, "renamed in the source, but Bronze has no topic of the old name: its rows are missing");
            }
            let window = |a: &Ancestor| Some((Arc::from(topic_of(&self.reader.topic, &a.table)?), a.until.clone()));
            let windows = lineage.ancestors.iter().filter_map(window).collect();
            self.decoder.set_lineage(lineage.since.clone(), windows);
        }
        self.lineage = lineage;
        // those that are known have been seen as far as they have grown
        let known = |source: &Source| self.ancestors.iter().any(|known| known.topic == source.topic);
        if !found.iter().all(known) {
            self.ancestors = found;
        }
        Ok(())
    }

    fn has_read(&self, sources: &[Source]) -> bool {
        self.next.keys().any(|id| sources.iter().any(|source| source.topic == id.topic))
    }

    fn drop_queue(&mut self) {
        while let Ok(order) = self.inbox.try_recv() {
            if let Order::Drain(ending) = order {
                self.ending = Some(ending);
                return;
            }
        }
    }

    async fn read_bronze(&mut self, source: &Source, patience: Patience) -> Result<Taken> {
        let mut backoff = Backoff::new();
        loop {
            match self.read_bronze_once(source, patience).await {
                Err(error) if error.action() == Action::Retry => backoff.wait(&self.reader.name, &error).await,
                other => return other,
            }
        }
    }

    async fn read_bronze_once(&mut self, source: &Source, patience: Patience) -> Result<Taken> {
        let (location, settings) = (source.bronze.clone(), self.reader.settings.clone());
        let table = BronzeTable::open_or_create(location, &source.topic, settings).await?;
        let ends = match self.reader.within_committed {
            true => source.committed.borrow().clone(),
            false => table.positions().clone(),
        };
        let mut blocks = table.read(&self.next).await?;
        while let Some(block) = blocks.next().await {
            let mut block = block?;
            if self.reader.within_committed {
                block.cut(source.committed.borrow().get(block.partition()).copied().unwrap_or(0));
            }
            if let Taken::Held(reason) = self.decode(&block, None, patience)? {
                return Ok(Taken::Held(reason));
            }
            if self.pending.is_full() {
                self.flush().await?;
                while let Ok(between) = self.due.try_recv() {
                    Box::pin(self.do_between(between)).await?;
                }
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
        let too_soon = self.waited.as_ref().is_some_and(|w| w.get(id).is_none_or(|end| next >= *end));
        let patience = match patience {
            _ if alone => Patience::LastChance,
            // It came after the wait began: its own explanation may still be on its way.
            Patience::LastChance if too_soon => Patience::Hold,
            patience => patience,
        };
        self.learned.borrow_and_update();
        if self.renames().last().map_or(0, |r| r.mark) < self.upsert.renamed() {
            let reason = "the schema-change topic is not read as far as the table has followed it";
            return match patience {
                Patience::Hold => Ok(Taken::Held(reason.to_owned())),
                Patience::LastChance => Err(forgotten(&self.reader)),
            };
        }
        let mut evidence = self.reader.connector.evidence();
        let before = self.decoded.bytes();
        let step = self.reader.connector.with_history(|history| {
            self.decoder.decode(block, row, history, &mut evidence, patience, &mut self.decoded)
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
        self.held = held.is_some().then(|| id.clone());
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
        let mut waited = self.reader.committed.borrow().clone();
        if let Some(id) = &self.held {
            let held = self.next.get(id).copied().unwrap_or(0) + 1;
            waited.entry(id.clone()).and_modify(|end| *end = held.max(*end)).or_insert(held);
        }
        let ends = self.reader.ends.clone();
        let topic = self.reader.connector.topic.clone();
        // A source that cannot tell, or has ended, says nothing about the topic.
        let mut asked = Box::pin(async move {
            loop {
                match ends.end_of(&topic).await {
                    Some(known) => break known,
                    None => tokio::time::sleep(ASK_AGAIN).await,
                }
            }
        });
        let mut ends: Option<Positions> = None;
        // Topics have no order among each other: what explains the record may arrive after it.
        let patient_until = Instant::now() + self.reader.schema_wait;
        loop {
            match self.ending {
                Some(Ending::Complete) => {
                    self.waited = None;
                    return Ok(Some(Patience::LastChance));
                }
                Some(Ending::BrokenOff) => return Ok(None),
                None => {}
            }
            self.alone |= ends.as_ref().is_some_and(Positions::is_empty);
            let reached = ends.as_ref().is_some_and(|ends| self.reader.connector.has_reached(ends));
            if self.alone && self.reader.connector.is_silent() || reached && Instant::now() >= patient_until {
                self.waited = Some(waited);
                return Ok(Some(Patience::LastChance));
            }
            tokio::select! {
                Ok(()) = self.learned.changed() => return Ok(Some(Patience::Hold)),
                () = at(Some(patient_until)), if reached => {}
                Some(between) = self.due.recv() => self.do_between(between).await?,
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
        let source = &self.reader.source;
        let (gone, now) = self.reader.connector.with_history(|h| (h.is_gone(source), h.renamed_to(source).cloned()));
        if gone && !self.told_gone {
            let table = &self.reader.name;
            match now {
                Some(now) => {
                    let hint = format!("a section `[silver.{table}]` goes on with `from = \"{}\"`", now.table);
                    tracing::warn!(%table, %source, %now, hint, "renamed in the source; the table keeps its last rows");
                }
                None => tracing::warn!(%table, %source, "dropped in the source; the table keeps its last rows"),
            }
        }
        self.told_gone = gone;
    }

    /// Brings the table to the structure that the connector announced last.
    async fn follow_schema(&mut self) -> Result<()> {
        self.tell_gone();
        let known = self.lineage.clone();
        self.learn_lineage()?;
        if self.lineage != known {
            self.catch_up(Patience::Hold).await?;
        }
        if !self.reader.connector.clearings(&self.reader.source, &self.lineage, &self.next).is_empty() {
            self.flush().await?;
        }
        let renames = self.renames();
        if renames.last().is_some_and(|r| r.mark > self.upsert.renamed()) {
            self.flush().await?;
            self.upsert.rename(&renames).await?;
        }
        if !self.reader.follows_schema {
            return Ok(());
        }
        let schema = self.reader.connector.with_history(|history| history.latest(&self.reader.source));
        if let Some(schema) = schema
            && self.upsert.needs(&schema)
        {
            self.flush().await?;
            match self.upsert.follow(&schema).await {
                // Rows of that structure become dead letters; older ones still fit.
                Err(error) if error.kind() == ErrorKind::Config => {
                    tracing::warn!(table = %self.reader.name, %error, "the table cannot follow its source's structure");
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Between two batches: whatever is pending is committed first.
    async fn do_between(&mut self, between: Between) -> Result<()> {
        match between {
            Between::Tune { flush, schema_wait } => {
                self.reader.flush = flush;
                self.pending.tune(flush);
                self.reader.schema_wait = schema_wait;
                Ok(())
            }
            Between::Adopt { module, params, reply } => {
                self.flush().await?;
                let adopted = self.upsert.adopt(module, params).await;
                // A module that does not fit is refused; a table that cannot be written to stops.
                let (told, ended) = match adopted {
                    Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Module) => (Err(error), Ok(())),
                    Err(error) => (Err(Error::new(error.kind(), error.to_string())), Err(error)),
                    Ok(()) => (Ok(()), Ok(())),
                };
                let _ = reply.send(told);
                ended
            }
        }
    }

    /// Takes in the statements that left the table without the rows it had: each is an input of the table like its
    /// records, with a position in the same commits.
    fn take_clearings(&mut self) -> Result<()> {
        if self.decoded.rows() == 0 && !self.upsert.is_made() {
            return Ok(());
        }
        for clearing in self.reader.connector.clearings(&self.reader.source, &self.lineage, &self.next) {
            let (id, change) = (clearing.told_in, clearing.change);
            let floor = self.decoder.floor(&change, &id.topic, id.partition);
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
        self.upsert.rename(&renames).await?;
        let changes = changes.into_iter().map(|c| c.carried(&renames)).collect::<Result<Vec<_>>>()?;
        let epochs = self.decoder.epochs().to_string();
        let counts = self.upsert.write(&changes, &floors, &bad, self.pending.ranges(), epochs).await?;
        self.reader.progress.table(&self.reader.name, |t| {
            t.changes += counts.changes;
            t.rows += counts.rows;
            t.dead_letters += counts.dead_letters;
            t.commits += 1;
        });
        self.pending.clear();
        self.upsert.maintain().await
    }
}

fn reused(table: &str, lineage: &Lineage) -> Error {
    let from = lineage.ancestors.first().map(|a| a.table.to_string()).unwrap_or_default();
    let message = format!("silver `{table}`: `{from}` was given this name, which another table had before");
    Error::new(ErrorKind::Gap, message).hint(format!(
        "remove `silver/{table}` from the lake: it is then made anew from Bronze, with the rows of `{from}`"
    ))
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
