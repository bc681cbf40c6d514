//! What the pipeline asks for while the source runs: ends, from where a topic goes on, which one nobody needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;

use super::{ENDS_TIMEOUT, Kafka, client};
use crate::error::Result;
use crate::model::positions::{Offsets, PartitionId};
use crate::source::Request;

impl Kafka<'_> {
    pub(super) fn heed(&mut self, request: Request) -> Result<()> {
        match request {
            // Where the ends cannot be told there is no answer.
            Request::Ends { topic, reply } => drop(self.ends_of(&topic).map(|ends| reply.send(ends))),
            Request::Begin { topic, positions, turn } => self.begin_at(&topic, &positions, turn)?,
            Request::Wait { topic } => drop(self.awaited.insert(topic)),
            Request::Leave { topic } => {
                self.stop_reading(&topic)?;
                self.left.insert(topic);
            }
            Request::Recall { topic } => {
                self.left.remove(&topic);
                self.lost.remove(&topic);
                self.look_due = true;
            }
        }
        Ok(())
    }

    /// The pipeline says from where the topic goes on.
    fn begin_at(&mut self, topic: &Arc<str>, positions: &Offsets, turn: u64) -> Result<()> {
        let before = self.turns.insert(Arc::clone(topic), turn);
        if before.is_some_and(|before| before != turn) {
            for partition in self.unassign(topic)? {
                let id = PartitionId { topic: Arc::clone(topic), partition };
                self.announced.entry(id).or_default();
            }
        }
        for (id, announced) in self.announced.iter_mut().filter(|(id, _)| id.topic == *topic) {
            announced.from = Some(positions.get(id).copied());
            self.told_due = Some(Instant::now());
        }
        self.awaited.remove(topic);
        Ok(())
    }

    /// Reads nothing more of the topic for now; the partitions that were read or about to be.
    pub(super) fn unassign(&mut self, topic: &Arc<str>) -> Result<Vec<i32>> {
        let mut list = TopicPartitionList::new();
        let read: Vec<i32> = self.topics.remove(topic).into_iter().flat_map(BTreeMap::into_keys).collect();
        for partition in &read {
            list.add_partition(topic, *partition);
        }
        let held = self.held.extract_if(.., |found| found.id.topic == *topic).map(|found| found.id.partition);
        let all = read.into_iter().chain(held).collect();
        self.paused.remove(topic);
        if list.count() > 0 {
            self.consumer
                .incremental_unassign(&list)
                .map_err(|e| client::unavailable(format!("cannot give `{topic}` up"), e))?;
        }
        Ok(all)
    }

    /// Fetches nothing of the topic until there is room for it again.
    pub(super) fn pause(&mut self, topic: &Arc<str>) -> Result<()> {
        tracing::debug!(%topic, "paused: its tables do not take its records in");
        self.consumer
            .pause(&self.partitions_of(topic))
            .map_err(|e| client::unavailable(format!("cannot pause `{topic}`"), e))?;
        self.paused.insert(Arc::clone(topic));
        Ok(())
    }

    pub(super) fn resume_those_with_room(&mut self) -> Result<()> {
        let budget = &self.outlet.budget;
        let due: Vec<Arc<str>> = self.paused.iter().filter(|topic| budget.has_room_again(topic)).cloned().collect();
        for topic in due {
            self.consumer
                .resume(&self.partitions_of(&topic))
                .map_err(|e| client::unavailable(format!("cannot go on with `{topic}`"), e))?;
            self.paused.remove(&topic);
        }
        Ok(())
    }

    fn partitions_of(&self, topic: &str) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in self.topics.get(topic).into_iter().flat_map(BTreeMap::keys) {
            list.add_partition(topic, *partition);
        }
        list
    }

    fn ends_of(&self, topic: &str) -> Option<Offsets> {
        if !self.wants(topic) {
            return Some(Offsets::new());
        }
        if self.lost.contains(topic) {
            return None;
        }
        let metadata = self.consumer.fetch_metadata(None, ENDS_TIMEOUT).ok()?;
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Some(Offsets::new()) };
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Some(Offsets::new()),
            Some(_) => return None,
        }
        let topic: Arc<str> = Arc::from(topic);
        let end = |partition: i32| {
            let (_, high) = self.consumer.fetch_watermarks(&topic, partition, ENDS_TIMEOUT).ok()?;
            Some((PartitionId { topic: Arc::clone(&topic), partition }, high))
        };
        found.partitions().iter().map(|p| if p.leader() < 0 { None } else { end(p.id()) }).collect()
    }
}
