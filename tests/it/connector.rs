//! `lode connector` beside a Connect that is not well: a small server on the loopback address stands for it. The real one
//! is in `make test-stack`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use lodestream_tests::places;
use tempfile::TempDir;

const SECRET: &str = "hunter2-shown-nowhere";
const FILE: &str = r#"{"name": "shop", "config": {
    "connector.class": "io.debezium.connector.mysql.MySqlConnector",
    "skipped.operations": "none",
    "bigint.unsigned.handling.mode": "precise",
    "producer.override.max.request.size": "16777216",
    "topic.creation.default.max.message.bytes": "16777216",
    "database.password": "${LODE_TEST_PASSWORD}"}}"#;

/// Answers every request by its method and path; returns the address.
fn connect(answer: fn(&str, &str) -> (u16, String)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // a client that went away is none of the server's business
            let _ = respond(stream, answer);
        }
    });
    address
}

fn respond(stream: TcpStream, answer: fn(&str, &str) -> (u16, String)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let mut words = first.split_whitespace();
    let (status, body) = answer(words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    let head = if status == 307 { format!("{head}location: http://127.0.0.1:1/\r\n") } else { head };
    reader.into_inner().write_all(format!("{head}\r\n{body}").as_bytes())
}

fn lode(folder: &Path, words: &[&str]) -> (Output, String) {
    fs::write(folder.join("connector.json"), FILE).expect("the configuration");
    let mut command = Command::new(places::program("lode"));
    command.current_dir(folder).arg("connector").args(words).env("LODE_TEST_PASSWORD", SECRET);
    let output = command.output().expect("lode");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!told.contains(SECRET), "the secret is shown: {told}");
    (output, told)
}

/// `apply` at a Connect that answers so ends with `code` and says `words`.
#[track_caller]
fn expect_applied(answer: fn(&str, &str) -> (u16, String), code: i32, words: &str) {
    let folder = TempDir::new().expect("a folder");
    let (output, told) = lode(folder.path(), &["apply", "connector.json", "--connect", &connect(answer)]);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(words), "no `{words}` in: {told}");
}

#[test]
fn a_connector_is_registered_after_its_configuration_was_found_sound() {
    expect_applied(
        |method, path| match (method, path) {
            ("PUT", "/connector-plugins/MySqlConnector/config/validate") => (200, r#"{"configs": []}"#.to_owned()),
            ("PUT", "/connectors/shop/config") => (201, "{}".to_owned()),
            _ => (500, String::new()),
        },
        0,
        "connector `shop` has the configuration of `connector.json`",
    );
}

#[test]
fn what_connect_refuses_is_said_by_setting_and_without_the_secret() {
    let refused = |_: &str, _: &str| {
        let wrong = format!(r#"{{"name": "database.password", "errors": ["denied for {SECRET}"]}}"#);
        let lacking = r#"{"name": "topic.prefix", "errors": ["A value is required"]}"#;
        (200, format!(r#"{{"configs": [{{"value": {wrong}}}, {{"value": {lacking}}}]}}"#))
    };
    expect_applied(refused, 2, "`database.password`: Connect refuses the value, `topic.prefix`: A value is required");
    expect_applied(|_, _| (404, String::new()), 2, "no connector class `io.debezium.connector.mysql.MySqlConnector`");
    expect_applied(|_, path| (if path.ends_with("validate") { 200 } else { 400 }, SECRET.to_owned()), 2, "400");
}

#[test]
fn a_connect_that_is_away_forbids_or_sends_elsewhere_is_an_error_with_a_next_step() {
    expect_applied(|_, _| (403, String::new()), 1, "hint: ");
    expect_applied(|_, _| (409, String::new()), 1, "rebalancing");
    expect_applied(|_, _| (307, String::new()), 1, "hint: ");
    let folder = TempDir::new().expect("a folder");
    let (output, told) = lode(folder.path(), &["apply", "connector.json", "--connect", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("does not answer") && told.contains("hint: "), "{told}");
}

#[test]
fn a_failed_task_is_shown_with_its_causes_and_is_no_success() {
    let failed = connect(|_, _| {
        let trace =
            r"org.x.ConnectException: gone\n\tat org.x.A.b(A.java:1)\nCaused by: java.io.EOFException: closed\n";
        let task = format!(r#"{{"id": 0, "state": "FAILED", "worker_id": "w:8083", "trace": "{trace}"}}"#);
        (200, format!(r#"{{"name": "shop", "connector": {{"state": "RUNNING"}}, "tasks": [{task}]}}"#))
    });
    let folder = TempDir::new().expect("a folder");
    let (output, told) = lode(folder.path(), &["status", "connector.json", "--connect", &failed]);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("FAILED") && told.contains("gone; Caused by: java.io.EOFException: closed"), "{told}");

    let unknown = connect(|_, _| (404, String::new()));
    let (output, told) = lode(folder.path(), &["status", "connector.json", "--connect", &unknown]);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("hint: lode connector apply connector.json"), "{told}");
}

#[test]
fn the_check_ends_with_1_where_something_loses_data() {
    let folder = TempDir::new().expect("a folder");
    let (output, told) = lode(folder.path(), &["check", "connector.json"]);
    assert_eq!(output.status.code(), Some(0), "{told}");
    fs::write(folder.path().join("schema.sql"), "CREATE TABLE clicks (at INT);").expect("the schema");
    let (output, told) = lode(folder.path(), &["check", "connector.json", "--schema", "schema.sql"]);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("table `clicks`"), "{told}");
}
