//! Where a change stands in the source's own order.
//!
//! A sequence is one unsigned number of 122 bits, written to Delta as `decimal(38,0)` in `_seq`, so that every
//! reader can sort by it. From the highest bit:
//!
//! | bits | part | meaning |
//! |---|---|---|
//! | 16 | epoch | ordinal of the run of comparable positions, per table |
//! | 32 | file | numeric suffix of the binlog file |
//! | 48 | pos | byte position in the file |
//! | 24 | row | row within the event |
//! | 2 | rank | 0: the delete of a key change, 1: everything else, 2: a snapshot read that came later than the change at this place |

/// Where a change stands in the source's order; larger is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sequence(pub u128);

const RANK_BITS: u32 = 2;
const ROW_BITS: u32 = 24;
const POS_BITS: u32 = 48;
const FILE_BITS: u32 = 32;

impl Sequence {
    /// Older than every change.
    pub const MIN: Sequence = Sequence(0);

    /// `None` where a part does not fit its bits.
    pub fn new(epoch: u16, file: u64, pos: u64, row: u64, rank: u8) -> Option<Self> {
        if file >> FILE_BITS != 0 || pos >> POS_BITS != 0 || row >> ROW_BITS != 0 || rank >> RANK_BITS != 0 {
            return None;
        }
        let mut n = u128::from(epoch);
        n = n << FILE_BITS | u128::from(file);
        n = n << POS_BITS | u128::from(pos);
        n = n << ROW_BITS | u128::from(row);
        n = n << RANK_BITS | u128::from(rank);
        Some(Sequence(n))
    }

    /// The run of comparable positions this belongs to.
    pub fn epoch(self) -> u16 {
        (self.0 >> (RANK_BITS + ROW_BITS + POS_BITS + FILE_BITS)) as u16
    }

    /// Number of the binlog file.
    pub fn file(self) -> u64 {
        (self.0 >> (RANK_BITS + ROW_BITS + POS_BITS)) as u64 & ((1 << FILE_BITS) - 1)
    }

    /// Byte position in the binlog file.
    pub fn pos(self) -> u64 {
        (self.0 >> (RANK_BITS + ROW_BITS)) as u64 & ((1 << POS_BITS) - 1)
    }

    /// Row within the binlog event.
    pub fn row(self) -> u64 {
        (self.0 >> RANK_BITS) as u64 & ((1 << ROW_BITS) - 1)
    }

    /// The same place in another epoch.
    #[must_use]
    pub fn in_epoch(self, epoch: u16) -> Self {
        let low = RANK_BITS + ROW_BITS + POS_BITS + FILE_BITS;
        Sequence(self.0 & ((1 << low) - 1) | u128::from(epoch) << low)
    }
}
