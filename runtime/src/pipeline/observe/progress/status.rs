//! How a run stands, as those who watch see it: copied from what the stages told, lag and readiness worked out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::{Commits, ModuleUse, Progress, Table, Topic, locked, now_ms};
use crate::decode;
use crate::lake::Extent;
use crate::model::positions::{PartitionId, Positions};
use crate::model::table_id::Layer;
use crate::pipeline::observe::report::{Refusal, TableReport};
use crate::source::Reach;

/// How a run stands.
///
/// It is *ready* once its source has taken up partitions and every Silver table has, since it started, met what Bronze had
/// committed, and every Gold table what Silver had; no longer while a table starts anew or tries again what failed, when nothing is left to go on, and when the run
/// ends. A table that has stopped is told and holds nothing up: the others go on, and ending the process would mend nothing.
/// How far tables lag behind is no part of it either.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// the pipeline's name
    pub pipeline: String,
    /// of the program
    pub version: &'static str,
    /// when it started, milliseconds since 1970
    pub started_ms: i64,
    /// seconds since then
    pub seconds: f64,
    /// nothing is waited for
    pub ready: bool,
    /// why it is not ready
    pub waiting_for: Vec<String>,
    /// what has stopped: `silver.<table>` or `bronze.<topic>`
    pub stopped: Vec<String>,
    /// records read from the source
    pub records: u64,
    /// records read and not yet taken in by every table
    pub source_buffer: Fill,
    /// what the tables have taken in and not yet committed
    pub table_buffer: Fill,
    /// by topic
    pub bronze: BTreeMap<Arc<str>, TopicStatus>,
    /// by table
    pub silver: BTreeMap<String, TableStatus>,
    /// by table
    pub gold: BTreeMap<String, TableStatus>,
    /// the version of the pipeline file that was not taken over
    pub pipeline_file: Option<Refusal>,
}

/// How full a bounded place is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Fill {
    /// bytes in it
    pub bytes: usize,
    /// bytes that it is meant to hold
    pub limit_bytes: usize,
}

/// How a topic and its Bronze table stand.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TopicStatus {
    /// records appended
    pub records: u64,
    /// records in the source that Bronze lacks, where the source says how far it reaches
    pub lag: Option<i64>,
    /// seconds since the newest record that it holds was written to Kafka
    pub freshness_seconds: Option<f64>,
    /// by number
    pub partitions: BTreeMap<i32, Partition>,
    /// its commits
    pub commits: Commits,
    /// what it tries again, and since when
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrying: Option<Refusal>,
    /// why it stopped
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Refusal>,
}

/// How a Kafka partition stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// next offset, as committed by Bronze
    pub position: Option<i64>,
    /// exclusive end in the source, as last known
    pub end: Option<i64>,
    /// records between them
    pub lag: Option<i64>,
}

/// How a Silver or Gold table stands.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TableStatus {
    /// the topic that it is made of
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<Arc<str>>,
    /// of a Gold table, the version of each Silver table that it stands at
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, u64>,
    /// changes taken in; of a Gold table, driving rows derived
    pub changes: u64,
    /// rows written
    pub rows_written: u64,
    /// rows that a module rejected, or that made it fail
    pub rejected_rows: u64,
    /// records and rows set aside, the rejected ones included
    pub dead_letters: u64,
    /// records in Bronze that it has not committed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// since it started, it has met what the layer before it had committed
    pub caught_up: bool,
    /// seconds since the newest record that it has committed was written to Kafka
    pub freshness_seconds: Option<f64>,
    /// its commits
    pub commits: Commits,
    /// what its newest version consists of
    pub extent: Option<Extent>,
    /// memory that its index takes
    pub index_bytes: Option<usize>,
    /// of a Gold table, memory that the rows of its inputs take
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<usize>,
    /// what its modules used
    pub module_use: ModuleUse,
    /// the module that serves, what was refused, why the table stopped
    #[serde(flatten)]
    pub report: TableReport,
}

impl Progress {
    /// How the run stands now.
    pub fn status(&self) -> Status {
        let mut reports = self.reporter.report();
        let now_ms = now_ms();
        let topics = locked(&self.topics).clone();
        let tables = locked(&self.tables).clone();
        let (source_buffer, ends) = match self.source.get() {
            Some((budget, ends)) => (Fill { bytes: budget.taken_bytes(), limit_bytes: budget.bytes() }, ends.look()),
            None => (Fill::default(), BTreeMap::new()),
        };
        let mut bronze: BTreeMap<Arc<str>, TopicStatus> = BTreeMap::new();
        for (id, partition) in partitions(&topics, &ends) {
            bronze.entry(id.topic).or_default().partitions.insert(id.partition, partition);
        }
        for (name, topic) in &topics {
            let status = bronze.entry(Arc::clone(name)).or_default();
            status.records = topic.records;
            status.freshness_seconds = topic.commits.freshness_seconds(now_ms);
            status.commits = topic.commits.clone();
        }
        for status in bronze.values_mut() {
            status.lag = status.partitions.values().map(|partition| partition.lag).sum();
        }
        for (id, report) in reports.tables.extract_if(.., |id, _| id.layer == Layer::Bronze) {
            if report.stopped.is_some() || report.retrying.is_some() {
                let topic = bronze.entry(id.name).or_default();
                (topic.stopped, topic.retrying) = (report.stopped, report.retrying);
            }
        }
        let (mut silver, mut gold) = (BTreeMap::new(), BTreeMap::new());
        for (id, table) in tables {
            let of_layer = match id.layer {
                Layer::Bronze => continue,
                Layer::Silver => &mut silver,
                Layer::Gold => &mut gold,
            };
            let report = reports.tables.remove(&id).unwrap_or_default();
            of_layer.insert(id.name.to_string(), table.status(report, &topics, now_ms));
        }
        let waiting_for = self.waiting_for(&bronze, &silver, &gold);
        Status {
            pipeline: self.pipeline.clone(),
            version: env!("CARGO_PKG_VERSION"),
            started_ms: self.started_ms,
            seconds: self.started.elapsed().as_secs_f64(),
            ready: waiting_for.is_empty(),
            waiting_for,
            stopped: stopped(&bronze, &silver, &gold),
            records: self.read.load(Relaxed),
            source_buffer,
            table_buffer: Fill { bytes: self.room.taken_bytes(), limit_bytes: self.room.bytes() },
            bronze,
            silver,
            gold,
            pipeline_file: reports.pipeline_file,
        }
    }

    fn waiting_for(
        &self,
        bronze: &BTreeMap<Arc<str>, TopicStatus>,
        silver: &BTreeMap<String, TableStatus>,
        gold: &BTreeMap<String, TableStatus>,
    ) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.ending.load(Relaxed) {
            reasons.push("the run is ending".to_owned());
        }
        if !self.assigned.load(Relaxed) {
            reasons.push("the source has not taken up its partitions".to_owned());
        }
        let late = silver.iter().filter(|(_, table)| !table.caught_up && table.report.stopped.is_none());
        reasons.extend(late.map(|(name, _)| format!("silver `{name}` has not met Bronze since it started")));
        let late = gold.iter().filter(|(_, table)| !table.caught_up && table.report.stopped.is_none());
        reasons.extend(late.map(|(name, _)| format!("gold `{name}` has not met Silver since it started")));
        let topics = bronze.iter().map(|(topic, of)| (format!("bronze `{topic}`"), of.retrying.as_ref()));
        let tables = silver.iter().map(|(name, of)| (format!("silver `{name}`"), of.report.retrying.as_ref()));
        let made = gold.iter().map(|(name, of)| (format!("gold `{name}`"), of.report.retrying.as_ref()));
        let retrying = topics.chain(tables).chain(made).filter_map(|(table, retrying)| Some((table, retrying?)));
        reasons.extend(retrying.map(|(table, why)| {
            let seconds = (now_ms() - why.time_ms).max(0) / 1000;
            format!("{table} tries again since {seconds} s: {}", why.reason)
        }));
        let goes_on =
            bronze.values().any(|of| of.stopped.is_none()) || silver.values().any(|of| of.report.stopped.is_none());
        if !goes_on && (!bronze.is_empty() || !silver.is_empty()) {
            reasons.push("every table has stopped".to_owned());
        }
        reasons
    }
}

impl Table {
    fn status(self, report: TableReport, topics: &BTreeMap<Arc<str>, Topic>, now_ms: i64) -> TableStatus {
        TableStatus {
            lag: self.topic.as_ref().map(|own| lag(own, &self.stand.positions, topics)),
            inputs: self.inputs,
            state_bytes: self.state_bytes,
            changes: self.counts.changes,
            rows_written: self.counts.rows,
            rejected_rows: self.rejected,
            dead_letters: self.counts.dead_letters,
            caught_up: self.caught_up,
            freshness_seconds: self.commits.freshness_seconds(now_ms),
            commits: self.commits,
            extent: self.stand.extent,
            index_bytes: self.stand.index_bytes,
            module_use: self.module,
            topic: self.topic,
            report,
        }
    }
}

impl Commits {
    fn freshness_seconds(&self, now_ms: i64) -> Option<f64> {
        // The broker's clock may be ahead of ours.
        self.newest_record_ms.map(|newest| (now_ms - newest).max(0) as f64 / 1000.0)
    }
}

/// Every partition that Bronze holds something of, or that the source reads.
fn partitions(
    topics: &BTreeMap<Arc<str>, Topic>,
    ends: &BTreeMap<PartitionId, Reach>,
) -> BTreeMap<PartitionId, Partition> {
    let mut all: BTreeMap<PartitionId, Partition> = BTreeMap::new();
    for (id, position) in topics.values().flat_map(|topic| topic.positions.partitions()) {
        all.entry(id.clone()).or_default().position = Some(position);
    }
    for (id, Reach { from, end }) in ends {
        let partition = all.entry(id.clone()).or_default();
        let reached = partition.position.map_or(*from, |position| position.max(*from));
        (partition.end, partition.lag) = (Some(*end), Some((end - reached).max(0)));
    }
    all
}

/// Records in Bronze past a Silver table's positions: of its own topic, and of topics of earlier names that it has read.
/// In the schema-change topic it stands at the last statement that it followed, which says nothing of what it lacks.
fn lag(own: &Arc<str>, positions: &Positions, topics: &BTreeMap<Arc<str>, Topic>) -> i64 {
    let told = decode::schema_topic(own);
    let is_read = |topic: &str| {
        *topic == **own || (Some(topic) != told && positions.partitions().any(|(id, _)| *id.topic == *topic))
    };
    let read = topics.iter().filter(|(topic, _)| is_read(topic)).flat_map(|(_, topic)| topic.positions.iter());
    read.map(|(id, end)| (end - positions.get(id).unwrap_or(0)).max(0)).sum()
}

fn stopped(
    bronze: &BTreeMap<Arc<str>, TopicStatus>,
    silver: &BTreeMap<String, TableStatus>,
    gold: &BTreeMap<String, TableStatus>,
) -> Vec<String> {
    let topics = bronze.iter().filter(|(_, topic)| topic.stopped.is_some()).map(|(name, _)| format!("bronze.{name}"));
    let of = |layer, tables: &BTreeMap<String, TableStatus>| {
        let stopped = tables.iter().filter(|(_, table)| table.report.stopped.is_some());
        stopped.map(|(name, _)| format!("{layer}.{name}")).collect::<Vec<_>>()
    };
    topics.chain(of(Layer::Silver, silver)).chain(of(Layer::Gold, gold)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::TableState;
    use super::*;
    use crate::buffer::Room;
    use crate::error::{Error, ErrorKind};
    use crate::model::table_id::TableId;
    use crate::pipeline::observe::report::Reporter;
    use crate::source::{Budget, KnownEnds};

    const TOOK: Duration = Duration::from_millis(20);

    fn progress() -> Progress {
        Progress::new("shop", Room::new(1000), Arc::new(Reporter::new("shop", false)))
    }

    fn positions(all: &[(&str, i32, i64)]) -> Positions {
        let one = |&(topic, partition, next): &(&str, i32, i64)| (PartitionId { topic: topic.into(), partition }, next);
        all.iter().map(one).collect()
    }

    fn stand(progress: &Progress, table: &str, at: &[(&str, i32, i64)]) {
        progress.table(&TableId::silver(table), |t| {
            t.stand = TableState { positions: positions(at), ..TableState::default() }
        });
    }

    #[test]
    fn a_run_is_ready_once_every_table_that_goes_on_has_met_bronze() {
        let progress = progress();
        assert_eq!(progress.status().waiting_for, ["the source has not taken up its partitions"]);
        progress.assigned();
        assert!(progress.status().ready);
        let topic = Arc::from("db.shop.orders");
        progress.start(&TableId::silver("orders"), &topic);
        progress.start(&TableId::silver("log"), &topic);
        assert_eq!(progress.status().waiting_for.len(), 2);
        progress.table(&TableId::silver("orders"), |t| t.caught_up = true);
        assert_eq!(progress.status().waiting_for, ["silver `log` has not met Bronze since it started"]);
        progress.stop(&TableId::silver("log"), &Error::new(ErrorKind::Gap, "it is gone").hint("look for it"));
        let status = progress.status();
        assert!(status.ready, "a table that stopped holds nothing up");
        assert_eq!(status.stopped, ["silver.log"]);
        assert_eq!(status.silver["log"].report.stopped.as_ref().unwrap().hint.as_deref(), Some("look for it"));
        progress.start(&TableId::silver("log"), &topic);
        assert!(!progress.status().ready && progress.status().stopped.is_empty());
        progress.forget(&TableId::silver("log"));
        progress.start(&TableId::silver("orders"), &topic);
        assert!(!progress.status().ready, "a table that starts again has to meet Bronze again");
        progress.table(&TableId::silver("orders"), |t| t.caught_up = true);
        progress.ending();
        assert_eq!(progress.status().waiting_for, ["the run is ending"]);
    }

    #[test]
    fn lag_is_what_lies_between_the_source_and_bronze_partition_by_partition() {
        let (progress, ends) = (progress(), KnownEnds::default());
        progress.reads_from(Budget::new(1 << 20), ends.clone());
        let topic: Arc<str> = Arc::from("db.shop.orders");
        let id = |partition| PartitionId { topic: Arc::clone(&topic), partition };
        // retention took the first 100 away, and Bronze has nothing yet
        ends.begin(&id(0), 100, 130);
        ends.begin(&id(1), 5, 5);
        assert_eq!(progress.status().bronze[&topic].lag, Some(30));
        progress.bronze(&topic, 20, &positions(&[("db.shop.orders", 0, 120)]), TOOK, Some(1));
        let of = progress.status().bronze.remove(&topic).unwrap();
        assert_eq!(of.partitions[&0], Partition { position: Some(120), end: Some(130), lag: Some(10) });
        assert_eq!(of.partitions[&1], Partition { position: None, end: Some(5), lag: Some(0) });
        assert_eq!((of.records, of.lag, of.commits.count), (20, Some(10), 1));
        assert!(of.freshness_seconds.unwrap() > 1e9, "since 1970");
        // The end as last known may be older than what was committed.
        progress.bronze(&topic, 11, &positions(&[("db.shop.orders", 0, 131)]), TOOK, None);
        assert_eq!(progress.status().bronze[&topic].lag, Some(0));
        progress.bronze_at(&topic, &positions(&[("db.shop.orders", 0, 131), ("db.shop.orders", 2, 4)]));
        let of = progress.status().bronze.remove(&topic).unwrap();
        assert_eq!((of.lag, of.partitions[&2].position), (None, Some(4)), "one partition's end is not known");
    }

    #[test]
    fn silver_lags_behind_bronze_in_its_own_topic_and_in_those_of_earlier_names() {
        let progress = progress();
        let topic: Arc<str> = Arc::from("db.shop.orders");
        progress.bronze_at(&topic, &positions(&[("db.shop.orders", 0, 10), ("db.shop.orders", 1, 20)]));
        progress.bronze_at(&Arc::from("db.shop.old"), &positions(&[("db.shop.old", 0, 7)]));
        progress.bronze_at(&Arc::from("db"), &positions(&[("db", 0, 50)]));
        progress.start(&TableId::silver("orders"), &topic);
        let lag = || progress.status().silver["orders"].lag.unwrap();
        assert_eq!(lag(), 30);
        stand(&progress, "orders", &[("db.shop.orders", 0, 4), ("db", 0, 3)]);
        assert_eq!(lag(), 6 + 20, "where it stands in the schema-change topic is no lag");
        stand(&progress, "orders", &[("db.shop.orders", 0, 10), ("db.shop.orders", 1, 20), ("db.shop.old", 0, 2)]);
        assert_eq!(lag(), 5);
    }

    #[test]
    fn a_topic_that_stopped_is_told_as_one() {
        let progress = progress();
        progress.stop(&TableId::bronze("db.shop.orders"), &Error::new(ErrorKind::Gap, "offset 7 is gone"));
        let status = progress.status();
        assert!(status.silver.is_empty());
        assert_eq!(status.stopped, ["bronze.db.shop.orders"]);
        assert_eq!(status.bronze["db.shop.orders"].stopped.as_ref().unwrap().reason, "offset 7 is gone");
    }
}
