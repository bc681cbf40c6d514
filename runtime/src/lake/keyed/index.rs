//! Where every owner's rows are, and how new they are.
//!
//! Receives owners with places and sequences. Promises, for an owner, all places of its rows and the newest sequence
//! known, also of owners that have no row now. Kept in memory only: it is rebuilt from the tables at start. Never
//! looks at a file.
//!
//! An owner with one row costs 40 bytes in slots filled between 68 and 85 %: 47 to 59 bytes. Owners with several
//! rows (fan-out) have their places in a side table.

use hashbrown::HashMap;

use super::hash_table::{EMPTY, Entry, Slot, Slots};
use super::key::Owner;
use crate::lake::file::live_files::FILES_MAX;
use crate::model::sequence::Sequence;

/// One row of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::lake) struct Place {
    pub(in crate::lake) file: u32,
    pub(in crate::lake) row: u32,
}

const NOWHERE: u32 = EMPTY - 1;
const MANY: u32 = EMPTY - 2;
const _: () = assert!(FILES_MAX < MANY);

/// Owner → places and sequence.
#[derive(Debug, Default)]
pub(in crate::lake) struct Index {
    entries: Slots,
    many: HashMap<Owner, Vec<Place>>,
}

impl Index {
    /// Room for `owners` more without growing on the way.
    pub(in crate::lake) fn reserve(&mut self, owners: usize) {
        self.entries.reserve(owners);
    }

    /// Owners known, those without rows included.
    pub(in crate::lake) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes held, about.
    pub(in crate::lake) fn bytes(&self) -> usize {
        let places: usize = self.many.values().map(|v| v.capacity() * size_of::<Place>()).sum();
        self.entries.bytes() + self.many.allocation_size() + places
    }

    fn find(&self, owner: Owner) -> Option<&Entry> {
        self.entries.get(owner)
    }

    /// Newest sequence known of the owner.
    pub(in crate::lake) fn sequence(&self, owner: Owner) -> Option<Sequence> {
        self.find(owner).map(|e| Sequence(e.seq()))
    }

    /// Appends the places of the owner's rows.
    pub(in crate::lake) fn places(&self, owner: Owner, to: &mut Vec<Place>) {
        match self.find(owner) {
            None => {}
            Some(e) if e.file == NOWHERE => {}
            Some(e) if e.file == MANY => to.extend(self.many.get(&owner).into_iter().flatten()),
            Some(e) => to.push(Place { file: e.file, row: e.row }),
        }
    }

    /// True when the owner has a row.
    pub(in crate::lake) fn has_rows(&self, owner: Owner) -> bool {
        self.find(owner).is_some_and(|e| e.file != NOWHERE)
    }

    /// Makes `places` the owner's rows and `seq` its sequence.
    pub(in crate::lake) fn set(&mut self, owner: Owner, seq: Sequence, places: &[Place]) {
        let (file, row) = match places {
            [] => (NOWHERE, 0),
            [one] => (one.file, one.row),
            _ => (MANY, 0),
        };
        let entry = Entry::new(owner, seq.0, file, row);
        let mut was_many = false;
        if let Slot::Known(known) = self.entries.entry(entry) {
            was_many = known.file == MANY;
            *known = entry;
        }
        if file == MANY {
            self.many.insert(owner, places.to_vec());
        } else if was_many {
            self.many.remove(&owner);
        }
    }

    /// Another row of the owner, found in a file.
    pub(in crate::lake) fn add(&mut self, owner: Owner, seq: Sequence, place: Place) {
        let Slot::Known(entry) = self.entries.entry(Entry::new(owner, seq.0, place.file, place.row)) else { return };
        if seq.0 > entry.seq() {
            entry.set_seq(seq.0);
        }
        match entry.file {
            NOWHERE => (entry.file, entry.row) = (place.file, place.row),
            MANY => self.many.entry(owner).or_default().push(place),
            _ => {
                let first = Place { file: entry.file, row: entry.row };
                if first != place {
                    (entry.file, entry.row) = (MANY, 0);
                    self.many.insert(owner, vec![first, place]);
                }
            }
        }
    }

    /// As [`Self::add`] where all rows of an owner have one fingerprint; rows that do not are taken to have none.
    pub(in crate::lake) fn add_marked(&mut self, owner: Owner, mark: Sequence, place: Place) {
        if !self.has_rows(owner) {
            return self.set(owner, mark, &[place]);
        }
        let agree = self.sequence(owner) == Some(mark);
        self.add(owner, mark, place);
        if !agree && let Some(entry) = self.entries.get_mut(owner) {
            entry.set_seq(Sequence::MIN.0);
        }
    }

    /// Notes that the owner was at `seq`, without touching its rows.
    pub(in crate::lake) fn note(&mut self, owner: Owner, seq: Sequence) {
        if let Slot::Known(entry) = self.entries.entry(Entry::new(owner, seq.0, NOWHERE, 0))
            && seq.0 > entry.seq()
        {
            entry.set_seq(seq.0);
        }
    }

    /// Makes `to` the place of the owner's row that was at `from`, if it still was.
    pub(in crate::lake) fn relocate(&mut self, owner: Owner, from: Place, to: Place) {
        let Some(entry) = self.entries.get_mut(owner) else { return };
        if entry.file == MANY {
            let places = self.many.get_mut(&owner);
            if let Some(place) = places.and_then(|all| all.iter_mut().find(|place| **place == from)) {
                *place = to;
            }
        } else if entry.file == from.file && entry.row == from.row {
            (entry.file, entry.row) = (to.file, to.row);
        }
    }

    /// Moves or (by `None`) takes away places; tells `rowless` of owners that have none left. Looks at every owner.
    pub(in crate::lake) fn map_places(
        &mut self,
        mut to: impl FnMut(Place) -> Option<Place>,
        mut rowless: impl FnMut(Owner, Sequence),
    ) {
        let many = &mut self.many;
        for entry in self.entries.iter_mut() {
            let owner = entry.owner();
            let (file, row) = match entry.file {
                NOWHERE => continue,
                MANY => {
                    let Some(places) = many.get_mut(&owner) else { continue };
                    let moved: Vec<Place> = places.iter().filter_map(|place| to(*place)).collect();
                    let single = match moved.as_slice() {
                        [] => (NOWHERE, 0),
                        [one] => (one.file, one.row),
                        _ => {
                            *places = moved;
                            continue;
                        }
                    };
                    many.remove(&owner);
                    single
                }
                _ => to(Place { file: entry.file, row: entry.row }).map_or((NOWHERE, 0), |p| (p.file, p.row)),
            };
            (entry.file, entry.row) = (file, row);
            if file == NOWHERE {
                rowless(owner, Sequence(entry.seq()));
            }
        }
    }

    /// The newest sequence known of any owner. Looks at every owner.
    pub(in crate::lake) fn newest(&self) -> Sequence {
        Sequence(self.entries.iter().map(Entry::seq).max().unwrap_or(0))
    }

    /// Calls `with` for every owner that `seq` says is older, with its places; used by floors.
    pub(in crate::lake) fn older_than(&self, floor: Sequence, mut with: impl FnMut(Owner, &[Place])) {
        for entry in self.entries.iter() {
            if entry.seq() >= floor.0 {
                continue;
            }
            let owner = entry.owner();
            match entry.file {
                NOWHERE => with(owner, &[]),
                MANY => with(owner, self.many.get(&owner).map_or(&[], Vec::as_slice)),
                _ => with(owner, &[Place { file: entry.file, row: entry.row }]),
            }
        }
    }

    /// Forgets the owners older than `floor`, with their rows.
    pub(in crate::lake) fn drop_older(&mut self, floor: Sequence) {
        let many = &mut self.many;
        self.entries.retain(|e| {
            let stays = e.seq() >= floor.0;
            if !stays && e.file == MANY {
                many.remove(&e.owner());
            }
            stays
        });
    }

    /// Forgets the owners that `gone` names and that have no rows.
    pub(in crate::lake) fn forget_rowless(&mut self, mut gone: impl FnMut(Sequence) -> bool) {
        self.entries.retain(|e| e.file != NOWHERE || !gone(Sequence(e.seq())));
    }
}
