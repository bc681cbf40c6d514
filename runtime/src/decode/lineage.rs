//! Tables that got another name, and what belongs to them.
//!
//! Receives the renamings that the schema-change topic tells. Promises, for a table by its present name, the tables whose
//! changes up to a moment are its own: a renaming moves no row, and no event tells the rows again under the new name. A
//! name that another table has when it is given away (an online change swaps a table and its copy) has no ancestor: its
//! rows are taken to be the same.

use super::epoch::Origin;
use super::history::SchemaHistory;
use super::{SourcePosition, TableName};

/// Longest chain of renamings that is followed.
const ANCESTORS_MAX: usize = 16;

/// A moment in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// where in the binlog
    pub position: SourcePosition,
    /// milliseconds since 1970; what compares two binlogs
    pub ts_ms: i64,
}

impl Moment {
    /// True of a record that stands before this moment.
    #[inline]
    pub(super) fn is_after(&self, origin: &Origin<'_>) -> bool {
        if self.position.base == origin.base {
            (origin.file, origin.pos) < (self.position.file, self.position.pos)
        } else {
            origin.ts_ms < self.ts_ms
        }
    }
}

impl Moment {
    fn precedes(&self, other: &Moment) -> bool {
        if self.position.base == other.position.base {
            self.position < other.position
        } else {
            self.ts_ms < other.ts_ms
        }
    }

    /// True when a statement told at `position` and `ts_ms` stands before this moment.
    pub fn follows(&self, position: &SourcePosition, ts_ms: i64) -> bool {
        Moment { position: position.clone(), ts_ms }.precedes(self)
    }
}

/// One renaming of a table, seen from its new name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Renaming {
    pub(super) from: TableName,
    pub(super) at: Moment,
    /// another table had the name then, or at some time before
    pub(super) taken: Taken,
    /// the same statement gave the old name to another table
    pub(super) aside: bool,
}

/// What a name was before a table got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Never,
    Before,
    ThenToo,
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

impl SchemaHistory {
    /// What belongs to `table`, which has its name now.
    pub fn lineage(&self, table: &TableName) -> Lineage {
        let mut lineage = Lineage::default();
        let (mut name, mut until) = (table, None::<&Moment>);
        while lineage.ancestors.len() < ANCESTORS_MAX {
            let renamings = self.renamed_from.get(name).map(Vec::as_slice).unwrap_or_default();
            let before = |r: &&Renaming| until.is_none_or(|until| r.at.precedes(until));
            let Some(renaming) = renamings.iter().rev().find(before) else { break };
            if renaming.taken == Taken::ThenToo {
                if until.is_none() {
                    lineage.replaced_by = Some(renaming.from.clone());
                }
                break;
            }
            if until.is_none() && renaming.taken == Taken::Before {
                lineage.since = Some(renaming.at.clone());
            }
            lineage.ancestors.push(Ancestor { table: renaming.from.clone(), until: renaming.at.clone() });
            (name, until) = (&renaming.from, Some(&renaming.at));
        }
        lineage
    }

    /// Tables that got another name and have it still. Not those that an online change put aside.
    pub fn renamed_tables(&self) -> Vec<TableName> {
        let mut all = Vec::new();
        for (to, renamings) in &self.renamed_from {
            let Some(last) = renamings.last().filter(|last| last.taken != Taken::ThenToo) else { continue };
            let swapped = self.renamed_from.get(&last.from).into_iter().flatten().any(|r| r.at == last.at);
            if !last.aside && !swapped && !self.is_gone(to) {
                all.push(to.clone());
            }
        }
        all.sort();
        all
    }

    /// The name that `table` was given last, if it has it no more.
    pub fn renamed_to(&self, table: &TableName) -> Option<&TableName> {
        let to = |all: &[Renaming]| all.iter().any(|r| r.from == *table);
        self.renamed_from.iter().find(|(_, all)| self.is_gone(table) && to(all)).map(|(name, _)| name)
    }

    /// What `table` was at `position`, before a renaming there gives it to another.
    pub(super) fn taken(&self, table: &TableName, position: &SourcePosition) -> Taken {
        let entries = self.entries(table).map(|e| e.as_slice()).unwrap_or_default();
        let mut before = entries.iter().filter(|e| e.position.base != position.base || e.position < *position);
        match before.next_back() {
            None => Taken::Never,
            Some(entry) if entry.version.is_some() => Taken::ThenToo,
            Some(_) => Taken::Before,
        }
    }
}

/// The topic of `table`, by the name of another topic of the same connector.
pub fn topic_of(topic: &str, table: &TableName) -> Option<String> {
    Some(format!("{}.{}.{}", super::schema_topic(topic)?, table.database, table.table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn name(table: &str) -> TableName {
        TableName { database: "shop".into(), table: table.into() }
    }

    fn history(statements: &[(u64, &str, &str, &str)]) -> SchemaHistory {
        let mut history = SchemaHistory::new();
        for (at, (pos, kind, id, ddl)) in statements.iter().enumerate() {
            let columns = serde_json::json!([{"name": "id", "typeName": "INT", "position": 1, "optional": false}]);
            let structure = serde_json::json!({"primaryKeyColumnNames": ["id"], "columns": columns});
            let record = serde_json::json!({
                "source": {"file": "binlog.000001", "pos": pos, "ts_ms": pos, "snapshot": "false"}, "databaseName": "shop",
                "ddl": ddl, "tableChanges": [{"type": kind, "id": id, "table": (*kind != "DROP").then_some(structure)}]
            });
            let value = record.to_string();
            let value = Some(value.as_bytes());
            history.apply(Record { offset: at as i64, timestamp_ms: 0, key: None, value, headers: b"" }).unwrap();
        }
        history
    }

    fn ancestors(history: &SchemaHistory, table: &str) -> Vec<(String, u64)> {
        let lineage = history.lineage(&name(table));
        lineage.ancestors.into_iter().map(|a| (a.table.table, a.until.position.pos)).collect()
    }

    #[test]
    fn names_lead_back_to_the_first_in_every_form_that_tells_them() {
        let history = history(&[
            (1, "CREATE", "\"shop\".\"a\"", "CREATE TABLE a"),
            (2, "ALTER", "\"shop\".\"b\"", "RENAME TABLE a TO b"),
            (3, "ALTER", "\"shop\".\"b\",\"shop\".\"c\"", ""),
            (4, "ALTER", "\"shop\".\"d\"", "shop.c TO d"),
            (5, "CREATE", "\"shop\".\"a\"", "CREATE TABLE a"),
        ]);
        let chain = [("c".to_owned(), 4), ("b".to_owned(), 3), ("a".to_owned(), 2)];
        assert_eq!(ancestors(&history, "d"), chain);
        assert_eq!(history.lineage(&name("a")), Lineage::default());
        assert_eq!(history.renamed_tables(), [name("d")]);
        assert_eq!(history.renamed_to(&name("c")), Some(&name("d")));
        assert_eq!(history.renamed_to(&name("a")), None);
        assert_eq!(topic_of("p.q.shop.d", &name("c")).as_deref(), Some("p.q.shop.c"));
    }

    #[test]
    fn names_that_were_taken_are_told() {
        let history = history(&[
            (1, "CREATE", "\"shop\".\"t\"", "CREATE TABLE t"),
            (2, "ALTER", "\"shop\".\"old\"", "RENAME TABLE t TO old, new TO t"),
            (2, "ALTER", "\"shop\".\"t\"", "RENAME TABLE t TO old, new TO t"),
            (3, "CREATE", "\"shop\".\"u\"", "CREATE TABLE u"),
            (4, "DROP", "\"shop\".\"u\"", "DROP TABLE u"),
            (5, "ALTER", "\"shop\".\"u\"", "RENAME TABLE old TO u"),
        ]);
        let swapped = history.lineage(&name("t"));
        assert_eq!((swapped.ancestors, swapped.replaced_by), (vec![], Some(name("new"))));
        let reused = history.lineage(&name("u"));
        assert_eq!(reused.since.map(|m| m.position.pos), Some(5));
        assert_eq!(ancestors(&history, "u"), [("old".to_owned(), 5), ("t".to_owned(), 2)]);
    }
}
