//! Modules and the pipeline file change while the stream runs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::guest::{Behaviour, HARMFUL, module, sha256};
use lodestream_tests::lake;
use lodestream_tests::pipeline::{Pipeline, Source, Wanted, topics};
use lodestream_tests::places;
use lodestream_tests::process::Running;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::modules::place_module;
use crate::streaming::{silver_is_level, status};
use crate::variants::{OPEN_B, seed};

const LIMIT: Duration = Duration::from_secs(120);
const SWAPS: usize = 100;
const RATE: u32 = 60;

/// What the running program says of itself in the lake.
fn report(pipeline: &Pipeline, name: &str) -> Value {
    let text = fs::read_to_string(pipeline.lake().join("_lode").join(format!("{name}.json"))).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Puts `bytes` where the pipeline has its module, as a copying program would.
fn replace(pipeline: &Pipeline, bytes: &[u8]) {
    fs::write(pipeline.folder().join("orders.wasm"), bytes).expect("a module's file");
}

#[track_caller]
fn wait_for(run: &mut Running, what: &str, done: impl FnMut() -> bool) {
    assert!(run.wait_until(LIMIT, done), "{what} did not happen\n{}", run.last_words());
}

/// Milliseconds between the commits of a table, first to last.
fn pauses(pipeline: &Pipeline, table: &str) -> Vec<i64> {
    let mut times = Vec::new();
    for entry in fs::read_dir(pipeline.lake().join("silver").join(table).join("_delta_log")).expect("a log").flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let first: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default();
        if let (Some(time), true) = (first["commitInfo"]["timestamp"].as_i64(), text.contains("\"txn\"")) {
            times.push(time);
        }
    }
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Each row of orders has the mark of the module that its commit names, nothing is lost, doubled or set aside.
#[track_caller]
fn expect_authors(pipeline: &Pipeline, marks: &BTreeMap<String, i64>) {
    let mut check = Command::new(places::python());
    check.arg(places::script("check_swaps.py")).arg(pipeline.lake().join("silver/orders"));
    check.arg(serde_json::to_string(marks).expect("marks as JSON"));
    check.arg(places::capture("truth_mariadb/orders.jsonl.gz")).arg("order_id");
    print!("{}", lake::expect_success(&mut check));
    lake::expect_bronze(pipeline, &OPEN_B.file());
    assert_eq!(pipeline.dead_letters(), []);
}

/// Commits of a Silver table whose log says that the module with this hash made their rows.
fn commits_by(pipeline: &Pipeline, table: &str, sha256: &str) -> usize {
    let log = pipeline.lake().join("silver").join(table).join("_delta_log");
    let entries = fs::read_dir(log).into_iter().flatten().flatten();
    entries.filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(sha256))).count()
}

/// Rows that the newest commit of a Silver table wrote.
fn rows_of_last_commit(pipeline: &Pipeline, table: &str) -> u64 {
    let log = pipeline.lake().join("silver").join(table).join("_delta_log");
    let newest = fs::read_dir(log).into_iter().flatten().flatten().map(|entry| entry.path()).max();
    let text = newest.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let first: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default();
    first["commitInfo"]["lode"]["rows"].as_u64().unwrap_or(u64::MAX)
}

#[test]
fn a_hundred_swaps_under_load_lose_nothing_and_each_row_has_its_author() {
    let seed = seed("swaps");
    let mut rng = StdRng::seed_from_u64(seed);
    let sections = "[silver.orders]\ntransform = \"orders.wasm\"\n\n[limits]\nmodule_time = \"300ms\"\n\n\
                    [maintenance]\nsmall_files = 100000\n";
    let wanted = Wanted { flush_rows: 100_000, sections: sections.to_owned(), ..Wanted::default() };
    let mut broker = Broker::start_with(OPEN_B.name, &OPEN_B.file(), seed, Pace::PerSecond(RATE));
    let pipeline = OPEN_B.through(&broker, &wanted);
    let first = module(Behaviour::Mark(1), "order_id", 0);
    let mut marks = BTreeMap::from([(sha256(&first), 1)]);
    replace(&pipeline, &first);
    let mut run = pipeline.start();
    // Before the first batch there is nothing to try a module on.
    wait_for(&mut run, "a first commit of orders", || commits_by(&pipeline, "orders", &sha256(&first)) > 0);
    let mut results = Vec::new();
    for swap in 1..=SWAPS {
        let good = rng.random_bool(0.4);
        if good {
            let mark = if swap % 2 == 0 { 1 } else { 2 };
            let bytes = module(Behaviour::Mark(mark), "order_id", swap);
            let hash = sha256(&bytes);
            marks.insert(hash.clone(), mark);
            replace(&pipeline, &bytes);
            wait_for(&mut run, &format!("swap {swap} to a good module"), || {
                report(&pipeline, OPEN_B.name)["tables"]["silver.orders"]["module"] == hash
            });
        } else {
            let (behaviour, word) = *HARMFUL.choose(&mut rng).expect("a harmful one");
            let bytes = module(behaviour, "order_id", swap);
            let hash = sha256(&bytes);
            let serving = report(&pipeline, OPEN_B.name)["tables"]["silver.orders"]["module"].clone();
            replace(&pipeline, &bytes);
            let refused = || report(&pipeline, OPEN_B.name)["tables"]["silver.orders"]["refused"].clone();
            wait_for(&mut run, &format!("refusal {swap} of {behaviour:?}"), || refused()["sha256"] == hash);
            let reason = refused()["reason"].as_str().unwrap_or_default().to_owned();
            assert!(reason.contains(word), "{behaviour:?} was refused with `{reason}`");
            assert_eq!(
                report(&pipeline, OPEN_B.name)["tables"]["silver.orders"]["module"],
                serving,
                "{behaviour:?} took over"
            );
            results.push((behaviour, reason));
        }
    }
    for (behaviour, _) in HARMFUL {
        match results.iter().find(|(b, _)| *b == behaviour) {
            Some((_, reason)) => println!("{behaviour:?}: {reason}"),
            None => println!("{behaviour:?}: not among the {SWAPS}"),
        }
    }
    broker.finish();
    let records = OPEN_B.capture().events.len() as i64;
    wait_for(&mut run, "the end of the stream", || silver_is_level(&pipeline, 15, records));
    assert!(run.signal("TERM"));
    run.end(LIMIT).expect_code(0);

    expect_authors(&pipeline, &marks);
    lake::expect_silver(&pipeline, &OPEN_B.truth, Some("customers,order_items,inventory,payments,reviews"));
    // A few changes a second: with the flush age of a second nobody waits longer than a second more. The machine may
    // be slow for everybody: then the table that is swapped, and the broker, are slow as well.
    let longest = pauses(&pipeline, "order_items").into_iter().max().unwrap_or(0);
    println!("longest pause between two commits of order_items: {longest} ms");
    assert!(longest <= 2000 + 1000, "order_items stood still for {longest} ms");
}

#[test]
fn a_module_that_rejects_live_rows_is_rolled_back() {
    // Sound for the few rows of a second, which the trial sees, and not for those of twenty.
    let sections = |flush_age| {
        let sections = "[silver.orders]\ntransform = \"orders.wasm\"\n".to_owned();
        Wanted { flush_rows: 100_000, flush_age, kafka: "", sections }
    };
    let mut broker = Broker::start_with(OPEN_B.name, &OPEN_B.file(), 7, Pace::PerSecond(RATE));
    let pipeline = OPEN_B.through(&broker, &sections("1s"));
    let good = module(Behaviour::Mark(1), "order_id", 0);
    replace(&pipeline, &good);
    let mut run = pipeline.start();
    wait_for(&mut run, "a small commit of orders", || {
        commits_by(&pipeline, "orders", &sha256(&good)) > 1 && rows_of_last_commit(&pipeline, "orders") < 40
    });
    let bad = module(Behaviour::RejectAbove(100), "order_id", 1);
    replace(&pipeline, &bad);
    let orders = || report(&pipeline, OPEN_B.name)["tables"]["silver.orders"].clone();
    wait_for(&mut run, "a commit after the swap", || commits_by(&pipeline, "orders", &sha256(&bad)) > 0);
    let source = Source::Kafka { brokers: broker.address().to_owned(), topics: topics(OPEN_B.name) };
    pipeline.write(OPEN_B.name, &source, &sections("20s"));
    wait_for(&mut run, "the way back", || orders()["module"] == sha256(&good));
    let told = orders()["refused"].clone();
    assert_eq!(told["sha256"], sha256(&bad));
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("rolled back")), "{told}");
    broker.finish();
    let records = OPEN_B.capture().events.len() as i64;
    wait_for(&mut run, "the end of the stream", || silver_is_level(&pipeline, 15, records));
    assert!(run.signal("TERM"));
    run.end(LIMIT).expect_code(0);
    let marks = BTreeMap::from([(sha256(&good), 1), (sha256(&bad), 3)]);
    expect_authors(&pipeline, &marks);
}

#[test]
fn params_follow_the_pipeline_file_and_a_pinned_table_takes_no_other_module() {
    let wanted = |params: u8, pin: &str| Wanted {
        flush_rows: 100_000,
        sections: format!(
            "[silver.orders]\ntransform = \"orders.wasm\"\nsha256 = \"{pin}\"\nparams = {{ mark = {params} }}\n"
        ),
        ..Wanted::default()
    };
    let [first, second] = [0, 1].map(|nonce| module(Behaviour::MarkOfParams, "order_id", nonce));
    let mut broker = Broker::start_with(OPEN_B.name, &OPEN_B.file(), 11, Pace::PerSecond(RATE));
    let source = Source::Kafka { brokers: broker.address().to_owned(), topics: topics(OPEN_B.name) };
    let pipeline = Pipeline::new(OPEN_B.name, &source, &wanted(1, &sha256(&first)));
    replace(&pipeline, &first);
    let orders = || report(&pipeline, OPEN_B.name)["tables"]["silver.orders"].clone();
    let newest_mark =
        || pipeline.query("SELECT max(mark) AS mark FROM silver.orders")[0]["mark"].as_i64().unwrap_or_default();
    let mut run = pipeline.start();
    wait_for(&mut run, "a first commit of orders", || commits_by(&pipeline, "orders", &sha256(&first)) > 0);

    replace(&pipeline, &second);
    wait_for(&mut run, "the refusal of a module that is not pinned", || {
        orders()["refused"]["sha256"] == sha256(&second)
    });
    let reason = orders()["refused"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("pinned"), "{reason}");
    assert_eq!((orders()["module"].as_str(), newest_mark()), (Some(sha256(&first).as_str()), 1));

    pipeline.write(OPEN_B.name, &source, &wanted(2, &sha256(&second)));
    wait_for(&mut run, "the module of the new pin", || orders()["module"] == sha256(&second));
    wait_for(&mut run, "rows made with the params that came with it", || newest_mark() == 2);
    pipeline.write(OPEN_B.name, &source, &wanted(3, &sha256(&second)));
    wait_for(&mut run, "rows made with other params", || newest_mark() == 3);

    broker.finish();
    let records = OPEN_B.capture().events.len() as i64;
    wait_for(&mut run, "the end of the stream", || silver_is_level(&pipeline, 15, records));
    assert!(run.signal("TERM"));
    run.end(LIMIT).expect_code(0);
    lake::expect_bronze(&pipeline, &OPEN_B.file());
    assert_eq!(pipeline.dead_letters(), []);
}

#[test]
fn a_changed_pipeline_file_adds_and_removes_tables_and_a_broken_one_does_nothing() {
    let few = |more: &str| Wanted { sections: more.to_owned(), ..Wanted::default() };
    let source = Source::Replay(OPEN_B.file());
    let pipeline = Pipeline::new(OPEN_B.name, &source, &few(""));
    place_module(&pipeline, "shop_customers.wasm");
    place_module(&pipeline, "shop_tags.wasm");
    let records = OPEN_B.capture().events.len() as i64;
    let mut run = pipeline.start();
    wait_for(&mut run, "the whole capture in Silver", || silver_is_level(&pipeline, 15, records));
    let refused = |pipeline: &Pipeline| {
        report(pipeline, OPEN_B.name)["pipeline_file"]["reason"].as_str().unwrap_or_default().to_owned()
    };

    // A broken file, one that asks for what needs a restart, one that names a module that is not there.
    for (more, word) in [
        ("[silver.customers]\nfrm = \"customers\"\n", "frm"),
        ("[maintenance]\nsmall_files = 3\n", "cannot change while it runs"),
        ("[server]\n", "cannot change while it runs"),
        ("[silver.tags]\nfrom = \"customers\"\ntransform = \"absent.wasm\"\n", "absent.wasm"),
    ] {
        pipeline.write(OPEN_B.name, &source, &few(more));
        wait_for(&mut run, &format!("the refusal of a file with `{more}`"), || refused(&pipeline).contains(word));
        let tables = fs::read_dir(pipeline.lake().join("silver")).expect("silver").count();
        assert_eq!(tables, 15);
    }
    let told = status(&pipeline)["pipeline_file"].clone();
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("absent.wasm")), "{told}");

    // A table added: it is made of what Bronze holds.
    let tags = "[silver.tags]\nfrom = \"customers\"\ntransform = \"shop_tags.wasm\"\n\n[silver.customers]\ntransform = \"shop_customers.wasm\"\n";
    pipeline.write(OPEN_B.name, &source, &few(tags));
    wait_for(&mut run, "a new table from Bronze", || silver_is_level(&pipeline, 16, records));
    wait_for(&mut run, "word of the file that was taken over", || refused(&pipeline).is_empty());
    lake::expect_fold(&pipeline, &OPEN_B.file(), "customers", "as_is");

    // Removed: the table stays as it is, and nobody writes to it.
    pipeline.write(OPEN_B.name, &source, &few("[silver.customers]\ntransform = \"shop_customers.wasm\"\n"));
    wait_for(&mut run, "the removal of a table", || report(&pipeline, OPEN_B.name)["tables"]["silver.tags"].is_null());
    assert!(run.signal("TERM"));
    run.end(LIMIT).expect_code(0);
    lake::expect_silver(&pipeline, &OPEN_B.truth, Some("orders,order_items,payments"));
}
