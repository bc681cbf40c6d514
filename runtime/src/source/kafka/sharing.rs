//! What of the topics is ours while several instances share them, and what we only follow.
//!
//! Every instance reads the schema-change topics, since no row can be typed without them; one appends them to Bronze.
//! Whatever changes hands is put down first, and taken up again from where its table stands by then.

use std::sync::{Arc, mpsc};

use rdkafka::metadata::Metadata;

use super::Kafka;
use super::group::{Change, anchor};
use crate::error::Result;
use crate::source::SourceEvent;

/// What a topic is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// its tables are ours to write
    Write,
    /// it tells of tables of ours, and another instance writes it
    Follow,
}

/// A topic that was taken up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    role: Role,
    /// the partition that made it ours
    anchor: i32,
}

impl Kafka<'_> {
    /// What the topic is to us; `None`: nothing.
    fn role(&self, topic: &str, metadata: &Metadata, partitions: usize) -> Option<Role> {
        match &self.group {
            None => Some(Role::Write),
            Some(group) if group.owns(topic, partitions) => Some(Role::Write),
            Some(_) => self.tells_of_others(topic, metadata).then_some(Role::Follow),
        }
    }

    /// True for what looks like a connector's schema-change topic: another topic's name starts with its own and a dot.
    pub(super) fn tells_of_others(&self, topic: &str, metadata: &Metadata) -> bool {
        let is_below = |name: &str| name.strip_prefix(topic).is_some_and(|rest| rest.starts_with('.'));
        metadata.topics().iter().any(|t| is_below(t.name()) && self.wants(t.name()))
    }

    /// What the topic was taken up as.
    pub(super) fn role_of(&self, topic: &str) -> Option<Role> {
        self.taken.get(topic).map(|taken| taken.role)
    }

    /// Takes note of what a topic is to us by now, and puts it down where it was something else; false when the pipeline
    /// is gone.
    pub(super) fn decide_role(&mut self, topic: &Arc<str>, metadata: &Metadata, partitions: usize) -> Result<bool> {
        let role = self.role(topic, metadata, partitions);
        let was = self.role_of(topic);
        if was.is_some() && was != role {
            let (done, _) = mpsc::sync_channel(1);
            if !self.put_down(vec![Arc::clone(topic)], done)? {
                return Ok(false);
            }
        }
        if let Some(role) = role {
            self.taken.insert(Arc::clone(topic), Taken { role, anchor: anchor(topic, partitions) });
        }
        Ok(true)
    }

    /// Takes in what the group decided; false when the pipeline is gone.
    pub(super) fn heed_group(&mut self) -> Result<bool> {
        while let Some(change) = self.group.as_mut().and_then(super::Group::next) {
            self.look_due = true;
            match change {
                Change::Given(_) => {}
                Change::Failed(error) => return Err(error),
                Change::Taken { partitions, done } => {
                    let gone = |topic: &str, taken: &Taken| {
                        taken.role == Role::Write && partitions.iter().any(|(t, p)| t == topic && *p == taken.anchor)
                    };
                    let topics: Vec<Arc<str>> =
                        self.taken.iter().filter(|(t, taken)| gone(t, taken)).map(|(t, _)| Arc::clone(t)).collect();
                    if !topics.is_empty() && !self.put_down(topics, done)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Reads the topics no more, and has the pipeline let go of them; false when it is gone.
    fn put_down(&mut self, topics: Vec<Arc<str>>, done: mpsc::SyncSender<()>) -> Result<bool> {
        for topic in &topics {
            self.stop_reading(topic)?;
            self.taken.remove(topic);
            // Who takes it up next may have other positions.
            self.lost.remove(topic);
            self.left.remove(topic);
        }
        Ok(self.outlet.send(SourceEvent::Revoked { topics, done }))
    }
}
