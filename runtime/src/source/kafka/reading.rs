//! One Kafka partition that is being read: the block that fills, and how far it got.

use std::time::Instant;

use base64::Engine as _;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::error::{Error, ErrorKind, Result};
use crate::record::{Block, PartitionId, Range, Record};

pub(super) struct Reading {
    block: Block,
    /// since when there is something to hand over
    pub(super) since: Option<Instant>,
    /// end of what was handed over
    pub(super) from: i64,
    /// next offset that is expected
    pub(super) next: i64,
}

impl Reading {
    pub(super) fn new(id: PartitionId, from: i64) -> Self {
        Reading { block: Block::new(id), since: None, from, next: from }
    }

    /// The block that fills.
    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    /// Takes the message in, unless it was taken before. `headers`: room for its headers' text.
    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>, headers: &mut Vec<u8>) -> Result<()> {
        if message.offset() < self.next {
            return Ok(());
        }
        headers.clear();
        if let Some(found) = message.headers().filter(|h| h.count() > 0) {
            write_headers(found, headers);
        }
        let pushed = self.block.push(Record {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            value: message.payload(),
            headers,
        });
        if !pushed {
            let PartitionId { topic, partition } = self.block.partition();
            let message = format!("`{topic}` [{partition}] offset {}: a block of records is full", message.offset());
            return Err(Error::new(ErrorKind::Internal, message));
        }
        self.next = message.offset() + 1;
        self.since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// There is no record before `next` that was not taken in.
    pub(super) fn pass(&mut self, next: i64) {
        if next > self.next {
            self.next = next;
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// What is to be handed over, perhaps a range that holds no record; `None` where there is nothing.
    pub(super) fn take_out(&mut self) -> Option<(Block, Range)> {
        self.since = None;
        if self.from >= self.next {
            return None;
        }
        let empty = Block::new(self.block.partition().clone());
        let range = Range { from: std::mem::replace(&mut self.from, self.next), to: self.next };
        Some((std::mem::replace(&mut self.block, empty), range))
    }
}

/// Headers as JSON `[["name","value"],…]`; a value that is not UTF-8 stands as `["name",null,"base64"]`.
fn write_headers<H: Headers>(headers: &H, out: &mut Vec<u8>) {
    let mut before = b'[';
    for header in headers.iter() {
        out.extend([before, b'[']);
        before = b',';
        write_text(header.key, out);
        match header.value.map(|v| (std::str::from_utf8(v), v)) {
            None => out.extend(b",null"),
            Some((Ok(text), _)) => {
                out.push(b',');
                write_text(text, out);
            }
            Some((Err(_), raw)) => {
                out.extend(b",null,");
                write_text(&base64::engine::general_purpose::STANDARD.encode(raw), out);
            }
        }
        out.push(b']');
    }
    out.push(b']');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}
