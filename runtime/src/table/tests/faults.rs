//! A lake that rejects, answers too late, hangs or is slow, and answers that name the wrong error.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::{Source, deliver, parts, seeds, transform};
use super::*;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// an error, and nothing was done
    Reject,
    /// done, but the answer is an error
    FailAfterWork,
    /// no answer, nothing done
    Hang,
    /// done, but no answer
    HangAfterWork,
    /// done, late
    Slow,
}

/// Faults by chance.
#[derive(Debug)]
struct Chance {
    rng: StdRng,
    of_hundred: u32,
}

#[derive(Debug)]
struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    chance: Arc<Mutex<Chance>>,
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "injected".into() }
}

impl FaultyStore {
    fn next(&self) -> Option<Fault> {
        let mut chance = self.chance.lock().unwrap();
        let limit = chance.of_hundred;
        if chance.rng.random_range(0..100) >= limit {
            return None;
        }
        let all = [Fault::Reject, Fault::FailAfterWork, Fault::Hang, Fault::HangAfterWork, Fault::Slow];
        Some(all[chance.rng.random_range(0..all.len())])
    }

    async fn run<T>(
        &self,
        fault: Option<Fault>,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        match fault {
            None => work.await,
            Some(Fault::Reject) => Err(broken()),
            Some(Fault::FailAfterWork) => {
                work.await?;
                Err(broken())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HangAfterWork) => {
                work.await?;
                std::future::pending().await
            }
            Some(Fault::Slow) => {
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                work.await
            }
        }
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.run(self.next(), self.inner.put_opts(at, body, options)).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.run(self.next(), self.inner.get_opts(at, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
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
async fn run(seed: u64) {
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let sound = root.table("silver/orders").unwrap();
    let (faulty, chance) = faulty(&sound, seed);
    let settings = hasty();
    // while the table is being opened all is well: deltalake has no deadline of its own
    let calm = |of_hundred| chance.lock().unwrap().of_hundred = of_hundred;
    calm(0);
    let mut table = KeyedTable::open_or_create(faulty.clone(), spec(), settings.clone()).await.unwrap();
    let mut source = Source::new(100, 30);
    source.write(&mut rng, 150);
    let total: i64 = source.log.iter().map(|log| log.len() as i64).sum();
    let (mut errors, mut rounds) = (0, 0);
    loop {
        rounds += 1;
        assert!(rounds < 3000, "seed {seed}: no end");
        calm(15);
        let (events, covered) = deliver(&mut rng, &source, table.positions());
        let (changes, floors) = parts(&events, vec![0]);
        let selection = table.select(&changes, &floors).unwrap();
        let (output, sources, rejected) = transform(selection.upserts(), false);
        let flush = table.flush(&selection, &output, Some(&sources), &rejected, &covered, Map::new());
        // a caller with a deadline: the flush is cut off wherever it stands
        match tokio::time::timeout(Duration::from_millis(1500), flush).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => errors += 1,
        }
        if rng.random_bool(0.2)
            && let Some(compaction) = table.plan_compaction()
        {
            let job = async {
                let rewritten = compaction.rewrite().await?;
                table.commit_compaction(rewritten).await
            };
            if !matches!(tokio::time::timeout(Duration::from_millis(1500), job).await, Ok(Ok(_))) {
                errors += 1;
            }
        }
        calm(0);
        if rng.random_bool(0.1) {
            table = KeyedTable::open_or_create(faulty.clone(), spec(), settings.clone()).await.unwrap();
        }
        if table.positions().values().sum::<i64>() == total {
            break;
        }
    }
    table.refresh().await.unwrap();
    println!("seed {seed}: {rounds} rounds, {errors} failed");
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
    one.flush(&selection, &output, Some(&sources), &rejected, &covered, Map::new()).await.unwrap();
    let decided = |id: &i64| last.0.get(id).is_some_and(|(_, n, op)| *op == Op::Delete || n % 10 != 2);
    let of = |all: Vec<(i64, String)>| all.into_iter().filter(|(id, _)| decided(id)).collect::<Vec<_>>();
    assert_eq!(of(rows(&sound).await), of(rows(&clean).await), "seed {seed}");
    let reopened = KeyedTable::open_or_create(sound.clone(), spec(), settings).await.unwrap();
    assert_eq!(reopened.positions(), one.positions());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_lake_change_nothing_in_the_end() {
    for seed in seeds(2) {
        run(seed).await;
    }
}

fn faulty(sound: &Location, seed: u64) -> (Location, Arc<Mutex<Chance>>) {
    let chance = Arc::new(Mutex::new(Chance { rng: StdRng::seed_from_u64(seed + 1), of_hundred: 0 }));
    let shared = chance.clone();
    let location = sound.clone().wrapped(|inner| Arc::new(FaultyStore { inner, chance: shared }));
    (location, chance)
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
    };
    let open = || KeyedTable::open_or_create(location.clone(), spec.clone(), hasty());
    let mut table = open().await.unwrap();
    let mut source = Source::new(12, 3);
    super::keyless::Writer::default().write(&mut source, &mut rng, 200);
    let total: i64 = source.log.iter().map(|log| log.len() as i64).sum();
    for round in 0.. {
        assert!(round < 3000, "seed {seed}: no end");
        chance.lock().unwrap().of_hundred = 20;
        let (events, covered) = deliver(&mut rng, &source, table.positions());
        let (changes, floors) = parts(&events, vec![]);
        let selection = table.select(&changes, &floors).unwrap();
        let (output, sources, rejected) = transform(selection.upserts(), true);
        let flush = table.flush(&selection, &output, Some(&sources), &rejected, &covered, Map::new());
        let _ = tokio::time::timeout(Duration::from_millis(1500), flush).await;
        chance.lock().unwrap().of_hundred = 0;
        if rng.random_bool(0.3) {
            table = open().await.unwrap();
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
    model.apply(&all, &crate::record::Positions::new());
    assert_eq!(rows(&sound).await, model.sorted(), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_lake_lose_and_double_no_record_of_bronze() {
    use super::bronze::{block, read_all, rows_of};
    let seed = seeds(1)[0];
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let sound = root.table("bronze/t").unwrap();
    let (location, chance) = faulty(&sound, seed);
    let open = || BronzeTable::open_or_create(location.clone(), "bronze/t", hasty());
    let mut table = open().await.unwrap();
    let ends = [300i64, 200];
    for round in 0.. {
        assert!(round < 3000, "seed {seed}: no end");
        let (mut covered, mut blocks) = (Ranges::new(), Vec::new());
        for (number, end) in ends.iter().enumerate() {
            let at = table.positions().get(&partition(number as i32)).copied().unwrap_or(0);
            let (from, to) = ((at - rng.random_range(0..3)).max(0), (at + rng.random_range(0..20)).min(*end));
            if from < to {
                covered.insert(partition(number as i32), Range { from, to });
                blocks.push(block(number as i32, from..to));
            }
        }
        chance.lock().unwrap().of_hundred = 20;
        let work = async {
            table.append(vec![rows_of(&blocks, 86_400_000)], &covered, Map::new()).await?;
            if rng.random_bool(0.1) {
                table.maintain().await?;
            }
            Ok::<_, crate::error::Error>(())
        };
        let _ = tokio::time::timeout(Duration::from_millis(1500), work).await;
        chance.lock().unwrap().of_hundred = 0;
        if rng.random_bool(0.2) {
            table = open().await.unwrap();
        }
        if table.positions().values().sum::<i64>() == 500 {
            break;
        }
    }
    let all = read_all(&table, &crate::record::Positions::new()).await;
    assert_eq!(all[&0], (0..300).collect::<Vec<_>>(), "seed {seed}");
    assert_eq!(all[&1], (0..200).collect::<Vec<_>>(), "seed {seed}");
    let count = query(&sound, "SELECT count(*) FROM t").await;
    assert_eq!(count[0].column(0).as_primitive::<Int64Type>().value(0), 500);
}
