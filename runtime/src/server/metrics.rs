//! The page for Prometheus, in its text format 0.0.4.
//!
//! Promises base units (seconds, bytes), counters that end in `_total` and begin at 0 with each start, and each family
//! on the page whether or not it has a sample. What is not known is left out, never 0.

use std::fmt::{Display, Write as _};

use crate::pipeline::{Commits, Status, TableStatus, TopicStatus};

/// The page's content type.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page of a run that stands so.
pub(super) fn page(status: &Status) -> String {
    let mut page = Page::default();
    run(&mut page, status);
    topics(&mut page, status);
    layers(&mut page, status);
    tables(&mut page, status);
    page.text
}

fn run(page: &mut Page, status: &Status) {
    page.family("lode_info", MetricKind::Gauge, "the pipeline and the program that runs it");
    page.sample(&[("pipeline", &status.pipeline), ("version", status.version)], 1);
    page.family("lode_start_time_seconds", MetricKind::Gauge, "when the run started, since 1970");
    page.sample(&[], seconds(status.started_ms));
    page.family(
        "lode_ready",
        MetricKind::Gauge,
        "1 once the source is taken up and every table has caught up, as /readyz",
    );
    page.sample(&[], u8::from(status.ready));
    page.family("lode_records_read_total", MetricKind::Counter, "records read from the source");
    page.sample(&[], status.records);
    for (name, help, bytes) in [
        ("lode_source_buffer_bytes", "records read and not yet taken in", status.source_buffer.bytes),
        ("lode_source_buffer_limit_bytes", "beyond which nothing is read", status.source_buffer.limit_bytes),
        ("lode_table_buffer_bytes", "what tables have taken in and not committed", status.table_buffer.bytes),
        ("lode_table_buffer_limit_bytes", "beyond which tables commit early", status.table_buffer.limit_bytes),
    ] {
        page.family(name, MetricKind::Gauge, help);
        page.sample(&[], bytes);
    }
}

fn topics(page: &mut Page, status: &Status) {
    let partitions = || {
        status.bronze.iter().flat_map(|(topic, of)| {
            of.partitions.iter().map(move |(number, partition)| (&**topic, number.to_string(), partition))
        })
    };
    page.family("lode_source_end_offset", MetricKind::Gauge, "exclusive end of a Kafka partition, as last known");
    for (topic, number, partition) in partitions() {
        page.known(&[("topic", topic), ("partition", &number)], partition.end);
    }
    page.family("lode_source_lag_records", MetricKind::Gauge, "records of a Kafka partition that Bronze lacks");
    for (topic, number, partition) in partitions() {
        page.known(&[("topic", topic), ("partition", &number)], partition.lag);
    }
    page.family("lode_table_offset", MetricKind::Gauge, "next offset of a Kafka partition, as committed by Bronze");
    for (topic, number, partition) in partitions() {
        page.known(&[BRONZE, ("table", topic), ("partition", &number)], partition.position);
    }
    page.family("lode_table_records_total", MetricKind::Counter, "records appended to Bronze");
    for (topic, of) in &status.bronze {
        page.sample(&[BRONZE, ("table", topic)], of.records);
    }
}

/// The tables that are made of others, with their layer.
fn made(status: &Status) -> impl Iterator<Item = ((&'static str, &'static str), &str, &TableStatus)> {
    let silver = status.silver.iter().map(|(table, of)| (SILVER, table.as_str(), of));
    silver.chain(status.gold.iter().map(|(table, of)| (GOLD, table.as_str(), of)))
}

/// What tables of every layer have.
fn layers(page: &mut Page, status: &Status) {
    use MetricKind::Gauge;
    type OfTopic = fn(&TopicStatus) -> Option<f64>;
    type OfTable = fn(&TableStatus) -> Option<f64>;
    let mut each = |name, help, of_topic: OfTopic, of_table: OfTable| {
        page.family(name, Gauge, help);
        for (topic, of) in &status.bronze {
            page.known(&[BRONZE, ("table", topic)], of_topic(of));
        }
        for (layer, table, of) in made(status) {
            page.known(&[layer, ("table", table)], of_table(of));
        }
    };
    each("lode_table_freshness_seconds", FRESHNESS, |t| t.freshness_seconds, |t| t.freshness_seconds);
    each(
        "lode_table_last_commit_timestamp_seconds",
        "when the last commit was, since 1970",
        |t| t.commits.last_ms.map(seconds),
        |t| t.commits.last_ms.map(seconds),
    );
    each(
        "lode_table_stopped",
        "1 where it stopped; /status says why",
        |t| Some(flag(t.stopped.is_some())),
        |t| Some(flag(t.report.stopped.is_some())),
    );
    each(
        "lode_table_retrying",
        "1 where it tries again what failed; /status says what",
        |t| Some(flag(t.retrying.is_some())),
        |t| Some(flag(t.report.retrying.is_some())),
    );
    let topics = status.bronze.iter().map(|(topic, of)| (BRONZE, &**topic, &of.commits));
    let tables = made(status).map(|(layer, table, of)| (layer, table, &of.commits));
    page.commits("lode_table_commit_seconds", "time that a commit took, module included", topics.chain(tables));
}

fn tables(page: &mut Page, status: &Status) {
    let mut each = |name, kind, help, value: fn(&TableStatus) -> Option<f64>| {
        page.family(name, kind, help);
        for (layer, table, of) in made(status) {
            page.known(&[layer, ("table", table)], value(of));
        }
    };
    use MetricKind::{Counter, Gauge};
    each("lode_table_changes_total", Counter, "changes taken in; of gold, driving rows derived", |t| {
        Some(t.changes as f64)
    });
    each("lode_table_rows_written_total", Counter, "rows written", |t| Some(t.rows_written as f64));
    each("lode_table_dead_letters_total", Counter, "records and rows set aside", |t| Some(t.dead_letters as f64));
    each("lode_table_rejected_rows_total", Counter, "of these, rows that a module did not take", |t| {
        Some(t.rejected_rows as f64)
    });
    each("lode_table_lag_records", Gauge, "records in Bronze that the table has not committed", |t| {
        Some(t.lag? as f64)
    });
    each("lode_table_caught_up", Gauge, "1 once the table has met the layer before it since it started", |t| {
        Some(flag(t.caught_up))
    });
    each("lode_table_files", Gauge, "data files", |t| Some(t.extent?.files as f64));
    each("lode_table_vectors", Gauge, "data files with a deletion vector", |t| Some(t.extent?.vectors as f64));
    each("lode_table_bytes", Gauge, "size of the data files", |t| Some(t.extent?.bytes as f64));
    each("lode_table_rows", Gauge, "rows that readers see", |t| Some(t.extent?.rows as f64));
    each("lode_table_hidden_rows", Gauge, "rows that deletion vectors hide", |t| Some(t.extent?.hidden_rows as f64));
    each("lode_table_index_bytes", Gauge, "memory that the index takes", |t| Some(t.index_bytes? as f64));
    each("lode_table_state_bytes", Gauge, "of gold, memory that the rows of its inputs take", |t| {
        Some(t.state_bytes? as f64)
    });
    each("lode_module_calls_total", Counter, "calls of the table's module", |t| Some(t.module_use.calls as f64));
    each("lode_module_seconds_total", Counter, "time that batches spent in the module", |t| Some(t.module_use.seconds));
    each("lode_module_memory_bytes", Gauge, "the most linear memory that one call came to", |t| {
        (t.module_use.calls > 0).then_some(t.module_use.memory_bytes as f64)
    });
    page.family("lode_module_info", MetricKind::Gauge, "the module that serves the table");
    for (layer, table, of) in made(status) {
        if let Some(sha256) = &of.report.module {
            page.sample(&[layer, ("table", table), ("sha256", sha256)], 1);
        }
    }
}

const FRESHNESS: &str = "age of the newest record committed, by Kafka's timestamp; it grows while a topic is quiet";
const BRONZE: (&str, &str) = ("layer", "bronze");
const SILVER: (&str, &str) = ("layer", "silver");
const GOLD: (&str, &str) = ("layer", "gold");

#[derive(Debug, Clone, Copy)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// A page in the making.
#[derive(Default)]
struct Page {
    text: String,
    /// of the samples that follow
    name: &'static str,
}

impl Page {
    /// Samples of `name` follow.
    fn family(&mut self, name: &'static str, kind: MetricKind, help: &str) {
        self.name = name;
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    fn known(&mut self, labels: &[(&str, &str)], value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample(labels, value);
        }
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (at, (name, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if at == 0 { '{' } else { ',' });
            escape(text, &mut self.text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn commits<'a>(
        &mut self,
        name: &'static str,
        help: &str,
        all: impl Iterator<Item = ((&'a str, &'a str), &'a str, &'a Commits)>,
    ) {
        self.family(name, MetricKind::Histogram, help);
        for (layer, table, commits) in all {
            let table = ("table", table);
            for (bound, count) in commits.up_to() {
                self.line("_bucket", &[layer, table, ("le", &bound.to_string())], count);
            }
            self.line("_bucket", &[layer, table, ("le", "+Inf")], commits.count);
            self.line("_sum", &[layer, table], commits.seconds);
            self.line("_count", &[layer, table], commits.count);
        }
    }
}

fn escape(text: &str, to: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => to.push_str("\\\\"),
            '"' => to.push_str("\\\""),
            '\n' => to.push_str("\\n"),
            other => to.push(other),
        }
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lodestream_tests::exposition::{Exposition, Labels};

    use super::*;
    use crate::pipeline::{Fill, Partition};

    const TOPIC: &str = "a \"topic\"\\of\nlines";

    fn status() -> Status {
        let known = Partition { position: Some(7), end: Some(9), lag: Some(2) };
        let partitions = BTreeMap::from([(0, known), (1, Partition { position: Some(3), end: None, lag: None })]);
        let topic = TopicStatus { records: 10, partitions, ..TopicStatus::default() };
        let table = TableStatus { changes: 1 << 53, lag: Some(4), caught_up: true, ..TableStatus::default() };
        Status {
            pipeline: "shop".to_owned(),
            version: "1.2.3",
            started_ms: 1_500,
            seconds: 1.0,
            ready: false,
            waiting_for: Vec::new(),
            stopped: Vec::new(),
            records: 11,
            source_buffer: Fill { bytes: 5, limit_bytes: 6 },
            table_buffer: Fill::default(),
            bronze: BTreeMap::from([(TOPIC.into(), topic)]),
            silver: BTreeMap::from([("orders".to_owned(), table)]),
            gold: BTreeMap::from([("facts".to_owned(), TableStatus { lag: None, ..TableStatus::default() })]),
            pipeline_file: None,
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn another_reader_finds_the_numbers_under_their_names() {
        let text = page(&status());
        let read = Exposition::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let at = |name: &str, pairs: &[(&str, &str)]| read.value(name, &labels(pairs));
        assert_eq!(at("lode_info", &[("pipeline", "shop"), ("version", "1.2.3")]), Some(1.0));
        assert_eq!((at("lode_start_time_seconds", &[]), at("lode_ready", &[])), (Some(1.5), Some(0.0)));
        assert_eq!(at("lode_records_read_total", &[]), Some(11.0));
        assert_eq!(at("lode_source_lag_records", &[("topic", TOPIC), ("partition", "0")]), Some(2.0));
        assert_eq!(at("lode_table_offset", &[BRONZE, ("table", TOPIC), ("partition", "1")]), Some(3.0));
        let table = [SILVER, ("table", "orders")];
        assert_eq!(at("lode_table_changes_total", &table), Some((1_u64 << 53) as f64));
        assert_eq!((at("lode_table_caught_up", &table), at("lode_table_stopped", &table)), (Some(1.0), Some(0.0)));
        assert_eq!(at("lode_table_commit_seconds_count", &table), Some(0.0));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let read = Exposition::parse(&page(&status())).unwrap();
        assert_eq!(read.of("lode_source_lag_records").count(), 1, "of the partition whose end is known");
        for name in ["lode_table_files", "lode_table_freshness_seconds", "lode_module_memory_bytes", "lode_module_info"]
        {
            assert_eq!(read.of(name).count(), 0, "{name}");
            assert!(read.families().any(|family| family == name), "{name}");
        }
    }
}
