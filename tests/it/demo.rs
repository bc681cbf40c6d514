//! `lode demo`, unattended: it ends in a check that passes, and that sees what is lost or untold.

use std::process::Command;
use std::time::Duration;

use lodestream_tests::places;
use lodestream_tests::process::{Ended, Running};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(180);

/// Runs the demo for some seconds in a folder of its own.
fn demo(seed: &str, more: &[&str]) -> (Ended, TempDir) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let modules = places::module("online_store_contacts.wasm");
    let mut command = Command::new(places::program("lode"));
    command.current_dir(places::workspace()).args(["demo", "--seconds", "6", "--seed", seed, "--folder"]);
    command.arg(folder.path()).arg("--modules").arg(modules.parent().expect("folder of the modules")).args(more);
    let running = Running::start(&mut command, &folder.path().join("demo")).expect("a running demo");
    (running.end(LIMIT), folder)
}

/// The line of the result table that begins with `name`.
#[track_caller]
fn line<'a>(ended: &'a Ended, name: &str) -> Vec<&'a str> {
    let line =
        ended.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|w| w.first() == Some(&name));
    line.unwrap_or_else(|| panic!("no line of `{name}`\n{}", ended.last_words()))
}

#[test]
fn the_demo_swaps_a_module_and_ends_in_a_check_that_passes() {
    let (ended, folder) = demo("1", &[]);
    let ended = ended.expect_code(0);
    assert!(ended.out.contains("the check passed: 15 tables"), "{}", ended.last_words());
    for table in ["customers", "sellers"] {
        let took_over = ended.out.lines().any(|line| {
            line.starts_with(&format!("silver.{table}: ")) && line.contains("took over") && line.contains("`Email`")
        });
        assert!(took_over, "nobody told what the swap changes in `{table}`\n{}", ended.last_words());
        // name, rows, differ, missing, too many, then a hash and a number for each of the two modules
        assert_eq!(line(&ended, table).len(), 5 + 4, "{}", ended.last_words());
    }
    assert!(folder.path().join("lake/silver/orders/_delta_log").is_dir());
}

#[test]
fn the_demo_fails_when_a_record_is_lost() {
    let (ended, _folder) = demo("2", &["--fault", "lose-record"]);
    let ended = ended.expect_code(1);
    assert!(ended.err.contains("error: the check failed: 1 of 15 tables differ"), "{}", ended.last_words());
    assert_eq!(line(&ended, "customers")[2..5], ["1", "0", "0"], "{}", ended.last_words());
}

#[test]
fn the_demo_fails_when_the_store_forgets_a_change() {
    let (ended, _folder) = demo("3", &["--fault", "forget-change"]);
    let ended = ended.expect_code(1);
    assert!(ended.err.contains("error: the check failed: 1 of 15 tables differ"), "{}", ended.last_words());
    assert_eq!(line(&ended, "customers")[2..5], ["1", "0", "0"], "{}", ended.last_words());
}

#[test]
fn the_demo_fails_when_sales_are_made_with_the_cost_of_today() {
    let (ended, _folder) = demo("4", &["--fault", "cost-of-today"]);
    let ended = ended.expect_code(1);
    let told = "error: the check failed: 0 of 15 tables differ from the store, 1 of Gold";
    assert!(ended.err.contains(told), "{}", ended.last_words());
    assert_ne!(line(&ended, "FactSales")[2], "0", "{}", ended.last_words());
}
