//! The rows of a table by other columns than its key, and of those with the same values the one that is taken.
//!
//! Receives rows as they come, change and go. Promises one slot a group of values, whether rows have them or not, and the
//! row that is greatest by the columns that order them, with nulls least and ties going to the greater key. What is asked for
//! after a change is worked out once for all changed groups. Never holds a row: they lie in [`Rows`].

use arrow::array::{Array, ArrayRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use hashbrown::{HashMap, HashSet};

use super::rows::{Taken, column};
use super::{Edges, Rows, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Owner, owners_of};

/// Groups of rows.
#[derive(Debug)]
pub struct Groups {
    by: Vec<String>,
    /// of a group the row is taken that is greatest in these
    order: Vec<String>,
    slots: HashMap<Owner, Slot>,
    /// from rows to their groups
    members: Edges,
    picked: Vec<Option<Slot>>,
    /// groups in which another row may be the greatest
    stale: HashSet<Slot>,
    converter: RowConverter,
}

impl Groups {
    /// The groups of a table whose rows have the same values in `by`; `order`: which row of a group is taken, the columns
    /// before the key.
    ///
    /// # Errors
    /// `Config` where a column has no order, `Internal` where it is missing.
    pub fn new(by: &[String], order: &[String], rows: &Rows) -> Result<Self> {
        let order: Vec<String> = order.iter().chain(rows.key()).cloned().collect();
        let sorted = order.iter().map(|name| {
            let field = rows.columns().field_with_name(name);
            let lacks = |e| Error::new(ErrorKind::Internal, "a table lacks a column that orders it").caused_by(e);
            field.map(|field| SortField::new(field.data_type().clone())).map_err(lacks)
        });
        let no_order = |e| Error::new(ErrorKind::Config, "rows cannot be put in order by these columns").caused_by(e);
        let converter = RowConverter::new(sorted.collect::<Result<_>>()?).map_err(no_order)?;
        Ok(Groups {
            by: by.to_vec(),
            order,
            slots: HashMap::new(),
            members: Edges::default(),
            picked: Vec::new(),
            stale: HashSet::new(),
            converter,
        })
    }

    /// The groups of these values, whose columns are in the order of `by`; none where one of them is null.
    ///
    /// # Errors
    /// `Config` where a column has a type that no key has.
    pub fn slots_of(&mut self, values: &[ArrayRef]) -> Result<Vec<Option<Slot>>> {
        let is_null = |row: usize| values.iter().any(|column| column.is_null(row));
        let owners = owners_of(values)?;
        Ok(owners.into_iter().enumerate().map(|(row, owner)| (!is_null(row)).then(|| self.slot(owner))).collect())
    }

    fn slot(&mut self, owner: Owner) -> Slot {
        let next = self.picked.len() as Slot;
        let slot = *self.slots.entry(owner).or_insert(next);
        if slot == next {
            self.picked.push(None);
        }
        slot
    }

    /// Takes in what rows came and went; the groups that may have another row by that.
    ///
    /// # Errors
    /// As [`Self::slots_of`].
    pub fn take_in(&mut self, taken: &Taken) -> Result<Vec<Slot>> {
        let mut touched: Vec<Slot> = taken.slots().filter_map(|row| self.members.to(row)).collect();
        taken.went.iter().for_each(|row| self.members.link(*row, None));
        if let Some(rows) = &taken.rows {
            let values = self.by.iter().map(|name| column(rows, name)).collect::<Result<Vec<_>>>()?;
            let groups = self.slots_of(&values)?;
            for (row, group) in taken.came.iter().zip(groups) {
                self.members.link(*row, group);
                touched.extend(group);
            }
        }
        self.stale.extend(touched.iter().copied());
        Ok(touched)
    }

    /// Works out which row is taken of each group that changed.
    ///
    /// # Errors
    /// As [`Rows::get`].
    pub fn settle(&mut self, rows: &Rows) -> Result<()> {
        if self.stale.is_empty() {
            return Ok(());
        }
        let groups: Vec<Slot> = self.stale.drain().collect();
        let mut members: Vec<(Slot, Slot)> = Vec::new();
        for group in groups {
            if let Some(picked) = self.picked.get_mut(group as usize) {
                *picked = None;
            }
            members.extend(self.members.leading_to(group).map(|row| (group, row)));
        }
        let unfit = |e| Error::new(ErrorKind::Internal, "rows cannot be put in order").caused_by(e);
        let all = rows.get(members.iter().map(|(_, row)| Some(*row)))?;
        let columns = self.order.iter().map(|name| column(&all, name)).collect::<Result<Vec<_>>>()?;
        let places = self.converter.convert_columns(&columns).map_err(unfit)?;
        let mut greatest: HashMap<Slot, OwnedRow> = HashMap::new();
        for ((group, row), place) in members.into_iter().zip(&places) {
            if greatest.get(&group).is_some_and(|had| had.row() >= place) {
                continue;
            }
            greatest.insert(group, place.owned());
            if let Some(picked) = self.picked.get_mut(group as usize) {
                *picked = Some(row);
            }
        }
        Ok(())
    }

    /// The row that is taken of a group, as last settled.
    pub fn picked(&self, group: Slot) -> Option<Slot> {
        self.picked.get(group as usize).copied().flatten()
    }

    /// The group of a row.
    pub fn of(&self, row: Slot) -> Option<Slot> {
        self.members.to(row)
    }

    /// Bytes that knowing them takes.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * (size_of::<(Owner, Slot)>() + 1)
            + self.members.bytes()
            + self.picked.capacity() * size_of::<Option<Slot>>()
    }
}
