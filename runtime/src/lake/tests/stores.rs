//! The stores that stand around a store: each hands every request on as what it is, and shows no secret.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};

use super::*;
use crate::lake::keyed::rebuild::Moved;
use crate::lake::log::detour::Without;

pub(super) type Store = Arc<dyn ObjectStore>;

/// Every kind of store that stands around another, around stores that `inner` makes.
pub(super) fn wrappers(inner: impl Fn() -> Store) -> Vec<(&'static str, Store)> {
    let moved = |seen: &str| Moved { inner: inner(), seen: Path::from(seen), lies: Path::from("t/_lode/g1/log") };
    vec![
        ("conflicts", map_conflicts(inner())),
        ("moved, beside the folder", Arc::new(moved("t/_delta_log"))),
        ("moved, in the folder", Arc::new(PrefixStore::new(Arc::new(moved("t/_delta_log")) as Store, "t/_delta_log"))),
        ("without", Arc::new(Without { inner: inner(), hidden: HashSet::from([Path::from("t/hidden")]) })),
        ("faulty", faulty::silent(inner())),
    ]
}

/// Notes which methods are called.
#[derive(Debug, Default)]
struct Recorder {
    inner: InMemory,
    called: Mutex<BTreeSet<&'static str>>,
}

impl Recorder {
    fn note(&self, method: &'static str) {
        self.called.lock().unwrap().insert(method);
    }

    fn taken(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.called.lock().unwrap()).into_iter().collect()
    }
}

impl fmt::Display for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Recorder {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.note("put_opts");
        self.inner.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.note("put_multipart_opts");
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.note("get_opts");
        self.inner.get_opts(from, options).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.note("get_ranges");
        self.inner.get_ranges(from, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.note("delete_stream");
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.note("list");
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.note("list_with_offset");
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.note("list_with_delimiter");
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.note("copy_opts");
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.note("rename_opts");
        self.inner.rename_opts(from, to, options).await
    }
}

#[tokio::test]
async fn every_store_around_a_store_hands_each_request_on_as_what_it_is() {
    let recorders = Mutex::new(Vec::new());
    let recorder = || {
        let recorder = Arc::new(Recorder::default());
        recorders.lock().unwrap().push(Arc::clone(&recorder));
        recorder as Store
    };
    let all = wrappers(recorder);
    let recorders = recorders.into_inner().unwrap();
    assert_eq!(all.len(), recorders.len());
    for ((name, store), recorder) in all.into_iter().zip(recorders) {
        let (a, b) = (Path::from("a/x"), Path::from("a/y"));
        let told = |method: &'static str| assert_eq!(recorder.taken(), [method], "{name}");
        store.put_opts(&a, "text".into(), PutOptions::default()).await.unwrap();
        told("put_opts");
        store.put_multipart_opts(&b, PutMultipartOptions::default()).await.unwrap();
        told("put_multipart_opts");
        store.get_opts(&a, GetOptions::default()).await.unwrap();
        told("get_opts");
        let (first, last) = (0..1, 3..4);
        store.get_ranges(&a, &[first, last]).await.unwrap();
        told("get_ranges");
        store.list(Some(&Path::from("a"))).collect::<Vec<_>>().await;
        told("list");
        store.list_with_offset(Some(&Path::from("a")), &a).collect::<Vec<_>>().await;
        told("list_with_offset");
        store.list_with_delimiter(Some(&Path::from("a"))).await.unwrap();
        told("list_with_delimiter");
        store.copy_opts(&a, &b, CopyOptions::default()).await.unwrap();
        told("copy_opts");
        // InMemory renames by copying, within itself
        store.rename_opts(&b, &Path::from("a/z"), RenameOptions::default()).await.unwrap();
        told("rename_opts");
        store.delete_stream(futures::stream::iter([Ok(a)]).boxed()).collect::<Vec<_>>().await;
        told("delete_stream");
    }
}

#[tokio::test]
async fn a_hidden_file_is_there_for_nobody_who_reads() {
    let hidden = Path::from("t/hidden");
    let inner: Store = Arc::new(InMemory::new());
    inner.put_opts(&hidden, "text".into(), PutOptions::default()).await.unwrap();
    inner.put_opts(&Path::from("t/shown"), "text".into(), PutOptions::default()).await.unwrap();
    let store = Without { inner, hidden: HashSet::from([hidden.clone()]) };
    let lost = |e: object_store::Error| assert!(matches!(e, object_store::Error::NotFound { .. }), "{e}");
    lost(store.get_opts(&hidden, GetOptions::default()).await.unwrap_err());
    let range = 0..1;
    lost(store.get_ranges(&hidden, &[range]).await.unwrap_err());
    lost(store.copy_opts(&hidden, &Path::from("x"), CopyOptions::default()).await.unwrap_err());
    let names = |found: Vec<object_store::Result<ObjectMeta>>| {
        found.into_iter().map(|meta| meta.unwrap().location.to_string()).collect::<Vec<_>>()
    };
    let folder = Path::from("t");
    assert_eq!(names(store.list(Some(&folder)).collect().await), ["t/shown"]);
    assert_eq!(names(store.list_with_offset(Some(&folder), &Path::from("t/a")).collect().await), ["t/shown"]);
    assert_eq!(store.list_with_delimiter(Some(&folder)).await.unwrap().objects.len(), 1);
}

#[tokio::test]
async fn no_secret_of_the_lake_is_shown_by_what_holds_it() {
    const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQ=";
    let lakes: [&[(&str, &str)]; 2] = [
        &[("azure_storage_account_name", "shop"), ("azure_storage_account_key", SECRET)],
        &[("azure_storage_account_name", "shop"), ("azure_storage_sas_key", "sig=c2VjcmV0LXNlY3JldC1zZWNyZXQ%3D")],
    ];
    let mut shown = Vec::new();
    for options in lakes {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let root = Location::open("az://box/lake", &options).unwrap();
        let lake = crate::lake::query::Lake::new(root.clone());
        let table = root.table("silver/orders").unwrap();
        let delta = deltalake::DeltaTable::new(table.log_store().unwrap());
        let hiding = table.clone().wrapped(|inner| Arc::new(Without { inner, hidden: HashSet::new() }));
        shown.push(format!("{root:?} {lake:?} {table:?} {delta:?} {:?}", root.store().unwrap()));
        let store = table.store().unwrap();
        shown.push(format!("{store:?} {store} {:?} {}", hiding.store().unwrap(), hiding.store().unwrap()));
    }
    let s3 = AmazonS3Builder::new().with_bucket_name("box").with_region("eu-north-1").with_access_key_id("AKIA");
    let s3 = map_conflicts(Arc::new(s3.with_secret_access_key(SECRET).with_token(SECRET).build().unwrap()));
    shown.push(format!("{s3:?} {s3}"));
    for shown in shown {
        // base64 and its bytes, as a credential may hold them
        for part in ["c2VjcmV0", "secret-secret", "115, 101, 99, 114, 101, 116"] {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}
