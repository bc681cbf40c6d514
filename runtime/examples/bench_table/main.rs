//! Random updates into a keyed table: CPU and bytes a flush, by table size, beside delta-rs's MERGE of the same.
//!
//! `cargo run --release -p lodestream --example bench_table -- [rows…]` (default 1000000 4000000). Every flush updates
//! 10,000 random keys of a table with 12 columns; after each, compaction, checkpoint and owners merge run when they are due, and
//! count. Prints the mean of flushes 50 to 150, what building the index again takes and how many bytes a key it holds,
//! the mean of some MERGEs (which keep no index and no order: a late change undoes a newer one), and the ratios.

mod counting;
mod merge;
mod rows;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use lodestream::lake::{Freshness, KeyedTable, Location, Maintained, Outcome, OwnerRows, Pace, Settings, TableSpec};
use lodestream::model::change::{Changes, Op, Records};
use lodestream::model::positions::{Origin, Range, Ranges};
use lodestream::model::schema::TableSchema;
use lodestream::model::sequence::Sequence;

use counting::{Counting, Written};
use rows::{Random, cpu, fields, rows};

const BATCH: usize = 10_000;
const FLUSHES: usize = 150;
const MEASURED_FROM: usize = 50;
const LOAD: usize = 500_000;

/// Means of one flush, or one MERGE, of [`BATCH`] updates.
#[derive(Clone, Copy)]
struct Cost {
    cpu_s: f64,
    written_kb: f64,
}

fn changes(schema: &Arc<TableSchema>, rows: RecordBatch, op: Op, first: i64) -> Changes {
    let n = rows.num_rows();
    Changes {
        schema: schema.clone(),
        ops: vec![op; n],
        sequences: (0..n).map(|at| Sequence((first as u128 + at as u128 + 1) << 2)).collect(),
        source_ts_ms: vec![1_700_000_000_000; n],
        records: Some(Records {
            topic: "shop.orders".into(),
            partitions: vec![0; n],
            offsets: (first..first + n as i64).collect(),
        }),
        rows,
    }
}

async fn flush(table: &mut KeyedTable, batch: Changes) -> Result<(), Box<dyn Error>> {
    let Some(Origin { input, offset: first }) = batch.records.as_ref().and_then(|records| records.origin(0)) else {
        return Err("no rows".into());
    };
    let ranges: Ranges = [(input, Range { from: first, to: first + batch.ops.len() as i64 })].into();
    let selection = table.select(std::slice::from_ref(&batch), &[])?;
    let output = selection.upserts().clone();
    let outcome = table.replace(OwnerRows::copied(&selection, &output), &ranges, Default::default()).await?;
    if !matches!(outcome, Outcome::Committed { .. }) {
        return Err(format!("not committed: {outcome:?}").into());
    }
    Ok(())
}

async fn run(total: usize) -> Result<Cost, Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("bench_table_{total}_{}", std::process::id()));
    let written = Arc::new(Written::default());
    let location = Location::open(dir.to_str().ok_or("path")?, &HashMap::new())?
        .table("silver/orders")?
        .wrapped(|inner| Arc::new(Counting { inner, written: written.clone() }));
    let spec = TableSpec {
        name: "silver/orders".into(),
        fields: fields(),
        key: vec!["id".into()],
        partition_by: vec![],
        freshness: Freshness::Newer,
        renamed: 0,
        generation: 0,
    };
    let schema = Arc::new(TableSchema {
        database: "shop".into(),
        table: "orders".into(),
        fields: fields(),
        key: vec![0],
        defaults: vec![None; 12],
        renamed: 0,
    });
    let mut random = Random(7);
    let mut table = KeyedTable::open_or_create(location.clone(), spec.clone(), Settings::default()).await?;
    let mut offset = 0i64;
    while (offset as usize) < total {
        let n = LOAD.min(total - offset as usize) as i64;
        let ids: Vec<i64> = (offset..offset + n).collect();
        flush(&mut table, changes(&schema, rows(&ids, &mut random)?, Op::Read, offset)).await?;
        offset += n;
    }
    let (files, visible) = table.size();
    let loaded = written.now();
    println!("{total} rows: {files} files, {:.1} MB of data, {visible} rows visible", loaded[0] as f64 / 1e6);

    let (mut cpu_flush, mut cpu_care, mut wall) = (0.0, 0.0, 0.0);
    let (mut rewrites, mut start) = (0, written.now());
    for round in 0..FLUSHES {
        if round == MEASURED_FROM {
            (cpu_flush, cpu_care, wall, rewrites, start) = (0.0, 0.0, 0.0, 0, written.now());
        }
        let ids: Vec<i64> = (0..BATCH).map(|_| random.below(total as u64) as i64).collect();
        let batch = changes(&schema, rows(&ids, &mut random)?, Op::Update, offset);
        offset += BATCH as i64;
        let (from, began) = (cpu(), Instant::now());
        flush(&mut table, batch).await?;
        let flushed = cpu();
        while let Some(compaction) = table.plan_compaction(Pace::Steady) {
            rewrites += 1;
            let rewritten = compaction.rewrite().await?;
            table.commit_compaction(rewritten).await?;
        }
        table.merge_owners().await?;
        if let Some(checkpoint) = table.checkpointing() {
            checkpoint.await?;
        }
        cpu_flush += flushed - from;
        cpu_care += cpu() - flushed;
        wall += began.elapsed().as_secs_f64();
    }
    let n = (FLUSHES - MEASURED_FROM) as f64;
    let bytes: Vec<f64> = written.now().iter().zip(start).map(|(now, then)| (*now - then) as f64 / 1e3 / n).collect();
    println!(
        "  a flush of {BATCH}: {:.4} CPU-s ({:.4} flush + {:.4} care, {rewrites} compactions), {:.0} ms",
        (cpu_flush + cpu_care) / n,
        cpu_flush / n,
        cpu_care / n,
        wall * 1000.0 / n
    );
    println!(
        "  kB a flush: {:.0} (data {:.0}, vectors {:.0}, log {:.0}, other {:.0})",
        bytes.iter().sum::<f64>(),
        bytes[0],
        bytes[1],
        bytes[2],
        bytes[3]
    );
    let (owners, index) = table.index_size();
    let (files, visible) = table.size();
    drop(table);
    let (from, began) = (cpu(), Instant::now());
    let table = KeyedTable::open_or_create(location, spec, Settings::default()).await?;
    println!(
        "  index: {owners} owners, {:.1} bytes each; rebuilt in {:.2} s ({:.2} CPU-s) from {files} files",
        index as f64 / owners as f64,
        began.elapsed().as_secs_f64(),
        cpu() - from
    );
    if table.size().1 != visible || visible != total as u64 {
        return Err(format!("{visible} rows visible, {} after opening again", table.size().1).into());
    }
    std::fs::remove_dir_all(dir)?;
    Ok(Cost { cpu_s: (cpu_flush + cpu_care) / n, written_kb: bytes.iter().sum() })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000_000, 4_000_000];
    }
    let mut flushes = Vec::new();
    for total in sizes {
        let flush = run(total).await?;
        let merge = merge::run(total).await?;
        println!(
            "  MERGE by delta-rs: {:.2} CPU-s, {:.0} kB; a flush is {:.1} times cheaper in CPU, {:.1} times in bytes\n",
            merge.cpu_s,
            merge.written_kb,
            merge.cpu_s / flush.cpu_s,
            merge.written_kb / flush.written_kb
        );
        flushes.push((total, flush));
    }
    for pair in flushes.windows(2) {
        let &[(small, less), (large, more)] = pair else { continue };
        println!(
            "{large} rows beside {small}: {:.2} times the CPU, {:.2} times the bytes",
            more.cpu_s / less.cpu_s,
            more.written_kb / less.written_kb
        );
    }
    Ok(())
}
