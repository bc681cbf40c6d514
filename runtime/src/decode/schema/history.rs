//! All table structures that one connector announced.
//!
//! Receives the records of the schema-change topic. Promises the structure of a table that was in force at a position of
//! the source. Applying a record again changes nothing. Clones share their tables. Never looks at row changes: whoever
//! reads both topics must apply what the schema topic held when a block was fetched before that block is decoded, or an
//! altered type is seen too late.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::lineage::{Lineage, OwnerBefore, Renaming, Renamings};
use super::structure::{Structure, safe_name};
use crate::decode::bad_record::BadSchemaChange;
use crate::decode::dialect::mysql::binlog::{Moment, SourcePosition};
use crate::decode::dialect::mysql::schema_topic::{self, Announcement, Statement, TableChange};
use crate::decode::table_name::TableName;
use crate::model::record::Record;
use crate::model::schema::{Rename, RenamedColumn, TableSchemaRef};

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
    /// a statement took the rows of some partitions away, and no event tells which rows
    PartitionsEmptied,
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
pub(crate) struct StructureFrom {
    pub(crate) position: SourcePosition,
    /// `None`: the table is gone. An error: why Delta cannot have its columns' names
    pub(crate) structure: Option<Result<Arc<Structure>, Arc<str>>>,
}

/// Structures of all tables of one connector, in source order.
#[derive(Debug, Clone, Default)]
pub struct SchemaHistory {
    tables: HashMap<TableName, Arc<Vec<StructureFrom>>>,
    /// renamed columns, in the order of the topic
    renames: HashMap<TableName, Vec<(SourcePosition, Arc<Rename>)>>,
    /// renamed tables
    renamings: Renamings,
    /// where snapshots of the whole connector were taken
    whole_snapshots: HashSet<SourcePosition>,
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
        match self.entries(table)?.last()?.structure.as_ref()? {
            Ok(structure) => Some(Arc::clone(&structure.schema)),
            Err(_) => None,
        }
    }

    /// True when the table was dropped, or has another name by now.
    pub fn is_gone(&self, table: &TableName) -> bool {
        self.entries(table).is_some_and(|e| e.last().is_some_and(|e| e.structure.is_none()))
    }

    /// True when the snapshot at `position` is known to be one of everything that the connector captures, as it takes when
    /// it begins. One that was asked for (ad hoc, blocking) may have read a part of a table, and its rows do not say so.
    pub fn is_whole_snapshot(&self, position: &SourcePosition) -> bool {
        self.whole_snapshots.contains(position)
    }

    /// Tables that exist as far as is known.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        self.tables.iter().filter(|(_, e)| e.last().is_some_and(|e| e.structure.is_some())).map(|(name, _)| name)
    }

    /// What renamed columns of a table, in the order of the topic.
    pub fn renames(&self, table: &TableName) -> Vec<Arc<Rename>> {
        self.renames.get(table).into_iter().flatten().map(|(_, rename)| Arc::clone(rename)).collect()
    }

    pub(crate) fn entries(&self, table: &TableName) -> Option<&Arc<Vec<StructureFrom>>> {
        self.tables.get(table)
    }

    /// What belongs to `table`, which has its name now.
    pub fn lineage(&self, table: &TableName) -> Lineage {
        self.renamings.lineage(table)
    }

    /// Tables that got another name and have it still. Not those that an online change put aside.
    pub fn renamed_tables(&self) -> Vec<TableName> {
        let mut all: Vec<TableName> = self.renamings.renamed_tables().filter(|to| !self.is_gone(to)).cloned().collect();
        all.sort();
        all
    }

    /// The name that `table` was given, if it has its own no more.
    pub fn renamed_to(&self, table: &TableName) -> Option<&TableName> {
        if self.is_gone(table) { self.renamings.renamed_to(table) } else { None }
    }

    /// Takes in one record of the schema-change topic. Tombstones and statements that touch no table give no changes.
    ///
    /// # Errors
    /// Why the record cannot be read.
    pub fn apply(&mut self, record: Record<'_>) -> Result<Vec<SchemaChange>, BadSchemaChange> {
        let Some(value) = record.value else { return Ok(Vec::new()) };
        let value: Value = serde_json::from_slice(value).map_err(|_| BadSchemaChange::new("the record is not JSON"))?;
        let statement = match schema_topic::read(&value)? {
            Announcement::Nothing => return Ok(Vec::new()),
            Announcement::WholeSnapshot(position) => {
                self.whole_snapshots.insert(position);
                self.revision += 1;
                return Ok(Vec::new());
            }
            Announcement::Statement(statement) => statement,
        };
        let change = |table: TableName, kind| SchemaChange {
            table,
            kind,
            position: statement.position.clone(),
            server: statement.server,
            ts_ms: statement.ts_ms,
            offset: record.offset,
            snapshot: statement.snapshot,
        };
        let mut told = Vec::new();
        for table in statement.tables() {
            let table = table?;
            if let Some(kind) = self.apply_to(&table, &statement, record.offset)? {
                told.push(change(table.table, kind));
            }
        }
        let effects = &statement.effects;
        told.extend(effects.truncated.iter().map(|table| change(table.clone(), SchemaChangeKind::Truncated)));
        told.extend(
            effects.partitions_emptied.iter().map(|table| change(table.clone(), SchemaChangeKind::PartitionsEmptied)),
        );
        Ok(told)
    }

    /// Takes in what one table is like after a statement; `None` where that was known.
    fn apply_to(
        &mut self,
        change: &TableChange<'_>,
        statement: &Statement<'_>,
        offset: i64,
    ) -> Result<Option<SchemaChangeKind>, BadSchemaChange> {
        let (table, position) = (&change.table, &statement.position);
        if change.is_gone() {
            // a snapshot drops a table only to make it in the next record
            let dropped = !statement.snapshot && self.add(table, position, None);
            return Ok(dropped.then_some(SchemaChangeKind::Dropped));
        }
        let from = change.from.as_ref();
        let before = self.in_force_before(from.unwrap_or(table), position);
        let names_before = before.as_ref().map(|b| b.names.as_slice());
        let (columns, key) = statement.columns(change, names_before)?;
        let structure = Structure::new(table, columns, &key);
        let names = structure.as_ref().ok().map(|s| s.names.as_slice());
        let renamed = statement.effects.renamed_columns(names_before, names);
        if let Some(from) = from {
            self.inherit(table, from);
        }
        let recreated =
            change.created && !statement.snapshot && self.was_another(table, position, statement.effects.if_not_exists);
        let mark = self.note_rename(table, position, offset + 1, &renamed);
        let structure = structure.map(|structure| Arc::new(structure.after(mark))).map_err(Arc::from);
        let owner_before = self.owner_before(table, position);
        if !self.add(table, position, Some(structure)) {
            return Ok(None);
        }
        Ok(Some(match from {
            Some(from) => {
                self.add(from, position, None);
                let at = Moment { position: position.clone(), ts_ms: statement.ts_ms };
                let old_name_reused = statement.effects.gives_away(from);
                let renaming = Renaming { from: from.clone(), at, owner_before, old_name_reused };
                self.renamings.push(table.clone(), renaming);
                SchemaChangeKind::Renamed { from: from.clone() }
            }
            None if recreated => SchemaChangeKind::Recreated,
            None if before.is_some() => SchemaChangeKind::Altered { renamed },
            None => SchemaChangeKind::Created,
        }))
    }

    /// Whose the name of `table` was before a renaming at `position` gives it to another table.
    fn owner_before(&self, table: &TableName, position: &SourcePosition) -> OwnerBefore {
        let entries = self.tables.get(table).map(|e| e.as_slice()).unwrap_or_default();
        match entries.iter().rev().find(|e| !e.position.reaches(position)) {
            None => OwnerBefore::Nobody,
            Some(entry) if entry.structure.is_some() => OwnerBefore::LiveTable,
            Some(_) => OwnerBefore::GoneTable,
        }
    }

    /// The structure before a statement: that of the statement itself does not count, however often it is told.
    fn in_force_before(&self, table: &TableName, position: &SourcePosition) -> Option<Arc<Structure>> {
        let entries = self.tables.get(table)?;
        let entry = entries.iter().rev().find(|e| !e.position.reaches(position))?;
        entry.structure.clone()?.ok()
    }

    /// True when a CREATE at `position` makes a table of a name that another one had; where it may have done nothing, only
    /// if that one is known to be gone.
    fn was_another(&self, table: &TableName, position: &SourcePosition, if_not_exists: bool) -> bool {
        let entries = self.tables.get(table).map(|e| e.as_slice()).unwrap_or_default();
        let before = |e: &&StructureFrom| !e.position.reaches(position);
        entries.iter().rev().find(before).is_some_and(|e| !if_not_exists || e.structure.is_none())
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
            let before = |at: &SourcePosition| !position.precedes(at);
            return known.iter().rev().find(|(at, _)| before(at)).map_or(0, |(_, rename)| rename.mark);
        }
        let entries = self.tables.get(table).map(|e| e.as_slice()).unwrap_or_default();
        let had = |name: &String| entries.iter().any(|e| matches!(&e.structure, Some(Ok(v)) if v.names.contains(name)));
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
        mut structure: Option<Result<Arc<Structure>, Arc<str>>>,
    ) -> bool {
        let entries = Arc::make_mut(self.tables.entry(table.clone()).or_default());
        let known = entries.iter().any(|e| {
            e.position == *position
                && match (&e.structure, &structure) {
                    (None, None) => true,
                    (Some(Ok(a)), Some(Ok(b))) => a.equals(b),
                    (Some(Err(a)), Some(Err(b))) => a == b,
                    _ => false,
                }
        });
        if known {
            return false;
        }
        // a structure that did not change stays the same one
        if let Some(Ok(new)) = &structure
            && let Some(old) =
                entries.iter().filter_map(|e| e.structure.as_ref()?.as_ref().ok()).find(|old| old.equals(new))
        {
            structure = Some(Ok(Arc::clone(old)));
        }
        let after = |e: &StructureFrom| position.precedes(&e.position);
        let at = entries.iter().position(after).unwrap_or(entries.len());
        entries.insert(at, StructureFrom { position: position.clone(), structure });
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
