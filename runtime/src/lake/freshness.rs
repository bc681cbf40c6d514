//! Which rows take the place of those that an owner has.
//!
//! Receives what marks the new rows and what marked the old ones: a sequence, or a fingerprint of the rows themselves.
//! Both are unsigned numbers that a `decimal(38,0)` holds, so that one index keeps either. Looks at no row.

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::{FINGERPRINT, OWNER, SEQ, SOURCE_TS};
use crate::model::sequence::Sequence;

/// When rows take the place of those that their owner has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// when their change is newer in the source's own order, which `_seq` keeps
    #[default]
    Newer,
    /// when they are not the same, which `_fingerprint` tells: what is derived again and has not changed writes nothing
    Differs,
}

/// Configuration: absent of a table that takes what is newer.
pub(in crate::lake) const FRESHNESS: &str = "lode.freshness";
const DIFFERS: &str = "differs";

/// What marks an owner without rows, where rows are replaced when they differ.
pub(in crate::lake) const NO_ROWS: Sequence = Sequence::MIN;

impl Freshness {
    /// What a table's metadata says.
    ///
    /// # Errors
    /// `Config` for a word of a later program.
    pub(in crate::lake) fn of_metadata(metadata: &Value) -> Result<Self> {
        match metadata.get("configuration").and_then(|all| all.get(FRESHNESS)?.as_str()) {
            None => Ok(Freshness::Newer),
            Some(DIFFERS) => Ok(Freshness::Differs),
            Some(other) => Err(Error::new(ErrorKind::Config, format!("the table's `{FRESHNESS}` is `{other}`"))
                .hint("a later version of lode made the table: run that one")),
        }
    }

    /// The word for the table's configuration; `None` where it says nothing.
    pub(in crate::lake) fn word(self) -> Option<&'static str> {
        (self == Freshness::Differs).then_some(DIFFERS)
    }

    /// Names of the columns that a keyed table has of its own.
    pub(in crate::lake) fn own(self) -> &'static [&'static str] {
        match self {
            Freshness::Newer => &[SEQ, SOURCE_TS, OWNER],
            Freshness::Differs => &[FINGERPRINT],
        }
    }

    /// True when rows marked `mark` take the place of what their owner has, marked `known`; `None`: nothing is known.
    pub(in crate::lake) fn replaces(self, mark: Sequence, known: Option<Sequence>) -> bool {
        match self {
            Freshness::Newer => known.is_none_or(|known| mark > known),
            Freshness::Differs => mark != known.unwrap_or(NO_ROWS),
        }
    }
}

/// A number for the rows of each of `owners` owners, whatever their order; [`NO_ROWS`] where there are none. `images` has
/// the hash of each row, `sources` its owner.
pub(in crate::lake) fn fingerprints(images: &[u128], sources: &[u32], owners: usize) -> Vec<Sequence> {
    /// As many bits as fit 38 decimal digits.
    const BITS: u32 = 126;
    let mut marks = vec![NO_ROWS; owners];
    for (image, source) in images.iter().zip(sources) {
        if let Some(mark) = marks.get_mut(*source as usize) {
            let sum = mark.0.wrapping_add((image >> (128 - BITS)).max(1));
            *mark = Sequence(sum & ((1 << BITS) - 1));
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_rows_or_other_rows_take_the_place_of_what_is_there() {
        let (old, new) = (Sequence(5), Sequence(6));
        // new mark, known mark, by sequence, by fingerprint
        let cases = [
            (new, Some(old), true, true),
            (old, Some(old), false, false),
            (old, Some(new), false, true),
            (old, None, true, true),
            (NO_ROWS, None, true, false),
            (NO_ROWS, Some(old), false, true),
        ];
        for (mark, known, newer, differs) in cases {
            assert_eq!(Freshness::Newer.replaces(mark, known), newer, "{mark:?} {known:?}");
            assert_eq!(Freshness::Differs.replaces(mark, known), differs, "{mark:?} {known:?}");
        }
    }

    #[test]
    fn a_fingerprint_is_of_all_rows_of_an_owner_in_any_order() {
        let all = [u128::MAX, 1 << 80, 3 << 90];
        assert_eq!(fingerprints(&all, &[0, 0, 2], 3), fingerprints(&[1 << 80, 3 << 90, u128::MAX], &[0, 2, 0], 3));
        let [both, none, one] = fingerprints(&all, &[0, 0, 2], 3)[..] else { panic!() };
        assert_eq!(none, NO_ROWS);
        assert_ne!(both, fingerprints(&all, &[0], 1)[0]);
        assert_ne!(both, one);
        assert!([both, one].iter().all(|mark| *mark != NO_ROWS && mark.0 < 10u128.pow(38)));
        assert_ne!(fingerprints(&[0], &[0], 1)[0], NO_ROWS, "a row is never no row");
        assert_ne!(
            fingerprints(&[9 << 90, 9 << 90], &[0, 0], 1),
            fingerprints(&[9 << 90], &[0], 1),
            "twice is not once"
        );
    }
}
