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
}

type Rules = Arc<Mutex<Vec<(String, Fault)>>>;

/// The lake, seen with its faults and without.
pub(super) struct FaultyLake {
    sound: Location,
    faulty: Location,
    rules: Rules,
}

impl FaultyLake {
    pub(super) fn new() -> Self {
        let sound = Location::open("memory:///lake", &HashMap::new()).expect("a lake in memory");
        let rules = Rules::default();
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
        self.rules.lock().unwrap().push((format!("lake/{prefix}"), fault));
    }

    /// Nothing fails any more.
    pub(super) fn heal(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// Rows of a table, by `id`; `None` where there is no such table.
    pub(super) async fn rows(&self, table: &str) -> Option<Vec<(i64, String)>> {
        let lake = Lake::new(self.sound.clone());
        let sql = format!("SELECT id, name FROM silver.\"{table}\" ORDER BY id");
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

    /// The last commit of a table's log without its last bytes; gives what it was.
    pub(super) async fn cut_last_commit(&self, table: &str) -> (Path, Bytes) {
        let store = self.sound.store().unwrap();
        let listed: Vec<_> = store.list(Some(&Path::from(format!("{table}/_delta_log")))).collect().await;
        let commits = listed.into_iter().map(Result::unwrap).map(|file| file.location);
        let last = commits.filter(|path| path.extension() == Some("json")).max().expect("a commit");
        let whole = store.get(&last).await.unwrap().bytes().await.unwrap();
        store.put(&last, whole.slice(..whole.len() - 20).into()).await.unwrap();
        (last, whole)
    }

    pub(super) async fn put(&self, path: &Path, bytes: Bytes) {
        self.sound.store().unwrap().put(path, bytes.into()).await.unwrap();
    }
}

#[derive(Debug)]
struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    rules: Rules,
}

impl FaultyStore {
    fn judge(&self, path: &Path, writes: bool) -> object_store::Result<()> {
        let rules = self.rules.lock().unwrap();
        let fault =
            rules.iter().find(|(prefix, _)| path.as_ref().starts_with(prefix.as_str())).map(|(_, fault)| *fault);
        drop(rules);
        match fault {
            None => Ok(()),
            Some(Fault::Busy) => Err(busy()),
            Some(Fault::Denied) => {
                Err(object_store::Error::PermissionDenied { path: path.to_string(), source: "403".into() })
            }
            Some(Fault::Panic) if writes => panic!("a defect, made for this test"),
            Some(Fault::Panic) => Ok(()),
        }
    }
}

fn busy() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "503, try later".into() }
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
        self.judge(location, true)?;
        self.inner.put_opts(location, payload, options).await
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
        prefix.map_or(Ok(()), |prefix| self.judge(prefix, false))?;
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
    let store = || FaultyStore { inner: Arc::new(object_store::memory::InMemory::new()), rules: Rules::default() };
    expect::put_get_delete_list(&store()).await;
    expect::put_opts(&store(), true).await;
    expect::get_opts(&store()).await;
    expect::list_with_delimiter(&store()).await;
    expect::rename_and_copy(&store()).await;
    expect::copy_if_not_exists(&store()).await;
}
