//! Ranges against the sets of offsets that they stand for.

use std::collections::BTreeSet;

use super::*;

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
