//! Records and rows that could not be applied, with the reason.
//!
//! One table for the whole lake, keyed by (`table`, `stage`, `topic`, `partition`, `offset`), so that writing a
//! letter again changes nothing. Letters are written before the commit of the batch they belong to; those at or
//! beyond a table's committed positions belong to a batch that never was and are taken away when the table starts.
//! A letter points into Bronze and never holds a value of the record. Never does upkeep of its own: whoever keeps the table
//! in order is told of every commit, and takes the table for as short as it can.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, Schema, SchemaRef, TimeUnit};
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::Lake;
use crate::lake::{
    DEAD_LETTERS, Freshness, KeyedTable, Location, Outcome, OwnerRows, Settings, TableSpec, positions_of,
};
use crate::model::change::{Changes, Op};
use crate::model::positions::{Origin, PartitionId, Positions, Ranges};
use crate::model::schema::{TableSchema, TableSchemaRef};
use crate::model::sequence::Sequence;

/// What of a letter says where it belongs, and what stands in the place of its sequence.
const PLACE: &str = "stage, topic, partition, \"offset\", _seq";
/// A letter's sequence is its time, microseconds, and so many bits.
const MARK_BITS: u32 = 16;

/// Where a record or row failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// the record could not be read
    Decode,
    /// the module rejected the row
    Transform,
    /// the module of a Gold table gave nothing for the row of the driving table
    Gold,
}

impl Stage {
    /// The word that stands in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Transform => "transform",
            Stage::Gold => "gold",
        }
    }
}

/// One record or row that could not be applied.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// the record's topic
    pub topic: Arc<str>,
    /// its Kafka partition
    pub partition: i32,
    /// its offset
    pub offset: i64,
    /// where it failed
    pub stage: Stage,
    /// the Silver table that lacks it
    pub table: String,
    /// why
    pub reason: String,
    /// sha256 of the module at work, where there is one
    pub module: Option<String>,
}

impl DeadLetter {
    fn origin(&self) -> Origin {
        let partition = PartitionId { topic: Arc::clone(&self.topic), partition: self.partition };
        Origin { input: partition.into(), offset: self.offset }
    }
}

/// The dead-letter table; made with the first letter.
pub struct DeadLetters {
    location: Location,
    lake: Lake,
    settings: Settings,
    table: Mutex<Option<KeyedTable>>,
    /// time of the newest letter written, microseconds: a clock that goes back does not make a letter older
    newest_us: AtomicI64,
    /// what the newest letter that was written, or read to be taken away, has in the place of a sequence: by the clock
    /// of another instance, or before it was set back, it may be ahead of time
    newest_mark_us: AtomicI64,
    commits: watch::Sender<u64>,
    schema: TableSchemaRef,
}

impl DeadLetters {
    /// The dead-letter table of the lake at `root`.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub fn new(root: &Location, lake: Lake, settings: Settings) -> Result<Self> {
        Ok(DeadLetters {
            location: root.table(DEAD_LETTERS)?,
            lake,
            settings,
            table: Mutex::new(None),
            newest_us: AtomicI64::new(0),
            newest_mark_us: AtomicI64::new(0),
            commits: watch::Sender::new(0),
            schema: Arc::new(TableSchema {
                database: String::new(),
                table: DEAD_LETTERS.to_owned(),
                fields: fields(),
                key: vec![0, 1, 2, 3, 4],
                defaults: vec![None; fields().fields().len()],
                renamed: 0,
            }),
        })
    }

    /// Writes letters; one that is there already is replaced.
    ///
    /// # Errors
    /// The lake's; nothing is known to be written then, and writing again is right.
    pub async fn write(&self, letters: &[DeadLetter]) -> Result<()> {
        self.commit(letters, Op::Create).await
    }

    /// The letters of the Gold table `table`, by their place alone.
    ///
    /// # Errors
    /// The lake's.
    pub async fn of_gold(&self, table: &str) -> Result<Vec<DeadLetter>> {
        if !self.lake.has_table(DEAD_LETTERS).await? {
            return Ok(Vec::new());
        }
        let name = table.replace('\'', "''");
        let sql = format!("SELECT {PLACE} FROM {DEAD_LETTERS} WHERE \"table\" = '{name}' AND stage = 'gold'");
        self.read(table, &sql).await
    }

    /// Takes letters away.
    ///
    /// # Errors
    /// The lake's; some may be gone then, and taking them away again is right.
    pub async fn take_away(&self, letters: &[DeadLetter]) -> Result<()> {
        self.commit(letters, Op::Delete).await
    }

    /// Takes away the letters of `table` at or beyond the positions of the table at `of`: their batch was never
    /// committed.
    ///
    /// # Errors
    /// The lake's.
    pub async fn forget_from(&self, table: &str, of: &Location) -> Result<()> {
        if !self.lake.has_table(DEAD_LETTERS).await? {
            return Ok(());
        }
        let name = table.replace('\'', "''");
        let sql = format!("SELECT {PLACE} FROM {DEAD_LETTERS} WHERE \"table\" = '{name}' AND stage <> 'gold'");
        let mut stale = Vec::new();
        let letters = self.read(table, &sql).await?;
        if letters.is_empty() {
            return Ok(());
        }
        // After the letters: another instance may have committed what one of them belongs to meanwhile.
        let positions = positions_of(of).await?;
        for letter in letters {
            if !positions.hold(&letter.origin()) {
                stale.push(letter);
            }
        }
        self.commit(&stale, Op::Delete).await
    }

    /// Takes away the letters of `table` written before `time_ms` for records below `positions`: a rebuild decided
    /// anew about these records.
    ///
    /// # Errors
    /// The lake's.
    pub async fn forget_before(&self, table: &str, time_ms: i64, positions: &Positions) -> Result<()> {
        if !self.lake.has_table(DEAD_LETTERS).await? {
            return Ok(());
        }
        let name = table.replace('\'', "''");
        let sql = format!(
            "SELECT {PLACE} FROM {DEAD_LETTERS} \
             WHERE \"table\" = '{name}' AND stage <> 'gold' AND \"time\" < to_timestamp_millis({time_ms})"
        );
        let mut stale = self.read(table, &sql).await?;
        stale.retain(|letter| positions.hold(&letter.origin()));
        self.commit(&stale, Op::Delete).await
    }

    /// The letters of `table` that `sql` picks, by their place alone.
    async fn read(&self, table: &str, sql: &str) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        for batch in self.lake.query_table(DEAD_LETTERS, sql).await? {
            letters.extend((0..batch.num_rows()).filter_map(|row| read_letter(&batch, row, table)));
            let marks = batch.column_by_name("_seq").and_then(|column| column.as_primitive_opt::<Decimal128Type>());
            let newest = marks.and_then(arrow::compute::max).and_then(|mark| i64::try_from(mark >> MARK_BITS).ok());
            self.newest_mark_us.fetch_max(newest.unwrap_or(0), Relaxed);
        }
        Ok(letters)
    }

    /// Changes with every commit of letters.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// The table, once a letter was written. No letter is written while it is held.
    pub(crate) async fn table(&self) -> MutexGuard<'_, Option<KeyedTable>> {
        self.table.lock().await
    }

    async fn commit(&self, letters: &[DeadLetter], op: Op) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut guard = self.table.lock().await;
        if guard.is_none() {
            let spec = TableSpec {
                name: DEAD_LETTERS.to_owned(),
                fields: fields(),
                key: ["table", "stage", "topic", "partition", "offset"].map(str::to_owned).to_vec(),
                renamed: 0,
                generation: 0,
                partition_by: Vec::new(),
                freshness: Freshness::Newer,
            };
            *guard = Some(KeyedTable::open_or_create(self.location.clone(), spec, self.settings.clone()).await?);
        }
        let Some(table) = guard.as_mut() else { return Ok(()) };
        let now_us = chrono::Utc::now().timestamp_micros().max(self.newest_us.load(Relaxed) + 1);
        self.newest_us.store(now_us, Relaxed);
        let mark_us = now_us.max(self.newest_mark_us.load(Relaxed) + 1);
        self.newest_mark_us.fetch_max(mark_us, Relaxed);
        let changes = Changes {
            schema: Arc::clone(&self.schema),
            rows: rows(letters, now_us)?,
            ops: vec![op; letters.len()],
            // Later writes win, whatever they say; a letter has no place in the source's order.
            sequences: vec![Sequence((mark_us.max(0) as u128) << MARK_BITS); letters.len()],
            source_ts_ms: vec![0; letters.len()],
            records: None,
        };
        let selection = table.select(std::slice::from_ref(&changes), &[])?;
        let output = selection.upserts().clone();
        let outcome =
            table.replace(OwnerRows::copied(&selection, &output), &Ranges::new(), serde_json::Map::new()).await?;
        if matches!(outcome, Outcome::Fenced) {
            return Err(Error::new(ErrorKind::Conflict, "dead letters: another writer was faster"));
        }
        self.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }
}

fn fields() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("table", DataType::Utf8, false),
        Field::new("stage", DataType::Utf8, false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("module", DataType::Utf8, true),
        Field::new("time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}

fn rows(letters: &[DeadLetter], now_us: i64) -> Result<RecordBatch> {
    let text =
        |of: fn(&DeadLetter) -> &str| Arc::new(StringArray::from_iter_values(letters.iter().map(of))) as ArrayRef;
    let modules: StringArray = letters.iter().map(|l| l.module.as_deref()).collect();
    let times = TimestampMicrosecondArray::from(vec![now_us; letters.len()]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        text(|l| &l.table),
        text(|l| l.stage.as_str()),
        text(|l| &l.topic),
        Arc::new(Int32Array::from_iter_values(letters.iter().map(|l| l.partition))),
        Arc::new(Int64Array::from_iter_values(letters.iter().map(|l| l.offset))),
        text(|l| &l.reason),
        Arc::new(modules),
        Arc::new(times),
    ];
    let nullable: Vec<Field> = fields().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "dead letters do not fit their table").caused_by(e))
}

fn read_letter(batch: &RecordBatch, row: usize, table: &str) -> Option<DeadLetter> {
    let values: HashMap<&str, String> = ["stage", "topic", "partition", "offset"]
        .into_iter()
        .filter_map(|name| {
            let column = batch.column_by_name(name)?;
            Some((name, arrow::util::display::array_value_to_string(column, row).ok()?))
        })
        .collect();
    Some(DeadLetter {
        topic: Arc::from(values.get("topic")?.as_str()),
        partition: values.get("partition")?.parse().ok()?,
        offset: values.get("offset")?.parse().ok()?,
        stage: if values.get("stage")? == Stage::Transform.as_str() { Stage::Transform } else { Stage::Decode },
        table: table.to_owned(),
        reason: String::new(),
        module: None,
    })
}

#[cfg(test)]
mod tests;
