//! Captured records from files: JSON Lines, gzip or not, told apart by the first two bytes.
//!
//! A line: `{"topic","partition","offset","ts":<ms>,"headers":[[name,value],…],"key":<text|null>,"value":<text|null>}`;
//! bytes that are not UTF-8 stand as `key_b64` and `value_b64`. Each partition's offsets must rise within and across
//! the files. A line that is not of this form stops the source with file and line: a damaged capture is no input.
//!
//! A topic that cannot be taken in (nobody can say yet from where, its tables are full, or it is to be read anew) is passed
//! over, so that the others go on, and the files are read once more for it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{BLOCK_BYTES_MAX, Budget, Delivery, Full, Outlet, Request, Source, SourceEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::model::positions::{Offsets, PartitionId, Range};
use crate::model::record::{Block, Record};

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// Blocks that are being filled at once, before the fullest partitions are handed over.
const OPEN_BYTES_MAX: usize = 8 << 20;
/// How long one wait for a request lasts, until the stop is looked at again.
const REQUEST_WAIT: Duration = Duration::from_millis(50);
/// How long one wait for room lasts.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// How long a topic that gets no more room holds the others up before it is passed over.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

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

/// A partition that is being read.
struct Open {
    block: Block,
    from: i64,
    next: i64,
}

/// What is known of a topic.
enum TopicState {
    /// announced; nothing was said yet
    Asked,
    /// nobody can say yet from where it goes on
    Awaited,
    /// it goes on from these positions
    Told { positions: Offsets, turn: u64 },
    /// nobody takes its records in
    Left,
}

struct Topic {
    stand: TopicState,
    /// some of its records were passed over in this round: nothing more of it may be handed over before the next
    is_behind: bool,
    /// what was passed over can be handed over: another round is worth it
    is_due: bool,
}

struct Replay<'a> {
    outlet: &'a Outlet,
    open: HashMap<PartitionId, Open>,
    topics: HashMap<Arc<str>, Topic>,
    /// past the last record of each partition in the files, as far as they are read in this round
    seen: HashMap<PartitionId, i64>,
    open_bytes: usize,
    /// all files have been read once
    is_whole: bool,
    /// who asks for ends before that
    asked: Vec<(String, oneshot::Sender<Offsets>)>,
}

impl<'a> Replay<'a> {
    fn new(outlet: &'a Outlet) -> Self {
        Replay {
            outlet,
            open: HashMap::new(),
            topics: HashMap::new(),
            seen: HashMap::new(),
            open_bytes: 0,
            is_whole: false,
            asked: Vec::new(),
        }
    }

    fn run(mut self, files: &[PathBuf]) -> Result<()> {
        let mut drained = false;
        loop {
            self.seen.clear();
            for topic in self.topics.values_mut() {
                (topic.is_behind, topic.is_due) = (false, false);
            }
            for file in files {
                if !self.read(file)? {
                    return Ok(());
                }
            }
            if !self.hand_over_all() {
                return Ok(());
            }
            // Files do not grow: from here on every topic's end is what was read.
            self.is_whole = true;
            for (topic, reply) in std::mem::take(&mut self.asked) {
                let _ = reply.send(self.ends_of(&topic));
            }
            while !self.topics.values().any(|topic| topic.is_due) {
                let is_behind = |topic: &Topic| topic.is_behind && !matches!(topic.stand, TopicState::Left);
                if !drained && !self.topics.values().any(is_behind) {
                    drained = true;
                    self.outlet.send(SourceEvent::Drained);
                }
                self.make_room_due();
                if self.outlet.stopped() {
                    return Ok(());
                }
                if let Ok(request) = self.outlet.requests.recv_timeout(REQUEST_WAIT) {
                    self.heed(request);
                }
            }
        }
    }

    /// A topic that was passed over for want of room is worth another round once there is some.
    fn make_room_due(&mut self) {
        for (name, topic) in &mut self.topics {
            if topic.is_behind
                && matches!(topic.stand, TopicState::Told { .. })
                && self.outlet.budget.has_room_again(name)
            {
                topic.is_due = true;
            }
        }
    }

    fn heed(&mut self, request: Request) {
        match request {
            Request::Ends { topic, reply } if self.is_whole => drop(reply.send(self.ends_of(&topic))),
            Request::Ends { topic, reply } => self.asked.push((topic, reply)),
            Request::Begin { topic, positions, turn } => {
                let Some(known) = self.topics.get_mut(&topic) else { return };
                match &known.stand {
                    TopicState::Told { turn: before, .. } if *before == turn => return,
                    // It is waited for, and nothing of it was passed over.
                    TopicState::Asked => known.is_due = known.is_behind,
                    _ => (known.is_behind, known.is_due) = (true, true),
                }
                known.stand = TopicState::Told { positions, turn };
                self.close(&topic);
            }
            Request::Wait { topic } => self.pass_over(&topic, Some(TopicState::Awaited)),
            Request::Leave { topic } => self.pass_over(&topic, Some(TopicState::Left)),
            Request::Recall { topic } => {
                self.pass_over(&topic, Some(TopicState::Asked));
                let partitions = self.seen.keys().filter(|id| id.topic == topic).cloned().collect();
                self.outlet.send(SourceEvent::Found(partitions));
            }
        }
    }

    fn ends_of(&self, topic: &str) -> Offsets {
        let ends = self.seen.iter().filter(|(id, _)| *id.topic == *topic);
        ends.map(|(id, end)| (id.clone(), *end)).collect()
    }

    /// Reads nothing more of the topic from where it is; what was read and not handed over is dropped.
    fn close(&mut self, topic: &Arc<str>) {
        for (_, open) in self.open.extract_if(|id, _| id.topic == *topic) {
            self.open_bytes -= open.block.bytes();
        }
    }

    /// Hands nothing more of the topic over in this round.
    fn pass_over(&mut self, topic: &Arc<str>, stand: Option<TopicState>) {
        self.close(topic);
        if let Some(known) = self.topics.get_mut(topic) {
            known.is_behind = true;
            if let Some(stand) = stand {
                known.stand = stand;
            }
        }
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
        let seen = self.seen.entry(id.clone()).or_insert(0);
        if record.offset < *seen {
            return Err(damaged(file, number, "goes backwards in its partition"));
        }
        *seen = record.offset + 1;
        while let Ok(request) = self.outlet.requests.try_recv() {
            self.heed(request);
        }
        if !self.open.contains_key(&id) && !self.open(&id)? {
            return Ok(!self.outlet.stopped());
        }
        let Some(open) = self.open.get_mut(&id) else { return Ok(true) };
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
        let topic = match self.topics.get_key_value(topic) {
            Some((known, _)) => Arc::clone(known),
            None => {
                let name: Arc<str> = Arc::from(topic);
                let topic = Topic { stand: TopicState::Asked, is_behind: false, is_due: false };
                self.topics.insert(Arc::clone(&name), topic);
                self.outlet.budget.meet(&name);
                self.outlet.send(SourceEvent::Found(vec![PartitionId { topic: Arc::clone(&name), partition }]));
                name
            }
        };
        PartitionId { topic, partition }
    }

    /// Begins to read the partition, once it is said from where; false where that cannot be said for now.
    fn open(&mut self, id: &PartitionId) -> Result<bool> {
        loop {
            let Some(topic) = self.topics.get_mut(&id.topic) else { return Ok(false) };
            match &topic.stand {
                _ if topic.is_behind => return Ok(false),
                TopicState::Left | TopicState::Awaited => {
                    topic.is_behind = true;
                    return Ok(false);
                }
                TopicState::Told { positions, .. } => {
                    let from = positions.get(id).copied().unwrap_or(0);
                    if !self.hand_over_parents(id) {
                        return Ok(false);
                    }
                    self.open.insert(id.clone(), Open { block: Block::new(id.clone()), from, next: from });
                    return Ok(true);
                }
                TopicState::Asked if self.outlet.stopped() => return Ok(false),
                TopicState::Asked => {
                    if let Ok(request) = self.outlet.requests.recv_timeout(REQUEST_WAIT) {
                        self.heed(request);
                    }
                }
            }
        }
    }

    /// A topic's first record appears: what was read of its connector's schema-change topic goes ahead of it.
    fn hand_over_parents(&mut self, id: &PartitionId) -> bool {
        let is_parent =
            |open: &&PartitionId| id.topic.strip_prefix(&*open.topic).is_some_and(|rest| rest.starts_with('.'));
        let parents: Vec<PartitionId> = self.open.keys().filter(is_parent).cloned().collect();
        parents.iter().all(|parent| self.hand_over(parent))
    }

    /// Hands over what was read of a partition. Where its topic gets no more room for too long, the topic is passed over
    /// for this round. False when the pipeline is gone.
    fn hand_over(&mut self, id: &PartitionId) -> bool {
        let begun = Instant::now();
        loop {
            let Some(open) = self.open.get_mut(id).filter(|open| !open.block.is_empty()) else { return true };
            let Some(Topic { stand: TopicState::Told { positions, turn }, .. }) = self.topics.get_mut(&id.topic) else {
                return true;
            };
            let full = match self.outlet.budget.take(&id.topic, open.block.bytes()) {
                Ok(room) => {
                    let block = std::mem::replace(&mut open.block, Block::new(id.clone()));
                    self.open_bytes -= block.bytes();
                    let range = Range { from: std::mem::replace(&mut open.from, open.next), to: open.next };
                    positions.insert(id.clone(), range.to);
                    return self.outlet.send(SourceEvent::Block(Delivery::new(block, range, *turn, room)));
                }
                Err(full) => full,
            };
            if self.outlet.stopped() {
                return false;
            }
            if full == Full::OfTopic && begun.elapsed() >= ROOM_PATIENCE {
                self.pass_over(&id.topic, None);
                return true;
            }
            if let Ok(request) = self.outlet.requests.recv_timeout(ROOM_WAIT) {
                self.heed(request);
            }
        }
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
                SourceEvent::Found(found) => {
                    let topic = Arc::clone(&found[0].topic);
                    source.requests.begin(&topic, found.into_iter().map(|id| (id, next)).collect(), 1);
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
