//! A lake that rejects, answers too late, hangs or is slow, and answers that name the wrong error.

use std::fmt;
use std::time::Duration;

use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::faulty::{Shared, broken, faulty, trouble};
use super::model::{Source, deliver, parts, seeds, transform};
use super::*;
use crate::error::Action;

/// Asks until the lake answers.
async fn insist<T>(chance: &Shared, mut ask: impl AsyncFnMut() -> Result<T>) -> T {
    for round in 0..40 {
        // the last ones in peace: what the test is about comes before
        trouble(chance, if round < 20 { 10 } else { 0 }, false);
        match ask().await {
            Ok(done) => return done,
            Err(e) => assert!(e.action() == Action::Retry, "an error of the lake stops the table: {e}"),
        }
    }
    panic!("the lake is sound and does not answer");
}

#[tokio::test]
async fn a_lost_put_if_absent_is_always_already_exists() {
    #[derive(Debug)]
    struct Adls;
    impl fmt::Display for Adls {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("adls")
        }
    }
    #[async_trait::async_trait]
    impl ObjectStore for Adls {
        async fn put_opts(&self, at: &Path, _: PutPayload, _: PutOptions) -> object_store::Result<PutResult> {
            Err(object_store::Error::Precondition { path: at.to_string(), source: "412 ConditionNotMet".into() })
        }
        async fn put_multipart_opts(
            &self,
            _: &Path,
            _: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            Err(broken())
        }
        async fn get_opts(&self, _: &Path, _: GetOptions) -> object_store::Result<GetResult> {
            Err(broken())
        }
        fn delete_stream(
            &self,
            locations: BoxStream<'static, object_store::Result<Path>>,
        ) -> BoxStream<'static, object_store::Result<Path>> {
            locations
        }
        fn list(&self, _: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            Box::pin(futures::stream::empty())
        }
        async fn list_with_delimiter(&self, _: Option<&Path>) -> object_store::Result<ListResult> {
            Err(broken())
        }
        async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> object_store::Result<()> {
            Err(broken())
        }
    }
    let store = map_conflicts(Arc::new(Adls));
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let lost = store.put_opts(&Path::from("x"), "".into(), create).await.unwrap_err();
    assert!(matches!(lost, object_store::Error::AlreadyExists { .. }), "{lost}");
    let other = store.put(&Path::from("x"), "".into()).await.unwrap_err();
    assert!(matches!(other, object_store::Error::Precondition { .. }), "{other}");
    let sound = map_conflicts(Arc::new(InMemory::new()));
    sound.put(&Path::from("x"), "y".into()).await.unwrap();
}

/// Every request may fail in any of the ways; what arrives is exact all the same.
async fn run_keyed(seed: u64) {
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let sound = root.table("silver/orders").unwrap();
    let (faulty, chance) = faulty(&sound, seed);
    let settings = hasty();
    let open = || KeyedTable::open_or_create(faulty.clone(), spec(), settings.clone());
    let mut table = insist(&chance, async || open().await).await;
    let mut source = Source::new(100, 30);
    source.write(&mut rng, 250);
    let (mut errors, mut rounds) = (0u32, 0);
    loop {
        rounds += 1;
        assert!(rounds < 3000, "seed {seed}: no end");
        trouble(&chance, 15, true);
        let (events, covered) = deliver(&mut rng, &source, table.positions());
        let (changes, floors) = parts(&events, vec![0]);
        let selection = table.select(&changes, &floors).unwrap();
        let (output, sources, rejected) = transform(selection.upserts(), false);
        let flush = table.replace(given(&selection, &output, &sources, &rejected), &covered, Map::new());
        // a caller with a deadline: the flush is cut off wherever it stands
        match tokio::time::timeout(Duration::from_millis(1500), flush).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => errors += 1,
        }
        if rng.random_bool(0.2)
            && let Some(compaction) = table.plan_compaction(Pace::Steady)
        {
            let job = async {
                let rewritten = compaction.rewrite().await?;
                table.commit_compaction(rewritten).await
            };
            if !matches!(tokio::time::timeout(Duration::from_millis(1500), job).await, Ok(Ok(_))) {
                errors += 1;
            }
        }
        trouble(&chance, 15, false);
        match rng.random_range(0..100) {
            // compaction, owners, checkpoint and vacuum; what fails is due again
            0..20 => errors += u32::from(table.maintain().await.is_err()),
            20..35 => table = insist(&chance, async || open().await).await,
            _ => {}
        }
        if table.positions().values().sum::<i64>() == source.log.iter().map(|log| log.len() as i64).sum::<i64>() {
            break;
        }
    }
    trouble(&chance, 0, false);
    table.refresh().await.unwrap();
    println!("seed {seed}: {rounds} rounds, {errors} failed; faults met: {:?}", chance.lock().unwrap().met);
    // the same records through a sound lake, in one go
    let (_dir, root) = lake();
    let clean = root.table("silver/orders").unwrap();
    let mut one = KeyedTable::open_or_create(clean.clone(), spec(), Settings::default()).await.unwrap();
    let mut last = (BTreeMap::new(), 0u128);
    for log in &source.log {
        for event in log {
            match event {
                super::model::Event::Change(id, n, op, seq) => {
                    let slot = last.0.entry(*id).or_insert((0u128, 0u64, Op::Delete));
                    if *seq > slot.0 {
                        *slot = (*seq, *n, *op);
                    }
                }
                super::model::Event::Truncate(seq) => last.1 = last.1.max(*seq),
            }
        }
    }
    // every owner's newest change decides, unless rejected ones and batch borders differ: those are left out
    let all: Vec<_> = source
        .log
        .iter()
        .enumerate()
        .flat_map(|(p, log)| log.iter().enumerate().map(move |(o, e)| (p, o as i64, e.clone())))
        .collect();
    let (changes, floors) = parts(&all, vec![0]);
    let selection = one.select(&changes, &floors).unwrap();
    let (output, sources, rejected) = transform(selection.upserts(), false);
    let covered: Ranges = source
        .log
        .iter()
        .enumerate()
        .map(|(p, log)| (partition(p as i32), Range { from: 0, to: log.len() as i64 }))
        .collect();
    one.replace(given(&selection, &output, &sources, &rejected), &covered, Map::new()).await.unwrap();
    let decided = |id: &i64| last.0.get(id).is_some_and(|(_, n, op)| *op == Op::Delete || n % 10 != 2);
    let of = |all: Vec<(i64, String)>| all.into_iter().filter(|(id, _)| decided(id)).collect::<Vec<_>>();
    assert_eq!(of(rows(&sound).await), of(rows(&clean).await), "seed {seed}");
    let reopened = KeyedTable::open_or_create(sound.clone(), spec(), settings).await.unwrap();
    assert_eq!(reopened.positions(), one.positions());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_lake_change_nothing_in_the_end() {
    for seed in seeds(2) {
        run_keyed(seed).await;
    }
}

fn hasty() -> Settings {
    Settings { request_timeout: Duration::from_millis(200), commit_attempts: 3, ..super::model::settings() }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_lake_lose_and_double_no_row_without_key() {
    let seed = seeds(1)[0];
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let sound = root.table("silver/lines").unwrap();
    let (location, chance) = faulty(&sound, seed);
    let spec = TableSpec {
        name: "silver/lines".into(),
        fields: fields(),
        key: vec![],
        renamed: 0,
        generation: 0,
        partition_by: vec![],
        freshness: Freshness::Newer,
    };
    let open = || KeyedTable::open_or_create(location.clone(), spec.clone(), hasty());
    let mut table = insist(&chance, async || open().await).await;
    let mut source = Source::new(12, 3);
    super::keyless::Writer::default().write(&mut source, &mut rng, 200);
    let total: i64 = source.log.iter().map(|log| log.len() as i64).sum();
    for round in 0.. {
        assert!(round < 3000, "seed {seed}: no end");
        trouble(&chance, 20, true);
        let (events, covered) = deliver(&mut rng, &source, table.positions());
        let (changes, floors) = parts(&events, vec![]);
        let selection = table.select(&changes, &floors).unwrap();
        let (output, sources, rejected) = transform(selection.upserts(), true);
        let flush = table.replace(given(&selection, &output, &sources, &rejected), &covered, Map::new());
        let _ = tokio::time::timeout(Duration::from_millis(1500), flush).await;
        trouble(&chance, 15, false);
        match rng.random_range(0..100) {
            0..20 => drop(table.maintain().await),
            20..45 => table = insist(&chance, async || open().await).await,
            _ => {}
        }
        if table.positions().values().sum::<i64>() == total {
            break;
        }
    }
    let all: Vec<_> = source
        .log
        .iter()
        .enumerate()
        .flat_map(|(p, log)| log.iter().enumerate().map(move |(o, e)| (p, o as i64, e.clone())))
        .collect();
    let mut model = super::keyless::Model::default();
    model.apply(&all, &crate::model::positions::Positions::new());
    assert_eq!(rows(&sound).await, model.sorted(), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_lake_lose_and_double_no_record_of_bronze() {
    use super::bronze::{block, files_of, read_all, rows_of};
    let seed = seeds(1)[0];
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let sound = root.table("bronze/t").unwrap();
    let (location, chance) = faulty(&sound, seed);
    let open = || BronzeTable::open_or_create(location.clone(), "bronze/t", hasty());
    let mut table = insist(&chance, async || open().await).await;
    let ends = [300i64, 200];
    for round in 0.. {
        assert!(round < 3000, "seed {seed}: no end");
        let (mut covered, mut blocks) = (Ranges::new(), Vec::new());
        for (number, end) in ends.iter().enumerate() {
            let at = table.positions().get(partition(number as i32)).unwrap_or(0);
            let (from, to) = ((at - rng.random_range(0..3)).max(0), (at + rng.random_range(0..20)).min(*end));
            if from < to {
                covered.add(partition(number as i32), Range { from, to });
                blocks.push(block(number as i32, from..to));
            }
        }
        trouble(&chance, 20, true);
        let files = files_of(&table, &[rows_of(blocks, 86_400_000)], &covered);
        let append = table.append(&files, &covered, Map::new());
        let _ = tokio::time::timeout(Duration::from_millis(1500), append).await;
        trouble(&chance, 15, false);
        match rng.random_range(0..100) {
            0..10 => drop(table.maintain().await),
            // beside an append, which may be cut off as well
            10..30 => {
                if let Some(compacting) = table.append_only().compacting(Pace::Steady)
                    && let Ok(Some(packed)) = compacting.await
                {
                    trouble(&chance, 20, true);
                    let mut table = table.append_only();
                    let commit = table.commit_compacted(packed);
                    let _ = tokio::time::timeout(Duration::from_millis(1500), commit).await;
                }
            }
            30..50 => table = insist(&chance, async || open().await).await,
            _ => {}
        }
        if table.positions().values().sum::<i64>() == 500 {
            break;
        }
    }
    trouble(&chance, 0, false);
    println!("seed {seed}: faults met: {:?}", chance.lock().unwrap().met);
    let all = read_all(&table, &crate::model::positions::Positions::new()).await;
    assert_eq!(all[&0], (0..300).collect::<Vec<_>>(), "seed {seed}");
    assert_eq!(all[&1], (0..200).collect::<Vec<_>>(), "seed {seed}");
    let count = query(&sound, "SELECT count(*) FROM t").await;
    assert_eq!(count[0].column(0).as_primitive::<Int64Type>().value(0), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_an_upload_in_parts_leave_no_half_a_file() {
    let seed = seeds(1)[0];
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let sound = root.table("bronze/t").unwrap();
    let (location, chance) = faulty(&sound, seed);
    let mut table = BronzeTable::open_or_create(location, "bronze/t", hasty()).await.unwrap();
    // not to be compressed, and above the size of one put
    let mut block = crate::model::record::Block::new(partition(0));
    for offset in 0..20 {
        let value: Vec<u8> = (0..1 << 20).map(|_| rng.random()).collect();
        let record =
            crate::model::record::Record { offset, timestamp_ms: 0, key: None, value: Some(&value), headers: b"" };
        assert!(block.push(record));
    }
    let covered = ranges(&[(0, 0, 20)]);
    let files = super::bronze::files_of(&table, &[super::bronze::rows_of([block], 86_400_000)], &covered);
    trouble(&chance, 40, true);
    for round in 0.. {
        assert!(round < 200, "seed {seed}: no end");
        let append = table.append(&files, &covered, Map::new());
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(3000), append).await {
            break;
        }
    }
    trouble(&chance, 0, false);
    println!("seed {seed}: faults met: {:?}", chance.lock().unwrap().met);
    let table = BronzeTable::open_or_create(sound, "bronze/t", hasty()).await.unwrap();
    let blocks: Vec<_> =
        table.read(&crate::model::positions::Positions::new()).await.unwrap().try_collect().await.unwrap();
    let records = blocks.iter().flat_map(|block| block.iter());
    let lengths: Vec<(i64, usize)> = records.map(|r| (r.offset, r.value.map_or(0, <[u8]>::len))).collect();
    assert_eq!(lengths, (0..20).map(|offset| (offset, 1 << 20)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_lake_lose_and_double_no_change_of_a_feed() {
    let seed = seeds(1)[0];
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, sound) = lake();
    let (root, chance) = faulty(&sound, seed);
    let mut one = insist(&chance, async || super::changes::try_open(&root, hasty()).await).await;
    let mut source = Source::new(100, 30);
    source.write(&mut rng, 150);
    super::changes::repeat_some(&mut source, &mut rng);
    let total: i64 = source.log.iter().map(|log| log.len() as i64).sum();
    let mut in_vain = 0;
    for round in 0.. {
        assert!(round < 3000, "seed {seed}: no end");
        let (events, covered) = deliver(&mut rng, &source, one.table.positions());
        // What is new may have to be looked up in the feed's whole log: where each request fails one time in ten, that
        // comes to an end only in peace.
        trouble(&chance, if in_vain < 20 { 10 } else { 0 }, false);
        in_vain = match one.try_flush(&events, &covered).await {
            Ok(_) => 0,
            Err(e) => {
                assert!(e.action() == Action::Retry, "seed {seed}: an error of the lake stops the table: {e}");
                in_vain + 1
            }
        };
        trouble(&chance, 10, false);
        match rng.random_range(0..100) {
            0..30 => drop(one.feed.follow(&one.table).await),
            // These settings keep nothing back: a vacuum would take files that the table's commit names and the feed, so far,
            // does not.
            30..40 if one.feed.follow(&one.table).await.is_ok() => drop(one.feed.maintain().await),
            40..60 => one = insist(&chance, async || super::changes::try_open(&root, hasty()).await).await,
            _ => {}
        }
        if one.table.positions().values().sum::<i64>() == total {
            break;
        }
    }
    trouble(&chance, 0, false);
    one.table.refresh().await.unwrap();
    one.feed.follow(&one.table).await.unwrap();
    super::changes::expect_each_once(&sound, &source).await;
}
