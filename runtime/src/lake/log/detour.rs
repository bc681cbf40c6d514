//! A log read past checkpoints that cannot be read: a checkpoint only repeats what the versions before it say.
//!
//! Receives the location of a table and the errors of attempts to read its log. Gives views of the location that lack the
//! hint at the newest checkpoint, then the newest checkpoints one by one, then all. Promises that no view tells less than
//! the log: there is none where versions from the first to the newest are not all there, or an older checkpoint with
//! those after it. When there is no way left, says which file is broken. Never writes or deletes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};
use serde_json::Value;

use super::commit::{Commit, log_path};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Location;
use crate::lake::failure::{store_error, way_out};

const LOG: &str = "_delta_log";
const HINT: &str = "_last_checkpoint";
/// So many checkpoints are passed by one after another, then all.
const ONE_BY_ONE: usize = 3;
/// So many versions are looked at to find the one that is broken.
const SEARCHED: usize = 500;
/// Tables of which a detour was told are remembered up to this number.
const TOLD_MAX: usize = 10_000;

/// The way to a readable log.
#[derive(Debug)]
pub(in crate::lake) struct Detour {
    location: Location,
    log: Option<Listing>,
    /// names of the log's files that the view lacks
    hidden: BTreeSet<String>,
    /// checkpoints passed by so far
    passed: usize,
    first: Option<Error>,
}

/// What lies in a log.
#[derive(Debug, Default)]
struct Listing {
    versions: BTreeSet<u64>,
    checkpoints: BTreeMap<u64, Vec<String>>,
    /// the version of the checkpoint that the hint names
    hinted: Option<u64>,
}

impl Detour {
    /// The straight way.
    pub(in crate::lake) fn of(location: &Location) -> Self {
        Detour { location: location.clone(), log: None, hidden: BTreeSet::new(), passed: 0, first: None }
    }

    /// The table as it is to be read now.
    pub(in crate::lake) fn view(&self) -> Result<Location> {
        if self.hidden.is_empty() {
            return Ok(self.location.clone());
        }
        let log = self.location.folder()?.join(LOG);
        let hidden = self.hidden.iter().map(|name| log.clone().join(name.as_str())).collect();
        Ok(self.location.clone().wrapped(|inner| Arc::new(Without { inner, hidden })))
    }

    /// Chooses the next view after the attempt with the present one ended with `error`.
    ///
    /// Errors: `error` itself where another view is no help, what is broken where none is left.
    pub(in crate::lake) async fn after(&mut self, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Corrupt {
            return Err(error);
        }
        let log = match self.log.take() {
            Some(log) => log,
            None => Listing::read(&self.location).await?,
        };
        let first = self.first.take().unwrap_or(error);
        match self.next(&log) {
            true => (self.log, self.first) = (Some(log), Some(first)),
            false => return Err(log.explain(&self.location, first).await),
        }
        Ok(())
    }

    /// Hides more; false where nothing is left that may be.
    fn next(&mut self, log: &Listing) -> bool {
        // without the hint first: the log is listed from its beginning, and what was deleted meanwhile is not missed
        if self.hidden.insert(HINT.to_owned()) && log.holds_all_but(0) {
            return true;
        }
        if self.passed >= log.checkpoints.len() {
            return false;
        }
        self.passed = if self.passed < ONE_BY_ONE { self.passed + 1 } else { log.checkpoints.len() };
        let newest = log.checkpoints.values().rev().take(self.passed);
        self.hidden.extend(newest.flatten().cloned());
        log.holds_all_but(self.passed) || self.next(log)
    }

    /// Says what was passed by, once for each table and checkpoint in a process.
    pub(in crate::lake) fn tell(&self) {
        static TOLD: LazyLock<Mutex<HashSet<(String, u64)>>> = LazyLock::new(Mutex::default);
        let Some(log) = &self.log else { return };
        let version = match self.passed {
            0 => log.hinted,
            _ => log.checkpoints.keys().next_back().copied(),
        };
        // a second look without anything hidden that matters is nothing to tell
        let Some(version) = version.filter(|v| self.passed > 0 || !log.checkpoints.contains_key(v)) else { return };
        let table = self.location.url().to_string();
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX && told.insert((table.clone(), version)) {
            let error = self.first.as_ref().map(ToString::to_string);
            tracing::warn!(
                table,
                version,
                error,
                "a checkpoint cannot be read and is passed by: the log has its versions"
            );
        }
    }
}

impl Listing {
    async fn read(location: &Location) -> Result<Self> {
        let store = location.store()?;
        let mut log = Listing::default();
        let mut found = store.list(Some(&Path::from(LOG)));
        while let Some(meta) = found.try_next().await.map_err(|e| store_error("listing the log", e))? {
            let Some(name) = meta.location.filename().filter(|_| meta.location.parts_count() == 2) else { continue };
            let Some((Ok(version), rest)) = name.split_once('.').map(|(version, rest)| (version.parse(), rest)) else {
                continue;
            };
            match rest {
                "json" => drop(log.versions.insert(version)),
                _ if rest.starts_with("checkpoint.") => {
                    log.checkpoints.entry(version).or_default().push(name.to_owned());
                }
                _ => {}
            }
        }
        drop(found);
        log.checkpoints.retain(|_, files| is_whole(files));
        match store.get(&Path::from(LOG).join(HINT)).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(|e| store_error("reading the log", e))?;
                let hint: Option<Value> = serde_json::from_slice(&bytes).ok();
                log.hinted = hint.and_then(|hint| hint.get("version")?.as_u64());
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(store_error("reading the log", e)),
        }
        Ok(log)
    }

    /// True when the log tells all that it ever told without its `passed` newest checkpoints.
    fn holds_all_but(&self, passed: usize) -> bool {
        let known = self.versions.last().copied().max(self.checkpoints.keys().next_back().copied()).max(self.hinted);
        let left = self.checkpoints.keys().rev().nth(passed).copied();
        let start = left.map_or(0, |version| version + 1);
        let Some(known) = known else { return false };
        let newest = self.versions.last().copied().max(left);
        let needed = known.saturating_add(1).saturating_sub(start);
        newest == Some(known) && self.versions.range(start..).count() as u64 == needed
    }

    /// What is broken, in place of `error`, which a way of reading without names ended with.
    async fn explain(&self, location: &Location, error: Error) -> Error {
        let newest = self.versions.last().copied();
        let from = self.checkpoints.keys().next_back().map_or(0, |version| version + 1);
        // a gap, or a version that is not readable
        for version in (from..=newest.unwrap_or(0)).rev().take(SEARCHED) {
            let file = log_path(version);
            let told = match self.versions.contains(&version) {
                false => "is missing",
                true if is_broken(location, version).await => "is not readable",
                true => continue,
            };
            let last = (newest == Some(version) && told != "is missing" && version > 0).then(|| file.to_string());
            return Error::new(ErrorKind::Corrupt, format!("version `{version}` of the log (`{file}`) {told}"))
                .hint(way_out(location, last.as_deref()))
                .caused_by(error);
        }
        let checkpoint = self.checkpoints.iter().next_back().and_then(|(_, files)| files.first());
        let told = match (checkpoint, self.hinted) {
            (Some(file), _) => {
                format!("checkpoint `{LOG}/{file}` is not readable, and the log lacks versions before it")
            }
            (None, Some(version)) => {
                format!("the checkpoint of version `{version}` is missing, and so are versions before it")
            }
            (None, None) => "the table's log is not readable".to_owned(),
        };
        Error::new(ErrorKind::Corrupt, told).hint(way_out(location, None)).caused_by(error)
    }
}

/// True when a checkpoint is among `files`, those of one version: one file, or all parts of several.
fn is_whole(files: &[String]) -> bool {
    let mut parts: BTreeMap<usize, usize> = BTreeMap::new();
    for file in files {
        match file.split('.').collect::<Vec<_>>().as_slice() {
            // <version>.checkpoint.<part>.<parts>.parquet
            [_, _, _, all, _] => *parts.entry(all.parse().unwrap_or(usize::MAX)).or_default() += 1,
            _ => return true,
        }
    }
    parts.iter().any(|(all, found)| found == all)
}

/// True when the file of `version` is no commit.
async fn is_broken(location: &Location, version: u64) -> bool {
    let Ok(store) = location.store() else { return false };
    let read = async { store.get(&log_path(version)).await?.bytes().await };
    match read.await {
        Ok(bytes) => Commit::parse(&bytes, version).is_err(),
        Err(e) => matches!(e, object_store::Error::NotFound { .. }),
    }
}

/// A store that lacks some files for who reads.
#[derive(Debug)]
pub(in crate::lake) struct Without {
    pub(in crate::lake) inner: Arc<dyn ObjectStore>,
    pub(in crate::lake) hidden: HashSet<Path>,
}

impl Without {
    fn check(&self, path: &Path) -> object_store::Result<()> {
        if self.hidden.contains(path) {
            let source = "it cannot be read and is passed by".into();
            return Err(object_store::Error::NotFound { path: path.to_string(), source });
        }
        Ok(())
    }

    fn shown(
        &self,
        found: BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let hidden = self.hidden.clone();
        found.try_filter(move |meta| future::ready(!hidden.contains(&meta.location))).boxed()
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Without {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.inner.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.check(from)?;
        self.inner.get_opts(from, options).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.check(from)?;
        self.inner.get_ranges(from, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.shown(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.shown(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects.retain(|meta| !self.hidden.contains(&meta.location));
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.check(from)?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.check(from)?;
        self.inner.rename_opts(from, to, options).await
    }
}
