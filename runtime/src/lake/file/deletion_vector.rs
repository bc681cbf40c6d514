//! Deletion vectors: which rows of a data file are hidden.
//!
//! Receives and gives bitmaps of row numbers. Promises the Delta protocol's forms: `data` is the magic number
//! 1681511377 (u32, little endian) and a 64-bit Roaring bitmap in its portable form; a file is the version byte 1
//! and per vector its size (u32, big endian), its data and their CRC-32 (u32, big endian); a small vector stands in
//! the log as z85 text (storage type `i`), the others of one flush share one file (`u`, with offset). Never decides
//! what to hide.

use std::sync::Arc;

use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::failure::{broken, is_cut, store_error};

const MAGIC: u32 = 1_681_511_377;
const FILE_VERSION: u8 = 1;
const UUID_CHARS: usize = 20;

/// Magic and portable bitmap.
pub(in crate::lake) fn encode(rows: &RoaringBitmap) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(rows.serialized_size() + 16);
    data.extend_from_slice(&MAGIC.to_le_bytes());
    // a 64-bit bitmap is a map from the upper half to 32-bit bitmaps; rows have only a lower half
    data.extend_from_slice(&1u64.to_le_bytes());
    data.extend_from_slice(&0u32.to_le_bytes());
    rows.serialize_into(&mut data)
        .map_err(|e| Error::new(ErrorKind::Internal, "a vector cannot be written").caused_by(e))?;
    Ok(data)
}

/// The bitmap in `data`; bytes past its end are padding.
pub(in crate::lake) fn decode(data: &[u8]) -> Result<RoaringBitmap> {
    let bad = || broken("a deletion vector is not in the portable form");
    let (magic, rest) = data.split_first_chunk::<4>().ok_or_else(bad)?;
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err(bad());
    }
    let (count, mut rest) = rest.split_first_chunk::<8>().ok_or_else(bad)?;
    match u64::from_le_bytes(*count) {
        0 => return Ok(RoaringBitmap::new()),
        1 => {}
        _ => return Err(bad().hint("it hides rows past 2^32 of one file: rewrite the file with another engine")),
    }
    let (high, low) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
    if u32::from_le_bytes(*high) != 0 {
        return Err(bad());
    }
    rest = low;
    RoaringBitmap::deserialize_from(rest).map_err(|e| bad().caused_by(e))
}

/// Vectors of one flush on their way to the lake.
#[derive(Debug, Default)]
pub(in crate::lake) struct VectorFile {
    uuid: Option<Uuid>,
    bytes: Vec<u8>,
}

impl VectorFile {
    /// Describes `rows`: inline when at most `inline_max` bytes, else as a part of this file.
    pub(in crate::lake) fn push(
        &mut self,
        rows: &RoaringBitmap,
        inline_max: usize,
    ) -> Result<DeletionVectorDescriptor> {
        let data = encode(rows)?;
        let too_large = || Error::new(ErrorKind::Internal, "the vectors of one flush are over 2 GiB");
        let size = i32::try_from(data.len()).map_err(|_| too_large())?;
        let cardinality = rows.len() as i64;
        if data.len() <= inline_max {
            return Ok(DeletionVectorDescriptor {
                storage_type: StorageType::Inline,
                path_or_inline_dv: z85_encode(&data),
                offset: None,
                size_in_bytes: size,
                cardinality,
            });
        }
        let uuid = *self.uuid.get_or_insert_with(Uuid::new_v4);
        if self.bytes.is_empty() {
            self.bytes.push(FILE_VERSION);
        }
        let offset = i32::try_from(self.bytes.len()).map_err(|_| too_large())?;
        let mut crc = flate2::Crc::new();
        crc.update(&data);
        self.bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(&data);
        self.bytes.extend_from_slice(&crc.sum().to_be_bytes());
        Ok(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: z85_encode(uuid.as_bytes()),
            offset: Some(offset),
            size_in_bytes: size,
            cardinality,
        })
    }

    /// Writes the file, where a vector went into it; bytes written.
    pub(in crate::lake) async fn write(self, store: &Arc<dyn ObjectStore>) -> Result<u64> {
        let Some(uuid) = self.uuid else { return Ok(0) };
        let len = self.bytes.len() as u64;
        let path = Path::from(file_name(&uuid));
        store.put(&path, self.bytes.into()).await.map_err(|e| store_error("writing deletion vectors", e))?;
        Ok(len)
    }
}

fn file_name(uuid: &Uuid) -> String {
    format!("deletion_vector_{uuid}.bin")
}

/// The file that holds a vector, relative to the table; `None` for an inline one.
pub(in crate::lake) fn file_of(vector: &DeletionVectorDescriptor) -> Result<Option<Path>> {
    let bad = || broken("the address of a deletion vector is not readable");
    match vector.storage_type {
        StorageType::Inline => Ok(None),
        StorageType::UuidRelativePath => {
            let text = vector.path_or_inline_dv.as_bytes();
            let (prefix, coded) =
                text.len().checked_sub(UUID_CHARS).and_then(|at| text.split_at_checked(at)).ok_or_else(bad)?;
            let uuid = z85::decode(coded).ok().and_then(|b| Uuid::from_slice(&b).ok()).ok_or_else(bad)?;
            let prefix = std::str::from_utf8(prefix).map_err(|_| bad())?;
            let name = file_name(&uuid);
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            Path::parse(path).map(Some).map_err(|e| bad().caused_by(e))
        }
        StorageType::AbsolutePath => Err(Error::new(ErrorKind::Corrupt, "a deletion vector lies outside the table")
            .hint("the table is a shallow clone of another: copy it whole instead")),
    }
}

/// Reads the bitmap that `vector` describes.
pub(in crate::lake) async fn read(
    store: &Arc<dyn ObjectStore>,
    vector: &DeletionVectorDescriptor,
) -> Result<RoaringBitmap> {
    let file = file_of(vector)?;
    let bad = |what: &str| match &file {
        Some(path) => broken(format!("a deletion vector in `{path}` {what}")),
        None => broken(format!("a deletion vector {what}")),
    };
    let rows = match &file {
        None => {
            let data = z85::decode(&vector.path_or_inline_dv).map_err(|e| bad("is not z85 text").caused_by(e))?;
            decode(&data)?
        }
        Some(path) => {
            let start = u64::try_from(vector.offset.unwrap_or(1)).map_err(|_| bad("has a negative offset"))?;
            let size = u32::try_from(vector.size_in_bytes).map_err(|_| bad("has a negative size"))?;
            let end = start + u64::from(size) + 8;
            let bytes = match store.get_range(path, start..end).await {
                Ok(bytes) => bytes,
                // a range past the end is an error like those that waiting mends
                Err(_) if is_cut(store.as_ref(), path, end).await => return Err(bad("is cut short")),
                Err(e) => return Err(store_error("reading a deletion vector", e)),
            };
            let (head, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| bad("is cut short"))?;
            let (data, crc) = rest.split_last_chunk::<4>().ok_or_else(|| bad("is cut short"))?;
            if u32::from_be_bytes(*head) != size || data.len() != size as usize {
                return Err(bad("is not as long as the log says"));
            }
            let mut sum = flate2::Crc::new();
            sum.update(data);
            if sum.sum() != u32::from_be_bytes(*crc) {
                return Err(bad("does not match its checksum"));
            }
            decode(data)?
        }
    };
    if rows.len() as i64 != vector.cardinality {
        return Err(bad("hides another number of rows than the log says"));
    }
    Ok(rows)
}

/// Base 85 text of `bytes`, padded with zeros to a multiple of four as the protocol wants it.
fn z85_encode(bytes: &[u8]) -> String {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    z85::encode(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z85_agrees_with_the_protocol_example() {
        let uuid: Uuid = "61d16c75-6994-46b7-a15b-8b538852e50e".parse().unwrap();
        assert_eq!(z85_encode(uuid.as_bytes()), "vBn[lx{q8@P<9BNH/isA");
        assert_eq!(z85::decode(b"vBn[lx{q8@P<9BNH/isA").unwrap(), uuid.as_bytes());
        assert_eq!(z85_encode(&[0x61]), z85_encode(&[0x61, 0, 0, 0]), "what is missing of four bytes is zero");
        assert!(z85::decode(b"~~~~~").is_err());
    }

    #[tokio::test]
    async fn vectors_come_back_inline_and_from_a_file() {
        let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let few: RoaringBitmap = [1u32, 7, 70_000].into_iter().collect();
        let many: RoaringBitmap = (0..100_000u32).filter(|n| n % 3 == 0).collect();
        let mut file = VectorFile::default();
        let a = file.push(&few, 1024).unwrap();
        let b = file.push(&many, 1024).unwrap();
        let c = file.push(&few, 0).unwrap();
        file.write(&store).await.unwrap();
        assert!(a.offset.is_none() && b.offset == Some(1));
        assert_eq!(read(&store, &a).await.unwrap(), few);
        assert_eq!(read(&store, &b).await.unwrap(), many);
        assert_eq!(read(&store, &c).await.unwrap(), few);
    }

    #[test]
    fn broken_vectors_are_errors() {
        let data = encode(&(0..5000u32).collect()).unwrap();
        for cut in 0..data.len().min(40) {
            assert!(decode(&data[..cut]).is_err(), "cut at {cut}");
        }
        let mut wrong = data.clone();
        wrong[0] ^= 1;
        assert!(decode(&wrong).is_err());
    }
}
