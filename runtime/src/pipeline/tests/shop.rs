//! A database of fifteen tables with its connector: what it wrote into a capture file, and what the tables hold in the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::FaultyLake;

/// Tables of the database.
pub(super) const TABLES: usize = 15;

pub(super) struct Shop {
    folder: TempDir,
    lines: String,
    offsets: BTreeMap<String, i64>,
    rows: Vec<BTreeMap<i64, String>>,
    pos: u64,
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
            offsets: BTreeMap::new(),
            rows: vec![BTreeMap::new(); TABLES],
            pos: 100,
        };
        for number in 0..TABLES {
            shop.tell_structure(number, "CREATE", &[("id", "BIGINT"), ("name", "VARCHAR")]);
        }
        shop
    }

    /// The connector tells a table's columns; the first is the key.
    pub(super) fn tell_structure(&mut self, number: usize, what: &str, columns: &[(&str, &str)]) {
        let name = table(number);
        let column = |(at, (name, kind)): (usize, &(&str, &str))| json!({"name": name, "typeName": kind, "length": 40, "position": at + 1, "optional": at > 0});
        let columns: Vec<Value> = columns.iter().enumerate().map(column).collect();
        let value = json!({
            "source": self.place(&name), "databaseName": "shop", "ddl": format!("{what} TABLE {name}"),
            "tableChanges": [{"type": what, "id": format!("\"shop\".\"{name}\""),
                              "table": {"primaryKeyColumnNames": ["id"], "columns": columns}}]
        });
        self.push("db", None, Some(&value));
    }

    /// Every table gets `count` rows more, and a third of its rows changes or goes.
    pub(super) fn work(&mut self, count: i64) {
        for step in 0..count {
            for number in 0..TABLES {
                let id = self.rows[number].keys().next_back().map_or(1, |last| last + 1);
                self.write(number, "c", id, Some(format!("{number}-{step}")));
                match step % 6 {
                    2 => self.write(number, "u", id, Some(format!("changed {step}"))),
                    5 => self.write(number, "d", id, None),
                    _ => {}
                }
            }
        }
        fs::write(self.file(), &self.lines).expect("the capture");
    }

    fn write(&mut self, number: usize, op: &str, id: i64, name: Option<String>) {
        let row = |name: &Option<String>| name.as_ref().map(|name| json!({"id": id, "name": name}));
        let before = self.rows[number].get(&id).cloned();
        let value =
            json!({"before": row(&before), "after": row(&name), "source": self.place(&table(number)), "op": op});
        let key = json!({"id": id});
        self.push(&topic(number), Some(&key), Some(&value));
        match name {
            Some(name) => drop(self.rows[number].insert(id, name)),
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
        let offset = self.offsets.entry(topic.to_owned()).or_default();
        let text = |json: Option<&Value>| json.map(ToString::to_string);
        let line = json!({"topic": topic, "partition": 0, "offset": *offset, "ts": 1_760_000_000_000_i64, "headers": [],
                          "key": text(key), "value": text(value)});
        writeln!(self.lines, "{line}").expect("writing to a string");
        *offset += 1;
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.path().join("capture.jsonl")
    }

    /// Offsets that the connector wrote into the table's topic.
    pub(super) fn offsets(&self, number: usize) -> Vec<i64> {
        (0..self.offsets[&topic(number)]).collect()
    }

    /// What Silver has of table `number` beside the rows that it should have; empty when it is exact.
    pub(super) async fn difference(&self, lake: &FaultyLake, number: usize) -> String {
        let Some(rows) = lake.rows(&table(number)).await else { return format!("{}: no table", table(number)) };
        let wanted: Vec<_> = self.rows[number].iter().map(|(id, name)| (*id, name.clone())).collect();
        match rows == wanted {
            true => String::new(),
            false => format!("{}: {} rows, {} wanted; ", table(number), rows.len(), wanted.len()),
        }
    }

    pub(super) async fn is_exact(&self, lake: &FaultyLake, number: usize) -> bool {
        self.difference(lake, number).await.is_empty()
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
