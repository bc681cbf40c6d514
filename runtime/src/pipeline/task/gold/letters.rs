//! Dead letters of a Gold table: the rows that its module gave nothing for, once each, until they become good.
//!
//! A letter of stage `gold` names the driving table as its topic and, in the place of an offset, a number of the row's key;
//! the reason begins with the key itself. Letters are written before the commit that leaves their rows out, and taken away
//! after the one that brings them, or has nothing to bring any more.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use hashbrown::HashMap;

use crate::error::Result;
use crate::gold::named;
use crate::lake::dead_letters::{DeadLetter, DeadLetters, Stage};
use crate::lake::owners_of;
use crate::pipeline::task::{Health, retrying};

/// The letters of one table.
pub(super) struct Letters {
    table: Arc<DeadLetters>,
    health: Health,
    /// the driving table
    topic: Arc<str>,
    key: Vec<String>,
    /// those that are there, by the number of their row
    written: HashMap<i64, DeadLetter>,
}

impl Letters {
    /// What there is of the table that `health` tells of, whose driving table has this name and key.
    pub(super) async fn open(table: &Arc<DeadLetters>, health: &Health, driving: &str, key: &[String]) -> Result<Self> {
        let name = health.id().name.to_string();
        let written = retrying!(health, table.of_gold(&name))?;
        Ok(Letters {
            table: Arc::clone(table),
            health: health.clone(),
            topic: format!("silver/{driving}").into(),
            key: key.to_vec(),
            written: written.into_iter().map(|letter| (letter.offset, letter)).collect(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Numbers of the rows that have one.
    pub(super) fn rows(&self) -> impl Iterator<Item = i64> + '_ {
        self.written.keys().copied()
    }

    /// The numbers of driving rows, which have the key's columns.
    ///
    /// # Errors
    /// As [`owners_of`].
    pub(super) fn numbers_of(&self, rows: &RecordBatch) -> Result<Vec<i64>> {
        let key: Vec<ArrayRef> = self.key.iter().filter_map(|name| rows.column_by_name(name).cloned()).collect();
        Ok(owners_of(&key)?.into_iter().map(number).collect())
    }

    /// Writes a letter for each of `rejected`, rows of `input` with a reason; how many are new.
    ///
    /// # Errors
    /// The lake's.
    pub(super) async fn write(
        &mut self,
        input: &RecordBatch,
        rejected: &[(u32, String)],
        module: Option<String>,
    ) -> Result<u64> {
        if rejected.is_empty() {
            return Ok(0);
        }
        let numbers = self.numbers_of(input)?;
        let letters: Vec<DeadLetter> = rejected
            .iter()
            .filter_map(|(row, reason)| {
                let offset = *numbers.get(*row as usize)?;
                let reason = format!("{}: {reason}", named(input, &self.key, *row as usize));
                Some(DeadLetter {
                    topic: Arc::clone(&self.topic),
                    partition: 0,
                    offset,
                    stage: Stage::Gold,
                    table: self.health.id().name.to_string(),
                    reason,
                    module: module.clone(),
                })
            })
            .filter(|new| self.written.get(&new.offset).is_none_or(|had| had.reason != new.reason))
            .collect();
        if letters.is_empty() {
            return Ok(0);
        }
        retrying!(&self.health, self.table.write(&letters))?;
        let new = letters.iter().filter(|letter| !self.written.contains_key(&letter.offset)).count();
        self.written.extend(letters.into_iter().map(|letter| (letter.offset, letter)));
        Ok(new as u64)
    }

    /// The rows of these numbers are good, or gone.
    ///
    /// # Errors
    /// The lake's.
    pub(super) async fn take_away(&mut self, numbers: impl IntoIterator<Item = i64>) -> Result<()> {
        let good: Vec<DeadLetter> = numbers.into_iter().filter_map(|row| self.written.remove(&row)).collect();
        if !good.is_empty() {
            retrying!(&self.health, self.table.take_away(&good))?;
        }
        Ok(())
    }
}

/// The number of a driving row's key in a letter.
pub(super) fn number(owner: u128) -> i64 {
    (owner >> 64) as i64
}
