//! The table and the part of the source that the last record was in.
//!
//! Receives what records say of where they come from. Promises the table's name, the binlog file taken apart, and the
//! structure in force, each looked up anew only when a record says something else than the one before.

use super::classify;
use super::dialect::mysql::binlog::split_file;
use super::format::json::source_block::SourceBlock;
use super::schema::history::SchemaHistory;
use super::schema::in_force::InForce;
use super::table_name::TableName;

/// Where the last record of a decoder came from.
#[derive(Debug, Default)]
pub(crate) struct CurrentTable {
    pub(crate) name: Option<TableName>,
    /// grows with every other table
    pub(crate) number: u32,
    /// the binlog file as the record names it
    file: Vec<u8>,
    /// its base name
    pub(crate) base: String,
    /// its number
    pub(crate) file_number: u64,
    in_force: Option<InForce>,
}

impl CurrentTable {
    /// Finds the table and the binlog file of a record of `topic`.
    ///
    /// # Errors
    /// Which of them it does not name.
    #[inline]
    pub(crate) fn locate(&mut self, topic: &str, value: &[u8], source: &SourceBlock) -> Result<(), String> {
        let database = source.database.map(|t| t.of(value));
        let table = source.table.map(|t| t.of(value));
        let same = self.name.as_ref().is_some_and(|known| {
            database.is_none_or(|d| d == known.database.as_bytes()) && table.is_none_or(|t| t == known.table.as_bytes())
        });
        if !same {
            let owned = |part: Option<&[u8]>| part.and_then(|p| std::str::from_utf8(p).ok()).map(str::to_owned);
            let named = classify::named(topic, owned(database), owned(table));
            self.name = Some(named.ok_or("the record does not name its table")?);
            self.number = self.number.wrapping_add(1);
            self.in_force = None;
        }
        let file = source.file.of(value);
        if self.file != file {
            let split = std::str::from_utf8(file).ok().and_then(split_file);
            let (base, number) = split.ok_or("the record's binlog file has no number")?;
            if base != self.base {
                base.clone_into(&mut self.base);
                self.in_force = None;
            }
            self.file_number = number;
            self.file.clear();
            self.file.extend_from_slice(file);
        }
        Ok(())
    }

    /// Index of the table's entry in the history that is in force at `pos` of the file in the binlog `base`.
    #[inline]
    pub(crate) fn entry_in_force(&mut self, base: &str, pos: u64, history: &SchemaHistory) -> Option<usize> {
        let at = (self.file_number, pos);
        if let Some(known) = self.in_force
            && known.holds(history.revision(), at)
        {
            return known.entry;
        }
        let entries = history.entries(self.name.as_ref()?).map(|e| e.as_slice()).unwrap_or_default();
        let found = InForce::at(entries, history.revision(), base, at);
        self.in_force = Some(found);
        found.entry
    }
}
