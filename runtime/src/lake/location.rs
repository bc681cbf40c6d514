//! Where tables lie: an address, the store behind it, and the names that may stand in it.
//!
//! Receives an address (a local path, or a URL of `file`, `memory`, `abfss`, `abfs`, `az`, `s3`) with its options.
//! Promises that a lost put-if-absent is an [`object_store::Error::AlreadyExists`] on every store, and that a table
//! name cannot lead outside the root. Never reads or writes by itself.
mod s3;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use deltalake::DeltaResult;
use deltalake::logstore::{LogStoreRef, ObjectStoreFactory as _, StorageConfig, default_logstore};
use deltalake_azure::AzureFactory;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};
use url::Url;

use crate::error::{Error, ErrorKind, Result};

const SCHEMES: &[&str] = &["file", "memory", "abfss", "abfs", "az", "azure", "adl", "s3", "s3a"];
const NAME_BYTES_MAX: usize = 200;

/// A folder of the lake and the store that holds it.
#[derive(Clone)]
pub struct Location {
    url: Url,
    root: Arc<dyn ObjectStore>,
    config: StorageConfig,
    is_staging: bool,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Location").field(&self.url.as_str()).finish()
    }
}

impl Location {
    /// Opens the folder at `address`: a local path (made when it is absent) or a URL. `options` are object_store's
    /// keys, such as `azure_storage_account_name` or `use_emulator`.
    ///
    /// Errors: `Config` when the address or the options cannot be used.
    pub fn open(address: &str, options: &HashMap<String, String>) -> Result<Self> {
        let url = folder_url(address)?;
        let config = StorageConfig::parse_options(options)
            .map_err(|e| Error::new(ErrorKind::Config, format!("options of the lake at `{address}`")).caused_by(e))?;
        if matches!(url.scheme(), "s3" | "s3a")
            && let Some(key) = s3::overwriting(options, |name| std::env::var(name).ok())
        {
            return Err(Error::new(
                ErrorKind::Config,
                format!("with `{key}` two writers of `{address}` can overwrite each other's commit"),
            )
            .hint("take it out of `lake.options` and the environment: S3 and its likes know put-if-absent"));
        }
        let root = open_root(&url, &config)
            .map_err(|e| Error::new(ErrorKind::Config, format!("lake at `{address}`")).caused_by(e))?;
        Ok(Location { url, root: map_conflicts(root), config, is_staging: false })
    }

    /// The same folder with another store around the one that holds it: faults, throttles, counters.
    #[must_use]
    pub fn wrapped(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.root = wrap(self.root);
        self
    }

    /// The same folder as the one in which a table grows beside another that is in force.
    #[must_use]
    pub(super) fn staging(self) -> Self {
        Location { is_staging: true, ..self }
    }

    /// True where files that the table does not name may be those of the table in force.
    pub(super) fn is_staging(&self) -> bool {
        self.is_staging
    }

    /// The folder of table `name` (parts separated by `/`) under this one.
    ///
    /// Errors: `Config` for names that a path cannot hold.
    pub fn table(&self, name: &str) -> Result<Self> {
        for part in name.split('/') {
            check_name(part)?;
        }
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Error::new(ErrorKind::Config, format!("address `{}` has no path", self.url)))?
            .pop_if_empty()
            .extend(name.split('/'))
            .push("");
        Ok(Location { url, ..self.clone() })
    }

    /// The folder's URL, with a slash at the end.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The store, whose root is this folder.
    pub fn store(&self) -> Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(PrefixStore::new(self.root.clone(), self.folder()?)))
    }

    /// The folder's path in the storage's own root.
    pub(super) fn folder(&self) -> Result<Path> {
        Path::from_url_path(self.url.path())
            .map_err(|e| Error::new(ErrorKind::Config, format!("address `{}`", self.url)).caused_by(e))
    }

    /// deltalake's view of a table that lies here.
    pub fn log_store(&self) -> Result<LogStoreRef> {
        Ok(default_logstore(self.store()?, self.root.clone(), &self.url, &self.config))
    }
}

/// The store of the scheme, whose root is the storage's own: a container, a bucket, a disk.
fn open_root(url: &Url, config: &StorageConfig) -> DeltaResult<Arc<dyn ObjectStore>> {
    match url.scheme() {
        "s3" | "s3a" => s3::open(url, config),
        "file" | "memory" => Ok(object_store::parse_url_opts(url, &config.raw)?.0.into()),
        _ => Ok(AzureFactory {}.parse_url_opts(url, config)?.0),
    }
}

fn folder_url(address: &str) -> Result<Url> {
    let bad = |what: &str| Error::new(ErrorKind::Config, format!("address `{address}` {what}"));
    let mut url = match Url::parse(address) {
        // one letter is a drive of Windows, not a scheme
        Ok(url) if url.scheme().len() > 1 => {
            if !SCHEMES.contains(&url.scheme()) {
                return Err(bad("has an unknown scheme").hint("use a local path, abfss://, az:// or s3://"));
            }
            url
        }
        _ => {
            let path = FilePath::new(address);
            std::fs::create_dir_all(path).map_err(|e| bad("cannot be made").caused_by(e))?;
            let path = path.canonicalize().map_err(|e| bad("cannot be found").caused_by(e))?;
            Url::from_directory_path(path).map_err(|()| bad("is no folder"))?
        }
    };
    if !url.username().is_empty() && url.password().is_some() {
        return Err(bad("carries a password").hint("give credentials by the environment or a file"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

fn check_name(part: &str) -> Result<()> {
    // below a folder of that name readers take everything for a log
    let sound = part != "_delta_log"
        && !part.is_empty()
        && part.len() <= NAME_BYTES_MAX
        && part != "."
        && part != ".."
        && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if sound {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, format!("table name `{}` cannot be a folder", part.escape_default()))
        .hint("letters, digits, `_`, `-` and `.` only, at most 200 bytes, and not `_delta_log`"))
}

/// A store on which losing a put-if-absent is always `AlreadyExists`.
///
/// ADLS answers it with 412, which object_store 0.13 reports as `Precondition`; deltalake and [`super::log::commit`] know
/// only `AlreadyExists` as a lost race.
pub fn map_conflicts(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    Arc::new(MapConflicts(inner))
}

struct MapConflicts(Arc<dyn ObjectStore>);

/// A store's own `Debug` may show its credentials; what it displays does not.
impl fmt::Debug for MapConflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for MapConflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for MapConflicts {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let create = matches!(options.mode, PutMode::Create);
        self.0.put_opts(location, payload, options).await.map_err(|error| match error {
            object_store::Error::Precondition { path, source } if create => {
                object_store::Error::AlreadyExists { path, source }
            }
            other => other,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(address: &str, options: &[(&str, &str)]) -> Result<Location> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Location::open(address, &options)
    }

    #[test]
    fn every_form_of_an_address_opens_its_store() {
        let account = [("azure_storage_account_name", "shop"), ("azure_storage_account_key", "c2VjcmV0")];
        let azure = "MicrosoftAzure { account: shop, container: lake }";
        for (address, options, store) in [
            ("az://lake/online", &account[..], azure),
            ("azure://lake/online", &account, azure),
            ("adl://lake/online", &account, azure),
            ("abfs://lake@shop.dfs.core.windows.net/online", &account[1..], azure),
            ("abfss://lake@shop.dfs.core.windows.net/online", &account[1..], azure),
            (
                "az://lake/online",
                &[("use_emulator", "true")],
                "MicrosoftAzure { account: devstoreaccount1, container: lake }",
            ),
            ("s3://lake/online", &[], "AmazonS3(lake)"),
            ("s3a://lake/online", &[("endpoint", "http://127.0.0.1:9"), ("aws_allow_http", "true")], "AmazonS3(lake)"),
            ("memory:///online", &[], "InMemory"),
            ("file:///tmp/online", &[], "LocalFileSystem(file:///)"),
        ] {
            let location = open(address, options).unwrap_or_else(|e| panic!("{address}: {e:?}"));
            assert_eq!(location.root.to_string(), store, "{address}");
            assert!(location.store().unwrap().to_string().contains("online"), "{address}: the root is its folder");
            location.table("silver/orders").unwrap().log_store().unwrap();
        }
    }

    #[test]
    fn s3_without_put_if_absent_is_refused() {
        for address in ["s3://lake/x", "s3a://lake/x"] {
            let error = open(address, &[("conditional_put", "disabled")]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{address}");
            assert!(error.to_string().contains("`aws_conditional_put`"), "{error}");
        }
        assert!(open("memory:///x", &[("conditional_put", "disabled")]).is_ok(), "it means nothing elsewhere");
    }
}
