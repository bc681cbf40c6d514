//! Records that cannot be applied end in the dead-letter table, once each; everything else is exact.

use std::path::PathBuf;

use lodestream_tests::bad;
use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::capture::Place;
use lodestream_tests::lake;
use lodestream_tests::pipeline::{Pipeline, Source, Wanted};

use crate::variants::{OPEN_A, OPEN_B, Variant, expect_no_place_twice, seed};

/// A capture with every kind of bad record among the changes of one table.
pub(crate) struct Spoiled {
    pub(crate) variant: Variant,
    pub(crate) file: PathBuf,
    bad: Vec<(&'static str, Place)>,
    folder: tempfile::TempDir,
}

impl Spoiled {
    pub(crate) fn new(variant: Variant) -> Spoiled {
        let mut capture = variant.capture();
        let bad = bad::spoil(&mut capture, "orders", "customer_id");
        let folder = tempfile::TempDir::with_prefix("lode-spoiled-").expect("temporary folder");
        let file = folder.path().join("spoiled.jsonl.gz");
        // mixed, so that small flushes are small: a file in order hands over whole partitions
        capture.interleaved(seed("spoiled")).write(&file).expect("spoiled capture");
        Spoiled { variant, file, bad, folder }
    }

    pub(crate) fn source(&self) -> Source {
        Source::Replay("spoiled.jsonl.gz".into())
    }

    pub(crate) fn replayed(&self, wanted: &Wanted) -> Pipeline {
        // the copy is kept together with the pipeline of a failed test
        let pipeline = Pipeline::new(self.variant.name, &self.source(), wanted);
        std::fs::copy(&self.file, pipeline.folder().join("spoiled.jsonl.gz")).expect("a copy of the spoiled capture");
        pipeline
    }

    /// One dead letter a bad record, none else; Silver and Bronze exact.
    #[track_caller]
    pub(crate) fn expect_exact(&self, pipeline: &Pipeline) {
        assert!(self.folder.path().exists());
        let letters = pipeline.dead_letters();
        let reason = |place: &Place| letters.iter().find(|l| l.place == *place).map(|l| l.reason.as_str());
        for (name, place) in &self.bad {
            println!("{name:45} {:?}", reason(place));
        }
        for (name, place) in &self.bad {
            let reason = reason(place).unwrap_or_else(|| panic!("`{name}` at {place:?} is no dead letter"));
            assert!(!reason.is_empty(), "`{name}` has no reason");
        }
        for letter in &letters {
            assert!(self.bad.iter().any(|(_, place)| *place == letter.place), "not a bad record: {letter:?}");
        }
        expect_no_place_twice(letters.into_iter().map(|letter| letter.place));
        lake::expect_bronze(pipeline, &self.file);
        lake::expect_silver(pipeline, &self.variant.truth, None);
    }
}

#[test]
fn every_kind_of_bad_record_is_set_aside_in_bare_json() {
    let spoiled = Spoiled::new(OPEN_B);
    let pipeline = spoiled.replayed(&Wanted::default());
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}

#[test]
fn every_kind_of_bad_record_is_set_aside_in_schema_envelopes() {
    let spoiled = Spoiled::new(OPEN_A);
    let pipeline = spoiled.replayed(&Wanted::default());
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}

#[test]
fn every_kind_of_bad_record_is_set_aside_from_a_broker() {
    let spoiled = Spoiled::new(OPEN_B);
    let broker = Broker::start(&spoiled.file, seed("poison"), Pace::AllAtOnce);
    let pipeline = OPEN_B.through(&broker, &Wanted { flush_rows: 50, ..Wanted::default() });
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}

#[test]
fn dead_letters_are_not_doubled_by_a_second_run() {
    let spoiled = Spoiled::new(OPEN_B);
    let pipeline = spoiled.replayed(&Wanted::default());
    pipeline.run_until_end();
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}
