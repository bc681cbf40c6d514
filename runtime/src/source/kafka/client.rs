//! The librdkafka client: its settings, and what its errors mean.

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, DefaultConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Settings;
use crate::error::{Error, ErrorKind, Result};

/// The settings, secrets included, read where they are kept.
pub(super) fn config(settings: &Settings) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", format!("lode-{}", settings.name))
        .set("group.id", format!("lode-{}", settings.name))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "false")
        // Of all partitions together, beside our own budget. A queue that is full is looked at again soon: the default of a
        // second would leave it empty for most of that.
        .set("queued.max.messages.kbytes", "8192")
        .set("fetch.queue.backoff.ms", "20")
        // Of one partition in one answer; a larger record comes all the same, alone. More is memory, and faster only where
        // a broker is far away.
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "16777216")
        .set("receive.message.max.bytes", "134217728")
        // An answer for every few records costs both sides more than the records do; the wait bounds how long they are held.
        .set("fetch.min.bytes", "65536")
        .set("fetch.wait.max.ms", "50")
        .set("check.crcs", "true");
    for (key, value) in &settings.options {
        config.set(key, value.fetch(key)?);
    }
    Ok(config)
}

pub(super) fn consumer(config: &ClientConfig) -> Result<BaseConsumer> {
    consumer_with(config, DefaultConsumerContext)
}

pub(super) fn consumer_with<C: ConsumerContext>(config: &ClientConfig, context: C) -> Result<BaseConsumer<C>> {
    config.create_with_context(context).map_err(|error| {
        let refused = match error {
            // Its text repeats the value, which may be a secret.
            KafkaError::ClientConfig(_, _, key, _) => {
                Error::new(ErrorKind::Config, format!("librdkafka refuses the value or the name of `{key}`"))
            }
            other => {
                Error::new(ErrorKind::Config, "librdkafka refuses the settings of `source.kafka`").caused_by(other)
            }
        };
        refused.hint("see `source.kafka.options`; the names and values are librdkafka's")
    })
}

/// What an error that the consumer polled asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// a partition's next offset is not there; librdkafka reads it no more and does not say which it is
    Strayed,
    /// a topic may not be read; which one is not said
    Refused,
    /// the whole client cannot go on
    Ended(ErrorKind),
    /// librdkafka goes on trying by itself; records flow again when the broker is back
    Passing,
}

pub(super) fn meaning(error: &KafkaError) -> Meaning {
    if let KafkaError::MessageConsumptionFatal(_) = error {
        return Meaning::Ended(ErrorKind::Internal);
    }
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Meaning::Strayed,
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Meaning::Refused,
        Some(RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
            Meaning::Ended(ErrorKind::Denied)
        }
        _ => Meaning::Passing,
    }
}

pub(super) fn unavailable(message: String, error: KafkaError) -> Error {
    Error::new(ErrorKind::Unavailable, message).caused_by(error)
}

pub(super) fn refused(topic: &str) -> Error {
    Error::new(ErrorKind::Denied, format!("the broker does not let us read `{topic}`"))
        .hint("grant `READ` and `DESCRIBE` on the topic, then start `lode` again")
}
