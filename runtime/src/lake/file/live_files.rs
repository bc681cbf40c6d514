//! The data files of a table's newest version, with the rows hidden in each.
//!
//! Receives add actions and the bitmaps of their vectors. Promises one number a file that is never given twice in a
//! process, so that an index can name rows by it. Never reads or writes by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use deltalake::kernel::{Add, DeletionVectorDescriptor, Remove, StorageType};
use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::stats;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::log::commit::{now_ms, removal};
use crate::lake::log::retention;

/// File numbers end here.
pub(in crate::lake) const FILES_MAX: u32 = u32::MAX - 3;

/// A data file as the log states it.
#[derive(Debug, Clone)]
pub(in crate::lake) struct LiveFile {
    pub(in crate::lake) add: Add,
    pub(in crate::lake) rows: u32,
    pub(in crate::lake) hidden: RoaringBitmap,
    /// when the file that holds its vector was written, milliseconds since 1970; `None` where another process wrote it
    pub(in crate::lake) vector_ms: Option<i64>,
}

impl LiveFile {
    /// The add action of the same file with these rows hidden.
    pub(in crate::lake) fn restated(&self, vector: Option<DeletionVectorDescriptor>, data_change: bool) -> Add {
        let mut add = self.add.clone();
        if vector.is_some() {
            let loose = match &add.stats {
                Some(text) => stats::loosen(text),
                // a vector needs the number of rows beside it
                None => format!(r#"{{"numRecords":{},"tightBounds":false}}"#, self.rows),
            };
            add.stats = Some(loose);
        }
        add.deletion_vector = vector;
        add.data_change = data_change;
        add
    }

    /// The remove action of the file, or, where it `stays`, of the vector that another one takes the place of, in a table
    /// that keeps tombstones for `kept`.
    pub(in crate::lake) fn removal(&self, stays: bool, data_change: bool, kept: Duration) -> Remove {
        let now = now_ms();
        // what goes: the oldest of it says how long it is to be kept
        let file = if stays { Some(now) } else { Some(self.add.modification_time) };
        let vector = match &self.add.deletion_vector {
            Some(vector) if vector.storage_type != StorageType::Inline => self.vector_ms,
            _ => Some(now),
        };
        let since = file.zip(vector).map(|(file, vector)| file.min(vector));
        Remove { deletion_timestamp: Some(retention::removal_ms(now, since, kept)), ..removal(&self.add, data_change) }
    }

    /// Rows that readers see.
    pub(in crate::lake) fn visible(&self) -> u64 {
        u64::from(self.rows).saturating_sub(self.hidden.len())
    }
}

/// What the newest version of a table consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Extent {
    /// data files
    pub files: u64,
    /// data files with a deletion vector
    pub vectors: u64,
    /// bytes of the data files
    pub bytes: u64,
    /// rows that readers see
    pub rows: u64,
    /// rows that deletion vectors hide
    pub hidden_rows: u64,
}

/// Rows to hide, by file.
pub(in crate::lake) type Hide = BTreeMap<u32, RoaringBitmap>;

/// All live files.
#[derive(Debug, Default)]
pub(in crate::lake) struct LiveFiles {
    by_id: HashMap<u32, LiveFile>,
    by_path: HashMap<String, u32>,
    next: u32,
}

impl LiveFiles {
    /// Adds a file; its number.
    pub(in crate::lake) fn insert(&mut self, file: LiveFile) -> Result<u32> {
        let id = self.next;
        if id >= FILES_MAX {
            return Err(Error::new(ErrorKind::Internal, "file numbers have run out").hint("restart the program"));
        }
        self.next += 1;
        self.by_path.insert(file.add.path.clone(), id);
        self.by_id.insert(id, file);
        Ok(id)
    }

    /// Uses up a number without a file.
    pub(in crate::lake) fn skip(&mut self) {
        self.next += 1;
    }

    /// The number the next file will get.
    pub(in crate::lake) fn next(&self) -> u32 {
        self.next
    }

    pub(in crate::lake) fn get(&self, id: u32) -> Option<&LiveFile> {
        self.by_id.get(&id)
    }

    pub(in crate::lake) fn get_mut(&mut self, id: u32) -> Option<&mut LiveFile> {
        self.by_id.get_mut(&id)
    }

    pub(in crate::lake) fn id_of(&self, path: &str) -> Option<u32> {
        self.by_path.get(path).copied()
    }

    /// Forgets a file.
    pub(in crate::lake) fn remove(&mut self, id: u32) -> Option<LiveFile> {
        let file = self.by_id.remove(&id)?;
        self.by_path.remove(&file.add.path);
        Some(file)
    }

    pub(in crate::lake) fn iter(&self) -> impl Iterator<Item = (u32, &LiveFile)> {
        self.by_id.iter().map(|(id, file)| (*id, file))
    }

    pub(in crate::lake) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(in crate::lake) fn extent(&self) -> Extent {
        let mut extent = Extent::default();
        for file in self.by_id.values() {
            extent.files += 1;
            extent.vectors += u64::from(!file.hidden.is_empty());
            extent.bytes += u64::try_from(file.add.size).unwrap_or(0);
            extent.rows += file.visible();
            extent.hidden_rows += file.hidden.len();
        }
        extent
    }
}
