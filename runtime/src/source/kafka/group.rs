//! Membership in a consumer group: which topics this instance may write.
//!
//! A consumer of its own is the member. It subscribes to the topics, is paused on all of them, and never hands over a
//! record: reading goes on by hand, from the positions that the tables have. A topic belongs, with all its partitions, to
//! the instance that the group gave its *anchor*, one partition chosen by the topic's name; so tables spread over the
//! instances even where every topic has the same number of partitions.
//!
//! Promises that the group hears of a partition given back only after the pipeline has let go of its topic's tables, or
//! after [`RELEASE_TIMEOUT`]; what a table still tries to commit after that is refused by its own log. The member polls on
//! a thread of its own: a lake that is slow costs no membership.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, TopicPartitionList};

use super::{Settings, client};
use crate::error::{Error, ErrorKind, Result};

/// Longest wait for the pipeline to let go of tables before the group is told that they are free.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one poll of the member lasts.
const POLL: Duration = Duration::from_millis(100);

/// What the group decided.
pub(super) enum Change {
    /// partitions are ours
    Given(Vec<(String, i32)>),
    /// partitions are another's once `done` is dropped
    Taken { partitions: Vec<(String, i32)>, done: mpsc::SyncSender<()> },
    /// we can be no member
    Failed(Error),
}

/// A membership; it ends, and others take over, when this is dropped.
pub(crate) struct Membership {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The source's view of the group.
pub(super) struct Group {
    changes: mpsc::Receiver<Change>,
    given: HashMap<String, BTreeSet<i32>>,
}

impl Group {
    /// Joins the group `name`.
    ///
    /// # Errors
    /// `Config` where librdkafka refuses a setting.
    pub(super) fn join(settings: &Settings, name: &str) -> Result<(Group, Membership)> {
        let mut config = client::config(settings)?;
        config
            .set("group.id", name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            // It reads nothing: where it would begin does not matter.
            .set("auto.offset.reset", "latest")
            .set("topic.metadata.refresh.interval.ms", settings.refresh.as_millis().max(100).to_string())
            .set("topic.blacklist", "^__.*")
            .set("queued.max.messages.kbytes", "64")
            .set("fetch.message.max.bytes", "1024");
        let (told, changes) = mpsc::channel();
        let member: BaseConsumer<Member> = client::consumer_with(&config, Member { told: told.clone() })?;
        let patterns: Vec<String> = settings.topics.iter().map(|pattern| regex_of(pattern)).collect();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        member.subscribe(&patterns).map_err(|e| {
            Error::new(ErrorKind::Config, "librdkafka refuses a pattern of `source.kafka.topics`").caused_by(e)
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let (group, brokers) = (name.to_owned(), settings.brokers.clone());
        let thread = std::thread::Builder::new()
            .name("group".to_owned())
            .spawn(move || {
                tracing::info!(%group, %brokers, "joining the group");
                while !stopping.load(Relaxed) {
                    let Some(Err(error)) = member.poll(POLL) else { continue };
                    if let Some(error) = end_of_membership(&group, error) {
                        let _ = told.send(Change::Failed(error));
                        return;
                    }
                }
            })
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot start the group's thread").caused_by(e))?;
        Ok((Group { changes, given: HashMap::new() }, Membership { stop, thread: Some(thread) }))
    }

    /// The next decision of the group that was not taken in yet.
    pub(super) fn next(&mut self) -> Option<Change> {
        let change = self.changes.try_recv().ok()?;
        match &change {
            Change::Given(partitions) => {
                for (topic, partition) in partitions {
                    self.given.entry(topic.clone()).or_default().insert(*partition);
                }
            }
            Change::Taken { partitions, .. } => {
                for (topic, partition) in partitions {
                    if let Some(of_topic) = self.given.get_mut(topic) {
                        of_topic.remove(partition);
                    }
                }
            }
            Change::Failed(_) => {}
        }
        Some(change)
    }

    /// True when the topic, which has so many partitions, is ours to write.
    pub(super) fn owns(&self, topic: &str, partitions: usize) -> bool {
        self.given.get(topic).is_some_and(|given| given.contains(&anchor(topic, partitions)))
    }
}

/// The partition whose holder owns the topic.
pub(super) fn anchor(topic: &str, partitions: usize) -> i32 {
    let hash = xxhash_rust::xxh3::xxh3_64(topic.as_bytes());
    i32::try_from(hash % (partitions.max(1) as u64)).unwrap_or(0)
}

/// librdkafka's form of a pattern of topic names: `^`, then a POSIX extended regular expression.
pub(super) fn regex_of(pattern: &str) -> String {
    let mut regex = String::from("^");
    let mut within = false;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '[' if !within => {
                within = true;
                regex.push('[');
                if chars.next_if_eq(&'!').is_some() {
                    regex.push('^');
                }
            }
            ']' if within => {
                within = false;
                regex.push(']');
            }
            c if within => regex.push(c),
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') => regex.push(c),
            c => regex.extend(['\\', c]),
        }
    }
    regex.push('$');
    regex
}

/// The error after which we are no member any more, where `error` is one.
fn end_of_membership(group: &str, error: KafkaError) -> Option<Error> {
    let refused = |message: String, hint: &'static str, kind: ErrorKind| Some(Error::new(kind, message).hint(hint));
    let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => refused(
            format!("the broker does not let us join the group `{group}`"),
            "grant `READ` on the group, then start `lode` again",
            ErrorKind::Denied,
        ),
        Some(RDKafkaErrorCode::FencedInstanceId) => refused(
            format!("another instance with our `group.instance.id` joined the group `{group}`"),
            "give each instance an id of its own, or none",
            ErrorKind::Fenced,
        ),
        _ if fatal => Some(
            Error::new(ErrorKind::Internal, format!("the membership in the group `{group}` ended")).caused_by(error),
        ),
        _ => {
            tracing::debug!(%error, group, "member");
            None
        }
    }
}

/// Hears what the group decides.
struct Member {
    told: mpsc::Sender<Change>,
}

impl Member {
    fn tell(&self, change: Change) {
        // Without a source nothing is read any more.
        let _ = self.told.send(change);
    }
}

impl ClientContext for Member {}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        let partitions = partitions_of(list);
        if partitions.is_empty() {
            return;
        }
        let (done, released) = mpsc::sync_channel(1);
        self.tell(Change::Taken { partitions, done });
        if released.recv_timeout(RELEASE_TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("tables given back did not settle in time; what they still try to commit is refused");
        }
    }

    fn post_rebalance(&self, member: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(error) = member.pause(list) {
                    tracing::debug!(%error, "the member cannot be paused; what it fetches is dropped");
                }
                self.tell(Change::Given(partitions_of(list)));
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance"),
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<(String, i32)> {
    list.elements().iter().map(|at| (at.topic().to_owned(), at.partition())).collect()
}
