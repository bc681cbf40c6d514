//! Where records come from.
//!
//! A source runs on a thread of its own. It announces the Kafka partitions it takes up, asks from where each goes
//! on, and then hands over [`Block`]s, each partition in offset order, until it is told to stop. Capture files and
//! Kafka differ only up to this point; everything after it is one path.
//!
//! It promises never to hold more than the memory budget in records that nobody has taken in yet, and never to
//! lose or skip a record silently: it ends with [`SourceEvent::Failed`] or because it was told to, never without a word.
//! A topic that cannot go on is given up alone. It knows nothing of tables, and never decodes a value.

mod ends;
pub mod kafka;
pub mod replay;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use ends::{KnownEnds, Reach};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::{Error, ErrorKind, Result};
use crate::record::{Block, Offsets, PartitionId, Range};

/// Records of a block before it is handed over.
pub(crate) const BLOCK_ROWS_MAX: usize = 4096;
/// Bytes of a block before it is handed over.
pub(crate) const BLOCK_BYTES_MAX: usize = 1 << 20;

/// What a source tells the pipeline.
#[derive(Debug)]
pub enum SourceEvent {
    /// it takes up these partitions, and needs the next offset of each (absent: from the beginning)
    Assigned {
        /// the partitions
        partitions: Vec<PartitionId>,
        /// where the positions go
        reply: oneshot::Sender<Offsets>,
    },
    /// it listens to these partitions, which another instance appends: what they tell of tables counts, and nothing of
    /// them is committed; it needs the next offset of each
    Followed {
        /// the partitions
        partitions: Vec<PartitionId>,
        /// where the positions go
        reply: oneshot::Sender<Offsets>,
    },
    /// these topics are another's: their tables must not commit once `done` is dropped
    Revoked {
        /// the topics
        topics: Vec<Arc<str>>,
        /// dropped when the right to commit has ended
        done: std::sync::mpsc::SyncSender<()>,
    },
    /// records, following without a gap on what was handed over before
    Block(Delivery),
    /// one topic cannot go on: nothing more of it comes; the others go on
    Lost {
        /// the topic
        topic: Arc<str>,
        /// why, and what to do about it
        error: Error,
    },
    /// everything that was present at the start (or in the files) has been handed over
    Drained,
    /// the source cannot go on
    Failed(Error),
}

/// A block on its way, with the room it takes in the memory budget.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// the records; none where the range holds nothing else than a transaction's markers
    pub block: Arc<Block>,
    /// from the end of the delivery before (which may lie below the first record's offset) to this one's end (which may
    /// lie past the last record's)
    pub range: Range,
    _room: Arc<OwnedSemaphorePermit>,
}

/// Bytes of records that may be under way at once.
#[derive(Debug, Clone)]
pub struct Budget {
    room: Arc<Semaphore>,
    total: u32,
}

const UNIT_BYTES: usize = 1024;

impl Budget {
    /// A budget of `bytes`, counted in KiB.
    pub fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX / 2).max(1);
        Budget { room: Arc::new(Semaphore::new(total as usize)), total }
    }

    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(u32::MAX).min(self.total)
    }

    /// Bytes that may be under way at once.
    pub fn bytes(&self) -> usize {
        self.total as usize * UNIT_BYTES
    }

    /// Bytes that are under way, each block rounded up to whole KiB.
    pub fn taken_bytes(&self) -> usize {
        (self.total as usize).saturating_sub(self.room.available_permits()) * UNIT_BYTES
    }

    /// Room for `bytes`, or `None` while there is none. A block larger than the whole budget gets all of it.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(self.units(bytes)).ok()
    }

    /// Waits for room for `bytes`.
    pub(crate) fn take_blocking(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        futures::executor::block_on(Arc::clone(&self.room).acquire_many_owned(self.units(bytes))).ok()
    }
}

/// The pipeline's end of a running source.
pub struct Source {
    /// what it tells
    pub events: mpsc::Receiver<SourceEvent>,
    /// asks for the end of a topic as it is now
    pub ends: EndQueries,
    /// what others take over as soon as it is dropped; for as long as tables commit
    pub(crate) membership: Option<kafka::Membership>,
    /// how far what it reads reaches, as far as is known; empty where the source does not tell
    pub known_ends: KnownEnds,
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Asks a source how far a topic reaches at this moment.
#[derive(Clone)]
pub struct EndQueries(std::sync::mpsc::Sender<EndQuery>);

pub(crate) struct EndQuery {
    pub(crate) topic: String,
    /// dropped without an answer where there is none to give
    pub(crate) reply: oneshot::Sender<Offsets>,
}

impl EndQueries {
    /// Asks nobody: every answer is `None`.
    pub(crate) fn closed() -> Self {
        EndQueries(std::sync::mpsc::channel().0)
    }

    /// Exclusive ends of the topic's partitions as of now; empty when the source certainly has no such topic.
    /// `None` when it cannot tell: a broker did not answer, the topic was given up, or the source has ended.
    pub async fn end_of(&self, topic: &str) -> Option<Offsets> {
        let (reply, answer) = oneshot::channel();
        self.0.send(EndQuery { topic: topic.to_owned(), reply }).ok()?;
        answer.await.ok()
    }
}

/// What a source thread works with.
pub(crate) struct Outlet {
    /// records of a block before it is handed over
    pub(crate) block_rows: usize,
    pub(crate) events: mpsc::Sender<SourceEvent>,
    pub(crate) queries: std::sync::mpsc::Receiver<EndQuery>,
    pub(crate) budget: Budget,
    pub(crate) known_ends: KnownEnds,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Outlet {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(std::sync::atomic::Ordering::Relaxed) || self.events.is_closed()
    }

    /// Hands an event over; false when the pipeline is gone.
    pub(crate) fn send(&self, event: SourceEvent) -> bool {
        self.events.blocking_send(event).is_ok()
    }

    /// Announces partitions and waits for their positions; `None` when the pipeline is gone.
    pub(crate) fn assign(&self, partitions: Vec<PartitionId>) -> Option<Offsets> {
        self.announce(|reply| SourceEvent::Assigned { partitions, reply })
    }

    /// The same for partitions that another instance appends.
    pub(crate) fn follow(&self, partitions: Vec<PartitionId>) -> Option<Offsets> {
        self.announce(|reply| SourceEvent::Followed { partitions, reply })
    }

    fn announce(&self, event: impl FnOnce(oneshot::Sender<Offsets>) -> SourceEvent) -> Option<Offsets> {
        let (reply, answer) = oneshot::channel();
        if !self.send(event(reply)) {
            return None;
        }
        answer.blocking_recv().ok()
    }

    /// Waits for room and hands the block over; false when the pipeline is gone.
    pub(crate) fn deliver(&self, block: Block, from: i64) -> bool {
        let Some(range) = block.range() else { return true };
        let Some(room) = self.budget.take_blocking(block.bytes()) else { return false };
        self.send(SourceEvent::Block(Delivery::new(block, Range { from, to: range.to }, room)))
    }
}

impl Delivery {
    pub(crate) fn new(block: Block, range: Range, room: OwnedSemaphorePermit) -> Self {
        Delivery { block: Arc::new(block), range, _room: Arc::new(room) }
    }
}

impl Source {
    /// Starts a source thread named `name`.
    pub(crate) fn spawn(
        name: &str,
        budget: Budget,
        block_rows: usize,
        run: impl FnOnce(&Outlet) -> Result<()> + Send + 'static,
    ) -> Result<Source> {
        let (events_in, events) = mpsc::channel(64);
        let (queries_in, queries) = std::sync::mpsc::channel();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let known_ends = KnownEnds::default();
        let outlet = Outlet {
            block_rows: block_rows.clamp(1, BLOCK_ROWS_MAX),
            events: events_in,
            queries,
            budget,
            known_ends: known_ends.clone(),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // A panic must not look like the end of the stream.
                let ended = catch_unwind(AssertUnwindSafe(|| run(&outlet)));
                if let Err(error) = ended.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))) {
                    outlet.send(SourceEvent::Failed(error));
                }
            })
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot start the source thread").caused_by(e))?;
        let ends = EndQueries(queries_in);
        Ok(Source { events, ends, membership: None, known_ends, stop, thread: Some(thread) })
    }

    /// Asks the thread to end; it does so at its next turn.
    pub fn stop(&self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::new(ErrorKind::Internal, format!("the source panicked: {}", text.unwrap_or("no message")))
        .hint("this is a defect of lode; nothing that was committed is affected, the next start goes on from there")
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop();
        self.events.close();
        while self.events.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_source_is_told_as_a_failure() {
        let run = |_: &Outlet| -> Result<()> { panic!("offset {} of nowhere", 7) };
        let mut source = Source::spawn("broken", Budget::new(1024), 1, run).unwrap();
        let Some(SourceEvent::Failed(error)) = source.events.blocking_recv() else { panic!("no failure was told") };
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("offset 7 of nowhere"), "{error}");
    }
}
