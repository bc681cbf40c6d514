//! Feeds of changes: each change of the source once, and their fold is the table, which is the database.

use std::fmt::Write as _;

use lodestream_tests::lake;
use lodestream_tests::pipeline::{Pipeline, Source, Wanted};

use crate::faults::expect_ended_at;
use crate::modules::place_module;
use crate::variants::{OPEN_A, OPEN_B, Variant, seed};

const TABLES: [&str; 6] = ["addresses", "customers", "inventory", "orders", "products", "reviews"];

fn with_feeds(flush_rows: u32) -> Wanted {
    let mut sections = String::new();
    for table in TABLES {
        write!(sections, "[silver.{table}]\nchanges = true\n\n").expect("writing to a string");
    }
    Wanted { flush_rows, sections, ..Wanted::default() }
}

#[track_caller]
fn expect_exact(variant: &Variant, pipeline: &Pipeline) {
    variant.expect_exact(pipeline);
    let capture = (variant.name == OPEN_B.name).then(|| variant.file());
    lake::expect_feeds(pipeline, &variant.truth, &TABLES, capture.as_deref());
}

#[test]
fn the_feeds_of_capture_b_fold_to_the_database_and_hold_its_history() {
    let pipeline = OPEN_B.replayed_mixed(seed("feeds"), &with_feeds(50));
    pipeline.run_until_end();
    expect_exact(&OPEN_B, &pipeline);
    pipeline.output("maintain", pipeline.command(&["maintain"], &[])).expect_code(0);
    expect_exact(&OPEN_B, &pipeline);
    let commits = lake::commits(&pipeline.lake());
    pipeline.run_until_end();
    assert_eq!(lake::commits(&pipeline.lake()), commits);
}

#[test]
fn the_feeds_of_capture_a_fold_to_the_database() {
    let pipeline = OPEN_A.replayed(&with_feeds(200));
    pipeline.run_until_end();
    expect_exact(&OPEN_A, &pipeline);
}

#[test]
fn ended_at_any_step_of_a_feed_no_change_is_lost_or_there_twice() {
    let pipeline = OPEN_B.replayed_mixed(seed("feeds ended"), &with_feeds(10));
    for point in ["changes.after_data_file", "flush.after_commit", "changes.before_commit", "changes.after_commit"] {
        for nth in [1, 4, 20] {
            expect_ended_at(&pipeline, &format!("{point}:{nth}"), &["run"], &["--until-end"]);
        }
    }
    pipeline.run_until_end();
    expect_exact(&OPEN_B, &pipeline);
}

#[test]
fn records_that_come_twice_are_in_the_feed_once() {
    let seed = seed("twice");
    let mut capture = OPEN_B.capture().interleaved(seed);
    // a connector that starts again sends what it had sent: the second half of every topic comes once more
    let half: Vec<_> = capture.events.iter().skip(capture.events.len() / 2).cloned().collect();
    for event in half {
        let end = capture.events.len();
        capture.insert(end, event);
    }
    let pipeline = Pipeline::new("twice", &Source::Replay("twice.jsonl.gz".into()), &with_feeds(40));
    capture.write(&pipeline.folder().join("twice.jsonl.gz")).expect("capture");
    pipeline.run_until_end();
    lake::expect_feeds(&pipeline, &OPEN_B.truth, &TABLES, Some(&OPEN_B.file()));
}

#[test]
fn a_feed_that_is_asked_for_later_begins_with_the_table() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    let whole = OPEN_B.capture().interleaved(seed("later"));
    let file = pipeline.folder().join("growing.jsonl.gz");
    for (part, wanted) in [(2, Wanted::default()), (1, with_feeds(50))] {
        let mut capture = whole.clone();
        capture.events.truncate(whole.events.len() / part);
        capture.write(&file).expect("capture");
        pipeline.write(OPEN_B.name, &Source::Replay(file.clone()), &wanted);
        pipeline.run_until_end();
    }
    OPEN_B.expect_exact(&pipeline);
    lake::expect_feeds(&pipeline, &OPEN_B.truth, &TABLES, None);
}

#[test]
fn a_feed_holds_the_rows_that_a_module_gives() {
    let section = "[silver.customers]\ntransform = \"shop_customers.wasm\"\nchanges = true\n";
    let pipeline = OPEN_B.replayed(&Wanted { flush_rows: 50, sections: section.to_owned(), ..Wanted::default() });
    place_module(&pipeline, "shop_customers.wasm");
    pipeline.run_until_end();
    lake::expect_fold(&pipeline, &OPEN_B.file(), "customers", "shop_customers");
    lake::expect_folds(&pipeline, 1, None);
}

#[test]
fn a_table_without_a_key_has_no_feed_and_says_so() {
    let sections = "[silver.click_log]\nchanges = true\n".to_owned();
    let pipeline = OPEN_B.replayed(&Wanted { sections, ..Wanted::default() });
    let ended = pipeline.output("run", pipeline.command(&["run"], &["--until-end"]));
    assert!(ended.err.contains("`changes` needs a source table with a primary key"), "{}", ended.last_words());
    lake::expect_silver(&pipeline, &OPEN_B.truth, Some("customers,orders"));
}
