//! What a person sees while the demo goes on.
//!
//! On a terminal a few lines that are drawn in place once a second; elsewhere one line a second. News stand above them
//! and stay.

use std::io::{IsTerminal, Write};

/// Characters of a line of tables: no line may break where it is drawn in place.
const WIDTH: usize = 76;

/// What the lines show.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub(super) seconds: u64,
    /// records a second: written by the simulator, read by the pipeline; rows a second written to Silver
    pub(super) written: u64,
    pub(super) read: u64,
    pub(super) rows: u64,
    /// records that the simulator wrote again
    pub(super) repeated: u64,
    /// milliseconds from producer to Silver, median and 99th percentile
    pub(super) freshness: Option<(i64, i64)>,
    /// rows written so far, by Silver table
    pub(super) tables: Vec<(String, u64)>,
}

/// The terminal, or what stands in for it.
#[derive(Debug)]
pub(super) struct Screen {
    in_place: bool,
    /// lines that are drawn now
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen { in_place: std::io::stdout().is_terminal(), drawn: 0 }
    }

    /// Something that stays.
    pub(super) fn news(&mut self, text: &str) {
        self.clear();
        print(text);
    }

    /// Draws the lines anew.
    pub(super) fn show(&mut self, sight: &Sight) {
        self.clear();
        if !self.in_place {
            return print(&format!("{}  {}", flow_line(sight), freshness_line(sight)));
        }
        let mut lines = vec![flow_line(sight), format!("        {}", freshness_line(sight))];
        lines.extend(table_lines(&sight.tables));
        self.drawn = lines.len();
        print(&lines.join("\n"));
    }

    fn clear(&mut self) {
        if self.drawn > 0 {
            // up, and everything below gone
            let _ = write!(std::io::stdout(), "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}

/// Whoever reads may be gone: that ends nothing.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn flow_line(sight: &Sight) -> String {
    let Sight { seconds, written, read, rows, repeated, .. } = sight;
    format!("{seconds:>4} s  written {written:>5}/s ({repeated} again)  read {read:>5}/s  silver {rows:>5} rows/s")
}

fn freshness_line(sight: &Sight) -> String {
    let seconds_of = |ms: i64| ms as f64 / 1000.0;
    match sight.freshness {
        Some((p50, p99)) => format!("fresh in silver after p50 {:.2} s  p99 {:.2} s", seconds_of(p50), seconds_of(p99)),
        None => "nothing in silver yet".to_owned(),
    }
}

fn table_lines(tables: &[(String, u64)]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for (name, rows) in tables {
        let cell = format!("  {name} {rows}");
        if line.chars().count() + cell.chars().count() > WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        line.push_str(&cell);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}
