//! Keyed tables: for every owner, the rows of the owner's latest change.
//!
//! Receives decoded changes and, for the winning ones, the rows they became. Promises one rule for inserts, updates,
//! deletes, filters, fan-out and changed keys: for each owner touched by a batch, hide the rows it owned and write the
//! rows it owns now. Keeps in memory the file list, the hidden rows and the index, and follows the log: they always
//! stand at [`KeyedTable::version`]. Never runs MERGE and never reads a row to change it.
pub(super) mod key;
mod hash_table;
pub(super) mod index;
pub(super) mod multiset;
pub(super) mod rowless_owners;
mod change_set;
pub(super) mod reader;
pub(super) mod select;
mod write;
pub(super) mod replace;
mod replay;
pub(super) mod evolve;
mod rename;
pub(super) mod rebuild;
mod follow;

pub use change_set::ChangeSet;
pub use evolve::Columns;
pub use follow::{Difference, Follower, Next};
pub use key::{Owner, images_of, owners_of};
pub use rebuild::Rebuild;
pub use replace::{Committed, OwnerRows};
pub use select::Selection;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use deltalake::kernel::Add;
use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};

use super::file::live_files::{Extent, LiveFiles};
use super::freshness::{FRESHNESS, Freshness};
use super::log::commit::{Commit, Committer, configuration};
use super::log::schema::TableSchema;
use super::{Location, Settings, TableSpec, log};
use crate::error::{Error, ErrorKind, Result};
use crate::model::change::{Changes, Floor};
use crate::model::positions::Positions;
use crate::model::sequence::Sequence;
use index::Index;
use index::Place;
use key::Hasher;
use multiset::Multiset;
use reader::{OwnerReader, Read};
use rename::RENAMED;
use rowless_owners::RowlessKind;
use select::{gather, newest_floor, winners};

const FILES_AT_ONCE: usize = 4;

/// Who owns what.
#[derive(Debug)]
pub(super) enum Owners {
    /// by key: one state an owner
    Keyed(Index),
    /// by row image: any number of equal rows
    Multiset(Multiset),
}

/// A text in a table's metadata that whoever writes the table keeps there, committed with the rows that it is true of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memo {
    /// how the decoder numbers what it reads
    Epochs,
    /// what derived the rows: module, params, and what is looked up
    DerivedBy,
}

impl Memo {
    /// The key in the table's configuration.
    fn key(self) -> &'static str {
        match self {
            Memo::Epochs => "lode.epochs",
            Memo::DerivedBy => "lode.derived_by",
        }
    }
}

/// A table that holds, for every owner, the rows of the owner's latest change.
#[derive(Debug)]
pub struct KeyedTable {
    pub(super) committer: Committer,
    pub(super) files: LiveFiles,
    pub(super) owners: Owners,
    pub(super) key: Vec<String>,
    pub(super) freshness: Freshness,
    pub(super) hasher: Hasher,
    pub(super) floor: Sequence,
    /// owners files in the lake
    pub(super) owners_files: usize,
    /// owners whose rows another writer took away, to be remembered by the next commit
    pub(super) rowless_due: Vec<(Owner, Sequence)>,
    /// a memo that the next commit stores
    pub(super) memo_due: Option<(Memo, String)>,
}

/// The owner key that the table's configuration names.
pub(super) fn own_key(committer: &Committer) -> Result<Vec<String>> {
    let settled = configuration(&committer.metadata);
    settled.get("lode.key").and_then(|k| serde_json::from_str(k).ok()).ok_or_else(|| {
        let url = committer.location.url();
        Error::new(ErrorKind::Config, format!("the Delta table at `{url}` was not made by lode"))
            .hint("move it away, or give the table another name")
    })
}

impl KeyedTable {
    /// Opens the table at `location`, or makes it by `spec`, and loads its index. An existing table keeps its own
    /// columns; see [`Self::evolve`].
    ///
    /// Errors: `Config` when the table there has another key, or asks for features lode does not write.
    pub async fn open_or_create(location: Location, spec: TableSpec, settings: Settings) -> Result<Self> {
        let make = || {
            let schema = TableSchema::of_spec(&spec)?;
            let protocol = schema.protocol(true);
            let mut configuration = json!({
                "delta.enableDeletionVectors": "true",
                "lode.generation": spec.generation.to_string(),
                "lode.key": json!(spec.key).to_string(),
                "lode.table": spec.name,
                RENAMED: spec.renamed.to_string(),
                "lode.seed": format!("{:016x}", uuid::Uuid::new_v4().as_u128() as u64),
            });
            if let (Some(word), Some(members)) = (spec.freshness.word(), configuration.as_object_mut()) {
                members.insert(FRESHNESS.to_string(), word.into());
            }
            Ok((schema, protocol, configuration))
        };
        let opened = log::open_or_create(location, &spec.name, settings, make).await?;
        let key = own_key(&opened.committer)?;
        if key != spec.key {
            return Err(Error::new(
                ErrorKind::Config,
                format!("table `{}` has the key ({}), not ({})", spec.name, key.join(", "), spec.key.join(", ")),
            )
            .hint("`lode rebuild` makes the table anew with another key"));
        }
        let table = Self::from_log(opened, key).await?;
        if table.freshness != spec.freshness {
            return Err(Error::new(
                ErrorKind::Config,
                format!("table `{}` was made to replace rows by another rule", spec.name),
            )
            .hint("`lode rebuild` makes the table anew"));
        }
        Ok(table)
    }

    /// Opens the table at `location` as it is, and loads its index; `None` where there is none, or a feed of changes.
    ///
    /// Errors: `Config` when lode did not make the table, or it asks for features lode does not write.
    pub async fn open(location: Location, settings: Settings) -> Result<Option<Self>> {
        let Some(opened) = log::open(&location, &settings).await? else { return Ok(None) };
        if configuration(&opened.committer.metadata).contains_key("lode.feed_of") {
            return Ok(None);
        }
        let key = own_key(&opened.committer)?;
        Self::from_log(opened, key).await.map(Some)
    }

    async fn from_log(opened: log::Opened, key: Vec<String>) -> Result<Self> {
        let settled = configuration(&opened.committer.metadata);
        let seed = settled.get("lode.seed").and_then(|s| u64::from_str_radix(s, 16).ok()).unwrap_or(0);
        let freshness = Freshness::of_metadata(&opened.committer.metadata)?;
        let owners =
            if key.is_empty() { Owners::Multiset(Multiset::default()) } else { Owners::Keyed(Index::default()) };
        let mut table = KeyedTable {
            committer: opened.committer,
            files: LiveFiles::default(),
            owners,
            key,
            freshness,
            hasher: Hasher::with_seed(seed),
            floor: Sequence::MIN,
            owners_files: 0,
            rowless_due: Vec::new(),
            memo_due: None,
        };
        table.load(opened.files).await?;
        Ok(table)
    }

    async fn load(&mut self, adds: Vec<Add>) -> Result<()> {
        self.load_owners().await?;
        let reserve: u64 = adds
            .iter()
            .filter_map(|add| {
                let rows = add.stats.as_deref().and_then(super::file::stats::records)?;
                let hidden = add.deletion_vector.as_ref().map_or(0, |v| u64::try_from(v.cardinality).unwrap_or(0));
                Some(rows.saturating_sub(hidden))
            })
            .sum();
        if let Owners::Keyed(index) = &mut self.owners {
            index.reserve(usize::try_from(reserve).unwrap_or(0));
        }
        let reader = self.reader();
        let mut reads = stream::iter(adds.into_iter().map(|add| {
            let reader = reader.clone();
            // a task each, so that decoding uses the cores
            tokio::spawn(async move { reader.read(add).await })
        }))
        .buffered(FILES_AT_ONCE);
        while let Some(read) = reads.next().await {
            crate::failpoint::pass("index.while_loading");
            let read = read.map_err(|e| Error::new(ErrorKind::Internal, "loading the index failed").caused_by(e))??;
            self.take_in(read)?;
        }
        Ok(())
    }

    /// Reads the owners files.
    pub(super) async fn load_owners(&mut self) -> Result<()> {
        let store = self.committer.store.clone();
        let positions = &self.committer.positions;
        let (floor, owners) = (&mut self.floor, &mut self.owners);
        let paths = rowless_owners::read_all(&store, self.committer.generation, |entry| {
            if !entry.is_valid(positions) {
                return;
            }
            match (entry.kind, &mut *owners) {
                (RowlessKind::Floor, _) => *floor = (*floor).max(entry.seq),
                (RowlessKind::Gone, Owners::Keyed(index)) => index.note(entry.owner, entry.seq),
                (RowlessKind::Applied, Owners::Multiset(set)) => set.note_entry(&entry),
                _ => {}
            }
        })
        .await?;
        self.owners_files = paths.len();
        let floor = self.floor;
        match &mut self.owners {
            Owners::Keyed(index) => index.forget_rowless(|seq| seq < floor),
            Owners::Multiset(set) => set.forget_older(floor),
        }
        Ok(())
    }

    /// Puts a file and its rows into the file list and the index.
    pub(super) fn take_in(&mut self, read: Read) -> Result<u32> {
        let file = self.files.insert(read.file)?;
        for (row, owner, seq) in read.rows {
            self.add_row(owner, seq, Place { file, row });
        }
        Ok(file)
    }

    /// Puts one row into the index.
    pub(super) fn add_row(&mut self, owner: Owner, seq: Sequence, place: Place) {
        match &mut self.owners {
            Owners::Keyed(index) if self.freshness == Freshness::Newer => index.add(owner, seq, place),
            Owners::Keyed(index) => index.add_marked(owner, seq, place),
            Owners::Multiset(set) => set.add(owner, seq, place),
        }
    }

    /// What reading files for the index needs, without the table.
    pub(super) fn reader(&self) -> OwnerReader {
        OwnerReader::new(self.committer.store.clone(), self.committer.schema.clone(), self.key.clone(), self.hasher)
    }

    /// Next offset of each Kafka partition that feeds the table.
    pub fn positions(&self) -> &Positions {
        &self.committer.positions
    }

    /// Version of the Delta table that the index stands at.
    pub fn version(&self) -> u64 {
        self.committer.version
    }

    /// What a memo says, as last stored or set.
    pub fn memo(&self, memo: Memo) -> Option<&str> {
        let due = self.memo_due.as_ref().filter(|(of, _)| *of == memo);
        due.map(|(_, text)| text.as_str()).or_else(|| self.stored_memo(memo))
    }

    fn stored_memo(&self, memo: Memo) -> Option<&str> {
        self.committer.metadata.get("configuration")?.get(memo.key())?.as_str()
    }

    /// What a memo is to say from the next commit on.
    pub fn set_memo(&mut self, memo: Memo, text: impl Into<String>) {
        let text = text.into();
        self.memo_due = (self.stored_memo(memo) != Some(text.as_str())).then_some((memo, text));
    }

    /// Names of the owner key's columns, in key order; empty: the source has no key.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// The owner of each row of the key columns `key`, as [`super::ChangeSet::gone`] names them.
    ///
    /// Errors: `Config` where one has a type that no key has.
    pub fn owners_of(&self, key: &[ArrayRef]) -> Result<Vec<Owner>> {
        self.hasher.owners(key)
    }

    /// Which rebuild of the table this is.
    pub fn generation(&self) -> u64 {
        self.committer.generation
    }

    /// The table's columns without `_seq`, `_source_ts` and `_owner`: what the output of [`Self::replace`] must hold.
    pub fn schema(&self) -> &SchemaRef {
        &self.committer.schema.data
    }

    /// The metadata id of the Delta table.
    pub fn id(&self) -> &str {
        self.committer.metadata.get("id").and_then(Value::as_str).unwrap_or_default()
    }

    /// The address of the table.
    pub fn location(&self) -> &Location {
        &self.committer.location
    }

    /// Owners known and the bytes that knowing them takes, about.
    pub fn index_size(&self) -> (usize, usize) {
        match &self.owners {
            Owners::Keyed(index) => (index.len(), index.bytes()),
            Owners::Multiset(set) => (set.len(), set.bytes()),
        }
    }

    /// Data files of the newest version, and rows visible in them.
    pub fn size(&self) -> (usize, u64) {
        (self.files.len(), self.files.iter().map(|(_, file)| file.visible()).sum())
    }

    /// What its newest version consists of. Looks at every file, at no row.
    pub fn extent(&self) -> Extent {
        self.files.extent()
    }

    /// Phase one: the newest change of each owner, where it is strictly newer than what the table has and not below
    /// a floor; where rows are replaced when they differ, whatever the table has, since only its rows can tell. Rows at
    /// offsets below [`Self::positions`] are left out.
    ///
    /// Errors: `Config` when the changes' schemas cannot be brought together by widening.
    pub fn select(&self, changes: &[Changes], floors: &[Floor]) -> Result<Selection> {
        let positions = &self.committer.positions;
        if self.freshness == Freshness::Differs && !floors.is_empty() {
            return Err(Error::new(ErrorKind::Internal, "a fingerprint is not older than a truncate"));
        }
        let floor = newest_floor(floors, positions, self.floor);
        let in_force = floor.as_ref().map_or(self.floor, |(seq, _)| *seq);
        let chosen = match &self.owners {
            Owners::Keyed(index) => {
                let known = |owner| match self.freshness {
                    Freshness::Newer => index.sequence(owner),
                    Freshness::Differs => None,
                };
                winners(changes, positions, in_force, self.hasher, known)?
            }
            Owners::Multiset(set) => set.choose(changes, positions, in_force, floor.is_some(), self.hasher)?,
        };
        gather(changes, chosen, floor, positions.clone())
    }

    /// `owners` are to have what becomes of `rows`, one to one, and those of `gone` nothing: for a table that replaces rows
    /// when they differ. No owner is named twice.
    pub fn select_owners(&self, owners: Vec<Owner>, rows: RecordBatch, gone: Vec<Owner>) -> Selection {
        Selection::of_owners(owners, rows, gone, self.committer.positions.clone())
    }

    /// The owners that have rows.
    pub fn owners_with_rows(&self) -> Vec<Owner> {
        let mut owners = Vec::new();
        if let Owners::Keyed(index) = &self.owners {
            let all = Sequence(u128::MAX);
            index.older_than(all, |owner, places| owners.extend((!places.is_empty()).then_some(owner)));
        }
        owners
    }

    /// The `metaData` action that stores what is due, if anything is.
    pub(super) fn metadata_due(&self) -> Option<Value> {
        let (memo, text) = self.memo_due.as_ref()?;
        let mut metadata = self.committer.metadata.clone();
        let members = metadata.as_object_mut()?;
        let configuration = members.entry("configuration").or_insert_with(|| Value::Object(Map::new()));
        configuration.as_object_mut()?.insert(memo.key().to_owned(), Value::from(text.as_str()));
        Some(metadata)
    }

    /// Follows what others committed meanwhile; the version reached. [`Self::replace`] does so when it must.
    pub async fn refresh(&mut self) -> Result<u64> {
        for _ in 0..super::log::commit::REPLAYS_MAX {
            match self.committer.read(self.committer.version + 1).await? {
                Some(commit) => self.overtaken(commit).await?,
                None => break,
            }
        }
        Ok(self.committer.version)
    }

    /// Another commit stands where ours was to go: replay it.
    pub(super) async fn overtaken(&mut self, commit: Commit) -> Result<()> {
        super::keyed::replay::replay(self, commit).await
    }
}
