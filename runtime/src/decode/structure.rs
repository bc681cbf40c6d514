//! What a record of the schema-change topic says: where it stands, which table it is about, the table's structure.
//!
//! Receives the record as JSON. Promises a structure whose columns have types and the defaults that older rows get.
//! Remembers nothing.

use serde_json::Value;

use super::columntype::ColumnType;
use super::ddl::Effects;
use super::version::{ColumnSpec, Version, ddl_default, implicit_default};
use super::{BadRecord, SourcePosition, TableName};

/// Base name and number of a binlog file: `binlog.000002`.
pub(super) fn split_file(file: &str) -> Option<(&str, u64)> {
    let (base, number) = file.rsplit_once('.')?;
    let digits = !number.is_empty() && number.len() <= 18 && number.bytes().all(|b| b.is_ascii_digit());
    if digits { Some((base, number.parse().ok()?)) } else { None }
}

pub(super) fn position(source: &Value) -> Option<SourcePosition> {
    let (base, file) = split_file(source.get("file")?.as_str()?)?;
    Some(SourcePosition { base: base.to_owned(), file, pos: source.get("pos")?.as_u64()? })
}

/// The old and the new identifier of `"shop"."old","shop"."new"`; of one alone, that one.
pub(super) fn both_ids(id: &str) -> (Option<&str>, &str) {
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
pub(super) fn table_of_id(id: &str, database: &str) -> Option<TableName> {
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

/// A structure after a statement, `before` it another one. The outer error: not a structure at all. The inner one: names that cannot be held.
pub(super) fn read_version(
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
        assert_eq!(split_file("mysql-bin.changelog.000123"), Some(("mysql-bin.changelog", 123)));
        assert_eq!(split_file("binlog"), None);
    }
}
