//! What a DDL statement renames, empties and makes anew.
//!
//! Receives the statement's text as the schema-change topic carries it. Promises only what the table structures beside
//! the text leave open. A statement it does not know has no effects; it never fails.

use crate::decode::table_name::TableName;

/// What one statement does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// old, new
    tables: Vec<(TableName, TableName)>,
    /// old, new
    columns: Vec<(String, String)>,
    /// tables that lost all their rows
    pub(crate) truncated: Vec<TableName>,
    /// tables of which some partitions lost their rows, and no event tells which rows
    pub(crate) partitions_emptied: Vec<TableName>,
    /// the statement does nothing where the table is there
    pub(crate) if_not_exists: bool,
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        self.truncated.is_empty() && self.tables.is_empty() && self.partitions_emptied.is_empty()
    }

    /// What `table` was called before.
    pub(crate) fn renamed_table(&self, table: &TableName) -> Option<TableName> {
        self.tables.iter().find(|(_, new)| new == table).map(|(old, _)| old.clone())
    }

    /// True when the statement gives the name `table` to another one.
    pub(crate) fn gives_away(&self, table: &TableName) -> bool {
        self.tables.iter().any(|(_, new)| new == table)
    }

    /// True when the statement gives a column this name that it had not before.
    pub(crate) fn renames_to(&self, column: &str) -> bool {
        self.columns.iter().any(|(_, new)| new.eq_ignore_ascii_case(column))
    }

    /// The columns it renames that have both names: the old one among the columns `before` it, the new one `after` it.
    pub(crate) fn renamed_columns(&self, before: Option<&[String]>, after: Option<&[String]>) -> Vec<(String, String)> {
        let (Some(before), Some(after)) = (before, after) else { return Vec::new() };
        // MySQL compares column names without case
        let of = |names: &[String], name: &str| names.iter().find(|n| n.eq_ignore_ascii_case(name)).cloned();
        let both = |(old, new): &(String, String)| Some((of(before, old)?, of(after, new)?));
        self.columns.iter().filter_map(both).filter(|(old, new)| old != new).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Name(String),
    Quoted(String),
    Text,
    Sign(char),
}

impl Word {
    fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Name(n) if n.eq_ignore_ascii_case(keyword))
    }
}

/// Most words looked at; a CREATE TABLE may be long, a rename is not.
const WORDS_MAX: usize = 2_000;

fn words(ddl: &str) -> Vec<Word> {
    let mut out = Vec::new();
    let mut rest = ddl.chars().peekable();
    while let Some(c) = rest.next() {
        if out.len() == WORDS_MAX {
            break;
        }
        match c {
            c if c.is_whitespace() => {}
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '-' if rest.peek() == Some(&'-') => while rest.next_if(|c| *c != '\n').is_some() {},
            '/' if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                rest.next();
                for c in rest.by_ref() {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            '`' => {
                let mut name = String::new();
                while let Some(c) = rest.next() {
                    if c == '`' && rest.next_if_eq(&'`').is_none() {
                        break;
                    }
                    name.push(c);
                }
                out.push(Word::Quoted(name));
            }
            '\'' | '"' => {
                let mut escaped = false;
                for d in rest.by_ref() {
                    if d == c && !escaped {
                        break;
                    }
                    escaped = d == '\\' && !escaped;
                }
                out.push(Word::Text);
            }
            c if c.is_alphanumeric() || matches!(c, '_' | '$') => {
                let mut name = String::from(c);
                while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                    name.push(c);
                }
                out.push(Word::Name(name));
            }
            c => out.push(Word::Sign(c)),
        }
    }
    out
}

struct Statement<'a> {
    words: &'a [Word],
    at: usize,
    database: &'a str,
}

impl Statement<'_> {
    fn take(&mut self, keyword: &str) -> bool {
        let there = self.words.get(self.at).is_some_and(|w| w.is(keyword));
        self.at += usize::from(there);
        there
    }

    fn sign(&mut self, sign: char) -> bool {
        let there = self.words.get(self.at) == Some(&Word::Sign(sign));
        self.at += usize::from(there);
        there
    }

    fn name(&mut self) -> Option<String> {
        match self.words.get(self.at)? {
            Word::Name(n) | Word::Quoted(n) => {
                self.at += 1;
                Some(n.clone())
            }
            _ => None,
        }
    }

    fn table(&mut self) -> Option<TableName> {
        let first = self.name()?;
        if self.sign('.') {
            return Some(TableName { database: first, table: self.name()? });
        }
        Some(TableName { database: self.database.to_owned(), table: first })
    }
}

/// The effects of a statement run in `database`.
pub(crate) fn read(ddl: &str, database: &str) -> Effects {
    let words = words(ddl);
    let mut effects = Effects::default();
    let mut r = Statement { words: &words, at: 0, database };
    // MariaDB: SET STATEMENT <variables> FOR <statement>
    if r.take("SET") && r.take("STATEMENT") {
        while r.at < words.len() && !r.take("FOR") {
            r.at += 1;
        }
    }
    if r.take("CREATE") {
        while r.take("OR") || r.take("REPLACE") || r.take("TEMPORARY") {}
        effects.if_not_exists = r.take("TABLE") && r.take("IF") && r.take("NOT");
    } else if r.take("TRUNCATE") {
        r.take("TABLE");
        effects.truncated.extend(r.table());
    } else if r.take("RENAME") {
        if r.take("TABLE") || r.take("TABLES") {
            rename(&mut r, &mut effects);
        }
    } else if r.words.iter().any(|w| w.is("TO")) && r.words.len() <= 7 && !r.words.iter().any(|w| w.is("ALTER")) {
        // of a statement with several renamings, Debezium may give each clause alone
        if let (Some(old), true, Some(new)) = (r.table(), r.take("TO"), r.table())
            && r.at == words.len()
        {
            effects.tables.push((old, new));
        }
    } else if r.take("ALTER") {
        while r.take("ONLINE") || r.take("IGNORE") {}
        if r.take("TABLE") {
            if r.take("IF") {
                r.take("EXISTS");
            }
            if let Some(table) = r.table() {
                alter(&mut r, &table, &mut effects);
            }
        }
    }
    effects
}

fn rename(r: &mut Statement<'_>, effects: &mut Effects) {
    while let (Some(old), true, Some(new)) = (r.table(), r.take("TO"), r.table()) {
        effects.tables.push((old, new));
        if !r.sign(',') {
            break;
        }
    }
}

fn alter(r: &mut Statement<'_>, table: &TableName, effects: &mut Effects) {
    let mut depth = 0;
    while r.at < r.words.len() {
        if r.sign('(') {
            depth += 1;
        } else if r.sign(')') {
            depth -= 1;
        } else if depth > 0 {
            r.at += 1;
        } else if r.take("TRUNCATE") || r.take("DROP") || r.take("EXCHANGE") || r.take("DISCARD") {
            if r.take("PARTITION") {
                effects.partitions_emptied.push(table.clone());
            }
        } else if r.take("CHANGE") {
            r.take("COLUMN");
            if r.take("IF") {
                r.take("EXISTS");
            }
            if let (Some(old), Some(new)) = (r.name(), r.name()) {
                effects.columns.push((old, new));
            }
        } else if r.take("RENAME") {
            if r.take("COLUMN") {
                if let (Some(old), true, Some(new)) = (r.name(), r.take("TO"), r.name()) {
                    effects.columns.push((old, new));
                }
            } else if !(r.take("INDEX") || r.take("KEY")) {
                if !r.take("TO") {
                    r.take("AS");
                }
                if let Some(new) = r.table() {
                    effects.tables.push((table.clone(), new));
                }
            }
        } else {
            r.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(database: &str, table: &str) -> TableName {
        TableName { database: database.into(), table: table.into() }
    }

    #[test]
    fn renames_and_truncations() {
        assert_eq!(read("TRUNCATE TABLE `a`", "d").truncated, [name("d", "a")]);
        assert_eq!(read("truncate other.a", "d").truncated, [name("other", "a")]);
        let e = read("RENAME TABLE a TO b, `x`.`y z` TO d.e", "d");
        assert_eq!(e.tables, [(name("d", "a"), name("d", "b")), (name("x", "y z"), name("d", "e"))]);
        let e = read(
            "ALTER TABLE a /* c */ RENAME COLUMN p TO q, CHANGE `r` s INT DEFAULT 'RENAME TO x', RENAME INDEX i TO j",
            "d",
        );
        assert_eq!(e.columns, [("p".to_owned(), "q".to_owned()), ("r".to_owned(), "s".to_owned())]);
        assert!(e.tables.is_empty());
        assert_eq!(read("`a` TO e.b", "d").tables, [(name("d", "a"), name("e", "b"))]);
        assert_eq!(read("ALTER TABLE a RENAME TO b", "d").tables, [(name("d", "a"), name("d", "b"))]);
        assert_eq!(read("ALTER TABLE a RENAME b", "d").tables, [(name("d", "a"), name("d", "b"))]);
        let ddl = "SET STATEMENT max_statement_time=60 FOR TRUNCATE /* all */ TABLE a";
        assert_eq!(read(ddl, "d").truncated, [name("d", "a")]);
    }

    #[test]
    fn rows_that_go_with_their_partition() {
        for ddl in
            ["DROP PARTITION p0", "TRUNCATE PARTITION p0, p1", "ADD COLUMN x INT, EXCHANGE PARTITION p WITH TABLE u"]
        {
            assert_eq!(read(&format!("ALTER TABLE a {ddl}"), "d").partitions_emptied, [name("d", "a")], "{ddl}");
        }
        assert!(read("ALTER TABLE a DROP COLUMN x, DROP INDEX i, ADD PARTITION (PARTITION p1)", "d").is_empty());
    }

    #[test]
    fn a_table_that_may_be_there_is_told() {
        assert!(read("CREATE TABLE IF NOT EXISTS t (a INT)", "d").if_not_exists);
        assert!(!read("CREATE OR REPLACE TABLE t (a INT)", "d").if_not_exists);
    }

    #[test]
    fn anything_else_has_no_effects() {
        for ddl in [
            "",
            "ALTER",
            "ALTER TABLE",
            "RENAME TABLE a",
            "CREATE TABLE t (a INT)",
            "`",
            "'",
            "/*",
            "ALTER TABLE t CHANGE a",
        ] {
            assert_eq!(read(ddl, "d"), Effects::default(), "{ddl}");
        }
    }
}
