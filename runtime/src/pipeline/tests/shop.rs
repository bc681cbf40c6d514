//! A database of fifteen tables with its connector: what it wrote into a capture file, and what the tables hold in the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::FaultyLake;

/// Tables of the database.
pub(super) const TABLES: usize = 15;

/// Keys and values of each topic, by offset. What the connector writes is in it at once.
pub(super) type Topics = Arc<Mutex<BTreeMap<Arc<str>, Vec<(Option<String>, Option<String>)>>>>;

pub(super) struct Shop {
    folder: TempDir,
    lines: String,
    topics: Topics,
    /// `id` and text of each row
    rows: Vec<BTreeMap<i64, String>>,
    columns: Vec<Columns>,
    pos: u64,
}

/// The columns of a table beside `id`. A row's text is that of the first and, after a slash, that of the second.
#[derive(Clone)]
struct Columns {
    name: &'static str,
    has_note: bool,
}

/// What happens to a table's structure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    ColumnAdded,
    ColumnRenamed,
    Truncated,
    MadeAnew,
}

/// The name of table `number`.
pub(super) fn table(number: usize) -> String {
    format!("t{number:02}")
}

/// The topic of table `number`.
pub(super) fn topic(number: usize) -> String {
    format!("db.shop.t{number:02}")
}

impl Shop {
    /// Fifteen tables `id`, `name`, of which the connector has told.
    pub(super) fn new() -> Self {
        let mut shop = Shop {
            folder: tempfile::tempdir().expect("a folder"),
            lines: String::new(),
            topics: Topics::default(),
            rows: vec![BTreeMap::new(); TABLES],
            columns: vec![Columns { name: "name", has_note: false }; TABLES],
            pos: 100,
        };
        for number in 0..TABLES {
            shop.tell(number, "CREATE", &format!("CREATE TABLE {}", table(number)));
        }
        shop
    }

    /// The table gets another structure, or loses its rows, and the connector tells it.
    pub(super) fn happen(&mut self, number: usize, event: Event) {
        let name = table(number);
        match event {
            Event::ColumnAdded => {
                self.columns[number].has_note = true;
                self.tell(number, "ALTER", &format!("ALTER TABLE {name} ADD COLUMN note VARCHAR(40)"));
            }
            Event::ColumnRenamed => {
                let from = std::mem::replace(&mut self.columns[number].name, "title");
                self.tell(number, "ALTER", &format!("ALTER TABLE {name} RENAME COLUMN {from} TO title"));
            }
            Event::Truncated => {
                self.rows[number].clear();
                self.tell(number, "", &format!("TRUNCATE TABLE {name}"));
            }
            Event::MadeAnew => {
                self.rows[number].clear();
                self.tell(number, "DROP", &format!("DROP TABLE {name}"));
                self.tell(number, "CREATE", &format!("CREATE TABLE {name}"));
            }
        }
    }

    /// The connector tells of a statement, and the table's columns after it.
    fn tell(&mut self, number: usize, kind: &str, ddl: &str) {
        let Columns { name, has_note } = self.columns[number].clone();
        let names = ["id", name, "note"];
        let columns = names.iter().take(if has_note { 3 } else { 2 }).enumerate().map(|(at, name)| {
            let kind = if at == 0 { "BIGINT" } else { "VARCHAR" };
            json!({"name": name, "typeName": kind, "length": 40, "position": at + 1, "optional": at > 0})
        });
        let structure = match kind {
            "DROP" => Value::Null,
            _ => json!({"primaryKeyColumnNames": ["id"], "columns": columns.collect::<Vec<_>>()}),
        };
        let name = table(number);
        let changes = match kind {
            "" => json!([]),
            _ => json!([{"type": kind, "id": format!("\"shop\".\"{name}\""), "table": structure}]),
        };
        let value = json!({"source": self.place(&name), "databaseName": "shop", "ddl": ddl, "tableChanges": changes});
        self.push("db", None, Some(&value));
    }

    /// Every table gets `count` rows more, and a third of its rows changes or goes.
    pub(super) fn work(&mut self, count: i64) {
        for step in 0..count {
            for number in 0..TABLES {
                let id = self.rows[number].keys().next_back().map_or(1, |last| last + 1);
                let text = |text: String| Some(if self.columns[number].has_note { text + "/noted" } else { text });
                let (created, changed) = (text(format!("{number}-{step}")), text(format!("changed {step}")));
                self.write(number, "c", id, created);
                match step % 6 {
                    2 => self.write(number, "u", id, changed),
                    5 => self.write(number, "d", id, None),
                    _ => {}
                }
            }
        }
        fs::write(self.file(), &self.lines).expect("the capture");
    }

    fn write(&mut self, number: usize, op: &str, id: i64, text: Option<String>) {
        let Columns { name, has_note } = self.columns[number].clone();
        let row = |text: &Option<String>| {
            let (first, note) =
                text.as_deref().map(|text| text.split_once('/').map_or((text, None), |(t, n)| (t, Some(n))))?;
            Some(if has_note { json!({"id": id, name: first, "note": note}) } else { json!({"id": id, name: first}) })
        };
        let before = self.rows[number].get(&id).cloned();
        let value =
            json!({"before": row(&before), "after": row(&text), "source": self.place(&table(number)), "op": op});
        let key = json!({"id": id});
        self.push(&topic(number), Some(&key), Some(&value));
        match text {
            Some(text) => drop(self.rows[number].insert(id, text)),
            None => {
                self.rows[number].remove(&id);
                self.push(&topic(number), Some(&key), None);
            }
        }
    }

    fn place(&mut self, table: &str) -> Value {
        self.pos += 10;
        json!({"db": "shop", "table": table, "server_id": 1, "file": "binlog.000001", "pos": self.pos, "row": 0,
               "ts_ms": 1_760_000_000_000_i64, "snapshot": "false"})
    }

    fn push(&mut self, topic: &str, key: Option<&Value>, value: Option<&Value>) {
        let (key, value) = (key.map(ToString::to_string), value.map(ToString::to_string));
        let mut topics = self.topics.lock().unwrap();
        let records = topics.entry(topic.into()).or_default();
        let line = json!({"topic": topic, "partition": 0, "offset": records.len(), "ts": 1_760_000_000_000_i64,
                          "headers": [], "key": key, "value": value});
        writeln!(self.lines, "{line}").expect("writing to a string");
        records.push((key, value));
    }

    /// What the connector has written, and what it is going to write.
    pub(super) fn topics(&self) -> Topics {
        Arc::clone(&self.topics)
    }

    /// How far each topic reaches.
    pub(super) fn ends(&self) -> Vec<(Arc<str>, i64)> {
        self.topics.lock().unwrap().iter().map(|(topic, records)| (Arc::clone(topic), records.len() as i64)).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("capture.jsonl")
    }

    /// Offsets that the connector wrote into the table's topic.
    pub(super) fn offsets(&self, number: usize) -> Vec<i64> {
        (0..self.topics.lock().unwrap()[topic(number).as_str()].len() as i64).collect()
    }

    /// What Silver has of table `number` beside the rows that it should have; empty when it is exact.
    pub(super) async fn difference(&self, lake: &FaultyLake, number: usize) -> String {
        self.difference_in(lake, &table(number), number).await
    }

    /// The same, where Silver has it under the name `silver`.
    pub(super) async fn difference_in(&self, lake: &FaultyLake, silver: &str, number: usize) -> String {
        let Columns { name, has_note } = &self.columns[number];
        let note = if *has_note { " || coalesce('/' || note, '')" } else { "" };
        let Some(rows) = lake.rows(silver, &format!("{name}{note}")).await else {
            return format!("{silver}: no table");
        };
        let wanted: Vec<_> = self.rows[number].iter().map(|(id, text)| (*id, text.clone())).collect();
        match rows == wanted {
            true => String::new(),
            false => format!("{silver}: {} rows, {} wanted; ", rows.len(), wanted.len()),
        }
    }

    /// Asserts that the lake has what the connector wrote: Silver every row, Bronze every offset once, and no range
    /// committed twice by either.
    pub(super) async fn assert_exact(&self, lake: &FaultyLake) {
        assert_eq!(self.difference_of_others(lake, &[]).await, "");
        for number in 0..TABLES {
            assert_eq!(lake.offsets(&topic(number)).await, self.offsets(number), "{number}");
            lake.assert_each_range_once(&format!("silver/{}", table(number))).await;
            lake.assert_each_range_once(&format!("bronze/{}", topic(number))).await;
        }
    }

    pub(super) async fn is_exact(&self, lake: &FaultyLake, number: usize) -> bool {
        self.difference(lake, number).await.is_empty()
    }

    /// True when every table but those of `sick` is exact; asks no further than the first that is not.
    pub(super) async fn others_are_exact(&self, lake: &FaultyLake, sick: &[usize]) -> bool {
        for number in (0..TABLES).filter(|number| !sick.contains(number)) {
            if !self.is_exact(lake, number).await {
                return false;
            }
        }
        true
    }

    /// What differs in every table but those of `sick`.
    pub(super) async fn difference_of_others(&self, lake: &FaultyLake, sick: &[usize]) -> String {
        let mut all = String::new();
        for number in (0..TABLES).filter(|number| !sick.contains(number)) {
            all += &self.difference(lake, number).await;
        }
        all
    }
}
