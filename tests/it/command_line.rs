//! What a user is told: messages, exit codes, machine output.

use std::fs;
use std::path::PathBuf;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::lake;
use lodestream_tests::lode::LIMIT;
use lodestream_tests::pipeline::{Pipeline, Wanted};

use crate::variants::{OPEN_B, seed};

/// A sound pipeline file with `old` replaced by `new`.
fn changed(old: &str, new: &str) -> Pipeline {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    let text = fs::read_to_string(pipeline.file()).expect("pipeline file");
    assert!(text.contains(old), "no `{old}` in the pipeline file");
    fs::write(pipeline.file(), text.replacen(old, new, 1)).expect("pipeline file");
    pipeline
}

/// `check` and `run` refuse the changed file in exactly these words.
#[track_caller]
fn expect_message(old: &str, new: &str, message: &str) {
    let pipeline = changed(old, new);
    for words in ["check", "run"] {
        let ended = pipeline.output(words, pipeline.command(&[words], &[])).expect_code(2);
        assert_eq!(ended.err.trim_end(), message, "of `lode {words}`");
    }
    assert!(!pipeline.lake().exists(), "a refused pipeline file must not make a lake");
}

#[test]
fn an_unknown_key_names_file_line_key_and_the_nearest_key() {
    let message = "error: pipeline.toml:11: `flush.rowz` is not a known key\n\nhint: did you mean `rows`?";
    expect_message("rows = 1000", "rowz = 1000", message);
}

#[test]
fn an_unknown_section_names_the_nearest_section() {
    let message = "error: pipeline.toml:10: `flusch` is not a known key\n\nhint: did you mean `flush`?";
    expect_message("[flush]", "[flusch]", message);
}

#[test]
fn a_value_of_the_wrong_kind_names_its_key_and_what_it_must_be() {
    let message = "error: pipeline.toml:12: `flush.age` must be a time with its unit, such as \"5s\" or \"250ms\"";
    expect_message("age = \"1s\"", "age = \"1\"", message);
    let message = "error: pipeline.toml:11: `flush.rows` must be a whole number above 0";
    expect_message("rows = 1000", "rows = \"many\"", message);
}

#[test]
fn a_pipeline_file_that_is_not_toml_is_refused_with_its_line() {
    let message = "error: pipeline.toml:10: not valid TOML: unclosed table, expected `]`";
    expect_message("[flush]", "[flush", message);
}

#[test]
fn a_lake_of_an_unknown_kind_names_the_kinds_there_are() {
    let message = "error: pipeline.toml:8: `lake.root` has the unknown scheme `ftp`\n\n\
                   hint: use `abfss://…`, `az://…`, `s3://…` or a local path";
    expect_message("root = \"lake\"", "root = \"ftp://lake\"", message);
}

#[test]
fn a_module_that_is_missing_is_refused_before_a_record_is_read() {
    let section = "[silver.customers]\nfrom = \"customers\"\ntransform = \"no_such.wasm\"\n\n[flush]";
    let pipeline = changed("[flush]", section);
    for words in ["check", "run"] {
        let ended = pipeline.output(words, pipeline.command(&[words], &[])).expect_code(2);
        // what `check` finds is its result and stands on standard output
        let told = ended.out + &ended.err;
        assert!(told.contains("no_such.wasm") && told.contains("customers"), "{told}");
    }
    assert_eq!(lake::commits(&pipeline.lake()), 0, "a refused pipeline file must not make tables");
}

#[test]
fn a_wrong_command_line_or_query_is_refused() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    let mut none = pipeline.command(&["run"], &[]);
    none.args(["--untl-end"]);
    pipeline.output("wrong-option", none).expect_code(2);
    let ended = pipeline.output("wrong-query", pipeline.command(&["query"], &["SELEC 1"]));
    assert!(!ended.status.success() && ended.err.contains("SELEC"), "{}", ended.last_words());
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
    let tables = status["tables"].as_array().expect("tables");
    let names: Vec<&str> = tables.iter().filter_map(|t| t["table"].as_str()).collect();
    assert!(names.contains(&"bronze.open_b.shop.orders") && names.contains(&"silver.customers"), "{names:?}");
    let silver = tables.iter().filter(|t| t["table"].as_str().is_some_and(|n| n.starts_with("silver.")));
    for table in silver {
        let lag = table["lag"].as_object().expect("lag by partition");
        assert!(!lag.is_empty() && lag.values().all(|lag| *lag == 0) && table["behind"] == 0, "{table}");
    }
    assert!(status["pipeline_file"].is_null(), "{status}");
}

/// Cuts the newest version of the table's log by so many bytes; its file.
fn cut_newest_version(pipeline: &Pipeline, table: &str) -> PathBuf {
    let log = pipeline.lake().join(table).join("_delta_log");
    let files = fs::read_dir(&log).expect("log").map(|entry| entry.expect("entry").path());
    let newest = files.filter(|file| file.extension().is_some_and(|e| e == "json")).max().expect("a version");
    let length = fs::metadata(&newest).expect("version").len();
    fs::OpenOptions::new().write(true).open(&newest).and_then(|file| file.set_len(length - 20)).expect("cut");
    newest
}

#[test]
fn a_table_whose_log_is_cut_is_told_and_stops_and_the_others_are_told_and_go_on() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    pipeline.run_until_end();
    let rows = |table: &str| pipeline.query(&format!("SELECT count(*) AS n FROM silver.{table}"));
    let (customers, orders) = (rows("customers"), rows("orders"));
    cut_newest_version(&pipeline, "silver/customers");
    let ended = pipeline.output("status-json", pipeline.command(&["status"], &["--json"])).expect_code(1);
    let status: serde_json::Value = serde_json::from_str(&ended.out).expect("status is JSON");
    let names: Vec<&str> =
        status["tables"].as_array().expect("tables").iter().filter_map(|t| t["table"].as_str()).collect();
    assert!(names.contains(&"silver.orders") && !names.contains(&"silver.customers"), "{names:?}");
    let broken = &status["broken"]["silver.customers"];
    assert!(broken["reason"].as_str().is_some_and(|reason| reason.contains("of the log")), "{status}");
    assert!(broken["hint"].as_str().is_some_and(|hint| hint.contains("`silver/customers`")), "{status}");
    let ended = pipeline.output("status", pipeline.command(&["status"], &[])).expect_code(1);
    assert!(
        ended.out.contains("\nsilver.customers cannot be read: ") && ended.out.contains("\nsilver.orders "),
        "{}",
        ended.out
    );
    assert_eq!(rows("orders"), orders, "the other tables are queried as ever");
    let asked = pipeline.command(&["query"], &["SELECT count(*) FROM silver.customers"]);
    let ended = pipeline.output("query", asked).expect_code(1);
    assert!(ended.err.contains("table `silver/customers` cannot be read: version"), "{}", ended.last_words());
    // a run does not try for ever
    let ended = pipeline.output("run", pipeline.command(&["run"], &["--until-end"])).expect_code(1);
    assert!(ended.err.contains("of the log") && ended.err.contains("`silver/customers`"), "{}", ended.last_words());
    // the way out that the hint names
    fs::rename(pipeline.lake().join("silver/customers"), pipeline.folder().join("away")).expect("move");
    pipeline.run_until_end();
    assert_eq!(rows("customers"), customers);
    pipeline.output("status-mended", pipeline.command(&["status"], &[])).expect_code(0);
}

#[test]
fn a_cut_newest_version_of_bronze_once_moved_away_is_taken_in_again() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    pipeline.run_until_end();
    let file = cut_newest_version(&pipeline, "bronze/open_b.shop.orders");
    let ended = pipeline.output("run", pipeline.command(&["run"], &["--until-end"])).expect_code(1);
    let hint = format!("move `_delta_log/{}` out of the lake", file.file_name().expect("name").to_string_lossy());
    assert!(ended.err.contains(&hint), "{}", ended.last_words());
    fs::rename(file, pipeline.folder().join("away")).expect("move");
    pipeline.run_until_end();
    lake::expect_bronze(&pipeline, &OPEN_B.file());
}

#[test]
fn status_fits_a_terminal_and_tells_which_partitions_lag() {
    let broker = Broker::start(&OPEN_B.file(), seed("status"), Pace::AllAtOnce);
    let pipeline = OPEN_B.through(&broker, &Wanted::default());
    let mut run = pipeline.start();
    assert!(run.wait_until(LIMIT, || lake::commits(&pipeline.lake()) > 10), "no commits\n{}", run.last_words());
    assert!(run.kill());
    let ended = pipeline.output("status", pipeline.command(&["status"], &[])).expect_code(0);
    assert!(ended.out.contains("lag") && ended.out.contains("bronze."), "{}", ended.out);
    for line in ended.out.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
    // Without the broker the lake still tells what it knows.
    drop(broker);
    let ended = pipeline.output("status", pipeline.command(&["status"], &["--json"])).expect_code(0);
    assert!(ended.err.contains("how far bronze lags behind is not known"), "{}", ended.last_words());
}
