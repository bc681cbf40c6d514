//! The store at work: a thread that lets the store act at a rate and writes what it does to the broker.
//!
//! Promises that, once stopped, everything the store did is in the broker, some of it more than once, and gives the
//! store back as it stands. Never waits for who reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Fault;
use super::broker::Producer;
use super::event::{Connector, Message};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};

/// Records that a connector which restarts may write again.
const RECENT: usize = 60;
/// Transactions between two such restarts, about.
const RESTART_EVERY: u32 = 300;

/// How the simulator works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) seed: u64,
    /// changes a second
    pub(super) rate: u32,
    pub(super) fault: Option<Fault>,
}

/// Counts that move while it works.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// records written, repeated ones too
    pub(super) records: AtomicU64,
    /// records that were written again
    pub(super) repeated: AtomicU64,
}

/// The simulator at work.
pub(super) struct Simulator {
    thread: JoinHandle<Result<Store>>,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Simulator {
    /// Starts: the tables' structures, a snapshot, then the stream.
    ///
    /// # Errors
    /// `Internal` when no thread can be had.
    pub(super) fn start(producer: Producer, work: Work) -> Result<Simulator> {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let feeder = Feeder {
            producer,
            counts: Arc::clone(&counts),
            connector: Connector::new(),
            recent: VecDeque::with_capacity(RECENT),
            rng: StdRng::seed_from_u64(!work.seed),
        };
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("lode-demo-store".into())
            .spawn(move || feeder.work(work, &stopping))
            .map_err(|e| Error::new(ErrorKind::Internal, "the store's thread does not start").caused_by(e))?;
        Ok(Simulator { thread, stop, counts })
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// True when it ended without being told to: [`Simulator::stop`] says why.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops it; the store as it stands.
    ///
    /// # Errors
    /// The broker's.
    pub(super) fn stop(self) -> Result<Store> {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the store's thread failed")))
    }
}

struct Feeder {
    producer: Producer,
    counts: Arc<Counts>,
    connector: Connector,
    /// the last records written, for a restart to write again
    recent: VecDeque<Message>,
    rng: StdRng,
}

impl Feeder {
    fn work(mut self, work: Work, stop: &AtomicBool) -> Result<Store> {
        let mut store = Store::new(work.seed, now_micros() / 1_000_000);
        for message in self.connector.structures(now_micros()) {
            self.producer.send(&message, None)?;
        }
        for message in self.connector.snapshot(&store, now_micros()) {
            self.producer.send(&message, None)?;
            self.counts.records.fetch_add(1, Relaxed);
        }
        let (start, mut changes) = (Instant::now(), 0_u32);
        while !stop.load(Relaxed) {
            let due = Duration::from_secs(1) * changes / work.rate.max(1);
            // The rate is what this waits for; nothing else hangs on it.
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let now = now_micros();
            let transaction = store.transact(now / 1_000_000);
            changes = changes.saturating_add(transaction.len() as u32);
            for message in self.connector.transaction(&transaction, now) {
                self.write(message)?;
            }
            if self.rng.random_ratio(1, RESTART_EVERY) {
                self.restart()?;
            }
        }
        match work.fault {
            Some(Fault::LoseRecord) => drop(store.change_contact_of_customer(now_micros() / 1_000_000)),
            Some(Fault::ForgetChange) => {
                let now = now_micros();
                let as_it_was = store.clone();
                let forgotten = store.change_contact_of_customer(now / 1_000_000);
                for message in self.connector.transaction(&forgotten, now) {
                    self.write(message)?;
                }
                store = as_it_was;
            }
            None | Some(Fault::CostOfToday) => {}
        }
        self.producer.flush()?;
        Ok(store)
    }

    fn write(&mut self, message: Message) -> Result<()> {
        self.producer.send(&message, Some(now_micros() / 1000))?;
        self.counts.records.fetch_add(1, Relaxed);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(message);
        Ok(())
    }

    /// A connector that was restarted goes on from where it last said it stood, and writes again what came after.
    fn restart(&mut self) -> Result<()> {
        let again = self.rng.random_range(0..=self.recent.len());
        for message in self.recent.iter().skip(self.recent.len() - again) {
            self.producer.send(message, Some(now_micros() / 1000))?;
        }
        self.counts.records.fetch_add(again as u64, Relaxed);
        self.counts.repeated.fetch_add(again as u64, Relaxed);
        Ok(())
    }
}

fn now_micros() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
