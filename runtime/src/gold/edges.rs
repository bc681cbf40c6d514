//! Which rows lead to a row: for one foreign key, from each slot of the table that has it to a slot of the table it names,
//! and back.
//!
//! Receives links as rows come, change and go. Promises all slots that lead to one, in time that follows their number
//! alone, and twelve bytes a linking slot and four a slot that is led to. A slot may be led to that has no row: who waits
//! for it is found when it comes.

/// A row's place in the state of its table; stays with its key.
pub type Slot = u32;

const NONE: Slot = Slot::MAX;

/// The links of one foreign key.
#[derive(Debug, Default)]
pub struct Edges {
    /// of each linking slot
    links: Vec<Link>,
    /// of each slot that is led to, the first that leads to it
    first: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    to: Slot,
    before: Slot,
    after: Slot,
}

const UNLINKED: Link = Link { to: NONE, before: NONE, after: NONE };

impl Edges {
    /// `from` leads to `to` from now on, and to no other; `None`: nowhere.
    pub fn link(&mut self, from: Slot, to: Option<Slot>) {
        let to = to.unwrap_or(NONE);
        if self.links.len() <= from as usize {
            if to == NONE {
                return;
            }
            self.links.resize(from as usize + 1, UNLINKED);
        }
        let Link { to: was, before, after } = self.links.get(from as usize).copied().unwrap_or(UNLINKED);
        if was == to {
            return;
        }
        if was != NONE {
            match self.links.get_mut(before as usize) {
                Some(link) => link.after = after,
                None => self.set_first(was, after),
            }
            if let Some(link) = self.links.get_mut(after as usize) {
                link.before = before;
            }
        }
        let mut link = UNLINKED;
        if to != NONE {
            link = Link { to, before: NONE, after: self.first_of(to) };
            if let Some(next) = self.links.get_mut(link.after as usize) {
                next.before = from;
            }
            self.set_first(to, from);
        }
        if let Some(place) = self.links.get_mut(from as usize) {
            *place = link;
        }
    }

    /// Where `from` leads to.
    pub fn to(&self, from: Slot) -> Option<Slot> {
        self.links.get(from as usize).map(|link| link.to).filter(|to| *to != NONE)
    }

    /// The slots that lead to `to`, in no order.
    pub fn leading_to(&self, to: Slot) -> impl Iterator<Item = Slot> + '_ {
        let known = |slot: Slot| (slot != NONE).then_some(slot);
        std::iter::successors(known(self.first_of(to)), move |slot| {
            known(self.links.get(*slot as usize).map_or(NONE, |link| link.after))
        })
    }

    /// Bytes that knowing them takes.
    pub fn bytes(&self) -> usize {
        self.links.capacity() * size_of::<Link>() + self.first.capacity() * size_of::<Slot>()
    }

    fn first_of(&self, to: Slot) -> Slot {
        self.first.get(to as usize).copied().unwrap_or(NONE)
    }

    fn set_first(&mut self, to: Slot, slot: Slot) {
        if self.first.len() <= to as usize {
            self.first.resize(to as usize + 1, NONE);
        }
        if let Some(first) = self.first.get_mut(to as usize) {
            *first = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn links_are_those_of_a_plain_map() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut edges, mut model) = (Edges::default(), BTreeMap::<Slot, Slot>::new());
        for _ in 0..5000 {
            let from = rng.random_range(0..60);
            let to = rng.random_bool(0.8).then(|| rng.random_range(0..12));
            edges.link(from, to);
            match to {
                Some(to) => drop(model.insert(from, to)),
                None => drop(model.remove(&from)),
            }
            let asked = rng.random_range(0..14);
            let mut leading: Vec<Slot> = edges.leading_to(asked).collect();
            leading.sort_unstable();
            let wanted: Vec<Slot> = model.iter().filter(|(_, to)| **to == asked).map(|(from, _)| *from).collect();
            assert_eq!(leading, wanted, "seed {seed}");
            assert_eq!(edges.to(from), model.get(&from).copied(), "seed {seed}");
        }
    }

    #[test]
    fn who_waits_for_a_row_that_is_not_there_is_found() {
        let mut edges = Edges::default();
        edges.link(7, Some(900));
        edges.link(3, Some(900));
        assert_eq!(edges.leading_to(900).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(edges.leading_to(5).count() + edges.leading_to(5000).count(), 0);
        assert_eq!((edges.to(7), edges.to(8), edges.to(4000)), (Some(900), None, None));
    }
}
