//! What a module costs: eight columns through a module beside the same function in native Rust, and the price of a
//! call. `cargo run --release --example bench_transform -- <bench_columns.wasm>`; prints a table, checks that both
//! gave the same rows.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Decimal128Builder, Int64Array, Int64Builder, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, Schema};
use lodestream::transform::{Engine, Limits, Relation};

fn input(rows: usize) -> RecordBatch {
    let ids = Int64Array::from_iter_values((0..rows as i64).map(|n| n * 7_919 % 1_000_003));
    let names = StringArray::from_iter_values((0..rows).map(|n| format!("customer {}", n % 997)));
    let emails = StringArray::from_iter_values((0..rows).map(|n| format!("person{n}@example{}.com", n % 13)));
    let status =
        StringArray::from_iter((0..rows).map(|n| ["paid", "shipped", "cancelled", "pending"].get(n % 5).copied()));
    let qty = Int64Array::from_iter_values((0..rows as i64).map(|n| n % 12 + 1));
    let mut price = Decimal128Builder::with_capacity(rows);
    (0..rows).for_each(|n| price.append_value((n % 99_991) as i128 + 100));
    let price = price.finish().with_precision_and_scale(12, 2).expect("12 digits hold five");
    let placed =
        TimestampMicrosecondArray::from_iter_values((0..rows as i64).map(|n| 1_700_000_000_000_000 + n * 1_000_003));
    let columns: [(&str, ArrayRef); 7] = [
        ("id", Arc::new(ids)),
        ("name", Arc::new(names)),
        ("email", Arc::new(emails)),
        ("status", Arc::new(status)),
        ("qty", Arc::new(qty)),
        ("price", Arc::new(price)),
        ("placed_at", Arc::new(placed)),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns are of one length")
}

fn hash(text: &str) -> i64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        as i64
}

/// The same function as examples/modules/bench_columns, on Arrow's own arrays, with the same checks of the product.
fn native(batch: &RecordBatch) -> Vec<ArrayRef> {
    let text = |n: usize| batch.column(n).as_string::<i32>();
    let (names, emails, status) = (text(1), text(2), text(3));
    let qty = batch.column(4).as_primitive::<Int64Type>();
    let price = batch.column(5).as_primitive::<Decimal128Type>();
    let rows = batch.num_rows();
    let (mut upper, mut hashes) = (StringBuilder::with_capacity(rows, rows * 16), Int64Builder::with_capacity(rows));
    let mut totals = Decimal128Builder::with_capacity(rows).with_data_type(DataType::Decimal128(24, 2));
    let mut open = BooleanBuilder::with_capacity(rows);
    let mut kept = Vec::with_capacity(rows);
    for row in 0..rows {
        let state = status.is_valid(row).then(|| status.value(row));
        if state == Some("cancelled") {
            continue;
        }
        kept.push(row as u32);
        upper.append_value(names.value(row).to_ascii_uppercase());
        hashes.append_value(hash(emails.value(row)));
        totals.append_value(price.value(row).checked_mul(i128::from(qty.value(row))).expect("a product in 128 bits"));
        open.append_value(state == Some("pending"));
    }
    let totals = totals.finish();
    totals.validate_decimal_precision(24).expect("a product of 24 digits");
    let kept = arrow::array::UInt32Array::from(kept);
    let pass = |n: usize| take(batch.column(n), &kept, None).expect("rows are in range");
    vec![
        pass(0),
        Arc::new(upper.finish()),
        Arc::new(hashes.finish()),
        pass(3),
        pass(4),
        Arc::new(totals),
        pass(6),
        Arc::new(open.finish()),
    ]
}

fn typical(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    // A tenth of the runs are quicker: the machine is shared, and a run that was interrupted says nothing.
    times[runs / 10]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: bench_transform <bench_columns.wasm>")?;
    let bytes = std::fs::read(&path)?;
    let engine = Engine::new(Limits::default())?;
    let start = Instant::now();
    let module = engine.load(&bytes, "bench_columns")?;
    println!("{} bytes, loaded in {:.1} ms", bytes.len(), start.elapsed().as_secs_f64() * 1e3);
    let relation = Relation { name: "orders", schema: input(1).schema(), key: vec!["id".into()] };
    let start = Instant::now();
    let pieces = module.describe(&serde_json::json!({}), std::slice::from_ref(&relation))?;
    println!("described in {:.1} µs", start.elapsed().as_secs_f64() * 1e6);
    let one_call = Engine::new(Limits { input_rows: usize::MAX, ..Limits::default() })?;
    let one_call = one_call.load(&bytes, "bench_columns")?.describe(&serde_json::json!({}), &[relation])?;

    println!("M rows/s, and µs a batch; `pieces` on all cores\n");
    println!("| rows | native | one call | of native | pieces | native µs | one call µs | pieces µs |");
    println!("|---|---|---|---|---|---|---|---|");
    for rows in [1, 100, 1_000, 8_192, 65_536] {
        let batch = input(rows);
        let expected = native(&batch);
        for prepared in [&one_call, &pieces] {
            if prepared.apply(&batch)?.rows.columns() != expected.as_slice() {
                return Err(format!("module and native function differ at {rows} rows").into());
            }
        }
        let runs = (2_000_000 / rows).clamp(31, 2_001);
        let native = typical(runs, || drop(black_box(native(black_box(&batch)))));
        let one_call = typical(runs, || drop(black_box(one_call.apply(black_box(&batch)))));
        let pieces = typical(runs, || drop(black_box(pieces.apply(black_box(&batch)))));
        let speed = |time: f64| rows as f64 / time / 1e6;
        println!(
            "| {rows} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} | {:.1} |",
            speed(native),
            speed(one_call),
            native / one_call,
            speed(pieces),
            native * 1e6,
            one_call * 1e6,
            pieces * 1e6
        );
    }
    Ok(())
}
