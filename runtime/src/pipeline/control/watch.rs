//! Watches files: modules and the pipeline file.
//!
//! Receives paths with the hash of what was last read from each. Promises to tell of every new content, once, and only
//! after the file has kept its size and time for a while, so that a file being written is not taken for a whole one
//! as far as can be told. Never judges a content. File events only wake it up: what counts is what the file holds, so
//! that a replaced folder, a changed link and a file system without events are noticed too, later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};

/// How long a file must stay as it is before it is read.
const SETTLE: Duration = Duration::from_millis(100);
/// How often files are looked at without an event.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Contents told and not yet taken up.
const QUEUE: usize = 16;

/// A sha256.
pub(in crate::pipeline) type Hash = [u8; 32];

/// A file that has another content than was told before.
#[derive(Debug)]
pub(in crate::pipeline) struct Settled {
    pub(in crate::pipeline) path: PathBuf,
    /// `None`: the file is gone or cannot be read, and why
    pub(in crate::pipeline) content: Result<Vec<u8>, String>,
}

/// The watcher's other end; dropped, the watching ends.
#[derive(Debug)]
pub(in crate::pipeline) struct Watch {
    pub(in crate::pipeline) settled: mpsc::Receiver<Settled>,
    wanted: Arc<Mutex<BTreeMap<PathBuf, Hash>>>,
    wake: SyncSender<()>,
}

impl Watch {
    /// Starts to watch `files`, whose contents of these hashes are known.
    ///
    /// # Errors
    /// `Internal` when no thread can be had.
    pub(in crate::pipeline) fn start(files: BTreeMap<PathBuf, Hash>) -> Result<Self> {
        let (tell, settled) = mpsc::channel(QUEUE);
        let (wake, woken) = sync_channel(1);
        let wanted = Arc::new(Mutex::new(files));
        let looker = Looker { files: BTreeMap::new(), wanted: Arc::clone(&wanted), tell };
        let waker = wake.clone();
        std::thread::Builder::new().name("lode-watch".into()).spawn(move || looker.run(&woken, waker)).map_err(
            |e| Error::new(ErrorKind::Internal, "the thread that watches files does not start").caused_by(e),
        )?;
        Ok(Watch { settled, wanted, wake })
    }

    /// Watches `files` from now on; those watched before keep what was told of them.
    pub(in crate::pipeline) fn follow(&self, files: BTreeMap<PathBuf, Hash>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = files;
        let _ = self.wake.try_send(());
    }
}

/// What a look at a file shows; `None`: there is no file.
type Stamp = Option<(u64, SystemTime)>;

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.modified().ok()?))
}

struct Watched {
    stamp: Stamp,
    /// since when the stamp is as it is, until the content has been read
    since: Option<Instant>,
    /// the content last told; `None`: that there is none
    told: Option<Hash>,
}

struct Looker {
    files: BTreeMap<PathBuf, Watched>,
    wanted: Arc<Mutex<BTreeMap<PathBuf, Hash>>>,
    tell: mpsc::Sender<Settled>,
}

impl Looker {
    fn run(mut self, woken: &Receiver<()>, waker: SyncSender<()>) {
        let on_event = move |_: notify::Result<notify::Event>| {
            // One waiting wake-up is enough.
            let _ = waker.try_send(());
        };
        let mut events = notify::recommended_watcher(on_event)
            .inspect_err(|error| tracing::debug!(%error, "no file events: files are looked at now and then"))
            .ok();
        let mut folders = BTreeSet::new();
        loop {
            self.follow_wanted(events.as_mut(), &mut folders);
            let Some(settling) = self.look() else { return };
            let pause = if settling { SETTLE / 2 } else { LOOK_EVERY };
            match woken.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.tell.is_closed() {
                return;
            }
        }
    }

    fn follow_wanted(&mut self, events: Option<&mut RecommendedWatcher>, folders: &mut BTreeSet<PathBuf>) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.files.retain(|path, _| wanted.contains_key(path));
        let now: BTreeSet<PathBuf> = wanted.keys().filter_map(|p| Some(p.parent()?.to_path_buf())).collect();
        for (path, hash) in wanted {
            let unseen = || Watched { stamp: None, since: Some(Instant::now()), told: Some(hash) };
            self.files.entry(path).or_insert_with(unseen);
        }
        if let Some(events) = events {
            for gone in folders.difference(&now) {
                let _ = events.unwatch(gone);
            }
            for folder in now.difference(folders) {
                // Folders, not files: a file replaced by a rename is another file.
                if let Err(error) = events.watch(folder, RecursiveMode::NonRecursive) {
                    tracing::debug!(folder = %folder.display(), %error, "no file events from this folder");
                }
            }
        }
        *folders = now;
    }

    /// Looks at every file; true while one of them may still be written to, `None` when nobody listens any more.
    fn look(&mut self) -> Option<bool> {
        let mut settling = false;
        for (path, file) in &mut self.files {
            let now = stamp(path);
            if now != file.stamp {
                file.stamp = now;
                file.since = Some(Instant::now());
            }
            let Some(since) = file.since else { continue };
            if since.elapsed() < SETTLE {
                settling = true;
                continue;
            }
            let content = std::fs::read(path).map_err(|e| e.to_string());
            if stamp(path) != file.stamp {
                settling = true;
                continue;
            }
            file.since = None;
            let hash = content.as_ref().ok().map(|bytes| Sha256::digest(bytes).into());
            if hash != file.told {
                file.told = hash;
                self.tell.blocking_send(Settled { path: path.clone(), content }).ok()?;
            }
        }
        Some(settling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(watch: &mut Watch) -> Settled {
        let wait = tokio::time::timeout(Duration::from_secs(30), watch.settled.recv());
        wait.await.expect("told within the deadline").expect("the watcher lives")
    }

    #[tokio::test]
    async fn tells_of_new_contents_and_of_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let (module, other) = (folder.path().join("a.wasm"), folder.path().join("b.wasm"));
        std::fs::write(&module, b"one").expect("write");
        std::fs::write(&other, b"other").expect("write");
        let known: Hash = Sha256::digest(b"one").into();
        let mut watch = Watch::start(BTreeMap::from([(module.clone(), known)])).expect("watch");
        // The same content written again is no news; a file that is not watched is none either.
        std::fs::write(&module, b"one").expect("write");
        std::fs::write(&other, b"changed").expect("write");
        std::fs::write(&module, b"two").expect("write");
        let told = next(&mut watch).await;
        assert_eq!((told.path.as_path(), told.content.as_deref()), (module.as_path(), Ok(&b"two"[..])));
        // By a rename, as editors and deployments do it.
        std::fs::write(folder.path().join("new"), b"three").expect("write");
        std::fs::rename(folder.path().join("new"), &module).expect("rename");
        assert_eq!(next(&mut watch).await.content.as_deref(), Ok(&b"three"[..]));
        std::fs::remove_file(&module).expect("remove");
        assert!(next(&mut watch).await.content.is_err());
        // Back again with the content that was told last: it was gone meanwhile, so it is news.
        std::fs::write(&module, b"three").expect("write");
        assert_eq!(next(&mut watch).await.content.as_deref(), Ok(&b"three"[..]));
        let hash: Hash = Sha256::digest(b"other").into();
        watch.follow(BTreeMap::from([(other.clone(), hash)]));
        assert_eq!(next(&mut watch).await.content.as_deref(), Ok(&b"changed"[..]));
    }
}
