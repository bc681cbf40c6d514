//! `lode status` and `lode dead-letters`: what the lake itself says, whether or not a pipeline runs.
//!
//! What cannot be read of the lake is said with its reason, and everything else is told as usual; the program then ends
//! with 1, as whoever asked did not get all.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use futures::TryStreamExt;
use serde::Serialize;

use super::print::{self, Form};
use super::{lake, lake_root};
use crate::config::Config;
use crate::decode;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::Lake;
use crate::lake::{Location, delta_table, lake_error, positions_of};
use crate::model::positions::{Offsets, PartitionId};
use crate::model::table_id::TableId;
use crate::pipeline::{Refusal, Report, TableReport, kafka_settings};
use crate::source::kafka::EndsClient;

/// What `--json` prints.
#[derive(Serialize)]
struct Status {
    tables: Vec<TableStatus>,
    /// what cannot be read, tables as `<layer>.<name>`, and why
    broken: BTreeMap<String, Broken>,
    /// tables that have nothing in the lake yet, and what was refused or stopped of them
    unmade: BTreeMap<TableId, TableReport>,
    /// the pipeline file's last version that was not taken over, and why
    pipeline_file: Option<Refusal>,
}

/// Why something cannot be read.
#[derive(Serialize)]
struct Broken {
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Broken { reason: error.to_string(), hint: error.next_step().map(str::to_owned) }
    }
}

#[derive(Serialize)]
struct TableStatus {
    table: String,
    version: u64,
    files: usize,
    bytes: u64,
    /// `topic/partition` → next offset
    positions: BTreeMap<String, i64>,
    /// `topic/partition` → records that the table has not taken in: of Bronze, from Kafka, where it answers; of Silver,
    /// from Bronze
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<BTreeMap<String, i64>>,
    /// their sum
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<i64>,
    /// sha256 of the module of the last commit
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    dead_letters: u64,
    /// the last module that was not taken over, and why
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refusal>,
    /// what the table tries again in the run that goes on, and since when
    #[serde(skip_serializing_if = "Option::is_none")]
    retrying: Option<Refusal>,
    /// why the table stopped in the run that goes on, or in the last one
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Refusal>,
}

impl TableStatus {
    fn lacks(&mut self, lag: BTreeMap<String, i64>) {
        self.behind = Some(lag.values().sum());
        self.lag = Some(lag);
    }
}

/// Prints every table with its version, size, positions, lag, module, dead letters, and what was refused or stopped.
pub(super) async fn status(config: &Config, json: bool) -> Result<ExitCode> {
    let status = look(config).await?;
    let code = if status.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        let text = serde_json::to_string(&status)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot write the status").caused_by(e))?;
        println!("{text}");
        return Ok(code);
    }
    print!("{}", text::tables(&status.tables));
    for (what, broken) in &status.broken {
        println!("\n{what} cannot be read: {}", broken.reason);
        if let Some(hint) = &broken.hint {
            println!("hint: {hint}");
        }
    }
    for t in &status.tables {
        print_refusal(&format!("{} tries again", t.table), t.retrying.as_ref());
        print_refusal(&format!("{} stopped", t.table), t.stopped.as_ref());
        print_refusal(&format!("{}: a module was refused, the one before serves", t.table), t.refused.as_ref());
    }
    for (name, told) in &status.unmade {
        print_refusal(&format!("{name} tries again"), told.retrying.as_ref());
        print_refusal(&format!("{name} stopped"), told.stopped.as_ref());
        print_refusal(&format!("{name}: a module was refused"), told.refused.as_ref());
    }
    print_refusal("the pipeline file was refused, the one before is in force", status.pipeline_file.as_ref());
    Ok(code)
}

async fn look(config: &Config) -> Result<Status> {
    let root = lake_root(config)?;
    let lake = Lake::new(root.clone());
    let mut broken = BTreeMap::new();
    let mut note = |what: &str, error: Error| drop(broken.insert(what.to_owned(), Broken::from(error)));
    let report = Report::read(&root, &config.name).await.map_err(|error| note("the pipeline's report", error));
    let mut report = report.ok().flatten().unwrap_or_default();
    let letters = count_letters(&lake).await.map_err(|error| note(crate::lake::DEAD_LETTERS, error));
    let letters = letters.unwrap_or_default();
    let mut tables = Vec::new();
    let topics = lake.tables("bronze").await?;
    let ends = source_ends(config, &topics).await;
    let mut bronze: BTreeMap<String, i64> = BTreeMap::new();
    let mut unread: BTreeSet<String> = BTreeSet::new();
    for topic in topics {
        let told = report.tables.remove(&TableId::bronze(topic.as_str())).unwrap_or_default();
        match read(&root, "bronze", &topic).await {
            Ok(mut status) => {
                bronze.extend(status.positions.clone());
                if let Some(ends) = &ends {
                    let own = ends.iter().filter(|(id, _)| *id.topic == *topic).map(|(id, end)| (place(id), *end));
                    status.lacks(own.map(|(id, end)| lag(id, end, &status.positions)).collect());
                }
                (status.retrying, status.stopped) = (told.retrying, told.stopped);
                tables.push(status);
            }
            Err(error) => {
                note(&format!("bronze.{topic}"), error);
                unread.insert(topic);
            }
        }
    }
    for name in lake.tables("silver").await? {
        let told = report.tables.remove(&TableId::silver(name.as_str())).unwrap_or_default();
        match read(&root, "silver", &name).await {
            Ok(mut status) => {
                let topics: BTreeSet<&str> = rows(&status.positions).map(|(id, _)| topic_of(id)).collect();
                // what Bronze holds is not known of a topic that cannot be read
                if !topics.iter().any(|topic| unread.contains(*topic)) {
                    let held = bronze.iter().filter(|(id, _)| topics.contains(topic_of(id)));
                    status.lacks(held.map(|(id, end)| lag(id.clone(), *end, &status.positions)).collect());
                }
                status.dead_letters = letters.get(&(false, name.clone())).copied().unwrap_or(0);
                (status.refused, status.retrying, status.stopped) = (told.refused, told.retrying, told.stopped);
                tables.push(status);
            }
            Err(error) => note(&format!("silver.{name}"), error),
        }
    }
    for name in lake.tables("gold").await? {
        let told = report.tables.remove(&TableId::gold(name.as_str())).unwrap_or_default();
        match read(&root, "gold", &name).await {
            Ok(mut status) => {
                status.dead_letters = letters.get(&(true, name)).copied().unwrap_or(0);
                (status.refused, status.retrying, status.stopped) = (told.refused, told.retrying, told.stopped);
                tables.push(status);
            }
            Err(error) => note(&format!("gold.{name}"), error),
        }
    }
    Ok(Status { tables, broken, unmade: unmade(report.tables), pipeline_file: report.pipeline_file })
}

/// What is told of tables that are not in the lake.
fn unmade(left: BTreeMap<TableId, TableReport>) -> BTreeMap<TableId, TableReport> {
    let telling = |told: &TableReport| told.stopped.is_some() || told.refused.is_some() || told.retrying.is_some();
    left.into_iter().filter(|(_, told)| telling(told)).collect()
}

/// Where the topics end in Kafka; `None` where there is no Kafka, or it does not say.
async fn source_ends(config: &Config, topics: &[String]) -> Option<Offsets> {
    let settings = kafka_settings(config, false)?;
    let topics = topics.to_vec();
    let asked = tokio::task::spawn_blocking(move || {
        EndsClient::new(&settings)?.ends_of_topics(&topics.iter().map(String::as_str).collect::<Vec<_>>())
    });
    match asked.await.map_err(|e| Error::new(ErrorKind::Internal, "asking for ends failed").caused_by(e)).flatten() {
        Ok(ends) => Some(ends),
        Err(error) => {
            tracing::warn!(%error, hint = error.next_step(), "how far bronze lags behind is not known");
            None
        }
    }
}

/// Of a partition that the table has nothing of, everything from offset 0 on.
fn lag(id: String, end: i64, positions: &BTreeMap<String, i64>) -> (String, i64) {
    let lag = (end - positions.get(&id).copied().unwrap_or(0)).max(0);
    (id, lag)
}

fn place(id: &PartitionId) -> String {
    format!("{}/{}", id.topic, id.partition)
}

fn topic_of(place: &str) -> &str {
    place.rsplit_once('/').map_or("", |(topic, _)| topic)
}

fn print_refusal(what: &str, refusal: Option<&Refusal>) {
    let Some(refusal) = refusal else { return };
    let time = chrono::DateTime::from_timestamp_millis(refusal.time_ms).unwrap_or_default();
    println!("\n{what} ({}): {}", time.format("%Y-%m-%d %H:%M:%S UTC"), refusal.reason);
    if let Some(hint) = &refusal.hint {
        println!("hint: {hint}");
    }
}

/// Offsets in topics of rows: in the schema-change topic a Silver table stands at the last statement that it followed.
fn rows(positions: &BTreeMap<String, i64>) -> impl Iterator<Item = (&String, &i64)> {
    let told: BTreeSet<&str> = positions.keys().filter_map(|id| decode::schema_topic(topic_of(id))).collect();
    positions.iter().filter(move |(id, _)| !told.contains(topic_of(id)))
}

async fn read(root: &Location, layer: &str, name: &str) -> Result<TableStatus> {
    const READING: &str = "reading the table's log failed";
    let location = root.table(&format!("{layer}/{name}"))?;
    let table = delta_table(&location, None).await?;
    let snapshot = table.snapshot().map_err(|e| lake_error(READING, e))?;
    let files = snapshot.log_data();
    let module = table
        .history(Some(16))
        .try_collect::<Vec<_>>()
        .await
        .map_err(|e| lake_error(READING, e))?
        .into_iter()
        .filter_map(|commit| Some(commit.info.get("lode")?.get("module")?.as_str()?.to_owned()))
        .next();
    let positions = positions_of(&location).await?;
    Ok(TableStatus {
        table: format!("{layer}.{name}"),
        version: table.version().unwrap_or(0) as u64,
        files: files.num_files(),
        bytes: files.iter().map(|f| f.size().max(0) as u64).sum(),
        positions: positions.partitions().map(|(id, next)| (place(id), next)).collect(),
        lag: None,
        behind: None,
        module,
        dead_letters: 0,
        refused: None,
        retrying: None,
        stopped: None,
    })
}

/// How many there are of each table, by whether it is a Gold table and its name.
async fn count_letters(lake: &Lake) -> Result<BTreeMap<(bool, String), u64>> {
    let mut counts = BTreeMap::new();
    if lake.has_table(crate::lake::DEAD_LETTERS).await? {
        let sql = format!(
            "SELECT \"table\" AS t, stage = 'gold' AS g, count(*) AS n FROM {} GROUP BY 1, 2",
            crate::lake::DEAD_LETTERS
        );
        for batch in lake.query_table(crate::lake::DEAD_LETTERS, &sql).await? {
            let cell = |name: &str, row| {
                batch.column_by_name(name).and_then(|c| arrow::util::display::array_value_to_string(c, row).ok())
            };
            for row in 0..batch.num_rows() {
                if let (Some(table), Some(n)) = (cell("t", row), cell("n", row).and_then(|n| n.parse().ok())) {
                    counts.insert((cell("g", row).as_deref() == Some("true"), table), n);
                }
            }
        }
    }
    Ok(counts)
}

/// Prints dead letters, newest first.
pub(super) async fn dead_letters(config: &Config, table: Option<&str>, limit: usize, form: Form) -> Result<()> {
    let lake = lake(config)?;
    if !lake.has_table(crate::lake::DEAD_LETTERS).await? {
        if form == Form::Table {
            println!("no dead letters");
        }
        return Ok(());
    }
    let only = table.map(|t| format!("WHERE \"table\" = '{}'", t.replace('\'', "''"))).unwrap_or_default();
    let sql = format!(
        "SELECT \"time\", stage, \"table\", topic, \"partition\", \"offset\", reason, module FROM {} {only} \
         ORDER BY \"time\" DESC, topic, \"partition\", \"offset\" LIMIT {limit}",
        crate::lake::DEAD_LETTERS
    );
    print::batches(&lake.query_table(crate::lake::DEAD_LETTERS, &sql).await?, form)
}
