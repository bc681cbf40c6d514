//! One structure of a source table, ready to decode rows with.
//!
//! Receives columns in the table's order with their types and defaults. Promises a [`TableSchema`] whose field names
//! Delta can hold, and keeps what the decoder needs beside it. Knows nothing of where it came from.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::decode::table_name::TableName;
use crate::decode::value::column_type::{ColumnSpec, ColumnType};
use crate::model::schema::{SOURCE_NAME, TableSchema, TableSchemaRef};

/// A table's columns, types, key and defaults as they were for a while.
#[derive(Debug)]
pub(crate) struct Structure {
    pub(crate) schema: TableSchemaRef,
    /// the same fields, all nullable
    pub(crate) row_schema: SchemaRef,
    pub(crate) types: Vec<ColumnType>,
    /// column names of the database
    pub(crate) names: Vec<String>,
}

impl Structure {
    /// `key`: names of the key's columns, in key order. The error says what is wrong with the names.
    pub(crate) fn new(table: &TableName, columns: Vec<ColumnSpec>, key: &[String]) -> Result<Structure, String> {
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
            let mut field = Field::new(&safe, column.column_type.data_type(), !keys.contains(&at));
            if safe != column.name {
                field.set_metadata(HashMap::from([(SOURCE_NAME.to_owned(), column.name.clone())]));
            }
            fields.push(field);
        }
        let open: Vec<Field> = fields.iter().map(|f| f.clone().with_nullable(true)).collect();
        Ok(Structure {
            row_schema: Arc::new(Schema::new(open)),
            types: columns.iter().map(|c| c.column_type).collect(),
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

    /// The same structure, whose column names are those after every renaming up to `mark`.
    pub(crate) fn after(mut self, mark: i64) -> Structure {
        Arc::make_mut(&mut self.schema).renamed = mark;
        self
    }

    /// The same columns, types, key and defaults, between the same two renamings.
    pub(crate) fn equals(&self, other: &Structure) -> bool {
        self.names == other.names
            && self.schema.renamed == other.schema.renamed
            && self.types == other.types
            && self.schema.key == other.schema.key
            && self.schema.defaults.iter().map(|d| d.as_ref().map(|d| d.to_data())).eq(other
                .schema
                .defaults
                .iter()
                .map(|d| d.as_ref().map(|d| d.to_data())))
    }

    /// True when `names`, in any order and without repeats, are exactly the columns.
    pub(crate) fn has_exactly<'a>(&self, names: impl ExactSizeIterator<Item = &'a str>) -> bool {
        names.len() == self.names.len() && {
            let mut names = names;
            names.all(|name| self.names.iter().any(|n| n == name))
        }
    }
}

/// Characters that Delta cannot hold in a column's name become `_`.
pub(crate) fn safe_name(name: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> ColumnSpec {
        ColumnSpec { name: name.into(), column_type: ColumnType::Int32, default: None }
    }

    #[test]
    fn names_that_delta_cannot_hold_are_changed_and_kept() {
        let table = TableName { database: "d".into(), table: "t".into() };
        let structure = Structure::new(&table, vec![spec("a b"), spec(" x"), spec("ok")], &["ok".into()]).unwrap();
        let names: Vec<_> = structure.schema.fields.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["a_b", "_x", "ok"]);
        assert_eq!(structure.schema.fields.field(0).metadata().get(SOURCE_NAME).unwrap(), "a b");
        assert!(structure.schema.fields.field(2).metadata().is_empty());
        assert!(!structure.schema.fields.field(2).is_nullable() && structure.row_schema.field(2).is_nullable());
        let clash = Structure::new(&table, vec![spec("a b"), spec("a;b")], &[]).unwrap_err();
        assert!(clash.contains("`a b`") && clash.contains("`a;b`"), "{clash}");
        assert_eq!(safe_name(""), "_");
        assert_eq!(safe_name("  "), "__");
    }
}
