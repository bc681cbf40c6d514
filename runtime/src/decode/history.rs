//! All table structures that one connector announced.
//!
//! Receives the records of the schema-change topic. Promises the structure of a table that was in force at a position of
//! the source. Applying a record again changes nothing. Clones share their tables. Never looks at row changes: whoever
//! reads both topics must apply what the schema topic held when a block was fetched before that block is decoded, or an
//! altered type is seen too late.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::columntype::ColumnType;
use super::ddl::Effects;
use super::version::{ColumnSpec, Version, ddl_default, implicit_default, safe_name};
use super::{BadRecord, SourcePosition, TableName, ddl};
use crate::record::Record;
use crate::schema::{Rename, RenamedColumn, TableSchemaRef};

/// What the source did to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaChangeKind {
    /// it was made, or a snapshot found it
    Created,
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
        if changes.is_empty() && effects.is_empty() {
            return Ok(Vec::new());
        }
        let position = position(source)
            .ok_or_else(|| BadRecord::new("the schema change has no binlog position (`source.file`, `source.pos`)"))?;
        let snapshot = match source.get("snapshot") {
            Some(Value::String(s)) => s != "false",
            Some(Value::Bool(b)) => *b,
            _ => false,
        };
        let mut told = Vec::new();
        let mut tell = |table: &TableName, kind| {
            told.push(SchemaChange { table: table.clone(), kind, position: position.clone(), snapshot });
        };
        for change in changes {
            let id = change.get("id").and_then(Value::as_str).unwrap_or_default();
            let table = table_of_id(id, database).ok_or_else(|| BadRecord::new("a table change has no table `id`"))?;
            let dropped = change.get("type").and_then(Value::as_str) == Some("DROP");
            let structure = change.get("table").filter(|t| !t.is_null());
            if dropped || structure.is_none() {
                if self.add(&table, &position, None) {
                    tell(&table, SchemaChangeKind::Dropped);
                }
                continue;
            }
            let previous = change.get("previousId").and_then(Value::as_str).and_then(|id| table_of_id(id, database));
            let from = previous.or_else(|| effects.renamed_table(&table)).filter(|from| *from != table);
            let before = self.in_force_before(from.as_ref().unwrap_or(&table), &position);
            let version = read_version(&table, structure.unwrap_or(&Value::Null), before.as_deref(), (ddl, &effects))?;
            let renamed = effects.renamed_columns(before.as_deref(), version.as_ref().ok());
            if let Some(from) = &from {
                self.inherit(&table, from);
            }
            let mark = self.note_rename(&table, &position, record.offset + 1, &renamed);
            let version = version.map(|version| Arc::new(version.after(mark))).map_err(Arc::from);
            if !self.add(&table, &position, Some(version)) {
                continue;
            }
            match from {
                Some(from) => {
                    self.add(&from, &position, None);
                    tell(&table, SchemaChangeKind::Renamed { from });
                }
                None if before.is_some() => tell(&table, SchemaChangeKind::Altered { renamed }),
                None => tell(&table, SchemaChangeKind::Created),
            }
        }
        for table in effects.truncated {
            tell(&table, SchemaChangeKind::Truncated);
        }
        Ok(told)
    }

    /// The structure before a statement: that of the statement itself does not count, however often it is told.
    fn in_force_before(&self, table: &TableName, position: &SourcePosition) -> Option<Arc<Version>> {
        let entries = self.tables.get(table)?;
        let entry = entries.iter().rev().find(|e| e.position.base != position.base || e.position < *position)?;
        entry.version.clone()?.ok()
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

/// Base name and number of a binlog file: `binlog.000002`.
pub(super) fn split_file(file: &str) -> Option<(&str, u64)> {
    let (base, number) = file.rsplit_once('.')?;
    let digits = !number.is_empty() && number.len() <= 18 && number.bytes().all(|b| b.is_ascii_digit());
    if digits { Some((base, number.parse().ok()?)) } else { None }
}

fn position(source: &Value) -> Option<SourcePosition> {
    let (base, file) = split_file(source.get("file")?.as_str()?)?;
    Some(SourcePosition { base: base.to_owned(), file, pos: source.get("pos")?.as_u64()? })
}

/// `"shop"."orders"`, where a quote within a name is doubled.
fn table_of_id(id: &str, database: &str) -> Option<TableName> {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = id.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '.' && !parts.is_empty() {
            continue;
        }
        let mut part = String::new();
        if c == '"' {
            while let Some(c) = rest.next() {
                if c == '"' {
                    if rest.peek() == Some(&'"') {
                        rest.next();
                    } else {
                        break;
                    }
                }
                part.push(c);
            }
        } else {
            part.push(c);
            while let Some(c) = rest.next_if(|c| *c != '.') {
                part.push(c);
            }
        }
        parts.push(part);
    }
    let table = parts.pop().filter(|t| !t.is_empty())?;
    Some(TableName { database: parts.pop().unwrap_or_else(|| database.to_owned()), table })
}

/// The outer error: not a structure at all. The inner one: names that cannot be held.
fn read_version(
    table: &TableName,
    structure: &Value,
    before: Option<&Version>,
    (ddl, effects): (&str, &Effects),
) -> Result<Result<Version, String>, BadRecord> {
    let wrong = || BadRecord::new(format!("the structure of `{table}` cannot be read"));
    let columns = structure.get("columns").and_then(Value::as_array).ok_or_else(wrong)?;
    let mut sorted: Vec<&Value> = columns.iter().collect();
    sorted.sort_by_key(|c| c.get("position").and_then(Value::as_i64).unwrap_or(i64::MAX));
    let mut specs = Vec::with_capacity(sorted.len());
    for column in sorted {
        let text = |name: &str| column.get(name).and_then(Value::as_str);
        let name = text("name").ok_or_else(wrong)?.to_owned();
        let type_name = text("typeName").ok_or_else(wrong)?;
        let number = |name: &str| column.get(name).and_then(Value::as_i64);
        let kind = ColumnType::of_mysql(type_name, number("length"), number("scale"));
        let optional = column.get("optional").and_then(Value::as_bool).unwrap_or(true);
        let added = before.is_some_and(|before| !before.names.contains(&name)) && !effects.renames_to(&name);
        let default = match text("defaultValueExpression") {
            // stands for CURRENT_TIMESTAMP, whose value for old rows nobody tells
            Some("1970-01-01 00:00:00") if !ddl.contains("1970") => None,
            Some(expression) => ddl_default(kind, expression),
            None if added && !optional => {
                let labels = column.get("enumValues").and_then(Value::as_array);
                let first = labels.filter(|_| type_name.eq_ignore_ascii_case("ENUM")).and_then(|l| l.first()?.as_str());
                implicit_default(kind, first.map(|l| l.trim_matches('\'')))
            }
            None => None,
        };
        specs.push(ColumnSpec { name, kind, default });
    }
    let key: Vec<String> = structure
        .get("primaryKeyColumnNames")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(|n| Some(n.as_str()?.to_owned())).collect())
        .unwrap_or_default();
    // MySQL compares column names without case
    let key = key
        .into_iter()
        .map(|k| specs.iter().find(|s| s.name.eq_ignore_ascii_case(&k)).map_or(k, |s| s.name.clone()))
        .collect::<Vec<_>>();
    Ok(Version::new(table, specs, &key))
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
    fn identifiers_are_taken_apart() {
        let name = |d: &str, t: &str| Some(TableName { database: d.into(), table: t.into() });
        assert_eq!(table_of_id("\"shop\".\"a.b\"", "x"), name("shop", "a.b"));
        assert_eq!(table_of_id("\"shop\".\"a\"\"b\"", "x"), name("shop", "a\"b"));
        assert_eq!(table_of_id("shop.orders", "x"), name("shop", "orders"));
        assert_eq!(table_of_id("orders", "x"), name("x", "orders"));
        assert_eq!(table_of_id("", "x"), None);
        assert_eq!(split_file("mysql-bin.changelog.000123"), Some(("mysql-bin.changelog", 123)));
        assert_eq!(split_file("binlog"), None);
    }
}
