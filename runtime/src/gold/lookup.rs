//! A table that is looked up, and how its rows are found.
//!
//! Receives the rows that the table has, and those that lead to it. Promises the row that is found for each, by the
//! table's key, by other columns, or as of a time. Never knows what the rows become.

use arrow::array::ArrayRef;

use super::{Edges, Groups, Rows, Slot, Versions};
use crate::error::Result;

/// A table of a join: the driving one, or the lookup of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// whose rows are joined
    Driving,
    /// one that is looked up
    Lookup(usize),
}

/// How rows that are looked up are found.
#[derive(Debug)]
pub enum Finding {
    /// by the table's key
    Key,
    /// by other columns
    Group(Groups),
    /// by the table's key, and a time: that of a column of a side
    AsOf(Versions, Side, String),
}

/// A table that is looked up, by its key or by other columns.
#[derive(Debug)]
pub struct Looked {
    /// its name in the joined rows
    pub alias: String,
    /// the side whose rows lead to it: the driving one, or a lookup of a lower number
    pub from: Side,
    /// the columns of that side which hold the values to look for
    pub on: Vec<String>,
    /// no joined row where nothing is found
    pub required: bool,
    /// its rows
    pub rows: Rows,
    pub(super) finding: Finding,
    /// from rows of [`Self::from`] to what they lead to: a row of this table, a group of rows, or the versions of one
    pub(super) edges: Edges,
}

impl Looked {
    /// A lookup of which no row is known.
    pub fn new(alias: &str, from: Side, on: &[String], required: bool, rows: Rows, finding: Finding) -> Self {
        let (alias, on) = (alias.to_owned(), on.to_vec());
        Looked { alias, from, on, required, rows, finding, edges: Edges::default() }
    }

    /// What rows with these values lead to.
    pub(super) fn targets(&mut self, values: &[ArrayRef]) -> Result<Vec<Option<Slot>>> {
        match &mut self.finding {
            Finding::Key => self.rows.slots_of(values),
            Finding::Group(groups) => groups.slots_of(values),
            Finding::AsOf(versions, ..) => versions.slots_of(values),
        }
    }

    /// The row that is found for `from`, as of a time where that matters.
    pub(super) fn found(&self, from: Slot, time_us: Option<i64>) -> Option<Slot> {
        let to = self.edges.to(from)?;
        match &self.finding {
            Finding::Key => Some(to).filter(|row| self.rows.has(*row)),
            Finding::Group(groups) => groups.picked(to),
            Finding::AsOf(versions, ..) => versions.at(to, time_us),
        }
    }

    /// What is found is as of now.
    pub(super) fn settle(&mut self) -> Result<()> {
        match &mut self.finding {
            Finding::Key => Ok(()),
            Finding::Group(groups) => groups.settle(&self.rows),
            Finding::AsOf(versions, ..) => {
                versions.settle();
                Ok(())
            }
        }
    }

    /// Bytes that its rows take, and what leads to them.
    pub(super) fn bytes(&self) -> usize {
        self.rows.size().1
            + self.edges.bytes()
            + match &self.finding {
                Finding::Key => 0,
                Finding::Group(groups) => groups.bytes(),
                Finding::AsOf(versions, ..) => versions.bytes(),
            }
    }
}
