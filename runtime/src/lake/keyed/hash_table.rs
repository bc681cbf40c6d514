//! A compact hash table of owners: sorted linear probing in shards.
//!
//! Receives entries whose owners are already hashes. Promises look-ups that end at the first larger owner, so that a
//! fill of 85 % stays cheap, and growth by a quarter, one shard at a time, by one pass over it: a doubling of a large
//! index would stop the stream and hold half its memory empty. Entries are only ever taken away all at once.
//!
//! Within a shard entries are sorted by owner; each stands at or after its home slot, with no empty slot between.

use super::key::Owner;

/// Shards, by the owner's highest bits.
const SHARD_BITS: u32 = 6;
/// Slots past the last home slot, for what is pushed there.
const SLACK: usize = 64;
const HOME_MIN: usize = 16;

/// An owner's state. 40 bytes: halves instead of u128 for the alignment.
#[derive(Debug, Clone, Copy)]
pub(in crate::lake) struct Entry {
    owner: [u64; 2],
    seq: [u64; 2],
    pub(in crate::lake) file: u32,
    pub(in crate::lake) row: u32,
}

/// In `file`: the slot is empty.
pub(in crate::lake) const EMPTY: u32 = u32::MAX;
const VOID: Entry = Entry { owner: [0; 2], seq: [0; 2], file: EMPTY, row: 0 };

fn halves(n: u128) -> [u64; 2] {
    [(n >> 64) as u64, n as u64]
}

fn whole(h: [u64; 2]) -> u128 {
    u128::from(h[0]) << 64 | u128::from(h[1])
}

impl Entry {
    pub(in crate::lake) fn new(owner: Owner, seq: u128, file: u32, row: u32) -> Self {
        Entry { owner: halves(owner), seq: halves(seq), file, row }
    }

    pub(in crate::lake) fn owner(&self) -> Owner {
        whole(self.owner)
    }

    pub(in crate::lake) fn seq(&self) -> u128 {
        whole(self.seq)
    }

    pub(in crate::lake) fn set_seq(&mut self, seq: u128) {
        self.seq = halves(seq);
    }
}

#[derive(Debug, Default)]
struct Shard {
    slots: Vec<Entry>,
    home: usize,
    len: usize,
}

impl Shard {
    fn with_home(home: usize) -> Self {
        Shard { slots: vec![VOID; home + SLACK], home, len: 0 }
    }

    fn home_of(&self, owner: [u64; 2]) -> usize {
        ((u128::from(owner[0] << SHARD_BITS) * self.home as u128) >> 64) as usize
    }

    /// Where the owner is (true) or belongs (false).
    fn position(&self, owner: [u64; 2]) -> (usize, bool) {
        let mut at = self.home_of(owner);
        while let Some(entry) = self.slots.get(at) {
            if entry.file == EMPTY || entry.owner > owner {
                return (at, false);
            }
            if entry.owner == owner {
                return (at, true);
            }
            at += 1;
        }
        (at, false)
    }

    /// Puts a new entry at slot `at`, moving those from there on by one; false when there is no room.
    fn insert_at(&mut self, at: usize, entry: Entry) -> bool {
        let run = self.slots.get(at..).and_then(|rest| rest.iter().position(|e| e.file == EMPTY));
        let Some(run) = run else { return false };
        self.slots.copy_within(at..at + run, at + 1);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = entry;
        }
        self.len += 1;
        true
    }

    fn is_full(&self) -> bool {
        // 85 of 100
        self.len * 20 >= self.home * 17
    }

    /// The same entries, those that `keep` names, over `home` slots or more.
    fn rebuild(&mut self, mut home: usize, mut keep: impl FnMut(&Entry) -> bool) {
        let old = std::mem::take(&mut self.slots);
        let kept: Vec<&Entry> = old.iter().filter(|e| e.file != EMPTY && keep(e)).collect();
        loop {
            *self = Shard::with_home(home);
            let mut next = 0;
            let fits = kept.iter().all(|entry| {
                let at = self.home_of(entry.owner).max(next);
                next = at + 1;
                match self.slots.get_mut(at) {
                    Some(slot) => {
                        *slot = **entry;
                        true
                    }
                    None => false,
                }
            });
            if fits {
                self.len = kept.len();
                return;
            }
            home += home / 8 + SLACK;
        }
    }
}

/// All entries.
#[derive(Debug)]
pub(in crate::lake) struct Slots {
    shards: Vec<Shard>,
}

impl Default for Slots {
    fn default() -> Self {
        let shards = (0..1usize << SHARD_BITS).map(|_| Shard::with_home(HOME_MIN)).collect();
        Slots { shards }
    }
}

impl Slots {
    fn shard_of(owner: [u64; 2]) -> usize {
        (owner[0] >> (64 - SHARD_BITS)) as usize
    }

    /// Room for `more` entries.
    pub(in crate::lake) fn reserve(&mut self, more: usize) {
        for shard in &mut self.shards {
            // a little over the share of a shard, since hashes are spread by chance
            let share = shard.len + more / (1 << SHARD_BITS) * 51 / 50;
            let home = share * 5 / 4;
            if home > shard.home {
                shard.rebuild(home, |_| true);
            }
        }
    }

    pub(in crate::lake) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len).sum()
    }

    pub(in crate::lake) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.slots.capacity() * size_of::<Entry>()).sum()
    }

    pub(in crate::lake) fn get(&self, owner: Owner) -> Option<&Entry> {
        let key = halves(owner);
        let shard = self.shards.get(Self::shard_of(key))?;
        match shard.position(key) {
            (at, true) => shard.slots.get(at),
            _ => None,
        }
    }

    pub(in crate::lake) fn get_mut(&mut self, owner: Owner) -> Option<&mut Entry> {
        let key = halves(owner);
        let shard = self.shards.get_mut(Self::shard_of(key))?;
        match shard.position(key) {
            (at, true) => shard.slots.get_mut(at),
            _ => None,
        }
    }

    /// The owner's entry, or `new` put in its place.
    pub(in crate::lake) fn entry(&mut self, new: Entry) -> Slot<'_> {
        let number = Self::shard_of(new.owner);
        let Some(shard) = self.shards.get_mut(number) else { return Slot::New };
        loop {
            let (at, found) = shard.position(new.owner);
            if found {
                return shard.slots.get_mut(at).map_or(Slot::New, Slot::Known);
            }
            if !shard.is_full() && shard.insert_at(at, new) {
                return Slot::New;
            }
            shard.rebuild(shard.home + shard.home / 4, |_| true);
        }
    }

    pub(in crate::lake) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(|shard| shard.slots.iter().filter(|e| e.file != EMPTY))
    }

    pub(in crate::lake) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.shards.iter_mut().flat_map(|shard| shard.slots.iter_mut().filter(|e| e.file != EMPTY))
    }

    /// Keeps the entries that `keep` names.
    pub(in crate::lake) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        for shard in &mut self.shards {
            let staying = shard.slots.iter().filter(|e| e.file != EMPTY && keep(e)).count();
            if staying < shard.len {
                shard.rebuild((staying * 4 / 3).max(HOME_MIN), &mut keep);
            }
        }
    }
}

/// What [`Slots::entry`] found.
pub(in crate::lake) enum Slot<'a> {
    /// nothing: the new entry is there now
    New,
    /// this
    Known(&'a mut Entry),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn slots_equal_a_map() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        // owners are hashes: spread over all numbers, evenly or not quite
        for spread in [0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835u128, u128::MAX / 30_000] {
            let mut slots = Slots::default();
            let mut map = BTreeMap::new();
            for n in 0..60_000u32 {
                let owner = rng.random_range(0..30_000u128).wrapping_mul(spread);
                if let Slot::Known(entry) = slots.entry(Entry::new(owner, 1, n, 0)) {
                    entry.file = n;
                }
                map.insert(owner, n);
                if n % 20_000 == 10_000 {
                    slots.retain(|e| e.file % 3 != 0);
                    map.retain(|_, n| *n % 3 != 0);
                }
            }
            assert_eq!(slots.len(), map.len());
            assert!(slots.iter().map(|e| (e.owner(), e.file)).eq(map.iter().map(|(o, n)| (*o, *n))));
            for owner in (0..30_000u128).map(|n| n.wrapping_mul(spread)) {
                assert_eq!(slots.get(owner).map(|e| e.file), map.get(&owner).copied());
            }
        }
    }

    #[test]
    fn a_key_costs_about_60_bytes_at_most() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut slots = Slots::default();
        for n in 1..=400_000u32 {
            slots.entry(Entry::new(rng.random(), 1, n, 0));
            if n >= 50_000 && n % 10_000 == 0 {
                let bytes = slots.bytes() as f64 / f64::from(n);
                assert!(bytes <= 62.0, "{bytes} bytes at {n}");
            }
        }
    }
}
