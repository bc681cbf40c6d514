//! Seven columns in, eight out: a filter, capitals, a hash, a decimal product, a flag, and four columns that pass. What
//! `runtime/examples/bench_transform.rs` measures beside the same function in native Rust.

use lodestream_sdk::prelude::*;
use lodestream_sdk::{Batch, Columns, Describe, Description, Relation, Transform, column_of, export};

/// A module that works on whole columns.
pub struct Bench;

impl Transform for Bench {
    fn describe(_: &Params, relations: &[Relation]) -> Result<Description, String> {
        let description = Describe::new(relations)?
            .read::<&str>("name")?
            .read::<&str>("email")?
            .read::<&str>("status")?
            .read::<i64>("qty")?
            .read::<Decimal<12, 2>>("price")?
            .write::<String>("name")
            .write::<i64>("email")
            .write::<bool>("open")
            .write::<Decimal<24, 2>>("price");
        description.pass_rest(&[])?.finish()
    }

    fn transform(_: &Params, batch: &Batch) -> Result<Columns, String> {
        let names = batch.read::<&str>("name")?;
        let emails = batch.read::<&str>("email")?;
        let status = batch.read::<&str>("status")?;
        let qty = batch.read::<i64>("qty")?;
        let price = batch.read::<Decimal<12, 2>>("price")?;
        let kept: Vec<u32> = (0..batch.rows).filter(|row| status.get(*row as usize) != Some("cancelled")).collect();
        let rows = || kept.iter().map(|row| *row as usize);
        let total = |row| Some(Decimal::<24, 2>(price.get(row)?.checked_mul(qty.get(row)?)?));
        Ok(Columns {
            columns: vec![
                column_of(rows().filter_map(|row| names.get(row)).map(str::to_ascii_uppercase)),
                column_of(rows().filter_map(|row| emails.get(row)).map(hash)),
                column_of(rows().map(|row| status.get(row) == Some("pending"))),
                column_of(rows().filter_map(total)),
            ],
            source_rows: Some(kept),
            rejected: Vec::new(),
        })
    }
}

export!(Bench);

/// FNV-1a.
fn hash(text: &str) -> i64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)) as i64
}
