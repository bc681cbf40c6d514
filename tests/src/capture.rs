//! Captures: records of several topics as JSON Lines, read, changed, mixed and written again.
//!
//! A capture is the truth about what was sent. Lines of one Kafka partition stay in offset order whatever is done here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

/// One record, its bytes exactly as on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Kafka topic
    pub topic: String,
    /// Kafka partition
    pub partition: i32,
    /// offset within the partition
    pub offset: i64,
    /// milliseconds since 1970
    pub timestamp_ms: i64,
    /// names and values, in order; a value may be null
    pub headers: Vec<(String, Option<String>)>,
    /// null where the record has none
    pub key: Option<Vec<u8>>,
    /// null for a tombstone
    pub value: Option<Vec<u8>>,
}

/// Records of several Kafka partitions.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    /// in file order
    pub events: Vec<Event>,
}

/// Where a record stands: topic, partition, offset.
pub type Place = (String, i32, i64);

impl Event {
    /// Where this record stands.
    pub fn place(&self) -> Place {
        (self.topic.clone(), self.partition, self.offset)
    }

    /// The value as text, empty where it is none.
    pub fn text(&self) -> &str {
        self.value.as_deref().and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default()
    }

    fn parse(line: &str) -> Result<Event, String> {
        let v: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let number = |name: &str| v[name].as_i64().ok_or_else(|| format!("no number `{name}`"));
        let bytes = |name: &str| -> Result<Option<Vec<u8>>, String> {
            match (&v[name], v[format!("{name}_b64")].as_str()) {
                (_, Some(text)) => BASE64.decode(text).map(Some).map_err(|e| e.to_string()),
                (Value::String(text), None) => Ok(Some(text.clone().into_bytes())),
                _ => Ok(None),
            }
        };
        let header = |pair: &Value| {
            Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1).and_then(Value::as_str).map(str::to_owned)))
        };
        Ok(Event {
            topic: v["topic"].as_str().ok_or("no `topic`")?.to_owned(),
            partition: i32::try_from(number("partition")?).map_err(|e| e.to_string())?,
            offset: number("offset")?,
            timestamp_ms: number("ts")?,
            headers: v["headers"].as_array().into_iter().flatten().filter_map(header).collect(),
            key: bytes("key")?,
            value: bytes("value")?,
        })
    }

    fn line(&self) -> String {
        let headers: Vec<Value> = self.headers.iter().map(|(k, v)| json!([k, v])).collect();
        let mut line = json!({
            "topic": self.topic, "partition": self.partition, "offset": self.offset,
            "ts_type": "create", "ts": self.timestamp_ms, "headers": headers, "key": null, "value": null,
        });
        for (name, bytes) in [("key", &self.key), ("value", &self.value)] {
            match bytes.as_deref().map(|b| (std::str::from_utf8(b), b)) {
                None => {}
                Some((Ok(text), _)) => line[name] = json!(text),
                Some((Err(_), raw)) => line[format!("{name}_b64")] = json!(BASE64.encode(raw)),
            }
        }
        line.to_string()
    }
}

impl Capture {
    /// Reads JSON Lines, gzip'd when the name ends in `.gz`.
    pub fn read(path: &Path) -> Result<Capture, String> {
        let at = |e: &dyn std::fmt::Display| format!("`{}`: {e}", path.display());
        let file = File::open(path).map_err(|e| at(&e))?;
        let plain: Box<dyn Read> =
            if path.extension().is_some_and(|e| e == "gz") { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
        let mut events = Vec::new();
        for (number, line) in BufReader::new(plain).lines().enumerate() {
            let line = line.map_err(|e| at(&e))?;
            events.push(Event::parse(&line).map_err(|e| at(&format!("line {}: {e}", number + 1)))?);
        }
        Ok(Capture { events })
    }

    /// Writes JSON Lines, gzip'd when the name ends in `.gz`.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        if path.extension().is_some_and(|e| e == "gz") {
            let mut packed = GzEncoder::new(out, Compression::fast());
            self.lines(&mut packed)?;
            packed.finish()?.flush()
        } else {
            self.lines(&mut out)?;
            out.flush()
        }
    }

    fn lines(&self, out: &mut impl Write) -> std::io::Result<()> {
        self.events.iter().try_for_each(|event| writeln!(out, "{}", event.line()))
    }

    /// Number of partitions of each topic.
    pub fn topics(&self) -> BTreeMap<&str, i32> {
        let mut topics = BTreeMap::new();
        for event in &self.events {
            let count = topics.entry(event.topic.as_str()).or_insert(0);
            *count = (*count).max(event.partition + 1);
        }
        topics
    }

    /// The same records, the partitions mixed at random; each partition keeps its own order.
    #[must_use]
    pub fn interleaved(&self, seed: u64) -> Capture {
        let mut lanes: BTreeMap<(&str, i32), Vec<&Event>> = BTreeMap::new();
        for event in &self.events {
            lanes.entry((&event.topic, event.partition)).or_default().push(event);
        }
        let mut lanes: Vec<_> = lanes.into_values().map(Vec::into_iter).collect();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut events = Vec::with_capacity(self.events.len());
        while !lanes.is_empty() {
            let lane = rng.random_range(0..lanes.len());
            match lanes[lane].next() {
                Some(event) => events.push(event.clone()),
                None => drop(lanes.swap_remove(lane)),
            }
        }
        Capture { events }
    }

    /// Puts `event` in at index `at`; it and the later records of its partition are numbered anew.
    /// Gives the place it got.
    pub fn insert(&mut self, at: usize, mut event: Event) -> Place {
        let same = |e: &&mut Event| e.topic == event.topic && e.partition == event.partition;
        let (before, after) = self.events.split_at_mut(at);
        event.offset = before.iter_mut().filter(same).map(|e| e.offset + 1).max().unwrap_or(0);
        after.iter_mut().filter(same).for_each(|e| e.offset += 1);
        let place = event.place();
        self.events.insert(at, event);
        place
    }

    /// Indices of the row changes of the topics whose name ends in `.table`.
    pub fn rows_of(&self, table: &str) -> Vec<usize> {
        let ending = format!(".{table}");
        let of = |e: &Event| e.topic.ends_with(&ending) && e.value.is_some();
        (0..self.events.len()).filter(|&i| of(&self.events[i])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &str, partition: i32, offset: i64, value: &[u8]) -> Event {
        let headers = vec![("name".to_owned(), Some("value".to_owned())), ("none".to_owned(), None)];
        let (topic, value) = (topic.to_owned(), Some(value.to_vec()));
        Event { topic, partition, offset, timestamp_ms: 5, headers, key: None, value }
    }

    fn small() -> Capture {
        let lanes = [("a", 0), ("a", 1), ("b", 0)];
        let events = lanes.iter().flat_map(|(t, p)| (0..20).map(move |o| event(t, *p, o, b"{}"))).collect();
        Capture { events }
    }

    #[test]
    fn what_is_written_is_read_again_whatever_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut capture = small();
        capture.insert(3, event("a", 0, 0, &[0xff, 0x00, b'"']));
        for name in ["c.jsonl", "c.jsonl.gz"] {
            let path = folder.path().join(name);
            capture.write(&path).unwrap();
            assert_eq!(Capture::read(&path).unwrap().events, capture.events);
        }
    }

    #[test]
    fn mixing_keeps_every_record_and_each_partitions_order() {
        let (capture, mixed) = (small(), small().interleaved(1));
        assert_ne!(mixed.events, capture.events);
        let mut sorted = mixed.events.clone();
        sorted.sort_by_key(Event::place);
        assert_eq!(sorted, capture.events);
        for (topic, partition) in [("a", 0), ("a", 1), ("b", 0)] {
            let lane = mixed.events.iter().filter(|e| e.topic == topic && e.partition == partition);
            assert!(lane.map(|e| e.offset).eq(0..20));
        }
    }

    #[test]
    fn an_inserted_record_moves_the_later_ones_of_its_partition() {
        let mut capture = small();
        let place = capture.insert(7, event("a", 0, 99, b"new"));
        assert_eq!(place, ("a".to_owned(), 0, 7));
        let lane: Vec<i64> =
            capture.events.iter().filter(|e| e.topic == "a" && e.partition == 0).map(|e| e.offset).collect();
        assert_eq!(lane, (0..21).collect::<Vec<_>>());
        assert_eq!(capture.topics().into_iter().collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
    }
}
