//! How a Gold section and the tables it names fit together: which columns are looked up by which, and which are kept.
//!
//! Receives the section and the tables' columns as they are. Promises names as the tables have them, or an error that says
//! what is not there and what is nearest. Reads no row.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{no_column, wrong};
use crate::config::{Joined, Pick, Place, resolve};
use crate::error::Result;
use crate::gold::{FeedColumns, Finding, Groups, Join, Looked, Rows, Side, Versions};
use crate::lake::{CHANGE, SEQ, SOURCE_TS};
use crate::pipeline::task::columns::arrow_error;
use crate::pipeline::task::derivation::Offer;
use crate::transform::ColumnRef;

/// A section with the columns of its tables.
pub(super) struct Shape {
    /// the driving table, then the lookups
    tables: Vec<Table>,
    /// of each lookup
    lookups: Vec<Lead>,
    /// the columns of a table without a module
    select: Vec<Chosen>,
}

/// A table with its columns.
struct Table {
    /// in the joined rows
    alias: String,
    columns: SchemaRef,
    key: Vec<String>,
}

/// A column of a table without a module.
struct Chosen {
    /// number of the table
    table: usize,
    /// its name there
    column: String,
    /// its name here
    name: String,
}

/// How a lookup's rows are found.
struct Lead {
    from: Side,
    on: Vec<String>,
    /// the columns to look in, and what decides among several rows; `None`: the key
    by: Option<(Vec<String>, String)>,
    /// of the versions of a row, which one: the time that a column holds
    as_of: Option<(Side, String)>,
    required: bool,
}

/// Which columns of the joined rows a table without a module has.
pub(super) struct Selected {
    columns: SchemaRef,
    /// of each its place among the joined columns
    places: Vec<usize>,
}

impl Selected {
    /// Joined rows in the table's columns.
    pub(super) fn pick(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.places.iter().filter_map(|place| rows.columns().get(*place).cloned()).collect();
        RecordBatch::try_new(Arc::clone(&self.columns), columns).map_err(arrow_error)
    }
}

impl Table {
    /// The column as the table has it: as written, else without case where that is unique.
    fn column(&self, name: &str) -> Result<&Field> {
        let names = self.columns.fields().iter().map(|field| field.name().as_str());
        let found = resolve(name, names).and_then(|name| self.columns.field_with_name(name).ok());
        found.ok_or_else(|| no_column(&format!("`{}` has", self.alias), name, &self.columns))
    }
}

impl Shape {
    /// Fits `joined` to the tables of these names, which are the driving one and the lookups.
    ///
    /// # Errors
    /// `Config` with what does not fit and what to do.
    pub(super) fn of(joined: &Joined, names: &[&str], met: Vec<(SchemaRef, Vec<String>)>) -> Result<Self> {
        let aliases = names.iter().take(1).copied().chain(joined.lookups.iter().map(|lookup| lookup.alias.as_str()));
        let mut tables = Vec::with_capacity(met.len());
        for ((alias, name), (columns, key)) in aliases.zip(names).zip(met) {
            if key.is_empty() {
                return Err(wrong(
                    format!("silver `{name}` has no key, so a Gold table cannot tell its rows apart"),
                    "give the source table a primary key",
                ));
            }
            tables.push(Table { alias: alias.to_owned(), columns, key });
        }
        let mut shape = Shape { tables, lookups: Vec::new(), select: Vec::new() };
        for number in 0..joined.lookups.len() {
            let lead = shape.lead(joined, number)?;
            shape.lookups.push(lead);
        }
        for choice in &joined.select {
            let at = choice.from.table.as_ref();
            let at = at.and_then(|alias| joined.lookups.iter().position(|lookup| lookup.alias == *alias));
            let table = at.map_or(0, |at| at + 1);
            if let Some(of) = shape.tables.get(table) {
                let column = of.column(&choice.from.column)?.name().clone();
                let name = choice.name.clone().unwrap_or_else(|| column.clone());
                shape.select.push(Chosen { table, column, name });
            }
        }
        if let Some(driving) = shape.tables.first() {
            let own = |name: &String| Chosen { table: 0, column: name.clone(), name: name.clone() };
            if joined.select.is_empty() {
                shape.select = driving.columns.fields().iter().map(|field| own(field.name())).collect();
            }
            let has = |key: &String| shape.select.iter().any(|c| c.table == 0 && c.column == *key && c.name == *key);
            let lacking: Vec<_> = driving.key.iter().filter(|key| !has(key)).map(own).collect();
            shape.select.splice(0..0, lacking);
        }
        Ok(shape)
    }

    fn lead(&self, joined: &Joined, number: usize) -> Result<Lead> {
        let none = || wrong(format!("there is no lookup {number}"), "");
        let lookup = joined.lookups.get(number).ok_or_else(none)?;
        let table = self.tables.get(number + 1).ok_or_else(none)?;
        let aliases: Vec<&Option<String>> = lookup.on.iter().map(|place| &place.table).collect();
        if aliases.iter().any(|alias| Some(alias) != aliases.first()) {
            return Err(wrong(
                format!("lookup `{}`: the columns of `on` are of several tables", lookup.alias),
                "name columns of the driving table, or of one other lookup",
            ));
        }
        let through = lookup.on.first().and_then(|place| place.table.as_ref());
        let through = through.and_then(|alias| joined.lookups.iter().position(|other| other.alias == *alias));
        let from = through.map_or(Side::Driving, Side::Lookup);
        let from_table = self.tables.get(through.map_or(0, |at| at + 1)).ok_or_else(none)?;
        let on = lookup.on.iter().map(|place| from_table.column(&place.column));
        let on = on.collect::<Result<Vec<_>>>()?;
        let by = match &lookup.by {
            Some(by) => by.iter().map(|name| table.column(name)).collect::<Result<Vec<_>>>()?,
            None => table.key.iter().map(|name| table.column(name)).collect::<Result<Vec<_>>>()?,
        };
        if by.len() != on.len() {
            return Err(wrong(
                format!("lookup `{}`: `on` names {} columns, the key has {}", lookup.alias, on.len(), by.len()),
                format!(
                    "the key is ({}): name a column for each of it, or look in others with `by`",
                    table.key.join(", ")
                ),
            ));
        }
        for (from, to) in on.iter().zip(&by) {
            if !compares(from.data_type(), to.data_type()) {
                let (a, b) = (from.name(), to.name());
                return Err(wrong(
                    format!("lookup `{}`: `{a}` is {}, `{b}` is {}", lookup.alias, from.data_type(), to.data_type()),
                    "name columns of one kind: nothing would ever be found",
                ));
            }
        }
        let as_of = lookup.as_of.as_ref().map(|place| self.time_of(joined, place)).transpose()?;
        let on: Vec<String> = on.into_iter().map(|field| field.name().clone()).collect();
        let by: Vec<String> = by.into_iter().map(|field| field.name().clone()).collect();
        // A permutation of the key is the key.
        let is_key = by.len() == table.key.len() && table.key.iter().all(|name| by.contains(name));
        let (on, by) = match (&lookup.pick, is_key) {
            (_, true) => {
                let place = |name: &String| by.iter().position(|by| by == name).and_then(|at| on.get(at).cloned());
                (table.key.iter().filter_map(place).collect(), None)
            }
            (None, false) => {
                return Err(wrong(
                    format!("lookup `{}`: several rows of it may have the same ({})", lookup.alias, by.join(", ")),
                    "add `pick = \"latest\"`, with `order_by` where the newest change is not the row to take",
                ));
            }
            (Some(Pick::Latest), false) => (on, Some((by, SEQ.to_owned()))),
            (Some(Pick::Greatest(column)), false) => (on, Some((by, table.column(column)?.name().clone()))),
        };
        Ok(Lead { from, on, by, as_of, required: lookup.required })
    }

    /// The side and the column of a time.
    fn time_of(&self, joined: &Joined, place: &Place) -> Result<(Side, String)> {
        let at = place.table.as_ref();
        let at = at.and_then(|alias| joined.lookups.iter().position(|other| other.alias == *alias));
        let table = self.tables.get(at.map_or(0, |at| at + 1));
        let table = table.ok_or_else(|| wrong("a time of a table that is not there".to_owned(), ""))?;
        let field = table.column(&place.column)?;
        if !matches!(field.data_type(), DataType::Timestamp(_, _) | DataType::Date32) {
            return Err(wrong(
                format!("`{}` is {}, and `as_of` needs a time", field.name(), field.data_type()),
                "name a column that is a timestamp or a date",
            ));
        }
        Ok((at.map_or(Side::Driving, Side::Lookup), field.name().clone()))
    }

    /// Names of the driving table's key columns.
    pub(super) fn key(&self) -> &[String] {
        self.tables.first().map(|table| table.key.as_slice()).unwrap_or_default()
    }

    /// The tables as a derivation is offered them.
    pub(super) fn offer(&self) -> Offer {
        let tables = self.tables.iter().map(|t| (t.alias.clone(), Arc::clone(&t.columns), t.key.clone()));
        let fields = self.select.iter().filter_map(|chosen| {
            let field = self.tables.get(chosen.table)?.columns.field_with_name(&chosen.column).ok()?;
            let is_key = chosen.table == 0 && self.key().contains(&chosen.name);
            Some(field.clone().with_name(&chosen.name).with_nullable(!is_key))
        });
        Offer::of_join(tables.collect(), Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }

    /// The state that the rows are joined in, of no row yet, and of each table the columns that are kept; `wanted`: those
    /// that a module wants, without one the selected ones.
    ///
    /// # Errors
    /// As [`Groups::new`].
    pub(super) fn join(&self, wanted: Option<&[ColumnRef]>) -> Result<(Vec<SchemaRef>, Join)> {
        let columns: Vec<SchemaRef> = (0..self.tables.len()).map(|table| self.kept(table, wanted)).collect();
        let rows = |number: usize| {
            let table = self.tables.get(number)?;
            let mut key = table.key.clone();
            if self.lead_to(number).is_some_and(|lead| lead.as_of.is_some()) {
                key.push(SEQ.to_owned());
            }
            columns.get(number).map(|columns| Rows::new(columns, &key))
        };
        let mut lookups = Vec::with_capacity(self.lookups.len());
        for (number, lead) in self.lookups.iter().enumerate() {
            let (Some(rows), Some(table)) = (rows(number + 1), self.tables.get(number + 1)) else { continue };
            let finding = match (&lead.by, &lead.as_of) {
                (_, Some((side, column))) => {
                    Finding::AsOf(Versions::new(&table.key, feed_columns()), *side, column.clone())
                }
                (Some((by, order)), None) => Finding::Group(Groups::new(by, std::slice::from_ref(order), &rows)?),
                (None, None) => Finding::Key,
            };
            lookups.push(Looked::new(&table.alias, lead.from, &lead.on, lead.required, rows, finding));
        }
        let driving = rows(0).ok_or_else(|| wrong("a Gold table without a driving table".to_owned(), ""))?;
        Ok((columns, Join::new(driving, lookups)))
    }

    /// How a table is looked up.
    fn lead_to(&self, number: usize) -> Option<&Lead> {
        self.lookups.get(number.checked_sub(1)?)
    }

    /// The columns of a table that are kept: its key, what others are found by, and what is asked for.
    fn kept(&self, number: usize, wanted: Option<&[ColumnRef]>) -> SchemaRef {
        let Some(table) = self.tables.get(number) else { return Arc::new(Schema::empty()) };
        let mut names: Vec<&str> = table.key.iter().map(String::as_str).collect();
        let side = number.checked_sub(1).map_or(Side::Driving, Side::Lookup);
        let leads = self.lookups.iter().filter(|lead| lead.from == side);
        names.extend(leads.flat_map(|lead| lead.on.iter().map(String::as_str)));
        let times = self.lookups.iter().filter_map(|lead| lead.as_of.as_ref()).filter(|(of, _)| *of == side);
        names.extend(times.map(|(_, column)| column.as_str()));
        let lead = self.lead_to(number);
        if let Some((by, order)) = lead.and_then(|lead| lead.by.as_ref()) {
            names.extend(by.iter().chain([order]).map(String::as_str));
        }
        let versions = lead.is_some_and(|lead| lead.as_of.is_some());
        match wanted {
            Some(wanted) => names.extend(
                wanted
                    .iter()
                    .filter(|c| c.relation == number)
                    .filter_map(|c| table.columns.fields().get(c.field).map(|field| field.name().as_str())),
            ),
            None => names.extend(self.select.iter().filter(|c| c.table == number).map(|c| c.column.as_str())),
        }
        let mut fields: Vec<Arc<Field>> =
            table.columns.fields().iter().filter(|field| names.contains(&field.name().as_str())).cloned().collect();
        if names.contains(&SEQ) || versions {
            fields.push(Arc::new(Field::new(SEQ, DataType::Decimal128(38, 0), true)));
        }
        if versions {
            let FeedColumns { change, time, .. } = feed_columns();
            fields.push(Arc::new(Field::new(change, DataType::Utf8, true)));
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            fields.push(Arc::new(Field::new(time, utc, true)));
        }
        Arc::new(Schema::new(fields))
    }

    /// The columns of a table without a module.
    ///
    /// # Errors
    /// `Config` where two have one name.
    pub(super) fn selected(&self, join: &Join) -> Result<Selected> {
        let mut places = Vec::with_capacity(self.select.len());
        let mut fields: Vec<Field> = Vec::with_capacity(self.select.len());
        for Chosen { table, column, name } in &self.select {
            let alias = self.tables.get(*table).filter(|_| *table > 0).map(|table| format!("{}.", table.alias));
            let full = format!("{}{column}", alias.unwrap_or_default());
            if fields.iter().any(|field| field.name().eq_ignore_ascii_case(name)) {
                return Err(wrong(
                    format!("two selected columns are named `{name}`"),
                    "give one of them another name: `lookup.column AS name`",
                ));
            }
            if let Some((place, field)) = join.columns().fields().find(&full) {
                places.push(place);
                fields.push(field.as_ref().clone().with_name(name));
            }
        }
        Ok(Selected { columns: Arc::new(Schema::new(fields)), places })
    }
}

/// The columns of a feed that say what a change is.
fn feed_columns() -> FeedColumns {
    FeedColumns { change: CHANGE.to_owned(), seq: SEQ.to_owned(), time: SOURCE_TS.to_owned() }
}

/// True where values of both types may be equal.
fn compares(a: &DataType, b: &DataType) -> bool {
    let kind = |of: &DataType| match of {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Boolean => 1,
        DataType::Decimal128(_, _) => 1,
        DataType::Float32 | DataType::Float64 => 2,
        DataType::Utf8 => 3,
        DataType::Binary => 4,
        DataType::Date32 => 5,
        DataType::Timestamp(_, _) => 6,
        _ => 7,
    };
    kind(a) == kind(b)
}
