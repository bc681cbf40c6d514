//! A run without an end: what others see of it while it goes on.

use std::time::Duration;

use lodestream_tests::lake;
use lodestream_tests::pipeline::{Pipeline, Wanted};
use serde_json::Value;

use crate::variants::{OPEN_B, seed};

const LIMIT: Duration = Duration::from_secs(120);

/// What `lode status --json` prints.
pub(crate) fn status(pipeline: &Pipeline) -> Value {
    let ended = pipeline.output("status", pipeline.command(&["status"], &["--json"])).expect_code(0);
    serde_json::from_str(&ended.out).expect("status as JSON")
}

/// Its tables.
pub(crate) fn tables(pipeline: &Pipeline) -> Vec<Value> {
    status(pipeline)["tables"].as_array().cloned().expect("tables")
}

/// True when as many Silver tables as wanted have taken in everything that Bronze holds of all topics.
pub(crate) fn silver_is_level(pipeline: &Pipeline, tables: usize, records: i64) -> bool {
    let all = self::tables(pipeline);
    let of =
        |layer: &'static str| all.iter().filter(move |t| t["table"].as_str().is_some_and(|n| n.starts_with(layer)));
    let in_bronze: i64 = of("bronze.")
        .flat_map(|t| t["positions"].as_object().into_iter().flatten())
        .filter_map(|(_, n)| n.as_i64())
        .sum();
    in_bronze >= records && of("silver.").count() == tables && of("silver.").all(|t| t["behind"] == 0)
}

#[test]
fn a_run_without_end_brings_quiet_topics_into_silver_and_stops_when_told() {
    let seed = seed("quiet topics");
    let pipeline = OPEN_B.replayed_mixed(seed, &Wanted::default());
    let records = OPEN_B.capture().events.len() as i64;
    let mut run = pipeline.start();
    // No record comes after the last one of the file: nothing but Bronze's own commit can set a late table off.
    assert!(run.wait_until(LIMIT, || silver_is_level(&pipeline, 15, records)), "{}", run.last_words());
    assert!(run.signal("TERM"));
    run.end(LIMIT).expect_code(0);
    OPEN_B.expect_exact(&pipeline);
    lake::expect_silver(&pipeline, &OPEN_B.truth, None);
}

#[test]
fn tables_that_are_written_to_get_checkpoints_that_readers_and_the_next_start_take() {
    const INTERVAL: usize = 4;
    let sections = format!("[maintenance]\ncheckpoint_interval = {INTERVAL}\n");
    let wanted = Wanted { flush_rows: 20, sections, ..Wanted::default() };
    let pipeline = OPEN_B.replayed_mixed(seed("checkpoints"), &wanted);
    pipeline.run_until_end();
    let logs = lake::logs(&pipeline.lake());
    let long: Vec<_> = logs.iter().filter(|log| log.commits >= 2 * INTERVAL).collect();
    assert!(long.len() > 5, "{logs:?}");
    for log in long {
        // one that is due while another is being written comes a few commits later
        assert!(log.checkpoint.is_some_and(|version| version > 0), "{log:?}");
    }
    pipeline.run_until_end();
    assert_eq!(lake::logs(&pipeline.lake()), logs, "nothing was left to read");
    OPEN_B.expect_exact(&pipeline);
    lake::expect_silver(&pipeline, &OPEN_B.truth, None);
}
