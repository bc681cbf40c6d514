//! Compaction: fewer files, and none with many hidden rows.
//!
//! Receives the choice of files made by [`KeyedTable::plan_compaction`]. Promises that readers see the same rows before and
//! after, that reading and writing ([`Compaction::rewrite`]) needs neither the table nor its log and may run beside flushes,
//! and that rows hidden meanwhile are hidden in the new files too: a new file lists its rows in the order of the old
//! ones, so an old row's new number follows from the rows that were hidden when the choice was made. Dropped when a
//! chosen file vanished. Never changes a row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use deltalake::kernel::Add;
use futures::TryStreamExt;
use object_store::ObjectStore;
use roaring::RoaringBitmap;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::Settings;
use crate::lake::file::deletion_vector::VectorFile;
use crate::lake::file::live_files::{LiveFile, LiveFiles};
use crate::lake::file::upload::Upload;
use crate::lake::file::{Codec, scan, shown};
use crate::lake::keyed::evolve::{Evolution, fill, fill_columns};
use crate::lake::keyed::index::Place;
use crate::lake::keyed::key::Owner;
use crate::lake::keyed::reader::OwnerReader;
use crate::lake::keyed::{KeyedTable, Owners};
use crate::lake::log::commit::{Attempts, Committer, Put, add_action, now_ms, remove_action};
use crate::lake::log::retention;
use crate::lake::log::schema::TableSchema;

/// A file with this part of the hidden rows that call for a rewrite goes along with one that has them all.
const NEARLY: f64 = 0.9;

/// A file with more than this share of its rows hidden is rewritten in a backlog too. The rows that a rewrite writes for
/// each one that it frees are (1 - ratio) / ratio: a third at this, three at the quarter that is the default otherwise.
const BACKLOG_HIDDEN_RATIO: f64 = 0.75;

/// How a table stands to its source when its files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// it keeps up
    Steady,
    /// it works off a backlog, whose next changes hide the rows that a rewrite would write: files may wear longer
    CatchingUp,
}

/// Partition column → its value in a file, by name.
type SortedValues = Vec<(String, Option<String>)>;

/// Files to rewrite, chosen by [`KeyedTable::plan_compaction`].
#[derive(Debug)]
pub struct Compaction {
    pub(in crate::lake) store: Arc<dyn ObjectStore>,
    pub(in crate::lake) schema: TableSchema,
    /// reads owners; a table that only grows has none
    pub(in crate::lake) reader: Option<OwnerReader>,
    pub(in crate::lake) target_bytes: u64,
    pub(in crate::lake) inputs: Vec<(u32, LiveFile)>,
    /// columns that change on the way
    pub(in crate::lake) evolution: Option<Evolution>,
}

/// Rows of an old file in a new one: visible row number `first` and those after it are at `row` and after.
#[derive(Debug, Clone, Copy)]
struct Segment {
    first: u32,
    file: usize,
    row: u32,
}

/// A row that moves.
#[derive(Debug, Clone, Copy)]
pub(in crate::lake) struct Move {
    pub(in crate::lake) owner: Owner,
    /// the owner afterwards: another one only where the row's image changed
    pub(in crate::lake) becomes: Owner,
    pub(in crate::lake) from: Place,
}

/// What a compaction wrote, ready for [`KeyedTable::commit_compaction`].
#[derive(Debug)]
pub struct Rewritten {
    pub(in crate::lake) inputs: Vec<(u32, LiveFile)>,
    segments: HashMap<u32, Vec<Segment>>,
    outputs: Vec<Output>,
}

/// A new file.
#[derive(Debug)]
struct Output {
    add: Add,
    rows: u32,
    /// by row; empty where the table has no index
    moves: Vec<Move>,
}

impl Compaction {
    /// Bytes of the files to read.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|(_, file)| u64::try_from(file.add.size).unwrap_or(0)).sum()
    }

    /// Files to read.
    pub fn files(&self) -> usize {
        self.inputs.len()
    }

    /// A few small files whose rows change are soon read again; others hold what stays.
    fn codec(&self) -> Codec {
        let change = self.inputs.iter().any(|(_, file)| !file.hidden.is_empty());
        if change && self.bytes() < self.target_bytes / 4 { Codec::Fast } else { Codec::Small }
    }

    /// Writes files of these columns instead of the table's present ones.
    pub(in crate::lake) fn use_schema(&mut self, schema: TableSchema) {
        self.schema = schema;
    }

    /// The columns to read.
    fn columns(&self) -> SchemaRef {
        let renaming = self.evolution.as_ref().and_then(|e| e.renaming.as_ref());
        renaming.map_or_else(|| self.schema.all.clone(), |renaming| renaming.before.clone())
    }

    /// Reads the chosen files and writes the new ones. Touches no log; may run beside flushes.
    pub async fn rewrite(self) -> Result<Rewritten> {
        let mut done = Rewritten { inputs: Vec::new(), segments: HashMap::new(), outputs: Vec::new() };
        let mut open: Option<(Upload, Vec<Move>)> = None;
        let codec = self.codec();
        for (id, input) in &self.inputs {
            let mut batches = scan(&self.store, &input.add, self.columns()).await?;
            let mut row = 0u32;
            let mut visible = 0u32;
            let mut segment = usize::MAX;
            while let Some(batch) = batches.try_next().await? {
                let first = row;
                row = row.saturating_add(batch.num_rows() as u32);
                let Some(rows) = shown(&batch, first, &input.hidden)? else { continue };
                let olds = (first..row).filter(|old| !input.hidden.contains(*old));
                let (rows, moves) = self.moves(rows, *id, olds)?;
                // a full file ends between two batches, and a file holds rows of one partition
                let full = open.as_ref().is_some_and(|(file, _)| {
                    file.bytes() >= self.target_bytes || *file.partition_values() != input.add.partition_values
                });
                if full && let Some((file, moves)) = open.take() {
                    done.outputs.push(self.close(file, moves).await?);
                }
                let (file, all) = match &mut open {
                    Some(open) => open,
                    None => {
                        let values = input.add.partition_values.clone();
                        open.insert((Upload::new(&self.store, &self.schema, codec, values)?, Vec::new()))
                    }
                };
                if segment != done.outputs.len() {
                    segment = done.outputs.len();
                    let at = u32::try_from(file.rows()).unwrap_or(u32::MAX);
                    done.segments.entry(*id).or_default().push(Segment { first: visible, file: segment, row: at });
                }
                visible += rows.num_rows() as u32;
                file.push(&rows).await?;
                all.extend(moves);
            }
            if row != input.rows {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("data file `{}` has {row} rows where the log says {}", input.add.path, input.rows),
                ));
            }
        }
        if let Some((file, moves)) = open {
            done.outputs.push(self.close(file, moves).await?);
        }
        done.inputs = self.inputs;
        Ok(done)
    }

    async fn close(&self, file: Upload, moves: Vec<Move>) -> Result<Output> {
        let data_change = self.evolution.as_ref().is_some_and(|e| e.data_change);
        let rows = u32::try_from(file.rows())
            .map_err(|_| Error::new(ErrorKind::Internal, "a data file would have over 2^32 rows"))?;
        Ok(Output { add: file.write(data_change).await?, rows, moves })
    }

    /// The rows as they will be, and where each comes from.
    fn moves(&self, rows: RecordBatch, id: u32, olds: impl Iterator<Item = u32>) -> Result<(RecordBatch, Vec<Move>)> {
        let Some(reader) = &self.reader else {
            let rows = self.evolution.as_ref().map_or(Ok(rows.clone()), |evolution| fill_columns(&rows, evolution))?;
            return Ok((rows, Vec::new()));
        };
        let owners = reader.owners(&rows)?;
        let (rows, changed) = match &self.evolution {
            None => (rows, None),
            Some(evolution) => fill(rows, evolution, reader, &owners)?,
        };
        let becomes = changed.as_ref().unwrap_or(&owners);
        let moves = owners
            .iter()
            .zip(becomes)
            .zip(olds)
            .map(|((owner, becomes), row)| Move { owner: *owner, becomes: *becomes, from: Place { file: id, row } })
            .collect();
        Ok((rows, moves))
    }
}

impl Rewritten {
    /// True when the file at `path` was rewritten.
    pub(in crate::lake) fn has_input(&self, path: &str) -> bool {
        self.inputs.iter().any(|(_, file)| file.add.path == path)
    }

    /// The new place of a row that was visible when the choice was made.
    fn translate(&self, id: u32, hidden_then: &RoaringBitmap, row: u32) -> Option<(usize, u32)> {
        let ordinal = row.checked_sub(u32::try_from(hidden_then.rank(row)).ok()?)?;
        let segments = self.segments.get(&id)?;
        let at = segments.partition_point(|s| s.first <= ordinal).checked_sub(1)?;
        let segment = segments.get(at)?;
        Some((segment.file, segment.row + (ordinal - segment.first)))
    }

    /// The actions that put the new files in the place of the old ones, and the new files as they will stand.
    pub(in crate::lake) async fn actions(
        &self,
        files: &LiveFiles,
        committer: &Committer,
    ) -> Result<Option<(Vec<Value>, Vec<Option<LiveFile>>)>> {
        let Some(hidden) = self.hidden_since(files) else { return Ok(None) };
        let mut actions = Vec::with_capacity(self.inputs.len() + self.outputs.len());
        let data_change = self.outputs.iter().any(|output| output.add.data_change);
        for (id, _) in &self.inputs {
            if let Some(file) = files.get(*id) {
                actions.push(remove_action(&file.removal(
                    false,
                    data_change,
                    retention::tombstones(&committer.metadata),
                ))?);
            }
        }
        let mut vectors = VectorFile::default();
        let mut stand = Vec::with_capacity(self.outputs.len());
        for (output, hidden) in self.outputs.iter().zip(hidden) {
            if hidden.len() >= u64::from(output.rows) {
                stand.push(None);
                continue;
            }
            let vector_ms = Some(now_ms());
            let mut file = LiveFile { add: output.add.clone(), rows: output.rows, hidden, vector_ms };
            if !file.hidden.is_empty() {
                file.add = file.restated(
                    Some(vectors.push(&file.hidden, committer.settings.inline_vector_bytes)?),
                    output.add.data_change,
                );
            }
            actions.push(add_action(&file.add)?);
            stand.push(Some(file));
        }
        vectors.write(&committer.store).await?;
        Ok(Some((actions, stand)))
    }

    /// Rows of the new files that were hidden in the old ones after the choice was made; `None` when an old file is
    /// gone.
    fn hidden_since(&self, files: &LiveFiles) -> Option<Vec<RoaringBitmap>> {
        let mut hidden = vec![RoaringBitmap::new(); self.outputs.len()];
        for (id, then) in &self.inputs {
            let now = files.get(*id)?;
            // a row that came back (a RESTORE) has no place in the new files
            if !then.hidden.is_subset(&now.hidden) {
                return None;
            }
            for row in &now.hidden - &then.hidden {
                if let Some((file, row)) = self.translate(*id, &then.hidden, row)
                    && let Some(bits) = hidden.get_mut(file)
                {
                    bits.insert(row);
                }
            }
        }
        Some(hidden)
    }
}

impl KeyedTable {
    /// Files worth rewriting now; `None` when there are none. Looks at no file.
    pub fn plan_compaction(&self, pace: Pace) -> Option<Compaction> {
        let inputs = choose(&self.files, &self.committer.settings, pace)?;
        Some(self.compaction(inputs, None))
    }

    pub(in crate::lake) fn compaction(&self, inputs: Vec<u32>, evolution: Option<Evolution>) -> Compaction {
        let inputs = inputs.into_iter().filter_map(|id| Some((id, self.files.get(id)?.clone()))).collect();
        Compaction {
            store: self.committer.store.clone(),
            schema: self.committer.schema.clone(),
            reader: Some(self.reader()),
            target_bytes: self.committer.settings.target_file_bytes,
            inputs,
            evolution,
        }
    }

    /// Commits what [`Compaction::rewrite`] wrote; false when it was overtaken and dropped.
    pub async fn commit_compaction(&mut self, rewritten: Rewritten) -> Result<bool> {
        crate::failpoint::pass("compact.before_commit");
        self.commit_rewritten(rewritten, "OPTIMIZE", &[]).await
    }

    pub(in crate::lake) async fn commit_rewritten(
        &mut self,
        rewritten: Rewritten,
        operation: &str,
        first: &[Value],
    ) -> Result<bool> {
        let mut attempts = Attempts::of(operation, Map::new());
        loop {
            let Some((actions, outputs)) = rewritten.actions(&self.files, &self.committer).await? else {
                return Ok(false);
            };
            let actions: Vec<Value> = first.iter().cloned().chain(actions).collect();
            match attempts.put(&self.committer, &actions).await? {
                Put::Written => {
                    self.move_rows(&rewritten, outputs)?;
                    self.committer.advance();
                    return Ok(true);
                }
                Put::Taken(other) => {
                    // rows of another shape may have come: the files were written for the columns of before, or for ours
                    let reshaped = other.metadata.is_some() || (!first.is_empty() && !other.adds.is_empty());
                    self.overtaken(*other).await?;
                    if reshaped {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn move_rows(&mut self, rewritten: &Rewritten, outputs: Vec<Option<LiveFile>>) -> Result<()> {
        for (stands, output) in outputs.into_iter().zip(&rewritten.outputs) {
            let Some(stands) = stands else { continue };
            let file = self.files.insert(stands)?;
            for (row, moved) in output.moves.iter().enumerate() {
                let to = Place { file, row: row as u32 };
                match &mut self.owners {
                    Owners::Keyed(index) => index.relocate(moved.owner, moved.from, to),
                    Owners::Multiset(set) => set.relocate(moved.owner, moved.becomes, moved.from, to),
                }
            }
        }
        for (id, _) in &rewritten.inputs {
            self.files.remove(*id);
        }
        Ok(())
    }
}

/// The files to rewrite next: those with many hidden rows, and small ones of one partition and about one size.
pub(in crate::lake) fn choose(files: &LiveFiles, settings: &Settings, pace: Pace) -> Option<Vec<u32>> {
    let hidden_ratio = match pace {
        Pace::Steady => settings.hidden_ratio,
        Pace::CatchingUp => settings.hidden_ratio.max(BACKLOG_HIDDEN_RATIO),
    };
    let mut groups: HashMap<(SortedValues, u32), Vec<(u32, u64)>> = HashMap::new();
    let (mut worn, mut over): (Vec<(SortedValues, u32, u64)>, Option<SortedValues>) = (Vec::new(), None);
    for (id, file) in files.iter() {
        let mut values: Vec<_> = file.add.partition_values.clone().into_iter().collect();
        values.sort_unstable();
        let size = u64::try_from(file.add.size).unwrap_or(0);
        let hidden = file.hidden.len() as f64;
        let limit = f64::from(file.rows) * hidden_ratio;
        if hidden > limit && over.as_ref().is_none_or(|first| values < *first) {
            over = Some(values.clone());
        }
        // files written together wear alike: joining them now saves joining them later
        if hidden > limit * NEARLY {
            worn.push((values.clone(), id, size));
        }
        if hidden <= limit && size < settings.small_file_bytes {
            // files of like size are joined, so that a row is rewritten once a size step
            groups.entry((values, size.max(1).ilog2() / 3)).or_default().push((id, size));
        }
    }
    let cap = |candidates: Vec<(u32, u64)>| -> Vec<u32> {
        let mut bytes = 0;
        candidates
            .into_iter()
            .take_while(|(_, size)| {
                let fits = bytes == 0 || bytes + size <= settings.compaction_bytes_max;
                bytes += size;
                fits
            })
            .map(|(id, _)| id)
            .collect()
    };
    // one partition a round
    worn.sort_unstable();
    if let Some(values) = over {
        return Some(cap(worn.into_iter().filter(|(v, _, _)| *v == values).map(|(_, id, size)| (id, size)).collect()));
    }
    let mut group = groups.into_values().filter(|g| g.len() >= settings.small_files_min).max_by_key(Vec::len)?;
    group.sort_unstable();
    let chosen = cap(group);
    // joining needs two
    (chosen.len() > 1).then_some(chosen)
}
