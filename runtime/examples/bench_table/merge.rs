//! The same updates by delta-rs's MERGE.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use datafusion::prelude::{SessionContext, col};
use deltalake::DeltaTable;
use url::Url;

use super::rows::{Random, cpu, fields, rows};
use super::{BATCH, Cost};

const FILES: usize = 16;
const MERGES: usize = 8;
const MEASURED_FROM: usize = 3;

/// The mean of some MERGEs into a table of `total` rows that lay in [`FILES`] files.
pub(crate) async fn run(total: usize) -> Result<Cost, Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("bench_merge_{total}_{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let at = Url::from_directory_path(&dir).map_err(|()| "path")?;
    let mut table = DeltaTable::try_from_url(at).await?;
    let mut random = Random(7);
    for file in 0..FILES {
        let ids: Vec<i64> = (file * total / FILES..(file + 1) * total / FILES).map(|id| id as i64).collect();
        table = table.write([rows(&ids, &mut random)?]).await?;
    }
    let session = SessionContext::new();
    let (mut spent, mut before) = (0.0, 0);
    for round in 0..MERGES {
        if round == MEASURED_FROM {
            (spent, before) = (0.0, bytes_in(&dir)?);
        }
        let ids: BTreeSet<i64> = (0..BATCH).map(|_| random.below(total as u64) as i64).collect();
        let source = session.read_batch(rows(&ids.into_iter().collect::<Vec<_>>(), &mut random)?)?;
        let from = cpu();
        let merging = table.merge(source, col("target.id").eq(col("source.id")));
        let merging = merging.with_source_alias("source").with_target_alias("target");
        let names = || fields().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let merging = merging.when_matched_update(|update| {
            names().iter().fold(update, |update, name| update.update(name.as_str(), col(format!("source.{name}"))))
        })?;
        let merging = merging.when_not_matched_insert(|insert| {
            names().iter().fold(insert, |insert, name| insert.set(name.as_str(), col(format!("source.{name}"))))
        })?;
        table = merging.await?.0;
        spent += cpu() - from;
    }
    let n = (MERGES - MEASURED_FROM) as f64;
    let written_kb = (bytes_in(&dir)? - before) as f64 / 1e3 / n;
    std::fs::remove_dir_all(dir)?;
    Ok(Cost { cpu_s: spent / n, written_kb })
}

/// Nothing is deleted while it runs: what lies in the folder is what was written.
fn bytes_in(folder: &Path) -> Result<u64, Box<dyn Error>> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { bytes_in(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
