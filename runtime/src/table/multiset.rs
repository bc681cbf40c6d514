//! Tables whose source has no primary key: a multiset by hash of the row image.
//!
//! Receives the same changes as a keyed table. Promises that an insert adds one row and a delete takes one away,
//! whatever order they arrive in: of an image there are as many rows as inserts less deletes, of those not older than
//! the floor. A delete that finds no row is a *debt*: the next insert of that image settles it. An insert that the
//! transform left out or rejected is *hollow*: the next delete of that image takes it. Streamed changes are told apart
//! by sequence and op, and one that was applied is passed over; snapshot rows, which share a sequence, by their place
//! in Kafka, so each one at an offset the table does not have yet counts. Never fans out.
//!
//! Equal rows are interchangeable, so a delete may have taken a row that a floor (a TRUNCATE), arriving later, voids,
//! where its own row is yet to come. Which delete took which row is therefore never asked: at a floor the rows of an
//! image are counted anew from the changes that were applied. They are remembered for
//! [`super::Settings::owners_window`]; a row whose change is forgotten stays when it is not older than the floor.
//!
//! # Format
//!
//! Debts and hollow inserts are counts, so an entry of a commit that never happened would do harm. They stand in
//! `_lode/g<generation>/ledger-<n>.parquet` (columns as in [`super::owners`]), whole each time they change, and the commit
//! names its file by the `txn` with application id `lode/g<generation>/ledger` and version `n`. `n` grows and ends in
//! 20 random bits, so that two attempts never share a file.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use object_store::ObjectStore;
use object_store::path::Path;

use super::index::Place;
use super::key::{Hasher, Owner};
use super::owners::{self, Entry, Kind};
use super::select::{Chosen, Gone, Origin, fresh};
use crate::change::{Changes, Op};
use crate::error::Result;
use crate::record::Positions;
use crate::sequence::Sequence;

/// Application id of the ledger's number.
pub(super) fn ledger_id(generation: u64) -> String {
    format!("lode/g{generation}/ledger")
}

/// Path of ledger number `n`.
pub(super) fn ledger_path(generation: u64, n: i64) -> Path {
    Path::from(format!("_lode/g{generation}/ledger-{n}.parquet"))
}

/// A number above `last` that no other attempt has.
pub(super) fn next_ledger(last: i64) -> i64 {
    let random = (uuid::Uuid::new_v4().as_u128() & 0xf_ffff) as i64;
    ((last >> 20) + 1) << 20 | random
}

/// Inserts without a row (above zero) or deletes without an insert (below), and a sequence not above their newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Balance {
    count: i64,
    seq: Sequence,
}

/// What a batch does to a multiset.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) removed: Vec<(Owner, Place)>,
    pub(super) added: Vec<(Owner, Place, Sequence)>,
    pub(super) balance: Vec<(Owner, i64, Sequence)>,
}

/// Places of equal rows, debts and hollow inserts, and the changes that led to them.
#[derive(Debug, Default)]
pub(super) struct Multiset {
    rows: HashMap<Owner, Vec<(Place, Sequence)>>,
    balances: HashMap<Owner, Balance>,
    /// streamed changes applied, and their images
    applied: HashMap<(u128, char), Owner>,
    /// snapshot rows applied, by Kafka partition and offset
    reads: HashMap<(i32, i64), (Owner, Sequence)>,
    pub(super) ledger: i64,
}

impl Multiset {
    /// A row found in a file.
    pub(super) fn add(&mut self, owner: Owner, seq: Sequence, place: Place) {
        self.rows.entry(owner).or_default().push((place, seq));
    }

    /// Different row images known.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes held, about.
    pub(super) fn bytes(&self) -> usize {
        self.rows.allocation_size()
            + self.rows.values().map(|v| v.capacity() * size_of::<(Place, Sequence)>()).sum::<usize>()
            + self.balances.allocation_size()
            + self.applied.allocation_size()
            + self.reads.allocation_size()
    }

    /// A change that a committed batch applied.
    pub(super) fn note_applied(&mut self, entry: &Entry) {
        if entry.op == letter(Op::Read) {
            self.reads.insert((entry.origin.partition, entry.origin.offset), (entry.owner, entry.seq));
        } else {
            self.applied.insert((entry.seq.0, entry.op), entry.owner);
        }
    }

    /// Forgets the applied changes that are not among these.
    pub(super) fn keep_applied<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        (self.applied, self.reads) = Default::default();
        entries.for_each(|entry| self.note_applied(entry));
    }

    /// Reads the ledger that the newest commit names.
    pub(super) async fn load_ledger(&mut self, store: &Arc<dyn ObjectStore>, generation: u64, n: i64) -> Result<()> {
        let mut balances = HashMap::new();
        owners::read(store, &ledger_path(generation, n), |entry| {
            let count = match entry.kind {
                Kind::Debt => -entry.count,
                Kind::Hollow => entry.count,
                _ => return,
            };
            balances.insert(entry.owner, Balance { count, seq: entry.seq });
        })
        .await?;
        self.balances = balances;
        self.ledger = n;
        Ok(())
    }

    /// Which rows of a batch add a row and which take one away, after equal ones have met each other and debts. The
    /// floor in force is `raised` where the batch itself brings it.
    pub(super) fn choose(
        &self,
        changes: &[Changes],
        positions: &Positions,
        floor: Sequence,
        raised: bool,
        hasher: Hasher,
    ) -> Result<Chosen> {
        let after = raised.then(|| self.raised(floor));
        let balances = after.as_ref().map_or(&self.balances, |after| &after.balances);
        let mut seen: HashSet<(u128, char)> = HashSet::new();
        let mut by_owner: HashMap<Owner, (Vec<_>, Vec<_>)> = HashMap::new();
        let mut chosen = Chosen::default();
        fresh(
            changes,
            positions,
            floor,
            |change| hasher.batch_images(&change.rows),
            |at, owner, op, seq| {
                if op != Op::Read {
                    let id = (seq.0, letter(op));
                    if self.applied.contains_key(&id) || !seen.insert(id) {
                        return;
                    }
                }
                chosen.applied.push((owner, at));
                let (creates, deletes) = by_owner.entry(owner).or_default();
                if op == Op::Delete { deletes.push(at) } else { creates.push(at) }
            },
        )?;
        for (owner, (mut creates, mut deletes)) in by_owner {
            let debts = balances.get(&owner).map_or(0, |b| (-b.count).max(0));
            let settled = creates.len().min(usize::try_from(debts).unwrap_or(0));
            creates.drain(..settled);
            if settled > 0 {
                chosen.settled.push((owner, settled as i64));
            }
            let met = creates.len().min(deletes.len());
            creates.drain(..met);
            deletes.drain(..met);
            chosen.upserts.extend(creates.into_iter().map(|at| (owner, at)));
            chosen.gone.extend(deletes.into_iter().map(|at| (owner, at)));
        }
        chosen.upserts.sort_unstable_by_key(|(_, at)| *at);
        chosen.gone.sort_unstable_by_key(|(_, at)| *at);
        Ok(chosen)
    }

    /// Rows, debts and hollow inserts as they are once `floor` is in force: of each image as many rows as the changes
    /// not older than it leave, the newest.
    pub(super) fn raised(&self, floor: Sequence) -> Multiset {
        let mut left: HashMap<Owner, i64> = HashMap::new();
        for ((_, op), owner) in self.applied.iter().filter(|((seq, _), _)| *seq >= floor.0) {
            *left.entry(*owner).or_default() += if *op == letter(Op::Delete) { -1 } else { 1 };
        }
        let mut reads: HashSet<(Owner, Sequence)> = HashSet::new();
        for (owner, seq) in self.reads.values().filter(|(_, seq)| *seq >= floor) {
            *left.entry(*owner).or_default() += 1;
            reads.insert((*owner, *seq));
        }
        let mut after = Multiset { ledger: self.ledger, ..Multiset::default() };
        for (owner, rows) in &self.rows {
            let is_known = |seq: &Sequence| {
                reads.contains(&(*owner, *seq))
                    || [Op::Create, Op::Update].iter().any(|op| self.applied.contains_key(&(seq.0, letter(*op))))
            };
            let forgotten = rows.iter().filter(|(_, seq)| *seq >= floor && !is_known(seq)).count() as i64;
            let Some(count) = left.get(owner).map(|n| n + forgotten).or((forgotten > 0).then_some(forgotten)) else {
                continue;
            };
            let mut kept = rows.clone();
            kept.sort_unstable_by_key(|(place, seq)| (std::cmp::Reverse(*seq), *place));
            kept.truncate(usize::try_from(count).unwrap_or(0));
            left.insert(*owner, count - kept.len() as i64);
            if !kept.is_empty() {
                after.rows.insert(*owner, kept);
            }
        }
        let balances = left.into_iter().filter(|(_, count)| *count != 0);
        after.balances = balances.map(|(owner, count)| (owner, Balance { count, seq: floor })).collect();
        after
    }

    /// Calls `with` for every row that `after` does not have.
    pub(super) fn lost(&self, after: &Multiset, mut with: impl FnMut(Place)) {
        for (owner, rows) in &self.rows {
            let kept = after.rows.get(owner);
            let stays = |place: &Place| kept.is_some_and(|kept| kept.iter().any(|(at, _)| at == place));
            rows.iter().map(|(place, _)| place).filter(|place| !stays(place)).for_each(|place| with(*place));
        }
    }

    /// Finds rows for `gone` to take away; what finds none is a debt.
    pub(super) fn take(&self, gone: impl Iterator<Item = (Owner, Sequence)>, effect: &mut Effect) {
        let mut taken: HashMap<Owner, usize> = HashMap::new();
        for (owner, seq) in gone {
            let used = taken.entry(owner).or_default();
            match self.rows.get(&owner).and_then(|rows| rows.get(*used)) {
                Some((place, _)) => {
                    *used += 1;
                    effect.removed.push((owner, *place));
                }
                // takes a hollow insert where there is one, else becomes a debt
                None => effect.balance.push((owner, -1, seq)),
            }
        }
    }

    /// Applies what a commit did.
    pub(super) fn apply(&mut self, effect: Effect, floor: Option<Sequence>) {
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
        for (owner, by, seq) in effect.balance {
            change(&mut self.balances, owner, by, seq);
        }
    }

    fn raise(&mut self, floor: Sequence) {
        let after = self.raised(floor);
        (self.rows, self.balances) = (after.rows, after.balances);
        self.applied.retain(|(seq, _), _| *seq >= floor.0);
        self.reads.retain(|_, (_, seq)| *seq >= floor);
    }

    /// The whole ledger after `effect`, `from` the state that it was made for; `None` when nothing in it changes.
    pub(super) fn ledger_after(&self, from: &Multiset, effect: &Effect, origin: &Origin) -> Option<Vec<Entry>> {
        let mut after = from.balances.clone();
        for (owner, by, seq) in &effect.balance {
            change(&mut after, *owner, *by, *seq);
        }
        if after == self.balances {
            return None;
        }
        Some(
            after
                .into_iter()
                .map(|(owner, b)| {
                    let kind = if b.count < 0 { Kind::Debt } else { Kind::Hollow };
                    let mut entry = Entry::new(kind, owner, b.seq, origin.clone());
                    entry.count = b.count.abs();
                    entry
                })
                .collect(),
        )
    }

    /// Notes a change as applied.
    pub(super) fn applied(&mut self, op: Op, of: &Gone) {
        if op == Op::Read {
            self.reads.insert((of.origin.partition, of.origin.offset), (of.owner, of.seq));
        } else {
            self.applied.insert((of.seq.0, letter(op)), of.owner);
        }
    }

    /// Makes `to` the place of the row that was at `from`, if it still was; its image may have become another.
    pub(super) fn relocate(&mut self, owner: Owner, becomes: Owner, from: Place, to: Place) {
        let Some(rows) = self.rows.get_mut(&owner) else { return };
        let Some(at) = rows.iter().position(|(place, _)| *place == from) else { return };
        let (_, seq) = rows.swap_remove(at);
        if rows.is_empty() {
            self.rows.remove(&owner);
        }
        self.add(becomes, seq, to);
    }

    /// Moves or (by `None`) takes away rows.
    pub(super) fn map_places(&mut self, mut to: impl FnMut(Place) -> Option<Place>) {
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

fn change(balances: &mut HashMap<Owner, Balance>, owner: Owner, by: i64, seq: Sequence) {
    let balance = balances.entry(owner).or_insert(Balance { count: 0, seq });
    balance.count += by;
    balance.seq = balance.seq.max(seq);
    if balance.count == 0 {
        balances.remove(&owner);
    }
}

/// Debezium's letter of an op.
pub(super) fn letter(op: Op) -> char {
    op.letter().chars().next().unwrap_or(' ')
}
