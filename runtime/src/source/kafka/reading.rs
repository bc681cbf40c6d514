//! One Kafka partition that is being read: the block that fills, and how far it got.

use std::time::Instant;

use rdkafka::message::{BorrowedMessage, Message};

use super::super::BLOCK_BYTES_MAX;
use super::headers::write_headers;
use crate::error::{Error, ErrorKind, Result};
use crate::model::positions::{PartitionId, Range};
use crate::model::record::{Block, Record};

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
        write_headers(message.headers(), headers);
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
        // One that grows from nothing is copied a few times on the way. Where records trickle in, the room would lie idle.
        let empty = match self.block.bytes() >= BLOCK_BYTES_MAX {
            true => Block::like(&self.block, BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 16),
            false => Block::new(self.block.partition().clone()),
        };
        let range = Range { from: std::mem::replace(&mut self.from, self.next), to: self.next };
        Some((std::mem::replace(&mut self.block, empty), range))
    }

    /// What was taken out could not be handed over. Nothing was taken in since.
    pub(super) fn put_back(&mut self, block: Block, range: Range) {
        (self.block, self.from) = (block, range.from);
        self.since = Some(Instant::now());
    }
}
