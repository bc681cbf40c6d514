//! The embedded broker: librdkafka's mock cluster, and what was appended to it.
//!
//! Receives messages. Promises that each partition keeps their order, and that offset and time of what a partition took
//! in are known. Never keeps more than some megabytes a partition: the mock drops the oldest records.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ProducerContext, ThreadedProducer};

use super::event::{self, Message};
use super::schema::Table;
use crate::error::{Error, ErrorKind, Result};
use crate::model::positions::{Offsets, PartitionId};

/// Partitions of a table's topic: enough for a key change to cross them.
const PARTITIONS: i32 = 2;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause when the producer's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// What the partitions took in.
#[derive(Debug, Default)]
pub(super) struct Appended {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ends: Offsets,
    /// offset and time of records that nobody has asked for yet, in order
    fresh: BTreeMap<PartitionId, VecDeque<(i64, i64)>>,
    failed: Option<String>,
}

impl Appended {
    /// Next offset of each partition that has a record.
    pub(super) fn ends(&self) -> Offsets {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ends.clone()
    }

    fn first_failure(&self) -> Result<()> {
        let failed = self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.clone();
        failed.map_or(Ok(()), |reason| Err(not_taken(reason)))
    }

    /// When the streamed records of a partition below `next` were sent, in milliseconds since 1970; each is told once.
    pub(super) fn take_sent(&self, partition: &PartitionId, next: i64) -> Vec<i64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(fresh) = state.fresh.get_mut(partition) else { return Vec::new() };
        let below = fresh.partition_point(|(offset, _)| *offset < next);
        fresh.drain(..below).map(|(_, sent)| sent).collect()
    }
}

/// When a record was sent, where that is to be measured.
type SentAt = Option<i64>;

struct Deliveries(Arc<Appended>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<SentAt>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<SentAt>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                let id = PartitionId { topic: message.topic().into(), partition: message.partition() };
                if let Some(sent) = *sent {
                    state.fresh.entry(id.clone()).or_default().push_back((message.offset(), sent));
                }
                state.ends.insert(id, message.offset() + 1);
            }
            Err((error, message)) => {
                state.failed.get_or_insert_with(|| format!("`{}`: {error}", message.topic()));
            }
        }
    }
}

/// The broker, up as long as it is kept.
pub(super) struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Broker {
    /// Starts the broker with the topics of every table.
    ///
    /// # Errors
    /// `Internal` when librdkafka cannot.
    pub(super) fn start() -> Result<Broker> {
        let cluster = MockCluster::new(1).map_err(not_started)?;
        cluster.create_topic(event::PREFIX, 1, 1).map_err(not_started)?;
        for table in Table::ALL {
            cluster.create_topic(&event::topic(table), PARTITIONS, 1).map_err(not_started)?;
        }
        Ok(Broker { cluster })
    }

    /// `host:port`.
    pub(super) fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

fn not_started(error: KafkaError) -> Error {
    Error::new(ErrorKind::Internal, "the embedded broker does not start").caused_by(error)
}

fn not_taken(reason: String) -> Error {
    Error::new(ErrorKind::Internal, "the embedded broker took no record").caused_by(reason)
}

/// The connector's producer.
pub(super) struct Producer {
    producer: ThreadedProducer<Deliveries>,
    appended: Arc<Appended>,
}

impl Producer {
    /// A producer to the broker.
    ///
    /// # Errors
    /// `Internal` when librdkafka cannot.
    pub(super) fn to(broker: &Broker) -> Result<Producer> {
        let appended = Arc::new(Appended::default());
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker.address())
            .set("enable.idempotence", "true")
            // as Kafka Connect's own producer spreads keys
            .set("partitioner", "murmur2_random")
            .set("compression.codec", "zstd")
            .set("linger.ms", "2")
            .create_with_context(Deliveries(Arc::clone(&appended)))
            .map_err(not_started)?;
        Ok(Producer { producer, appended })
    }

    /// What the partitions took in.
    pub(super) fn appended(&self) -> Arc<Appended> {
        Arc::clone(&self.appended)
    }

    /// Hands a message to the producer; `sent` in milliseconds since 1970, where its way is to be measured.
    ///
    /// # Errors
    /// `Internal` when it cannot be taken, or an earlier one was not.
    pub(super) fn send(&self, message: &Message, sent: SentAt) -> Result<()> {
        self.appended.first_failure()?;
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::<str, str, Box<SentAt>> {
            topic: &message.topic,
            partition: None,
            payload: message.value.as_deref(),
            key: Some(&message.key),
            timestamp: sent,
            headers: Some(headers),
            delivery_opaque: Box::new(sent),
        };
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    std::thread::sleep(FULL_PAUSE);
                }
                Err((error, _)) => return Err(not_taken(error.to_string())),
            }
        }
    }

    /// Waits until everything sent has its offset.
    ///
    /// # Errors
    /// `Internal` when something has none in time.
    pub(super) fn flush(&self) -> Result<()> {
        self.producer.flush(TIMEOUT).map_err(|e| not_taken(e.to_string()))?;
        self.appended.first_failure()
    }
}
