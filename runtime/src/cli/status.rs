//! `lode status` and `lode dead-letters`: what the lake itself says, whether or not a pipeline runs.

use std::collections::BTreeMap;

use deltalake::DeltaTableBuilder;
use futures::TryStreamExt;
use serde::Serialize;

use super::lake;
use super::print::{self, Form};
use crate::config::Config;
use crate::decode;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Refusal, Report, lake_options};
use crate::table::{Location, positions_of};

#[derive(Serialize)]
struct TableStatus {
    table: String,
    version: u64,
    files: usize,
    bytes: u64,
    /// `topic/partition` → next offset
    positions: BTreeMap<String, i64>,
    /// records in Bronze that this Silver table has not taken in
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<i64>,
    /// sha256 of the module of the last commit
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    dead_letters: u64,
    /// the last module that was not taken over, and why
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refusal>,
    /// why the table stopped in the run that goes on, or in the last one
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Refusal>,
}

/// Prints every table with its version, size, positions, module, dead letters, and what was refused or stopped.
pub(super) async fn status(config: &Config, json: bool) -> Result<()> {
    let lake = lake(config)?;
    let root = Location::open(&config.lake.root, &lake_options(config)?)?;
    let mut report = Report::read(&root, &config.name).await?.unwrap_or_default();
    let letters = count_letters(config).await?;
    let mut tables = Vec::new();
    let mut bronze: BTreeMap<String, i64> = BTreeMap::new();
    for layer in crate::query::LAYERS {
        for name in lake.tables(layer).await? {
            let mut status = read(config, layer, &name).await?;
            status.dead_letters = if layer == "silver" { letters.get(&name).copied().unwrap_or(0) } else { 0 };
            if layer == "bronze" {
                bronze.extend(status.positions.clone());
            } else {
                let lag = rows(&status.positions).map(|(id, next)| bronze.get(id).map_or(0, |end| (end - next).max(0)));
                status.behind = Some(lag.sum());
            }
            if layer == "silver"
                && let Some(told) = report.tables.remove(&name)
            {
                (status.refused, status.stopped) = (told.refused, told.stopped);
            }
            tables.push(status);
        }
    }
    if json {
        let text = serde_json::to_string(&tables)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot write the status").caused_by(e))?;
        println!("{text}");
        return Ok(());
    }
    println!(
        "{:<44} {:>8} {:>6} {:>10} {:>10} {:>7} {:>8}  module",
        "table", "version", "files", "bytes", "records", "behind", "letters"
    );
    for t in &tables {
        println!(
            "{:<44} {:>8} {:>6} {:>10} {:>10} {:>7} {:>8}  {}",
            t.table,
            t.version,
            t.files,
            t.bytes,
            rows(&t.positions).map(|(_, next)| *next).sum::<i64>(),
            t.behind.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            t.dead_letters,
            t.module.as_deref().map_or("-", |m| m.get(..12).unwrap_or(m)),
        );
    }
    for t in &tables {
        print_refusal(&format!("{} stopped", t.table), t.stopped.as_ref());
        print_refusal(&format!("{}: a module was refused, the one before serves", t.table), t.refused.as_ref());
    }
    // Tables that have nothing in the lake yet.
    for (name, told) in &report.tables {
        print_refusal(&format!("silver.{name} stopped"), told.stopped.as_ref());
        print_refusal(&format!("silver.{name}: a module was refused"), told.refused.as_ref());
    }
    print_refusal("the pipeline file was refused, the one before is in force", report.pipeline_file.as_ref());
    Ok(())
}

fn print_refusal(what: &str, refusal: Option<&Refusal>) {
    let Some(refusal) = refusal else { return };
    let time = chrono::DateTime::from_timestamp_millis(refusal.time_ms).unwrap_or_default();
    println!("\n{what} ({}): {}", time.format("%Y-%m-%d %H:%M:%S UTC"), refusal.reason);
    if let Some(hint) = &refusal.hint {
        println!("hint: {hint}");
    }
}

/// Positions in topics of rows: in the schema-change topic a Silver table stands at the last statement that it followed.
fn rows(positions: &BTreeMap<String, i64>) -> impl Iterator<Item = (&String, &i64)> {
    let topic = |id: &String| id.rsplit_once('/').map_or("", |(topic, _)| topic).to_owned();
    let told: Vec<String> =
        positions.keys().filter_map(|id| decode::schema_topic(&topic(id)).map(str::to_owned)).collect();
    positions.iter().filter(move |(id, _)| !told.contains(&topic(id)))
}

async fn read(config: &Config, layer: &str, name: &str) -> Result<TableStatus> {
    let options = lake_options(config)?;
    let location = Location::open(&config.lake.root, &options)?.table(&format!("{layer}/{name}"))?;
    let broken = || Error::new(ErrorKind::Corrupt, format!("table `{layer}/{name}` cannot be read"));
    let table = DeltaTableBuilder::from_url(location.url().clone())
        .map_err(|e| broken().caused_by(e))?
        .with_storage_options(options)
        .load()
        .await
        .map_err(|e| broken().caused_by(e))?;
    let snapshot = table.snapshot().map_err(|e| broken().caused_by(e))?;
    let files = snapshot.log_data();
    let module = table
        .history(Some(16))
        .try_collect::<Vec<_>>()
        .await
        .map_err(|e| broken().caused_by(e))?
        .into_iter()
        .filter_map(|commit| Some(commit.info.get("lode")?.get("module")?.as_str()?.to_owned()))
        .next();
    let positions = positions_of(&location).await?;
    Ok(TableStatus {
        table: format!("{layer}.{name}"),
        version: table.version().unwrap_or(0) as u64,
        files: files.num_files(),
        bytes: files.iter().map(|f| f.size().max(0) as u64).sum(),
        positions: positions.iter().map(|(id, next)| (format!("{}/{}", id.topic, id.partition), *next)).collect(),
        behind: None,
        module,
        dead_letters: 0,
        refused: None,
        stopped: None,
    })
}

async fn count_letters(config: &Config) -> Result<BTreeMap<String, u64>> {
    let lake = lake(config)?;
    let mut counts = BTreeMap::new();
    if lake.has_table(crate::deadletter::TABLE).await? {
        let sql = format!("SELECT \"table\" AS t, count(*) AS n FROM {} GROUP BY 1", crate::deadletter::TABLE);
        for batch in lake.query_table(crate::deadletter::TABLE, &sql).await? {
            let cell = |name: &str, row| {
                batch.column_by_name(name).and_then(|c| arrow::util::display::array_value_to_string(c, row).ok())
            };
            for row in 0..batch.num_rows() {
                if let (Some(table), Some(n)) = (cell("t", row), cell("n", row).and_then(|n| n.parse().ok())) {
                    counts.insert(table, n);
                }
            }
        }
    }
    Ok(counts)
}

/// Prints dead letters, newest first.
pub(super) async fn dead_letters(config: &Config, table: Option<&str>, limit: usize, form: Form) -> Result<()> {
    let lake = lake(config)?;
    if !lake.has_table(crate::deadletter::TABLE).await? {
        if form == Form::Table {
            println!("no dead letters");
        }
        return Ok(());
    }
    let only = table.map(|t| format!("WHERE \"table\" = '{}'", t.replace('\'', "''"))).unwrap_or_default();
    let sql = format!(
        "SELECT \"time\", stage, \"table\", topic, \"partition\", \"offset\", reason, module FROM {} {only} \
         ORDER BY \"time\" DESC, topic, \"partition\", \"offset\" LIMIT {limit}",
        crate::deadletter::TABLE
    );
    print::batches(&lake.query_table(crate::deadletter::TABLE, &sql).await?, form)
}
