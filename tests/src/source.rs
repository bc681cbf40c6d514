//! A small database with its connector, made by hand: statements in, the records that Debezium would write out.
//!
//! Keeps the tables' own state beside the records: what Silver has to be in the end. Records are bare JSON, the schema-change
//! topic has the structures; both look like those of the captures. Every table has the key `id`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::capture::{Capture, Event};

/// A row of a table.
pub type Row = Map<String, Value>;

#[derive(Debug, Clone, Default)]
struct Table {
    /// name and type
    columns: Vec<(String, String)>,
    rows: BTreeMap<i64, Row>,
}

/// The database `shop` and a connector with the prefix `db`.
#[derive(Debug, Clone)]
pub struct Source {
    tables: BTreeMap<String, Table>,
    capture: Capture,
    partitions: i32,
    file: u64,
    pos: u64,
    ts_ms: i64,
    snapshot: Option<&'static str>,
    server: u64,
}

impl Source {
    /// An empty database whose row topics have `partitions` Kafka partitions.
    pub fn new(partitions: i32) -> Source {
        Source {
            tables: BTreeMap::new(),
            capture: Capture::default(),
            partitions,
            file: 2,
            pos: 100,
            ts_ms: 1_760_000_000_000,
            snapshot: None,
            server: 101,
        }
    }

    /// What the connector wrote so far.
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// The table as it is now, in order of `id`.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        self.tables[table].rows.values().cloned().map(Value::Object).collect()
    }

    /// `CREATE TABLE`.
    pub fn create(&mut self, table: &str, columns: &[(&str, &str)]) {
        let columns: Vec<_> = columns.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        let text: Vec<String> = columns.iter().map(|(n, t)| format!("`{n}` {t}")).collect();
        self.tables.insert(table.to_owned(), Table { columns, rows: BTreeMap::new() });
        self.ddl("CREATE", table, &format!("CREATE TABLE {table} ({}, PRIMARY KEY (id))", text.join(", ")));
    }

    /// `ALTER TABLE` by `ddl`, after which the table has `columns`; `renamed` names columns before and after.
    pub fn alter(&mut self, table: &str, ddl: &str, columns: &[(&str, &str)], renamed: &[(&str, &str)]) {
        let entry = self.tables.get_mut(table).expect("a table");
        entry.columns = columns.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        for row in entry.rows.values_mut() {
            let old = std::mem::take(row);
            let name =
                |n: &String| renamed.iter().find(|(from, _)| from == n).map_or(n.as_str(), |(_, to)| to).to_owned();
            *row = old.into_iter().map(|(n, v)| (name(&n), v)).collect();
            row.retain(|n, _| columns.iter().any(|(c, _)| c == n));
            for (column, _) in columns {
                row.entry(*column).or_insert(Value::Null);
            }
        }
        self.ddl("ALTER", table, ddl);
    }

    /// `TRUNCATE TABLE`; the record `t` is there only where Debezium does not hide it.
    pub fn truncate(&mut self, table: &str, hidden: bool) {
        self.tables.get_mut(table).expect("a table").rows.clear();
        self.tell(&format!("TRUNCATE TABLE {table}"), table, &json!([]));
        if !hidden {
            let value =
                json!({"before": null, "after": null, "source": self.place(table), "op": "t", "ts_ms": self.ts_ms});
            self.push(&format!("db.shop.{table}"), 0, None, Some(&value));
        }
    }

    /// `DROP TABLE`.
    pub fn drop(&mut self, table: &str) {
        self.tables.remove(table);
        let change = json!([{"type": "DROP", "id": format!("\"shop\".\"{table}\""), "table": null}]);
        self.tell(&format!("DROP TABLE `{table}`"), table, &change);
    }

    /// `RENAME TABLE`.
    pub fn rename(&mut self, from: &str, to: &str) {
        let table = self.tables.remove(from).expect("a table");
        self.tables.insert(to.to_owned(), table);
        self.ddl("ALTER", to, &format!("RENAME TABLE {from} TO {to}"));
    }

    /// `RENAME TABLE table TO aside, copy TO table`, as tools for online changes do it: `copy`, which the connector does not
    /// capture, has the rows of `table` in other columns.
    pub fn swap(&mut self, table: &str, aside: &str, copy: &str, columns: &[(&str, &str)]) {
        let mut new = self.tables[table].clone();
        self.tables.insert(aside.to_owned(), new.clone());
        new.columns = columns.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        for row in new.rows.values_mut() {
            for (column, _) in columns {
                row.entry(*column).or_insert(Value::Null);
            }
        }
        self.tables.insert(table.to_owned(), new);
        let ddl = format!("RENAME TABLE {table} TO {aside}, {copy} TO {table}");
        self.step();
        for name in [aside, table] {
            let change = json!([self.structure("ALTER", name)]);
            self.record_ddl(&ddl, "shop", name, &change);
        }
    }

    /// `INSERT`, or `UPDATE` where the row is there.
    pub fn put(&mut self, table: &str, row: Value) {
        let Value::Object(row) = row else { panic!("a row is an object") };
        let id = row["id"].as_i64().expect("an id");
        let before = self.tables.get_mut(table).expect("a table").rows.insert(id, row.clone());
        let op = if before.is_some() { "u" } else { "c" };
        self.change(table, id, op, before.map(Value::Object), Some(Value::Object(row)));
    }

    /// `DELETE`.
    pub fn delete(&mut self, table: &str, id: i64) {
        let before = self.tables.get_mut(table).expect("a table").rows.remove(&id).expect("a row");
        self.change(table, id, "d", Some(Value::Object(before)), None);
    }

    /// A change that the connector does not see.
    pub fn delete_unseen(&mut self, table: &str, id: i64) {
        self.tables.get_mut(table).expect("a table").rows.remove(&id).expect("a row");
    }

    /// A snapshot of `table` with the rows that `wanted` picks: of the whole connector, as one made anew takes it, or (not
    /// `whole`) blocking and asked for.
    pub fn snapshot(&mut self, table: &str, whole: bool, wanted: impl Fn(i64) -> bool) {
        self.step();
        self.snapshot = Some("true");
        if whole {
            self.record_ddl("SET character_set_server=utf8mb4", "", "", &json!([]));
        }
        let change = json!([{"type": "DROP", "id": format!("\"shop\".\"{table}\""), "table": null}]);
        self.record_ddl(&format!("DROP TABLE IF EXISTS `shop`.`{table}`"), "shop", table, &change);
        let change = json!([self.structure("CREATE", table)]);
        self.record_ddl(&format!("CREATE TABLE `{table}` (…)"), "shop", table, &change);
        let rows: Vec<(i64, Row)> =
            self.tables[table].rows.iter().filter(|(id, _)| wanted(**id)).map(|(id, r)| (*id, r.clone())).collect();
        let last = rows.len().saturating_sub(1);
        for (at, (id, row)) in rows.into_iter().enumerate() {
            self.snapshot = Some(if at == last { "last" } else { "true" });
            self.record_change(table, id, "r", None, Some(Value::Object(row)));
        }
        self.snapshot = None;
    }

    /// Rows read beside the stream.
    pub fn snapshot_beside(&mut self, table: &str, wanted: impl Fn(i64) -> bool) {
        let rows: Vec<(i64, Row)> =
            self.tables[table].rows.iter().filter(|(id, _)| wanted(**id)).map(|(id, r)| (*id, r.clone())).collect();
        self.snapshot = Some("incremental");
        for (id, row) in rows {
            self.record_change(table, id, "r", None, Some(Value::Object(row)));
        }
        self.snapshot = None;
    }

    /// Records of the schema-change topic, written once more as after a restart of the connector.
    pub fn tell_again(&mut self) {
        let again: Vec<Event> = self.capture.events.iter().filter(|e| e.topic == "db").cloned().collect();
        for event in again {
            let value = serde_json::from_str(event.text()).expect("JSON");
            self.push("db", 0, None, Some(&value));
        }
    }

    fn step(&mut self) {
        self.pos += 100;
        self.ts_ms += 10;
    }

    fn place(&self, table: &str) -> Value {
        let server = if matches!(self.snapshot, Some("true" | "last")) { 0 } else { self.server };
        json!({
            "version": "3.6.1.Final", "connector": "mysql", "name": "db", "ts_ms": self.ts_ms,
            "snapshot": self.snapshot.unwrap_or("false"), "db": "shop", "table": table, "server_id": server,
            "gtid": null, "file": format!("binlog.{:06}", self.file), "pos": self.pos, "row": 0,
        })
    }

    fn change(&mut self, table: &str, id: i64, op: &str, before: Option<Value>, after: Option<Value>) {
        self.step();
        self.record_change(table, id, op, before, after);
    }

    fn record_change(&mut self, table: &str, id: i64, op: &str, before: Option<Value>, after: Option<Value>) {
        let place = self.place(table);
        let value = json!({"before": before, "after": after, "source": place, "op": op, "ts_ms": self.ts_ms});
        let partition = i32::try_from(id).expect("a small id") % self.partitions;
        let topic = format!("db.shop.{table}");
        self.push(&topic, partition, Some(&json!({"id": id})), Some(&value));
        if op == "d" {
            self.push(&topic, partition, Some(&json!({"id": id})), None);
        }
    }

    fn ddl(&mut self, kind: &str, table: &str, ddl: &str) {
        let change = json!([self.structure(kind, table)]);
        self.tell(ddl, table, &change);
    }

    fn structure(&self, kind: &str, table: &str) -> Value {
        let columns = self.tables[table].columns.iter().enumerate().map(|(at, (name, kind))| {
            json!({
                "name": name, "typeName": kind, "length": null, "scale": null, "position": at + 1,
                "optional": name != "id", "defaultValueExpression": null, "enumValues": null,
            })
        });
        let columns: Vec<Value> = columns.collect();
        let table_of = json!({"defaultCharsetName": "utf8mb4", "primaryKeyColumnNames": ["id"], "columns": columns});
        json!({"type": kind, "id": format!("\"shop\".\"{table}\""), "table": table_of})
    }

    fn tell(&mut self, ddl: &str, table: &str, changes: &Value) {
        self.step();
        self.record_ddl(ddl, "shop", table, changes);
    }

    fn record_ddl(&mut self, ddl: &str, database: &str, table: &str, changes: &Value) {
        let value = json!({
            "source": self.place(table), "ts_ms": self.ts_ms, "databaseName": database, "schemaName": null,
            "ddl": ddl, "tableChanges": changes,
        });
        self.push("db", 0, Some(&json!({"databaseName": database})), Some(&value));
    }

    fn push(&mut self, topic: &str, partition: i32, key: Option<&Value>, value: Option<&Value>) {
        let bytes = |v: Option<&Value>| v.map(|v| v.to_string().into_bytes());
        let event = Event {
            topic: topic.to_owned(),
            partition,
            offset: 0,
            timestamp_ms: self.ts_ms,
            headers: Vec::new(),
            key: bytes(key),
            value: bytes(value),
        };
        self.capture.insert(self.capture.events.len(), event);
    }
}
