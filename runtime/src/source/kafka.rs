//! Kafka, through librdkafka.
//!
//! Takes up every partition of every topic that matches, or with a group of those that are this instance's, each from the
//! position its table committed; the broker's group offsets are never read. Topics that look like a connector's schema-change topic (another topic's name
//! starts with theirs and a dot) are read to their end before the others begin, because rows can only be typed by
//! what those say. A topic that cannot go on is given up; the others go on.
//!
//! While the memory budget is used up nothing is polled: librdkafka fetches on threads of its own until its queue is full,
//! and then waits. A topic that holds all that one may hold is paused, and the others go on. There is no poll deadline,
//! since `max.poll.interval.ms` binds the members of a group only, and partitions are assigned by hand. While it waits for
//! room, it heeds the group: what is another's is put down at once.

mod client;
mod ends;
mod group;
mod headers;
mod loss;
mod reading;
mod requests;
mod sharing;
mod takeup;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;

use super::{BLOCK_BYTES_MAX, BLOCK_ROWS_MAX, Budget, Delivery, Full, Outlet, Source, SourceEvent};
use crate::config::Setting;
use crate::error::{Error, ErrorKind, Result};
use crate::model::positions::PartitionId;
pub use ends::{EndsClient, keep_known};
use group::Group;
pub(crate) use group::Membership;
use reading::Reading;
use sharing::Taken;
use takeup::{Announced, Found};

/// How long a request to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a broker may take to say where a topic ends, while records wait.
const ENDS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a record waits in a block that is not full.
const BLOCK_AGE_MAX: Duration = Duration::from_millis(20);
/// How long one wait for a record lasts.
const POLL_WAIT: Duration = Duration::from_millis(10);
/// How often is looked for offsets that hold no record.
const MARKERS_EVERY: Duration = Duration::from_millis(100);
/// How long one wait for room in the budget lasts, until the stop is looked at again.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// How long a topic that holds all it may is waited for before it is paused: a pause throws away what was fetched, and
/// tables that take records in make room sooner.
const SHARE_WAIT: Duration = Duration::from_millis(250);

/// What to read from which cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// the pipeline's name: client and group id
    pub name: String,
    /// `host:port`, comma-separated
    pub brokers: String,
    /// patterns of topic names
    pub topics: Vec<String>,
    /// how often new topics and partitions are looked for
    pub refresh: Duration,
    /// librdkafka settings, passed through
    pub options: Vec<(String, Setting)>,
    /// the consumer group whose members share the topics; `None`: everything is read here
    pub group: Option<String>,
    /// announce when everything present at the start has been handed over
    pub until_end: bool,
}

/// Starts consuming, in blocks of at most `block_rows` records.
///
/// # Errors
/// A setting that cannot be read or that librdkafka refuses; later failures come as [`SourceEvent::Failed`].
pub fn start(settings: Settings, budget: Budget, block_rows: usize) -> Result<Source> {
    let patterns = settings
        .topics
        .iter()
        .map(|p| glob::Pattern::new(p))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::new(ErrorKind::Config, "`source.kafka.topics` holds a bad pattern").caused_by(e))?;
    let consumer = client::consumer(&client::config(&settings)?)?;
    let look_due = settings.group.is_some();
    let joined = settings.group.as_deref().map(|name| Group::join(&settings, name)).transpose()?;
    let (group, membership) = joined.unzip();
    let mut source = Source::spawn("kafka", budget, block_rows, move |outlet| {
        Kafka {
            outlet,
            settings,
            patterns,
            consumer,
            group,
            taken: HashMap::new(),
            look_due,
            topics: HashMap::new(),
            announced: BTreeMap::new(),
            told_due: None,
            unknown_since: None,
            turns: HashMap::new(),
            awaited: HashSet::new(),
            held: Vec::new(),
            paused: HashSet::new(),
            left: HashSet::new(),
            lost: HashSet::new(),
            targets: BTreeMap::new(),
            first: BTreeSet::new(),
            strayed_since: None,
            markers_passed: Instant::now(),
            headers: Vec::new(),
            drained: false,
        }
        .run()
    })?;
    source.membership = membership;
    Ok(source)
}

struct Kafka<'a> {
    outlet: &'a Outlet,
    settings: Settings,
    patterns: Vec<glob::Pattern>,
    consumer: BaseConsumer,
    group: Option<Group>,
    /// what was taken up, and as what
    taken: HashMap<Arc<str>, Taken>,
    /// the group gave or took something since the last look
    look_due: bool,
    /// what is being read, by topic and partition
    topics: HashMap<Arc<str>, BTreeMap<i32, Reading>>,
    /// what the pipeline knows of, and is to say from where it goes on
    announced: BTreeMap<PartitionId, Announced>,
    /// when those that it said so of are looked at
    told_due: Option<Instant>,
    /// since when the ends of some partition cannot be asked for
    unknown_since: Option<Instant>,
    /// by topic, in which turn it is read
    turns: HashMap<Arc<str>, u64>,
    /// topics of which the pipeline cannot say yet from where they go on
    awaited: HashSet<Arc<str>>,
    /// what can be read and is not yet
    held: Vec<Found>,
    /// topics that hold all the room that one may hold
    paused: HashSet<Arc<str>>,
    /// topics whose records nobody takes in any more
    left: HashSet<Arc<str>>,
    /// topics that were given up
    lost: HashSet<Arc<str>>,
    /// ends as of the start, while they are not reached
    targets: BTreeMap<PartitionId, i64>,
    /// partitions of schema-change topics that are still to be read before the others
    first: BTreeSet<PartitionId>,
    /// since when some partition, we do not know which, is no longer read
    strayed_since: Option<Instant>,
    /// when was last looked for offsets that hold no record
    markers_passed: Instant,
    /// room for the text of a record's headers
    headers: Vec<u8>,
    drained: bool,
}

impl Kafka<'_> {
    fn run(mut self) -> Result<()> {
        if self.group.is_none() && !self.take_up_first()? {
            return Ok(());
        }
        let mut refreshed = Instant::now();
        while !self.outlet.stopped() {
            while let Ok(request) = self.outlet.requests.try_recv() {
                self.heed(request)?;
            }
            if !self.heed_group()? {
                return Ok(());
            }
            if refreshed.elapsed() >= self.settings.refresh || self.look_due {
                refreshed = Instant::now();
                self.look_due = false;
                if !self.take_up_new()? {
                    return Ok(());
                }
            }
            if !self.take_up_told()? || !self.note_progress()? || !self.poll()? {
                return Ok(());
            }
            self.resume_those_with_room()?;
            self.pass_markers();
            if !self.hand_over_due()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Passes offsets that hold no record: the markers of transactions, and what was aborted before one. The consumer's
    /// position is past them, and past no record that was not polled; after a seek it has none for a while. It does not
    /// pass what was compacted away at a partition's very end: nothing comes of that which could move it.
    fn pass_markers(&mut self) {
        if self.markers_passed.elapsed() < MARKERS_EVERY {
            return;
        }
        self.markers_passed = Instant::now();
        let positions = match self.consumer.position() {
            Ok(positions) => positions,
            Err(error) => {
                tracing::warn!(%error, "cannot ask for the consumer's positions; trying again");
                return;
            }
        };
        for at in positions.elements() {
            let Offset::Offset(next) = at.offset() else { continue };
            if let Some(reading) = self.topics.get_mut(at.topic()).and_then(|p| p.get_mut(&at.partition())) {
                reading.pass(next);
            }
        }
    }

    /// Takes in what has been fetched, and waits for more as long as a block may; false when the pipeline is gone.
    fn poll(&mut self) -> Result<bool> {
        let begun = Instant::now();
        // A turn takes in at most this many records, so that queries and ages get their turn too.
        for _ in 0..2 * BLOCK_ROWS_MAX {
            let fetched = self.consumer.poll(Duration::ZERO);
            // Where records trickle in, no wait is long enough to end the turn. A backlog is taken in without a look at
            // the clock, which would cost something for every record.
            if fetched.is_none() && begun.elapsed() >= BLOCK_AGE_MAX {
                break;
            }
            let message = match fetched.or_else(|| self.consumer.poll(POLL_WAIT)) {
                None => return self.give_up_strayed(true),
                Some(Ok(message)) => message,
                Some(Err(error)) => return self.judge(error),
            };
            let partitions = self.topics.get_mut(message.topic());
            let Some(reading) = partitions.and_then(|p| p.get_mut(&message.partition())) else { continue };
            reading.push(&message, &mut self.headers)?;
            let block = reading.block();
            if block.len() >= self.outlet.block_rows || block.bytes() >= BLOCK_BYTES_MAX {
                let PartitionId { topic, partition } = block.partition().clone();
                drop(message);
                if !self.hand_over(&topic, partition)? {
                    return Ok(false);
                }
            }
        }
        self.give_up_strayed(false)
    }

    fn hand_over_due(&mut self) -> Result<bool> {
        let readings = self.topics.values().flat_map(BTreeMap::values);
        let due: Vec<PartitionId> = readings
            .filter(|r| r.since.is_some_and(|s| s.elapsed() >= BLOCK_AGE_MAX))
            .filter(|r| !self.paused.contains(&r.block().partition().topic))
            .map(|r| r.block().partition().clone())
            .collect();
        for id in due {
            if !self.hand_over(&id.topic, id.partition)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands over what was read of a partition, once there is room for it, and heeds requests meanwhile: who holds the
    /// room may wait for the answer. A topic that gets no more room than it has is paused. False when the pipeline is gone.
    fn hand_over(&mut self, topic: &Arc<str>, partition: i32) -> Result<bool> {
        let reading = self.topics.get_mut(topic).and_then(|p| p.get_mut(&partition));
        let Some((block, range)) = reading.and_then(Reading::take_out) else { return Ok(true) };
        let turn = self.turns.get(topic).copied().unwrap_or_default();
        let begun = Instant::now();
        loop {
            match self.outlet.budget.take(topic, block.bytes()) {
                Ok(room) => return Ok(self.outlet.send(SourceEvent::Block(Delivery::new(block, range, turn, room)))),
                Err(Full::OfTopic) if begun.elapsed() >= SHARE_WAIT => {
                    if let Some(reading) = self.topics.get_mut(topic).and_then(|p| p.get_mut(&partition)) {
                        reading.put_back(block, range);
                    }
                    return self.pause(topic).map(|()| true);
                }
                Err(_) => {}
            }
            if self.outlet.stopped() || !self.heed_group()? {
                return Ok(false);
            }
            if let Ok(request) = self.outlet.requests.recv_timeout(ROOM_WAIT) {
                self.heed(request)?;
            }
            if !self.topics.contains_key(topic) {
                // It is another's by now, or read anew: from where our table stands.
                return Ok(true);
            }
        }
    }

    /// Begins what may begin, and announces the end of what was there.
    fn note_progress(&mut self) -> Result<bool> {
        let topics = &self.topics;
        let is_behind = |id: &PartitionId, end: i64| reading(topics, id).is_none_or(|r| r.from < end);
        let targets = &self.targets;
        self.first.retain(|id| targets.get(id).is_some_and(|end| is_behind(id, *end)));
        if !self.settings.until_end {
            self.begin()?;
            let idle = self.topics.is_empty() && self.announced.is_empty() && self.held.is_empty();
            if self.group.is_none() && idle && !self.lost.is_empty() && self.left.is_empty() {
                return Err(Error::new(ErrorKind::Gap, "no topic is left to read")
                    .hint("each topic said before why it cannot go on"));
            }
            return Ok(true);
        }
        self.targets.retain(|id, end| is_behind(id, *end));
        self.begin()?;
        let unknown = self.announced.values().any(|announced| announced.at_start);
        if self.targets.is_empty() && !unknown && !self.drained {
            self.drained = true;
            return Ok(self.outlet.send(SourceEvent::Drained));
        }
        Ok(true)
    }

    fn reading(&self, id: &PartitionId) -> Option<&Reading> {
        reading(&self.topics, id)
    }

    /// The next offset of each partition that is being read.
    fn positions(&self) -> Vec<(PartitionId, i64)> {
        let readings = self.topics.values().flat_map(BTreeMap::values);
        readings.map(|r| (r.block().partition().clone(), r.next)).collect()
    }
}

fn reading<'a>(topics: &'a HashMap<Arc<str>, BTreeMap<i32, Reading>>, id: &PartitionId) -> Option<&'a Reading> {
    topics.get(&id.topic)?.get(&id.partition)
}
