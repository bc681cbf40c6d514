//! Driving rows joined with the rows that they lead to, and which of them a change touches.
//!
//! Receives what versions of the driving table and of those that are looked up did to their rows. Promises that the driving
//! rows named as touched are all whose joined row may be another by that, whatever came first; and joined rows as they are
//! now, in the driving table's columns and for each lookup `<alias>.<column>`, null where nothing is found.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use hashbrown::HashSet;

use super::rows::{Taken, column};
use super::{Finding, Looked, Rows, Side, Slot};
use crate::error::{Error, ErrorKind, Result};

/// The state of a joined table.
#[derive(Debug)]
pub struct Join {
    driving: Rows,
    lookups: Vec<Looked>,
    columns: SchemaRef,
}

impl Join {
    /// A join of which no row is known.
    pub fn new(driving: Rows, lookups: Vec<Looked>) -> Self {
        let mut fields: Vec<Field> = driving.columns().fields().iter().map(|field| field.as_ref().clone()).collect();
        for looked in &lookups {
            let named = looked.rows.columns().fields().iter();
            fields.extend(named.map(|f| f.as_ref().clone().with_name(format!("{}.{}", looked.alias, f.name()))));
        }
        Join { driving, lookups, columns: Arc::new(Schema::new(fields)) }
    }

    /// Columns of the joined rows.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Takes in what a version of a side did: rows with the keys `went` are gone, those of `came` are there. Driving slots
    /// that are touched are added to `touched`.
    ///
    /// # Errors
    /// As [`Rows::take_in`].
    pub fn take_in(
        &mut self,
        side: Side,
        went: &[RecordBatch],
        came: &[RecordBatch],
        touched: &mut HashSet<Slot>,
    ) -> Result<()> {
        let taken = self.rows_mut(side)?.take_in(went, came)?;
        for looked in self.lookups.iter_mut().filter(|looked| looked.from == side) {
            taken.went.iter().for_each(|slot| looked.edges.link(*slot, None));
            if let Some(rows) = &taken.rows {
                let values = looked.on.iter().map(|name| column(rows, name)).collect::<Result<Vec<ArrayRef>>>()?;
                let targets = looked.targets(&values)?;
                taken.came.iter().zip(targets).for_each(|(from, to)| looked.edges.link(*from, to));
            }
        }
        let targets = self.targets_of(side, &taken, came)?;
        self.touch(side, targets, touched);
        Ok(())
    }

    /// Of what was taken in on a side, the slots that others lead to.
    fn targets_of(&mut self, side: Side, taken: &Taken, came: &[RecordBatch]) -> Result<Vec<Slot>> {
        let Side::Lookup(number) = side else { return Ok(taken.slots().collect()) };
        match self.lookups.get_mut(number).map(|looked| &mut looked.finding) {
            Some(Finding::Group(groups)) => groups.take_in(taken),
            Some(Finding::AsOf(versions, ..)) => {
                let touched = versions.take_in(taken)?;
                let mut all = false;
                for rows in came {
                    all |= versions.take_in_truncates(rows)?;
                }
                Ok(if all { versions.keys().collect() } else { touched })
            }
            Some(Finding::Key) | None => Ok(taken.slots().collect()),
        }
    }

    /// Adds to `touched` the driving slots that rows of a side with these keys touch, as they are now.
    ///
    /// # Errors
    /// As [`Rows::slots_of`].
    pub fn touch_keys(&mut self, side: Side, keys: &RecordBatch, touched: &mut HashSet<Slot>) -> Result<()> {
        if let Side::Lookup(number) = side
            && let Some(Looked { finding: Finding::AsOf(versions, ..), rows, .. }) = self.lookups.get_mut(number)
        {
            // Which keys a truncate took is not known: all that there are.
            let key = rows.key().iter().map(|name| column(keys, name)).collect::<Result<Vec<_>>>()?;
            let (_, key) = key.split_last().ok_or_else(|| Error::new(ErrorKind::Internal, "a feed without a key"))?;
            let named = versions.slots_of(key)?;
            let targets = match named.iter().any(Option::is_none) {
                true => versions.keys().collect(),
                false => named.into_iter().flatten().collect(),
            };
            self.touch(side, targets, touched);
            return Ok(());
        }
        let slots: Vec<Slot> = self.rows_mut(side)?.slots_of_rows(keys)?.into_iter().flatten().collect();
        let targets = self.leading_slots(side, slots);
        self.touch(side, targets, touched);
        Ok(())
    }

    /// The slots of driving rows with these keys.
    ///
    /// # Errors
    /// As [`Rows::slots_of`].
    pub fn driving_slots(&mut self, keys: &RecordBatch) -> Result<Vec<Option<Slot>>> {
        self.driving.slots_of_rows(keys)
    }

    /// The rows of `slots` of the driving table; nulls where there is none.
    ///
    /// # Errors
    /// As [`Rows::get`].
    pub fn driving_rows(&self, slots: &[Slot]) -> Result<RecordBatch> {
        self.driving.get(slots.iter().map(|slot| Some(*slot)))
    }

    /// True where the driving table has a row of this slot.
    pub fn has(&self, slot: Slot) -> bool {
        self.driving.has(slot)
    }

    /// Of `slots` of the driving table, those that have a joined row, with these rows.
    ///
    /// # Errors
    /// As [`Rows::get`].
    pub fn joined(&mut self, slots: &[Slot]) -> Result<(Vec<Slot>, RecordBatch)> {
        self.lookups.iter_mut().try_for_each(Looked::settle)?;
        let own: Vec<Option<Slot>> = slots.iter().map(|slot| Some(*slot)).collect();
        let mut found: Vec<Vec<Option<Slot>>> = Vec::with_capacity(self.lookups.len());
        for looked in &self.lookups {
            let slots_of = |side| match side {
                Side::Driving => own.as_slice(),
                Side::Lookup(number) => found.get(number).map(Vec::as_slice).unwrap_or_default(),
            };
            let from = slots_of(looked.from);
            let to = match &looked.finding {
                Finding::AsOf(_, side, name) => {
                    let times = self.times_of(*side, slots_of(*side), name)?;
                    let at = |(from, time): (&Option<Slot>, Option<i64>)| looked.found((*from)?, Some(time?));
                    from.iter().zip(times).map(at).collect()
                }
                Finding::Key | Finding::Group(_) => from.iter().map(|from| looked.found((*from)?, None)).collect(),
            };
            found.push(to);
        }
        let is_whole = |at: usize| {
            let required = self.lookups.iter().zip(&found).filter(|(looked, _)| looked.required);
            required.into_iter().all(|(_, found)| found.get(at).is_some_and(Option::is_some))
        };
        let kept: Vec<usize> = (0..slots.len())
            .filter(|at| slots.get(*at).is_some_and(|slot| self.driving.has(*slot)) && is_whole(*at))
            .collect();
        let own: Vec<Slot> = kept.iter().filter_map(|at| slots.get(*at).copied()).collect();
        let mut columns = self.driving.get(own.iter().map(|slot| Some(*slot)))?.columns().to_vec();
        for (looked, found) in self.lookups.iter().zip(&found) {
            let rows = looked.rows.get(kept.iter().map(|at| found.get(*at).copied().flatten()))?;
            columns.extend(rows.columns().iter().cloned());
        }
        let rows = RecordBatch::try_new(SchemaRef::clone(&self.columns), columns)
            .map_err(|e| Error::new(ErrorKind::Internal, "joined rows do not fit together").caused_by(e))?;
        Ok((own, rows))
    }

    /// Driving slots that have a row.
    pub fn slots(&self) -> Vec<Slot> {
        self.driving.slots().collect()
    }

    /// Driving slots with a row whose key has a number, of [`crate::lake::owners_of`], that is asked for.
    pub fn slots_where(&self, is_asked: impl Fn(u128) -> bool) -> Vec<Slot> {
        self.driving.slots_where(is_asked)
    }

    /// Bytes that the state takes.
    pub fn bytes(&self) -> usize {
        self.driving.size().1 + self.lookups.iter().map(Looked::bytes).sum::<usize>()
    }

    /// The times that a column of rows of a side holds, microseconds since 1970; none where there is no row, or no time.
    fn times_of(&self, side: Side, slots: &[Option<Slot>], name: &str) -> Result<Vec<Option<i64>>> {
        let rows = match side {
            Side::Driving => Some(&self.driving),
            Side::Lookup(number) => self.lookups.get(number).map(|looked| &looked.rows),
        };
        let Some(rows) = rows else { return Ok(vec![None; slots.len()]) };
        let times = column(&rows.get(slots.iter().copied())?, name)?;
        let unfit = |e| Error::new(ErrorKind::Config, format!("`{name}` is no time")).caused_by(e);
        let times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(unfit)?;
        Ok(times.as_primitive::<TimestampMicrosecondType>().iter().collect())
    }

    fn rows_mut(&mut self, side: Side) -> Result<&mut Rows> {
        match side {
            Side::Driving => Ok(&mut self.driving),
            Side::Lookup(number) => match self.lookups.get_mut(number) {
                Some(looked) => Ok(&mut looked.rows),
                None => Err(Error::new(ErrorKind::Internal, format!("there is no lookup {number}"))),
            },
        }
    }

    /// The slots that others lead to, for rows of a side: of a lookup by other columns than its key their groups.
    fn leading_slots(&self, side: Side, rows: Vec<Slot>) -> Vec<Slot> {
        let Side::Lookup(number) = side else { return rows };
        match self.lookups.get(number).map(|looked| &looked.finding) {
            Some(Finding::Group(groups)) => rows.into_iter().filter_map(|row| groups.of(row)).collect(),
            Some(Finding::AsOf(versions, ..)) => rows.into_iter().filter_map(|row| versions.of(row)).collect(),
            Some(Finding::Key) | None => rows,
        }
    }

    /// Goes from what is led to on a side to the driving rows that lead there.
    fn touch(&self, side: Side, targets: Vec<Slot>, touched: &mut HashSet<Slot>) {
        let (mut side, mut targets) = (side, targets);
        while let Side::Lookup(number) = side {
            let Some(looked) = self.lookups.get(number) else { return };
            let rows = targets.iter().flat_map(|to| looked.edges.leading_to(*to)).collect();
            side = looked.from;
            targets = self.leading_slots(side, rows);
        }
        touched.extend(targets);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Array, Int64Array};
    use arrow::datatypes::Int64Type;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::super::{Groups, Versions};
    use super::*;

    type Model = BTreeMap<i64, (Option<i64>, i64)>;

    /// Every table of this test: a key, a foreign key, a value.
    fn columns() -> SchemaRef {
        let field = |name: &str| Field::new(name, DataType::Int64, true);
        Arc::new(Schema::new(vec![field("id"), field("other"), field("v")]))
    }

    fn batch(rows: &[(i64, (Option<i64>, i64))]) -> RecordBatch {
        let ids = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
        let others = Int64Array::from_iter(rows.iter().map(|r| r.1.0));
        let values = Int64Array::from_iter_values(rows.iter().map(|r| r.1.1));
        RecordBatch::try_new(columns(), vec![Arc::new(ids), Arc::new(others), Arc::new(values)]).unwrap()
    }

    /// items → orders → customers, and items → the newest note of their order → the customer it names.
    fn join(required: bool) -> Join {
        let rows = || Rows::new(&columns(), &["id".to_owned()]);
        let on = ["other".to_owned()];
        let orders = Looked::new("orders", Side::Driving, &on, required, rows(), Finding::Key);
        let customers = Looked::new("customers", Side::Lookup(0), &on, false, rows(), Finding::Key);
        let groups = Groups::new(&on, &["v".to_owned()], &rows()).unwrap();
        let notes = Looked::new("notes", Side::Driving, &on, false, rows(), Finding::Group(groups));
        let authors = Looked::new("authors", Side::Lookup(2), &["v".to_owned()], false, rows(), Finding::Key);
        Join::new(rows(), vec![orders, customers, notes, authors])
    }

    type Told = BTreeMap<i64, [Option<i64>; 5]>;

    /// id of the item, its value, those of its order, the order's customer, the newest note, the customer it names.
    fn told(rows: &RecordBatch) -> Told {
        let value = |name: &str, row: usize| {
            let column = rows.column_by_name(name).unwrap().as_primitive::<Int64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        let one = |row| {
            (
                value("id", row).unwrap(),
                ["v", "orders.v", "customers.v", "notes.id", "authors.id"].map(|name| value(name, row)),
            )
        };
        (0..rows.num_rows()).map(one).collect()
    }

    fn wanted(model: &[Model; 5], required: bool) -> Told {
        let [items, orders, customers, notes, authors] = model;
        let one = |(id, (order_id, v)): (&i64, &(Option<i64>, i64))| {
            let order = order_id.and_then(|order| orders.get(&order));
            let customer = order.and_then(|(customer, _)| customers.get(&(*customer)?));
            let of_order = notes.iter().filter(|(_, (other, _))| other.is_some() && other == order_id);
            let note = of_order.max_by_key(|(id, (_, v))| (*v, **id));
            let author = note.and_then(|(_, (_, v))| authors.get_key_value(v)).map(|(id, _)| *id);
            let found = [Some(*v), order.map(|o| o.1), customer.map(|c| c.1), note.map(|n| *n.0), author];
            (order.is_some() || !required).then_some((*id, found))
        };
        items.iter().filter_map(one).collect()
    }

    #[test]
    fn what_is_touched_is_all_that_differs_whatever_comes_first() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for required in [false, true] {
            let (mut join, mut model) = (join(required), [(); 5].map(|()| Model::new()));
            let mut output = BTreeMap::new();
            for step in 0..400 {
                let mut touched = HashSet::new();
                for _ in 0..rng.random_range(1..4) {
                    let at = rng.random_range(0..5);
                    let side = if at == 0 { Side::Driving } else { Side::Lookup(at - 1) };
                    let ids = [60, 20, 8, 50, 6][at];
                    let leads_to = [20, 8, 8, 20, 8][at];
                    let (mut went, mut came) = (Model::new(), Model::new());
                    for _ in 0..rng.random_range(1..6) {
                        let id = rng.random_range(0..ids);
                        let other = rng.random_bool(0.9).then(|| rng.random_range(0..leads_to));
                        went.extend(model[at].get(&id).map(|had| (id, *had)));
                        if rng.random_bool(0.7) {
                            came.insert(id, (other, rng.random_range(0..9)));
                        }
                    }
                    model[at].retain(|id, _| !went.contains_key(id));
                    model[at].extend(came.clone());
                    let [went, came] = [went, came].map(|some| batch(&some.into_iter().collect::<Vec<_>>()));
                    join.take_in(side, &[went], &[came], &mut touched).unwrap();
                }
                // only what is touched is looked at again
                let slots: Vec<Slot> = touched.into_iter().collect();
                let (has, rows) = join.joined(&slots).unwrap();
                let rows = told(&rows);
                for slot in slots.iter().filter(|slot| !has.contains(slot)) {
                    output.remove(slot);
                }
                for (slot, row) in has.iter().zip(told_in_order(&mut join, &has)) {
                    assert_eq!(rows.get(&row.0), Some(&row.1));
                    output.insert(*slot, row);
                }
                let all: BTreeMap<_, _> = output.values().copied().collect();
                assert_eq!(all, wanted(&model, required), "seed {seed}, step {step}, required: {required}");
            }
        }
    }

    /// A feed: key, sequence, kind, time in microseconds, value.
    fn feed(rows: &[(Option<i64>, i128, &str, i64, i64)]) -> RecordBatch {
        use arrow::array::{Decimal128Array, StringArray, TimestampMicrosecondArray};
        let ids = Int64Array::from_iter(rows.iter().map(|r| r.0));
        let seqs = Decimal128Array::from_iter_values(rows.iter().map(|r| r.1)).with_precision_and_scale(38, 0).unwrap();
        let kinds = StringArray::from_iter_values(rows.iter().map(|r| r.2));
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.3)).with_timezone("UTC");
        let values = Int64Array::from_iter_values(rows.iter().map(|r| r.4));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(ids)),
            ("_seq", Arc::new(seqs)),
            ("_change", Arc::new(kinds)),
            ("_source_ts", Arc::new(times)),
            ("v", Arc::new(values)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn what_was_in_force_is_found_whatever_comes_late() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let names = super::super::FeedColumns {
            change: "_change".to_owned(),
            seq: "_seq".to_owned(),
            time: "_source_ts".to_owned(),
        };
        let versions = Versions::new(&["id".to_owned()], names);
        let rows = Rows::new(&feed(&[]).schema(), &["id".to_owned(), "_seq".to_owned()]);
        let driving = Rows::new(&items_of(&[]).schema(), &["id".to_owned()]);
        let finding = Finding::AsOf(versions, Side::Driving, "made".to_owned());
        let on = ["other".to_owned()];
        let mut join = Join::new(driving, vec![Looked::new("then", Side::Driving, &on, false, rows, finding)]);
        let (mut items, mut changes) = (BTreeMap::<i64, (i64, i64)>::new(), Vec::new());
        let mut output: BTreeMap<Slot, (i64, Option<i64>)> = BTreeMap::new();
        let mut seqs: Vec<i128> = (1..400).collect();
        for step in 0..150 {
            let mut touched = HashSet::new();
            if rng.random_bool(0.5) {
                let (id, item) = (rng.random_range(0..30), (rng.random_range(0..6), rng.random_range(0..400)));
                let went: Vec<RecordBatch> = items.get(&id).map(|had| items_of(&[(id, *had)])).into_iter().collect();
                items.insert(id, item);
                join.take_in(Side::Driving, &went, &[items_of(&[(id, item)])], &mut touched).unwrap();
            } else {
                let seq = seqs.swap_remove(rng.random_range(0..seqs.len()));
                let kind = ["insert", "update", "update", "delete", "truncate"][rng.random_range(0..5)];
                let key = (kind != "truncate").then(|| rng.random_range(0..6));
                // clocks go about with the order, and sometimes back
                let at = seq as i64 + rng.random_range(-3..=0);
                changes.push((key, seq, kind, at, step));
                join.take_in(Side::Lookup(0), &[], &[feed(&changes[changes.len() - 1..])], &mut touched).unwrap();
            }
            let slots: Vec<Slot> = touched.into_iter().collect();
            let (has, rows) = join.joined(&slots).unwrap();
            let value = |name: &str, row: usize| {
                let column = rows.column_by_name(name).unwrap().as_primitive::<Int64Type>();
                column.is_valid(row).then(|| column.value(row))
            };
            for (row, slot) in has.iter().enumerate() {
                output.insert(*slot, (value("id", row).unwrap(), value("then.v", row)));
            }
            let all: BTreeMap<i64, Option<i64>> = output.values().copied().collect();
            let wanted = items.iter().map(|(id, (other, made))| (*id, in_force(&changes, *other, *made)));
            assert_eq!(all, wanted.collect(), "seed {seed}, step {step}");
        }
    }

    /// The value of a key's version at a time, by looking at all changes.
    fn in_force(changes: &[(Option<i64>, i128, &str, i64, i64)], key: i64, time: i64) -> Option<i64> {
        let mut own: Vec<_> = changes.iter().filter(|c| c.0.is_none_or(|of| of == key)).collect();
        own.sort_by_key(|change| change.1);
        let stays = |kind: &str| !matches!(kind, "delete" | "truncate");
        let first = own.iter().find(|c| stays(c.2)).map(|c| (c.1, c.4))?;
        // what was truncated before there was a row says nothing
        own.retain(|c| c.0.is_some() || c.1 > first.0);
        let mut clock = i64::MIN;
        let mut found = None;
        for change in own {
            clock = clock.max(change.3);
            if clock > time {
                break;
            }
            found = Some(stays(change.2).then_some(change.4));
        }
        found.unwrap_or(Some(first.1))
    }

    fn items_of(rows: &[(i64, (i64, i64))]) -> RecordBatch {
        use arrow::array::TimestampMicrosecondArray;
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let others: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1.0)));
        let made: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1.1)));
        RecordBatch::try_from_iter([("id", ids), ("other", others), ("made", made)]).unwrap()
    }

    fn told_in_order(join: &mut Join, slots: &[Slot]) -> Vec<(i64, [Option<i64>; 5])> {
        let one = |slot: &Slot| told(&join.joined(&[*slot]).unwrap().1).into_iter().next().unwrap();
        slots.iter().map(one).collect()
    }
}
