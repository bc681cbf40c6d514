//! Sequences across servers, binlogs and snapshots, over a restart at every record.

use crate::decode::dialect::mysql::binlog::SourceEvent;
use crate::decode::format::json::source_block::Snapshot;
use crate::decode::order::epochs::{Epochs, LATE_MAX_MS, Lost};
use crate::model::sequence::Sequence;

struct Table(Epochs);

fn from(server: u64, file: u64, pos: u64, ts_ms: i64) -> SourceEvent<'static> {
    SourceEvent { base: "binlog", server, file, pos, row: 0, ts_ms, snapshot: Snapshot::No, key_change: false }
}

fn read(file: u64, pos: u64, ts_ms: i64) -> SourceEvent<'static> {
    SourceEvent { snapshot: Snapshot::Read, ..from(0, file, pos, ts_ms) }
}

fn last(file: u64, pos: u64, ts_ms: i64) -> SourceEvent<'static> {
    SourceEvent { snapshot: Snapshot::Last, ..from(0, file, pos, ts_ms) }
}

impl Table {
    fn new() -> Self {
        Table(Epochs::new())
    }

    /// Accepts a record, over a restart each time.
    fn see(&mut self, partition: i32, event: SourceEvent<'_>) -> (Sequence, Option<Sequence>) {
        self.0 = self.0.to_string().parse().unwrap();
        let place = self.0.place(partition, &event).unwrap();
        let seen = (place.sequence, place.floor);
        self.0.accept(partition, &event, place);
        seen
    }
}

#[test]
fn a_snapshot_and_its_stream_share_an_epoch() {
    let mut t = Table::new();
    let (a, _) = t.see(0, read(2, 100, 10));
    let (b, _) = t.see(0, from(101, 2, 200, 20));
    let (c, _) = t.see(0, from(101, 10, 4, 30));
    assert!(a < b && b < c);
    assert_eq!((a.epoch(), b.epoch(), c.epoch()), (0, 0, 0));
    // file numbers are compared, not their text
    assert_eq!(t.see(0, from(101, 2, 150, 15)).0.epoch(), 0);
}

#[test]
fn a_new_server_whose_positions_jump_back_opens_an_epoch() {
    let mut t = Table::new();
    t.see(0, from(101, 9, 500, 1000));
    t.see(1, from(101, 9, 400, 1000));
    let (a, _) = t.see(0, from(202, 3, 10, 2000));
    assert_eq!(a.epoch(), 1);
    assert_eq!(t.see(0, from(202, 3, 20, 2000)).0.epoch(), 1);
    // the other partition follows, even where its positions do not jump back
    assert_eq!(t.see(1, from(101, 9, 450, 1500)).0.epoch(), 0);
    assert_eq!(t.see(1, from(202, 9, 900, 2000)).0.epoch(), 1);
    // and a late record of the old server stays where it was
    assert_eq!(t.see(0, from(101, 9, 490, 900)).0.epoch(), 0);
    // back to the first server: an epoch of its own
    assert_eq!(t.see(0, from(101, 1, 10, 3000)).0.epoch(), 2);
}

#[test]
fn a_new_server_that_goes_on_keeps_the_epoch() {
    let mut t = Table::new();
    t.see(0, from(101, 9, 500, 1000));
    assert_eq!(t.see(0, from(202, 9, 600, 2000)).0.epoch(), 0);
    assert_eq!(t.see(0, from(202, 9, 550, 1900)).0.epoch(), 0);
}

#[test]
fn late_records_are_placed_and_jumps_are_not() {
    let mut t = Table::new();
    let (newest, _) = t.see(0, from(101, 9, 500, 1_000_000));
    let (late, _) = t.see(0, from(101, 9, 100, 1_000_000));
    assert!(late < newest);
    let again = from(101, 9, 100, 1_000_000 + LATE_MAX_MS + 1);
    assert_eq!(t.0.place(0, &again), Err(Lost::Jump));
    let huge = from(101, u64::MAX, 1, 0);
    assert_eq!(t.0.place(0, &huge), Err(Lost::TooLarge));
}

#[test]
fn a_full_snapshot_anew_ends_with_a_floor() {
    let mut t = Table::new();
    assert_eq!(t.see(0, read(2, 100, 1)).1, None);
    assert_eq!(t.see(0, last(2, 100, 1)).1, None);
    t.see(0, from(101, 2, 300, 2));
    let (a, none) = t.see(0, read(3, 50, 3));
    assert_eq!(none, None);
    let (b, floor) = t.see(0, last(3, 50, 3));
    assert_eq!(a, b);
    assert_eq!(floor, Some(a));
    assert_eq!(t.see(0, from(101, 3, 60, 4)).1, None);
    // without its last row, the stream that follows ends it
    let (c, _) = t.see(0, read(4, 50, 5));
    assert_eq!(t.see(0, from(101, 4, 60, 6)).1, Some(c));
    assert_eq!(t.see(0, from(101, 4, 70, 6)).1, None);
}

#[test]
fn partitions_may_read_one_snapshot_at_any_time() {
    let mut t = Table::new();
    let (streamed, _) = t.see(0, from(101, 2, 300, 2));
    let (late, floor) = t.see(1, read(2, 100, 1));
    assert!(late < streamed);
    assert_eq!(floor, None);
    assert_eq!(t.see(1, last(2, 100, 1)), (late, None));
    t.see(1, from(101, 2, 400, 3));
    // a second snapshot begins in one partition while another still reads the first
    let (second, _) = t.see(1, read(3, 10, 9));
    assert_eq!(t.see(2, read(2, 100, 1)).0, late);
    assert_eq!(t.see(1, last(3, 10, 9)), (second, Some(second)));
}

#[test]
fn a_snapshot_that_reads_behind_the_stream_wins_by_coming_later() {
    let mut t = Table::new();
    let (newest, _) = t.see(0, from(101, 5, 500, 100));
    let (read_late, _) = t.see(0, read(5, 100, 200));
    assert!(read_late > newest);
    assert_eq!(t.see(0, last(5, 100, 200)), (read_late, Some(read_late)));
    assert!(t.see(0, from(101, 5, 600, 300)).0 > read_late);
    let incremental = SourceEvent { snapshot: Snapshot::Incremental, ..from(101, 5, 550, 300) };
    let (beside, floor) = t.see(0, incremental);
    assert!(beside > t.0.partitions[0].newest.in_epoch(0) || beside == t.0.partitions[0].newest);
    assert_eq!(floor, None);
    assert!(t.see(0, from(101, 5, 601, 300)).0 > beside);
}

#[test]
fn the_delete_of_a_key_change_comes_first() {
    let t = Table::new();
    let create = from(101, 5, 500, 100);
    let delete = SourceEvent { key_change: true, ..create };
    assert!(t.0.place(0, &delete).unwrap().sequence < t.0.place(1, &create).unwrap().sequence);
}

#[test]
fn a_statement_stands_among_the_rows_whichever_came_first() {
    let mut t = Table::new();
    let at = |t: &Table, event: &SourceEvent<'_>| t.0.place_statement(event).unwrap().map(|p| p.sequence);
    assert_eq!(at(&t, &from(101, 2, 200, 20)), None);
    let (read, _) = t.see(0, read(2, 100, 10));
    let ahead = at(&t, &from(101, 2, 300, 30)).unwrap();
    let (older, _) = t.see(0, from(101, 2, 200, 20));
    let (newer, _) = t.see(1, from(101, 2, 400, 40));
    let behind = at(&t, &from(101, 2, 300, 30)).unwrap();
    assert_eq!(ahead, behind);
    assert!(read < older && older < behind && behind < newer);
    // a server that goes on where the last one was does not make the statement newer than every row
    let (go_on, _) = t.see(1, from(202, 2, 500, 50));
    assert!(at(&t, &from(202, 2, 450, 45)).unwrap() < go_on);
}

#[test]
fn a_statement_of_a_new_server_opens_its_epoch_for_the_rows() {
    let mut t = Table::new();
    t.see(0, from(101, 9, 500, 1000));
    let event = from(202, 3, 10, 2000);
    let place = t.0.place_statement(&event).unwrap().unwrap();
    assert_eq!(place.sequence.epoch(), 1);
    t.0.accept_statement(&event, &place);
    assert!(t.see(0, from(101, 9, 600, 1500)).0 < place.sequence);
    assert!(t.see(0, from(202, 3, 20, 2000)).0 > place.sequence);
    // and the other way round: one of the old server, told late
    assert_eq!(t.0.place_statement(&from(101, 9, 550, 1200)).unwrap().unwrap().sequence.epoch(), 0);
    let again = from(202, 3, 15, 2000 + LATE_MAX_MS + 1);
    assert_eq!(t.0.place_statement(&again), Err(Lost::Jump));
}

#[test]
fn kept_text_is_checked() {
    assert_eq!("".parse::<Epochs>().unwrap(), Epochs::new());
    for text in ["x", "{}", "{\"v\":2}", "{\"v\":1,\"epochs\":[[1]],\"partitions\":[],\"runs\":[]}"] {
        assert!(text.parse::<Epochs>().is_err(), "{text}");
    }
}
