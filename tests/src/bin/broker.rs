//! `broker --capture FILE [--seed N] [--rate N] [--markers N] [--first TOPIC]`: a mock Kafka broker that holds a capture.
//!
//! Prints `bootstrap HOST:PORT`, then `produced N` when every record is stored at the very offset the capture gives it,
//! and lives until its standard input closes. Records are mixed at random by the seed, each partition in order,
//! after those of the topic `--first`. With
//! `--rate`, N records a second are produced after the address is printed; without, all before it. With
//! `--markers`, N transactions' markers stand at the end of each partition: offsets that hold no record. It never trims a
//! log: a capture that does not fit the mock's few megabytes a partition is an error.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use lodestream_tests::capture::{Capture, Event};
use lodestream_tests::wire;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Checks that each record lands at its offset.
#[derive(Default)]
struct Offsets {
    stored: Mutex<usize>,
    wrong: Mutex<Option<String>>,
}

impl ClientContext for Offsets {}

impl ProducerContext for Offsets {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, wanted: Box<i64>) {
        let wrong = match result {
            Ok(message) if message.offset() == *wanted => None,
            Ok(message) => Some(format!(
                "offset {} of `{}` {} where the capture has {wanted}",
                message.offset(),
                message.topic(),
                message.partition()
            )),
            Err((error, message)) => Some(format!("`{}` {}: {error}", message.topic(), message.partition())),
        };
        match wrong {
            None => *self.stored.lock().unwrap_or_else(|e| e.into_inner()) += 1,
            Some(text) => *self.wrong.lock().unwrap_or_else(|e| e.into_inner()) = Some(text),
        }
    }
}

struct Options {
    capture: PathBuf,
    seed: u64,
    rate: Option<u32>,
    first: String,
    markers: u64,
}

fn options() -> Result<Options, String> {
    let mut options = Options { capture: PathBuf::new(), seed: 0, rate: None, markers: 0, first: String::new() };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{name}` needs a value"))?;
        let number = || value.parse().map_err(|e| format!("`{name} {value}`: {e}"));
        match name.as_str() {
            "--first" => options.first = value,
            "--capture" => options.capture = PathBuf::from(value),
            "--seed" => options.seed = number()?,
            "--rate" => options.rate = Some(u32::try_from(number()?).map_err(|e| e.to_string())?),
            "--markers" => options.markers = number()?,
            _ => {
                return Err(format!(
                    "unknown option `{name}`; hint: --capture FILE [--seed N] [--rate N] [--first TOPIC] [--markers N]"
                ));
            }
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("broker: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let options = options()?;
    let capture = Capture::read(&options.capture)?;
    let kafka = |e: KafkaError| e.to_string();
    let cluster = MockCluster::new(1).map_err(kafka)?;
    for (topic, partitions) in capture.topics() {
        cluster.create_topic(topic, partitions, 1).map_err(kafka)?;
    }
    let address = cluster.bootstrap_servers();
    if options.rate.is_some() {
        println!("bootstrap {address}");
    }
    let producer: BaseProducer<Offsets> = ClientConfig::new()
        .set("bootstrap.servers", &address)
        .set("enable.idempotence", "true")
        // the mock keeps some megabytes a partition, as they came over the wire
        .set("compression.codec", "zstd")
        .set("linger.ms", "2")
        .set("message.max.bytes", "100000000")
        .set("queue.buffering.max.kbytes", "2000000")
        .create_with_context(Offsets::default())
        .map_err(kafka)?;
    let mut mixed = capture.interleaved(options.seed);
    mixed.events.sort_by_key(|event| event.topic != options.first);
    produce(&producer, &mixed, options.rate)?;
    for (topic, partitions) in capture.topics() {
        for partition in (0..partitions).flat_map(|p| (0..options.markers).map(move |_| p)) {
            wire::append_commit_marker(&address, topic, partition).map_err(|e| e.to_string())?;
        }
    }
    check_kept(&address, &capture)?;
    if options.rate.is_none() {
        println!("bootstrap {address}");
    }
    println!("produced {}", capture.events.len());
    std::io::stdin().read_to_end(&mut Vec::new()).map_err(|e| e.to_string())?;
    Ok(())
}

fn produce(producer: &BaseProducer<Offsets>, capture: &Capture, rate: Option<u32>) -> Result<(), String> {
    let start = Instant::now();
    for (number, event) in (0u32..).zip(&capture.events) {
        if let Some(rate) = rate {
            let due = Duration::from_secs(1) * number / rate.max(1);
            // pacing is what the option is for; nothing waits for a condition here
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        send(producer, event)?;
        producer.poll(Duration::ZERO);
    }
    producer.flush(TIMEOUT).map_err(|e| e.to_string())?;
    let offsets = producer.context();
    if let Some(text) = offsets.wrong.lock().unwrap_or_else(|e| e.into_inner()).take() {
        return Err(text);
    }
    let stored = *offsets.stored.lock().unwrap_or_else(|e| e.into_inner());
    if stored != capture.events.len() {
        return Err(format!("{stored} of {} records were stored", capture.events.len()));
    }
    Ok(())
}

fn send(producer: &BaseProducer<Offsets>, event: &Event) -> Result<(), String> {
    let mut headers = OwnedHeaders::new_with_capacity(event.headers.len());
    for (key, value) in &event.headers {
        headers = headers.insert(Header { key, value: value.as_ref() });
    }
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let record = BaseRecord::<[u8], [u8], Box<i64>> {
            topic: &event.topic,
            partition: Some(event.partition),
            payload: event.value.as_deref(),
            key: event.key.as_deref(),
            timestamp: Some(event.timestamp_ms),
            headers: Some(headers.clone()),
            delivery_opaque: Box::new(event.offset),
        };
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                producer.poll(Duration::from_millis(50));
            }
            Err((error, _)) => return Err(format!("`{}` {}: {error}", event.topic, event.partition)),
        }
    }
}

/// The mock drops old records silently; a test would then blame the wrong program.
fn check_kept(address: &str, capture: &Capture) -> Result<(), String> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", address).create().map_err(|e: KafkaError| e.to_string())?;
    for (topic, partitions) in capture.topics() {
        for partition in 0..partitions {
            let (low, _) = consumer.fetch_watermarks(topic, partition, TIMEOUT).map_err(|e| e.to_string())?;
            if low != 0 {
                return Err(format!("`{topic}` {partition} starts at {low}: the capture is too large for the mock"));
            }
        }
    }
    Ok(())
}
