//! The tables that a Gold table reads: taken in whole when it is opened, then version by version.

use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use hashbrown::HashSet;

use super::round::Gold;
use crate::error::{Error, Result};
use crate::gold::Side;
use crate::lake::{Difference, Follower, Memo, Next};
use crate::model::table_id::TableId;
use crate::pipeline::task::{Health, retrying};

/// A table as it is followed.
pub(super) struct Input {
    pub(super) side: Side,
    pub(super) id: TableId,
    pub(super) follower: Follower,
    /// the columns that are kept
    pub(super) columns: SchemaRef,
}

impl Input {
    /// The input of this number: 0 is the driving table.
    pub(super) fn new(number: usize, id: TableId, follower: Follower, columns: SchemaRef) -> Self {
        let side = number.checked_sub(1).map_or(Side::Driving, Side::Lookup);
        Input { side, id, follower, columns }
    }

    fn of(&self, error: Error) -> Error {
        let hint = error.next_step().map(str::to_owned);
        let told = Error::new(error.kind(), format!("`{}`: {error}", self.id));
        match hint {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }
}

impl Gold {
    /// Reads every input as it is, and marks what may be another since the table's newest commit.
    pub(super) async fn load(&mut self, health: &Health) -> Result<()> {
        let mut ignored = HashSet::new();
        for input in &self.inputs {
            let mut rows = retrying!(health, async { input.follower.rows(&input.columns) })?;
            while let Some(batch) = retrying!(health, rows.try_next())? {
                self.join.take_in(input.side, &[], &[batch], &mut ignored).map_err(|error| input.of(error))?;
            }
        }
        drop(ignored);
        if self.writer.table().memo(Memo::DerivedBy) != Some(self.made_by.as_str()) {
            let had_rows = !self.writer.table().positions().is_empty();
            self.derive_all(had_rows.then_some("what derives them has changed"));
        }
        let mut differences: Vec<(Side, Difference)> = Vec::new();
        for at in 0..self.inputs.len() {
            differences.extend(self.since_last_commit(at, health).await?);
        }
        if self.is_whole {
            return Ok(());
        }
        for (side, difference) in differences {
            for rows in difference.went.iter().chain(&difference.came) {
                self.join.touch_keys(side, rows, &mut self.touched)?;
            }
            self.note_gone(side, &difference)?;
        }
        self.touch_lettered()
    }

    /// What an input did since the version that the newest commit names.
    async fn since_last_commit(&mut self, at: usize, health: &Health) -> Result<Vec<(Side, Difference)>> {
        let next = self.inputs.get(at).and_then(|input| self.writer.table().positions().get(input.follower.input()));
        let mut differences = Vec::new();
        let Some(input) = self.inputs.get_mut(at) else { return Ok(differences) };
        let newest = input.follower.version();
        let mut why = None;
        match next.and_then(|next| u64::try_from(next).ok()?.checked_sub(1)) {
            _ if self.is_whole => {}
            None => why = Some(format!("`{}` is another table", input.id)),
            Some(version) => {
                if !retrying!(health, input.follower.go_back(version))? {
                    why = Some(format!("the log of `{}` does not reach back to version `{version}`", input.id));
                }
                while why.is_none() && input.follower.version() < newest {
                    match retrying!(health, input.follower.next(&input.columns))? {
                        Next::Difference(difference) => differences.push((input.side, difference)),
                        Next::Nothing => why = Some(format!("the log of `{}` has a gap", input.id)),
                        Next::Anew(reason) => why = Some(format!("`{}`: {reason}", input.id)),
                    }
                }
                if why.is_some() {
                    retrying!(health, input.follower.go_back(newest))?;
                }
            }
        }
        if let Some(why) = why {
            self.derive_all(Some(&why));
        }
        Ok(differences)
    }

    /// Takes in what the inputs did since; false where one of them is to be read anew.
    pub(super) async fn advance(&mut self, health: &Health) -> Result<bool> {
        for at in 0..self.inputs.len() {
            while let Some(input) = self.inputs.get_mut(at) {
                match retrying!(health, input.follower.next(&input.columns))? {
                    Next::Nothing => break,
                    Next::Anew(why) => {
                        tracing::info!(table = %health.id(), "`{}` is read anew: {why}", input.id);
                        return Ok(false);
                    }
                    Next::Difference(difference) if difference.is_empty() => {}
                    Next::Difference(difference) => {
                        let side = input.side;
                        self.note_gone(side, &difference)?;
                        let taken = self.join.take_in(side, &difference.went, &difference.came, &mut self.touched);
                        taken.map_err(|error| self.inputs.get(at).map_or(error.clone(), |input| input.of(error)))?;
                    }
                }
            }
        }
        Ok(true)
    }
}
