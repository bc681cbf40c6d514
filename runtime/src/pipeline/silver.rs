//! One Silver table: decodes its topic's records, lets its module work on the winning changes, and commits.
//!
//! A table is *live* (it takes what the router hands over), or it is *behind*: new, overtaken, held for a schema, or
//! just started. Behind, it reads Bronze from its own position until it meets what Bronze has committed, and then
//! goes over to live. That handover is the same for every cause.

mod behind;
mod structure;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::ancestry::{Bronzes, Source, grown};
use super::bronze::at;
use super::connector::Connector;
use super::progress::Progress;
use super::reload::Desk;
use super::upsert::{Counts, Opening, Upsert};
use crate::buffer::{Pending, Room};
use crate::decode::{self, Decoded, Decoder, Epochs, Lineage, Patience, Step, TableName, topic_of};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Block, PartitionId, Positions, Range};
use crate::source::{Delivery, EndQueries};
use crate::table::{Location, Pace, Settings};
use crate::transform::Module;
use structure::forgotten;

/// Deliveries that wait for a table.
const QUEUE: usize = 32;
/// A table whose newest record is older than this, and than a flush may be, by Kafka's timestamp works off a backlog.
const BACKLOG_MS: i64 = 30_000;

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
    pub(super) room: Room,
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
        self.check_alone(upsert.positions())?;
        let mut worker = Worker {
            decoder: self.decoder(&upsert)?,
            next: upsert.positions().clone(),
            upsert,
            decoded: Decoded::new(),
            pending: Pending::new(self.flush, self.room.clone()),
            inbox,
            due,
            live,
            ending: None,
            alone: false,
            newest_ms: None,
            lineage: Lineage::default(),
            ancestors: Vec::new(),
            told_gone: false,
            held: None,
            waited: None,
            learned: self.connector.changed(),
            reader: self,
        };
        worker.tell_opened();
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

    /// Refuses a table that another topic is written into. One instance alone knows that from its own tables.
    fn check_alone(&self, positions: &Positions) -> Result<()> {
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
        let message = format!("silver `{}`: `{other}` is written into it, and so would be `{}`", self.name, self.topic);
        Err(Error::new(ErrorKind::Config, message)
            .hint("give one of them a section `[silver.<other name>]` with `from = \"<database>.<table>\"`"))
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
    /// Kafka's timestamp of the newest record that is pending, as far as the last ones of its blocks tell
    newest_ms: Option<i64>,
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
            if let Some(ending) = self.ending {
                return self.finish(ending).await;
            }
            let due = self.pending.due_at();
            tokio::select! {
                biased;
                () = at(due) => self.flush().await?,
                Some(between) = self.due.recv() => self.do_between(between).await?,
                Ok(()) = learned.changed() => self.follow_schema().await?,
                () = grown(&mut self.ancestors, self.reader.bronzes.are_shared()) => self.catch_up(Patience::Hold).await?,
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

    /// Begins anew at the table as it is now.
    async fn reopen(&mut self) -> Result<()> {
        self.upsert.settle(Ending::BrokenOff).await;
        self.upsert = self.reader.opening.open().await?;
        self.decoder = self.reader.decoder(&self.upsert)?;
        self.next = self.upsert.positions().clone();
        (self.lineage, self.ancestors) = (Lineage::default(), Vec::new());
        self.decoded = Decoded::new();
        self.pending.clear();
        self.newest_ms = None;
        self.tell_opened();
        Ok(())
    }

    fn tell_opened(&mut self) {
        let stand = self.upsert.stand();
        self.reader.progress.table(&self.reader.name, |t| t.stand = stand);
    }

    async fn finish(&mut self, ending: Ending) -> Result<()> {
        self.reach_bronze().await?;
        self.flush().await?;
        self.follow_schema().await?;
        self.upsert.settle(ending).await;
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

    /// Decodes what of `block` lies at or past our position. `range`: what the block covers, gaps included.
    fn decode(&mut self, block: &Block, range: Option<Range>, patience: Patience) -> Result<Taken> {
        let id: &PartitionId = block.partition();
        let Some(covered) = range.or_else(|| block.range()) else { return Ok(Taken::All) };
        let next = self.next.get(id).unwrap_or(0);
        let row = block.iter().take_while(|r| r.offset < next).count();
        let alone = self.alone && self.reader.connector.is_silent();
        let too_soon = self.waited.as_ref().is_some_and(|w| w.get(id).is_none_or(|end| next >= end));
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
        let newest = last.checked_sub(1).and_then(|row| block.get(row));
        self.newest_ms = self.newest_ms.max(newest.map(|record| record.timestamp_ms));
        self.held = held.is_some().then(|| id.clone());
        Ok(held.map_or(Taken::All, Taken::Held))
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

    async fn flush(&mut self) -> Result<()> {
        self.take_clearings()?;
        if self.pending.is_empty() {
            return Ok(());
        }
        self.reader.check_alone(self.upsert.stands())?;
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
        self.upsert.maintain(pace).await
    }

    /// What is pending lags far behind the clock: more is to come at once, and readers do not have the newest anyway.
    fn pace(&self) -> Pace {
        let lag_ms = self.newest_ms.map_or(0, |newest| chrono::Utc::now().timestamp_millis().saturating_sub(newest));
        let age_ms = i64::try_from(self.reader.flush.age.as_millis()).unwrap_or(i64::MAX);
        if self.ending.is_none() && lag_ms > BACKLOG_MS.saturating_add(age_ms) {
            Pace::CatchingUp
        } else {
            Pace::Steady
        }
    }

    fn tell_commit(&mut self, counts: &Counts, took: Duration) {
        let (stand, newest_ms) = (self.upsert.stand(), self.newest_ms.take());
        self.reader.progress.table(&self.reader.name, |t| {
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
        self.live.store(true, Relaxed);
        self.reader.progress.table(&self.reader.name, |t| t.caught_up = true);
    }
}

fn jumped(table: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Gap, format!("silver `{table}`: {reason}"))
}

fn bronze_ended(topic: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("bronze `{topic}` has stopped")).hint("see its own message")
}
