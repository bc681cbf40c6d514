//! Tables that got another name, and what belongs to them.
//!
//! Receives the renamings that the schema-change topic tells. Promises, for a table by its present name, the tables whose
//! changes up to a moment are its own: a renaming moves no row, and no event tells the rows again under the new name. A
//! name that another table has when it is given away (an online change swaps a table and its copy) has no ancestor: its
//! rows are taken to be the same.

use std::collections::HashMap;

use crate::decode::dialect::mysql::binlog::Moment;
use crate::decode::table_name::TableName;

/// Longest chain of renamings that is followed.
const ANCESTORS_MAX: usize = 16;

/// One renaming of a table, seen from its new name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renaming {
    pub(crate) from: TableName,
    pub(crate) at: Moment,
    /// whose the new name was before
    pub(crate) owner_before: OwnerBefore,
    /// the same statement gave the old name to another table
    pub(crate) old_name_reused: bool,
}

/// Whose a name was before a table got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerBefore {
    /// nobody's, ever
    Nobody,
    /// that of a table that was gone by then
    GoneTable,
    /// that of a table that had it until then
    LiveTable,
}

/// A table under the name that it had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// its name then
    pub table: TableName,
    /// its changes before this are its own; later ones are another table's
    pub until: Moment,
}

/// What belongs to a table beside the changes told under its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// the names it had, the latest first
    pub ancestors: Vec<Ancestor>,
    /// changes told under its name before this are another table's
    pub since: Option<Moment>,
    /// the table that took this one's place without its name having been free
    pub replaced_by: Option<TableName>,
}

/// Every renaming that was told, by the new name and in the order of the topic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Renamings(HashMap<TableName, Vec<Renaming>>);

impl Renamings {
    /// Takes in that `table` has its name by `renaming`.
    pub(crate) fn push(&mut self, table: TableName, renaming: Renaming) {
        self.0.entry(table).or_default().push(renaming);
    }

    /// What belongs to `table`, which has its name now.
    pub(crate) fn lineage(&self, table: &TableName) -> Lineage {
        let mut lineage = Lineage::default();
        let (mut name, mut until) = (table, None::<&Moment>);
        while lineage.ancestors.len() < ANCESTORS_MAX {
            let renamings = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
            let before = |r: &&Renaming| until.is_none_or(|until| r.at.precedes(until));
            let Some(renaming) = renamings.iter().rev().find(before) else { break };
            if renaming.owner_before == OwnerBefore::LiveTable {
                if until.is_none() {
                    lineage.replaced_by = Some(renaming.from.clone());
                }
                break;
            }
            if until.is_none() && renaming.owner_before == OwnerBefore::GoneTable {
                lineage.since = Some(renaming.at.clone());
            }
            lineage.ancestors.push(Ancestor { table: renaming.from.clone(), until: renaming.at.clone() });
            (name, until) = (&renaming.from, Some(&renaming.at));
        }
        lineage
    }

    /// Tables that got another name. Not those that an online change put aside.
    pub(crate) fn renamed_tables(&self) -> impl Iterator<Item = &TableName> {
        self.0.iter().filter_map(|(to, renamings)| {
            let last = renamings.last().filter(|last| last.owner_before != OwnerBefore::LiveTable)?;
            let swapped = self.0.get(&last.from).into_iter().flatten().any(|r| r.at == last.at);
            (!last.old_name_reused && !swapped).then_some(to)
        })
    }

    /// A name that `table` was given.
    pub(crate) fn renamed_to(&self, table: &TableName) -> Option<&TableName> {
        let to = |all: &[Renaming]| all.iter().any(|r| r.from == *table);
        self.0.iter().find(|(_, all)| to(all)).map(|(name, _)| name)
    }
}
