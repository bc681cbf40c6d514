//! What those who watch a run are told: pages, lag, readiness, logs.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::exposition::Exposition;
use lodestream_tests::http::{Answer, ask, get};
use lodestream_tests::lake;
use lodestream_tests::pipeline::Wanted;
use lodestream_tests::places;
use lodestream_tests::process::Running;
use serde_json::Value;

use crate::modules::place_module;
use crate::variants::{OPEN_B, seed};

const LIMIT: Duration = Duration::from_secs(120);
/// Longest that a run may take to end after SIGTERM: half a minute, and something for a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Where a run says that it listens.
#[track_caller]
fn address(run: &mut Running) -> SocketAddr {
    let log = run.err().to_owned();
    let told = || -> Option<SocketAddr> {
        let text = fs::read_to_string(&log).ok()?;
        let line = text.lines().find(|line| line.contains("listening"))?;
        line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
    };
    assert!(run.wait_until(LIMIT, || told().is_some()), "it listens nowhere\n{}", run.last_words());
    told().expect("an address")
}

fn page(address: SocketAddr, path: &str) -> Answer {
    get(address, path).unwrap_or_else(|| panic!("nobody listens at {address}"))
}

fn status(address: SocketAddr) -> Value {
    serde_json::from_str(&page(address, "/status").body).expect("status is JSON")
}

fn metrics(address: SocketAddr) -> Exposition {
    let answer = page(address, "/metrics");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    Exposition::parse(&answer.body).unwrap_or_else(|e| panic!("{e}\n{}", answer.body))
}

/// Sum of a number of all Kafka partitions in `/status`.
fn over_partitions(status: &Value, name: &str) -> i64 {
    let topics = status["bronze"].as_object().into_iter().flatten();
    let partitions = topics.flat_map(|(_, topic)| topic["partitions"].as_object().into_iter().flatten());
    partitions.filter_map(|(_, partition)| partition[name].as_i64()).sum()
}

#[test]
fn whoever_watches_sees_lag_fall_a_dead_letter_and_a_stopped_table() {
    let seed = seed("watched");
    let mut capture = OPEN_B.capture();
    let at = capture.rows_of("orders")[100];
    let mut bad = capture.events[at].clone();
    bad.value = Some(b"{\"op\": oops".to_vec());
    capture.insert(at, bad);
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("spoiled.jsonl.gz");
    capture.write(&file).expect("capture");
    let records = capture.events.len() as i64;

    let broker = Broker::start_with(OPEN_B.name, &file, seed, Pace::PerSecond(400));
    let sections = "[server]\nlisten = \"localhost:0\"\n\n[silver.click_log]\nchanges = true\n\n\
                    [silver.customers]\ntransform = \"shop_customers.wasm\"\n";
    let sections = sections.to_owned();
    let wanted = Wanted { flush_rows: 100_000, flush_age: "4s", sections, ..Wanted::default() };
    let pipeline = OPEN_B.through(&broker, &wanted);
    place_module(&pipeline, "shop_customers.wasm");
    let mut run = pipeline.start();
    let address = address(&mut run);

    assert_eq!((page(address, "/healthz").code, page(address, "/").code), (200, 200));
    let lag = || metrics(address).sum("lode_source_lag_records", &[]);
    assert!(run.wait_until(LIMIT, || lag() > 0.0), "no lag is seen before the first commit\n{}", run.last_words());
    let level = || {
        let status = status(address);
        let silver = status["silver"].as_object().into_iter().flatten();
        let late: Vec<_> = silver.filter(|(name, t)| *name != "click_log" && t["lag"] != 0).collect();
        over_partitions(&status, "end") == records && over_partitions(&status, "lag") == 0 && late.is_empty()
    };
    assert!(run.wait_until(LIMIT, level), "lag does not fall: {}\n{}", status(address), run.last_words());

    let (told, numbers) = (status(address), metrics(address));
    assert_eq!(over_partitions(&told, "position"), records);
    assert_eq!((told["records"].as_i64(), told["silver"].as_object().map(|t| t.len())), (Some(records), Some(15)));
    assert_eq!(numbers.sum("lode_table_records_total", &[("layer", "bronze")]), records as f64);
    assert_eq!(numbers.sum("lode_source_lag_records", &[]), 0.0);
    assert_eq!(numbers.of("lode_source_lag_records").count(), 44, "one a partition");
    assert_eq!(numbers.sum("lode_table_dead_letters_total", &[]), 1.0);
    assert_eq!(numbers.sum("lode_table_dead_letters_total", &[("table", "orders")]), 1.0);
    assert_eq!(numbers.sum("lode_table_stopped", &[]), 1.0);
    assert_eq!(numbers.sum("lode_table_stopped", &[("layer", "silver"), ("table", "click_log")]), 1.0);
    assert_eq!(numbers.sum("lode_ready", &[]), 1.0);
    let customers = [("layer", "silver"), ("table", "customers")];
    for name in [
        "lode_module_calls_total",
        "lode_module_seconds_total",
        "lode_module_memory_bytes",
        "lode_module_info",
        "lode_table_commit_seconds_count",
        "lode_table_commit_seconds_sum",
        "lode_table_files",
        "lode_table_bytes",
        "lode_table_index_bytes",
        "lode_table_freshness_seconds",
        "lode_table_caught_up",
    ] {
        assert!(numbers.sum(name, &customers) > 0.0, "{name}");
    }
    let rows = lake::rows_in_truth(&OPEN_B.truth, "orders");
    assert_eq!(numbers.sum("lode_table_rows", &[("table", "orders")]), rows as f64);
    let reason = told["silver"]["click_log"]["stopped"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("`changes` needs a source table with a primary key"), "{told}");

    // One table that stopped keeps nobody from using the others.
    let ready = page(address, "/readyz");
    assert_eq!(ready.code, 200, "{}", ready.body);
    assert!(ready.body.contains("stopped: silver.click_log"), "{}", ready.body);

    for host in ["example.org", "lode.example.org:80", "10.0.0.1"] {
        let refused = ask(address, "GET", "/status", host).expect("an answer");
        assert!(refused.code == 403 && !refused.body.contains("orders"), "{refused:?}");
    }
    let name = format!("127.0.0.1:{}", address.port());
    assert_eq!(ask(address, "GET", "/status", &name).expect("an answer").code, 200);
    assert_eq!(ask(address, "POST", "/status", &name).expect("an answer").code, 405);
    assert_eq!(page(address, "/nowhere").code, 404);

    let ended = pipeline.output("status", pipeline.command(&["status"], &["--json"])).expect_code(0);
    let of_the_lake: Value = serde_json::from_str(&ended.out).expect("status is JSON");
    let tables = of_the_lake["tables"].as_array().expect("tables");
    let orders = tables.iter().find(|t| t["table"] == "bronze.open_b.shop.orders").expect("orders in Bronze");
    let lag = orders["lag"].as_object().expect("lag by partition");
    assert!(lag.len() == 3 && lag.values().all(|lag| *lag == 0), "{orders}");
    let stopped = &of_the_lake["unmade"]["silver.click_log"]["stopped"];
    assert!(stopped["reason"].as_str().is_some_and(|reason| reason.contains("primary key")), "{of_the_lake}");

    assert!(run.signal("TERM"));
    // what stopped was the pipeline file's fault
    run.end(STOP_LIMIT).expect_code(2);
    assert!(get(address, "/healthz").is_none(), "the port is still open");
}

#[test]
fn every_number_for_prometheus_is_in_the_readme() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    let mut run = pipeline.launch_words("run", &["run"], &["--listen", "127.0.0.1:0"]);
    let numbers = metrics(address(&mut run));
    let readme = fs::read_to_string(places::workspace().join("README.md")).expect("README.md");
    for name in numbers.families() {
        assert!(readme.contains(&format!("`{name}`")), "README.md does not know `{name}`");
    }
    assert!(numbers.families().count() > 30);
    run.signal("TERM");
    run.end(STOP_LIMIT).expect_code(0);
}

#[test]
fn an_address_that_cannot_be_had_ends_the_start_with_what_to_do() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = (taken.local_addr().expect("its address").to_string(), taken);
    for (address, code, words) in [
        (taken.0.as_str(), 1, "another program listens there"),
        ("0.0.0.0:0", 2, "allow_remote"),
        ("9464", 2, "127.0.0.1:9464"),
    ] {
        let ended = pipeline.output("run", pipeline.command(&["run"], &["--listen", address])).expect_code(code);
        assert!(ended.err.contains(address) && ended.err.contains(words), "{}", ended.last_words());
    }
    assert_eq!(lake::commits(&pipeline.lake()), 0, "nothing is written before it listens");
}

#[test]
fn every_line_of_a_log_in_json_is_an_object() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    let more = ["--until-end", "--listen", "127.0.0.1:0", "--log-format", "json"];
    let ended = pipeline.output("run", pipeline.command(&["run"], &more)).expect_code(0);
    let refused = pipeline.output("run", pipeline.command(&["run"], &["--listen", "x", "--log-format", "json"]));
    let mut told = Vec::new();
    for text in [&ended.err, &refused.expect_code(2).err] {
        assert!(!text.is_empty());
        for line in text.lines() {
            let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            for name in ["timestamp", "level", "message", "target"] {
                assert!(object[name].is_string(), "no `{name}`: {line}");
            }
            told.push(object);
        }
    }
    assert!(told.iter().any(|o| o["address"].as_str().is_some_and(|a| a.starts_with("127.0.0.1:"))), "{told:?}");
    let last = told.last().expect("a last word");
    assert!(last["level"] == "ERROR" && last["hint"].as_str().is_some_and(|h| h.contains("9464")), "{last}");
}
