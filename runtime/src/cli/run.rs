//! `lode run`, `lode demo`, `lode rebuild` and `lode maintain`.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::lake;
use crate::config::{self, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{BronzeTable, ChangesTable, KeyedTable};
use crate::model::table_id::Layer;
use crate::pipeline::{Options, Pipeline, Progress, Summary, table_settings};
use crate::server::Server;

/// How a run is wanted.
pub(super) struct Wanted {
    /// end when everything present at the start is committed
    pub(super) until_end: bool,
    /// where those who watch are answered
    pub(super) server: Option<config::Server>,
    /// the summary as JSON
    pub(super) json: bool,
    /// show progress on a terminal
    pub(super) live: bool,
}

/// Runs the pipeline until its source is drained or a signal asks for the end.
pub(super) async fn run(config: Config, wanted: Wanted) -> Result<()> {
    let Wanted { until_end, server, json, live } = wanted;
    let name = config.name.clone();
    let pipeline = Pipeline::new(config, Options { until_end, watched: server.is_some() })?;
    let progress = pipeline.progress();
    let server = match server {
        Some(settings) => Some(Server::start(&settings, Arc::clone(&progress)).await?),
        None => None,
    };
    let live = live && std::io::stderr().is_terminal();
    let ticker = live.then(|| tokio::spawn(show_progress(Arc::clone(&progress))));
    let waking = tokio::spawn(take_up_on_hangup(pipeline.nudge()));
    let ended = pipeline.run(signal()).await;
    waking.abort();
    if let Some(server) = server {
        server.stop().await;
    }
    if let Some(ticker) = ticker {
        ticker.abort();
        eprint!("\r\x1b[K");
    }
    let summary = match &ended {
        Ok(summary) => summary.clone(),
        Err(_) => progress.summary(),
    };
    if json {
        let text = serde_json::to_string(&summary)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot write the summary").caused_by(e))?;
        println!("{text}");
    } else {
        print_summary(&name, &summary);
    }
    ended.map(|_| ())
}

/// Shows the online store until a signal asks for the end, or its time is over.
pub(super) async fn demo(options: crate::demo::Options) -> Result<()> {
    crate::demo::run(options, signal()).await
}

/// Resolves at SIGINT or SIGTERM; a second one ends the process at once.
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGTERM");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: committing what was read; a second signal ends at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
}

/// At SIGHUP, tables that have stopped are taken up again.
async fn take_up_on_hangup(nudge: Arc<Notify>) {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::hangup()) {
        Ok(mut hangups) => {
            while hangups.recv().await.is_some() {
                nudge.notify_one();
            }
        }
        Err(error) => tracing::warn!(%error, "cannot listen for SIGHUP"),
    }
}

async fn show_progress(progress: Arc<Progress>) {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = progress.summary();
        let rate = now.records.saturating_sub(last);
        last = now.records;
        let rows: u64 = now.silver.values().map(|t| t.rows).sum();
        let gold: u64 = now.gold.values().map(|t| t.rows).sum();
        let letters: u64 = now.silver.values().chain(now.gold.values()).map(|t| t.dead_letters).sum();
        eprint!(
            "\r\x1b[K{:.0}s  {} records read ({rate}/s)  bronze {}  silver rows {rows}  gold rows {gold}  dead letters {letters}",
            now.seconds, now.records, now.bronze
        );
    }
}

fn print_summary(name: &str, summary: &Summary) {
    let changes: u64 = summary.silver.values().map(|t| t.changes).sum();
    let letters: u64 = summary.silver.values().chain(summary.gold.values()).map(|t| t.dead_letters).sum();
    println!(
        "{name}: {} records read, {} appended to bronze, {changes} changes into {} silver tables, {letters} dead letters, {:.1} s",
        summary.records,
        summary.bronze,
        summary.silver.len(),
        summary.seconds
    );
    for (table, counts) in &summary.silver {
        let stopped = counts.stopped.as_deref().map(|s| format!("  stopped: {s}")).unwrap_or_default();
        println!(
            "  {table:<28} {:>9} changes {:>9} rows written {:>5} commits {:>5} dead letters{stopped}",
            counts.changes, counts.rows, counts.commits, counts.dead_letters
        );
    }
    for (table, counts) in &summary.gold {
        let stopped = counts.stopped.as_deref().map(|s| format!("  stopped: {s}")).unwrap_or_default();
        println!(
            "  gold.{table:<23} {:>9} derived {:>9} rows written {:>5} commits {:>5} dead letters{stopped}",
            counts.changes, counts.rows, counts.commits, counts.dead_letters
        );
    }
}

/// Derives a Silver table again from Bronze.
pub(super) async fn rebuild(config: Config, table: &str, json: bool) -> Result<()> {
    let Some(name) = table.strip_prefix("silver.") else {
        return Err(Error::new(ErrorKind::Config, format!("`{table}` is not a Silver table"))
            .hint("give it as `silver.<name>`, for example `lode rebuild pipeline.toml silver.orders`"));
    };
    let rebuilt = crate::pipeline::rebuild(config, name).await?;
    if json {
        let text = serde_json::to_string(&rebuilt)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot write the summary").caused_by(e))?;
        println!("{text}");
    } else {
        println!(
            "{table}: {} changes taken in again, {} dead letters, in force since version {} (generation {}), {:.1} s",
            rebuilt.changes, rebuilt.dead_letters, rebuilt.version, rebuilt.generation, rebuilt.seconds
        );
    }
    Ok(())
}

/// Compacts, checkpoints and vacuums every table and the dead letters.
pub(super) async fn maintain(config: &Config) -> Result<()> {
    let lake = lake(config)?;
    let root = super::lake_root(config)?;
    let settings = table_settings(config);
    for topic in lake.tables("bronze").await? {
        let path = format!("bronze/{topic}");
        let mut table = BronzeTable::open_or_create(root.table(&path)?, &topic, settings.clone()).await?;
        let before = table.version();
        let vacuumed = table.maintain().await?;
        println!(
            "{path}: version {before} to {}, {} files ({} bytes) vacuumed",
            table.version(),
            vacuumed.files,
            vacuumed.bytes
        );
    }
    let mut paths = Vec::new();
    for layer in [Layer::Silver, Layer::Gold] {
        let tables = lake.tables(&layer.to_string()).await?;
        paths.extend(tables.into_iter().map(|table| format!("{layer}/{table}")));
    }
    if lake.has_table(crate::lake::DEAD_LETTERS).await? {
        paths.push(crate::lake::DEAD_LETTERS.to_owned());
    }
    for path in paths {
        let Some(mut table) = KeyedTable::open(root.table(&path)?, settings.clone()).await? else { continue };
        let before = table.version();
        // first the feed takes what it lacks: nobody must vacuum files that the table names and the feed does not yet
        let feed = ChangesTable::open(&root.table(&format!("{path}_changes"))?, &table).await?;
        table.maintain().await?;
        let vacuumed = table.vacuum().await?;
        println!(
            "{path}: version {before} to {}, {} files ({} bytes) vacuumed",
            table.version(),
            vacuumed.files,
            vacuumed.bytes
        );
        if let Some(mut feed) = feed {
            let before = feed.version();
            let vacuumed = feed.maintain().await?;
            println!(
                "{path}_changes: version {before} to {}, {} files ({} bytes) vacuumed",
                feed.version(),
                vacuumed.files,
                vacuumed.bytes
            );
        }
    }
    Ok(())
}
