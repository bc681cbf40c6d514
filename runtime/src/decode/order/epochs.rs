//! Which runs of comparable binlog positions a table's records belong to.
//!
//! Receives the source position of every record of a table, partition by partition. Promises sequences that grow with
//! the source's own order, across a new server, a new binlog and a new snapshot. Changes nothing until a place is
//! accepted, and never guesses across a jump that nothing explains. Its state is one short string, kept in the table.

use crate::decode::dialect::mysql::binlog::{Binlog, SourceEvent, is_ahead};
use crate::decode::format::json::source_block::Snapshot;
use crate::model::sequence::Sequence;

/// A jump back with a source time this much newer is not a late delivery, in milliseconds.
pub(crate) const LATE_MAX_MS: i64 = 60_000;
/// Rank of a snapshot read that comes after streamed changes: newer than the newest of them, older than the next.
const RANK_READ_LATER: u8 = 2;
const RANK: u8 = 1;
/// Most snapshot runs remembered.
const RUNS_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) partition: i32,
    pub(crate) newest: Sequence,
    pub(crate) ts_ms: i64,
    pub(crate) last: Binlog,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) base: String,
    pub(crate) file: u64,
    pub(crate) pos: u64,
    pub(crate) sequence: Sequence,
    /// its position is behind changes that came before it
    pub(crate) behind: bool,
    /// rows older than it are to go when it ends
    pub(crate) floor_due: bool,
}

/// The epochs of one table. Its text form ([`ToString`], [`FromStr`](std::str::FromStr)) belongs to the commit that
/// holds the rows decoded so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Epochs {
    /// one an ordinal
    pub(crate) binlogs: Vec<Binlog>,
    pub(crate) partitions: Vec<Reach>,
    /// snapshot runs, newest last
    pub(crate) runs: Vec<Run>,
}

/// Where a record stands, to be accepted once the record is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: Sequence,
    /// everything older than this is void once the record is accepted
    pub(crate) floor: Option<Sequence>,
    ordinal: u16,
    advances: bool,
    /// a snapshot run that begins with the record
    run: Option<Run>,
    /// index of the run whose floor this is
    ends_run: Option<usize>,
}

/// Why a record has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// a part of the position does not fit a sequence
    TooLarge,
    /// the order jumps back and nothing explains it
    Jump,
}

impl Epochs {
    /// Nothing has been read yet.
    pub fn new() -> Self {
        Epochs::default()
    }

    fn reach(&self, partition: i32) -> Option<&Reach> {
        self.partitions.iter().find(|r| r.partition == partition)
    }

    /// Where a record of `partition` stands.
    #[inline]
    pub(crate) fn place(&self, partition: i32, event: &SourceEvent<'_>) -> Result<Place, Lost> {
        let rank = if event.key_change { 0 } else { RANK };
        let at = |ordinal| event.sequence(ordinal, rank).ok_or(Lost::TooLarge);
        let reach = self.reach(partition);
        if let (Some(reach), Snapshot::No) = (reach, event.snapshot)
            && !self.runs.last().is_some_and(|run| run.floor_due)
            && reach.last.holds(event)
        {
            let sequence = at(reach.newest.epoch())?;
            if is_ahead(sequence, reach.newest) {
                return Ok(Place {
                    sequence,
                    floor: None,
                    ordinal: sequence.epoch(),
                    advances: true,
                    run: None,
                    ends_run: None,
                });
            }
        }
        match event.snapshot {
            Snapshot::No => self.place_streamed(reach, event, at),
            Snapshot::Incremental => self.place_incremental(reach, event, at),
            Snapshot::Read | Snapshot::Last => self.place_read(reach, event, at),
        }
    }

    fn ordinal_of(&self, reach: Option<&Reach>, event: &SourceEvent<'_>) -> Result<(u16, EpochOrder), Lost> {
        let count = u16::try_from(self.binlogs.len()).map_err(|_| Lost::TooLarge)?;
        let having = |from: usize, to: usize| {
            (from..to).filter(|n| self.binlogs.get(*n).is_some_and(|b| b.may_hold(event))).map(|n| n as u16)
        };
        let all = self.binlogs.len();
        let Some(reach) = reach else {
            return Ok((having(0, all).next().unwrap_or(count), EpochOrder::Ahead));
        };
        let current = reach.newest.epoch();
        let here = Sequence::new(current, event.file, event.pos, 0, 0).ok_or(Lost::TooLarge)?;
        let above = || having(usize::from(current) + 1, all).next();
        let earlier = || having(0, usize::from(current) + 1).next_back();
        let same = reach.last.may_hold(event);
        if is_ahead(here, reach.newest) {
            if same {
                return Ok((current, EpochOrder::Ahead));
            }
            // another partition may have seen the new server first, as a jump
            return Ok(match (above(), earlier()) {
                (Some(above), _) => (above, EpochOrder::Ahead),
                (None, Some(earlier)) if event.ts_ms < reach.ts_ms => (earlier, EpochOrder::Late),
                _ => (current, EpochOrder::Ahead),
            });
        }
        if !same && event.ts_ms >= reach.ts_ms {
            return Ok((above().unwrap_or(count), EpochOrder::Ahead));
        }
        if same && event.ts_ms > reach.ts_ms.saturating_add(LATE_MAX_MS) {
            return Ok((current, EpochOrder::Jump));
        }
        Ok((earlier().unwrap_or(current), EpochOrder::Late))
    }

    fn place_streamed(
        &self,
        reach: Option<&Reach>,
        event: &SourceEvent<'_>,
        at: impl Fn(u16) -> Result<Sequence, Lost>,
    ) -> Result<Place, Lost> {
        let (ordinal, order) = self.ordinal_of(reach, event)?;
        if order == EpochOrder::Jump {
            return Err(Lost::Jump);
        }
        let sequence = at(ordinal)?;
        let due = self.runs.iter().enumerate().rev().find(|(_, run)| run.floor_due && sequence > run.sequence);
        Ok(Place {
            sequence,
            floor: due.map(|(_, run)| run.sequence),
            ordinal,
            advances: order == EpochOrder::Ahead,
            run: None,
            ends_run: due.map(|(at, _)| at),
        })
    }

    fn place_incremental(
        &self,
        reach: Option<&Reach>,
        event: &SourceEvent<'_>,
        at: impl Fn(u16) -> Result<Sequence, Lost>,
    ) -> Result<Place, Lost> {
        let (ordinal, order) = self.ordinal_of(reach, event)?;
        let own = if order == EpochOrder::Ahead { at(ordinal)? } else { Sequence::MIN };
        let newest = reach.map_or(own, |r| r.newest.max(own));
        Ok(Place {
            sequence: read_after(newest),
            floor: None,
            ordinal: newest.epoch(),
            advances: false,
            run: None,
            ends_run: None,
        })
    }

    fn place_read(
        &self,
        reach: Option<&Reach>,
        event: &SourceEvent<'_>,
        at: impl Fn(u16) -> Result<Sequence, Lost>,
    ) -> Result<Place, Lost> {
        let same = |r: &Run| r.base == event.base && r.file == event.file && r.pos == event.pos;
        let known = self.runs.iter().rposition(same);
        let (sequence, run) = match known.and_then(|at| self.runs.get(at)) {
            Some(run) => {
                let newest = reach.map_or(Sequence::MIN, |r| r.newest);
                let passed = run.behind && newest > run.sequence;
                (if passed { read_after(newest) } else { run.sequence }, None)
            }
            None => {
                let (ordinal, order) = self.ordinal_of(reach, event)?;
                let own = at(ordinal)?;
                // another partition may be far ahead: only its own past tells a late first reading from a new one
                let behind = order != EpochOrder::Ahead || reach.is_some_and(|r| r.newest >= own);
                let newest = self.partitions.iter().map(|r| r.newest).max();
                let sequence = match newest {
                    Some(newest) if behind => read_after(newest),
                    _ => own,
                };
                let run = Run {
                    base: event.base.to_owned(),
                    file: event.file,
                    pos: event.pos,
                    sequence,
                    behind,
                    floor_due: self.partitions.iter().any(|r| r.newest < sequence),
                };
                (sequence, Some(run))
            }
        };
        let (at, current) = match (&run, known) {
            (Some(run), _) => (self.runs.len().min(RUNS_MAX - 1), Some(run)),
            (None, Some(at)) => (at, self.runs.get(at)),
            (None, None) => (0, None),
        };
        let due = current.filter(|run| event.snapshot == Snapshot::Last && run.floor_due);
        Ok(Place {
            sequence,
            floor: due.map(|run| run.sequence),
            ordinal: sequence.epoch(),
            advances: true,
            ends_run: due.map(|_| at),
            run,
        })
    }

    /// The snapshot run that ends with the record of `place` and takes away what it did not read.
    #[inline]
    pub(crate) fn ended_run<'a>(&'a self, place: &'a Place) -> Option<&'a Run> {
        let at = place.ends_run?;
        place.run.as_ref().or_else(|| self.runs.get(at))
    }

    /// Where a statement stands that changed the table itself; `None` before any row has been placed, when nothing tells
    /// yet how the statement's server relates to the rows'.
    pub(crate) fn place_statement(&self, event: &SourceEvent<'_>) -> Result<Option<Place>, Lost> {
        // the newest row tells which servers have come; the schema-change topic may be ahead of it or behind
        let Some(newest) = self.partitions.iter().max_by_key(|r| r.newest) else { return Ok(None) };
        let (ordinal, order) = self.ordinal_of(Some(newest), event)?;
        if order == EpochOrder::Jump {
            return Err(Lost::Jump);
        }
        let sequence = Sequence::new(ordinal, event.file, event.pos, 0, RANK).ok_or(Lost::TooLarge)?;
        Ok(Some(Place { sequence, floor: Some(sequence), ordinal, advances: false, run: None, ends_run: None }))
    }

    /// The statement that has this place is followed.
    pub(crate) fn accept_statement(&mut self, event: &SourceEvent<'_>, place: &Place) {
        if usize::from(place.ordinal) >= self.binlogs.len() {
            self.binlogs.push(event.binlog());
        }
    }

    /// The record that has this place is decoded.
    #[inline]
    pub(crate) fn accept(&mut self, partition: i32, event: &SourceEvent<'_>, place: Place) {
        if usize::from(place.ordinal) >= self.binlogs.len() {
            self.binlogs.push(event.binlog());
        }
        if event.server != 0
            && let Some(binlog) = self.binlogs.get_mut(usize::from(place.ordinal))
            && binlog.server == 0
            && binlog.base == event.base
        {
            binlog.server = event.server;
        }
        if let Some(run) = place.run {
            if self.runs.len() == RUNS_MAX {
                self.runs.remove(0);
            }
            self.runs.push(run);
        }
        if let Some(run) = place.ends_run.and_then(|at| self.runs.get_mut(at)) {
            run.floor_due = false;
        }
        match self.partitions.iter_mut().find(|r| r.partition == partition) {
            Some(reach) => {
                reach.newest = reach.newest.max(place.sequence);
                reach.ts_ms = reach.ts_ms.max(event.ts_ms);
                if place.advances && !reach.last.holds(event) && event.server != 0 {
                    reach.last = event.binlog();
                }
            }
            None => self.partitions.push(Reach {
                partition,
                newest: place.sequence,
                ts_ms: event.ts_ms,
                last: event.binlog(),
            }),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EpochOrder {
    Ahead,
    Late,
    Jump,
}

fn read_after(newest: Sequence) -> Sequence {
    Sequence::new(newest.epoch(), newest.file(), newest.pos(), newest.row(), RANK_READ_LATER).unwrap_or(newest)
}
