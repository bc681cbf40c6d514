//! Random changes against a plain map.

use std::num::NonZeroU64;
use std::time::Duration;

use arrow::array::{Decimal128Array, TimestampMicrosecondArray};
use deltalake::protocol::SaveMode;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::model::change::Floor;
use crate::model::positions::Origin;

const PARTITIONS: usize = 3;

#[derive(Clone)]
pub(super) enum Event {
    Change(i64, u64, Op, u128),
    Truncate(u128),
}

/// What the transform of these tests does with a value.
pub(super) enum Fate {
    Filtered,
    Twice,
    Rejected,
    Copied,
}

pub(super) fn fate(n: u64, keyless: bool) -> Fate {
    match n % 10 {
        0 => Fate::Filtered,
        1 if !keyless => Fate::Twice,
        2 => Fate::Rejected,
        _ => Fate::Copied,
    }
}

/// The source: partitions of a topic that grow.
pub(super) struct Source {
    pub(super) log: Vec<Vec<Event>>,
    next: u128,
    pub(super) values: u64,
    ids: i64,
}

impl Source {
    pub(super) fn new(values: u64, ids: i64) -> Self {
        Source { log: vec![Vec::new(); PARTITIONS], next: 4, values, ids }
    }

    fn place(&mut self, rng: &mut StdRng, event: Event) {
        self.log[rng.random_range(0..PARTITIONS)].push(event);
    }

    /// Somebody writes to the source's database.
    pub(super) fn write(&mut self, rng: &mut StdRng, count: usize) {
        for _ in 0..count {
            self.next += 4;
            let id = rng.random_range(0..self.ids);
            let n = rng.random_range(0..self.values);
            match rng.random_range(0..100) {
                0..60 => self.place(rng, Event::Change(id, n, Op::Update, self.next + 1)),
                60..70 => self.place(rng, Event::Change(id, n, Op::Create, self.next + 1)),
                70..90 => self.place(rng, Event::Change(id, n, Op::Delete, self.next + 1)),
                90..98 => {
                    // a key change
                    let to = rng.random_range(0..self.ids);
                    self.place(rng, Event::Change(id, n, Op::Delete, self.next));
                    self.place(rng, Event::Change(to, n, Op::Create, self.next + 1));
                }
                _ => self.place(rng, Event::Truncate(self.next + 1)),
            }
        }
    }
}

/// Some records past the positions, with a few before them again.
pub(super) fn deliver(
    rng: &mut StdRng,
    source: &Source,
    positions: &crate::model::positions::Positions,
) -> (Vec<(usize, i64, Event)>, Ranges) {
    let mut events = Vec::new();
    let mut covered = Ranges::new();
    for (number, log) in source.log.iter().enumerate() {
        let at = positions.get(partition(number as i32)).unwrap_or(0);
        let from = (at - rng.random_range(0..4)).max(0);
        let to = (at + rng.random_range(0..12)).min(log.len() as i64);
        if to <= from {
            continue;
        }
        covered.add(partition(number as i32), Range { from, to });
        for offset in from..to {
            events.push((number, offset, log[offset as usize].clone()));
        }
    }
    (events, covered)
}

pub(super) fn parts(events: &[(usize, i64, Event)], key: Vec<usize>) -> (Vec<Changes>, Vec<Floor>) {
    let mut rows = Vec::new();
    let mut floors = Vec::new();
    for (number, offset, event) in events {
        match event {
            Event::Change(id, n, op, seq) => rows.push((*id, format!("n{n}"), *op, *seq, *number as i32, *offset)),
            Event::Truncate(seq) => floors.push(Floor {
                sequence: Sequence(*seq),
                origin: Origin { input: partition(*number as i32).into(), offset: *offset },
            }),
        }
    }
    let (a, b) = rows.split_at(rows.len() / 2);
    (vec![changes(a, key.clone()), changes(b, key)], floors)
}

/// Output rows, their source rows, rejected rows.
pub(super) fn transform(input: &RecordBatch, keyless: bool) -> (RecordBatch, Vec<u32>, Vec<u32>) {
    let (mut ids, mut values, mut sources, mut rejected) = (vec![], vec![], vec![], vec![]);
    if input.num_columns() == 0 {
        return (RecordBatch::new_empty(fields()), sources, rejected);
    }
    let (in_ids, in_values) = (input.column(0).as_primitive::<Int64Type>(), input.column(1).as_string::<i32>());
    for row in 0..input.num_rows() {
        let (id, v) = (in_ids.value(row), in_values.value(row));
        let n: u64 = v[1..].parse().unwrap();
        let mut put = |v: String| {
            ids.push(id);
            values.push(v);
            sources.push(row as u32);
        };
        match fate(n, keyless) {
            Fate::Filtered => {}
            Fate::Rejected => rejected.push(row as u32),
            Fate::Copied => put(v.to_string()),
            Fate::Twice => {
                put(format!("{v}a"));
                put(format!("{v}b"));
            }
        }
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids)), Arc::new(StringArray::from(values))];
    (RecordBatch::try_new(fields(), columns).unwrap(), sources, rejected)
}

#[derive(Default)]
struct Model {
    known: BTreeMap<i64, u128>,
    rows: BTreeMap<i64, Vec<String>>,
    floor: u128,
}

impl Model {
    fn apply(&mut self, events: &[(usize, i64, Event)], positions: &crate::model::positions::Positions) {
        let fresh: Vec<_> = events
            .iter()
            .filter(|(p, offset, _)| positions.get(partition(*p as i32)).is_none_or(|at| *offset >= at))
            .collect();
        let newest =
            fresh.iter().filter_map(|(_, _, e)| if let Event::Truncate(seq) = e { Some(*seq) } else { None }).max();
        if let Some(floor) = newest.filter(|seq| *seq > self.floor) {
            self.floor = floor;
            self.rows.retain(|id, _| self.known.get(id).is_some_and(|seq| *seq >= floor));
            self.known.retain(|_, seq| *seq >= floor);
        }
        let floor = self.floor;
        let mut best: BTreeMap<i64, (u128, u64, Op)> = BTreeMap::new();
        for (_, _, event) in fresh {
            let Event::Change(id, n, op, seq) = event else { continue };
            let newest = best.get(id).map(|b| b.0).or(self.known.get(id).copied());
            if *seq >= floor && newest.is_none_or(|newest| *seq > newest) {
                best.insert(*id, (*seq, *n, *op));
            }
        }
        for (id, (seq, n, op)) in best {
            let rows = match (op, fate(n, false)) {
                (Op::Delete, _) | (_, Fate::Filtered) => vec![],
                (_, Fate::Rejected) => continue,
                (_, Fate::Copied) => vec![format!("n{n}")],
                (_, Fate::Twice) => vec![format!("n{n}a"), format!("n{n}b")],
            };
            self.known.insert(id, seq);
            self.rows.insert(id, rows);
        }
    }

    fn sorted(&self) -> Vec<(i64, String)> {
        let mut rows: Vec<_> = self.rows.iter().flat_map(|(id, all)| all.iter().map(|v| (*id, v.clone()))).collect();
        rows.sort();
        rows
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        inline_vector_bytes: 40,
        small_file_bytes: 1 << 20,
        small_files_min: 3,
        checkpoint_every: 5,
        owners_files_max: 2,
        vacuum_retention: Duration::ZERO,
        ..Settings::default()
    }
}

pub(super) async fn delta(location: &Location) -> deltalake::DeltaTable {
    let mut table = deltalake::DeltaTable::new(location.log_store().unwrap());
    table.load().await.unwrap();
    table
}

pub(super) async fn foreign_optimize(location: &Location) {
    let target = NonZeroU64::new(1 << 24).unwrap();
    delta(location).await.optimize().with_target_size(target).await.unwrap();
}

pub(super) async fn foreign_delete(location: &Location, k: i64) {
    delta(location).await.delete().with_predicate(format!("id % 7 = {k}")).await.unwrap();
}

pub(super) async fn foreign_append(location: &Location, rows: &[(i64, String)]) {
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("v", DataType::Utf8, true),
        Field::new("_seq", DataType::Decimal128(38, 0), true),
        Field::new("_source_ts", utc, true),
    ]));
    let none: Vec<Option<i128>> = vec![None; rows.len()];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1.as_str()))),
        Arc::new(Decimal128Array::from(none).with_precision_and_scale(38, 0).unwrap()),
        Arc::new(TimestampMicrosecondArray::from(vec![None; rows.len()]).with_timezone("UTC")),
    ];
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    delta(location).await.write([batch]).with_save_mode(SaveMode::Append).await.unwrap();
}

pub(super) fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("TABLE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..count).map(|_| rand::random::<u32>() as u64).collect(),
    }
}

async fn run(seed: u64, steps: usize) {
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let open = || KeyedTable::open_or_create(location.clone(), spec(), settings());
    let mut table = open().await.unwrap();
    let mut source = Source::new(100, 40);
    let mut model = Model::default();
    // what others did is followed before a restart: until a commit of ours, only memory knows it
    let mut restart_due = false;
    let mut foreign = false;
    for step in 0..steps {
        let wrote = rng.random_range(5..30);
        source.write(&mut rng, wrote);
        let (events, covered) = deliver(&mut rng, &source, table.positions());
        let (changes, floors) = parts(&events, vec![0]);
        let compaction = if rng.random_bool(0.3) { table.plan_compaction(Pace::Steady) } else { None };
        let rewritten = match compaction {
            Some(compaction) => Some(compaction.rewrite().await.unwrap()),
            None => None,
        };
        let before = table.positions().clone();
        let selection = table.select(&changes, &floors).unwrap();
        let (output, sources, rejected) = transform(selection.upserts(), false);
        let outcome =
            table.replace(given(&selection, &output, &sources, &rejected), &covered, Map::new()).await.unwrap();
        let moved = covered.iter().any(|(p, range)| before.get(p).is_none_or(|at| at < range.to));
        assert_eq!(matches!(outcome, Outcome::Committed { .. }), moved || covered.is_empty(), "{outcome:?}");
        model.apply(&events, &before);
        foreign &= !moved;
        let expected = model.sorted();
        assert_eq!(rows(&location).await, expected, "seed {seed} step {step}: after the flush");
        if let Some(rewritten) = rewritten {
            table.commit_compaction(rewritten).await.unwrap();
            assert_eq!(rows(&location).await, expected, "seed {seed} step {step}: after a compaction beside it");
        }
        match rng.random_range(0..100) {
            0..20 => {
                table.maintain().await.unwrap();
            }
            20..35 => restart_due = true,
            35..45 => foreign_optimize(&location).await,
            45..52 => {
                let k = rng.random_range(0..7);
                foreign_delete(&location, k).await;
                for (_, rows) in model.rows.iter_mut().filter(|(id, _)| *id % 7 == k) {
                    rows.clear();
                }
                foreign = true;
            }
            52..59 => {
                let ids: Vec<i64> = (0..40).collect();
                let new: Vec<_> = ids.choose_multiple(&mut rng, 3).map(|id| (*id, format!("f{step}"))).collect();
                foreign_append(&location, &new).await;
                for (id, v) in new {
                    model.known.entry(id).or_insert(0);
                    model.rows.entry(id).or_default().push(v);
                }
            }
            59..65 => {
                table.refresh().await.unwrap();
            }
            _ => {}
        }
        assert_eq!(rows(&location).await, model.sorted(), "seed {seed} step {step}: after maintenance");
        if restart_due && !foreign {
            restart_due = false;
            table = open().await.unwrap();
        }
    }
    assert_eq!(rows_by_polars(&location), model.sorted(), "seed {seed}: read by Polars");
}

/// `id` and `v` of every row, read by Polars, an engine that shares no code with ours.
pub(super) fn rows_by_polars(location: &Location) -> Vec<(i64, String)> {
    let python = std::env::var("LODE_PYTHON").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        let cache = std::env::var("LODE_CACHE").unwrap_or_else(|_| format!("{home}/.cache/lodestream"));
        format!("{cache}/venv/bin/python")
    });
    let script = "import polars, sys, json\n\
        for row in polars.scan_delta(sys.argv[1]).select('id', 'v').collect().iter_rows(): print(json.dumps(row))";
    let folder = location.url().to_file_path().unwrap();
    let output = std::process::Command::new(&python)
        .args(["-c", script])
        .arg(&folder)
        .output()
        .unwrap_or_else(|e| panic!("`{python}`: {e}; hint: `make setup` installs the second reader"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut rows: Vec<(i64, String)> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_table_equals_a_map_whatever_happens() {
    for seed in seeds(2) {
        run(seed, 40).await;
    }
}
