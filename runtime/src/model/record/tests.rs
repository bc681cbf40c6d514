//! Blocks of records.

use super::*;

fn partition() -> PartitionId {
    PartitionId { topic: "shop.orders".into(), partition: 3 }
}

fn record<'a>(offset: i64, key: Option<&'a str>, value: Option<&'a str>, headers: &'a str) -> Record<'a> {
    let bytes = |part: Option<&'a str>| part.map(str::as_bytes);
    Record { offset, timestamp_ms: offset * 10, key: bytes(key), value: bytes(value), headers: headers.as_bytes() }
}

/// Everything that may be absent or empty, with gaps between the offsets.
fn records() -> [Record<'static>; 5] {
    [
        record(4, Some("k"), Some("value"), "[]"),
        record(5, None, Some(""), ""),
        record(9, Some(""), None, "[[\"a\",\"b\"]]"),
        record(10, None, None, "[[\"c\",null]]"),
        record(12, Some("key"), Some("last"), ""),
    ]
}

fn block() -> Block {
    let mut block = Block::new(partition());
    assert!(records().into_iter().all(|record| block.push(record)));
    block
}

fn told(record: Record<'_>) -> String {
    format!("{record:?}")
}

#[test]
fn a_record_is_got_from_its_block_as_it_was_pushed_whatever_it_lacks() {
    let block = block();
    assert_eq!(block.iter().map(told).collect::<Vec<_>>(), records().map(told));
    assert_eq!((block.len(), block.range()), (5, Some(Range { from: 4, to: 13 })));
    assert_eq!(block.last().map(told), Some(told(records()[4])));
    assert!(block.get(5).is_none());
    let bytes = |r: &Record<'_>| r.key.map_or(0, <[u8]>::len) + r.value.map_or(0, <[u8]>::len) + r.headers.len();
    assert_eq!(block.bytes(), records().iter().map(bytes).sum::<usize>());
}

#[test]
fn a_block_of_nothing_has_nothing() {
    let block = Block::new(partition());
    assert!(block.is_empty() && block.last().is_none() && block.range().is_none() && block.get(0).is_none());
    assert_eq!((block.bytes(), block.partition()), (0, &partition()));
}

#[test]
fn the_values_of_a_block_are_told_without_a_copy_and_with_what_is_absent() {
    let block = Arc::new(block());
    assert_eq!(block.values(), "valuelast");
    assert_eq!(block.values().as_ptr(), block.values.as_ptr());
    assert_eq!(block.value_lens().collect::<Vec<_>>(), [Some(5), Some(0), None, None, Some(4)]);
}

#[test]
fn a_cut_takes_the_records_at_and_past_its_offset_and_leaves_the_values_where_they_are() {
    for (to, left) in [(13, 5), (12, 4), (11, 4), (10, 3), (6, 2), (4, 0), (0, 0)] {
        let mut block = block();
        block.cut(to);
        assert_eq!(
            block.iter().map(told).collect::<Vec<_>>(),
            records()[..left].iter().map(|r| told(*r)).collect::<Vec<_>>()
        );
        assert_eq!(block.last().map(|record| record.offset), left.checked_sub(1).map(|last| records()[last].offset));
        assert_eq!(Arc::new(block).values(), "valuelast", "those of cut records are last");
    }
}

#[test]
fn a_block_like_another_is_empty_and_of_the_same_partition() {
    let like = Block::like(&block(), 4);
    assert!(like.is_empty() && like.bytes() == 0);
    assert_eq!(like.partition(), &partition());
    assert!(like.values.capacity() < block().values.len(), "no more than the bytes that are allowed");
}
