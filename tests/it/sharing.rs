//! Several instances of one pipeline: they join, leave, freeze and die under load, and nothing is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::lake;
use lodestream_tests::pipeline::{Pipeline, Wanted};
use lodestream_tests::process::Running;
use serde_json::Value;

use crate::streaming::{silver_is_level, tables};
use crate::variants::{OPEN_B, seed};

const LIMIT: Duration = Duration::from_secs(120);
const TABLES: usize = 15;

/// Which instance runs each table, as their reports in the lake say; the newest word of a table counts.
fn owners(pipeline: &Pipeline) -> BTreeMap<String, usize> {
    let folder = pipeline.lake().join("_lode/instances").join(OPEN_B.name);
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    let reports = files.filter_map(|file| serde_json::from_slice::<Value>(&fs::read(file).ok()?).ok());
    let mut reports: Vec<Value> = reports.collect();
    reports.sort_by_key(|report| report["written_ms"].as_i64());
    let tables = reports.iter().enumerate().flat_map(|(number, report)| {
        let tables = report["tables"].as_object().into_iter().flatten();
        tables.filter(|(_, told)| told["here"] == true).map(move |(name, _)| (name.clone(), number))
    });
    tables.collect()
}

/// True when so many instances run every table.
fn shared_by(pipeline: &Pipeline, instances: usize) -> bool {
    let owners = owners(pipeline);
    owners.len() == TABLES && owners.values().collect::<BTreeSet<_>>().len() == instances
}

/// Waits until Bronze has grown.
#[track_caller]
fn expect_growth(pipeline: &Pipeline, run: &mut Running) {
    let records = || -> i64 {
        let bronze =
            tables(pipeline).into_iter().filter(|t| t["table"].as_str().is_some_and(|n| n.starts_with("bronze.")));
        bronze.flat_map(|t| t["positions"].as_object().cloned()).flatten().filter_map(|(_, next)| next.as_i64()).sum()
    };
    let before = records();
    assert!(run.wait_until(LIMIT, || records() > before), "nothing is committed any more\n{}", run.last_words());
}

#[test]
fn instances_that_join_leave_freeze_and_die_share_the_tables_and_lose_and_double_nothing() {
    let seed = seed("sharing");
    let mut broker = Broker::start(&OPEN_B.file(), seed, Pace::PerSecond(35));
    let kafka = "group = \"store\"\nrefresh = \"1s\"\n[source.kafka.options]\n\"session.timeout.ms\" = 6000\n\"heartbeat.interval.ms\" = 500\n";
    let pipeline = OPEN_B.through(&broker, &Wanted { flush_rows: 20, kafka, ..Wanted::default() });
    let wait = |run: &mut Running, what: &str, instances: usize| {
        let reached = run.wait_until(LIMIT, || shared_by(&pipeline, instances));
        assert!(reached, "{what}: {:#?}\n{}", owners(&pipeline), run.last_words());
    };
    let mut first = pipeline.start();
    wait(&mut first, "one instance runs every table", 1);
    let mut second = pipeline.start();
    wait(&mut second, "two share them", 2);
    expect_growth(&pipeline, &mut second);
    let mut third = pipeline.start();
    wait(&mut third, "three share them", 3);

    // Frozen for longer than the group waits for it: the others take its tables over.
    assert!(second.signal("STOP"));
    wait(&mut first, "the others have the tables of the frozen one", 2);
    expect_growth(&pipeline, &mut first);
    assert!(second.signal("CONT"));
    wait(&mut second, "it comes back and they share them again", 3);

    assert!(third.signal("TERM"));
    third.end(LIMIT).expect_code(0);
    wait(&mut first, "what left gave its tables to those that stay", 2);
    expect_growth(&pipeline, &mut first);

    assert!(first.kill(), "the first ended by itself");
    broker.finish();
    let records = OPEN_B.capture().events.len() as i64;
    let level = second.wait_until(LIMIT, || silver_is_level(&pipeline, TABLES, records));
    assert!(level, "{:#?}\n{}", owners(&pipeline), second.last_words());
    assert!(second.signal("TERM"));
    let ended = second.end(LIMIT).expect_code(0);
    assert!(
        ended.err.contains("another instance's now"),
        "it was never told that it lost a table\n{}",
        ended.last_words()
    );
    OPEN_B.expect_exact(&pipeline);
    lake::expect_silver(&pipeline, &OPEN_B.truth, None);
}
