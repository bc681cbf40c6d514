//! Inputs of a table, and how far it has taken them in.
//!
//! An input is anything whose content is counted: a Kafka partition by its offsets, a table by its Delta versions. This
//! is the one place that compares a half-open range of an input with a position, and that writes an input as the `txn`
//! application id of a commit and reads it back. It allocates nothing a row, and knows nothing of logs or stores.

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::ops::Deref;
use std::sync::Arc;

/// One Kafka partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// the topic's name
    pub topic: Arc<str>,
    /// the partition's number
    pub partition: i32,
}

/// An offset a Kafka partition: where its reading begins, or where it ends.
pub type Offsets = BTreeMap<PartitionId, i64>;

/// What a table takes in, counted by offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InputId {
    /// records of a Kafka partition
    Kafka(PartitionId),
    /// another table of the lake; its Delta version is the last offset it has
    Table {
        /// id in the table's metadata
        id: Arc<str>,
        /// which rebuild of the table
        generation: u64,
    },
}

/// No Kafka topic can have a colon in its name.
const TABLE: &str = "table:";

impl InputId {
    /// The Kafka partition; `None` of a table.
    pub fn partition(&self) -> Option<&PartitionId> {
        match self {
            InputId::Kafka(partition) => Some(partition),
            InputId::Table { .. } => None,
        }
    }

    /// Its name and number where those of a Kafka partition have a column each; a table has the number -1.
    pub fn columns(&self) -> (Cow<'_, str>, i32) {
        match self {
            InputId::Kafka(PartitionId { topic, partition }) => (Cow::Borrowed(topic), *partition),
            InputId::Table { id, generation } => (Cow::Owned(format!("{TABLE}{id}/g{generation}")), -1),
        }
    }

    /// The input that [`Self::columns`] tells so; `None` where it tells none.
    pub fn of_columns(name: &Arc<str>, number: i32) -> Option<Self> {
        if number < 0 {
            return Self::of_table(name);
        }
        Some(InputId::Kafka(PartitionId { topic: Arc::clone(name), partition: number }))
    }

    fn of_table(name: &str) -> Option<Self> {
        let (id, generation) = name.strip_prefix(TABLE)?.rsplit_once("/g")?;
        Some(InputId::Table { id: id.into(), generation: generation.parse().ok()? })
    }

    /// The `txn` application id of this input in a table of `generation`.
    pub fn app_id(&self, generation: u64) -> String {
        match self.columns() {
            (topic, partition @ 0..) => format!("lode/g{generation}/{topic}/{partition}"),
            (table, _) => format!("lode/g{generation}/{table}"),
        }
    }

    /// The input that an application id names in a table of `generation`; `None` where it names none.
    pub fn of_app_id(generation: u64, app_id: &str) -> Option<Self> {
        let (of, input) = Self::read_app_id(app_id)?;
        (of == generation.to_string()).then_some(input)
    }

    /// The generation and the input that an application id names; `None` where it names none.
    pub fn read_app_id(app_id: &str) -> Option<(&str, Self)> {
        let (generation, name) = app_id.strip_prefix("lode/g")?.split_once('/')?;
        if name.starts_with(TABLE) {
            return Some((generation, Self::of_table(name)?));
        }
        let (topic, partition) = name.rsplit_once('/')?;
        let partition = PartitionId { topic: topic.into(), partition: partition.parse().ok()? };
        Some((generation, partition.into()))
    }
}

impl From<PartitionId> for InputId {
    fn from(partition: PartitionId) -> Self {
        InputId::Kafka(partition)
    }
}

impl From<&PartitionId> for InputId {
    fn from(partition: &PartitionId) -> Self {
        InputId::Kafka(partition.clone())
    }
}

impl From<&InputId> for InputId {
    fn from(input: &InputId) -> Self {
        input.clone()
    }
}

/// One place in an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// the input
    pub input: InputId,
    /// offset in it
    pub offset: i64,
}

/// Next offset to take in of each input (exclusive ends).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(BTreeMap<InputId, i64>);

impl Positions {
    /// No input has a position.
    pub const fn new() -> Self {
        Positions(BTreeMap::new())
    }

    /// Next offset of `input`; `None` where nothing was taken in.
    pub fn get(&self, input: impl Into<InputId>) -> Option<i64> {
        self.0.get(&input.into()).copied()
    }

    /// Makes `next` the next offset of `input`.
    pub fn insert(&mut self, input: impl Into<InputId>, next: i64) {
        self.0.insert(input.into(), next);
    }

    /// True when what stands at `origin` was taken in.
    pub fn hold(&self, origin: &Origin) -> bool {
        self.0.get(&origin.input).is_some_and(|next| origin.offset < *next)
    }

    /// The positions after `ranges` were taken in.
    pub fn advance(&mut self, ranges: &Ranges) {
        self.0.extend(ranges.iter().map(|(input, range)| (input.clone(), range.to)));
    }

    /// The Kafka partitions among the inputs.
    pub fn partitions(&self) -> impl Iterator<Item = (&PartitionId, i64)> {
        self.0.iter().filter_map(|(input, next)| Some((input.partition()?, *next)))
    }

    /// From where the Kafka partitions among the inputs are read on.
    pub fn offsets(&self) -> Offsets {
        self.partitions().map(|(id, next)| (id.clone(), next)).collect()
    }
}

impl Deref for Positions {
    type Target = BTreeMap<InputId, i64>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<I: Into<InputId>> FromIterator<(I, i64)> for Positions {
    fn from_iter<T: IntoIterator<Item = (I, i64)>>(all: T) -> Self {
        Positions(all.into_iter().map(|(input, next)| (input.into(), next)).collect())
    }
}

impl<I: Into<InputId>> Extend<(I, i64)> for Positions {
    fn extend<T: IntoIterator<Item = (I, i64)>>(&mut self, all: T) {
        self.0.extend(all.into_iter().map(|(input, next)| (input.into(), next)));
    }
}

impl<I: Into<InputId>, const N: usize> From<[(I, i64); N]> for Positions {
    fn from(all: [(I, i64); N]) -> Self {
        all.into_iter().collect()
    }
}

/// Half-open range of offsets of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// first offset in the range
    pub from: i64,
    /// first offset past it
    pub to: i64,
}

impl Range {
    /// True when it has no offset.
    pub fn is_empty(self) -> bool {
        self.from >= self.to
    }

    /// True when `offset` is in it.
    pub fn contains(self, offset: i64) -> bool {
        (self.from..self.to).contains(&offset)
    }
}

/// How positions compare with the ranges of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// every input stands where its range begins, or nowhere
    Ready,
    /// every input stands at the end of its range or past it
    Past,
    /// anything else
    Elsewhere,
}

/// The ranges that a commit covers, one an input, none of them empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<InputId, Range>);

impl Ranges {
    /// Covers nothing.
    pub fn new() -> Self {
        Ranges::default()
    }

    /// Covers `range` of `input` too, which must follow on what is covered of it.
    pub fn add(&mut self, input: impl Into<InputId>, range: Range) {
        if range.is_empty() {
            return;
        }
        match self.0.entry(input.into()) {
            btree_map::Entry::Occupied(mut known) => known.get_mut().to = range.to,
            btree_map::Entry::Vacant(free) => {
                free.insert(range);
            }
        }
    }

    /// What is covered of `input`.
    pub fn get(&self, input: impl Into<InputId>) -> Option<Range> {
        self.0.get(&input.into()).copied()
    }

    /// How `positions` compare with the ranges. An input without a position stands where its range begins.
    pub fn standing(&self, positions: &Positions) -> Standing {
        let mut stands = self.0.iter().map(|(input, range)| (positions.0.get(input).copied(), range));
        if stands.clone().all(|(at, range)| at.is_none_or(|at| at == range.from)) {
            Standing::Ready
        } else if stands.all(|(at, range)| at.is_some_and(|at| at >= range.to)) {
            Standing::Past
        } else {
            Standing::Elsewhere
        }
    }

    /// What of the ranges a table at `positions` still lacks, empty where it has all. `None` where it stands before a
    /// range's start: what is between is not ours to give.
    pub fn still_missing(&self, positions: &Positions) -> Option<Ranges> {
        let mut missing = Ranges::new();
        for (input, range) in &self.0 {
            let from = positions.0.get(input).copied().unwrap_or(range.from);
            if from < range.from {
                return None;
            }
            missing.add(input, Range { from, to: range.to });
        }
        Some(missing)
    }

    /// True when `all` covers everything that these cover.
    pub fn are_within(&self, all: &Ranges) -> bool {
        self.0.iter().all(|(input, range)| {
            all.0.get(input).is_some_and(|whole| whole.from <= range.from && range.to <= whole.to)
        })
    }
}

impl Deref for Ranges {
    type Target = BTreeMap<InputId, Range>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<I: Into<InputId>> FromIterator<(I, Range)> for Ranges {
    fn from_iter<T: IntoIterator<Item = (I, Range)>>(all: T) -> Self {
        let mut ranges = Ranges::new();
        all.into_iter().for_each(|(input, range)| ranges.add(input, range));
        ranges
    }
}

impl<I: Into<InputId>, const N: usize> From<[(I, Range); N]> for Ranges {
    fn from(all: [(I, Range); N]) -> Self {
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod sets;

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(partition: i32) -> InputId {
        PartitionId { topic: "shop.orders".into(), partition }.into()
    }

    fn table() -> InputId {
        InputId::Table { id: "3f0e".into(), generation: 2 }
    }

    fn range(from: i64, to: i64) -> Range {
        Range { from, to }
    }

    #[test]
    fn an_input_is_read_back_from_its_application_id() {
        let all = [
            (kafka(3), 0, "lode/g0/shop.orders/3"),
            (kafka(0), 12, "lode/g12/shop.orders/0"),
            (table(), 1, "lode/g1/table:3f0e/g2"),
        ];
        for (input, generation, text) in all {
            assert_eq!(input.app_id(generation), text);
            assert_eq!(InputId::of_app_id(generation, text).as_ref(), Some(&input), "{text}");
            let (name, number) = input.columns();
            assert_eq!(InputId::of_columns(&name.as_ref().into(), number), Some(input.clone()), "{name} {number}");
            assert_eq!(InputId::of_app_id(generation + 1, text), None, "of another generation: {text}");
        }
    }

    #[test]
    fn no_other_application_id_names_an_input() {
        let others = [
            "lode/feed/3f0e/g0",
            "lode/g0/shop.orders",
            "lode/g0/shop.orders/x",
            "lode/g0/table:3f0e",
            "lode/g0/table:3f0e/0",
            "lode/g00/shop.orders/0",
            "spark/g0/shop.orders/0",
            "",
        ];
        for text in others {
            assert_eq!(InputId::of_app_id(0, text), None, "{text}");
        }
    }

    #[test]
    fn a_range_stands_to_a_position_as_the_table_says() {
        use Standing::{Elsewhere, Past, Ready};
        // against the range 5..9: the position, how it stands, from where the range is still missing
        let cases = [
            (None, Ready, Some(Some(5))),
            (Some(4), Elsewhere, None),
            (Some(5), Ready, Some(Some(5))),
            (Some(6), Elsewhere, Some(Some(6))),
            (Some(8), Elsewhere, Some(Some(8))),
            (Some(9), Past, Some(None)),
            (Some(10), Past, Some(None)),
        ];
        for input in [kafka(0), table()] {
            let ranges = Ranges::from([(&input, range(5, 9))]);
            for (at, standing, missing) in cases {
                let positions: Positions = at.map(|at| (&input, at)).into_iter().collect();
                assert_eq!(ranges.standing(&positions), standing, "at {at:?}");
                let left =
                    missing.map(|from| from.map(|from| (&input, range(from, 9))).into_iter().collect::<Ranges>());
                assert_eq!(ranges.still_missing(&positions), left, "at {at:?}");
            }
        }
    }

    #[test]
    fn several_ranges_stand_together_as_their_least_favourable_one() {
        use Standing::{Elsewhere, Past, Ready};
        let ranges = Ranges::from([(kafka(0), range(5, 9)), (table(), range(1, 3))]);
        let cases = [
            (None, None, Ready, Some(vec![(kafka(0), range(5, 9)), (table(), range(1, 3))])),
            (Some(5), None, Ready, Some(vec![(kafka(0), range(5, 9)), (table(), range(1, 3))])),
            (Some(9), Some(3), Past, Some(vec![])),
            (Some(9), None, Elsewhere, Some(vec![(table(), range(1, 3))])),
            (Some(9), Some(1), Elsewhere, Some(vec![(table(), range(1, 3))])),
            (Some(7), Some(4), Elsewhere, Some(vec![(kafka(0), range(7, 9))])),
            (Some(4), Some(4), Elsewhere, None),
        ];
        for (first, second, standing, missing) in cases {
            let mut positions = Positions::new();
            positions.extend(first.map(|at| (kafka(0), at)));
            positions.extend(second.map(|at| (table(), at)));
            assert_eq!(ranges.standing(&positions), standing, "{first:?} {second:?}");
            assert_eq!(ranges.still_missing(&positions), missing.map(Ranges::from_iter), "{first:?} {second:?}");
        }
        assert_eq!(Ranges::new().standing(&Positions::from([(kafka(0), 5)])), Ready, "nothing to commit");
    }

    #[test]
    fn positions_move_to_the_ends_of_what_was_taken_in() {
        let mut ranges = Ranges::new();
        ranges.add(kafka(0), range(5, 9));
        ranges.add(kafka(0), range(9, 12));
        ranges.add(table(), range(0, 1));
        ranges.add(kafka(1), range(7, 7));
        assert_eq!(ranges, Ranges::from([(kafka(0), range(5, 12)), (table(), range(0, 1))]));
        let mut positions = Positions::from([(kafka(0), 5), (kafka(2), 1)]);
        positions.advance(&ranges);
        assert_eq!(positions, Positions::from([(kafka(0), 12), (kafka(2), 1), (table(), 1)]));
        let held = |input, offset| positions.hold(&Origin { input, offset });
        assert!(held(kafka(0), 11) && held(table(), 0));
        assert!(!held(kafka(0), 12) && !held(table(), 1) && !held(kafka(9), 0));
        assert!(Ranges::from([(kafka(0), range(6, 12))]).are_within(&ranges));
        assert!(!Ranges::from([(kafka(0), range(4, 12))]).are_within(&ranges));
        assert!(!Ranges::from([(kafka(1), range(7, 8))]).are_within(&ranges));
    }
}
