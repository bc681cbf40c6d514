//! Kafka, through librdkafka.
//!
//! Takes up every partition of every topic that matches, each from the position its table committed; the broker's
//! group offsets are never read. Topics that look like a connector's schema-change topic (another topic's name
//! starts with theirs and a dot) are read to their end before the others begin, because rows can only be typed by
//! what those say. While the memory budget is used up, partitions are paused and the consumer is still polled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{BLOCK_BYTES_MAX, BLOCK_ROWS_MAX, Budget, Delivery, Outlet, Source, SourceEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Block, PartitionId, Record};

/// How long a request to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a record waits in a block that is not full.
const BLOCK_AGE_MAX: Duration = Duration::from_millis(20);
/// How long a start waits for the first matching topic.
const FIRST_TOPIC_TIMEOUT: Duration = Duration::from_secs(60);

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
    pub options: Vec<(String, String)>,
    /// announce when everything present at the start has been handed over
    pub until_end: bool,
}

/// Starts consuming, in blocks of at most `block_rows` records.
///
/// # Errors
/// A setting that librdkafka refuses; later failures come as [`SourceEvent::Failed`].
pub fn start(settings: Settings, budget: Budget, block_rows: usize) -> Result<Source> {
    let patterns = settings
        .topics
        .iter()
        .map(|p| glob::Pattern::new(p))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::new(ErrorKind::Config, "`source.kafka.topics` holds a bad pattern").caused_by(e))?;
    let consumer = consumer(&settings)?;
    Source::spawn("kafka", budget, block_rows, move |outlet| {
        Kafka {
            outlet,
            settings,
            patterns,
            consumer,
            partitions: HashMap::new(),
            targets: BTreeMap::new(),
            first: BTreeSet::new(),
            drained: false,
            paused: false,
        }
        .run()
    })
}

fn consumer(settings: &Settings) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", format!("lode-{}", settings.name))
        .set("group.id", format!("lode-{}", settings.name))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "false")
        .set("queued.max.messages.kbytes", "65536")
        .set("fetch.message.max.bytes", "67108864")
        .set("fetch.max.bytes", "67108864")
        .set("fetch.wait.max.ms", "50")
        .set("check.crcs", "true");
    for (key, value) in &settings.options {
        config.set(key, value);
    }
    config.create().map_err(|e| {
        Error::new(ErrorKind::Config, "`source.kafka` holds a setting that librdkafka refuses")
            .caused_by(e)
            .hint("see `source.kafka.options`; the names are librdkafka's")
    })
}

struct Open {
    block: Block,
    since: Option<Instant>,
    from: i64,
    next: i64,
}

struct Kafka<'a> {
    outlet: &'a Outlet,
    settings: Settings,
    patterns: Vec<glob::Pattern>,
    consumer: BaseConsumer,
    partitions: HashMap<PartitionId, Open>,
    /// ends as of the start, while they are not reached
    targets: BTreeMap<PartitionId, i64>,
    /// partitions of schema-change topics that are still to be read before the others
    first: BTreeSet<PartitionId>,
    drained: bool,
    paused: bool,
}

impl Kafka<'_> {
    fn run(mut self) -> Result<()> {
        if !self.take_up_first()? {
            return Ok(());
        }
        let mut refreshed = Instant::now();
        while !self.outlet.stopped() {
            self.answer_queries();
            if refreshed.elapsed() >= self.settings.refresh {
                refreshed = Instant::now();
                match self.take_up_new() {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) => tracing::warn!(%error, "cannot list topics; trying again"),
                }
            }
            if !self.poll()? || !self.hand_over_due() || !self.note_progress()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for the first matching topics; false when the pipeline is gone.
    fn take_up_first(&mut self) -> Result<bool> {
        let started = Instant::now();
        loop {
            let error = match self.take_up_new() {
                Ok(false) => return Ok(false),
                Ok(true) if !self.partitions.is_empty() => return Ok(true),
                Ok(true) => Error::new(
                    ErrorKind::Config,
                    format!(
                        "no topic matches {}",
                        self.settings.topics.iter().map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", ")
                    ),
                )
                .hint("see `source.kafka.topics`; the connector makes a table's topic with its first record"),
                Err(error) => error,
            };
            if self.outlet.stopped() {
                return Ok(false);
            }
            if self.settings.until_end || started.elapsed() >= FIRST_TOPIC_TIMEOUT {
                return Err(error);
            }
            tracing::warn!(%error, "waiting for topics");
            std::thread::park_timeout(Duration::from_millis(500));
        }
    }

    fn take_up_new(&mut self) -> Result<bool> {
        let metadata = self
            .consumer
            .fetch_metadata(None, REQUEST_TIMEOUT)
            .map_err(|e| unavailable(format!("cannot list the topics of `{}`", self.settings.brokers), e))?;
        let mut fresh = Vec::new();
        let mut names = Vec::new();
        for topic in metadata.topics().iter().filter(|t| !t.name().starts_with("__")) {
            if !self.patterns.iter().any(|p| p.matches(topic.name())) {
                continue;
            }
            let name: Arc<str> = Arc::from(topic.name());
            names.push(Arc::clone(&name));
            for partition in topic.partitions() {
                let id = PartitionId { topic: Arc::clone(&name), partition: partition.id() };
                if !self.partitions.contains_key(&id) {
                    fresh.push(id);
                }
            }
        }
        if fresh.is_empty() {
            return Ok(true);
        }
        let Some(positions) = self.outlet.assign(fresh.clone()) else { return Ok(false) };
        let initial = self.partitions.is_empty();
        let mut list = TopicPartitionList::new();
        for id in &fresh {
            let (low, high) = self
                .consumer
                .fetch_watermarks(&id.topic, id.partition, REQUEST_TIMEOUT)
                .map_err(|e| unavailable(format!("cannot read the ends of `{}` [{}]", id.topic, id.partition), e))?;
            let from = positions.get(id).copied().unwrap_or(low);
            check_position(id, from, low, high)?;
            if initial && from < high {
                self.targets.insert(id.clone(), high);
                let prefix = format!("{}.", id.topic);
                if names.iter().any(|n| n.starts_with(&prefix)) {
                    self.first.insert(id.clone());
                }
            }
            list.add_partition_offset(&id.topic, id.partition, Offset::Offset(from))
                .map_err(|e| unavailable("cannot set a position".to_owned(), e))?;
            self.partitions.insert(id.clone(), Open { block: Block::new(id.clone()), since: None, from, next: from });
        }
        self.consumer.incremental_assign(&list).map_err(|e| unavailable("cannot take up partitions".to_owned(), e))?;
        if !self.first.is_empty() {
            let others = self.list(|id, kafka| !kafka.first.contains(id));
            self.consumer.pause(&others).map_err(|e| unavailable("cannot pause".to_owned(), e))?;
        }
        Ok(true)
    }

    fn list(&self, keep: impl Fn(&PartitionId, &Self) -> bool) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for id in self.partitions.keys().filter(|id| keep(id, self)) {
            list.add_partition(&id.topic, id.partition);
        }
        list
    }

    fn poll(&mut self) -> Result<bool> {
        // A turn takes in at most this many records, so that queries and ages get their turn too.
        for _ in 0..2 * BLOCK_ROWS_MAX {
            let message = match self.consumer.poll(Duration::from_millis(10)) {
                None => return Ok(true),
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    self.judge(error)?;
                    return Ok(true);
                }
            };
            let id = PartitionId { topic: Arc::from(message.topic()), partition: message.partition() };
            let Some(open) = self.partitions.get_mut(&id) else { continue };
            if message.offset() < open.next {
                continue;
            }
            push(&mut open.block, &message)?;
            open.next = message.offset() + 1;
            open.since.get_or_insert_with(Instant::now);
            let full = open.block.len() >= self.outlet.block_rows || open.block.bytes() >= BLOCK_BYTES_MAX;
            drop(message);
            if full && !self.hand_over(&id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn judge(&self, error: KafkaError) -> Result<()> {
        let code = error.rdkafka_error_code();
        match code {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => Err(Error::new(
                ErrorKind::Gap,
                "a committed position is no longer in its Kafka partition",
            )
            .caused_by(error)
            .hint(
                "records were removed by retention, or the topic was made anew; `lode rebuild` starts a new generation",
            )),
            Some(RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Err(Error::new(ErrorKind::Denied, "the broker refused our credentials").caused_by(error))
            }
            _ => {
                // librdkafka goes on trying by itself; the record flow resumes when the broker is back.
                tracing::warn!(%error, "kafka");
                Ok(())
            }
        }
    }

    fn hand_over_due(&mut self) -> bool {
        let due: Vec<PartitionId> = self
            .partitions
            .iter()
            .filter(|(_, open)| open.since.is_some_and(|s| s.elapsed() >= BLOCK_AGE_MAX))
            .map(|(id, _)| id.clone())
            .collect();
        due.iter().all(|id| self.hand_over(id))
    }

    fn hand_over(&mut self, id: &PartitionId) -> bool {
        let Some(open) = self.partitions.get_mut(id) else { return true };
        let block = std::mem::replace(&mut open.block, Block::new(id.clone()));
        open.since = None;
        let Some(range) = block.range() else { return true };
        let from = std::mem::replace(&mut open.from, open.next);
        let room = loop {
            if let Some(room) = self.outlet.budget.try_take(block.bytes()) {
                break room;
            }
            if self.outlet.stopped() || !self.pause_all() {
                return false;
            }
            // Paused: this serves librdkafka's own events and returns no records.
            if let Some(Err(error)) = self.consumer.poll(Duration::from_millis(20)) {
                tracing::warn!(%error, "kafka");
            }
        };
        self.resume_all() && {
            let range = crate::record::Range { from, to: range.to };
            self.outlet.send(SourceEvent::Block(Delivery::new(block, range, room)))
        }
    }

    fn pause_all(&mut self) -> bool {
        if !self.paused {
            let list = self.list(|_, _| true);
            if let Err(error) = self.consumer.pause(&list) {
                tracing::warn!(%error, "cannot pause");
            }
            self.paused = true;
        }
        true
    }

    fn resume_all(&mut self) -> bool {
        if self.paused {
            let list = self.list(|id, kafka| kafka.first.is_empty() || kafka.first.contains(id));
            // A record that was polled out between pausing and now would be lost: start again where we stand.
            for (id, open) in &self.partitions {
                if kafka_seek(&self.consumer, id, open.next).is_err() {
                    tracing::warn!(topic = %id.topic, partition = id.partition, "cannot seek");
                }
            }
            if let Err(error) = self.consumer.resume(&list) {
                tracing::warn!(%error, "cannot resume");
            }
            self.paused = false;
        }
        true
    }

    /// Lets the other topics begin once the schema-change topics are read, and announces the end of what was there.
    fn note_progress(&mut self) -> Result<bool> {
        if !self.first.is_empty() {
            let partitions = &self.partitions;
            let targets = &self.targets;
            self.first.retain(|id| {
                let open = partitions.get(id);
                let end = targets.get(id).copied().unwrap_or(0);
                open.is_some_and(|o| o.from < end)
            });
            if self.first.is_empty() {
                let all = self.list(|_, _| true);
                self.consumer.resume(&all).map_err(|e| unavailable("cannot resume".to_owned(), e))?;
            }
        }
        if self.settings.until_end && !self.drained {
            let partitions = &self.partitions;
            self.targets.retain(|id, end| partitions.get(id).is_some_and(|o| o.from < *end));
            if self.targets.is_empty() {
                self.drained = true;
                return Ok(self.outlet.send(SourceEvent::Drained));
            }
        }
        Ok(true)
    }

    fn answer_queries(&mut self) {
        while let Ok(query) = self.outlet.queries.try_recv() {
            let ends = self
                .partitions
                .keys()
                .filter(|id| *id.topic == *query.topic)
                .filter_map(|id| {
                    let (_, high) = self.consumer.fetch_watermarks(&id.topic, id.partition, REQUEST_TIMEOUT).ok()?;
                    Some((id.clone(), high))
                })
                .collect();
            let _ = query.reply.send(ends);
        }
    }
}

fn kafka_seek(consumer: &BaseConsumer, id: &PartitionId, offset: i64) -> Result<(), KafkaError> {
    consumer.seek(&id.topic, id.partition, Offset::Offset(offset), REQUEST_TIMEOUT)
}

fn check_position(id: &PartitionId, from: i64, low: i64, high: i64) -> Result<()> {
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

fn push(block: &mut Block, message: &BorrowedMessage<'_>) -> Result<()> {
    let headers = message.headers().filter(|h| h.count() > 0).map(headers_text).unwrap_or_default();
    let pushed = block.push(Record {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key(),
        value: message.payload(),
        headers: headers.as_bytes(),
    });
    if pushed {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        format!(
            "`{}` [{}] offset {}: a block of records is full",
            message.topic(),
            message.partition(),
            message.offset()
        ),
    ))
}

/// Headers as JSON `[["name","value"],…]`; a value that is not UTF-8 stands as `["name",null,"base64"]`.
fn headers_text<H: Headers>(headers: &H) -> String {
    let list: Vec<serde_json::Value> = headers
        .iter()
        .map(|h| match h.value.map(std::str::from_utf8) {
            None => serde_json::json!([h.key, null]),
            Some(Ok(text)) => serde_json::json!([h.key, text]),
            Some(Err(_)) => {
                let bytes = base64::engine::general_purpose::STANDARD.encode(h.value.unwrap_or_default());
                serde_json::json!([h.key, null, bytes])
            }
        })
        .collect();
    serde_json::Value::Array(list).to_string()
}

fn unavailable(message: String, error: KafkaError) -> Error {
    Error::new(ErrorKind::Unavailable, message).caused_by(error)
}
