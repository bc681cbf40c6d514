//! The page of the Rust SDK, followed to the letter in a folder outside the workspace: its commands are run, its files
//! written, and what its module makes of the example's changes is judged by the database's own final state.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use serde_json::Value;

use lodestream_tests::{lake, places};

/// What a reader of a page does, in order.
#[derive(Debug, PartialEq)]
enum Step {
    /// writes a file
    Write(String, String),
    /// adds lines to a file
    Add(String, String),
    /// runs commands
    Run(String),
    /// compares what the last command printed
    Expect(String),
}

/// The steps of a page: a block of code after "Write `file`:" or "Add to `file`:" is that file's, one of `sh` is
/// commands, one after "prints:" is their output. Other blocks are for reading only.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut before = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            before = if line.is_empty() { before } else { line };
            continue;
        };
        let block: String = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        let named = |verb: &str| Some(before.strip_prefix(verb)?.strip_suffix("`:")?.to_owned());
        if language == "sh" {
            steps.push(Step::Run(block));
        } else if let Some(file) = named("Write `") {
            steps.push(Step::Write(file, block));
        } else if let Some(file) = named("Add to `") {
            steps.push(Step::Add(file, block));
        } else if before.ends_with("prints:") {
            steps.push(Step::Expect(block));
        }
        before = "";
    }
    steps
}

/// One script of all steps, so that a `cd` or a variable of one command counts for the next.
fn script(steps: &[Step]) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for step in steps {
        let done = match step {
            Step::Write(file, text) => writeln!(script, "cat > {file} <<'END OF FILE'\n{text}END OF FILE"),
            Step::Add(file, text) => writeln!(script, "cat >> {file} <<'END OF FILE'\n\n{text}END OF FILE"),
            Step::Run(commands) => writeln!(script, "{commands}"),
            Step::Expect(_) => Ok(()),
        };
        done.expect("text");
    }
    script
}

/// Where cargo may build: outside the page's folder and outside the target directory whose lock this test run holds.
fn target_dir() -> PathBuf {
    match env::var_os("MODULES_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => places::programs().parent().map(|target| target.join("wasm")).unwrap_or_default(),
    }
}

/// Months of the example's orders that are past pending, and how many there are of each, by the database itself.
fn months_in_truth() -> BTreeMap<String, u64> {
    let file = File::open(places::example("truth/orders.jsonl.gz")).expect("truth of the example");
    let mut months = BTreeMap::new();
    for line in BufReader::new(GzDecoder::new(file)).lines().skip(1) {
        let order: Value = serde_json::from_str(&line.expect("a line")).expect("an order");
        if order["status"] != "pending" {
            *months.entry(order["placed_at"].as_str().expect("a time")[..7].to_owned()).or_default() += 1;
        }
    }
    months
}

#[test]
fn a_module_made_by_following_the_page_of_the_sdk_builds_and_runs() {
    let folder = tempfile::tempdir().expect("temporary folder");
    assert!(!folder.path().starts_with(places::workspace()), "`{}` is in the workspace", folder.path().display());
    let page = fs::read_to_string(places::workspace().join("sdk/rust/README.md")).expect("page of the SDK");
    let steps = steps(&page);
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::Write(..))).count(), 2, "{steps:?}");

    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([places::programs()].into_iter().chain(env::split_paths(&path))).expect("a path");
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(script(&steps)).current_dir(folder.path()).env("PATH", path);
    shell.env("LODESTREAM", places::workspace()).env("CARGO_TARGET_DIR", target_dir());
    shell.env("MODULES_TARGET_DIR", target_dir());
    // What the modules of the workspace need is all that this one may need.
    shell.env("CARGO_NET_OFFLINE", "true");
    for of_this_build in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "RUSTFLAGS"] {
        shell.env_remove(of_this_build);
    }
    places::program("lode");
    let told = lake::expect_success(&mut shell);

    let Some(Step::Expect(expected)) = steps.last() else { panic!("the page does not say what comes out: {steps:?}") };
    assert!(told.ends_with(expected.as_str()), "the page says\n{expected}but the commands print\n{told}");
    let pipeline = folder.path().join("my_orders");
    assert_eq!(months_in_lake(&pipeline), months_in_truth());
}

/// What the module's table holds, read by the program's own query but as JSON.
fn months_in_lake(folder: &Path) -> BTreeMap<String, u64> {
    let sql = "SELECT order_month, count(*) AS orders FROM silver.orders GROUP BY order_month";
    let mut query = Command::new(places::program("lode"));
    query.current_dir(folder).args(["query", "pipeline.toml", sql, "--json"]);
    let rows = lake::expect_success(&mut query);
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row as JSON"));
    let row = |row: &Value| Some((row["order_month"].as_str()?.to_owned(), row["orders"].as_u64()?));
    rows.map(|r| row(&r).unwrap_or_else(|| panic!("no month and number in {r}"))).collect()
}

#[test]
fn the_steps_of_a_page_are_its_commands_and_files() {
    let page = "Write `a.txt`:\n\n```text\none\n```\n\n```sh\ncat a.txt\n```\nor\n```rust\nlet x;\n```\nIt prints:\n```text\none\n```\n";
    let expected = [
        Step::Write("a.txt".to_owned(), "one\n".to_owned()),
        Step::Run("cat a.txt\n".to_owned()),
        Step::Expect("one\n".to_owned()),
    ];
    assert_eq!(steps(page), expected);
}
