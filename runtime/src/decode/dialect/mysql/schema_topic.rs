//! What a record of the schema-change topic says: where it stands, what its statement did, which tables it is about and
//! what they are like after it.
//!
//! Receives the record's value. Promises columns with their types and the defaults that older rows get. Remembers
//! nothing.

use serde_json::Value;

use super::binlog::{SourcePosition, split_file};
use super::ddl::{self, Effects};
use super::defaults::{ddl_default, implicit_default};
use super::types::named_type;
use crate::decode::bad_record::BadSchemaChange;
use crate::decode::table_name::TableName;
use crate::decode::value::column_type::ColumnSpec;

/// What a record of the schema-change topic says.
pub(crate) enum Announcement<'a> {
    /// a statement that touches no table
    Nothing,
    /// the connector takes a snapshot of everything that it captures, here
    WholeSnapshot(SourcePosition),
    /// something about tables
    Statement(Statement<'a>),
}

/// A statement about tables, and what they are like after it.
pub(crate) struct Statement<'a> {
    pub(crate) position: SourcePosition,
    /// the database server; 0 where unknown
    pub(crate) server: u64,
    /// the source's time; 0 where unknown
    pub(crate) ts_ms: i64,
    /// true when a snapshot found the tables rather than a DDL statement changed them
    pub(crate) snapshot: bool,
    pub(crate) effects: Effects,
    ddl: &'a str,
    database: &'a str,
    changes: &'a [Value],
}

/// One table after a statement.
pub(crate) struct TableChange<'a> {
    pub(crate) table: TableName,
    /// what it was called before, where the statement renamed it
    pub(crate) from: Option<TableName>,
    /// the statement made it
    pub(crate) created: bool,
    /// `None`: it is gone
    structure: Option<&'a Value>,
}

/// Takes the value of a record apart.
pub(crate) fn read(value: &Value) -> Result<Announcement<'_>, BadSchemaChange> {
    let payload = match (value.get("schema"), value.get("payload")) {
        (Some(_), Some(payload)) => payload,
        _ => value,
    };
    let changes = match payload.get("tableChanges") {
        Some(Value::Array(changes)) => changes.as_slice(),
        Some(Value::Null) | None if payload.get("ddl").is_some() => &[],
        _ => {
            return Err(BadSchemaChange::new(
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
        let whole = position(source).filter(|_| snapshot);
        return Ok(whole.map_or(Announcement::Nothing, Announcement::WholeSnapshot));
    }
    let position = position(source).ok_or_else(|| {
        BadSchemaChange::new("the schema change has no binlog position (`source.file`, `source.pos`)")
    })?;
    Ok(Announcement::Statement(Statement {
        position,
        server: source.get("server_id").and_then(Value::as_u64).unwrap_or(0),
        ts_ms: source.get("ts_ms").and_then(Value::as_i64).unwrap_or(0),
        snapshot,
        effects,
        ddl,
        database,
        changes,
    }))
}

fn position(source: &Value) -> Option<SourcePosition> {
    let (base, file) = split_file(source.get("file")?.as_str()?)?;
    Some(SourcePosition { base: base.to_owned(), file, pos: source.get("pos")?.as_u64()? })
}

impl<'a> Statement<'a> {
    /// The tables that it is about, in the order of the record.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Result<TableChange<'a>, BadSchemaChange>> {
        self.changes.iter().map(|change| self.table(change))
    }

    fn table(&self, change: &'a Value) -> Result<TableChange<'a>, BadSchemaChange> {
        let text = |name: &str| change.get(name).and_then(Value::as_str);
        // of a renaming, some versions of Debezium give both names
        let (old_id, id) = both_ids(text("id").unwrap_or_default());
        let table =
            table_of_id(id, self.database).ok_or_else(|| BadSchemaChange::new("a table change has no table `id`"))?;
        let previous = text("previousId").or(old_id).and_then(|id| table_of_id(id, self.database));
        let from = previous.or_else(|| self.effects.renamed_table(&table)).filter(|from| *from != table);
        let kind = text("type");
        let structure = change.get("table").filter(|t| !t.is_null() && kind != Some("DROP"));
        Ok(TableChange { table, from, created: kind == Some("CREATE"), structure })
    }

    /// The columns of `change`'s table in their order, and the names of its key's. `before`: the columns that it had
    /// before the statement, where they are known.
    ///
    /// # Errors
    /// That they cannot be read.
    pub(crate) fn columns(
        &self,
        change: &TableChange<'_>,
        before: Option<&[String]>,
    ) -> Result<(Vec<ColumnSpec>, Vec<String>), BadSchemaChange> {
        let structure = change.structure.unwrap_or(&Value::Null);
        self.columns_of(structure, before)
            .ok_or_else(|| BadSchemaChange::new(format!("the structure of `{}` cannot be read", change.table)))
    }

    fn columns_of(&self, structure: &Value, before: Option<&[String]>) -> Option<(Vec<ColumnSpec>, Vec<String>)> {
        let mut sorted: Vec<&Value> = structure.get("columns").and_then(Value::as_array)?.iter().collect();
        sorted.sort_by_key(|c| c.get("position").and_then(Value::as_i64).unwrap_or(i64::MAX));
        let columns: Vec<ColumnSpec> = sorted.into_iter().map(|c| self.column(c, before)).collect::<Option<_>>()?;
        let key = structure.get("primaryKeyColumnNames").and_then(Value::as_array).map(Vec::as_slice);
        let key = key.unwrap_or_default().iter().filter_map(Value::as_str);
        // MySQL compares column names without case
        let spelled = |name: &str| columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)).map(|c| c.name.clone());
        let key = key.map(|name| spelled(name).unwrap_or_else(|| name.to_owned())).collect();
        Some((columns, key))
    }

    fn column(&self, column: &Value, before: Option<&[String]>) -> Option<ColumnSpec> {
        let text = |name: &str| column.get(name).and_then(Value::as_str);
        let number = |name: &str| column.get(name).and_then(Value::as_i64);
        let (name, type_name) = (text("name")?.to_owned(), text("typeName")?);
        let column_type = named_type(type_name, number("length"), number("scale"));
        let optional = column.get("optional").and_then(Value::as_bool).unwrap_or(true);
        let added = before.is_some_and(|before| !before.contains(&name)) && !self.effects.renames_to(&name);
        let default = match text("defaultValueExpression") {
            // stands for CURRENT_TIMESTAMP, whose value for old rows nobody tells
            Some("1970-01-01 00:00:00") if !self.ddl.contains("1970") => None,
            Some(expression) => ddl_default(column_type, expression),
            None if added && !optional => {
                let labels = column.get("enumValues").and_then(Value::as_array);
                let first = labels.filter(|_| type_name.eq_ignore_ascii_case("ENUM")).and_then(|l| l.first()?.as_str());
                implicit_default(column_type, first.map(|l| l.trim_matches('\'')))
            }
            None => None,
        };
        Some(ColumnSpec { name, column_type, default })
    }
}

impl TableChange<'_> {
    /// True when the table is there no more after the statement.
    pub(crate) fn is_gone(&self) -> bool {
        self.structure.is_none()
    }
}

/// The old and the new identifier of `"shop"."old","shop"."new"`; of one alone, that one.
fn both_ids(id: &str) -> (Option<&str>, &str) {
    let mut quoted = false;
    let comma = id.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == ',' && !quoted
    });
    match comma.and_then(|(at, _)| id.split_at_checked(at)) {
        Some((old, new)) => (Some(old), new.trim_start_matches(',')),
        None => (None, id),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_taken_apart() {
        let name = |d: &str, t: &str| Some(TableName { database: d.into(), table: t.into() });
        assert_eq!(table_of_id("\"shop\".\"a.b\"", "x"), name("shop", "a.b"));
        assert_eq!(table_of_id("\"shop\".\"a\"\"b\"", "x"), name("shop", "a\"b"));
        assert_eq!(table_of_id("shop.orders", "x"), name("shop", "orders"));
        assert_eq!(table_of_id("orders", "x"), name("x", "orders"));
        assert_eq!(table_of_id("", "x"), None);
        assert_eq!(both_ids("\"s\".\"a,b\",\"s\".\"c\""), (Some("\"s\".\"a,b\""), "\"s\".\"c\""));
        assert_eq!(both_ids("\"s\".\"a,b\""), (None, "\"s\".\"a,b\""));
    }
}
