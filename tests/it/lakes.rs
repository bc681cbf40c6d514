//! Lakes that earlier programs wrote, in `tests/lakes`: read as they are, and gone on with as if nothing had happened.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lodestream_tests::capture::Place;
use lodestream_tests::lake::{self, Truth};
use lodestream_tests::pipeline::{Pipeline, Source, Wanted};
use lodestream_tests::places;
use serde_json::Value;

use crate::streaming::{status, tables};

const LAKES: [&str; 1] = ["2cf98e2"];
const TRUTH: Truth = Truth { folder: "lakes", milliseconds: false, allow: None };
/// What every one of them has.
const SILVER: [&str; 5] = ["carts", "customers", "orders", "products", "visits"];

/// A lake as the earlier program left it, and what is known of the database.
struct Old {
    /// of `tests/lakes`
    folder: PathBuf,
    pipeline: Pipeline,
}

impl Old {
    fn unpacked(name: &str) -> Old {
        let folder = places::script("lakes").join(name);
        let pipeline = Pipeline::new("old", &Source::Replay("part-*.jsonl".into()), &Wanted::default());
        fs::copy(folder.join("pipeline.toml"), pipeline.file()).expect("the pipeline file");
        let mut unpack = Command::new(places::python());
        unpack.args(["-m", "tarfile", "-e"]).arg(folder.join("lake.tar.gz")).arg(pipeline.folder());
        lake::expect_success(&mut unpack);
        assert!(pipeline.lake().join("silver").is_dir(), "no lake in it");
        let old = Old { folder, pipeline };
        old.send("part-1.jsonl");
        old
    }

    /// The records of `part` are there.
    fn send(&self, part: &str) {
        fs::copy(self.folder.join(part), self.pipeline.folder().join(part)).expect("a part of the capture");
    }

    /// What was sent so far, in one file.
    fn capture(&self, parts: usize) -> PathBuf {
        let text = (1..=parts).map(|part| fs::read_to_string(self.folder.join(format!("part-{part}.jsonl"))));
        let path = self.pipeline.folder().join("whole.jsonl");
        fs::write(&path, text.collect::<Result<String, _>>().expect("the capture")).expect("the capture");
        path
    }

    /// Bronze is what was sent in so many parts, Silver and the feed what the database held, and dead letters what it
    /// cannot have held.
    #[track_caller]
    fn expect_exact(&self, parts: usize) {
        let file = self.capture(parts);
        let state = self.folder.join(format!("state-{parts}"));
        lake::expect_bronze(&self.pipeline, &file);
        lake::expect_silver_as(&self.pipeline, &state, &TRUTH, &SILVER.join(","));
        let folded = lake::expect_folds(&self.pipeline, 1, Some(&file));
        assert!(folded.path().join("customers").exists());
        let letters = self.pipeline.dead_letters();
        assert_eq!(letters.iter().map(|letter| letter.place.clone()).collect::<Vec<_>>(), bad(&state));
    }
}

/// Where the records are that nobody can apply.
fn bad(state: &Path) -> Vec<Place> {
    let text = fs::read_to_string(state.join("dead_letters.json")).expect("places");
    let places: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let place = |place: &Value| -> Option<Place> {
        let partition = i32::try_from(place["partition"].as_i64()?).ok()?;
        Some((place["topic"].as_str()?.to_owned(), partition, place["offset"].as_i64()?))
    };
    let mut places: Vec<Place> = places.iter().map(|of| place(of).expect("a place")).collect();
    places.sort();
    places
}

/// Every file below `folder`.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}

/// Versions of each table, as `lode status` tells them.
fn versions(pipeline: &Pipeline) -> BTreeMap<String, u64> {
    let version = |table: Value| Some((table["table"].as_str()?.to_owned(), table["version"].as_u64()?));
    tables(pipeline).into_iter().filter_map(version).collect()
}

#[test]
fn a_lake_of_an_earlier_program_is_read_as_it_is() {
    for name in LAKES {
        let old = Old::unpacked(name);
        let before = files(&old.pipeline.lake());
        let told = status(&old.pipeline);
        assert_eq!(told["broken"], serde_json::json!({}), "{name}");
        let tables = tables(&old.pipeline);
        let is_level = |table: &str| tables.iter().any(|t| t["table"] == format!("silver.{table}") && t["behind"] == 0);
        assert!(SILVER.into_iter().all(is_level), "{name}: {told:#}");
        for table in SILVER {
            let state = fs::read_to_string(old.folder.join(format!("state-1/{table}.jsonl"))).expect("a state");
            let count = old.pipeline.query(&format!("SELECT count(*) AS n FROM silver.{table}"));
            assert_eq!(count[0]["n"].as_u64(), Some(state.lines().count() as u64 - 1), "{name}: {table}");
        }
        old.expect_exact(1);
        assert!(files(&old.pipeline.lake()) == before, "{name}: reading has written");
    }
}

#[test]
fn a_lake_of_an_earlier_program_is_gone_on_with() {
    for name in LAKES {
        let old = Old::unpacked(name);
        let lake = old.pipeline.lake();
        let (logs, at_first) = (lake::logs(&lake), versions(&old.pipeline));
        old.pipeline.run_until_end();
        assert_eq!(lake::logs(&lake), logs, "{name}: something was taken in that was there");
        assert_eq!(versions(&old.pipeline), at_first);
        let before = files(&lake);
        old.send("part-2.jsonl");
        old.pipeline.run_until_end();
        old.expect_exact(2);
        let after = versions(&old.pipeline);
        for (table, version) in &at_first {
            assert!(after[table] > *version, "{name}: {table} stands at {} after {version}", after[table]);
        }
        // versions that a checkpoint has made needless may be gone, as they are in time
        let commits = before.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "json"));
        for (path, text) in commits.filter(|(path, _)| path.to_string_lossy().contains("_delta_log")) {
            assert!(fs::read(path).map_or(true, |now| now == *text), "{name}: `{}` was written anew", path.display());
        }
        old.pipeline.output("maintain", old.pipeline.command(&["maintain"], &[])).expect_code(0);
        old.pipeline.output("rebuild", old.pipeline.command(&["rebuild"], &["silver.orders"])).expect_code(0);
        old.expect_exact(2);
    }
}
