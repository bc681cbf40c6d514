//! Tables whose source has no primary key: a multiset by hash of the row image.
//!
//! Receives the same changes as a keyed table. Promises that an insert adds one row and a delete takes one away that is
//! older than itself, whatever order they arrive in: the rows of an image are what its changes, put in the order of
//! their sequences from the floor on, leave. A delete before which there is no insert leaves nothing and waits for one.
//! Streamed changes are told apart by sequence and op, and one that was applied is passed over; snapshot rows, which
//! share a sequence, by their place in Kafka, so each one at an offset the table does not have yet counts. Never fans
//! out.
//!
//! Which delete took which row is never asked, since equal rows are interchangeable: the changes that were applied are
//! remembered (`applied` entries of [`super::rowless_owners`]) and the rows of a touched image are counted anew, at a floor
//! (a TRUNCATE) those of every image. Changes older than [`crate::lake::Settings::owners_window`] are forgotten; a row
//! whose change is forgotten is taken to be older than all that is remembered, and stays at a floor not newer than it.

use hashbrown::{HashMap, HashSet};

use super::index::Place;
use super::key::{Hasher, Owner};
use super::rowless_owners::RowlessOwner;
use super::select::{At, Chosen, Gone, fresh};
use crate::error::{Error, ErrorKind, Result};
use crate::model::change::{Changes, Op};
use crate::model::positions::{Origin, Positions};
use crate::model::sequence::Sequence;

/// Where a change stands, and whether it adds a row: at one sequence the delete comes first.
type Step = (Sequence, bool);

/// What a batch does to a multiset.
#[derive(Debug, Default)]
pub(in crate::lake) struct Effect {
    pub(in crate::lake) removed: Vec<(Owner, Place)>,
    pub(in crate::lake) added: Vec<(Owner, Place, Sequence)>,
}

/// Places of equal rows, and the changes that led to them.
#[derive(Debug, Default)]
pub(in crate::lake) struct Multiset {
    rows: HashMap<Owner, Vec<(Place, Sequence)>>,
    steps: HashMap<Owner, Vec<Step>>,
    /// streamed changes applied: sequence and op
    applied: HashSet<(u128, char)>,
    /// snapshot rows applied, by number of the Kafka partition and offset
    reads: HashMap<(i32, i64), Sequence>,
}

impl Multiset {
    /// A row found in a file.
    pub(in crate::lake) fn add(&mut self, owner: Owner, seq: Sequence, place: Place) {
        self.rows.entry(owner).or_default().push((place, seq));
    }

    /// Different row images known.
    pub(in crate::lake) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes held, about.
    pub(in crate::lake) fn bytes(&self) -> usize {
        self.rows.allocation_size()
            + self.rows.values().map(|v| v.capacity() * size_of::<(Place, Sequence)>()).sum::<usize>()
            + self.steps.allocation_size()
            + self.steps.values().map(|v| v.capacity() * size_of::<Step>()).sum::<usize>()
            + self.applied.allocation_size()
            + self.reads.allocation_size()
    }

    /// A change that a committed batch applied; once noted, it makes no difference again.
    pub(in crate::lake) fn note(&mut self, owner: Owner, seq: Sequence, op: char, place: (i32, i64)) {
        let is_new = if op == letter(Op::Read) {
            self.reads.insert(place, seq).is_none()
        } else {
            self.applied.insert((seq.0, op))
        };
        if is_new {
            self.steps.entry(owner).or_default().push((seq, op != letter(Op::Delete)));
        }
    }

    /// The same of an entry.
    pub(in crate::lake) fn note_entry(&mut self, entry: &RowlessOwner) {
        self.note(entry.owner, entry.seq, entry.op, place(&entry.origin));
    }

    /// Forgets the applied changes that are not among these.
    pub(in crate::lake) fn keep_applied<'a>(&mut self, entries: impl Iterator<Item = &'a RowlessOwner>) {
        (self.steps, self.applied, self.reads) = Default::default();
        entries.for_each(|entry| self.note_entry(entry));
    }

    /// Which rows of a batch add a row and which take one away. The floor in force is `raised` where the batch itself
    /// brings it.
    pub(in crate::lake) fn choose(
        &self,
        changes: &[Changes],
        positions: &Positions,
        floor: Sequence,
        raised: bool,
        hasher: Hasher,
    ) -> Result<Chosen> {
        if changes.iter().any(|change| change.records.is_none()) {
            return Err(Error::new(ErrorKind::Internal, "a table without a key takes rows of an input only"));
        }
        let mut seen: HashSet<(u128, char)> = HashSet::new();
        let mut by_owner: HashMap<Owner, Vec<(Step, At)>> = HashMap::new();
        let mut chosen = Chosen::default();
        fresh(
            changes,
            positions,
            floor,
            |change| hasher.batch_images(&change.rows),
            |at, owner, op, seq| {
                if op != Op::Read {
                    let id = (seq.0, letter(op));
                    if self.applied.contains(&id) || !seen.insert(id) {
                        return;
                    }
                }
                chosen.applied.push((owner, at));
                by_owner.entry(owner).or_default().push(((seq, op != Op::Delete), at));
            },
        )?;
        for (owner, mut steps) in by_owner {
            // the newest changes decide, so that rows carry the newest sequences
            steps.sort_unstable_by_key(|(step, at)| std::cmp::Reverse((*step, *at)));
            let held = self.held(owner, raised.then_some(floor)).len();
            let left = self.left(owner, raised.then_some(floor), steps.iter().map(|(step, _)| *step));
            let of = |adds: bool| {
                let count = if adds { left.saturating_sub(held) } else { held.saturating_sub(left) };
                let some = steps.iter().filter(move |((_, kind), _)| *kind == adds).take(count);
                some.map(move |(_, at)| (owner, *at))
            };
            chosen.upserts.extend(of(true));
            chosen.gone.extend(of(false));
        }
        chosen.upserts.sort_unstable_by_key(|(_, at)| *at);
        chosen.gone.sort_unstable_by_key(|(_, at)| *at);
        Ok(chosen)
    }

    /// How many rows of the image the changes leave, those applied and `more`; from `floor` on, where one is raised.
    fn left(&self, owner: Owner, floor: Option<Sequence>, more: impl Iterator<Item = Step>) -> usize {
        let from = floor.unwrap_or(Sequence::MIN);
        let applied = self.steps.get(&owner).map(Vec::as_slice).unwrap_or_default();
        let mut steps: Vec<Step> = applied.iter().filter(|(seq, _)| *seq >= from).copied().collect();
        steps.sort_unstable();
        let rows = self.rows.get(&owner).map(Vec::as_slice).unwrap_or_default();
        let forgotten = match floor {
            // what the changes do not explain was there before them
            None => match rows.len().checked_sub(walk(0, &steps)) {
                None | Some(0) => 0,
                Some(_) => usize::try_from(rows.len() as i64 - sum(&steps)).unwrap_or(0),
            },
            Some(floor) => {
                let is_known = |seq: Sequence| steps.binary_search(&(seq, true)).is_ok();
                rows.iter().filter(|(_, seq)| *seq >= floor && !is_known(*seq)).count()
            }
        };
        steps.extend(more);
        steps.sort_unstable();
        walk(forgotten, &steps)
    }

    /// The rows of the image, of those that a raised floor leaves the newest, newest first.
    fn held(&self, owner: Owner, floor: Option<Sequence>) -> Vec<(Place, Sequence)> {
        let mut rows = self.rows.get(&owner).cloned().unwrap_or_default();
        rows.sort_unstable_by_key(|(place, seq)| std::cmp::Reverse((*seq, *place)));
        if floor.is_some() {
            rows.truncate(self.left(owner, floor, std::iter::empty()));
        }
        rows
    }

    /// Calls `with` for every row that a raised floor takes away. Looks at every image.
    pub(in crate::lake) fn voided(&self, floor: Sequence, mut with: impl FnMut(Place)) {
        for (owner, rows) in &self.rows {
            let held = self.held(*owner, Some(floor));
            let gone = rows.iter().filter(|row| !held.contains(row));
            gone.for_each(|(place, _)| with(*place));
        }
    }

    /// Finds a row for each of `gone` to take away, the oldest of those that a raised floor leaves.
    pub(in crate::lake) fn take(
        &self,
        gone: impl Iterator<Item = Owner>,
        floor: Option<Sequence>,
        effect: &mut Effect,
    ) {
        let mut held: HashMap<Owner, Vec<(Place, Sequence)>> = HashMap::new();
        for owner in gone {
            let rows = held.entry(owner).or_insert_with(|| self.held(owner, floor));
            effect.removed.extend(rows.pop().map(|(place, _)| (owner, place)));
        }
    }

    /// Applies what a commit did.
    pub(in crate::lake) fn apply(&mut self, effect: Effect, floor: Option<Sequence>) {
        if let Some(floor) = floor {
            self.raise(floor);
        }
        for (owner, place) in effect.removed {
            if let Some(rows) = self.rows.get_mut(&owner) {
                rows.retain(|(at, _)| *at != place);
                if rows.is_empty() {
                    self.rows.remove(&owner);
                }
            }
        }
        for (owner, place, seq) in effect.added {
            self.add(owner, seq, place);
        }
    }

    fn raise(&mut self, floor: Sequence) {
        let held = self.rows.keys().map(|owner| (*owner, self.held(*owner, Some(floor))));
        self.rows = held.filter(|(_, rows)| !rows.is_empty()).collect();
        self.forget_older(floor);
    }

    /// Forgets the applied changes that `floor` voids.
    pub(in crate::lake) fn forget_older(&mut self, floor: Sequence) {
        self.steps.retain(|_, steps| {
            steps.retain(|(seq, _)| *seq >= floor);
            !steps.is_empty()
        });
        self.applied.retain(|(seq, _)| *seq >= floor.0);
        self.reads.retain(|_, seq| *seq >= floor);
    }

    /// Notes a change as applied.
    pub(in crate::lake) fn applied(&mut self, op: Op, of: &Gone) {
        self.note(of.owner, of.seq, letter(op), of.origin.as_ref().map_or((0, 0), place));
    }

    /// Makes `to` the place of the row that was at `from`, if it still was; its image may have become another.
    pub(in crate::lake) fn relocate(&mut self, owner: Owner, becomes: Owner, from: Place, to: Place) {
        let Some(rows) = self.rows.get_mut(&owner) else { return };
        let Some(at) = rows.iter().position(|(place, _)| *place == from) else { return };
        let (_, seq) = rows.swap_remove(at);
        if rows.is_empty() {
            self.rows.remove(&owner);
        }
        self.add(becomes, seq, to);
    }

    /// Moves or (by `None`) takes away rows.
    pub(in crate::lake) fn map_places(&mut self, mut to: impl FnMut(Place) -> Option<Place>) {
        self.rows.retain(|_, rows| {
            rows.retain_mut(|(place, _)| match to(*place) {
                Some(moved) => {
                    *place = moved;
                    true
                }
                None => false,
            });
            !rows.is_empty()
        });
    }
}

/// Where a snapshot row stands in Kafka.
pub(in crate::lake) fn place(origin: &Origin) -> (i32, i64) {
    (origin.input.partition().map_or(0, |id| id.partition), origin.offset)
}

/// Rows after `steps`, which are in order, from `rows` on; there are never fewer than none.
fn walk(rows: usize, steps: &[Step]) -> usize {
    steps.iter().fold(rows, |rows, (_, adds)| if *adds { rows + 1 } else { rows.saturating_sub(1) })
}

/// Inserts less deletes.
fn sum(steps: &[Step]) -> i64 {
    steps.iter().map(|(_, adds)| if *adds { 1 } else { -1 }).sum()
}

/// Debezium's letter of an op.
pub(in crate::lake) fn letter(op: Op) -> char {
    op.letter().chars().next().unwrap_or(' ')
}
