//! A source that grows: what the connector of a shop writes is read while the pipeline runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::shop::Topics;
use crate::error::Result;
use crate::model::positions::{PartitionId, Range};
use crate::model::record::{Block, Record};
use crate::source::{Budget, Delivery, Outlet, Request, Source, SourceEvent};

/// How long one wait for a request lasts, until the topics are looked at again.
const REQUEST_WAIT: Duration = Duration::from_millis(5);

/// Starts to read `topics`; ends when it is told to.
pub(super) fn start(topics: Topics, budget: Budget, block_rows: usize) -> Result<Source> {
    Source::spawn("stream", budget, block_rows, move |outlet| {
        let mut stream = Stream { topics, places: BTreeMap::new() };
        while !outlet.stopped() {
            stream.turn(outlet);
        }
        Ok(())
    })
}

struct Stream {
    topics: Topics,
    /// next offset and turn of each topic that was found; `None` where nobody has said from where it is read
    places: BTreeMap<Arc<str>, Option<(i64, u64)>>,
}

fn partition(topic: &Arc<str>) -> PartitionId {
    PartitionId { topic: Arc::clone(topic), partition: 0 }
}

impl Stream {
    fn turn(&mut self, outlet: &Outlet) {
        let mut request = outlet.requests.recv_timeout(REQUEST_WAIT).ok();
        while let Some(heard) = request {
            self.heed(outlet, heard);
            request = outlet.requests.try_recv().ok();
        }
        let topics: Vec<Arc<str>> = self.topics.lock().unwrap().keys().cloned().collect();
        for topic in topics {
            if !self.places.contains_key(&topic) {
                self.places.insert(Arc::clone(&topic), None);
                outlet.budget.meet(&topic);
                outlet.send(SourceEvent::Found(vec![partition(&topic)]));
            }
            if let Some(delivery) = self.next_of(outlet, &topic) {
                outlet.send(SourceEvent::Block(delivery));
            }
        }
    }

    /// What comes next of a topic, where there is something and room for it.
    fn next_of(&mut self, outlet: &Outlet, topic: &Arc<str>) -> Option<Delivery> {
        let (next, turn) = self.places.get_mut(topic)?.as_mut()?;
        let from = *next;
        let mut block = Block::new(partition(topic));
        let mut to = from;
        let topics = self.topics.lock().unwrap();
        for (key, value) in topics[topic].iter().skip(from as usize).take(outlet.block_rows) {
            let (key, value) = (key.as_deref().map(str::as_bytes), value.as_deref().map(str::as_bytes));
            block.push(Record { offset: to, timestamp_ms: 1_760_000_000_000, key, value, headers: b"" });
            to += 1;
        }
        drop(topics);
        if block.is_empty() {
            return None;
        }
        let room = outlet.budget.take(topic, block.bytes()).ok()?;
        *next = to;
        Some(Delivery::new(block, Range { from, to }, *turn, room))
    }

    fn heed(&mut self, outlet: &Outlet, request: Request) {
        match request {
            Request::Ends { topic, reply } => {
                let ends = self
                    .topics
                    .lock()
                    .unwrap()
                    .get_key_value(topic.as_str())
                    .map(|(t, r)| (partition(t), r.len() as i64));
                let _ = reply.send(ends.into_iter().collect());
            }
            Request::Begin { topic, positions, turn } => {
                let from = positions.get(&partition(&topic)).copied().unwrap_or(0);
                let place = self.places.entry(topic).or_default();
                if place.is_none_or(|(_, before)| before != turn) {
                    *place = Some((from, turn));
                }
            }
            Request::Wait { topic } | Request::Leave { topic } => drop(self.places.insert(topic, None)),
            Request::Recall { topic } => {
                outlet.send(SourceEvent::Found(vec![partition(&topic)]));
                self.places.insert(topic, None);
            }
        }
    }
}
