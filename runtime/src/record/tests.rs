//! Blocks of records, and ranges against the sets of offsets that they stand for.

use std::collections::BTreeSet;

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

/// Offsets below this are looked at.
const END: i64 = 5;

fn range(from: i64, to: i64) -> Range {
    Range { from, to }
}

fn all_ranges() -> impl Iterator<Item = Range> + Clone {
    (0..END).flat_map(|from| (0..END).map(move |to| range(from, to)))
}

fn offsets(range: Range) -> BTreeSet<i64> {
    (0..END).filter(|offset| range.contains(*offset)).collect()
}

fn input(number: i32) -> InputId {
    PartitionId { topic: "shop.orders".into(), partition: number }.into()
}

#[test]
fn a_range_has_the_offsets_from_its_first_to_before_its_end() {
    for one in all_ranges() {
        assert_eq!(offsets(one), (one.from..one.to).collect(), "{one:?}");
        assert_eq!(one.is_empty(), offsets(one).is_empty(), "{one:?}");
    }
}

/// Positions of two inputs, each absent or anywhere.
fn all_positions() -> impl Iterator<Item = [Option<i64>; 2]> {
    let one = || (0..=END).map(Some).chain([None]);
    one().flat_map(move |first| one().map(move |second| [first, second]))
}

#[test]
fn ranges_stand_to_positions_as_their_offsets_do() {
    for (first, second) in all_ranges().flat_map(|first| all_ranges().map(move |second| (first, second))) {
        let ranges = Ranges::from([(input(0), first), (input(1), second)]);
        for at in all_positions() {
            let told = format!("{first:?} {second:?} at {at:?}");
            let positions: Positions = (0..).zip(at).filter_map(|(number, at)| Some((input(number), at?))).collect();
            // what has no offset asks for nothing
            let asked: Vec<(InputId, Range, Option<i64>)> = [(0, first, at[0]), (1, second, at[1])]
                .into_iter()
                .filter(|(_, range, _)| !offsets(*range).is_empty())
                .map(|(number, range, at)| (input(number), range, at))
                .collect();
            let held = |range: &Range, at: Option<i64>| -> BTreeSet<i64> {
                offsets(*range).into_iter().filter(|offset| at.is_some_and(|at| *offset < at)).collect()
            };
            let gap = asked.iter().any(|(_, range, at)| at.is_some_and(|at| at < range.from));
            let has_none = asked.iter().all(|(_, range, at)| held(range, *at).is_empty());
            let has_all = asked.iter().all(|(_, range, at)| held(range, *at) == offsets(*range));
            let standing = if has_none && !gap {
                Standing::Ready
            } else if has_all {
                Standing::Past
            } else {
                Standing::Elsewhere
            };
            assert_eq!(ranges.standing(&positions), standing, "{told}");
            let missing = ranges.still_missing(&positions);
            assert_eq!(missing.is_none(), gap, "{told}");
            let Some(missing) = missing else { continue };
            for (input, range, at) in &asked {
                let lacks = &offsets(*range) - &held(range, *at);
                assert_eq!(missing.get(input).map(offsets).unwrap_or_default(), lacks, "{told}");
            }
            assert_eq!(missing.is_empty(), has_all, "{told}: none of them is empty");
            assert!(missing.are_within(&ranges), "{told}");
            assert_ne!(missing.standing(&positions), Standing::Elsewhere, "{told}");
        }
    }
}

#[test]
fn ranges_are_within_others_when_each_of_their_offsets_is() {
    for (inner, outer) in all_ranges().flat_map(|inner| all_ranges().map(move |outer| (inner, outer))) {
        let (of_inner, of_outer) = (Ranges::from([(input(0), inner)]), Ranges::from([(input(0), outer)]));
        let is_within = offsets(inner).is_subset(&offsets(outer));
        assert_eq!(of_inner.are_within(&of_outer), is_within, "{inner:?} in {outer:?}");
        let elsewhere = Ranges::from([(input(1), outer)]);
        assert_eq!(of_inner.are_within(&elsewhere), offsets(inner).is_empty(), "{inner:?} of another input");
    }
}

#[test]
fn an_input_is_read_back_from_its_columns_or_not_at_all() {
    let table = InputId::Table { id: "3f0e/g1".into(), generation: 2 };
    let (name, number) = table.columns();
    assert_eq!((&*name, number), ("table:3f0e/g1/g2", -1));
    assert_eq!(InputId::of_columns(&name.into(), number), Some(table));
    for (name, number) in [("shop.orders", -1), ("table:3f0e", -1), ("table:3f0e/gx", -1), ("table:3f0e/g-1", -1)] {
        assert_eq!(InputId::of_columns(&name.into(), number), None, "{name} {number}");
    }
}

#[test]
fn a_table_is_no_kafka_partition_to_read_on_from() {
    let table = InputId::Table { id: "3f0e".into(), generation: 0 };
    let positions = Positions::from([(input(0), 7), (table, 9), (input(2), 0)]);
    let read: Vec<(i32, i64)> = positions.offsets().into_iter().map(|(id, next)| (id.partition, next)).collect();
    assert_eq!(read, [(0, 7), (2, 0)]);
}
