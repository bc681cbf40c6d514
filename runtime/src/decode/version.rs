//! One structure of a source table, ready to decode rows with.
//!
//! Receives columns in the table's order with their types and defaults. Promises a [`TableSchema`] whose field names
//! Delta can hold, and keeps what the decoder needs beside it. Knows nothing of where it came from.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};

use super::TableName;
use super::codec::Codec;
use super::column::Column;
use super::columntype::ColumnType;
use super::json::{Kind, Token};
use crate::schema::{SOURCE_NAME, TableSchema, TableSchemaRef};

/// A column of the source table.
#[derive(Debug, Clone)]
pub(super) struct ColumnSpec {
    pub(super) name: String,
    pub(super) kind: ColumnType,
    pub(super) default: Option<ArrayRef>,
}

/// A structure of a table.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) schema: TableSchemaRef,
    /// the same fields, all nullable
    pub(super) row_schema: SchemaRef,
    pub(super) kinds: Vec<ColumnType>,
    /// column names of the database
    pub(super) names: Vec<String>,
}

impl Version {
    /// `key`: names of the key's columns, in key order. The error says what is wrong with the names.
    pub(super) fn new(table: &TableName, columns: Vec<ColumnSpec>, key: &[String]) -> Result<Version, String> {
        let mut places = HashMap::new();
        for (at, column) in columns.iter().enumerate() {
            places.insert(column.name.as_str(), at);
        }
        let mut keys = Vec::new();
        for name in key {
            match places.get(name.as_str()) {
                Some(&at) => keys.push(at),
                None => return Err(format!("key column `{name}` is not among the columns of `{table}`")),
            }
        }
        let mut taken: HashMap<String, &str> = HashMap::new();
        let mut fields = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            let safe = safe_name(&column.name);
            if let Some(other) = taken.insert(safe.clone(), &column.name) {
                return Err(format!(
                    "columns `{other}` and `{}` of `{table}` would both become `{safe}`; rename one",
                    column.name
                ));
            }
            let mut field = Field::new(&safe, column.kind.data_type(), !keys.contains(&at));
            if safe != column.name {
                field.set_metadata(HashMap::from([(SOURCE_NAME.to_owned(), column.name.clone())]));
            }
            fields.push(field);
        }
        let open: Vec<Field> = fields.iter().map(|f| f.clone().with_nullable(true)).collect();
        Ok(Version {
            row_schema: Arc::new(Schema::new(open)),
            kinds: columns.iter().map(|c| c.kind).collect(),
            names: columns.iter().map(|c| c.name.clone()).collect(),
            schema: Arc::new(TableSchema {
                database: table.database.clone(),
                table: table.table.clone(),
                fields: Arc::new(Schema::new(fields)),
                key: keys,
                defaults: columns.into_iter().map(|c| c.default).collect(),
                renamed: 0,
            }),
        })
    }

    /// The same structure, whose names know of the renamings up to `mark`.
    pub(super) fn after(mut self, mark: i64) -> Version {
        Arc::make_mut(&mut self.schema).renamed = mark;
        self
    }

    /// The same columns, types, key and defaults, between the same two renamings.
    pub(super) fn equals(&self, other: &Version) -> bool {
        self.names == other.names
            && self.schema.renamed == other.schema.renamed
            && self.kinds == other.kinds
            && self.schema.key == other.schema.key
            && self.schema.defaults.iter().map(|d| d.as_ref().map(|d| d.to_data())).eq(other
                .schema
                .defaults
                .iter()
                .map(|d| d.as_ref().map(|d| d.to_data())))
    }

    /// True when `names`, in any order and without repeats, are exactly the columns.
    pub(super) fn has_exactly<'a>(&self, names: impl ExactSizeIterator<Item = &'a str>) -> bool {
        names.len() == self.names.len() && {
            let mut names = names;
            names.all(|name| self.names.iter().any(|n| n == name))
        }
    }
}

/// Characters that Delta cannot hold in a column's name become `_`.
pub(super) fn safe_name(name: &str) -> String {
    let trimmed = name.trim_matches(' ');
    let lead = name.len() - name.trim_start_matches(' ').len();
    let trail = if trimmed.is_empty() { 0 } else { name.len() - name.trim_end_matches(' ').len() };
    let mut safe = "_".repeat(lead);
    for c in trimmed.chars() {
        let bad = c.is_control() || matches!(c, ' ' | ',' | ';' | '{' | '}' | '(' | ')' | '=');
        safe.push(if bad { '_' } else { c });
    }
    safe.push_str(&"_".repeat(trail));
    if safe.is_empty() { "_".to_owned() } else { safe }
}

/// An array of the one value that `text` writes; `None` where it does not fit.
pub(super) fn one_value(kind: ColumnType, codec: Codec, text: &str, token: Token) -> Option<ArrayRef> {
    let mut column = Column::new(kind, 1);
    column.append(codec, token, text.as_bytes(), &mut Vec::new()).ok()?;
    let array = column.finish().ok()?;
    (array.null_count() == 0).then_some(array)
}

/// The default that the DDL text `text` names.
pub(super) fn ddl_default(kind: ColumnType, text: &str) -> Option<ArrayRef> {
    let end = u32::try_from(text.len()).ok()?;
    let whole = |kind| Token { kind, start: 0, end };
    let token = match kind {
        ColumnType::Int8 | ColumnType::Int16 if text.eq_ignore_ascii_case("true") => whole(Kind::True),
        ColumnType::Int8 | ColumnType::Int16 if text.eq_ignore_ascii_case("false") => whole(Kind::False),
        ColumnType::Int8
        | ColumnType::Int16
        | ColumnType::Int32
        | ColumnType::Int64
        | ColumnType::UInt64
        | ColumnType::Float32
        | ColumnType::Float64
        | ColumnType::Year => whole(Kind::Number),
        ColumnType::Bit | ColumnType::Bits { .. } => return bit_default(kind, text),
        ColumnType::Binary | ColumnType::Json => return None,
        _ => whole(Kind::Text),
    };
    one_value(kind, Codec::of_ddl(kind), text, token)
}

fn bit_default(kind: ColumnType, text: &str) -> Option<ArrayRef> {
    let digits = text.trim_start_matches("b'").trim_end_matches('\'');
    let n = match digits {
        "true" => 1,
        "false" => 0,
        _ => u64::from_str_radix(digits, 2).ok()?,
    };
    let flag = n == 1;
    match kind {
        ColumnType::Bit if n <= 1 => Some(Arc::new(arrow::array::BooleanArray::from(vec![flag]))),
        ColumnType::Bits { length: 64 } => Some(Arc::new(
            arrow::array::Decimal128Array::from(vec![i128::from(n)]).with_precision_and_scale(20, 0).ok()?,
        )),
        ColumnType::Bits { .. } => Some(Arc::new(arrow::array::Int64Array::from(vec![i64::try_from(n).ok()?]))),
        _ => None,
    }
}

/// What MySQL puts into old rows when a column that must not be null is added without a default.
pub(super) fn implicit_default(kind: ColumnType, first_label: Option<&str>) -> Option<ArrayRef> {
    match kind {
        ColumnType::Text => ddl_default(kind, first_label.unwrap_or("")),
        ColumnType::Binary => Some(Arc::new(arrow::array::BinaryArray::from(vec![b"".as_slice()]))),
        ColumnType::Time { places } => {
            let zero = match places.unwrap_or(0) {
                0 => "00:00:00".to_owned(),
                n => format!("00:00:00.{}", "0".repeat(usize::from(n))),
            };
            ddl_default(kind, &zero)
        }
        ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp | ColumnType::Json => None,
        ColumnType::BigDecimal { scale: n @ 1.. } => ddl_default(kind, &format!("0.{}", "0".repeat(usize::from(n)))),
        _ => ddl_default(kind, "0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> ColumnSpec {
        ColumnSpec { name: name.into(), kind: ColumnType::Int32, default: None }
    }

    #[test]
    fn names_that_delta_cannot_hold_are_changed_and_kept() {
        let table = TableName { database: "d".into(), table: "t".into() };
        let version = Version::new(&table, vec![spec("a b"), spec(" x"), spec("ok")], &["ok".into()]).unwrap();
        let names: Vec<_> = version.schema.fields.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["a_b", "_x", "ok"]);
        assert_eq!(version.schema.fields.field(0).metadata().get(SOURCE_NAME).unwrap(), "a b");
        assert!(version.schema.fields.field(2).metadata().is_empty());
        assert!(!version.schema.fields.field(2).is_nullable() && version.row_schema.field(2).is_nullable());
        let clash = Version::new(&table, vec![spec("a b"), spec("a;b")], &[]).unwrap_err();
        assert!(clash.contains("`a b`") && clash.contains("`a;b`"), "{clash}");
        assert_eq!(safe_name(""), "_");
        assert_eq!(safe_name("  "), "__");
    }

    #[test]
    fn defaults_are_typed() {
        use arrow::array::AsArray;
        use arrow::datatypes::{Decimal128Type, Int32Type};
        let int = ddl_default(ColumnType::Int32, "7").unwrap();
        assert_eq!(int.as_primitive::<Int32Type>().value(0), 7);
        let dec = ddl_default(ColumnType::Decimal { precision: 12, scale: 2 }, "0.00").unwrap();
        assert_eq!(dec.as_primitive::<Decimal128Type>().value(0), 0);
        assert!(ddl_default(ColumnType::Bit, "0").is_some());
        assert!(ddl_default(ColumnType::Int8, "300").is_none());
        assert!(ddl_default(ColumnType::DateTime { places: 6 }, "2024-01-02 03:04:05.6").is_some());
        assert_eq!(implicit_default(ColumnType::Text, Some("a")).unwrap().as_string::<i32>().value(0), "a");
    }
}
