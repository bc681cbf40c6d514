//! One Silver table: decodes its topic's records, lets its module work on the winning changes, and commits.
//!
//! A table is *live* (it takes what the router hands over), or it is *behind*: new, overtaken, held for a schema, or
//! just started. Behind, it reads Bronze from its own position until it meets what Bronze has committed, and then
//! goes over to live. That handover is the same for every cause.

mod catch_up;
pub(in crate::pipeline) mod plan;
mod structure;
pub(in crate::pipeline) mod upsert;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Ending, Inbox, Order, retrying};
use crate::buffer::{Pending, Room};
use crate::decode;
use crate::decode::{Decoded, Decoder, Epochs, Lineage, Patience, Step, TableName, topic_of};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Location, Pace, Settings};
use crate::model::positions::{PartitionId, Positions, Range};
use crate::model::record::Block;
use crate::pipeline::Bounds;
use crate::pipeline::ancestry::{AppendedTopic, Bronzes, grown};
use crate::pipeline::connector::{Connector, Connectors};
use crate::pipeline::observe::progress::Progress;
use crate::pipeline::task::at;
use crate::source::{Delivery, Requests};
use structure::forgotten;
use upsert::{Counts, Opening, Upsert};

/// A table whose newest record is older than this, and than a flush may be, by Kafka's timestamp works off a backlog.
const BACKLOG_MS: i64 = 30_000;
/// How long a table of a run that is broken off goes on taking in what Bronze holds.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a Silver task works with.
pub(in crate::pipeline) struct SilverTask {
    pub(in crate::pipeline) topic: Arc<str>,
    /// the table in the database
    pub(in crate::pipeline) source: TableName,
    /// false where the pipeline file says the types itself
    pub(in crate::pipeline) follows_schema: bool,
    pub(in crate::pipeline) decode: decode::Settings,
    pub(in crate::pipeline) connector: Arc<Connector>,
    pub(in crate::pipeline) connectors: Arc<Connectors>,
    pub(in crate::pipeline) opening: Opening,
    pub(in crate::pipeline) bounds: watch::Receiver<Bounds>,
    pub(in crate::pipeline) room: Room,
    pub(in crate::pipeline) committed: watch::Receiver<Positions>,
    /// true where nothing past `committed` may be read, though Bronze holds it
    pub(in crate::pipeline) within_committed: bool,
    pub(in crate::pipeline) bronze: Location,
    pub(in crate::pipeline) settings: Settings,
    pub(in crate::pipeline) bronzes: Arc<Bronzes>,
    pub(in crate::pipeline) requests: Requests,
    pub(in crate::pipeline) progress: Arc<Progress>,
}

impl SilverTask {
    /// The table's name in its layer.
    fn name(&self) -> &str {
        &self.opening.plan.name
    }

    pub(in crate::pipeline) async fn work(self, inbox: Inbox) -> Result<()> {
        // What Bronze knows of the structures must be known before a row is decoded.
        retrying!(&inbox.health, self.connectors.take_in(&self.connector))?;
        let upsert = self.opening.open(&inbox).await?;
        self.check_only_topic(upsert.positions())?;
        let bounds = *self.bounds.borrow();
        let mut worker = Worker {
            decoder: self.decoder(&upsert)?,
            next: upsert.positions().clone(),
            upsert,
            decoded: Decoded::new(),
            pending: Pending::new(bounds.flush, self.room.clone()),
            bounds,
            inbox,
            ending: None,
            broken_off: None,
            unexplained: false,
            newest_ms: None,
            lineage: Lineage::default(),
            ancestors: Vec::new(),
            told_gone: false,
            held: None,
            waited: None,
            learned: self.connector.changed(),
            task: self,
        };
        worker.tell_opened();
        if worker.task.within_committed {
            worker.begin_with_newest().await?;
        }
        worker.run().await
    }

    /// Refuses a table that another topic is written into. One instance alone knows that from its own tables.
    fn check_only_topic(&self, positions: &Positions) -> Result<()> {
        if !self.bronzes.are_shared() {
            return Ok(());
        }
        let lineage = self.connector.with_history(|history| history.lineage(&self.source));
        let earlier: Vec<String> =
            lineage.ancestors.iter().filter_map(|ancestor| topic_of(&self.topic, &ancestor.table)).collect();
        let is_own = |topic: &str| topic == &*self.topic || topic == self.connector.topic;
        let mut topics = positions.partitions().map(|(id, _)| &id.topic);
        let other = topics.find(|topic| !is_own(topic) && !earlier.iter().any(|name| **name == ***topic));
        let Some(other) = other else { return Ok(()) };
        let message =
            format!("silver `{}`: `{other}` is written into it, and so would be `{}`", self.name(), self.topic);
        Err(Error::new(ErrorKind::Config, message)
            .hint("give one of them a section `[silver.<other name>]` with `from = \"<database>.<table>\"`"))
    }

    /// A decoder that goes on from the epochs that the table has.
    fn decoder(&self, upsert: &Upsert) -> Result<Decoder> {
        let mut decoder = Decoder::new(Arc::clone(&self.topic), self.decode.clone());
        if let Some(epochs) = upsert.epochs() {
            decoder.set_epochs(epochs.parse::<Epochs>().map_err(|e| {
                Error::new(ErrorKind::Corrupt, format!("silver `{}`: `lode.epochs` cannot be read", self.name()))
                    .caused_by(e.to_string())
            })?);
        }
        Ok(decoder)
    }
}

struct Worker {
    task: SilverTask,
    upsert: Upsert,
    decoder: Decoder,
    inbox: Inbox,
    bounds: Bounds,
    /// next offset to decode of each Kafka partition
    next: Positions,
    decoded: Decoded,
    pending: Pending,
    /// how the task is to end, once it was told
    ending: Option<Ending>,
    /// when it was told that the run is broken off
    broken_off: Option<Instant>,
    /// the source has no schema-change topic: there is nothing to wait for
    unexplained: bool,
    /// Kafka's timestamp of the newest record that is pending, as far as the last ones of its blocks tell
    newest_ms: Option<i64>,
    /// the partition whose record is held
    held: Option<PartitionId>,
    /// up to where records have waited long enough to be given up; `None`: all have
    waited: Option<Positions>,
    /// the names that the table had before
    lineage: Lineage,
    /// their Bronze tables
    ancestors: Vec<AppendedTopic>,
    /// it was said that the source has no such table any more
    told_gone: bool,
    /// changes once something was learned after the last decoding
    learned: watch::Receiver<u64>,
}

/// What stopped the decoding of a block.
enum Intake {
    All,
    Held(String),
}

impl Worker {
    async fn run(&mut self) -> Result<()> {
        let mut learned = self.task.connector.changed();
        let mut committed = self.task.committed.clone();
        let mut bounds = self.task.bounds.clone();
        self.reach_bronze().await?;
        loop {
            if let Some(ending) = self.ending {
                return self.finish(ending).await;
            }
            let due = self.pending.due_at();
            tokio::select! {
                biased;
                () = at(due) => self.flush().await?,
                Some(order) = self.inbox.orders.recv() => self.obey(order).await?,
                Ok(()) = bounds.changed() => {
                    self.bounds = *bounds.borrow_and_update();
                    self.pending.tune(self.bounds.flush);
                }
                Ok(()) = learned.changed() => self.follow_schema().await?,
                () = grown(&mut self.ancestors, self.task.bronzes.are_shared()) => self.catch_up(Patience::Hold).await?,
                ending = self.inbox.health.ended() => self.told_to_end(ending),
                Some(delivery) = self.inbox.deliveries.recv() => self.take(delivery).await?,
                // What was not handed over (too slow, held, or just started) is in Bronze, and the topic may be quiet
                // from now on.
                Ok(()) = committed.changed(), if self.inbox.deliveries.is_empty() => self.reach_bronze().await?,
            }
        }
    }

    pub(in crate::pipeline) fn told_to_end(&mut self, ending: Ending) {
        self.ending = Some(ending);
        if ending == Ending::BrokenOff {
            self.broken_off.get_or_insert_with(Instant::now);
        }
    }

    /// True where nothing more is to be read, be there what there may: what it lacks the next start reads.
    fn must_end(&mut self) -> bool {
        if let Some(ending) = self.inbox.health.ending() {
            self.told_to_end(ending);
        }
        self.ending == Some(Ending::AtOnce) || self.broken_off.is_some_and(|since| since.elapsed() >= CATCH_UP_TIMEOUT)
    }

    fn tell_opened(&mut self) {
        self.inbox.health.committed();
        let stand = self.upsert.stand();
        self.task.progress.table(self.inbox.health.id(), |t| t.stand = stand);
    }

    async fn finish(&mut self, ending: Ending) -> Result<()> {
        if ending == Ending::AtOnce {
            return Ok(());
        }
        self.reach_bronze().await?;
        self.flush().await?;
        self.follow_schema().await?;
        self.upsert.finish(ending).await;
        Ok(())
    }

    /// Takes a delivery in, or falls behind when it does not follow on what is decoded.
    async fn take(&mut self, delivery: Delivery) -> Result<()> {
        let id = delivery.block.partition();
        let next = self.next.get(id).unwrap_or(0);
        if delivery.range.to <= next {
            return Ok(());
        }
        if delivery.range.from > next {
            return self.fill_gap(delivery).await;
        }
        match self.decode(&delivery.block, Some(delivery.range), Patience::Hold)? {
            Intake::All => {}
            Intake::Held(reason) => {
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

    /// Decodes what of `block` lies at or past our position. `range`: what the block covers, gaps included.
    fn decode(&mut self, block: &Block, range: Option<Range>, patience: Patience) -> Result<Intake> {
        let id: &PartitionId = block.partition();
        let Some(covered) = range.or_else(|| block.range()) else { return Ok(Intake::All) };
        let next = self.next.get(id).unwrap_or(0);
        let row = block.iter().take_while(|r| r.offset < next).count();
        let unexplained = self.unexplained && self.task.connector.is_silent();
        let too_soon = self.waited.as_ref().is_some_and(|w| w.get(id).is_none_or(|end| next >= end));
        let patience = match patience {
            _ if unexplained => Patience::LastChance,
            // It came after the wait began: its own explanation may still be on its way.
            Patience::LastChance if too_soon => Patience::Hold,
            patience => patience,
        };
        self.learned.borrow_and_update();
        if self.renames().last().map_or(0, |r| r.mark) < self.upsert.renamed() {
            let reason = "the schema-change topic is not read as far as the table has followed it";
            return match patience {
                Patience::Hold => Ok(Intake::Held(reason.to_owned())),
                Patience::LastChance => Err(forgotten(&self.task)),
            };
        }
        let mut evidence = self.task.connector.evidence();
        let before = self.decoded.bytes();
        let step = self.task.connector.with_history(|history| {
            self.decoder.decode(block, row, history, &mut evidence, patience, &mut self.decoded)
        });
        self.task.connector.learn(evidence);
        let (end, last, held) = match step {
            Step::Done => (covered.to.max(next), block.len(), None),
            Step::Held { row: at, reason } => (block.get(at).map_or(next, |r| r.offset), at, Some(reason)),
            Step::Jump { reason, .. } => {
                return Err(jumped(self.task.name(), &reason));
            }
        };
        let bytes = self.decoded.bytes().saturating_sub(before);
        self.pending.add(id, Range { from: next, to: end }, last.saturating_sub(row), bytes);
        self.next.insert(id.clone(), end);
        let newest = last.checked_sub(1).and_then(|row| block.get(row));
        self.newest_ms = self.newest_ms.max(newest.map(|record| record.timestamp_ms));
        self.held = held.is_some().then(|| id.clone());
        Ok(held.map_or(Intake::All, Intake::Held))
    }

    /// Between two batches: whatever is pending is committed first.
    async fn obey(&mut self, order: Order) -> Result<()> {
        self.flush().await?;
        match order {
            Order::Flush(done) => drop(done.send(())),
            Order::Adopt { module, params, reply } => {
                let adopted = self.upsert.adopt(module, params).await;
                // A module that does not fit is refused; a table that cannot be written to stops.
                let ended = adopted.as_ref().err().filter(|error| !error.is_refusal()).cloned();
                let _ = reply.send(adopted);
                return ended.map_or(Ok(()), Err);
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.take_truncates()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        self.task.check_only_topic(self.upsert.positions())?;
        let (changes, floors, bad) = self.decoded.finish();
        // Rows of an older structure come under the names that their columns have by now.
        let renames = self.renames();
        self.upsert.rename(&renames).await?;
        let changes = changes.into_iter().map(|c| c.carried(&renames)).collect::<Result<Vec<_>>>()?;
        let epochs = self.decoder.epochs().to_string();
        let (begun, pace) = (Instant::now(), self.pace());
        let counts = self.upsert.write(&changes, &floors, &bad, self.pending.ranges(), epochs).await?;
        self.tell_commit(&counts, begun.elapsed());
        self.pending.clear();
        self.upsert.maintain(pace).await;
        Ok(())
    }

    /// What is pending lags far behind the clock: more is to come at once, and readers do not have the newest anyway.
    fn pace(&self) -> Pace {
        let lag_ms = self.newest_ms.map_or(0, |newest| chrono::Utc::now().timestamp_millis().saturating_sub(newest));
        let age_ms = i64::try_from(self.bounds.flush.age.as_millis()).unwrap_or(i64::MAX);
        if self.ending.is_none() && lag_ms > BACKLOG_MS.saturating_add(age_ms) {
            Pace::CatchingUp
        } else {
            Pace::Steady
        }
    }

    fn tell_commit(&mut self, counts: &Counts, took: Duration) {
        self.inbox.health.committed();
        let (stand, newest_ms) = (self.upsert.stand(), self.newest_ms.take());
        self.task.progress.table(self.inbox.health.id(), |t| {
            t.counts.changes += counts.changes;
            t.counts.rows += counts.rows;
            t.counts.dead_letters += counts.dead_letters;
            t.counts.commits += 1;
            t.rejected += counts.rejected;
            t.module.add(counts.module);
            // Before there is a table, only dead letters are written.
            if stand.extent.is_some() {
                t.commits.note(took, newest_ms);
            }
            t.stand = stand;
        });
    }

    /// From now on it takes what the router hands over.
    fn go_live(&self) {
        self.inbox.live.set(true);
        self.task.progress.table(self.inbox.health.id(), |t| t.caught_up = true);
    }
}

fn jumped(table: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Gap, format!("silver `{table}`: {reason}"))
}

fn bronze_ended(topic: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("bronze `{topic}` has stopped")).hint("see its own message")
}
