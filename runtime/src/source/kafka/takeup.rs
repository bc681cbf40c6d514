//! Takes up partitions: finds those that match and announces them, judges each on its own once the pipeline has said from
//! where it goes on, and begins to read it.
//!
//! A partition that cannot be judged now (no leader, no answer, nothing said) is put off and holds no other back.
//! One whose position is not in the log gives its topic up. Nothing counts as read before librdkafka has taken it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{refused, unavailable};
use super::reading::Reading;
use super::sharing::Role;
use super::{ENDS_TIMEOUT, Kafka, REQUEST_TIMEOUT};
use crate::error::{Error, ErrorKind, Result};
use crate::model::positions::PartitionId;
use crate::source::SourceEvent;

/// How long a start waits for the broker, and a run to the end for every partition of the first topics.
const FIRST_TOPIC_TIMEOUT: Duration = Duration::from_secs(60);
/// How often is said what a start waits for.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long a start waits for the last of several partitions before it begins with the others.
const LAST_PARTITION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after a failed look at a partition's ends the next one follows.
const ENDS_AGAIN: Duration = Duration::from_millis(500);

/// A partition that the pipeline knows of.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// from where it goes on, once that is said; `Some(None)`: from its beginning
    pub(super) from: Option<Option<i64>>,
    /// what is in it now counts as the end that the run has to reach
    pub(super) at_start: bool,
    /// it is of a schema-change topic, which is read before the others
    tells: bool,
}

/// A partition that can be read, from where.
pub(super) struct Found {
    pub(super) id: PartitionId,
    from: i64,
}

/// What one look for new partitions gave.
#[derive(Default)]
struct Look {
    /// why some partition was put off to the next look
    put_off: Option<Error>,
    /// topics that cannot be read, and why
    losses: Vec<(Arc<str>, Error)>,
}

impl Kafka<'_> {
    /// Waits for the first matching topics; false when the pipeline is gone.
    pub(super) fn take_up_first(&mut self) -> Result<bool> {
        let started = Instant::now();
        let mut told: Option<Instant> = None;
        // A request cannot be interrupted: where it may be made again, a short one lets a stop be heeded and the waiting be said.
        let patience = if self.settings.until_end { REQUEST_TIMEOUT } else { ENDS_TIMEOUT };
        loop {
            let error = match self.look(true, patience) {
                Ok(None) => return Ok(false),
                Ok(Some(look)) => {
                    if !self.lose_all(look.losses)? {
                        return Ok(false);
                    }
                    match look.put_off {
                        None if !self.announced.is_empty() || !self.lost.is_empty() => break,
                        None if self.settings.until_end => return Err(self.no_topic()),
                        None => {
                            // The broker answers: a topic may come at any time.
                            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                                let error = self.no_topic();
                                tracing::warn!(%error, hint = error.next_step(), "waiting for the first topic");
                                told = Some(Instant::now());
                            }
                            if self.outlet.stopped() {
                                return Ok(false);
                            }
                            std::thread::park_timeout(Duration::from_millis(500));
                            continue;
                        }
                        Some(error) => error,
                    }
                }
                Err(error) if self.settings.until_end => return Err(error),
                Err(error) => error,
            };
            if self.outlet.stopped() {
                return Ok(false);
            }
            if !self.settings.until_end && !self.announced.is_empty() && started.elapsed() >= LAST_PARTITION_TIMEOUT {
                tracing::warn!(%error, "a partition is left for later");
                break;
            }
            if started.elapsed() >= FIRST_TOPIC_TIMEOUT {
                return Err(error);
            }
            if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                tracing::warn!(%error, "waiting for topics");
                told = Some(Instant::now());
            }
            std::thread::park_timeout(Duration::from_millis(500));
        }
        Ok(true)
    }

    /// Looks for partitions that came since; false when the pipeline is gone.
    pub(super) fn take_up_new(&mut self) -> Result<bool> {
        // Members of a group take topics up at any time, each after its schema-change topic.
        match self.look(self.group.is_some(), REQUEST_TIMEOUT / 6) {
            Ok(None) => return Ok(false),
            Ok(Some(look)) => {
                if let Some(error) = look.put_off {
                    tracing::warn!(%error, "a partition is left for later");
                }
                if !self.lose_all(look.losses)? {
                    return Ok(false);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot list topics; trying again"),
        }
        Ok(true)
    }

    fn no_topic(&self) -> Error {
        let patterns = self.settings.topics.iter().map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", ");
        Error::new(ErrorKind::Config, format!("no topic matches {patterns}"))
            .hint("see `source.kafka.topics`; the connector makes a table's topic with its first record")
    }

    /// Announces what can be read; `None` when the pipeline is gone. `at_start`: what is there now counts as the end that
    /// the run has to reach.
    fn look(&mut self, at_start: bool, timeout: Duration) -> Result<Option<Look>> {
        let metadata = self
            .consumer
            .fetch_metadata(None, timeout)
            .map_err(|e| unavailable(format!("cannot list the topics of `{}`", self.settings.brokers), e))?;
        let mut look = Look::default();
        for topic in metadata.topics().iter().filter(|t| t.error().is_none()) {
            if !self.wants(topic.name()) {
                continue;
            }
            let name = Arc::from(topic.name());
            if !self.decide_role(&name, &metadata, topic.partitions().len())? {
                return Ok(None);
            }
        }
        let fresh = self.fresh(&metadata, &mut look);
        for id in &fresh {
            let tells = at_start && self.tells_of_others(&id.topic, &metadata);
            self.announced.insert(id.clone(), Announced { from: None, at_start, tells });
        }
        Ok(self.announce(fresh).then_some(look))
    }

    /// Tells the pipeline of partitions, each by its role; false when it is gone.
    fn announce(&self, fresh: Vec<PartitionId>) -> bool {
        let is_followed = |id: &PartitionId| self.role_of(&id.topic) == Some(Role::Follow);
        let (followed, written): (Vec<_>, Vec<_>) = fresh.into_iter().partition(is_followed);
        (followed.is_empty() || self.outlet.send(SourceEvent::Followed(followed)))
            && (written.is_empty() || self.outlet.send(SourceEvent::Found(written)))
    }

    /// Judges the partitions of which the pipeline has said from where they go on; false when it is gone.
    pub(super) fn take_up_told(&mut self) -> Result<bool> {
        if self.told_due.is_none_or(|due| Instant::now() < due) {
            return Ok(true);
        }
        self.told_due = None;
        let timeout = if self.settings.until_end { REQUEST_TIMEOUT } else { ENDS_TIMEOUT };
        let told = self.announced.iter().filter_map(|(id, announced)| Some((id.clone(), announced.from?)));
        let mut look = Look::default();
        for (id, from) in told.collect::<Vec<_>>() {
            if !look.losses.iter().any(|(topic, _)| *topic == id.topic) {
                self.judge_told(&id, from, timeout, &mut look);
            }
        }
        match look.put_off {
            None => self.unknown_since = None,
            Some(error) => {
                let since = *self.unknown_since.get_or_insert_with(|| {
                    tracing::warn!(%error, "a partition is left for later");
                    Instant::now()
                });
                if self.settings.until_end && since.elapsed() >= FIRST_TOPIC_TIMEOUT {
                    return Err(error);
                }
                self.told_due = Some(Instant::now() + ENDS_AGAIN);
            }
        }
        self.lose_all(look.losses)
    }

    fn judge_told(&mut self, id: &PartitionId, from: Option<i64>, timeout: Duration, look: &mut Look) {
        let (low, high) = match self.consumer.fetch_watermarks(&id.topic, id.partition, timeout) {
            Ok(ends) => ends,
            Err(e) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                return look.losses.push((Arc::clone(&id.topic), refused(&id.topic).caused_by(e)));
            }
            Err(e) => {
                look.put_off = Some(ends_unknown(id, e));
                return;
            }
        };
        let from = from.unwrap_or(low);
        if let Err(gap) = check_position(id, from, low, high) {
            return look.losses.push((Arc::clone(&id.topic), gap));
        }
        let Announced { at_start, tells, .. } = self.announced.remove(id).unwrap_or_default();
        if at_start && from < high {
            self.targets.insert(id.clone(), high);
            if tells {
                self.first.insert(id.clone());
            }
        }
        if self.role_of(&id.topic) == Some(Role::Write) {
            self.outlet.known_ends.begin(id, from, high);
        }
        self.outlet.budget.meet(&id.topic);
        self.held.push(Found { id: id.clone(), from });
    }

    /// The partitions that match, have a leader and are not known yet.
    fn fresh(&self, metadata: &Metadata, look: &mut Look) -> Vec<PartitionId> {
        let mut fresh = Vec::new();
        let concerns = |name: &str| self.wants(name) && !self.lost.contains(name) && !self.left.contains(name);
        for topic in metadata.topics().iter().filter(|t| concerns(t.name())) {
            let name: Arc<str> = Arc::from(topic.name());
            match topic.error().map(RDKafkaErrorCode::from) {
                None => {}
                Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    look.losses.push((Arc::clone(&name), refused(&name)));
                    continue;
                }
                Some(code) => {
                    look.put_off = Some(unavailable(format!("`{name}` cannot be read"), KafkaError::Global(code)));
                    continue;
                }
            }
            if self.role_of(&name).is_none() {
                continue;
            }
            for partition in topic.partitions() {
                let id = PartitionId { topic: Arc::clone(&name), partition: partition.id() };
                let is_known = self.announced.contains_key(&id) || self.held.iter().any(|f| f.id == id);
                if is_known || self.reading(&id).is_some() {
                    continue;
                }
                // Asking for its ends would hold everything up until the timeout.
                if partition.leader() < 0 {
                    look.put_off = Some(ends_unknown(&id, KafkaError::Global(RDKafkaErrorCode::LeaderNotAvailable)));
                    continue;
                }
                fresh.push(id);
            }
        }
        fresh
    }

    pub(super) fn wants(&self, topic: &str) -> bool {
        !topic.starts_with("__") && self.patterns.iter().any(|p| p.matches(topic))
    }

    /// Begins to read what is held, as far as it need not wait for the schema-change topics.
    pub(super) fn begin(&mut self) -> Result<()> {
        let (first, awaited) = (&self.first, &self.awaited);
        let may_come = |(id, announced): (&PartitionId, &Announced)| announced.tells && !awaited.contains(&id.topic);
        let is_free = first.is_empty() && !self.announced.iter().any(may_come);
        let is_due = |found: &Found| is_free || first.contains(&found.id);
        let mut list = TopicPartitionList::new();
        for found in self.held.iter().filter(|f| is_due(f)) {
            list.add_partition_offset(&found.id.topic, found.id.partition, Offset::Offset(found.from))
                .map_err(|e| unavailable("cannot set a position".to_owned(), e))?;
        }
        if list.count() == 0 {
            return Ok(());
        }
        self.consumer.incremental_assign(&list).map_err(|e| unavailable("cannot take up partitions".to_owned(), e))?;
        for Found { id, from } in self.held.extract_if(.., |f| is_due(f)) {
            let (topic, partition) = (Arc::clone(&id.topic), id.partition);
            self.topics.entry(topic).or_default().insert(partition, Reading::new(id, from));
        }
        Ok(())
    }
}

fn ends_unknown(id: &PartitionId, error: KafkaError) -> Error {
    unavailable(format!("cannot read the ends of `{}` [{}]", id.topic, id.partition), error)
}

pub(super) fn check_position(id: &PartitionId, from: i64, low: i64, high: i64) -> Result<()> {
    if from > high {
        return Err(Error::new(
            ErrorKind::Gap,
            format!("`{}` [{}]: the table stands at offset {from}, the topic ends at {high}", id.topic, id.partition),
        )
        .hint("the topic was made anew or its log was lost; `lode rebuild` starts a new generation"));
    }
    if from < low {
        return Err(Error::new(
            ErrorKind::Gap,
            format!("`{}` [{}]: the table stands at offset {from}, the topic begins at {low}", id.topic, id.partition),
        )
        .hint("retention removed records before they were read; snapshot the table again, then `lode rebuild`"));
    }
    Ok(())
}
