//! A feed against a plain list of every change, and its fold against the table.

use arrow::datatypes::Decimal128Type;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::model::{Event, Fate, Source, deliver, fate, foreign_optimize, parts, seeds, transform};
use super::*;
use crate::model::positions::Positions;

/// As for other tables, but an instance that is behind may still read what another has compacted away.
fn settings() -> Settings {
    Settings { vacuum_retention: std::time::Duration::from_secs(3600), ..super::model::settings() }
}

/// `_change`, id, value, `_seq`
type FeedRow = (String, Option<i64>, Option<String>, u128);

async fn feed_rows(location: &Location) -> Vec<FeedRow> {
    let sql = "SELECT CAST(_change AS VARCHAR) AS c, id, CAST(v AS VARCHAR) AS v, _seq FROM t";
    let mut rows = Vec::new();
    for batch in query(location, sql).await {
        let text = |at: usize| arrow::compute::cast(batch.column(at), &DataType::Utf8).unwrap();
        let (words, values) = (text(0), text(2));
        let (words, values) = (words.as_string::<i32>(), values.as_string::<i32>());
        let ids = batch.column(1).as_primitive::<Int64Type>();
        let seqs = batch.column(3).as_primitive::<Decimal128Type>();
        for row in 0..batch.num_rows() {
            rows.push((
                words.value(row).to_string(),
                ids.is_valid(row).then(|| ids.value(row)),
                values.is_valid(row).then(|| values.value(row).to_string()),
                seqs.value(row) as u128,
            ));
        }
    }
    rows.sort();
    rows
}

/// The rule that the feed's readers are told.
fn fold(feed: &[FeedRow]) -> Vec<(i64, String)> {
    let floor = feed.iter().filter(|row| row.0 == "truncate").map(|row| row.3).max().unwrap_or(0);
    let mut newest: BTreeMap<i64, u128> = BTreeMap::new();
    for (_, id, _, seq) in feed {
        let Some(id) = id else { continue };
        let known = newest.entry(*id).or_default();
        *known = (*known).max(*seq);
    }
    let mut rows = Vec::new();
    for (word, id, value, seq) in feed {
        let Some(id) = id else { continue };
        if word != "delete" && newest[id] == *seq && *seq >= floor {
            rows.push((*id, value.clone().unwrap()));
        }
    }
    rows.sort();
    rows
}

/// Every change once.
#[derive(Default)]
struct Model {
    changes: BTreeMap<(i64, u128), (Op, u64)>,
    truncates: std::collections::BTreeSet<u128>,
}

impl Model {
    fn apply(&mut self, events: &[(usize, i64, Event)], positions: &Positions) {
        for (number, offset, event) in events {
            if positions.get(partition(*number as i32)).is_some_and(|at| *offset < at) {
                continue;
            }
            match event {
                Event::Change(id, n, op, seq) => {
                    self.changes.entry((*id, *seq)).or_insert((*op, *n));
                }
                Event::Truncate(seq) => {
                    self.truncates.insert(*seq);
                }
            }
        }
    }

    fn rows(&self) -> Vec<FeedRow> {
        let mut rows: Vec<FeedRow> =
            self.truncates.iter().map(|seq| ("truncate".to_string(), None, None, *seq)).collect();
        for ((id, seq), (op, n)) in &self.changes {
            let word = if *op == Op::Create { "insert" } else { "update" };
            let mut put = |word: &str, value: Option<String>| rows.push((word.to_string(), Some(*id), value, *seq));
            match (op, fate(*n, false)) {
                (Op::Delete, _) | (_, Fate::Filtered) => put("delete", None),
                (_, Fate::Rejected) => {}
                (_, Fate::Copied) => put(word, Some(format!("n{n}"))),
                (_, Fate::Twice) => ["a", "b"].into_iter().for_each(|end| put(word, Some(format!("n{n}{end}")))),
            }
        }
        rows.sort();
        rows
    }
}

pub(super) struct Instance {
    pub(super) table: KeyedTable,
    pub(super) feed: ChangesTable,
}

pub(super) async fn try_open(root: &Location, settings: Settings) -> Result<Instance> {
    let table = KeyedTable::open_or_create(root.table("silver/orders")?, spec(), settings).await?;
    let feed = ChangesTable::open_or_create(root.table("silver/orders_changes")?, "silver/orders_changes", &table);
    Ok(Instance { feed: feed.await?, table })
}

async fn open(root: &Location) -> Instance {
    try_open(root, settings()).await.unwrap()
}

/// Fails unless the feed holds each change of `source` once and folds to the table.
pub(super) async fn expect_each_once(root: &Location, source: &Source) {
    let mut model = Model::default();
    for (number, log) in source.log.iter().enumerate() {
        let events: Vec<_> = log.iter().enumerate().map(|(at, event)| (number, at as i64, event.clone())).collect();
        model.apply(&events, &Positions::new());
    }
    let feed = feed_rows(&root.table("silver/orders_changes").unwrap()).await;
    assert_eq!(feed, model.rows());
    assert_eq!(fold(&feed), rows(&root.table("silver/orders").unwrap()).await);
}

impl Instance {
    /// One flush up to the table's commit; the feed is not completed yet.
    async fn flush(&mut self, events: &[(usize, i64, Event)], covered: &Ranges) -> Outcome {
        self.try_flush(events, covered).await.unwrap()
    }

    pub(super) async fn try_flush(&mut self, events: &[(usize, i64, Event)], covered: &Ranges) -> Result<Outcome> {
        let (changes, floors) = parts(events, vec![0]);
        let news = self.feed.select(&self.table, &changes, &floors).await?;
        let (output, sources, rejected) = transform(news.all().upserts(), false);
        let files = self.feed.write(&news, &output, Some(&sources), &rejected).await?;
        let settled = news.newest(&self.table, &output, Some(&sources), &rejected)?;
        let info = Map::from_iter([("feed".to_string(), files)]);
        self.table.replace(settled.rows(), covered, info).await.map(version_of)
    }
}

/// Some of the records come again, in any partition.
pub(super) fn repeat_some(source: &mut Source, rng: &mut StdRng) {
    for _ in 0..rng.random_range(0..6) {
        let from = rng.random_range(0..source.log.len());
        let Some(event) = source.log[from].choose(rng).cloned() else { continue };
        let to = rng.random_range(0..source.log.len());
        source.log[to].push(event);
    }
}

async fn run(seed: u64, steps: usize) {
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let (silver, changes) = (root.table("silver/orders").unwrap(), root.table("silver/orders_changes").unwrap());
    let mut instances = [open(&root).await, open(&root).await];
    let mut source = Source::new(100, 40);
    let mut model = Model::default();
    let mut committed = Positions::new();
    for step in 0..steps {
        let wrote = rng.random_range(5..30);
        source.write(&mut rng, wrote);
        repeat_some(&mut source, &mut rng);
        let number = usize::from(rng.random_bool(0.2));
        let (events, covered) = deliver(&mut rng, &source, instances[number].table.positions());
        let outcome = instances[number].flush(&events, &covered).await;
        if matches!(outcome, Outcome::Committed { .. }) {
            model.apply(&events, &committed);
            committed = instances[number].table.positions().clone();
        }
        match rng.random_range(0..100) {
            // the process ends before the feed is completed; whoever comes next completes it
            0..20 => instances[number] = open(&root).await,
            20..30 => {}
            30..40 => {
                let one = &mut instances[number];
                one.feed.follow(&one.table).await.unwrap();
                one.feed.maintain().await.unwrap();
            }
            40..45 => foreign_optimize(&changes).await,
            45..55 => {
                instances[number].table.maintain().await.unwrap();
            }
            _ => {
                let one = &mut instances[number];
                one.feed.follow(&one.table).await.unwrap();
            }
        }
        if step % 5 == 4 {
            let one = &mut instances[0];
            one.table.refresh().await.unwrap();
            one.feed.follow(&one.table).await.unwrap();
            let feed = feed_rows(&changes).await;
            assert_eq!(feed, model.rows(), "seed {seed} step {step}: every change once");
            assert_eq!(fold(&feed), rows(&silver).await, "seed {seed} step {step}: folded");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_holds_every_change_once_and_folds_to_the_table_whatever_happens() {
    for seed in seeds(3) {
        run(seed, 40).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_begun_later_begins_with_the_rows_of_its_table() {
    begin_later(seeds(1)[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_older_than_the_feed_takes_its_first_rows_away() {
    // of another partition, delivered after the feed had begun
    begin_later(210_250_854).await;
}

async fn begin_later(seed: u64) {
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), settings()).await.unwrap();
    let mut source = Source::new(100, 40);
    source.write(&mut rng, 100);
    let (events, covered) = deliver(&mut rng, &source, table.positions());
    let (changes, floors) = parts(&events, vec![0]);
    let selection = table.select(&changes, &floors).unwrap();
    let (output, sources, rejected) = transform(selection.upserts(), false);
    table.replace(given(&selection, &output, &sources, &rejected), &covered, Map::new()).await.unwrap();
    let mut one = open(&root).await;
    let at = root.table("silver/orders_changes").unwrap();
    let begun = feed_rows(&at).await;
    assert!(begun.iter().all(|row| row.0 == "snapshot"), "{begun:?}");
    assert_eq!(fold(&begun), rows(&location).await);
    for _ in 0..10 {
        repeat_some(&mut source, &mut rng);
        let (events, covered) = deliver(&mut rng, &source, one.table.positions());
        one.flush(&events, &covered).await;
        one = open(&root).await;
        assert_eq!(fold(&feed_rows(&at).await), rows(&location).await, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_follows_the_columns_of_its_table() {
    let (_dir, root) = lake();
    let mut one = open(&root).await;
    let write = |id: i64, seq: u128| (0usize, i64::try_from(seq).unwrap(), Event::Change(id, 3, Op::Create, seq));
    one.flush(&[write(1, 4), write(2, 5)], &ranges(&[(0, 0, 6)])).await;
    one.feed.follow(&one.table).await.unwrap();
    let wider = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("v", DataType::Utf8, true),
        Field::new("n", DataType::Int32, true),
    ]));
    let fills = HashMap::from([("n".to_string(), Arc::new(arrow::array::Int32Array::from(vec![7])) as ArrayRef)]);
    one.table.evolve(&wider, &fills).await.unwrap();
    one.feed.evolve(one.table.schema(), &fills).await.unwrap();
    one.flush(&[write(3, 6)], &ranges(&[(0, 6, 7)])).await;
    one.feed.follow(&one.table).await.unwrap();
    let at = root.table("silver/orders_changes").unwrap();
    let batches = query(&at, "SELECT id, n FROM t ORDER BY id").await;
    let values: Vec<_> = batches
        .iter()
        .flat_map(|b| b.column(1).as_primitive::<arrow::datatypes::Int32Type>().iter().collect::<Vec<_>>())
        .collect();
    assert_eq!(values, vec![Some(7), Some(7), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_refused_where_it_cannot_work() {
    let (_dir, root) = lake();
    let at = root.table("silver/lines_changes").unwrap();
    let spec = TableSpec {
        name: "silver/lines".into(),
        fields: fields(),
        key: vec![],
        partition_by: vec![],
        freshness: Freshness::Newer,
        renamed: 0,
        generation: 0,
    };
    let keyless = KeyedTable::open_or_create(root.table("silver/lines").unwrap(), spec, settings()).await.unwrap();
    let refused = ChangesTable::open_or_create(at, "silver/lines_changes", &keyless).await.unwrap_err();
    assert!(refused.to_string().contains("needs a source table with a primary key"), "{refused}");
    let clash = Arc::new(Schema::new(vec![Field::new("_CHANGE", DataType::Utf8, true)]));
    let refused = ChangesTable::check(&clash, &["id".to_string()]).unwrap_err();
    assert!(refused.to_string().contains("`_CHANGE`") && refused.next_step().is_some(), "{refused}");
    // the feed of a table that was removed and made anew
    drop(open(&root).await);
    std::fs::remove_dir_all(root.url().to_file_path().unwrap().join("silver/orders")).unwrap();
    let table =
        KeyedTable::open_or_create(root.table("silver/orders").unwrap(), super::spec(), settings()).await.unwrap();
    let at = root.table("silver/orders_changes").unwrap();
    let refused = ChangesTable::open_or_create(at, "silver/orders_changes", &table).await.unwrap_err();
    assert!(refused.to_string().contains("of a table that is no more"), "{refused}");
    // a flush while the feed was turned off
    let mut one = open(&root.table("other").unwrap()).await;
    copy(&mut one.table, &of(&[(1, "n3", Op::Create, 4, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
    let refused = one.feed.follow(&one.table).await.unwrap_err();
    assert!(refused.to_string().contains("without its feed") && refused.next_step().is_some(), "{refused}");
}
