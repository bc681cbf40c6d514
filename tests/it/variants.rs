//! The seven captures, and the steps that every test takes with one.

use std::path::PathBuf;

use lodestream_tests::broker::Broker;
use lodestream_tests::capture::{Capture, Place};
use lodestream_tests::lake::{self, Truth};
use lodestream_tests::pipeline::{Pipeline, Source, Wanted, topics};
use lodestream_tests::places;

/// One of `tests/captures`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) truth: Truth,
    /// number of records that cannot be applied by anyone
    pub(crate) dead: usize,
}

const MARIADB: Truth = Truth { folder: "truth_mariadb", milliseconds: false, allow: None };
const MYSQL: Truth = Truth { folder: "truth_mysql", ..MARIADB };
const CUT: Truth = Truth { milliseconds: true, ..MARIADB };
const FLATTENED: Truth = Truth { allow: Some("open_e.allow.json"), ..MARIADB };

/// schema and payload, precise decimals
pub(crate) const OPEN_A: Variant = Variant { name: "open_a", truth: MARIADB, dead: 0 };
/// bare, three partitions
pub(crate) const OPEN_B: Variant = Variant { name: "open_b", truth: MARIADB, dead: 0 };
/// bare, double decimals, milliseconds, transaction topic
pub(crate) const OPEN_C: Variant = Variant { name: "open_c", truth: CUT, dead: 0 };
/// schema and payload, milliseconds
pub(crate) const OPEN_D: Variant = Variant { name: "open_d", truth: CUT, dead: 0 };
/// flattened; four updates without a key and without the image before
pub(crate) const OPEN_E: Variant = Variant { name: "open_e", truth: FLATTENED, dead: 4 };
/// as `open_a`, from MySQL
pub(crate) const OPEN_M_A: Variant = Variant { name: "open_m_a", truth: MYSQL, dead: 0 };
/// as `open_b`, from MySQL
pub(crate) const OPEN_M_B: Variant = Variant { name: "open_m_b", truth: MYSQL, dead: 0 };

impl Variant {
    pub(crate) fn file(&self) -> PathBuf {
        places::capture(&format!("{}.events.jsonl.gz", self.name))
    }

    pub(crate) fn capture(&self) -> Capture {
        Capture::read(&self.file()).expect("a capture")
    }

    pub(crate) fn replayed(&self, wanted: &Wanted) -> Pipeline {
        Pipeline::new(self.name, &Source::Replay(self.file()), wanted)
    }

    /// The partitions mixed at random.
    pub(crate) fn replayed_mixed(&self, seed: u64, wanted: &Wanted) -> Pipeline {
        let pipeline = Pipeline::new(self.name, &Source::Replay("mixed.jsonl.gz".into()), wanted);
        let mixed = self.capture().interleaved(seed);
        mixed.write(&pipeline.folder().join("mixed.jsonl.gz")).expect("mixed capture");
        pipeline
    }

    pub(crate) fn through(&self, broker: &Broker, wanted: &Wanted) -> Pipeline {
        Pipeline::new(self.name, &self.source(broker), wanted)
    }

    pub(crate) fn source(&self, broker: &Broker) -> Source {
        Source::Kafka { brokers: broker.address().to_owned(), topics: topics(self.name) }
    }

    /// Silver equal to the database, Bronze to what was sent, dead letters as many as cannot be avoided.
    #[track_caller]
    pub(crate) fn expect_exact(&self, pipeline: &Pipeline) {
        lake::expect_bronze(pipeline, &self.file());
        let letters = pipeline.dead_letters();
        assert_eq!(letters.len(), self.dead, "dead letters: {letters:#?}");
        expect_no_place_twice(letters.into_iter().map(|letter| letter.place));
        lake::expect_silver(pipeline, &self.truth, None);
    }
}

#[track_caller]
pub(crate) fn expect_no_place_twice(places: impl Iterator<Item = Place>) {
    let mut places: Vec<Place> = places.collect();
    places.sort();
    for pair in places.windows(2) {
        assert_ne!(pair[0], pair[1], "a dead letter is there twice");
    }
}

/// The seed of a random test: given by `LODE_SEED`, else by the clock; always printed.
pub(crate) fn seed(test: &str) -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let seed = std::env::var("LODE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(clock % 1_000_000_007);
    println!("{test}: LODE_SEED={seed}");
    seed
}
