//! The program `lode`, command by command.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::capture::Place;
use crate::pipeline::Pipeline;
use crate::places;
use crate::process::{Ended, Running};

/// Longest that a run over a capture may take.
pub const LIMIT: Duration = Duration::from_secs(300);

/// A named place in the program where it ends itself when told to by `LODE_FAILPOINT`.
pub const FAILPOINTS: [&str; 12] = [
    "flush.after_data_file",
    "flush.after_vector_file",
    "flush.after_commit",
    "compact.before_commit",
    "compact.after_commit",
    "index.while_loading",
    "dead_letters.after_write",
    "bronze.after_data_file",
    "bronze.after_commit",
    "changes.after_data_file",
    "changes.before_commit",
    "changes.after_commit",
];

/// One line of `lode dead-letters`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// topic, partition, offset
    pub place: Place,
    /// why it is there
    pub reason: String,
}

impl Pipeline {
    /// `lode WORDS… pipeline.toml MORE…`, not yet started.
    pub fn command(&self, words: &[&str], more: &[&str]) -> Command {
        let mut command = Command::new(places::program("lode"));
        command.current_dir(self.folder()).args(words).arg("pipeline.toml").args(more);
        command
    }

    /// Starts `lode run` without an end.
    pub fn start(&self) -> Running {
        self.launch("run", &mut self.command(&["run"], &[]))
    }

    /// Starts `lode run --until-end`.
    pub fn start_until_end(&self) -> Running {
        self.launch("run-until-end", &mut self.command(&["run"], &["--until-end"]))
    }

    /// Starts `lode WORDS… pipeline.toml MORE…`.
    pub fn launch_words(&self, what: &str, words: &[&str], more: &[&str]) -> Running {
        self.launch(what, &mut self.command(words, more))
    }

    /// `lode run --until-end`; fails unless it ends with 0.
    #[track_caller]
    pub fn run_until_end(&self) -> Ended {
        self.start_until_end().end(LIMIT).expect_code(0)
    }

    /// Runs `command` to its end.
    pub fn output(&self, what: &str, mut command: Command) -> Ended {
        self.launch(what, &mut command).end(LIMIT)
    }

    /// Runs `command` with a failpoint set; `name` may carry `:nth`.
    pub fn output_failing_at(&self, name: &str, mut command: Command) -> Ended {
        command.env("LODE_FAILPOINT", name);
        self.launch(&name.replace([':', '.'], "-"), &mut command).end(LIMIT)
    }

    /// Rows of `lode query --json`.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Value> {
        let ended = self.output("query", self.command(&["query"], &[sql, "--json"])).expect_code(0);
        rows(&ended.out)
    }

    /// `lode dead-letters --json`, in order of place.
    #[track_caller]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let ended = self.output("dead-letters", self.command(&["dead-letters"], &["--json"])).expect_code(0);
        let mut letters: Vec<DeadLetter> = rows(&ended.out).iter().map(letter).collect();
        letters.sort_by(|a, b| a.place.cmp(&b.place));
        letters
    }

    fn launch(&self, what: &str, command: &mut Command) -> Running {
        Running::start(command, &self.log(what)).unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }
}

/// Machine output: one JSON array, or one object a line.
fn rows(text: &str) -> Vec<Value> {
    match serde_json::from_str(text) {
        Ok(Value::Array(rows)) => rows,
        _ => {
            let row = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
            text.lines().filter(|line| !line.trim().is_empty()).map(row).collect()
        }
    }
}

fn letter(row: &Value) -> DeadLetter {
    let number = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("no number `{name}` in {row}"));
    let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("no text `{name}` in {row}")).to_owned();
    let partition = i32::try_from(number("partition")).expect("a partition's number");
    DeadLetter { place: (text("topic"), partition, number("offset")), reason: text("reason") }
}
