//! Events decoded a CPU-second of one thread.
//!
//!     python3 generate.py --snapshot 300 --changes 700 --out w1.jsonl                 # --envelope for W2
//!     cargo run --release --example bench_decode -- w1.jsonl w2.jsonl
//!
//! Each file is decoded again and again for some seconds, as bare rows typed by the settings; tombstones count as events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lodestream::decode::{Decoded, Decoder, Epochs, Evidence, Patience, SchemaHistory, Settings, Step};
use lodestream::model::positions::PartitionId;
use lodestream::model::record::{Block, Record};

const COLUMNS: [(&str, &str); 12] = [
    ("order_id", "bigint"),
    ("customer_id", "int"),
    ("quantity", "int"),
    ("amount", "decimal(12,2)"),
    ("status", "varchar(16)"),
    ("country", "char(2)"),
    ("currency", "char(3)"),
    ("note", "varchar(255)"),
    ("coupon", "varchar(16)"),
    ("placed_at", "datetime(6)"),
    ("paid_at", "datetime(6)"),
    ("updated_at", "datetime(6)"),
];

/// CPU time of this thread; wall time where the system does not tell.
fn cpu(started: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.as_deref().and_then(|t| t.split(' ').next()).and_then(|n| n.parse().ok());
    nanos.map_or_else(|| started.elapsed(), Duration::from_nanos)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&path)?;
        let mut block = Block::new(PartitionId { topic: Arc::from("bench.shop.orders"), partition: 0 });
        for (offset, line) in text.lines().enumerate() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let part = |name: &str| line[name].as_str().map(str::as_bytes);
            let record =
                Record { offset: offset as i64, timestamp_ms: 0, key: part("key"), value: part("value"), headers: b"" };
            if !block.push(record) {
                return Err("the file does not fit a block".into());
            }
        }
        let mut settings = Settings::default();
        for (name, kind) in COLUMNS {
            settings.columns.insert(name.into(), lodestream::decode::mysql_column_type(kind)?);
        }
        let mut decoder = Decoder::new(Arc::clone(&block.partition().topic), settings);
        let (history, mut evidence, mut out) = (SchemaHistory::new(), Evidence::new(), Decoded::new());
        let (started, mut passes, mut rows) = (Instant::now(), 0usize, 0usize);
        let before = cpu(started);
        while started.elapsed() < Duration::from_secs(4) {
            for _ in 0..50 {
                decoder.set_epochs(Epochs::new());
                let step = decoder.decode(&block, 0, &history, &mut evidence, Patience::Hold, &mut out);
                if step != Step::Done {
                    return Err(format!("{step:?}").into());
                }
                passes += 1;
            }
            let (changes, _, bad) = out.finish();
            if let Some(bad) = bad.first() {
                return Err(bad.reason.clone().into());
            }
            rows += changes.iter().map(|c| c.rows.num_rows()).sum::<usize>();
        }
        let spent = (cpu(started) - before).as_secs_f64();
        let events = passes * block.len();
        let bytes = passes * block.bytes();
        println!(
            "{path}: {:.0} events a CPU-second, {:.0} rows, {:.0} MB, {:.0} bytes an event",
            events as f64 / spent,
            rows as f64 / spent,
            bytes as f64 / spent / 1e6,
            block.bytes() as f64 / block.len() as f64,
        );
    }
    Ok(())
}
