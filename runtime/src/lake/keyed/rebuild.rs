//! A table made anew beside the one in force, and put in its place by one commit.
//!
//! Receives the location of a table. Gives another location at which a [`crate::lake::KeyedTable`] of the next generation
//! grows: its data files and vectors lie in the table's own folder, its log apart from the table's log, so that nobody
//! sees it. Promises that the exchange is one commit, and that it does not happen when the table was rebuilt by somebody
//! else meanwhile. What an abandoned attempt leaves behind is no part of any version, and vacuum deletes it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::failure::store_error;
use crate::lake::log::commit::{Attempts, Put, add_action, configuration, removal, remove_action};
use crate::lake::{Location, Settings, log};
use crate::model::positions::Positions;

/// A generation of a table on its way.
#[derive(Debug)]
pub struct Rebuild {
    table: Location,
    staging: Location,
    settings: Settings,
    from: u64,
    generation: u64,
}

impl Rebuild {
    /// Chooses a generation for the table at `location`; `None` where there is no table.
    ///
    /// # Errors
    /// The lake's.
    pub async fn begin(location: &Location, settings: &Settings) -> Result<Option<Rebuild>> {
        let Some(opened) = log::open(location, settings).await? else { return Ok(None) };
        let from = opened.committer.generation;
        let generation = generations(location).await?.into_iter().fold(from, u64::max) + 1;
        let folder = Path::from_url_path(location.url().path())
            .map_err(|e| Error::new(ErrorKind::Config, format!("address `{}`", location.url())).caused_by(e))?;
        let (seen, lies) =
            (folder.clone().join("_delta_log"), folder.join("_lode").join(format!("g{generation}")).join("log"));
        let staging = location.clone().wrapped(|inner| Arc::new(Moved { inner, seen, lies })).staging();
        Ok(Some(Rebuild { table: location.clone(), staging, settings: settings.clone(), from, generation }))
    }

    /// Where the new generation grows.
    pub fn staging(&self) -> &Location {
        &self.staging
    }

    /// The new generation's number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The positions of the table in force.
    ///
    /// # Errors
    /// The lake's; `Rebuilt` when somebody else put another generation in its place.
    pub async fn positions(&self) -> Result<Positions> {
        Ok(self.in_force().await?.committer.positions)
    }

    async fn in_force(&self) -> Result<log::Opened> {
        let opened = log::open(&self.table, &self.settings).await?.ok_or_else(|| self.overtaken())?;
        match opened.committer.generation == self.from {
            true => Ok(opened),
            false => Err(self.overtaken()),
        }
    }

    fn overtaken(&self) -> Error {
        Error::new(ErrorKind::Rebuilt, format!("the table at `{}` was rebuilt by somebody else", self.table.url()))
            .hint("run `lode rebuild` again if it is still wanted")
    }

    /// Puts what has grown in the place of the table, in one commit; the version.
    ///
    /// # Errors
    /// The lake's; `Rebuilt` as in [`Self::positions`]; `Conflict` when others commit without a pause.
    pub async fn take_over(&self, mut info: Map<String, Value>) -> Result<u64> {
        let grown = log::open(&self.staging, &self.settings)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("nothing has grown of `{}`", self.table.url())))?;
        info.insert("generation".to_owned(), self.generation.into());
        let mut attempts = Attempts::of("REBUILD", info);
        loop {
            let old = self.in_force().await?;
            match attempts.put(&old.committer, &exchange(&old, &grown)?).await? {
                Put::Written => {
                    self.clear().await;
                    return Ok(old.committer.version + 1);
                }
                Put::Taken(_) => {}
            }
        }
    }

    /// Deletes the log of the new generation, which is in the table's own now, and what earlier attempts left.
    async fn clear(&self) {
        let cleared = async {
            let store = self.table.store()?;
            for generation in generations(&self.table).await? {
                let whole = generation != self.from && generation < self.generation;
                let folder = Path::from(format!("_lode/g{generation}"));
                let folder = if whole { folder } else { folder.join("log") };
                let found: Vec<ObjectMeta> =
                    store.list(Some(&folder)).try_collect().await.map_err(|e| store_error("listing files", e))?;
                let paths = futures::stream::iter(found.into_iter().map(|meta| Ok(meta.location))).boxed();
                let _: Vec<_> = store.delete_stream(paths).collect().await;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = cleared.await {
            tracing::warn!(%error, "what the rebuild leaves behind could not be deleted");
        }
    }
}

/// The actions that make the table hold what `grown` holds, and nothing of `old`.
fn exchange(old: &log::Opened, grown: &log::Opened) -> Result<Vec<Value>> {
    let mut metadata = grown.committer.metadata.clone();
    // The same table to its readers: its id stays.
    if let (Some(members), Some(id)) = (metadata.as_object_mut(), old.committer.metadata.get("id")) {
        members.insert("id".to_owned(), id.clone());
    }
    let settled = configuration(&metadata);
    if !settled.contains_key("lode.generation") {
        return Err(Error::new(ErrorKind::Internal, "the new generation does not say which it is"));
    }
    let mut actions = vec![json!({"protocol": grown.committer.schema.protocol(true)}), json!({"metaData": metadata})];
    for add in &old.files {
        actions.push(remove_action(&removal(add, true))?);
    }
    for add in &grown.files {
        let mut add = add.clone();
        add.data_change = true;
        actions.push(add_action(&add)?);
    }
    let now = crate::lake::log::commit::now_ms();
    let positions = grown.committer.positions.iter();
    let positions = positions.map(|(input, next)| (input.app_id(grown.committer.generation), *next));
    for (id, version) in positions.chain(grown.committer.other_txns.clone()) {
        actions.push(json!({"txn": {"appId": id, "version": version, "lastUpdated": now}}));
    }
    Ok(actions)
}

/// Generations that have a folder of their own beside the table.
async fn generations(location: &Location) -> Result<Vec<u64>> {
    let listed = location.store()?.list_with_delimiter(Some(&Path::from("_lode"))).await;
    let listed = listed.map_err(|e| store_error("listing the generations", e))?;
    let number = |path: &Path| path.filename()?.strip_prefix('g')?.parse().ok();
    Ok(listed.common_prefixes.iter().filter_map(number).collect())
}

/// A store in which the folder `lies` is seen as `seen`.
#[derive(Debug)]
pub(in crate::lake) struct Moved {
    pub(in crate::lake) inner: Arc<dyn ObjectStore>,
    pub(in crate::lake) seen: Path,
    pub(in crate::lake) lies: Path,
}

impl Moved {
    fn inward(&self, path: &Path) -> Path {
        moved(path, &self.seen, &self.lies)
    }

    fn outward(&self, mut meta: ObjectMeta) -> ObjectMeta {
        meta.location = moved(&meta.location, &self.lies, &self.seen);
        meta
    }
}

fn moved(path: &Path, from: &Path, to: &Path) -> Path {
    match path.prefix_match(from) {
        Some(rest) => rest.fold(to.clone(), |path, part| path.join(part)),
        None => path.clone(),
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Moved {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.inner.put_opts(&self.inward(to), payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(&self.inward(to), options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let mut got = self.inner.get_opts(&self.inward(from), options).await?;
        got.meta = self.outward(got.meta);
        Ok(got)
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(&self.inward(from), ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let (seen, lies) = (self.seen.clone(), self.lies.clone());
        let (back_seen, back_lies) = (seen.clone(), lies.clone());
        let inner = paths.map_ok(move |path| moved(&path, &seen, &lies)).boxed();
        self.inner.delete_stream(inner).map_ok(move |path| moved(&path, &back_lies, &back_seen)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (seen, lies) = (self.seen.clone(), self.lies.clone());
        let prefix = prefix.map(|prefix| self.inward(prefix));
        let back = move |mut meta: ObjectMeta| {
            meta.location = moved(&meta.location, &lies, &seen);
            meta
        };
        self.inner.list(prefix.as_ref()).map_ok(back).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let (seen, lies) = (self.seen.clone(), self.lies.clone());
        let prefix = prefix.map(|prefix| self.inward(prefix));
        let back = move |mut meta: ObjectMeta| {
            meta.location = moved(&meta.location, &lies, &seen);
            meta
        };
        self.inner.list_with_offset(prefix.as_ref(), &self.inward(offset)).map_ok(back).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let prefix = prefix.map(|prefix| self.inward(prefix));
        let mut found = self.inner.list_with_delimiter(prefix.as_ref()).await?;
        found.objects = found.objects.into_iter().map(|meta| self.outward(meta)).collect();
        found.common_prefixes = found.common_prefixes.iter().map(|path| moved(path, &self.lies, &self.seen)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(&self.inward(from), &self.inward(to), options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.inner.rename_opts(&self.inward(from), &self.inward(to), options).await
    }
}
