//! Reads the captures of `tests/captures`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::model::positions::PartitionId;
use crate::model::record::{Block, Record};

/// One captured record.
pub(super) struct Line {
    pub(super) offset: i64,
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) headers: String,
}

impl Line {
    pub(super) fn record(&self) -> Record<'_> {
        Record {
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref().map(str::as_bytes),
            value: self.value.as_deref().map(str::as_bytes),
            headers: self.headers.as_bytes(),
        }
    }
}

/// All records of a capture, by topic and Kafka partition.
pub(super) type Capture = BTreeMap<PartitionId, Vec<Line>>;

/// The folder of the captures.
pub(super) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/captures"))
}

pub(super) fn lines(path: &std::path::Path) -> impl Iterator<Item = Value> + use<> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    BufReader::new(flate2::read::GzDecoder::new(file)).lines().map(|l| serde_json::from_str(&l.unwrap()).unwrap())
}

pub(super) fn load(variant: &str) -> Capture {
    let mut capture = Capture::new();
    for line in lines(&folder().join(format!("{variant}.events.jsonl.gz"))) {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let partition = PartitionId {
            topic: Arc::from(line["topic"].as_str().unwrap()),
            partition: line["partition"].as_i64().unwrap() as i32,
        };
        capture.entry(partition).or_default().push(Line {
            offset: line["offset"].as_i64().unwrap(),
            timestamp_ms: line["ts"].as_i64().unwrap(),
            key: text("key"),
            value: text("value"),
            headers: line["headers"].to_string(),
        });
    }
    capture
}

pub(super) fn block(partition: &PartitionId, lines: &[Line]) -> Block {
    let mut block = Block::new(partition.clone());
    for line in lines {
        assert!(block.push(line.record()));
    }
    block
}
