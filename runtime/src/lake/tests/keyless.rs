//! Random rows of a table without key against a plain multiset.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::model::{Event, Fate, Source, fate, foreign_optimize, seeds, settings, transform};
use super::*;
use crate::model::change::Floor;

/// Rows of the source, each with its events in order; every row's deletes and inserts may come in any order.
#[derive(Default)]
pub(super) struct Model {
    floor: u128,
    seen: BTreeMap<(u128, char), ()>,
    /// events that count, by image: (sequence, +1 or -1)
    events: BTreeMap<(i64, u64), Vec<(u128, i64)>>,
}

impl Model {
    pub(super) fn apply(&mut self, events: &[(usize, i64, Event)], positions: &crate::model::positions::Positions) {
        let fresh: Vec<_> = events
            .iter()
            .filter(|(p, offset, _)| positions.get(partition(*p as i32)).is_none_or(|at| *offset >= at))
            .collect();
        let newest =
            fresh.iter().filter_map(|(_, _, e)| if let Event::Truncate(seq) = e { Some(*seq) } else { None }).max();
        if let Some(floor) = newest.filter(|seq| *seq > self.floor) {
            self.floor = floor;
            for all in self.events.values_mut() {
                all.retain(|(seq, _)| *seq >= floor);
            }
        }
        for (_, _, event) in fresh {
            let Event::Change(id, n, op, seq) = event else { continue };
            if *seq < self.floor
                || (*op != Op::Read && self.seen.insert((*seq, op.letter().chars().next().unwrap()), ()).is_some())
            {
                continue;
            }
            let by = if *op == Op::Delete { -1 } else { 1 };
            self.events.entry((*id, *n)).or_default().push((*seq, by));
        }
    }

    pub(super) fn sorted(&self) -> Vec<(i64, String)> {
        let mut rows = Vec::new();
        for ((id, n), all) in &self.events {
            let mut all = all.clone();
            all.sort_unstable();
            // in the source's order; a delete before its insert takes nothing yet
            let count = all.iter().fold(0, |count: i64, (_, by)| (count + by).max(0));
            if matches!(fate(*n, true), Fate::Copied) {
                rows.extend((0..count).map(|_| (*id, format!("n{n}"))));
            }
        }
        rows.sort();
        rows
    }
}

/// Who writes to a source table without a key.
pub(super) struct Writer {
    next: u128,
    /// sequence of the snapshot under way
    snapshot: u128,
    alive: Vec<(i64, u64)>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { next: 4, snapshot: 3, alive: Vec::new() }
    }
}

impl Writer {
    /// Inserts, deletes, truncates and new snapshots; a row is deleted once at most, and some records come twice, in
    /// any partition.
    pub(super) fn write(&mut self, source: &mut Source, rng: &mut StdRng, count: usize) {
        for _ in 0..count {
            self.next += 4;
            let event = match rng.random_range(0..100) {
                0..3 => {
                    self.alive.clear();
                    Event::Truncate(self.next)
                }
                3..5 => {
                    self.snapshot = self.next;
                    continue;
                }
                5..40 if !self.alive.is_empty() => {
                    let (id, n) = self.alive.swap_remove(rng.random_range(0..self.alive.len()));
                    Event::Change(id, n, Op::Delete, self.next)
                }
                at => {
                    let (id, n) = (rng.random_range(0..3), rng.random_range(0..source.values));
                    self.alive.push((id, n));
                    // snapshot rows share their sequence
                    let (op, seq) = if at >= 85 { (Op::Read, self.snapshot) } else { (Op::Create, self.next) };
                    Event::Change(id, n, op, seq)
                }
            };
            let partitions = source.log.len();
            if rng.random_bool(0.1) && !matches!(event, Event::Change(_, _, Op::Read, _)) {
                source.log[rng.random_range(0..partitions)].push(event.clone());
            }
            source.log[rng.random_range(0..partitions)].push(event);
        }
    }
}

async fn run(seed: u64, steps: usize) {
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let location = root.table("silver/lines").unwrap();
    let spec = TableSpec {
        name: "silver/lines".into(),
        fields: fields(),
        key: vec![],
        renamed: 0,
        generation: 0,
        partition_by: vec![],
        freshness: Freshness::Newer,
    };
    let open = || KeyedTable::open_or_create(location.clone(), spec.clone(), settings());
    let mut table = open().await.unwrap();
    let mut source = Source::new(12, 3);
    let mut writer = Writer::default();
    let mut model = Model::default();
    for step in 0..steps {
        let wrote = rng.random_range(5..30);
        writer.write(&mut source, &mut rng, wrote);
        let (events, covered) = super::model::deliver(&mut rng, &source, table.positions());
        let (changes, floors): (_, Vec<Floor>) = super::model::parts(&events, vec![]);
        let before = table.positions().clone();
        let selection = table.select(&changes, &floors).unwrap();
        let (output, sources, rejected) = transform(selection.upserts(), true);
        let compaction = if rng.random_bool(0.3) { table.plan_compaction(Pace::Steady) } else { None };
        table.replace(given(&selection, &output, &sources, &rejected), &covered, Map::new()).await.unwrap();
        model.apply(&events, &before);
        let expected = model.sorted();
        assert_eq!(rows(&location).await, expected, "seed {seed} step {step}: after the flush");
        if let Some(compaction) = compaction {
            let rewritten = compaction.rewrite().await.unwrap();
            table.commit_compaction(rewritten).await.unwrap();
        }
        match rng.random_range(0..100) {
            0..25 => {
                table.maintain().await.unwrap();
            }
            25..50 => table = open().await.unwrap(),
            50..60 => foreign_optimize(&location).await,
            _ => {}
        }
        assert_eq!(rows(&location).await, expected, "seed {seed} step {step}: after maintenance");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_key_equals_a_multiset_whatever_happens() {
    for seed in seeds(4) {
        run(seed, 40).await;
    }
}
