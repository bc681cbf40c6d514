//! Phase two of a flush, the replacement: the rows the selected owners own now, in one commit with the positions.
//!
//! Receives a selection and what became of its rows. Promises, in this order: data files, deletion vectors, owners
//! file, commit; memory follows only after the commit. When another commit came first, it is replayed into memory and
//! the plan is made anew against the state it left; the data files stay, and rows in them that have lost meanwhile
//! are hidden in the very commit that adds them. Never holds a half-applied plan.

use arrow::array::RecordBatch;
use deltalake::kernel::Add;
use roaring::RoaringBitmap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::change_set::ChangeSet;
use super::index::{Index, Place};
use super::key::Owner;
use super::multiset::{Effect, Multiset, letter};
use super::rowless_owners;
use super::rowless_owners::{RowlessKind, RowlessOwner};
use super::select::Selection;
use super::write::WrittenRows;
use super::{KeyedTable, Owners};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Outcome;
use crate::lake::file::deletion_vector::VectorFile;
use crate::lake::file::live_files::{Hide, LiveFile};
use crate::lake::freshness::{Freshness, NO_ROWS};
use crate::lake::log::commit::{Attempts, Commit, Put, add_action, now_ms, remove_action};
use crate::lake::log::retention;
use crate::model::positions::{Origin, Ranges};
use crate::model::sequence::Sequence;

/// What owners are to have in the place of what they have.
#[derive(Debug, Clone, Copy)]
pub struct OwnerRows<'a> {
    /// the owners, by their changes
    pub selection: &'a Selection,
    /// rows in columns of [`KeyedTable::schema`]; those it lacks are null, narrower ones are widened
    pub output: &'a RecordBatch,
    /// for each of them its row of [`Selection::upserts`], where one that is not named leaves its owner without rows;
    /// `None`: one to one
    pub source_rows: Option<&'a [u32]>,
    /// rows of [`Selection::upserts`] that leave the owner as it was, sequence included
    pub rejected: &'a [u32],
}

impl<'a> OwnerRows<'a> {
    /// One row in `output` for each of [`Selection::upserts`].
    pub fn copied(selection: &'a Selection, output: &'a RecordBatch) -> Self {
        OwnerRows { selection, output, source_rows: None, rejected: &[] }
    }
}

/// A commit that gave owners other rows.
#[derive(Debug)]
pub struct Committed {
    /// version of the Delta table
    pub version: u64,
    /// what it did to the owners
    pub changes: ChangeSet,
    /// files of the table's feed that it names, see [`crate::lake::feed`]
    pub(in crate::lake) feed: Option<Vec<Add>>,
}

/// What one attempt is about to commit.
struct Replacement {
    hide: Hide,
    /// rows of new files that have lost already
    outdated: Vec<RoaringBitmap>,
    sets: Vec<(Owner, Sequence, usize, usize)>,
    places: Vec<Place>,
    effect: Effect,
    entries: Vec<RowlessOwner>,
}

impl Replacement {
    /// True when the owners have what they are to have.
    fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.hide.is_empty() && self.entries.is_empty()
    }

    /// The rows that `owner` has are to be hidden.
    fn hide_rows_of(&mut self, index: &Index, owner: Owner, scratch: &mut Vec<Place>) {
        scratch.clear();
        index.places(owner, scratch);
        scratch.iter().for_each(|place| hide(&mut self.hide, *place));
    }

    /// What the commit does, once it is made.
    fn change_set(&self, written: &WrittenRows, selection: &Selection) -> ChangeSet {
        let keyed = self.sets.iter().filter(|(_, _, from, to)| from == to).map(|(owner, ..)| *owner);
        let images = self.effect.removed.iter().map(|(owner, _)| *owner);
        ChangeSet {
            written: written.rows.clone(),
            outdated: written.written_rows(&self.outdated),
            gone: keyed.chain(images).collect(),
            floor: selection.floor(),
        }
    }
}

/// The files of a feed that a commit names.
fn feed_files(info: &Value) -> Option<Vec<Add>> {
    Vec::deserialize(info).ok()
}

impl KeyedTable {
    /// True when rows marked `mark` take the place of what a keyed table has of the owner.
    pub(in crate::lake) fn replaces(&self, owner: Owner, mark: Sequence) -> bool {
        let Owners::Keyed(index) = &self.owners else { return true };
        let known = match self.freshness {
            Freshness::Newer => index.sequence(owner),
            // where there is no row, what was known of one says nothing
            Freshness::Differs => index.sequence(owner).filter(|_| index.has_rows(owner)),
        };
        self.freshness.replaces(mark, known)
    }

    /// Phase two: makes `rows` what the selected owners have, and the ends of `progress` the positions, in one commit.
    /// A range may begin below its position: those rows were left out by [`Self::select`]. A commit of others that
    /// comes first and makes the selection stale fences, too: other columns, a truncate, with `feed` in `info` (see
    /// [`crate::lake::ChangesTable::write`]) another one with a feed, in a table without a key any that moves positions, and
    /// where rows are replaced when they differ any that changes rows, if some were the same before it. There, what
    /// differs in nothing and moves no position is no commit.
    ///
    /// Errors: whatever the lake answers; nothing is then known to be committed, and calling again, after a new
    /// [`Self::select`], is right. `Config` when the rows do not fit the table.
    pub async fn replace(
        &mut self,
        rows: OwnerRows<'_>,
        progress: &Ranges,
        info: Map<String, Value>,
    ) -> Result<Outcome<Committed>> {
        let selection = rows.selection;
        let ranges = match self.committer.due(progress, &selection.positions) {
            Ok(due) => due,
            Err(ended) => return Ok(ended),
        };
        let rejected = marks(rows.rejected, selection.owners.len())?;
        let columns = self.committer.schema.all.clone();
        let written = self.write(rows, &rejected).await?;
        crate::failpoint::pass("flush.after_data_file");
        let mut attempts = Attempts::of("WRITE", info);
        loop {
            let plan = self.plan(selection, &written, &rejected, &ranges);
            if self.freshness == Freshness::Differs && ranges.is_empty() && plan.is_empty() && self.memo_due.is_none() {
                return Ok(Outcome::AlreadyCommitted { version: self.committer.version });
            }
            let (actions, restated) = self.actions(&plan, &written, &ranges).await?;
            crate::failpoint::pass("flush.after_vector_file");
            if !plan.entries.is_empty() {
                rowless_owners::write(&self.committer.store, self.committer.generation, &plan.entries).await?;
            }
            match attempts.put(&self.committer, &actions).await? {
                Put::Written => {
                    crate::failpoint::pass("flush.after_commit");
                    let changes = plan.change_set(&written, selection);
                    self.apply(plan, &written, restated, selection, &ranges)?;
                    let feed = attempts.info().get("feed").and_then(feed_files);
                    return Ok(Outcome::Committed(Committed { version: self.committer.version, changes, feed }));
                }
                Put::Taken(other) => {
                    let stale = self.makes_stale(&other, &written, attempts.info());
                    let floor = self.floor;
                    self.overtaken(*other).await?;
                    // the files that were written have the columns of before
                    if self.committer.schema.all != columns {
                        return Ok(Outcome::Fenced);
                    }
                    if let Some(ended) = self.committer.ended_by_others(&ranges) {
                        return Ok(ended);
                    }
                    if stale || self.floor > floor {
                        return Ok(Outcome::Fenced);
                    }
                }
            }
        }
    }

    /// True when what was selected before `other` may be wrong after it, and must be selected anew.
    fn makes_stale(&self, other: &Commit, written: &WrittenRows, info: &Map<String, Value>) -> bool {
        let generation = self.committer.generation;
        match &self.owners {
            // what was the same may be another by now
            Owners::Keyed(_) if self.freshness == Freshness::Differs => written.is_partial && other.changes_rows(),
            Owners::Keyed(_) => info.contains_key("feed") && (other.feed.is_some() || other.metadata.is_some()),
            // the rows of an image are counted from all changes that were applied
            Owners::Multiset(_) => other.moves(generation),
        }
    }

    /// What to hide and to remember, against the state in memory now.
    fn plan(&self, selection: &Selection, written: &WrittenRows, rejected: &[bool], ranges: &Ranges) -> Replacement {
        let mut plan = Replacement {
            hide: Hide::new(),
            outdated: vec![RoaringBitmap::new(); written.adds.len()],
            sets: Vec::new(),
            places: Vec::with_capacity(written.places.len()),
            effect: Effect::default(),
            entries: Vec::new(),
        };
        match &self.owners {
            Owners::Keyed(index) => {
                self.plan_owners(index, &mut plan, selection, written, rejected);
                self.plan_removals(index, &mut plan, selection);
                if let Some((input, range)) = ranges.iter().next() {
                    let origin = Origin { input: input.clone(), offset: range.to - 1 };
                    for (owner, seq) in self.rowless_due.iter().filter(|(owner, _)| !index.has_rows(*owner)) {
                        plan.entries.extend(RowlessOwner::new(RowlessKind::Gone, *owner, *seq, Some(&origin)));
                    }
                }
            }
            Owners::Multiset(set) => self.plan_images(set, &mut plan, selection, written, rejected),
        }
        if let Some((seq, origin)) = &selection.floor {
            plan.entries.extend(RowlessOwner::new(RowlessKind::Floor, 0, *seq, Some(origin)));
        }
        plan
    }

    /// The owners of the upserts get the rows that were written for them; of one that has newer ones they are outdated.
    fn plan_owners(
        &self,
        index: &Index,
        plan: &mut Replacement,
        selection: &Selection,
        written: &WrittenRows,
        rejected: &[bool],
    ) {
        let marks = written.marks.as_deref().unwrap_or(&selection.sequences);
        let first_file = self.files.next();
        let mut own_places = written.places_by_source();
        let mut scratch = Vec::new();
        for (source, (owner, seq)) in selection.owners.iter().zip(&selection.sequences).enumerate() {
            let own = own_places(source);
            if rejected.get(source).copied().unwrap_or(false) {
                continue;
            }
            let mark = marks.get(source).unwrap_or(seq);
            if !self.replaces(*owner, *mark) {
                for (_, file, row) in own {
                    if let Some(outdated) = plan.outdated.get_mut(*file as usize) {
                        outdated.insert(*row);
                    }
                }
                continue;
            }
            plan.hide_rows_of(index, *owner, &mut scratch);
            let start = plan.places.len();
            plan.places.extend(own.iter().map(|(_, file, row)| Place { file: first_file + file, row: *row }));
            plan.sets.push((*owner, *mark, start, plan.places.len()));
            if own.is_empty() && self.freshness == Freshness::Newer {
                let origin = selection.origins.get(source).and_then(Option::as_ref);
                plan.entries.extend(RowlessOwner::new(RowlessKind::Gone, *owner, *seq, origin));
            }
        }
    }

    /// Owners that were deleted, or that a truncate took, lose their rows.
    fn plan_removals(&self, index: &Index, plan: &mut Replacement, selection: &Selection) {
        let mut scratch = Vec::new();
        for gone in &selection.gone {
            let mark = if self.freshness == Freshness::Newer { gone.seq } else { NO_ROWS };
            if !self.replaces(gone.owner, mark) {
                continue;
            }
            plan.hide_rows_of(index, gone.owner, &mut scratch);
            plan.sets.push((gone.owner, mark, 0, 0));
            if self.freshness == Freshness::Newer {
                let entry = RowlessOwner::new(RowlessKind::Gone, gone.owner, gone.seq, gone.origin.as_ref());
                plan.entries.extend(entry);
            }
        }
        if let Some(floor) = selection.floor() {
            index.older_than(floor, |_, places| places.iter().for_each(|p| hide(&mut plan.hide, *p)));
        }
    }

    /// Without a key: each image has as many rows as its changes come to.
    fn plan_images(
        &self,
        set: &Multiset,
        plan: &mut Replacement,
        selection: &Selection,
        written: &WrittenRows,
        rejected: &[bool],
    ) {
        let first_file = self.files.next();
        let floor = selection.floor();
        let mut own_places = written.places_by_source();
        for (source, (owner, seq)) in selection.owners.iter().zip(&selection.sequences).enumerate() {
            let refused = rejected.get(source).copied().unwrap_or(false);
            if let Some((_, file, row)) = own_places(source).first().filter(|_| !refused) {
                plan.effect.added.push((*owner, Place { file: first_file + file, row: *row }, *seq));
            }
        }
        if let Some(floor) = floor {
            set.voided(floor, |place| hide(&mut plan.hide, place));
        }
        set.take(selection.gone.iter().map(|gone| gone.owner), floor, &mut plan.effect);
        plan.effect.removed.iter().for_each(|(_, place)| hide(&mut plan.hide, *place));
        for (op, of) in &selection.applied {
            let entry = RowlessOwner::new(RowlessKind::Applied, of.owner, of.seq, of.origin.as_ref());
            plan.entries.extend(entry.map(|entry| RowlessOwner { op: letter(*op), ..entry }));
        }
    }

    /// Writes the vectors and states every action of the commit; also the files as they will stand.
    async fn actions(
        &self,
        plan: &Replacement,
        written: &WrittenRows,
        ranges: &Ranges,
    ) -> Result<(Vec<Value>, Vec<(u32, Option<LiveFile>)>)> {
        let inline = self.committer.settings.inline_vector_bytes;
        let mut actions = Vec::with_capacity(plan.hide.len() * 2 + written.adds.len() + ranges.len() + 1);
        if let Some(metadata) = self.metadata_due() {
            actions.push(json!({"metaData": metadata}));
        }
        actions.extend(self.committer.txn_actions(ranges));
        let mut vectors = VectorFile::default();
        let mut restated = Vec::with_capacity(plan.hide.len());
        let kept = retention::tombstones(&self.committer.metadata);
        for (id, rows) in &plan.hide {
            let file = self.files.get(*id).ok_or_else(|| {
                Error::new(ErrorKind::Internal, "the index names a file that the table does not have")
            })?;
            let hidden = &file.hidden | rows;
            let stays = hidden.len() < u64::from(file.rows);
            actions.push(remove_action(&file.removal(stays, true, kept))?);
            if !stays {
                restated.push((*id, None));
                continue;
            }
            let vector = vectors.push(&hidden, inline)?;
            let add = file.restated(Some(vector), true);
            actions.push(add_action(&add)?);
            restated.push((*id, Some(LiveFile { add, rows: file.rows, hidden, vector_ms: Some(now_ms()) })));
        }
        for ((add, rows), hidden) in written.adds.iter().zip(&plan.outdated) {
            let mut file =
                LiveFile { add: add.clone(), rows: *rows, hidden: hidden.clone(), vector_ms: Some(now_ms()) };
            if hidden.len() >= u64::from(*rows) {
                // an orphan: vacuum finds it
                restated.push((u32::MAX, None));
                continue;
            }
            if !hidden.is_empty() {
                file.add = file.restated(Some(vectors.push(hidden, inline)?), true);
            }
            actions.push(add_action(&file.add)?);
            restated.push((u32::MAX, Some(file)));
        }
        vectors.write(&self.committer.store).await?;
        Ok((actions, restated))
    }

    /// Memory follows the commit.
    fn apply(
        &mut self,
        plan: Replacement,
        written: &WrittenRows,
        restated: Vec<(u32, Option<LiveFile>)>,
        selection: &Selection,
        ranges: &Ranges,
    ) -> Result<()> {
        let old = restated.len() - written.adds.len();
        for (at, (id, file)) in restated.into_iter().enumerate() {
            match (at < old, file) {
                (true, Some(file)) => {
                    if let Some(known) = self.files.get_mut(id) {
                        *known = file;
                    }
                }
                (true, None) => {
                    self.files.remove(id);
                }
                // the number was promised to the places of the plan, so an orphan takes one too
                (false, Some(file)) => {
                    self.files.insert(file)?;
                }
                (false, None) => self.files.skip(),
            }
        }
        let floor = selection.floor();
        match &mut self.owners {
            Owners::Keyed(index) => {
                if let Some(floor) = floor {
                    index.drop_older(floor);
                }
                for (owner, seq, from, to) in &plan.sets {
                    index.set(*owner, *seq, plan.places.get(*from..*to).unwrap_or_default());
                }
            }
            Owners::Multiset(set) => {
                set.apply(plan.effect, floor);
                for (op, of) in &selection.applied {
                    set.applied(*op, of);
                }
            }
        }
        if let Some(floor) = floor {
            self.floor = self.floor.max(floor);
        }
        if !plan.entries.is_empty() {
            self.owners_files += 1;
        }
        if !ranges.is_empty() {
            self.rowless_due.clear();
        }
        if let Some(metadata) = self.metadata_due() {
            self.committer.metadata = metadata;
            self.memo_due = None;
        }
        self.committer.positions.advance(ranges);
        self.committer.advance();
        Ok(())
    }
}

fn hide(all: &mut Hide, place: Place) {
    all.entry(place.file).or_default().insert(place.row);
}

fn marks(rows: &[u32], of: usize) -> Result<Vec<bool>> {
    let mut marks = vec![false; of];
    for row in rows {
        match marks.get_mut(*row as usize) {
            Some(mark) => *mark = true,
            None => return Err(Error::new(ErrorKind::Internal, "a rejected row is none of the selection's")),
        }
    }
    Ok(marks)
}
