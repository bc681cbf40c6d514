//! A host for native tests: a table in, the module's whole output out, as the real host would see it.
//!
//! ```
//! use lodestream_sdk::{prelude::*, testing::Table};
//!
//! #[derive(Input)]
//! struct Customer<'a> { email: &'a str }
//! #[derive(Output)]
//! struct Clean { email: String }
//! #[transform(pass_rest)]
//! fn clean(customer: Customer) -> Clean { Clean { email: customer.email.to_lowercase() } }
//!
//! # fn main() -> Result<(), String> {
//! let customers = Table::new("customers", &["id"]).column("id", [1_i64, 2]).column("email", [Some("A@B"), None]);
//! let given = customers.run::<Module>("{}")?;
//! assert_eq!(given.column::<String>("email")?, [Some("a@b".to_owned())]);
//! assert_eq!(given.column::<i64>("id")?, [Some(1)]);
//! assert_eq!(given.rejected, [(1, "`email` is null".to_owned())]);
//! # Ok(())
//! # }
//! ```

use crate::contract::{Batch, Column, Field, OutputField, Relation};
use crate::input::Cell;
use crate::output::{Value, column_of};
use crate::params::Params;
use crate::row::Transform;

/// A table of test rows, with its lookups.
#[derive(Debug, Clone)]
pub struct Table {
    relation: Relation,
    columns: Vec<Column>,
    lookups: Vec<Table>,
}

/// What a module gave for a table.
#[derive(Debug, Clone)]
pub struct Given {
    /// the input row of each output row
    pub source_rows: Vec<u32>,
    /// rejected input rows, and why
    pub rejected: Vec<(u32, String)>,
    /// names of the columns that identify an output row
    pub key: Vec<String>,
    batch: Batch,
}

impl Table {
    /// A table without columns, and the names of its key columns.
    pub fn new(name: &str, key: &[&str]) -> Table {
        let key = key.iter().map(|k| (*k).to_owned()).collect();
        Table {
            relation: Relation { name: name.to_owned(), fields: Vec::new(), key },
            columns: Vec::new(),
            lookups: Vec::new(),
        }
    }

    /// Adds a column. Columns are of one length.
    #[must_use]
    pub fn column<T: Value>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Table {
        self.relation.fields.push(Field { name: name.to_owned(), format: T::format(), nullable: T::NULLABLE });
        self.columns.push(column_of(values));
        self
    }

    /// Adds a lookup, whose rows are those found for the rows of this table.
    #[must_use]
    pub fn lookup(mut self, mut lookup: Table) -> Table {
        lookup.relation.fields.iter_mut().for_each(|field| field.nullable = true);
        self.lookups.push(lookup);
        self
    }

    /// Describes and transforms the table with `params`, a JSON object.
    ///
    /// # Errors
    /// What the module says, or how it breaks the contract.
    pub fn run<T: Transform>(&self, params: &str) -> Result<Given, String> {
        let params = Params::parse(params)?;
        let rows = self.columns.first().map_or(0, |column| column.length);
        let tables: Vec<&Table> = std::iter::once(self).chain(&self.lookups).collect();
        if tables.iter().flat_map(|t| &t.columns).any(|column| column.length != rows) {
            return Err("the columns are of different lengths".to_owned());
        }
        let relations: Vec<Relation> = tables.iter().map(|t| t.relation.clone()).collect();
        let description = T::describe(&params, &relations)?;
        let find = |relation: u32, field: u32| -> Result<(&Field, &Column), String> {
            let table = tables.get(relation as usize).ok_or("a relation that was not offered")?;
            let field = field as usize;
            table
                .relation
                .fields
                .get(field)
                .zip(table.columns.get(field))
                .ok_or_else(|| "a column that was not offered".to_owned())
        };
        let mut batch = Batch { rows, ..Batch::default() };
        for read in &description.reads {
            let (field, column) = find(read.relation, read.field)?;
            batch.fields.push(field.clone());
            batch.columns.push(column.clone());
        }
        let output = T::transform(&params, &batch)?;
        let source_rows = output.source_rows.unwrap_or_else(|| (0..rows).collect());
        let mut given = Batch { rows: source_rows.len() as u32, ..Batch::default() };
        for write in &description.writes {
            let (field, column) = match write {
                OutputField::Computed { field, column } => {
                    let values = output.columns.get(*column as usize).ok_or("a computed column is missing")?;
                    (field.clone(), values.clone())
                }
                OutputField::Passed { name, from } => {
                    let (field, column) = find(from.relation, from.field)?;
                    (Field { name: name.clone(), ..field.clone() }, take(column, &field.format, &source_rows))
                }
            };
            if column.length != given.rows {
                return Err(format!("column `{}` has {} values for {} rows", field.name, column.length, given.rows));
            }
            given.fields.push(field);
            given.columns.push(column);
        }
        let key = description.key.iter().filter_map(|n| description.writes.get(*n as usize));
        Ok(Given {
            key: key.map(|write| write.name().to_owned()).collect(),
            source_rows,
            rejected: output.rejected,
            batch: given,
        })
    }
}

impl Given {
    /// Names of the output columns, in order.
    pub fn columns(&self) -> Vec<&str> {
        self.batch.fields.iter().map(|field| field.name.as_str()).collect()
    }

    /// The values of an output column.
    ///
    /// # Errors
    /// There is no such column, or it is of another type.
    pub fn column<'a, T: Cell<'a>>(&'a self, name: &str) -> Result<Vec<Option<T>>, String> {
        let field = self.batch.fields.iter().find(|field| field.name == name);
        match field {
            None => Err(format!("there is no output column `{name}`; there are {}", self.columns().join(", "))),
            Some(field) if !T::accepts(&field.format) => {
                Err(format!("column `{name}` has the format `{}`", field.format))
            }
            Some(_) => Ok(self.batch.read::<T>(name)?.iter().collect()),
        }
    }
}

/// The values of `column` at `rows`.
fn take(column: &Column, format: &str, rows: &[u32]) -> Column {
    let slice = |n: usize| column.buffers.get(n).map(Vec::as_slice).unwrap_or_default();
    let bit = |bits: &[u8], row: u32| bits.get(row as usize / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1);
    let present = |row: u32| column.null_count == 0 || bit(slice(0), row);
    let pack = |bits: Vec<bool>| -> Vec<u8> {
        bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |packed, bit| packed << 1 | u8::from(*bit))).collect()
    };
    let validity: Vec<bool> = rows.iter().map(|row| present(*row)).collect();
    let null_count = validity.iter().filter(|present| !**present).count() as u32;
    let mut buffers = vec![if null_count > 0 { pack(validity) } else { Vec::new() }];
    match format {
        "b" => buffers.push(pack(rows.iter().map(|row| bit(slice(1), *row)).collect())),
        "u" | "z" => {
            let offsets: Vec<usize> =
                slice(1).as_chunks::<4>().0.iter().map(|o| u32::from_le_bytes(*o) as usize).collect();
            let (mut ends, mut data) = (vec![0; 4], Vec::new());
            for row in rows {
                let row = *row as usize;
                if let Some([start, end]) = offsets.get(row..row + 2) {
                    data.extend_from_slice(&slice(2)[*start..*end]);
                }
                ends.extend_from_slice(&(data.len() as u32).to_le_bytes());
            }
            buffers.extend([ends, data]);
        }
        _ => {
            let width = slice(1).len() / (column.length.max(1) as usize);
            let values =
                rows.iter().flat_map(|row| slice(1).chunks(width.max(1)).nth(*row as usize).unwrap_or_default());
            buffers.push(values.copied().collect());
        }
    }
    Column { length: rows.len() as u32, null_count, buffers, children: 0 }
}
