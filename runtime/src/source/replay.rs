//! Captured records from files: JSON Lines, gzip or not, told apart by the first two bytes.
//!
//! A line: `{"topic","partition","offset","ts":<ms>,"headers":[[name,value],…],"key":<text|null>,"value":<text|null>}`;
//! bytes that are not UTF-8 stand as `key_b64` and `value_b64`. Each partition's offsets must rise within and across
//! the files. A line that is not of this form stops the source with file and line: a damaged capture is no input.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{BLOCK_BYTES_MAX, Budget, EndQuery, Outlet, Source, SourceEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Block, PartitionId, Record};

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// Blocks that are being filled at once, before the fullest partitions are handed over.
const OPEN_BYTES_MAX: usize = 8 << 20;

#[derive(Deserialize)]
struct Line<'a> {
    topic: std::borrow::Cow<'a, str>,
    partition: i32,
    offset: i64,
    ts: i64,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    #[serde(borrow, default)]
    key: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    value: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    key_b64: Option<String>,
    #[serde(default)]
    value_b64: Option<String>,
}

/// Starts reading `files`, in order, in blocks of at most `block_rows` records.
///
/// # Errors
/// When the thread cannot be started; later failures come as [`SourceEvent::Failed`].
pub fn start(files: Vec<PathBuf>, budget: Budget, block_rows: usize) -> Result<Source> {
    Source::spawn("replay", budget, block_rows, move |outlet| Replay::new(outlet).run(&files))
}

struct Open {
    block: Block,
    from: i64,
    next: i64,
    /// past the last record of the files, be it taken or not
    seen: i64,
}

struct Replay<'a> {
    outlet: &'a Outlet,
    open: HashMap<PartitionId, Open>,
    topics: HashMap<String, Arc<str>>,
    open_bytes: usize,
    waiting: Vec<EndQuery>,
}

impl<'a> Replay<'a> {
    fn new(outlet: &'a Outlet) -> Self {
        Replay { outlet, open: HashMap::new(), topics: HashMap::new(), open_bytes: 0, waiting: Vec::new() }
    }

    fn run(mut self, files: &[PathBuf]) -> Result<()> {
        for file in files {
            if !self.read(file)? {
                return Ok(());
            }
        }
        if !self.hand_over_all() {
            return Ok(());
        }
        self.outlet.send(SourceEvent::Drained);
        // Files do not grow: from here on every topic's end is what was read.
        while !self.outlet.stopped() {
            for query in self.waiting.drain(..) {
                let ends = self.open.iter().filter(|(id, _)| *id.topic == *query.topic);
                let _ = query.reply.send(ends.map(|(id, open)| (id.clone(), open.next)).collect());
            }
            if let Ok(query) = self.outlet.queries.recv_timeout(std::time::Duration::from_millis(50)) {
                self.waiting.push(query);
            }
        }
        Ok(())
    }

    fn read(&mut self, file: &Path) -> Result<bool> {
        let mut lines = open(file)?;
        let mut line = Vec::new();
        let mut number = 0u64;
        loop {
            line.clear();
            number += 1;
            let length = lines
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)
                .map_err(|e| damaged(file, number, "cannot be read").caused_by(e))?;
            if length == 0 {
                return Ok(true);
            }
            if length as u64 == LINE_BYTES_MAX {
                return Err(damaged(file, number, "is longer than 256 MiB"));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if self.outlet.stopped() || !self.take(file, number, &line)? {
                return Ok(false);
            }
        }
    }

    fn take(&mut self, file: &Path, number: u64, line: &[u8]) -> Result<bool> {
        let parsed: Line<'_> =
            serde_json::from_slice(line).map_err(|e| damaged(file, number, "is not a captured record").caused_by(e))?;
        let decode = |text: &Option<String>| {
            text.as_ref()
                .map(|t| base64::engine::general_purpose::STANDARD.decode(t))
                .transpose()
                .map_err(|e| damaged(file, number, "has bad base64").caused_by(e))
        };
        let (key_bytes, value_bytes) = (decode(&parsed.key_b64)?, decode(&parsed.value_b64)?);
        let record = Record {
            offset: parsed.offset,
            timestamp_ms: parsed.ts,
            key: key_bytes.as_deref().or(parsed.key.as_deref().map(str::as_bytes)),
            value: value_bytes.as_deref().or(parsed.value.as_deref().map(str::as_bytes)),
            headers: match parsed.headers.map(RawValue::get) {
                None | Some("[]" | "null") => b"",
                Some(headers) => headers.as_bytes(),
            },
        };
        let id = self.partition(&parsed.topic, parsed.partition);
        if !self.open.contains_key(&id) {
            let Some(positions) = self.outlet.assign(vec![id.clone()]) else { return Ok(false) };
            let from = positions.get(&id).copied().unwrap_or(0);
            if !self.hand_over_parents(&id) {
                return Ok(false);
            }
            self.open.insert(id.clone(), Open { block: Block::new(id.clone()), from, next: from, seen: 0 });
        }
        let Some(open) = self.open.get_mut(&id) else { return Ok(false) };
        if record.offset < open.seen {
            return Err(damaged(file, number, "goes backwards in its partition"));
        }
        open.seen = record.offset + 1;
        if record.offset < open.next {
            // The table holds it already.
            return Ok(true);
        }
        let before = open.block.bytes();
        if !open.block.push(record) {
            return Err(damaged(file, number, "is longer than 4 GiB"));
        }
        open.next = record.offset + 1;
        self.open_bytes += open.block.bytes() - before;
        if open.block.len() >= self.outlet.block_rows || open.block.bytes() >= BLOCK_BYTES_MAX {
            return Ok(self.hand_over(&id));
        }
        if self.open_bytes >= OPEN_BYTES_MAX {
            return Ok(self.hand_over_all());
        }
        Ok(true)
    }

    fn partition(&mut self, topic: &str, partition: i32) -> PartitionId {
        let topic = match self.topics.get(topic) {
            Some(known) => Arc::clone(known),
            None => {
                let shared: Arc<str> = Arc::from(topic);
                self.topics.insert(topic.to_owned(), Arc::clone(&shared));
                shared
            }
        };
        PartitionId { topic, partition }
    }

    /// A topic's first record appears: what was read of its connector's schema-change topic goes ahead of it.
    fn hand_over_parents(&mut self, id: &PartitionId) -> bool {
        let is_parent =
            |open: &&PartitionId| id.topic.strip_prefix(&*open.topic).is_some_and(|rest| rest.starts_with('.'));
        let parents: Vec<PartitionId> = self.open.keys().filter(is_parent).cloned().collect();
        parents.iter().all(|parent| self.hand_over(parent))
    }

    fn hand_over(&mut self, id: &PartitionId) -> bool {
        let Some(open) = self.open.get_mut(id) else { return true };
        let block = std::mem::replace(&mut open.block, Block::new(id.clone()));
        self.open_bytes -= block.bytes();
        let from = std::mem::replace(&mut open.from, open.next);
        self.outlet.deliver(block, from)
    }

    fn hand_over_all(&mut self) -> bool {
        let mut ids: Vec<PartitionId> = self.open.keys().cloned().collect();
        ids.sort();
        ids.iter().all(|id| self.hand_over(id))
    }
}

fn open(file: &Path) -> Result<Box<dyn BufRead>> {
    let cannot = |e| Error::new(ErrorKind::Config, format!("cannot read capture `{}`", file.display())).caused_by(e);
    let mut magic = [0u8; 2];
    let found = File::open(file).and_then(|mut f| f.read(&mut magic)).map_err(cannot)?;
    let reader = File::open(file).map_err(cannot)?;
    Ok(if found == 2 && magic == [0x1f, 0x8b] {
        Box::new(BufReader::with_capacity(1 << 18, flate2::read::MultiGzDecoder::new(BufReader::new(reader))))
    } else {
        Box::new(BufReader::with_capacity(1 << 18, reader))
    })
}

fn damaged(file: &Path, line: u64, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("capture `{}`: line {line} {what}", file.display()))
        .hint("a capture is JSON Lines of `topic`, `partition`, `offset`, `ts`, `headers`, `key`, `value`")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the offsets as one partition, from `next` on, in blocks of `rows`; the offsets that were handed over.
    fn replayed(offsets: &[i64], next: i64, rows: usize) -> Result<Vec<i64>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("capture.jsonl");
        let line = |o: &i64| format!("{{\"topic\":\"t\",\"partition\":0,\"offset\":{o},\"ts\":1,\"value\":\"v\"}}\n");
        std::fs::write(&file, offsets.iter().map(line).collect::<String>()).unwrap();
        let mut source = start(vec![file], Budget::new(1 << 20), rows).unwrap();
        let mut taken = Vec::new();
        loop {
            match source.events.blocking_recv().expect("an event") {
                SourceEvent::Assigned { partitions, reply } => {
                    reply.send(partitions.into_iter().map(|id| (id, next)).collect()).unwrap();
                }
                SourceEvent::Block(delivery) => taken.extend(delivery.block.iter().map(|r| r.offset)),
                SourceEvent::Failed(error) => return Err(error),
                SourceEvent::Drained => return Ok(taken),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_the_table_holds_is_passed_over() {
        assert_eq!(replayed(&[0, 1, 2, 3], 2, 10).unwrap(), [2, 3]);
    }

    #[test]
    fn a_record_that_goes_backwards_is_refused_even_right_after_a_hand_over() {
        for rows in [1, 2, 10] {
            let error = replayed(&[0, 1, 0, 2], 0, rows).expect_err("must be refused");
            assert!(error.to_string().contains("line 3 goes backwards"), "{error}");
        }
        assert!(replayed(&[0, 1, 1], 2, 10).is_err(), "backwards before the table's position");
    }
}
