//! A lake in memory behind a store that fails where and how it is told.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::lake::Location;
use crate::lake::query::Lake;

/// How requests for a part of the lake fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// 503
    Busy,
    /// 403
    Denied,
    /// whoever writes panics
    Panic,
    /// 503 for who writes
    ReadOnly,
    /// what is written stays, and who writes hears 503
    Unanswered,
    /// who writes meets one of the last two, or neither, as it is drawn
    Flaky,
}

/// Requests that fail.
struct Rule {
    prefix: String,
    /// of the paths below `prefix` those with this in them
    part: &'static str,
    fault: Fault,
    /// how often it is still met
    left: usize,
}

struct Drawn {
    rules: Vec<Rule>,
    rng: StdRng,
}

type Rules = Arc<Mutex<Drawn>>;

/// The lake, seen with its faults and without.
pub(super) struct FaultyLake {
    sound: Location,
    faulty: Location,
    rules: Rules,
}

fn no_rules() -> Rules {
    Arc::new(Mutex::new(Drawn { rules: Vec::new(), rng: StdRng::seed_from_u64(0) }))
}

impl FaultyLake {
    pub(super) fn new() -> Self {
        let sound = Location::open("memory:///lake", &HashMap::new()).expect("a lake in memory");
        let rules = no_rules();
        let own = Arc::clone(&rules);
        let faulty = sound.clone().wrapped(|inner| Arc::new(FaultyStore { inner, rules: own }));
        FaultyLake { sound, faulty, rules }
    }

    /// With faults.
    pub(super) fn root(&self) -> Location {
        self.faulty.clone()
    }

    /// Requests for what lies below `prefix` of the lake fail from now on.
    pub(super) fn break_down(&self, prefix: &str, fault: Fault) {
        self.add(prefix, "", fault, usize::MAX);
    }

    /// The next `times` requests for logs below `prefix` of the lake fail.
    pub(super) fn break_commits(&self, prefix: &str, fault: Fault, times: usize) {
        self.add(prefix, "/_delta_log/", fault, times);
    }

    fn add(&self, prefix: &str, part: &'static str, fault: Fault, left: usize) {
        let rule = Rule { prefix: format!("lake/{prefix}"), part, fault, left };
        self.rules.lock().unwrap().rules.push(rule);
    }

    /// From now on [`Fault::Flaky`] is drawn from `seed`.
    pub(super) fn draw_from(&self, seed: u64) {
        self.rules.lock().unwrap().rng = StdRng::seed_from_u64(seed);
    }

    /// Nothing fails any more.
    pub(super) fn heal(&self) {
        self.rules.lock().unwrap().rules.clear();
    }

    /// True once every fault was met as often as it was to be.
    pub(super) fn is_spent(&self) -> bool {
        self.rules.lock().unwrap().rules.is_empty()
    }

    /// `id` and `text` of each row of a table, by `id`; `None` where there is no such table.
    pub(super) async fn rows(&self, table: &str, text: &str) -> Option<Vec<(i64, String)>> {
        let lake = Lake::new(self.sound.clone());
        let sql = format!("SELECT id, {text} FROM silver.\"{table}\" ORDER BY id");
        let batches = match lake.query(&sql).await {
            Ok(batches) => batches,
            Err(error) => {
                eprintln!("{table}: {error}");
                return None;
            }
        };
        let text = |column: &_, row| arrow::util::display::array_value_to_string(column, row).unwrap();
        let rows = batches.iter().flat_map(|batch| {
            (0..batch.num_rows()).map(|row| (text(batch.column(0), row).parse().unwrap(), text(batch.column(1), row)))
        });
        Some(rows.collect())
    }

    /// What a query gives, as text; `None` where it cannot be run.
    pub(super) async fn text(&self, sql: &str) -> Option<String> {
        let batches = Lake::new(self.sound.clone()).query(sql).await.ok()?;
        Some(arrow::util::pretty::pretty_format_batches(&batches).expect("rows as text").to_string())
    }

    /// Offsets in a topic's Bronze table, in order.
    pub(super) async fn offsets(&self, topic: &str) -> Vec<i64> {
        let lake = Lake::new(self.sound.clone());
        let sql = format!("SELECT _offset FROM bronze.\"{topic}\" ORDER BY _offset");
        let batches = lake.query(&sql).await.expect("a Bronze table");
        let of = |batch: &arrow::array::RecordBatch| {
            use arrow::array::AsArray;
            batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
        };
        batches.iter().flat_map(of).collect()
    }

    /// Files below `prefix` of the lake, in order.
    async fn files(&self, prefix: &str) -> Vec<Path> {
        let listed: Vec<_> = self.sound.store().unwrap().list(Some(&Path::from(prefix))).collect().await;
        let mut files: Vec<Path> = listed.into_iter().map(|file| file.unwrap().location).collect();
        files.sort();
        files
    }

    /// The commits of a table's log, in order.
    async fn commits(&self, table: &str) -> Vec<Path> {
        let files = self.files(&format!("{table}/_delta_log")).await;
        files.into_iter().filter(|path| path.extension() == Some("json")).collect()
    }

    /// Deletes what lies below `prefix` of the lake.
    pub(super) async fn remove(&self, prefix: &str) {
        for file in self.files(prefix).await {
            self.sound.store().unwrap().delete(&file).await.unwrap();
        }
    }

    /// Asserts that every commit of a table that moves a position moves it on: no range is committed twice.
    pub(super) async fn assert_each_range_once(&self, table: &str) {
        let mut at: HashMap<String, i64> = HashMap::new();
        for path in self.commits(table).await {
            let bytes = self.sound.store().unwrap().get(&path).await.unwrap().bytes().await.unwrap();
            for line in std::str::from_utf8(&bytes).unwrap().lines() {
                let action: serde_json::Value = serde_json::from_str(line).unwrap();
                let Some(txn) = action.get("txn") else { continue };
                let (id, to) = (txn["appId"].as_str().unwrap().to_owned(), txn["version"].as_i64().unwrap());
                let before = at.insert(id.clone(), to);
                assert!(before.is_none_or(|before| before < to), "{path}: {id} goes from {before:?} to {to}");
            }
        }
        assert!(!at.is_empty(), "{table}: no commit moves a position");
    }

    /// The last commit of a table's log without its last bytes; gives what it was.
    pub(super) async fn cut_last_commit(&self, table: &str) -> (Path, Bytes) {
        let store = self.sound.store().unwrap();
        let last = self.commits(table).await.pop().expect("a commit");
        let whole = store.get(&last).await.unwrap().bytes().await.unwrap();
        store.put(&last, whole.slice(..whole.len() - 20).into()).await.unwrap();
        (last, whole)
    }

    pub(super) async fn put(&self, path: &Path, bytes: Bytes) {
        self.sound.store().unwrap().put(path, bytes.into()).await.unwrap();
    }
}

struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    rules: Rules,
}

impl FaultyStore {
    /// Whether the request is to be made, and whether its answer is to be heard.
    fn judge(&self, path: &Path, writes: bool) -> object_store::Result<bool> {
        let mut drawn = self.rules.lock().unwrap();
        let Drawn { rules, rng } = &mut *drawn;
        let is_met = |rule: &Rule| {
            let of_writing = matches!(rule.fault, Fault::Panic | Fault::ReadOnly | Fault::Unanswered | Fault::Flaky);
            let path = path.as_ref();
            path.starts_with(&rule.prefix) && path.contains(rule.part) && (writes || !of_writing)
        };
        let Some(at) = rules.iter().position(is_met) else { return Ok(true) };
        let fault = match rules[at].fault {
            Fault::Flaky => *[Fault::ReadOnly, Fault::Unanswered, Fault::Flaky].choose(rng).unwrap(),
            fault => fault,
        };
        if fault == Fault::Flaky {
            return Ok(true);
        }
        rules[at].left = rules[at].left.saturating_sub(1);
        if rules[at].left == 0 {
            rules.remove(at);
        }
        drop(drawn);
        match fault {
            Fault::Busy | Fault::ReadOnly => Err(busy()),
            Fault::Denied => {
                Err(object_store::Error::PermissionDenied { path: path.to_string(), source: "403".into() })
            }
            Fault::Panic => panic!("a defect, made for this test"),
            Fault::Unanswered | Fault::Flaky => Ok(false),
        }
    }
}

fn busy() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "503, try later".into() }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let is_heard = self.judge(location, true)?;
        let answer = self.inner.put_opts(location, payload, options).await;
        if is_heard { answer } else { Err(busy()) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.judge(location, true)?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.judge(location, false)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.judge(location, false)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match prefix.map(|prefix| self.judge(prefix, false)) {
            Some(Err(error)) => futures::stream::once(async { Err(error) }).boxed(),
            _ => self.inner.list(prefix),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        match prefix.map(|prefix| self.judge(prefix, false)) {
            Some(Err(error)) => futures::stream::once(async { Err(error) }).boxed(),
            _ => self.inner.list_with_offset(prefix, offset),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        prefix.map_or(Ok(true), |prefix| self.judge(prefix, false))?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.judge(to, true)?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.judge(to, true)?;
        self.inner.rename_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_that_fails_nowhere_does_what_a_store_does() {
    use object_store::integration as expect;
    let store = || FaultyStore { inner: Arc::new(object_store::memory::InMemory::new()), rules: no_rules() };
    expect::put_get_delete_list(&store()).await;
    expect::put_opts(&store(), true).await;
    expect::get_opts(&store()).await;
    expect::list_with_delimiter(&store()).await;
    expect::rename_and_copy(&store()).await;
    expect::copy_if_not_exists(&store()).await;
}
