//! Topics that cannot go on: finds out which one an error concerns, and gives that one up.
//!
//! librdkafka's errors reach us without the partition they belong to. A partition whose next offset is gone has left its
//! fetching state, which a seek tells. A topic that may not be read answers another consumer as it answered ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Meaning, meaning, refused};
use super::takeup::check_position;
use super::{Kafka, REQUEST_TIMEOUT};
use crate::error::{Error, ErrorKind, Result};
use crate::model::positions::PartitionId;
use crate::source::SourceEvent;

/// How long the search for a stray waits until everything that was fetched has been polled: a seek throws it away.
const FETCHED_PATIENCE: Duration = Duration::from_secs(10);
/// How long a topic that may be read is given to say nothing.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

impl Kafka<'_> {
    /// Decides what a polled error asks for; false when the pipeline is gone.
    pub(super) fn judge(&mut self, error: KafkaError) -> Result<bool> {
        match meaning(&error) {
            Meaning::Strayed => {
                self.strayed_since.get_or_insert_with(Instant::now);
                Ok(true)
            }
            Meaning::Refused => self.give_up_refused(error),
            Meaning::Ended(kind) => Err(Error::new(kind, "the broker refused us").caused_by(error)),
            Meaning::Passing => {
                tracing::warn!(%error, "kafka");
                Ok(true)
            }
        }
    }

    /// Gives up the topics of which a partition has strayed, once nothing fetched is waiting (`idle`) or it took too
    /// long; false when the pipeline is gone.
    pub(super) fn give_up_strayed(&mut self, idle: bool) -> Result<bool> {
        let Some(since) = self.strayed_since else { return Ok(true) };
        if !idle && since.elapsed() < FETCHED_PATIENCE {
            return Ok(true);
        }
        self.strayed_since = None;
        let mut list = TopicPartitionList::new();
        for (id, next) in self.positions() {
            let _ = list.add_partition_offset(&id.topic, id.partition, Offset::Offset(next));
        }
        if list.count() == 0 {
            return Ok(true);
        }
        let sought = match self.consumer.seek_partitions(list, REQUEST_TIMEOUT) {
            Ok(sought) => sought,
            Err(error) => {
                tracing::warn!(%error, "cannot find the partition that has strayed; trying again");
                self.strayed_since = Some(Instant::now());
                return Ok(true);
            }
        };
        let mut losses = Vec::new();
        for at in sought.elements() {
            let (Err(error), Some((topic, partitions))) = (at.error(), self.topics.get_key_value(at.topic())) else {
                continue;
            };
            let Some(reading) = partitions.get(&at.partition()) else { continue };
            let id = PartitionId { topic: Arc::clone(topic), partition: at.partition() };
            losses.push((Arc::clone(topic), self.gap(&id, reading.next, error)));
        }
        self.lose_all(losses)
    }

    /// Why the offset `next` cannot be read.
    fn gap(&self, id: &PartitionId, next: i64, error: KafkaError) -> Error {
        let ends = self.consumer.fetch_watermarks(&id.topic, id.partition, REQUEST_TIMEOUT);
        let told = ends.map(|(low, high)| check_position(id, next, low, high));
        match told {
            Ok(Err(gap)) => gap.caused_by(error),
            _ => Error::new(
                ErrorKind::Gap,
                format!("`{}` [{}]: offset {next} is no longer in the topic", id.topic, id.partition),
            )
            .caused_by(error)
            .hint(
                "retention removed records, or the topic was made anew; snapshot the table again, then `lode rebuild`",
            ),
        }
    }

    /// Gives up the topics that we may not read.
    fn give_up_refused(&mut self, error: KafkaError) -> Result<bool> {
        let refused_topics = self.refused_topics()?;
        if refused_topics.is_empty() {
            // The right may be back by now, or the error stood for a topic that was given up already.
            tracing::warn!(%error, "kafka");
            return Ok(true);
        }
        self.lose_all(refused_topics.into_iter().map(|topic| (Arc::clone(&topic), refused(&topic))).collect())
    }

    /// Asks for a record of each topic with a consumer of its own, whose queues tell the topics apart.
    fn refused_topics(&self) -> Result<Vec<Arc<str>>> {
        let mut config = client::config(&self.settings)?;
        config.set("queued.max.messages.kbytes", "64").set("fetch.message.max.bytes", "1024");
        let probe: Arc<BaseConsumer> = Arc::new(client::consumer(&config)?);
        let mut list = TopicPartitionList::new();
        let mut asked = Vec::new();
        for (id, next) in self.positions() {
            if asked.iter().any(|(topic, _)| *topic == id.topic) {
                continue;
            }
            let Some(queue) = probe.split_partition_queue(&id.topic, id.partition) else { continue };
            let _ = list.add_partition_offset(&id.topic, id.partition, Offset::Offset(next));
            asked.push((id.topic, queue));
        }
        probe.assign(&list).map_err(|e| client::unavailable("cannot ask which topic may not be read".to_owned(), e))?;
        let started = Instant::now();
        let mut found = Vec::new();
        while !asked.is_empty() && started.elapsed() < REFUSAL_TIMEOUT && !self.outlet.stopped() {
            asked.retain(|(topic, queue)| match queue.poll(Duration::ZERO) {
                Some(Ok(_)) => false,
                Some(Err(error)) if meaning(&error) == Meaning::Refused => {
                    found.push(Arc::clone(topic));
                    false
                }
                _ => true,
            });
            // One refusal is what we look for; others tell by errors of their own.
            if !found.is_empty() && started.elapsed() >= REFUSAL_TIMEOUT / 10 {
                break;
            }
            let _ = probe.poll(Duration::from_millis(20));
        }
        Ok(found)
    }

    /// Gives the topics up, each with its reason; false when the pipeline is gone.
    pub(super) fn lose_all(&mut self, losses: Vec<(Arc<str>, Error)>) -> Result<bool> {
        for (topic, error) in losses {
            if !self.lost.contains(&topic) && !self.lose(&topic, error)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn lose(&mut self, topic: &Arc<str>, error: Error) -> Result<bool> {
        let was = self.role_of(topic);
        let partitions: Vec<i32> = self.topics.get(topic).into_iter().flat_map(|p| p.keys().copied()).collect();
        for partition in partitions {
            // What came before the loss follows on what was handed over.
            if !self.hand_over(topic, partition)? {
                return Ok(false);
            }
        }
        if was.is_some() && self.role_of(topic).is_none() {
            // It became another's meanwhile.
            return Ok(true);
        }
        self.stop_reading(topic)?;
        self.lost.insert(Arc::clone(topic));
        Ok(self.outlet.send(SourceEvent::Lost { topic: Arc::clone(topic), error }))
    }

    /// Reads nothing more of the topic; what was not handed over is dropped.
    pub(super) fn stop_reading(&mut self, topic: &Arc<str>) -> Result<()> {
        self.outlet.known_ends.forget(topic);
        self.announced.retain(|id, _| id.topic != *topic);
        self.first.retain(|id| id.topic != *topic);
        self.targets.retain(|id, _| id.topic != *topic);
        self.awaited.remove(topic);
        self.turns.remove(topic);
        self.unassign(topic).map(drop)
    }
}
