//! Asks a broker where partitions end, with a client of its own.
//!
//! Promises that the consumer, its thread and its connections know nothing of it: a broker that is away is waited for
//! here alone. One request to each broker, however many partitions it leads.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::{Settings, client};
use crate::error::{Error, ErrorKind, Result};
use crate::model::positions::{Offsets, PartitionId};
use crate::source::KnownEnds;

/// How often those who watch are given new ends.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long a broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client that asks for ends and reads nothing.
pub struct EndsClient {
    brokers: String,
    consumer: BaseConsumer,
}

impl EndsClient {
    /// A client for the cluster of `settings`; it connects when it asks.
    ///
    /// # Errors
    /// `Config` where a setting cannot be read or is refused.
    pub fn new(settings: &Settings) -> Result<EndsClient> {
        let mut config = client::config(settings)?;
        // What goes wrong with the broker is the consumer's to say.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        Ok(EndsClient { brokers: settings.brokers.clone(), consumer: client::consumer(&config)? })
    }

    /// Exclusive ends of the partitions, without what belongs to open transactions. Blocks for five seconds at
    /// most. A partition whose leader does not tell is left out.
    ///
    /// # Errors
    /// `Unavailable` where the cluster does not answer.
    pub fn ends(&self, partitions: &[PartitionId]) -> Result<Offsets> {
        // Events that nobody takes would pile up.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        let mut list = TopicPartitionList::new();
        for id in partitions {
            // asks for the end, where a time could stand
            list.add_partition_offset(&id.topic, id.partition, Offset::End).map_err(|e| self.silent(e))?;
        }
        if list.count() == 0 {
            return Ok(Offsets::new());
        }
        let told = self.consumer.offsets_for_times(list, PATIENCE).map_err(|e| self.silent(e))?;
        let end = |id: &PartitionId| match told.find_partition(&id.topic, id.partition)? {
            at if at.error().is_err() => None,
            at => match at.offset() {
                Offset::Offset(end) => Some((id.clone(), end)),
                _ => None,
            },
        };
        Ok(partitions.iter().filter_map(end).collect())
    }

    /// Exclusive ends of all partitions of the topics; a topic that the cluster does not have is left out.
    ///
    /// # Errors
    /// As [`Self::ends`].
    pub fn ends_of_topics(&self, topics: &[&str]) -> Result<Offsets> {
        let metadata = self.consumer.fetch_metadata(None, PATIENCE).map_err(|e| self.silent(e))?;
        self.ends(&partitions(&metadata, topics))
    }

    fn silent(&self, error: rdkafka::error::KafkaError) -> Error {
        client::unavailable(format!("`{}` does not say where its topics end", self.brokers), error)
    }
}

fn partitions(metadata: &Metadata, topics: &[&str]) -> Vec<PartitionId> {
    let wanted = metadata.topics().iter().filter(|topic| topics.contains(&topic.name()));
    let ids = wanted.flat_map(|topic| {
        let name: Arc<str> = Arc::from(topic.name());
        // One without a leader would hold the answer of the others up.
        let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0);
        led.map(move |partition| PartitionId { topic: Arc::clone(&name), partition: partition.id() })
    });
    ids.collect()
}

/// Keeps `known` current until it is dropped. A broker that does not answer leaves it as it was.
pub async fn keep_known(settings: Settings, known: KnownEnds) {
    let mut client = None;
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let partitions: Vec<PartitionId> = known.look().into_keys().collect();
        let (taken, settings) = (client.take(), settings.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let client = match taken {
                Some(client) => client,
                None => EndsClient::new(&settings)?,
            };
            let ends = client.ends(&partitions);
            Ok((client, ends))
        });
        let asked: Result<_> = match asked.await {
            Ok(asked) => asked,
            Err(panic) => Err(Error::new(ErrorKind::Internal, "asking for ends failed").caused_by(panic)),
        };
        match asked {
            Ok((kept, Ok(ends))) => {
                known.note(&ends);
                client = Some(kept);
            }
            Ok((kept, Err(error))) => {
                tracing::debug!(%error, "the lag is as it was known before");
                client = Some(kept);
            }
            Err(error) => tracing::warn!(%error, "the lag is not known"),
        }
    }
}
