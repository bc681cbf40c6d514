//! Phase two of a flush: the rows the selected owners own now, in one commit with the positions.
//!
//! Receives a selection and what became of its rows. Promises, in this order: data files, deletion vectors, owners
//! file, commit; memory follows only after the commit. When another commit came first, it is replayed into memory and
//! the plan is made anew against the state it left; the data files stay, and rows in them that have lost meanwhile
//! are hidden in the very commit that adds them. Never holds a half-applied plan.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, Decimal128Builder, RecordBatch, TimestampMicrosecondBuilder};
use deltalake::kernel::Add;
use roaring::RoaringBitmap;
use serde_json::{Map, Value, json};

use super::commit::{Attempts, Commit, Put, add_action, now_ms, remove_action};
use super::files::{Codec, DataFile, pick, split};
use super::index::Place;
use super::key::Owner;
use super::keyed::{KeyedTable, Owners};
use super::live::{Hide, LiveFile};
use super::multiset::{Effect, letter};
use super::owners::{self, Entry, Kind};
use super::schema::{SEQ_TYPE, align, batch_of, utc};
use super::select::Selection;
use super::vector::VectorFile;
use super::{Outcome, retention};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Origin, Ranges};
use crate::sequence::Sequence;

/// Where the output rows went: data files and, by source row, places in them.
pub(super) struct Laid {
    adds: Vec<(Add, u32)>,
    /// (source row, new file, row in it), sorted
    rows: Vec<(u32, u32, u32)>,
}

/// What one attempt is about to commit.
struct Plan {
    hide: Hide,
    /// rows of new files that have lost already
    stillborn: Vec<RoaringBitmap>,
    sets: Vec<(Owner, Sequence, usize, usize)>,
    places: Vec<Place>,
    effect: Effect,
    entries: Vec<Entry>,
}

impl KeyedTable {
    /// Phase two: makes `output` the rows of the selected owners, and the end of `ranges` the positions, in one
    /// commit. `output` holds the columns of [`Self::schema`] (those it lacks are null, narrower ones are widened).
    /// `source_rows` names for each output row its row of [`Selection::upserts`]; `None`: one to one. An upsert that
    /// is not named leaves its owner without rows; one in `rejected` leaves the owner as it was, sequence included.
    /// A range may begin below the positions: those rows were left out by [`Self::select`]. A commit of others that
    /// comes first and makes the selection stale fences, too: other columns, a truncate, with `feed` in `info` (see
    /// [`super::ChangesTable::write`]) another one with a feed, in a table without a key any that moves positions.
    ///
    /// Errors: whatever the lake answers; nothing is then known to be committed, and calling again, after a new
    /// [`Self::select`], is right. `Config` when `output` does not fit the table.
    pub async fn flush(
        &mut self,
        selection: &Selection,
        output: &RecordBatch,
        source_rows: Option<&[u32]>,
        rejected: &[u32],
        ranges: &Ranges,
        info: Map<String, Value>,
    ) -> Result<Outcome> {
        let ranges = match self.committer.due(ranges, &selection.positions) {
            Ok(due) => due,
            Err(ended) => return Ok(ended),
        };
        let upserts = selection.owners.len();
        let rejected = marks(rejected, upserts)?;
        let columns = self.committer.schema.all.clone();
        let laid = self.lay(selection, output, source_rows, &rejected).await?;
        crate::failpoint::pass("flush.after_data_file");
        let mut attempts = Attempts::of("WRITE", info);
        loop {
            let plan = self.plan(selection, &laid, &rejected, &ranges)?;
            let (actions, restated) = self.actions(&plan, &laid, &ranges).await?;
            crate::failpoint::pass("flush.after_vector_file");
            if !plan.entries.is_empty() {
                owners::write(&self.committer.store, self.committer.generation, &plan.entries).await?;
            }
            match attempts.put(&self.committer, &actions).await? {
                Put::Written => {
                    crate::failpoint::pass("flush.after_commit");
                    self.apply(plan, laid, restated, selection, &ranges)?;
                    return Ok(Outcome::Committed { version: self.committer.version });
                }
                Put::Taken(other) => {
                    let stale = self.makes_stale(&other, attempts.info());
                    let floor = self.floor;
                    self.overtaken(*other).await?;
                    // the files are written under the names of before, in narrower types, or without what the rows of an
                    // added column hold by default
                    if self.committer.schema.all != columns {
                        return Ok(Outcome::Fenced);
                    }
                    if let Some(ended) = self.committer.settled(&ranges) {
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
    fn makes_stale(&self, other: &Commit, info: &Map<String, Value>) -> bool {
        let generation = self.committer.generation;
        match &self.owners {
            Owners::Keyed(_) => info.contains_key("feed") && (other.feed.is_some() || other.metadata.is_some()),
            // the rows of an image are counted from all changes that were applied
            Owners::Multiset(_) => other.moves(generation),
        }
    }

    /// Writes the output rows to data files.
    async fn lay(
        &self,
        selection: &Selection,
        output: &RecordBatch,
        source_rows: Option<&[u32]>,
        rejected: &[bool],
    ) -> Result<Laid> {
        let rows = output.num_rows();
        let upserts = selection.owners.len();
        let one_to_one: Vec<u32>;
        let sources = match source_rows {
            Some(sources) => sources,
            None => {
                one_to_one = (0..rows as u32).collect();
                &one_to_one
            }
        };
        if sources.len() != rows || (source_rows.is_none() && rows != upserts) {
            return Err(Error::new(ErrorKind::Internal, "output rows and their source rows differ in number"));
        }
        if sources.iter().any(|s| rejected.get(*s as usize).is_none_or(|r| *r)) {
            return Err(Error::new(ErrorKind::Internal, "an output row names a source row that is absent or rejected"));
        }
        if rows == 0 {
            return Ok(Laid { adds: Vec::new(), rows: Vec::new() });
        }
        let batch = self.complete(selection, output, sources)?;
        let schema = &self.committer.schema;
        let mut laid = Laid { adds: Vec::new(), rows: Vec::with_capacity(rows) };
        for (values, picked) in split(&batch, schema, self.committer.settings.partitions_max)? {
            let mut file = DataFile::new(schema, Codec::Fast)?;
            file.push(&pick(&batch, picked.as_ref())?)?;
            let count = file.rows() as u32;
            let number = laid.adds.len() as u32;
            match &picked {
                None => laid.rows.extend(sources.iter().enumerate().map(|(row, s)| (*s, number, row as u32))),
                Some(picked) => {
                    let of = |out: u32| sources.get(out as usize).copied().unwrap_or(0);
                    laid.rows
                        .extend(picked.values().iter().enumerate().map(|(row, out)| (of(*out), number, row as u32)));
                }
            }
            let add = file.write(&self.committer.store, values, true).await?;
            laid.adds.push((add, count));
        }
        laid.rows.sort_unstable();
        if matches!(self.owners, Owners::Multiset(_)) && laid.rows.windows(2).any(|w| matches!(w, [a, b] if a.0 == b.0))
        {
            return Err(Error::new(
                ErrorKind::Config,
                "a table whose source has no key cannot have several rows for one",
            )
            .hint("give the source table a primary key, or let the transform return at most one row each"));
        }
        Ok(laid)
    }

    /// The output with the table's own columns.
    fn complete(&self, selection: &Selection, output: &RecordBatch, sources: &[u32]) -> Result<RecordBatch> {
        let schema = &self.committer.schema;
        if let Some(stranger) =
            output.schema_ref().fields().iter().find(|f| schema.data.field_with_name(f.name()).is_err())
        {
            return Err(Error::new(ErrorKind::Config, format!("the table has no column `{}`", stranger.name()))
                .hint("`evolve` adds it"));
        }
        let rows = align(output, &schema.data)?;
        let mut seq = Decimal128Builder::with_capacity(sources.len()).with_data_type(SEQ_TYPE);
        let mut ts = TimestampMicrosecondBuilder::with_capacity(sources.len()).with_data_type(utc());
        let keyless = matches!(self.owners, Owners::Multiset(_));
        let mut owner = BinaryBuilder::new();
        for source in sources {
            let at = *source as usize;
            let sequence = selection.sequences.get(at).copied().unwrap_or_default();
            seq.append_value(i128::try_from(sequence.0).unwrap_or(i128::MAX));
            let ms = selection.source_ts_ms.get(at).copied().unwrap_or(0);
            ts.append_option(if ms == 0 { None } else { ms.checked_mul(1000) });
            if keyless {
                owner.append_value(selection.owners.get(at).copied().unwrap_or(0).to_be_bytes());
            }
        }
        let (seq, ts, owner): (ArrayRef, ArrayRef, ArrayRef) =
            (Arc::new(seq.finish()), Arc::new(ts.finish()), Arc::new(owner.finish()));
        let columns = schema
            .all
            .fields()
            .iter()
            .map(|field| match field.name().as_str() {
                super::SEQ => Ok(seq.clone()),
                super::SOURCE_TS => Ok(ts.clone()),
                super::OWNER if keyless => Ok(owner.clone()),
                name => rows
                    .column_by_name(name)
                    .cloned()
                    .ok_or_else(|| Error::new(ErrorKind::Internal, format!("column `{name}` is missing"))),
            })
            .collect::<Result<Vec<_>>>()?;
        batch_of(schema.all.clone(), columns, rows.num_rows())
    }

    /// What to hide and to remember, against the state in memory now.
    fn plan(&self, selection: &Selection, laid: &Laid, rejected: &[bool], ranges: &Ranges) -> Result<Plan> {
        let mut plan = Plan {
            hide: Hide::new(),
            stillborn: vec![RoaringBitmap::new(); laid.adds.len()],
            sets: Vec::new(),
            places: Vec::with_capacity(laid.rows.len()),
            effect: Effect::default(),
            entries: Vec::new(),
        };
        let first_file = self.files.next();
        let floor = selection.floor();
        let mut at = 0;
        let mut scratch = Vec::new();
        for (source, ((owner, seq), origin)) in
            selection.owners.iter().zip(&selection.sequences).zip(&selection.origins).enumerate()
        {
            let from = at;
            while laid.rows.get(at).is_some_and(|(s, _, _)| *s as usize == source) {
                at += 1;
            }
            let own = laid.rows.get(from..at).unwrap_or_default();
            let refused = rejected.get(source).copied().unwrap_or(false);
            match &self.owners {
                Owners::Keyed(index) => {
                    if refused {
                        continue;
                    }
                    if index.sequence(*owner).is_some_and(|known| *seq <= known) {
                        for (_, file, row) in own {
                            if let Some(born) = plan.stillborn.get_mut(*file as usize) {
                                born.insert(*row);
                            }
                        }
                        continue;
                    }
                    scratch.clear();
                    index.places(*owner, &mut scratch);
                    scratch.iter().for_each(|place| hide(&mut plan.hide, *place));
                    let start = plan.places.len();
                    plan.places.extend(own.iter().map(|(_, file, row)| Place { file: first_file + file, row: *row }));
                    plan.sets.push((*owner, *seq, start, plan.places.len()));
                    if own.is_empty() {
                        plan.entries.extend(Entry::new(Kind::Gone, *owner, *seq, origin.as_ref()));
                    }
                }
                Owners::Multiset(_) => {
                    if let Some((_, file, row)) = own.first().filter(|_| !refused) {
                        plan.effect.added.push((*owner, Place { file: first_file + file, row: *row }, *seq));
                    }
                }
            }
        }
        match &self.owners {
            Owners::Keyed(index) => {
                for gone in &selection.gone {
                    if index.sequence(gone.owner).is_some_and(|known| gone.seq <= known) {
                        continue;
                    }
                    scratch.clear();
                    index.places(gone.owner, &mut scratch);
                    scratch.iter().for_each(|place| hide(&mut plan.hide, *place));
                    plan.sets.push((gone.owner, gone.seq, 0, 0));
                    plan.entries.extend(Entry::new(Kind::Gone, gone.owner, gone.seq, gone.origin.as_ref()));
                }
                if let Some(floor) = floor {
                    index.older_than(floor, |_, places| places.iter().for_each(|p| hide(&mut plan.hide, *p)));
                }
            }
            Owners::Multiset(set) => {
                if let Some(floor) = floor {
                    set.voided(floor, |place| hide(&mut plan.hide, place));
                }
                set.take(selection.gone.iter().map(|gone| gone.owner), floor, &mut plan.effect);
                plan.effect.removed.iter().for_each(|(_, place)| hide(&mut plan.hide, *place));
                for (op, of) in &selection.applied {
                    let entry = Entry::new(Kind::Applied, of.owner, of.seq, of.origin.as_ref());
                    plan.entries.extend(entry.map(|entry| Entry { op: letter(*op), ..entry }));
                }
            }
        }
        if let (Owners::Keyed(index), Some((input, range))) = (&self.owners, ranges.iter().next()) {
            let origin = Origin { input: input.clone(), offset: range.to - 1 };
            for (owner, seq) in self.bare.iter().filter(|(owner, _)| !index.has_rows(*owner)) {
                plan.entries.extend(Entry::new(Kind::Gone, *owner, *seq, Some(&origin)));
            }
        }
        if let Some((seq, origin)) = &selection.floor {
            plan.entries.extend(Entry::new(Kind::Floor, 0, *seq, Some(origin)));
        }
        Ok(plan)
    }

    /// Writes the vectors and states every action of the commit; also the files as they will stand.
    async fn actions(
        &self,
        plan: &Plan,
        laid: &Laid,
        ranges: &Ranges,
    ) -> Result<(Vec<Value>, Vec<(u32, Option<LiveFile>)>)> {
        let inline = self.committer.settings.inline_vector_bytes;
        let mut actions = Vec::with_capacity(plan.hide.len() * 2 + laid.adds.len() + ranges.len() + 1);
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
        for ((add, rows), hidden) in laid.adds.iter().zip(&plan.stillborn) {
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
        plan: Plan,
        laid: Laid,
        restated: Vec<(u32, Option<LiveFile>)>,
        selection: &Selection,
        ranges: &Ranges,
    ) -> Result<()> {
        let old = restated.len() - laid.adds.len();
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
            self.bare.clear();
        }
        if let Some(metadata) = self.metadata_due() {
            self.committer.metadata = metadata;
            self.epochs_due = None;
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
