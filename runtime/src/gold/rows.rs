//! The rows of one table as they are now, some of its columns, each row found by its key.
//!
//! Receives what a version of the table did: keys of rows that went, and rows that came. Promises one slot a key, which stays
//! the key's as long as the state lives, whether there is a row or not; to name the slots whose row has become another, and no
//! others; and rows by their slots in one pass. A key with two rows is refused. What is dead is let go of when it is half of
//! all. Never reads the lake.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use hashbrown::{HashMap, HashSet};

use super::Slot;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Owner, images_of, owners_of};

/// Chunks are laid together when there are more.
const CHUNKS_MAX: usize = 256;

/// The rows of a table.
#[derive(Debug)]
pub struct Rows {
    columns: SchemaRef,
    key: Vec<String>,
    slots: HashMap<Owner, Slot>,
    /// of each slot, where its row lies
    places: Vec<Option<Place>>,
    /// the first is one row of nulls, for slots without a row
    chunks: Vec<RecordBatch>,
    /// rows that slots have
    alive: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    chunk: u32,
    row: u32,
    /// of the row's image: two rows that have the same are the same
    image: u64,
}

/// What a version of a table did to its rows.
#[derive(Debug, Default)]
pub struct Taken {
    /// slots whose row is another, or there is one where there was none
    pub came: Vec<Slot>,
    /// the rows of these slots, in the state's columns
    pub rows: Option<RecordBatch>,
    /// slots that have no row any more
    pub went: Vec<Slot>,
}

impl Taken {
    /// Slots that have another row, or none, by it.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.came.iter().chain(&self.went).copied()
    }
}

impl Rows {
    /// No rows yet, of a table with these columns, the key's among them.
    pub fn new(columns: &SchemaRef, key: &[String]) -> Self {
        let open: Vec<Field> = columns.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let columns = Arc::new(Schema::new(open));
        let nulls = columns.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let nothing =
            RecordBatch::try_new(columns.clone(), nulls).unwrap_or_else(|_| RecordBatch::new_empty(columns.clone()));
        Rows { columns, key: key.to_vec(), slots: HashMap::new(), places: Vec::new(), chunks: vec![nothing], alive: 0 }
    }

    /// Its columns, all of them nullable.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Names of the key's columns.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// The slots of the keys of `rows`, which have the key's columns and perhaps more.
    ///
    /// # Errors
    /// As [`Self::slots_of`].
    pub fn slots_of_rows(&mut self, rows: &RecordBatch) -> Result<Vec<Option<Slot>>> {
        let key = self.key.iter().map(|name| column(rows, name)).collect::<Result<Vec<_>>>()?;
        self.slots_of(&key)
    }

    /// The slots of the keys, whose columns are in key order; new ones for keys that were never met, and none for a key
    /// with a null in it, which is no row's.
    ///
    /// # Errors
    /// `Config` where a column has a type that no key has.
    pub fn slots_of(&mut self, key: &[ArrayRef]) -> Result<Vec<Option<Slot>>> {
        let is_null = |row: usize| key.iter().any(|column| column.is_null(row));
        let owners = owners_of(key)?;
        Ok(owners.into_iter().enumerate().map(|(row, owner)| (!is_null(row)).then(|| self.slot(owner))).collect())
    }

    fn slot(&mut self, owner: Owner) -> Slot {
        let next = self.places.len() as Slot;
        let slot = *self.slots.entry(owner).or_insert(next);
        if slot == next {
            self.places.push(None);
        }
        slot
    }

    /// Takes in what a version did: rows with the keys `went` are gone, those of `came` are there.
    ///
    /// # Errors
    /// `Config` where a key has two rows. `Internal` where a column is missing.
    pub fn take_in(&mut self, went: &[RecordBatch], came: &[RecordBatch]) -> Result<Taken> {
        let mut gone: HashSet<Slot> = HashSet::new();
        for keys in went {
            gone.extend(self.slots_of_rows(keys)?.into_iter().flatten().filter(|slot| self.has(*slot)));
        }
        let (mut taken, mut parts, mut new) = (Taken::default(), Vec::new(), HashSet::new());
        for rows in came {
            let rows = self.own_columns(rows)?;
            let slots = self.slots_of_rows(&rows)?;
            let images = images_of(&rows)?;
            let mut changed = Vec::new();
            let first = taken.came.len();
            for (row, (slot, image)) in slots.iter().zip(images).enumerate() {
                let Some(slot) = *slot else { continue };
                let image = image as u64;
                let had = self.places.get(slot as usize).copied().flatten();
                if !new.insert(slot) || (had.is_some() && !gone.remove(&slot)) {
                    return Err(self.twice(&rows, row));
                }
                if had.is_none_or(|had| had.image != image) {
                    changed.push(row as u32);
                    taken.came.push(slot);
                    self.alive += usize::from(had.is_none());
                    let place = Place { chunk: self.chunks.len() as u32, row: changed.len() as u32 - 1, image };
                    if let Some(at) = self.places.get_mut(slot as usize) {
                        *at = Some(place);
                    }
                }
            }
            if taken.came.len() > first {
                let rows = match changed.len() == rows.num_rows() {
                    true => rows,
                    false => take_record_batch(&rows, &UInt32Array::from(changed)).map_err(unfit)?,
                };
                self.chunks.push(rows.clone());
                parts.push(rows);
            }
        }
        for slot in gone {
            if let Some(place) = self.places.get_mut(slot as usize) {
                *place = None;
                self.alive -= 1;
                taken.went.push(slot);
            }
        }
        if !parts.is_empty() {
            taken.rows = Some(concat_batches(&self.columns, &parts).map_err(unfit)?);
        }
        self.lay_together()?;
        Ok(taken)
    }

    fn twice(&self, rows: &RecordBatch, row: usize) -> Error {
        Error::new(ErrorKind::Config, format!("the key {} has several rows", named(rows, &self.key, row)))
            .hint("a Gold table reads Silver tables whose module makes one row, or none, of each source row")
    }

    /// True where the slot has a row.
    pub fn has(&self, slot: Slot) -> bool {
        self.places.get(slot as usize).is_some_and(Option::is_some)
    }

    /// The rows of `slots`, in their order; nulls where there is none.
    ///
    /// # Errors
    /// None that can be helped.
    pub fn get(&self, slots: impl IntoIterator<Item = Option<Slot>>) -> Result<RecordBatch> {
        let place = |slot: Option<Slot>| slot.and_then(|slot| *self.places.get(slot as usize)?);
        let at = |slot| place(slot).map_or((0, 0), |place| (place.chunk as usize, place.row as usize));
        let places: Vec<(usize, usize)> = slots.into_iter().map(at).collect();
        let chunks: Vec<&RecordBatch> = self.chunks.iter().collect();
        interleave_record_batch(&chunks, &places).map_err(unfit)
    }

    /// Slots that have a row.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.places.iter().enumerate().filter(|(_, place)| place.is_some()).map(|(slot, _)| slot as Slot)
    }

    /// Slots with a row whose key has a number that is asked for.
    pub fn slots_where(&self, is_asked: impl Fn(Owner) -> bool) -> Vec<Slot> {
        let asked = self.slots.iter().filter(|(owner, slot)| self.has(**slot) && is_asked(**owner));
        asked.map(|(_, slot)| *slot).collect()
    }

    /// Rows, and the bytes that they take.
    pub fn size(&self) -> (usize, usize) {
        let chunks: usize = self.chunks.iter().map(RecordBatch::get_array_memory_size).sum();
        let slots = self.slots.capacity() * (size_of::<(Owner, Slot)>() + 1);
        (self.alive, chunks + slots + self.places.capacity() * size_of::<Option<Place>>())
    }

    fn own_columns(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.columns.fields().iter().map(|field| column(rows, field.name())).collect::<Result<_>>()?;
        RecordBatch::try_new(SchemaRef::clone(&self.columns), columns).map_err(unfit)
    }

    /// Copies the rows that are alive where half of all are dead, or where they lie in too many chunks.
    fn lay_together(&mut self) -> Result<()> {
        let all: usize = self.chunks.iter().skip(1).map(RecordBatch::num_rows).sum();
        if all <= self.alive * 2 && self.chunks.len() <= CHUNKS_MAX {
            return Ok(());
        }
        let slots: Vec<Slot> = self.slots().collect();
        let rows = self.get(slots.iter().map(|slot| Some(*slot)))?;
        for (row, slot) in slots.into_iter().enumerate() {
            if let Some(Some(place)) = self.places.get_mut(slot as usize) {
                (place.chunk, place.row) = (1, row as u32);
            }
        }
        self.chunks.truncate(1);
        self.chunks.push(rows);
        Ok(())
    }
}

/// `name = value` of the columns `key` of a row, for messages.
pub fn named(rows: &RecordBatch, key: &[String], row: usize) -> String {
    let one = |name: &String| {
        let value = rows.column_by_name(name).and_then(|c| arrow::util::display::array_value_to_string(c, row).ok());
        format!("`{name}` = `{}`", value.unwrap_or_default())
    };
    key.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A column of rows.
///
/// # Errors
/// `Internal` where it is missing.
pub(super) fn column(rows: &RecordBatch, name: &str) -> Result<ArrayRef> {
    let lacks = || Error::new(ErrorKind::Internal, format!("rows of a table lack its column `{name}`"));
    rows.column_by_name(name).cloned().ok_or_else(lacks)
}

fn unfit(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "rows of a table do not fit together").caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Int64Type};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn columns() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("v", DataType::Utf8, true)]))
    }

    fn batch(rows: &[(i64, String)]) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let values: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1.as_str())));
        RecordBatch::try_new(columns(), vec![ids, values]).unwrap()
    }

    fn told(rows: &RecordBatch) -> BTreeMap<i64, String> {
        let (ids, values) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_string::<i32>());
        (0..rows.num_rows()).map(|row| (ids.value(row), values.value(row).to_owned())).collect()
    }

    #[test]
    fn rows_are_those_of_a_plain_map_and_only_what_differs_is_named() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut rows, mut model) = (Rows::new(&columns(), &["id".to_owned()]), BTreeMap::new());
        for step in 0..600 {
            let (mut went, mut came) = (BTreeMap::new(), BTreeMap::new());
            for _ in 0..rng.random_range(0..20) {
                let id = rng.random_range(0..80);
                if let Some(had) = model.get(&id).cloned() {
                    went.insert(id, had);
                }
                // what goes may come back as it was, or as another
                if rng.random_bool(0.7) {
                    came.insert(id, format!("{}", rng.random_range(0..4)));
                } else {
                    came.remove(&id);
                }
            }
            let lists = [&went, &came].map(|some| some.clone().into_iter().collect::<Vec<(i64, String)>>());
            let taken = rows.take_in(&[batch(&lists[0])], &[batch(&lists[1])]).unwrap();
            let before = model.clone();
            went.keys().for_each(|id| drop(model.remove(id)));
            model.extend(came);
            let all = rows.get(rows.slots().map(Some).collect::<Vec<_>>()).unwrap();
            assert_eq!(told(&all), model, "seed {seed}, step {step}");
            assert_eq!(rows.size().0, model.len(), "seed {seed}");
            let other = (0..80).filter(|id| before.get(id) != model.get(id)).count();
            assert_eq!(taken.slots().count(), other, "seed {seed}, step {step}");
            let lying: usize = rows.chunks.iter().skip(1).map(RecordBatch::num_rows).sum();
            assert!(lying <= model.len() * 2 + 20, "seed {seed}: {lying} rows lie for {}", model.len());
        }
    }

    #[test]
    fn a_key_has_one_slot_before_with_and_after_its_row() {
        let mut rows = Rows::new(&columns(), &["id".to_owned()]);
        let keys: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![Some(5), None, Some(6)]))];
        let [Some(five), None, Some(six)] = rows.slots_of(&keys).unwrap()[..] else { panic!("slots") };
        assert!(!rows.has(five));
        assert_eq!(rows.take_in(&[], &[batch(&[(5, "a".to_owned())])]).unwrap().came, [five]);
        assert!(rows.has(five) && !rows.has(six));
        let found = rows.get([Some(six), Some(five), None]).unwrap();
        assert_eq!((found.column(1).null_count(), found.column(1).as_string::<i32>().value(1)), (2, "a"));
        assert_eq!(rows.take_in(&[batch(&[(5, String::new())])], &[]).unwrap().went, [five]);
        assert!(!rows.has(five));
        // a foreign key may be narrower than the key it names
        let narrow: Vec<ArrayRef> = vec![Arc::new(arrow::array::Int32Array::from(vec![5]))];
        assert_eq!(rows.slots_of(&narrow).unwrap(), [Some(five)]);
    }

    #[test]
    fn a_key_with_two_rows_is_refused() {
        let mut rows = Rows::new(&columns(), &["id".to_owned()]);
        let two = batch(&[(5, "a".to_owned()), (5, "b".to_owned())]);
        assert!(rows.take_in(&[], &[two]).unwrap_err().to_string().contains("`id` = `5`"));
        let mut rows = Rows::new(&columns(), &["id".to_owned()]);
        rows.take_in(&[], &[batch(&[(5, "a".to_owned())])]).unwrap();
        assert!(rows.take_in(&[], &[batch(&[(5, "b".to_owned())])]).is_err(), "the one before has not gone");
    }
}
