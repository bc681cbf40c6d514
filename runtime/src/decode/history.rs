//! All table structures that one connector announced.
//!
//! Receives the records of the schema-change topic. Promises the structure of a table that was in force at a position of
//! the source. Applying a record again changes nothing. Clones share their tables. Never looks at row changes: whoever
//! reads both topics must apply what the schema topic held when a block was fetched before that block is decoded, or an
//! altered type is seen too late.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::lineage::{Moment, Renaming};
use super::structure::{both_ids, position, read_version, table_of_id};
use super::version::{Version, safe_name};
use super::{BadRecord, SourcePosition, TableName, ddl};
use crate::record::Record;
use crate::schema::{Rename, RenamedColumn, TableSchemaRef};

/// What the source did to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaChangeKind {
    /// it was made, or a snapshot found it
    Created,
    /// it was made after it had been dropped: rows from before are another table's
    Recreated,
    /// its columns or key changed
    Altered {
        /// columns that only changed their name: old, new
        renamed: Vec<(String, String)>,
    },
    /// it is gone
    Dropped,
    /// it was another table before
    Renamed {
        /// its name before
        from: TableName,
    },
    /// all its rows are gone
    Truncated,
    /// the rows of some partitions are gone, and no event tells which
    Thinned,
}

/// One change of a table's structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaChange {
    /// the table, by its name after the change
    pub table: TableName,
    /// what was done
    pub kind: SchemaChangeKind,
    /// where in the source
    pub position: SourcePosition,
    /// the database server; 0 where unknown
    pub server: u64,
    /// the source's time, milliseconds since 1970; 0 where unknown
    pub ts_ms: i64,
    /// offset of the record that told it
    pub offset: i64,
    /// true when a snapshot found it rather than a DDL statement
    pub snapshot: bool,
}

/// A structure and the position it holds from.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) position: SourcePosition,
    /// `None`: dropped. An error: its names cannot be held
    pub(super) version: Option<Result<Arc<Version>, Arc<str>>>,
}

/// Structures of all tables of one connector, in source order.
#[derive(Debug, Clone, Default)]
pub struct SchemaHistory {
    tables: HashMap<TableName, Arc<Vec<Entry>>>,
    renames: HashMap<TableName, Vec<(SourcePosition, Arc<Rename>)>>,
    /// by the new name, in the order of the topic
    pub(super) renamed_from: HashMap<TableName, Vec<Renaming>>,
    /// where snapshots of the whole connector were taken
    whole: HashSet<SourcePosition>,
    revision: u64,
}

/// Most structures kept of one table.
const ENTRIES_MAX: usize = 10_000;

impl SchemaHistory {
    /// Nothing is known yet.
    pub fn new() -> Self {
        SchemaHistory::default()
    }

    /// Grows whenever something new was learned.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The newest structure of a table; `None` where it is not known or dropped.
    pub fn latest(&self, table: &TableName) -> Option<TableSchemaRef> {
        match self.entries(table)?.last()?.version.as_ref()? {
            Ok(version) => Some(Arc::clone(&version.schema)),
            Err(_) => None,
        }
    }

    /// True when the table was dropped, or has another name by now.
    pub fn is_gone(&self, table: &TableName) -> bool {
        self.entries(table).is_some_and(|e| e.last().is_some_and(|e| e.version.is_none()))
    }

    /// True when the snapshot at `position` is known to be one of everything that the connector captures, as it takes when
    /// it begins. One that was asked for (ad hoc, blocking) may have read a part of a table, and its rows do not say so.
    pub fn is_whole_snapshot(&self, position: &SourcePosition) -> bool {
        self.whole.contains(position)
    }

    /// Tables that exist as far as is known.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        self.tables.iter().filter(|(_, e)| e.last().is_some_and(|e| e.version.is_some())).map(|(name, _)| name)
    }

    /// What renamed columns of a table, in the order of the topic.
    pub fn renames(&self, table: &TableName) -> Vec<Arc<Rename>> {
        self.renames.get(table).into_iter().flatten().map(|(_, rename)| Arc::clone(rename)).collect()
    }

    pub(super) fn entries(&self, table: &TableName) -> Option<&Arc<Vec<Entry>>> {
        self.tables.get(table)
    }

    /// Takes in one record of the schema-change topic. Tombstones and statements that touch no table give no changes.
    pub fn apply(&mut self, record: Record<'_>) -> Result<Vec<SchemaChange>, BadRecord> {
        let Some(value) = record.value else { return Ok(Vec::new()) };
        let value: Value = serde_json::from_slice(value).map_err(|_| BadRecord::new("the record is not JSON"))?;
        let payload = match (value.get("schema"), value.get("payload")) {
            (Some(_), Some(payload)) => payload,
            _ => &value,
        };
        let changes = match payload.get("tableChanges") {
            Some(Value::Array(changes)) => changes.as_slice(),
            Some(Value::Null) | None if payload.get("ddl").is_some() => &[],
            _ => {
                return Err(BadRecord::new(
                    "the record is not a schema change: it has neither `ddl` nor `tableChanges`",
                ));
            }
        };
        let ddl = payload.get("ddl").and_then(Value::as_str).unwrap_or_default();
        let database = payload.get("databaseName").and_then(Value::as_str).unwrap_or_default();
        let source = payload.get("source").unwrap_or(&Value::Null);
        let effects = ddl::read(ddl, database);
        let snapshot = match source.get("snapshot") {
            Some(Value::String(s)) => s != "false",
            Some(Value::Bool(b)) => *b,
            _ => false,
        };
        if changes.is_empty() && effects.is_empty() {
            // variables and databases are told by a snapshot that the connector takes, not by one that was asked for
            if snapshot && let Some(position) = position(source) {
                self.whole.insert(position);
                self.revision += 1;
            }
            return Ok(Vec::new());
        }
        let position = position(source)
            .ok_or_else(|| BadRecord::new("the schema change has no binlog position (`source.file`, `source.pos`)"))?;
        let mut told = Vec::new();
        let (server, ts_ms) =
            (source.get("server_id").and_then(Value::as_u64), source.get("ts_ms").and_then(Value::as_i64));
        let mut tell = |table: &TableName, kind| {
            told.push(SchemaChange {
                table: table.clone(),
                kind,
                position: position.clone(),
                server: server.unwrap_or(0),
                ts_ms: ts_ms.unwrap_or(0),
                offset: record.offset,
                snapshot,
            });
        };
        for change in changes {
            let id = change.get("id").and_then(Value::as_str).unwrap_or_default();
            // of a renaming, some versions of Debezium give both names
            let (old_id, id) = both_ids(id);
            let table = table_of_id(id, database).ok_or_else(|| BadRecord::new("a table change has no table `id`"))?;
            let dropped = change.get("type").and_then(Value::as_str) == Some("DROP");
            let structure = change.get("table").filter(|t| !t.is_null());
            if dropped || structure.is_none() {
                // a snapshot drops a table only to make it in the next record
                if !snapshot && self.add(&table, &position, None) {
                    tell(&table, SchemaChangeKind::Dropped);
                }
                continue;
            }
            let previous = change.get("previousId").and_then(Value::as_str).or(old_id);
            let previous = previous.and_then(|id| table_of_id(id, database));
            let from = previous.or_else(|| effects.renamed_table(&table)).filter(|from| *from != table);
            let before = self.in_force_before(from.as_ref().unwrap_or(&table), &position);
            let version = read_version(&table, structure.unwrap_or(&Value::Null), before.as_deref(), (ddl, &effects))?;
            let renamed = effects.renamed_columns(before.as_deref(), version.as_ref().ok());
            if let Some(from) = &from {
                self.inherit(&table, from);
            }
            let created = change.get("type").and_then(Value::as_str) == Some("CREATE");
            let anew = created && !snapshot && self.was_another(&table, &position, effects.if_not_exists);
            let mark = self.note_rename(&table, &position, record.offset + 1, &renamed);
            let version = version.map(|version| Arc::new(version.after(mark))).map_err(Arc::from);
            let taken = self.taken(&table, &position);
            if !self.add(&table, &position, Some(version)) {
                continue;
            }
            match from {
                Some(from) => {
                    self.add(&from, &position, None);
                    let at = Moment { position: position.clone(), ts_ms: ts_ms.unwrap_or(0) };
                    let renamings = self.renamed_from.entry(table.clone()).or_default();
                    renamings.push(Renaming { from: from.clone(), at, taken, aside: effects.gives_away(&from) });
                    tell(&table, SchemaChangeKind::Renamed { from });
                }
                None if anew => tell(&table, SchemaChangeKind::Recreated),
                None if before.is_some() => tell(&table, SchemaChangeKind::Altered { renamed }),
                None => tell(&table, SchemaChangeKind::Created),
            }
        }
        for table in effects.truncated {
            tell(&table, SchemaChangeKind::Truncated);
        }
        for table in effects.thinned {
            tell(&table, SchemaChangeKind::Thinned);
        }
        Ok(told)
    }

    /// The structure before a statement: that of the statement itself does not count, however often it is told.
    fn in_force_before(&self, table: &TableName, position: &SourcePosition) -> Option<Arc<Version>> {
        let entries = self.tables.get(table)?;
        let entry = entries.iter().rev().find(|e| e.position.base != position.base || e.position < *position)?;
        entry.version.clone()?.ok()
    }

    /// True when a CREATE at `position` makes a table of a name that another one had; where it may have done nothing, only
    /// if that one is known to be gone.
    fn was_another(&self, table: &TableName, position: &SourcePosition, if_not_exists: bool) -> bool {
        let entries = self.tables.get(table).map(|e| e.as_slice()).unwrap_or_default();
        let before = |e: &&Entry| e.position.base != position.base || e.position < *position;
        entries.iter().rev().find(before).is_some_and(|e| !if_not_exists || e.version.is_none())
    }

    /// A table that got another name keeps what was renamed in it.
    fn inherit(&mut self, table: &TableName, from: &TableName) {
        let theirs = self.renames.get(from).cloned().unwrap_or_default();
        let ours = self.renames.entry(table.clone()).or_default();
        let new = |rename: &Arc<Rename>, ours: &[(SourcePosition, Arc<Rename>)]| ours.iter().all(|(_, r)| r != rename);
        for (position, rename) in theirs {
            if new(&rename, ours) {
                ours.push((position, rename));
            }
        }
        ours.sort_by_key(|(_, rename)| rename.mark);
    }

    /// Keeps what a statement at `position` renamed; the mark of the last renaming up to there.
    fn note_rename(
        &mut self,
        table: &TableName,
        position: &SourcePosition,
        mark: i64,
        columns: &[(String, String)],
    ) -> i64 {
        let known = self.renames.get(table).map(Vec::as_slice).unwrap_or_default();
        if columns.is_empty() || known.iter().any(|(at, _)| at == position) {
            let before = |at: &SourcePosition| at.base != position.base || at <= position;
            return known.iter().rev().find(|(at, _)| before(at)).map_or(0, |(_, rename)| rename.mark);
        }
        let entries = self.tables.get(table).map(|e| e.as_slice()).unwrap_or_default();
        let had = |name: &String| entries.iter().any(|e| matches!(&e.version, Some(Ok(v)) if v.names.contains(name)));
        let columns = columns.iter().map(|(from, to)| RenamedColumn {
            from: safe_name(from),
            to: safe_name(to),
            source_name: to.clone(),
            fresh: !had(to),
        });
        let rename = Arc::new(Rename { mark, columns: columns.collect() });
        self.renames.entry(table.clone()).or_default().push((position.clone(), rename));
        mark
    }

    /// False when this was known.
    fn add(
        &mut self,
        table: &TableName,
        position: &SourcePosition,
        mut version: Option<Result<Arc<Version>, Arc<str>>>,
    ) -> bool {
        let entries = Arc::make_mut(self.tables.entry(table.clone()).or_default());
        let known = entries.iter().any(|e| {
            e.position == *position
                && match (&e.version, &version) {
                    (None, None) => true,
                    (Some(Ok(a)), Some(Ok(b))) => a.equals(b),
                    (Some(Err(a)), Some(Err(b))) => a == b,
                    _ => false,
                }
        });
        if known {
            return false;
        }
        // a structure that did not change stays the same version
        if let Some(Ok(new)) = &version
            && let Some(old) =
                entries.iter().filter_map(|e| e.version.as_ref()?.as_ref().ok()).find(|old| old.equals(new))
        {
            version = Some(Ok(Arc::clone(old)));
        }
        let after = |e: &Entry| e.position.base == position.base && e.position > *position;
        let at = entries.iter().position(after).unwrap_or(entries.len());
        entries.insert(at, Entry { position: position.clone(), version });
        if entries.len() > ENTRIES_MAX {
            entries.remove(0);
        }
        self.revision += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn record(value: &str) -> Record<'_> {
        Record { offset: 0, timestamp_ms: 0, key: None, value: Some(value.as_bytes()), headers: b"" }
    }

    fn change(kind: &str, pos: u64, ddl: &str, table: &str, columns: &[(&str, &str)]) -> String {
        let columns: Vec<Value> = columns
            .iter()
            .enumerate()
            .map(|(at, (name, kind))| {
                serde_json::json!({"name": name, "typeName": kind, "position": at + 1, "optional": at > 0, "defaultValueExpression": null})
            })
            .collect();
        let structure = if kind == "DROP" {
            Value::Null
        } else {
            serde_json::json!({"primaryKeyColumnNames": ["id"], "columns": columns})
        };
        serde_json::json!({
            "source": {"file": "binlog.000002", "pos": pos, "snapshot": "false"}, "databaseName": "shop", "ddl": ddl,
            "tableChanges": [{"type": kind, "id": format!("\"shop\".\"{table}\""), "table": structure}]
        })
        .to_string()
    }

    #[test]
    fn structures_follow_positions_and_repeats_change_nothing() {
        let mut history = SchemaHistory::new();
        let table = TableName { database: "shop".into(), table: "t".into() };
        let create = change("CREATE", 10, "CREATE TABLE t", "t", &[("id", "INT"), ("a", "TEXT")]);
        let alter =
            change("ALTER", 20, "ALTER TABLE t ADD b INT NOT NULL", "t", &[("id", "INT"), ("a", "TEXT"), ("b", "INT")]);
        assert_eq!(history.apply(record(&create)).unwrap()[0].kind, SchemaChangeKind::Created);
        let told = history.apply(record(&alter)).unwrap();
        assert_eq!(told[0].kind, SchemaChangeKind::Altered { renamed: vec![] });
        let revision = history.revision();
        assert!(history.apply(record(&create)).unwrap().is_empty());
        assert!(history.apply(record(&alter)).unwrap().is_empty());
        assert_eq!(history.revision(), revision);
        assert_eq!(history.latest(&table).unwrap().fields.fields().len(), 3);
        let drop = change("DROP", 30, "DROP TABLE t", "t", &[]);
        assert_eq!(history.apply(record(&drop)).unwrap()[0].kind, SchemaChangeKind::Dropped);
        assert!(history.latest(&table).is_none());
        assert_eq!(history.tables().count(), 0);
        assert!(history.is_gone(&table));
    }

    #[test]
    fn a_table_made_anew_is_told_once() {
        let mut history = SchemaHistory::new();
        let columns = [("id", "INT"), ("a", "TEXT")];
        let mut tell = |kind: &str, pos, ddl: &str| {
            let told = history.apply(record(&change(kind, pos, ddl, "t", &columns))).unwrap();
            told.into_iter().map(|t| t.kind).collect::<Vec<_>>()
        };
        assert_eq!(tell("CREATE", 10, "CREATE TABLE t"), [SchemaChangeKind::Created]);
        assert_eq!(tell("CREATE", 15, "CREATE TABLE IF NOT EXISTS t"), [SchemaChangeKind::Altered { renamed: vec![] }]);
        assert_eq!(tell("CREATE", 20, "CREATE OR REPLACE TABLE t"), [SchemaChangeKind::Recreated]);
        assert_eq!(tell("DROP", 30, "DROP TABLE t"), [SchemaChangeKind::Dropped]);
        assert_eq!(tell("CREATE", 40, "CREATE TABLE IF NOT EXISTS t"), [SchemaChangeKind::Recreated]);
        assert_eq!(tell("CREATE", 40, "CREATE TABLE IF NOT EXISTS t"), []);
        assert_eq!(tell("CREATE", 10, "CREATE TABLE t"), []);
        let truncate =
            change("X", 50, "TRUNCATE t", "t", &columns).replace("\"tableChanges\":[{", "\"tableChanges\":[],\"x\":[{");
        let told = history.apply(Record { offset: 9, ..record(&truncate) }).unwrap();
        assert_eq!((told.len(), &told[0].kind, told[0].offset), (1, &SchemaChangeKind::Truncated, 9));
    }

    #[test]
    fn renames_are_told() {
        let mut history = SchemaHistory::new();
        let create = change("CREATE", 10, "CREATE TABLE t", "t", &[("id", "INT"), ("a", "TEXT")]);
        history.apply(record(&create)).unwrap();
        let column = change("ALTER", 20, "ALTER TABLE t CHANGE a `b c` TEXT", "t", &[("id", "INT"), ("b c", "TEXT")]);
        let told = history.apply(record(&column)).unwrap();
        assert_eq!(told[0].kind, SchemaChangeKind::Altered { renamed: vec![("a".into(), "b c".into())] });
        let table = change("ALTER", 30, "RENAME TABLE t TO u", "u", &[("id", "INT"), ("b c", "TEXT")]);
        let from = TableName { database: "shop".into(), table: "t".into() };
        assert_eq!(history.apply(record(&table)).unwrap()[0].kind, SchemaChangeKind::Renamed { from: from.clone() });
        assert!(history.latest(&from).is_none());
        // the new name goes on with what was renamed under the old one, and a record that comes again tells nothing new
        let of = |history: &SchemaHistory, name: &str| {
            history.renames(&TableName { database: "shop".into(), table: name.into() })
        };
        assert_eq!(of(&history, "u"), of(&history, "t"));
        assert_eq!((of(&history, "u").len(), of(&history, "u")[0].mark), (1, 1));
        assert_eq!(history.latest(&TableName { table: "u".into(), ..from }).unwrap().renamed, 1);
        history.apply(Record { offset: 7, ..record(&column) }).unwrap();
        assert_eq!(of(&history, "t").len(), 1);
    }

    #[test]
    fn columns_that_swap_names_are_told() {
        let mut history = SchemaHistory::new();
        history
            .apply(record(&change("CREATE", 10, "CREATE TABLE t", "t", &[("id", "INT"), ("a", "INT"), ("B", "INT")])))
            .unwrap();
        let ddl = "ALTER TABLE t RENAME COLUMN a TO b, CHANGE COLUMN b a INT";
        let told = history
            .apply(record(&change("ALTER", 20, ddl, "t", &[("id", "INT"), ("b", "INT"), ("a", "INT")])))
            .unwrap();
        let renamed = vec![("a".to_owned(), "b".to_owned()), ("B".to_owned(), "a".to_owned())];
        assert_eq!(told[0].kind, SchemaChangeKind::Altered { renamed });
    }

    #[test]
    fn bad_records_are_told() {
        let mut history = SchemaHistory::new();
        for value in ["", "nonsense", "[]", "{}", "{\"tableChanges\":1}", "{\"ddl\":\"x\",\"tableChanges\":[{}]}"] {
            assert!(history.apply(record(value)).is_err(), "{value}");
        }
        assert_eq!(history.apply(record("{\"ddl\":\"USE shop\",\"tableChanges\":[]}")), Ok(vec![]));
    }

    #[test]
    fn a_snapshot_of_the_connector_is_told_from_one_that_was_asked_for() {
        let mut history = SchemaHistory::new();
        let at = |pos| SourcePosition { base: "binlog".into(), file: 2, pos };
        let table = change("CREATE", 10, "CREATE TABLE t", "t", &[("id", "INT")]).replace("false", "true");
        history.apply(record(&table)).unwrap();
        assert!(!history.is_whole_snapshot(&at(10)));
        let set = |pos, snapshot| {
            serde_json::json!({
                "source": {"file": "binlog.000002", "pos": pos, "snapshot": snapshot}, "databaseName": "",
                "ddl": "SET character_set_server=utf8mb4", "tableChanges": []
            })
            .to_string()
        };
        history.apply(record(&set(10, "true"))).unwrap();
        history.apply(record(&set(20, "false"))).unwrap();
        assert!(history.is_whole_snapshot(&at(10)) && !history.is_whole_snapshot(&at(20)));
    }
}
