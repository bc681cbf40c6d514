//! Rows of a table with twelve columns, the same for all who are compared.

use std::error::Error;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// A small generator of numbers, so that runs are alike.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

pub(crate) fn fields() -> SchemaRef {
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("customer_id", DataType::Int64, true),
        Field::new("status", DataType::Utf8, true),
        Field::new("city", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(12, 2), true),
        Field::new("tax", DataType::Decimal128(12, 2), true),
        Field::new("qty", DataType::Int32, true),
        Field::new("weight", DataType::Float64, true),
        Field::new("day", DataType::Date32, true),
        Field::new("created_at", at.clone(), true),
        Field::new("updated_at", at, true),
    ]))
}

pub(crate) fn rows(ids: &[i64], random: &mut Random) -> Result<RecordBatch, Box<dyn Error>> {
    let n = ids.len();
    let mut some = |below: u64| -> Vec<u64> { (0..n).map(|_| random.below(below)).collect() };
    let status = ["new", "paid", "shipped", "done"];
    let text = |v: Vec<u64>, with: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(v.into_iter().map(with)))
    };
    let money = |v: Vec<u64>| -> Result<ArrayRef, Box<dyn Error>> {
        let values = Decimal128Array::from_iter_values(v.into_iter().map(i128::from));
        Ok(Arc::new(values.with_precision_and_scale(12, 2)?))
    };
    let time = |v: Vec<u64>| -> ArrayRef {
        let values = v.into_iter().map(|ms| 1_700_000_000_000_000 + ms as i64 * 1000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.to_vec())),
        Arc::new(Int64Array::from_iter_values(some(200_000).into_iter().map(|v| v as i64))),
        text(some(4), &|v| status[v as usize % 4].to_string()),
        text(some(500), &|v| format!("city {v}")),
        text(some(1 << 30), &|v| format!("note {v:x}")),
        money(some(10_000_000))?,
        money(some(100_000))?,
        Arc::new(Int32Array::from_iter_values(some(20).into_iter().map(|v| v as i32))),
        Arc::new(Float64Array::from_iter_values(some(100_000).into_iter().map(|v| v as f64 / 100.0))),
        Arc::new(Date32Array::from_iter_values(some(2000).into_iter().map(|v| v as i32 + 18_000))),
        time(some(1 << 35)),
        time(some(1 << 35)),
    ];
    let nullable = fields().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns)?)
}

/// CPU seconds of the process, all threads.
pub(crate) fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
