//! What a user is told: messages, exit codes, machine output.

use std::fs;

use lodestream_tests::lake;
use lodestream_tests::pipeline::{Pipeline, Wanted};

use crate::variants::OPEN_B;

/// A sound pipeline file with `old` replaced by `new`.
fn changed(old: &str, new: &str) -> Pipeline {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    let text = fs::read_to_string(pipeline.file()).expect("pipeline file");
    assert!(text.contains(old), "no `{old}` in the pipeline file");
    fs::write(pipeline.file(), text.replacen(old, new, 1)).expect("pipeline file");
    pipeline
}

/// Both `check` and `run` refuse the file with exit code 2, say each of `parts`, and write no table.
#[track_caller]
fn expect_refused(pipeline: &Pipeline, parts: &[&str]) {
    for words in ["check", "run"] {
        let ended = pipeline.output(words, pipeline.command(&[words], &[])).expect_code(2);
        // what `check` finds is its result and stands on standard output
        let told = ended.out + &ended.err;
        for part in parts {
            assert!(told.contains(part), "`lode {words}` does not say `{part}`:\n{told}");
        }
    }
    assert_eq!(lake::commits(&pipeline.lake()), 0, "a refused pipeline file must not make tables");
}

#[test]
fn an_unknown_key_names_file_line_key_and_the_nearest_key() {
    let pipeline = changed("rows = 1000", "rowz = 1000");
    expect_refused(&pipeline, &["pipeline.toml:11", "flush.rowz", "`rows`"]);
}

#[test]
fn an_unknown_section_names_the_nearest_section() {
    expect_refused(&changed("[flush]", "[flusch]"), &["pipeline.toml:10", "flusch", "`flush`"]);
}

#[test]
fn a_time_without_a_unit_is_refused() {
    expect_refused(&changed("age = \"1s\"", "age = \"1\""), &["pipeline.toml:12", "flush.age"]);
}

#[test]
fn a_pipeline_file_that_is_not_toml_is_refused_with_its_line() {
    expect_refused(&changed("[flush]", "[flush"), &["pipeline.toml:10"]);
}

#[test]
fn a_module_that_is_missing_is_refused() {
    let section = "[silver.customers]\nfrom = \"customers\"\ntransform = \"no_such.wasm\"\n\n[flush]";
    expect_refused(&changed("[flush]", section), &["no_such.wasm", "customers"]);
}

#[test]
fn a_sound_pipeline_file_passes_the_check_and_makes_no_table() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    pipeline.output("check", pipeline.command(&["check"], &[])).expect_code(0);
    assert_eq!(lake::commits(&pipeline.lake()), 0, "`lode check` made tables");
}

#[test]
fn status_tells_machines_how_far_each_table_is() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    pipeline.run_until_end();
    let ended = pipeline.output("status", pipeline.command(&["status"], &["--json"])).expect_code(0);
    let status: serde_json::Value = serde_json::from_str(&ended.out).expect("status is JSON");
    let text = status.to_string();
    assert!(text.contains("open_b.shop.orders") && text.contains("customers"), "{text}");
}
