//! Where records come from.
//!
//! A source runs on a thread of its own. It announces the Kafka partitions that it finds, reads a topic once it is told
//! from where ([`Requests::begin`]), and hands over [`Block`]s, each partition in offset order, until it is told to stop.
//! Capture files and Kafka differ only up to this point; everything after it is one path.
//!
//! It promises never to hold more than the memory budget in records that nobody has taken in yet, to hold no topic up
//! for another whose records nobody takes in, and never to lose or skip a record silently: it ends with
//! [`SourceEvent::Failed`] or because it was told to, never without a word. A topic that cannot go on is given up alone.
//! It knows nothing of tables, and never decodes a value.

mod budget;
mod ends;
pub mod kafka;
pub mod replay;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use budget::Budget;
pub(crate) use budget::{Full, Taken};
pub use ends::{KnownEnds, Reach};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, ErrorKind, Result, panicked};
use crate::model::positions::{Offsets, PartitionId, Range};
use crate::model::record::Block;

/// Records of a block before it is handed over.
pub(crate) const BLOCK_ROWS_MAX: usize = 4096;
/// Bytes of a block before it is handed over.
pub(crate) const BLOCK_BYTES_MAX: usize = 1 << 20;

/// What a source tells the pipeline.
#[derive(Debug)]
pub enum SourceEvent {
    /// it found these partitions, and reads those of a topic once [`Requests::begin`] says from where
    Found(Vec<PartitionId>),
    /// it found these partitions, which another instance appends: what they tell of tables counts, and nothing of
    /// them is committed; it reads them once it is told from where
    Followed(Vec<PartitionId>),
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
    /// the turn of the topic in which it was read, as [`Requests::begin`] named it
    pub turn: u64,
    _room: Arc<Taken>,
}

/// What a source is asked for while it runs. A source that has ended hears none of it.
#[derive(Debug, Clone)]
pub struct Requests(std::sync::mpsc::Sender<Request>);

/// See [`Requests`].
#[derive(Debug)]
pub(crate) enum Request {
    Ends { topic: String, reply: oneshot::Sender<Offsets> },
    Begin { topic: Arc<str>, positions: Offsets, turn: u64 },
    Wait { topic: Arc<str> },
    Leave { topic: Arc<str> },
    Recall { topic: Arc<str> },
}

impl Requests {
    /// Asks nobody: every answer is `None`.
    pub(crate) fn closed() -> Self {
        Requests(std::sync::mpsc::channel().0)
    }

    /// Exclusive ends of the topic's partitions as of now; empty when the source certainly has no such topic.
    /// `None` when it cannot tell: a broker did not answer, the topic was given up, or the source has ended.
    pub async fn end_of(&self, topic: &str) -> Option<Offsets> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Request::Ends { topic: topic.to_owned(), reply }).ok()?;
        answer.await.ok()
    }

    /// Read what was found of the topic from `positions` on, partitions without one from their beginning. What is being
    /// read already goes on, unless `turn` is another than the one before: then all of the topic is read anew from
    /// `positions`, and what was handed over in an earlier turn counts for nothing.
    pub(crate) fn begin(&self, topic: &Arc<str>, positions: Offsets, turn: u64) {
        let _ = self.0.send(Request::Begin { topic: Arc::clone(topic), positions, turn });
    }

    /// Nobody can say yet from where the topic goes on: the others need not wait for it.
    pub(crate) fn wait(&self, topic: &Arc<str>) {
        let _ = self.0.send(Request::Wait { topic: Arc::clone(topic) });
    }

    /// Nobody takes in records of the topic any more, until [`Requests::recall`].
    pub(crate) fn leave(&self, topic: &Arc<str>) {
        let _ = self.0.send(Request::Leave { topic: Arc::clone(topic) });
    }

    /// Look for the topic again, whatever it was given up or left for.
    pub(crate) fn recall(&self, topic: &Arc<str>) {
        let _ = self.0.send(Request::Recall { topic: Arc::clone(topic) });
    }
}

/// The pipeline's end of a running source.
pub struct Source {
    /// what it tells
    pub events: mpsc::Receiver<SourceEvent>,
    /// what it can be asked for
    pub requests: Requests,
    /// what others take over as soon as it is dropped; for as long as tables commit
    pub(crate) membership: Option<kafka::Membership>,
    /// how far what it reads reaches, as far as is known; empty where the source does not tell
    pub known_ends: KnownEnds,
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What a source thread works with.
pub(crate) struct Outlet {
    /// records of a block before it is handed over
    pub(crate) block_rows: usize,
    pub(crate) events: mpsc::Sender<SourceEvent>,
    pub(crate) requests: std::sync::mpsc::Receiver<Request>,
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
}

impl Delivery {
    pub(crate) fn new(block: Block, range: Range, turn: u64, room: Taken) -> Self {
        Delivery { block: Arc::new(block), range, turn, _room: Arc::new(room) }
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
        let (requests_in, requests) = std::sync::mpsc::channel();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let known_ends = KnownEnds::default();
        let outlet = Outlet {
            block_rows: block_rows.clamp(1, BLOCK_ROWS_MAX),
            events: events_in,
            requests,
            budget,
            known_ends: known_ends.clone(),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // A panic must not look like the end of the stream.
                let ended = catch_unwind(AssertUnwindSafe(|| run(&outlet)));
                if let Err(error) = ended.unwrap_or_else(|panic| Err(panicked("the source", panic.as_ref()))) {
                    outlet.send(SourceEvent::Failed(error));
                }
            })
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot start the source thread").caused_by(e))?;
        let requests = Requests(requests_in);
        Ok(Source { events, requests, membership: None, known_ends, stop, thread: Some(thread) })
    }

    /// Asks the thread to end; it does so at its next turn.
    pub fn stop(&self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
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
