//! A store that rejects, answers too late, hangs or is slow, by chance or where a test wants it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, UploadPart,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use crate::lake::Location;

/// What happens to a request.
#[derive(Debug, Clone)]
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
    /// done once the test says so
    Hold(Arc<Hold>),
}

/// Requests that wait for the test.
#[derive(Debug)]
pub(crate) struct Hold {
    waiting: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Hold {
    /// Ends once a request waits.
    pub(crate) async fn met(&self) {
        self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.unwrap();
    }

    /// Lets go on whatever waits, and whatever comes.
    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }
}

/// What happens to the requests of `operation` whose path has `part` in it.
#[derive(Debug)]
struct Rule {
    operation: &'static str,
    part: &'static str,
    fault: Fault,
}

/// Faults by chance, and by rule.
#[derive(Debug)]
pub(crate) struct Chance {
    rng: StdRng,
    of_hundred: u32,
    /// requests may stay without an answer: only where the caller can be cut off, which a log being read cannot
    hangs: bool,
    rules: Vec<Rule>,
    /// faults by operation, so that a test sees each of them met
    pub(crate) met: BTreeMap<&'static str, u32>,
}

pub(crate) type Shared = Arc<Mutex<Chance>>;

#[derive(Debug)]
struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    chance: Shared,
}

/// An upload in parts that fails like everything else.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    chance: Shared,
}

#[async_trait::async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = next(&self.chance, "put_part", "");
        let part = self.inner.put_part(data);
        Box::pin(run(fault, part))
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let fault = next(&self.chance, "complete", "");
        run(fault, self.inner.complete()).await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        let fault = next(&self.chance, "abort", "");
        run(fault, self.inner.abort()).await
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

pub(super) fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "injected".into() }
}

fn next(chance: &Shared, operation: &'static str, at: &str) -> Option<Fault> {
    let mut chance = chance.lock().unwrap();
    let rule = chance.rules.iter().find(|rule| rule.operation == operation && at.contains(rule.part));
    if let Some(fault) = rule.map(|rule| rule.fault.clone()) {
        *chance.met.entry(operation).or_default() += 1;
        return Some(fault);
    }
    let limit = chance.of_hundred;
    if chance.rng.random_range(0..100) >= limit {
        return None;
    }
    *chance.met.entry(operation).or_default() += 1;
    let all = [Fault::Reject, Fault::FailAfterWork, Fault::Slow, Fault::Hang, Fault::HangAfterWork];
    let of = if chance.hangs { all.len() } else { 3 };
    Some(all[chance.rng.random_range(0..of)].clone())
}

async fn run<T>(fault: Option<Fault>, work: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
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
        Some(Fault::Hold(hold)) => {
            hold.waiting.send_modify(|waiting| *waiting += 1);
            hold.open.subscribe().wait_for(|open| *open).await.unwrap();
            work.await
        }
    }
}

/// A stream each of whose answers may be lost.
fn run_each<T: Send + 'static>(
    chance: &Shared,
    operation: &'static str,
    inner: BoxStream<'static, object_store::Result<T>>,
) -> BoxStream<'static, object_store::Result<T>> {
    let chance = chance.clone();
    let first = next(&chance, operation, "");
    let begun = futures::stream::once(run(first, async { Ok(None) }));
    let each = inner.then(move |item| {
        let fault = next(&chance, operation, "");
        run(fault, async { item.map(Some) })
    });
    begun.chain(each).try_filter_map(|item| std::future::ready(Ok(item))).boxed()
}

/// After an error a listing has ended; a deletion goes on with the next file.
fn end_broken<T: Send + 'static>(
    found: BoxStream<'static, object_store::Result<T>>,
) -> BoxStream<'static, object_store::Result<T>> {
    let sound = |broken: &mut bool, item: object_store::Result<T>| {
        let ended = std::mem::replace(broken, item.is_err());
        std::future::ready((!ended).then_some(item))
    };
    found.scan(false, sound).boxed()
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let name = if matches!(options.mode, PutMode::Create) { "put_if_absent" } else { "put" };
        run(next(&self.chance, name, at.as_ref()), self.inner.put_opts(at, body, options)).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let inner =
            run(next(&self.chance, "put_multipart", at.as_ref()), self.inner.put_multipart_opts(at, options)).await?;
        Ok(Box::new(FaultyUpload { inner, chance: self.chance.clone() }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let name = if options.head { "head" } else { "get" };
        run(next(&self.chance, name, at.as_ref()), self.inner.get_opts(at, options)).await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[std::ops::Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        run(next(&self.chance, "get_ranges", at.as_ref()), self.inner.get_ranges(at, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        run_each(&self.chance, "delete", self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        end_broken(run_each(&self.chance, "list", self.inner.list(prefix)))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        end_broken(run_each(&self.chance, "list_with_offset", self.inner.list_with_offset(prefix, offset)))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        run(next(&self.chance, "list_with_delimiter", ""), self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        run(next(&self.chance, "copy", from.as_ref()), self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        run(next(&self.chance, "rename", from.as_ref()), self.inner.rename_opts(from, to, options)).await
    }
}

/// The same place, through a store that does what `trouble`, [`refuse`], [`lose`] and [`hold`] say.
pub(crate) fn faulty(sound: &Location, seed: u64) -> (Location, Shared) {
    let rng = StdRng::seed_from_u64(seed + 1);
    let chance =
        Arc::new(Mutex::new(Chance { rng, of_hundred: 0, hangs: false, rules: Vec::new(), met: BTreeMap::new() }));
    let shared = chance.clone();
    let location = sound.clone().wrapped(|inner| Arc::new(FaultyStore { inner, chance: shared }));
    (location, chance)
}

/// From now on so many requests of a hundred go wrong.
pub(crate) fn trouble(chance: &Shared, of_hundred: u32, hangs: bool) {
    let mut chance = chance.lock().unwrap();
    (chance.of_hundred, chance.hangs) = (of_hundred, hangs);
}

/// From now on every request of `operation` on a path with `part` in it is an error.
pub(crate) fn refuse(chance: &Shared, operation: &'static str, part: &'static str) {
    chance.lock().unwrap().rules.push(Rule { operation, part, fault: Fault::Reject });
}

/// From now on every such request is done, and its answer is an error.
pub(crate) fn lose(chance: &Shared, operation: &'static str, part: &'static str) {
    chance.lock().unwrap().rules.push(Rule { operation, part, fault: Fault::FailAfterWork });
}

/// From now on every such request waits.
pub(crate) fn hold(chance: &Shared, operation: &'static str, part: &'static str) -> Arc<Hold> {
    let hold = Arc::new(Hold { waiting: watch::Sender::new(0), open: watch::Sender::new(false) });
    chance.lock().unwrap().rules.push(Rule { operation, part, fault: Fault::Hold(Arc::clone(&hold)) });
    hold
}

/// From now on no request is refused, lost or held; what waits goes on waiting.
pub(crate) fn forgive(chance: &Shared) {
    chance.lock().unwrap().rules.clear();
}

/// A store whose faults are turned off.
pub(in crate::lake) fn silent(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    let rng = StdRng::seed_from_u64(0);
    let chance = Chance { rng, of_hundred: 0, hangs: false, rules: Vec::new(), met: BTreeMap::new() };
    Arc::new(FaultyStore { inner, chance: Arc::new(Mutex::new(chance)) })
}
