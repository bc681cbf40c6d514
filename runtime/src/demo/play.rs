//! The demo as it goes on: what is looked at, told and waited for.
//!
//! Promises that news are told once, that half way through its time the module of contacts is swapped, and that nothing
//! is waited for without a deadline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::broker::Appended;
use super::ledger::Ledger;
use super::screen::{Screen, Sight};
use super::simulator::{Counts, Simulator};
use super::stage::Stage;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Location;
use crate::model::positions::Offsets;
use crate::model::table_id::TableId;
use crate::pipeline::{Progress, Report, TableReport};

/// How often the lake's logs are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often the lines are drawn.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The demo as it goes on.
pub(super) struct Play<'a> {
    stage: &'a Stage,
    root: Location,
    ledger: Ledger,
    appended: Arc<Appended>,
    progress: Arc<Progress>,
    screen: Screen,
    started: Instant,
    drawn: Drawn,
    /// what was told of each table last
    told: BTreeMap<TableId, Told>,
}

/// Totals when the lines were drawn last.
struct Drawn {
    at: Instant,
    written: u64,
    read: u64,
    rows: u64,
}

#[derive(Default)]
struct Told {
    module: Option<String>,
    /// when the last refusal or stop was, in milliseconds since 1970
    trouble_ms: i64,
}

impl<'a> Play<'a> {
    /// # Errors
    /// `Config` where the stage's lake is none.
    pub(super) fn begin(
        stage: &'a Stage,
        progress: Arc<Progress>,
        appended: Arc<Appended>,
        screen: Screen,
    ) -> Result<Play<'a>> {
        let now = Instant::now();
        Ok(Play {
            root: stage.root()?,
            ledger: Ledger::new(&stage.lake),
            stage,
            appended,
            progress,
            screen,
            started: now,
            drawn: Drawn { at: now, written: 0, read: 0, rows: 0 },
            told: BTreeMap::new(),
        })
    }

    /// Tells something that stays.
    pub(super) fn tell(&mut self, text: &str) {
        self.screen.news(text);
    }

    /// Shows what goes on; with a number of seconds until they are over, and a module has been swapped on the way.
    ///
    /// # Errors
    /// `Internal` when the store fails, or the swap takes too long.
    pub(super) async fn go_on(&mut self, simulator: &Simulator, seconds: Option<u64>) -> Result<()> {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut swapped = false;
        loop {
            tick.tick().await;
            self.look(simulator.counts()).await?;
            if simulator.has_failed() {
                return Ok(());
            }
            let Some(length) = seconds.map(Duration::from_secs) else { continue };
            let elapsed = self.started.elapsed();
            if !swapped && elapsed >= length / 2 && self.contacts_have(|first| first) {
                let hash = self.stage.masked_hash.get(..8).unwrap_or_default();
                self.tell(&format!(
                    "a module that masks contacts (`{hash}`) takes the place of the one that cleans them"
                ));
                self.stage.swap()?;
                swapped = true;
            }
            let masked = &self.stage.masked_hash;
            if swapped && elapsed >= length && self.contacts_have(|_| masked) {
                return Ok(());
            }
            if elapsed > length + PATIENCE {
                let message = "no row of customers and sellers was made by the module that was swapped in";
                return Err(Error::new(ErrorKind::Internal, message).hint("`lode status` says whether it was refused"));
            }
        }
    }

    /// True when each table of contacts has rows by the module that `of` gives for its first one.
    fn contacts_have<'h>(&'h self, of: impl Fn(&'h String) -> &'h String) -> bool {
        self.stage.contacts.iter().all(|(table, first)| self.ledger.has_rows_by(table, of(first)))
    }

    /// Waits until Bronze and Silver have everything below `ends`.
    ///
    /// # Errors
    /// `Internal` when they do not get there in time.
    pub(super) async fn drain(&mut self, counts: &Counts, ends: &Offsets) -> Result<()> {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            tick.tick().await;
            self.look(counts).await?;
            if self.ledger.has_all(ends, self.stage.tables.len()) {
                return Ok(());
            }
        }
        let message = format!("the lake did not take in everything within `{} s`", PATIENCE.as_secs());
        Err(Error::new(ErrorKind::Internal, message).hint("`lode status` says which table is behind, or stopped"))
    }

    async fn look(&mut self, counts: &Counts) -> Result<()> {
        self.ledger.read(&self.appended);
        if let Some(report) = Report::read(&self.root, &self.stage.config.name).await? {
            for (table, report) in &report.tables {
                if let Some(news) = self.told.entry(table.clone()).or_default().news(table, report) {
                    self.screen.news(&news);
                }
            }
        }
        if self.drawn.at.elapsed() >= DRAW_EVERY {
            self.draw(counts);
        }
        Ok(())
    }

    fn draw(&mut self, counts: &Counts) {
        let now = Drawn {
            at: Instant::now(),
            written: counts.records.load(Relaxed),
            read: self.progress.summary().records,
            rows: self.ledger.rows().map(|(_, rows)| rows).sum(),
        };
        let before = std::mem::replace(&mut self.drawn, now);
        let seconds = before.at.elapsed().as_secs_f64();
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
        self.screen.show(&Sight {
            seconds: self.started.elapsed().as_secs(),
            written: rate(self.drawn.written, before.written),
            read: rate(self.drawn.read, before.read),
            rows: rate(self.drawn.rows, before.rows),
            repeated: counts.repeated.load(Relaxed),
            freshness: self.ledger.freshness(),
            tables: self.ledger.rows().map(|(table, rows)| (table.to_owned(), rows)).collect(),
        });
    }
}

impl Told {
    /// What is new of a table.
    fn news(&mut self, table: &TableId, report: &TableReport) -> Option<String> {
        let short = |hash: &str| hash.get(..8).unwrap_or(hash).to_owned();
        let trouble =
            report.stopped.as_ref().map(|t| ("stopped", t)).or(report.refused.as_ref().map(|t| ("refused", t)));
        if let Some((what, trouble)) = trouble.filter(|(_, trouble)| trouble.time_ms > self.trouble_ms) {
            self.trouble_ms = trouble.time_ms;
            self.module.clone_from(&report.module);
            let hint = trouble.hint.as_deref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
            return Some(format!("{table} {what}: {}{hint}", trouble.reason));
        }
        let module = report.module.as_deref()?;
        let Some(before) = self.module.as_deref() else {
            self.module = Some(module.to_owned());
            return None;
        };
        // The report names the module a moment before it knows what changed.
        let difference = report.difference.as_deref().filter(|_| before != module)?;
        let news = format!("{table}: `{}` took over from `{}`; {difference}", short(module), short(before));
        self.module = Some(module.to_owned());
        Some(news)
    }
}
