//! Housekeeping that changes no row: checkpoints, deleting files that no retained version uses, merging owners files.
//!
//! Receives nothing but the table. Promises that a file goes only when it is older than the retention time and neither
//! the newest version nor one younger than that time uses it, as data or as vectors, and never where a generation grows in
//! the folder of the table in force; and that of the log only what the table's own settings call expired goes.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StructArray};
use arrow::datatypes::Int64Type;
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use deltalake::table::config::TablePropertiesExt;
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashSet;
use object_store::ObjectStore;
use object_store::path::Path;
use percent_encoding::percent_decode_str;

use super::Maintained;
use super::compact::Pace;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::failure::store_error;
use crate::lake::file::deletion_vector;
use crate::lake::keyed::rowless_owners::{RowlessKind, RowlessOwner};
use crate::lake::keyed::{KeyedTable, Owners};
use crate::lake::keyed::{multiset, rowless_owners};
use crate::lake::log::commit::now_ms;
use crate::lake::log::detour::Detour;
use crate::lake::log::retention;
use crate::lake::{Location, Settings, log};
use crate::model::change::Op;

/// An entry whose commit is not seen yet is kept this long: it may be on its way.
const ENTRY_GRACE_MS: i64 = 3_600_000;

/// What tells entries apart: kind, owner, sequence, op, and of snapshot rows their place in Kafka.
type Said = (RowlessKind, u128, u128, char, (i32, i64));

/// What a vacuum did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vacuumed {
    /// files deleted
    pub files: usize,
    /// their bytes
    pub bytes: u64,
}

/// Deletes what no retained version of the table at `location` uses.
pub(in crate::lake) async fn vacuum(location: &Location, settings: &Settings) -> Result<Vacuumed> {
    // Before the log is read: what is written and committed from now on is younger.
    let ms = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let cutoff = now_ms()
        .saturating_sub(ms(settings.vacuum_retention))
        .saturating_sub(ms(retention::slack(settings.vacuum_retention)));
    if location.is_staging() {
        return Ok(Vacuumed::default());
    }
    let opened = log::open(location, settings).await?;
    let Some(opened) = opened else { return Ok(Vacuumed::default()) };
    let mut live = tombstones(location, opened.committer.version, cutoff).await?;
    for add in opened.files {
        live.insert(Path::parse(&add.path).unwrap_or_else(|_| Path::from(add.path.as_str())));
        if let Some(described) = &add.deletion_vector
            && let Some(path) = deletion_vector::file_of(described)?
        {
            live.insert(path);
        }
    }
    let store = location.store()?;
    let mut done = Vacuumed::default();
    let mut dead = Vec::new();
    let mut found = store.list(None);
    while let Some(meta) = found.try_next().await.map_err(|e| store_error("listing the table's files", e))? {
        let old = meta.last_modified.timestamp_millis() <= cutoff;
        if old && !is_own(&meta.location) && !live.contains(&meta.location) {
            done.files += 1;
            done.bytes += meta.size;
            dead.push(meta.location);
        }
    }
    drop(found);
    expire(location, opened.committer.version).await?;
    if let Ok(folder) = location.url().to_file_path() {
        let swept = tokio::task::spawn_blocking(move || sweep(&folder, cutoff)).await;
        swept.map_err(|e| Error::new(ErrorKind::Internal, "deleting broken uploads failed").caused_by(e))?;
    }
    delete(&store, dead).await?;
    Ok(done)
}

/// Deletes what uploads left on a local disk when their process ended: `<file>#<number>`, a name that object_store neither
/// lists nor deletes. One that cannot be deleted stays for the next time.
fn sweep(folder: &std::path::Path, cutoff: i64) {
    let is_left = |name: &str| {
        name.split_once(".parquet#").is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, Ok(kind)) = (entry.file_name(), entry.file_type()) else { continue };
        let Some(name) = name.to_str() else { continue };
        if kind.is_dir() && !is_own(&Path::from(name)) {
            sweep(&entry.path(), cutoff);
        }
        let written = entry.metadata().and_then(|meta| meta.modified()).ok().map(chrono::DateTime::<chrono::Utc>::from);
        if kind.is_file() && is_left(name) && written.is_some_and(|at| at.timestamp_millis() <= cutoff) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Deletes the log entries that the table's own settings call expired.
pub(in crate::lake) async fn expire(location: &Location, version: u64) -> Result<()> {
    let table = log::delta_table(location, Some(version)).await?;
    let state = table.snapshot().map_err(|e| store_error("reading the table's log", e))?;
    if state.table_config().enable_expired_log_cleanup() {
        deltalake::checkpoints::cleanup_metadata(&table, None)
            .await
            .map_err(|e| store_error("deleting expired log entries", e))?;
    }
    Ok(())
}

/// Deletes files; one that is gone is well, and one that cannot be deleted saves no other.
async fn delete(store: &Arc<dyn ObjectStore>, paths: Vec<Path>) -> Result<()> {
    let mut deletions = store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
    let mut outcome = Ok(());
    while let Some(deleted) = deletions.next().await {
        match deleted {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => outcome = outcome.and(Err(store_error("deleting files", e))),
        }
    }
    outcome
}

/// True of the log, of `_lode` and of whatever else readers pass over.
fn is_own(path: &Path) -> bool {
    path.parts().any(|part| {
        let part = part.as_ref();
        (part.starts_with('_') && !part.contains('=')) || part.starts_with('.')
    })
}

/// Files that a version younger than `cutoff` used and the newest does not: data and vectors.
async fn tombstones(location: &Location, version: u64, cutoff: i64) -> Result<HashSet<Path>> {
    let gather = move |live: &mut HashSet<Path>, remove: &StructArray| {
        let text = |name: &str| remove.column_by_name(name)?.as_string_opt::<i32>();
        let times = remove.column_by_name("deletionTimestamp").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let vectors = remove.column_by_name("deletionVector").and_then(|c| c.as_struct_opt());
        for row in (0..remove.len()).filter(|row| remove.is_valid(*row)) {
            if times.is_some_and(|t| t.is_valid(row) && t.value(row) < cutoff) {
                continue;
            }
            if let Some(paths) = text("path").filter(|p| p.is_valid(row)) {
                // Paths stand in the log as URIs.
                let path = percent_decode_str(paths.value(row)).decode_utf8_lossy();
                live.insert(Path::parse(&path).unwrap_or_else(|_| Path::from(path.as_ref())));
            }
            if let Some(vectors) = vectors.filter(|v| v.is_valid(row)) {
                live.extend(vector_file(vectors, row)?);
            }
        }
        Ok(())
    };
    let mut way = Detour::of(location);
    loop {
        match log::replay(&way.view()?, version, "remove", HashSet::new(), gather).await {
            Ok((live, _)) => return Ok(live),
            Err(error) => way.after(error).await?,
        }
    }
}

/// The file that holds a removed file's vector.
fn vector_file(vectors: &StructArray, row: usize) -> Result<Option<Path>> {
    let member = |name: &str| {
        let column = vectors.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).to_string())
    };
    match (member("storageType").as_deref(), member("pathOrInlineDv")) {
        (Some("u"), Some(path_or_inline_dv)) => deletion_vector::file_of(&DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv,
            offset: None,
            size_in_bytes: 0,
            cardinality: 0,
        }),
        _ => Ok(None),
    }
}

/// Writes a checkpoint of `version`.
pub(in crate::lake) async fn checkpoint(location: &Location, version: u64) -> Result<()> {
    let table = log::delta_table(location, Some(version)).await?;
    let _turn = log::turn().await;
    deltalake::checkpoints::create_checkpoint(&table, None).await.map_err(|e| store_error("writing a checkpoint", e))
}

impl KeyedTable {
    /// Deletes the files that no retained version uses.
    pub async fn vacuum(&mut self) -> Result<Vacuumed> {
        self.vacuuming().await
    }

    /// Merges the owners files when there are many, leaving out what is older than the window and what the rows tell
    /// by now; true when it did.
    pub(in crate::lake) async fn merge_owner_files(&mut self) -> Result<bool> {
        if self.owners_files <= self.committer.settings.owners_files_max {
            return Ok(false);
        }
        let store = Arc::clone(&self.committer.store);
        let generation = self.committer.generation;
        let now = now_ms();
        let window = i64::try_from(self.committer.settings.owners_window.as_millis()).unwrap_or(i64::MAX);
        let mut newest: hashbrown::HashMap<Said, RowlessOwner> = hashbrown::HashMap::new();
        let paths = rowless_owners::read_all(&store, generation, |entry| {
            let age = now.saturating_sub(entry.written_ms);
            let kept = if entry.is_valid(&self.committer.positions) {
                // a floor is one entry and holds for ever
                entry.kind == RowlessKind::Floor || (age <= window && !self.knows(&entry))
            } else {
                age <= ENTRY_GRACE_MS
            };
            if !kept {
                return;
            }
            // entries that are not valid yet stay apart, each under its own change
            let seq = if entry.kind == RowlessKind::Gone && entry.is_valid(&self.committer.positions) {
                0
            } else {
                entry.seq.0
            };
            // snapshot rows share their sequence
            let is_read = entry.kind == RowlessKind::Applied && entry.op == multiset::letter(Op::Read);
            let place = if is_read { multiset::place(&entry.origin) } else { (0, 0) };
            let slot = newest.entry((entry.kind, entry.owner, seq, entry.op, place));
            slot.and_modify(|known| {
                if entry.seq > known.seq {
                    *known = entry.clone();
                }
            })
            .or_insert(entry);
        })
        .await?;
        let entries: Vec<RowlessOwner> = newest.into_values().collect();
        if !entries.is_empty() {
            rowless_owners::write(&store, generation, &entries).await?;
        }
        delete(&store, paths).await?;
        if let Owners::Multiset(set) = &mut self.owners {
            let positions = &self.committer.positions;
            set.keep_applied(entries.iter().filter(|e| e.kind == RowlessKind::Applied && e.is_valid(positions)));
        }
        self.owners_files = usize::from(!entries.is_empty());
        Ok(true)
    }

    /// True when the entry says nothing that the rows do not say.
    fn knows(&self, entry: &RowlessOwner) -> bool {
        match (&self.owners, entry.kind) {
            (Owners::Keyed(index), RowlessKind::Gone) => {
                entry.seq < self.floor
                    || index.has_rows(entry.owner)
                        && index.sequence(entry.owner).is_some_and(|known| known >= entry.seq)
            }
            _ => entry.kind != RowlessKind::Floor && entry.seq < self.floor,
        }
    }

    /// One round of compaction, owners merge, checkpoint and vacuum, in turn; for callers without a background task.
    pub async fn maintain(&mut self) -> Result<Vacuumed> {
        while let Some(compaction) = self.plan_compaction(Pace::Steady) {
            let rewritten = compaction.rewrite().await?;
            if !self.commit_compaction(rewritten).await? {
                break;
            }
        }
        self.merge_owner_files().await?;
        if let Some(checkpoint) = self.checkpointing() {
            checkpoint.await?;
        }
        self.vacuum().await
    }
}
