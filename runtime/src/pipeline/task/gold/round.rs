//! One round of a Gold table: what is new of every input is taken in, what it touches is derived anew, what differs is
//! committed.
//!
//! Chunks commit without positions and say `partial`; the last one moves those of all inputs. Broken off in between, the next
//! round starts from the positions of before and writes nothing twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use hashbrown::{HashMap, HashSet};
use serde_json::{Map, Value};

use super::inputs::Input;
use super::letters::{Letters, number};
use super::shape::Selected;
use crate::error::{Error, ErrorKind, Result};
use crate::gold::{Join, Side, Slot};
use crate::lake::{Difference, KeyedTable, Memo, Outcome, Owner, OwnerRows, Selection};
use crate::model::positions::Ranges;
use crate::pipeline::observe::progress::{ModuleUse, Progress};
use crate::pipeline::task::derivation::{Derivation, Derived};
use crate::pipeline::task::writer::Writer;
use crate::pipeline::task::{Health, retrying};
use crate::transform::Module;

/// Driving rows that are derived at once.
const CHUNK_ROWS: usize = 200_000;
/// How long the table may stand at versions of its inputs after which nothing of it has changed.
const IDLE_MOVE: Duration = Duration::from_secs(30);

/// The Gold table with the state that it is made of.
pub(super) struct Gold {
    pub(super) writer: Writer,
    pub(super) inputs: Vec<Input>,
    pub(super) join: Join,
    pub(super) derivation: Derivation,
    /// the columns of a table without a module
    selected: Option<Selected>,
    letters: Letters,
    /// the driving table's
    key: Vec<String>,
    /// what derives the rows, as the table's metadata tells it
    pub(super) made_by: String,
    progress: Arc<Progress>,
    /// driving slots whose joined row may be another
    pub(super) touched: HashSet<Slot>,
    /// of driving rows that have gone, whose rows here are to go
    went: HashMap<Slot, (Owner, i64)>,
    /// everything is derived, and owners of the table that no driving row has are to go
    pub(super) is_whole: bool,
    moved: Instant,
}

/// What one chunk did.
#[derive(Default)]
struct Done {
    changes: u64,
    rows: u64,
    rejected: u64,
    dead_letters: u64,
    committed: bool,
}

impl Gold {
    #[expect(clippy::too_many_arguments, reason = "the parts are opened one after the other, each of the ones before")]
    pub(super) fn new(
        writer: Writer,
        inputs: Vec<Input>,
        join: Join,
        derivation: Derivation,
        selected: Option<Selected>,
        letters: Letters,
        key: Vec<String>,
        made_by: String,
        progress: Arc<Progress>,
    ) -> Self {
        let (touched, went, moved) = (HashSet::new(), HashMap::new(), Instant::now());
        let is_whole = false;
        Gold {
            writer,
            inputs,
            join,
            derivation,
            selected,
            letters,
            key,
            made_by,
            progress,
            touched,
            went,
            is_whole,
            moved,
        }
    }

    /// Every row is derived in the next round; says `why` where there were rows before.
    pub(super) fn derive_all(&mut self, why: Option<&str>) {
        if let Some(why) = why.filter(|_| !self.is_whole) {
            tracing::info!(table = %self.writer.id(), "all rows are derived again, and those that differ written: {why}");
        }
        self.is_whole = true;
    }

    /// Another module, or other params, make the rows from now on; the table is to be opened anew.
    ///
    /// # Errors
    /// Why they do not; the module before goes on.
    pub(super) async fn adopt(&mut self, module: Module, params: Value) -> Result<()> {
        let before = self.derivation.exchange(module, params);
        match self.fit().await {
            Ok(()) => {
                self.derivation.begin_probation(before);
                Ok(())
            }
            Err(error) => {
                self.derivation.put_back(before);
                Err(error)
            }
        }
    }

    /// Brings the table to the columns that the module at work gives.
    async fn fit(&mut self) -> Result<()> {
        let Some(offer) = self.derivation.offer() else { return Ok(()) };
        let described = self.derivation.describe(&offer)?;
        if described.stored_key(&self.key) != self.writer.table().key() {
            let message = "the module gives the key's columns other names".to_owned();
            return Err(super::wrong(message, "give the table another name, or keep the names of the key"));
        }
        self.writer.evolve(described.fields(), &Default::default()).await
    }

    /// What makes the rows, to be given to the table as it is opened anew.
    pub(super) fn take_derivation(&mut self) -> Derivation {
        self.derivation.take()
    }

    /// Takes in what is new, and commits what differs by it; with `last` the positions too, where nothing does. False where
    /// the table is to be opened anew.
    pub(super) async fn round(&mut self, health: &Health, last: bool) -> Result<bool> {
        if !self.advance(health).await? {
            return Ok(false);
        }
        let due = super::due(&self.writer, self.inputs.iter().map(|input| &input.follower));
        if self.touched.is_empty() && !self.is_whole && (due.is_empty() || !(last || self.moved.elapsed() >= IDLE_MOVE))
        {
            return Ok(true);
        }
        let mut slots: Vec<Slot> = match self.is_whole {
            true => self.join.slots(),
            false => self.touched.iter().copied().collect(),
        };
        slots.sort_unstable();
        let mut chunks = slots.chunks(CHUNK_ROWS).peekable();
        // An owner with rows here that no driving row has goes with the last chunk.
        let mut orphans: HashSet<Owner> = match self.is_whole {
            true => self.writer.table().owners_with_rows().into_iter().collect(),
            false => HashSet::new(),
        };
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let is_last = chunks.peek().is_none();
            if is_last {
                self.writer.table_mut().set_memo(Memo::DerivedBy, self.made_by.clone());
            }
            let due = if is_last { due.clone() } else { Ranges::new() };
            if !self.derive(chunk, &due, &mut orphans, is_last, health).await? {
                return Ok(false);
            }
            if is_last {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.touched.clear();
        self.went.clear();
        (self.is_whole, self.moved) = (false, Instant::now());
        Ok(true)
    }

    /// Derives the rows of `slots` and commits what differs, with `due`; false where the table is to be opened anew.
    async fn derive(
        &mut self,
        slots: &[Slot],
        due: &Ranges,
        orphans: &mut HashSet<Owner>,
        is_last: bool,
        health: &Health,
    ) -> Result<bool> {
        let begun = Instant::now();
        let (has, joined) = self.join.joined(slots)?;
        let owners = self.owners_of(&joined)?;
        let (mut gone, mut good) = self.gone(slots, &has)?;
        for owner in &owners {
            orphans.remove(owner);
        }
        if is_last {
            gone.extend(orphans.drain());
        }
        let input = match &self.selected {
            Some(selected) => selected.pick(&joined)?,
            None => joined.clone(),
        };
        let rows = input.num_rows();
        let derived = self.derivation.derive(input, self.writer.table().schema()).await;
        if let Some(failure) = self.derivation.judge(&derived, rows) {
            self.derivation.roll_back(&failure);
            return Ok(false);
        }
        let derived = derived?;
        let (module, used) = (self.derivation.module_hash(), derived.used);
        let mut done = Done { rows: derived.rows.num_rows() as u64, ..Done::default() };
        done.dead_letters = self.letters.write(&joined, &derived.rejected, module.clone()).await?;
        if !self.letters.is_empty() {
            let failed: HashSet<u32> = derived.rejected.iter().map(|(row, _)| *row).collect();
            let numbers = self.letters.numbers_of(&joined)?.into_iter().zip(0u32..);
            good.extend(numbers.filter(|(_, row)| !failed.contains(row)).map(|(number, _)| number));
        }
        let mut info = Map::new();
        info.insert("rows".to_owned(), done.rows.into());
        if let Some(module) = module {
            info.insert("module".to_owned(), module.into());
        }
        match is_last {
            true => info.insert("inputs".to_owned(), self.versions().into_iter().collect::<Map<_, _>>().into()),
            false => info.insert("partial".to_owned(), Value::Bool(true)),
        };
        let selection = self.writer.table().select_owners(owners, joined, gone);
        match retrying!(health, replace(self.writer.table_mut(), &selection, &derived, due, &info))? {
            Outcome::Fenced => {
                tracing::info!(table = %health.id(), "another instance writes the table: it is opened anew");
                return Ok(false);
            }
            Outcome::Committed(_) => done.committed = true,
            Outcome::AlreadyCommitted { .. } => {}
        }
        self.letters.take_away(good).await?;
        done.changes = slots.len() as u64;
        done.rejected = derived.rejected.len() as u64;
        self.tell(&done, used, begun.elapsed(), is_last);
        if done.committed {
            health.committed();
        }
        Ok(true)
    }

    fn tell(&mut self, done: &Done, used: ModuleUse, took: Duration, is_last: bool) {
        let (stand, state_bytes) = (self.writer.stand(), self.join.bytes());
        let versions = if is_last { self.versions() } else { Vec::new() };
        self.progress.table(self.writer.id(), |t| {
            t.counts.changes += done.changes;
            t.counts.dead_letters += done.dead_letters;
            t.rejected += done.rejected;
            t.module.add(used);
            if done.committed {
                t.counts.rows += done.rows;
                t.counts.commits += 1;
                t.commits.note(took, None);
            }
            t.stand = stand;
            t.inputs.extend(versions.into_iter().filter_map(|(name, version)| Some((name, version.as_u64()?))));
            t.state_bytes = Some(state_bytes);
        });
    }

    /// The owners of those of `slots` that are not among `has`, which may have rows here, and the numbers of their letters.
    fn gone(&self, slots: &[Slot], has: &[Slot]) -> Result<(Vec<Owner>, Vec<i64>)> {
        let has: HashSet<Slot> = has.iter().copied().collect();
        let without: Vec<Slot> = slots.iter().copied().filter(|slot| !has.contains(slot)).collect();
        // the driving row is there, and a required lookup finds nothing
        let there: Vec<Slot> = without.iter().copied().filter(|slot| self.join.has(*slot)).collect();
        let rows = self.join.driving_rows(&there)?;
        let (mut owners, mut numbers) = (self.owners_of(&rows)?, self.letters.numbers_of(&rows)?);
        for (owner, number) in without.iter().filter_map(|slot| self.went.get(slot)) {
            owners.push(*owner);
            numbers.push(*number);
        }
        let mut named = HashSet::new();
        owners.retain(|owner| named.insert(*owner));
        Ok((owners, numbers))
    }

    /// Remembers whose driving rows have gone, while their keys are at hand.
    pub(super) fn note_gone(&mut self, side: Side, difference: &Difference) -> Result<()> {
        if side != Side::Driving {
            return Ok(());
        }
        for keys in &difference.went {
            let owners = self.owners_of(keys)?.into_iter().zip(self.letters.numbers_of(keys)?);
            let slots = self.join.driving_slots(keys)?;
            self.went.extend(slots.into_iter().zip(owners).filter_map(|(slot, owner)| Some((slot?, owner))));
        }
        Ok(())
    }

    /// Rows with a letter are derived once more: the program may have ended before it took the letter of a good one away.
    pub(super) fn touch_lettered(&mut self) -> Result<()> {
        let lettered: HashSet<i64> = self.letters.rows().collect();
        if !lettered.is_empty() {
            self.touched.extend(self.join.slots_where(|owner| lettered.contains(&number(owner))));
        }
        Ok(())
    }

    /// The version of each input that is taken in.
    fn versions(&self) -> Vec<(String, Value)> {
        self.inputs.iter().map(|input| (input.id.to_string(), input.follower.version().into())).collect()
    }

    /// The owners of driving rows in this table.
    fn owners_of(&self, rows: &RecordBatch) -> Result<Vec<Owner>> {
        let lacks = |name: &str| Error::new(ErrorKind::Internal, format!("rows lack the key column `{name}`"));
        let key = self.key.iter().map(|name| rows.column_by_name(name).cloned().ok_or_else(|| lacks(name)));
        self.writer.table().owners_of(&key.collect::<Result<Vec<ArrayRef>>>()?)
    }
}

async fn replace(
    table: &mut KeyedTable,
    selection: &Selection,
    derived: &Derived,
    due: &Ranges,
    info: &Map<String, Value>,
) -> Result<Outcome<crate::lake::Committed>> {
    // A row that the module gives nothing for has none here, whatever it had before.
    let rows =
        OwnerRows { selection, output: &derived.rows, source_rows: derived.source_rows.as_deref(), rejected: &[] };
    table.replace(rows, due, info.clone()).await
}
