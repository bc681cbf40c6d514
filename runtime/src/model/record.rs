//! Records as Kafka gives them.
//!
//! A [`Block`] holds consecutive records of one Kafka partition in a few allocations, so that handing a
//! record to Bronze and to Silver costs no copy and no allocation a row.

use std::sync::Arc;

use bytes::Bytes;

use super::positions::{PartitionId, Range};

#[derive(Debug, Clone, Copy)]
struct Row {
    offset: i64,
    timestamp_ms: i64,
    /// where key and headers begin
    start: u32,
    /// where the value begins
    value: u32,
    key_len: u32,
    value_len: u32,
    headers_len: u32,
}

const ABSENT: u32 = u32::MAX;

/// Consecutive records of one Kafka partition, in offset order. At most 4 GiB of bytes.
#[derive(Debug)]
pub struct Block {
    partition: PartitionId,
    /// each record's key and headers, one after the other
    labels: Vec<u8>,
    /// each record's value, one after the other
    values: Vec<u8>,
    rows: Vec<Row>,
}

/// The values of a block, for who wants nothing else of it.
struct Values(Arc<Block>);

impl AsRef<[u8]> for Values {
    fn as_ref(&self) -> &[u8] {
        &self.0.values
    }
}

/// One record of a block.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// offset within its Kafka partition
    pub offset: i64,
    /// Kafka's timestamp, milliseconds since 1970
    pub timestamp_ms: i64,
    /// null where the record has none
    pub key: Option<&'a [u8]>,
    /// null for a tombstone
    pub value: Option<&'a [u8]>,
    /// JSON text `[["name","value"],…]`, empty where there are none; `source::kafka::headers` says what stands for bytes
    pub headers: &'a [u8],
}

impl Block {
    /// An empty block of `partition`.
    pub fn new(partition: PartitionId) -> Self {
        Block { partition, labels: Vec::new(), values: Vec::new(), rows: Vec::new() }
    }

    /// An empty block of the same partition, with room for about as much as `other` holds, up to `bytes_max`.
    pub fn like(other: &Block, bytes_max: usize) -> Self {
        let roomy = |count: usize| count + count / 16;
        Block {
            partition: other.partition.clone(),
            labels: Vec::with_capacity(roomy(other.labels.len()).min(bytes_max)),
            values: Vec::with_capacity(roomy(other.values.len()).min(bytes_max)),
            rows: Vec::with_capacity(roomy(other.rows.len())),
        }
    }

    /// Appends a record; false (and nothing appended) when the block has no room for it.
    pub fn push(&mut self, record: Record<'_>) -> bool {
        let len = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        if self.bytes() + len(record.key) + len(record.value) + record.headers.len() >= ABSENT as usize {
            return false;
        }
        let marked = |part: Option<&[u8]>| part.map_or(ABSENT, |p| p.len() as u32);
        self.rows.push(Row {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            start: self.labels.len() as u32,
            value: self.values.len() as u32,
            key_len: marked(record.key),
            value_len: marked(record.value),
            headers_len: record.headers.len() as u32,
        });
        self.labels.extend_from_slice(record.key.unwrap_or_default());
        self.labels.extend_from_slice(record.headers);
        self.values.extend_from_slice(record.value.unwrap_or_default());
        true
    }

    /// The Kafka partition of these records.
    pub fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there is no record.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.labels.len() + self.values.len()
    }

    /// The bytes of all values, one after the other, as they lie in the block, those of cut records last: nothing is copied.
    pub fn values(self: &Arc<Self>) -> Bytes {
        Bytes::from_owner(Values(Arc::clone(self)))
    }

    /// How many bytes of [`Block::values`] each record's value takes; `None` where it has none.
    pub fn value_lens(&self) -> impl Iterator<Item = Option<usize>> {
        self.rows.iter().map(|row| (row.value_len != ABSENT).then_some(row.value_len as usize))
    }

    /// Record `row`; `None` past the end.
    pub fn get(&self, row: usize) -> Option<Record<'_>> {
        let r = self.rows.get(row)?;
        let key = part(&self.labels, r.start, r.key_len);
        let value = part(&self.values, r.value, r.value_len);
        let headers = part(&self.labels, r.start + key.map_or(0, |key| key.len() as u32), r.headers_len);
        Some(Record {
            offset: r.offset,
            timestamp_ms: r.timestamp_ms,
            key,
            value,
            headers: headers.unwrap_or_default(),
        })
    }

    /// The last record; `None` when there is none.
    pub fn last(&self) -> Option<Record<'_>> {
        self.get(self.rows.len().checked_sub(1)?)
    }

    /// All records in offset order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.rows.len()).filter_map(|row| self.get(row))
    }

    /// Drops the records at and past the offset `to`.
    pub fn cut(&mut self, to: i64) {
        self.rows.truncate(self.rows.partition_point(|row| row.offset < to));
    }

    /// First offset and the offset past the last one; `None` when empty.
    pub fn range(&self) -> Option<Range> {
        Some(Range { from: self.rows.first()?.offset, to: self.rows.last()?.offset + 1 })
    }
}

fn part(of: &[u8], start: u32, len: u32) -> Option<&[u8]> {
    if len == ABSENT { None } else { of.get(start as usize..start as usize + len as usize) }
}

#[cfg(test)]
mod tests;
