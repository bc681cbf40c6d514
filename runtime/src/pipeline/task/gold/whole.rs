//! A Gold table that is made whole: of a query over other tables, or of the days of a calendar.
//!
//! Receives word that a table it reads has committed. Promises that the table holds what the query gives at the versions that
//! its newest commit names, in one commit, and that rows which are the same are not written again. A run costs the query; it
//! happens only when rows of a table that it reads have changed, and not before the pause between two runs is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use futures::future::select_all;
use hashbrown::HashSet;
use serde_json::{Map, Value, json};

use super::{InputSpec, LOOK_EVERY, due, no_column, wrong};
use crate::config::{Days, Query};
use crate::error::{Error, ErrorKind, Result};
use crate::gold::calendar;
use crate::lake::query::{Lake, Named};
use crate::lake::{Follower, Freshness, Memo, Outcome, OwnerRows, Pace, TableSpec};
use crate::model::schema::widen::column_of;
use crate::model::table_id::TableId;
use crate::pipeline::observe::progress::Progress;
use crate::pipeline::task::columns::arrow_error;
use crate::pipeline::task::writer::{Place, Writer};
use crate::pipeline::task::{Ending, Inbox, Order, retrying};

/// What a task works with that makes a Gold table whole.
pub(in crate::pipeline) struct WholeTask {
    pub(in crate::pipeline) rows: WholeRows,
    pub(in crate::pipeline) partition_by: Vec<String>,
    /// the tables that it reads
    pub(in crate::pipeline) inputs: Vec<InputSpec>,
    pub(in crate::pipeline) lake: Lake,
    pub(in crate::pipeline) place: Place,
    pub(in crate::pipeline) progress: Arc<Progress>,
}

/// Where the rows come from.
pub(in crate::pipeline) enum WholeRows {
    Query {
        query: Query,
        memory_bytes: usize,
        /// of each input, as the query writes it
        written: Vec<TableId>,
    },
    Calendar(Days),
}

/// What follows on a wait.
enum Next {
    Look,
    End(Ending),
}

impl WholeRows {
    fn key(&self) -> Vec<String> {
        match self {
            WholeRows::Query { query, .. } => query.key.clone(),
            WholeRows::Calendar(_) => vec![calendar::KEY.to_owned()],
        }
    }

    /// What derives the rows, as text.
    fn made_by(&self) -> String {
        match self {
            WholeRows::Query { query, .. } => json!({"sql": query.sql, "key": query.key}),
            WholeRows::Calendar(days) => json!({"calendar": [days.from.to_string(), days.to.to_string()]}),
        }
        .to_string()
    }

    fn refresh(&self) -> Duration {
        match self {
            WholeRows::Query { query, .. } => query.refresh,
            WholeRows::Calendar(_) => Duration::ZERO,
        }
    }
}

impl WholeTask {
    pub(in crate::pipeline) async fn work(mut self, mut inbox: Inbox) -> Result<()> {
        let Some(mut inputs) = self.meet(&mut inbox).await? else { return Ok(()) };
        let mut writer = Writer::open(&self.place, &inbox.health).await?;
        let mut is_stale = writer.as_ref().is_none_or(|writer| self.lags(writer, &inputs));
        let mut made: Option<Instant> = None;
        let mut ending = None;
        loop {
            for input in &mut inputs {
                is_stale |= retrying!(&inbox.health, input.pass())?;
            }
            let left = made.map_or(Duration::ZERO, |made| self.rows.refresh().saturating_sub(made.elapsed()));
            if is_stale && (left.is_zero() || ending.is_some()) {
                made = Some(Instant::now());
                let rows = self.make(&inputs, &inbox).await?;
                if !self.write(&mut writer, rows, &inputs, &inbox).await? {
                    // another instance writes it
                    writer = Writer::open(&self.place, &inbox.health).await?;
                    is_stale = writer.as_ref().is_none_or(|writer| self.lags(writer, &inputs));
                    continue;
                }
                is_stale = false;
            }
            self.progress.table(inbox.health.id(), |t| t.caught_up = true);
            if let (Some(ending), Some(writer)) = (ending, &mut writer) {
                writer.finish(ending).await;
            }
            if ending.is_some() {
                return Ok(());
            }
            if let Some(writer) = &mut writer {
                writer.tend(Pace::Steady).await;
            }
            match self.wait(&mut inbox, if is_stale { left } else { LOOK_EVERY }).await {
                Next::Look => {}
                Next::End(Ending::AtOnce) => return Ok(()),
                Next::End(how) => ending = Some(how),
            }
        }
    }

    /// True where the table is not made of the inputs as they are, or not in this way.
    fn lags(&self, writer: &Writer, inputs: &[Follower]) -> bool {
        writer.table().memo(Memo::DerivedBy) != Some(self.rows.made_by().as_str())
            || !due(writer, inputs.iter()).is_empty()
    }

    /// Waits until an input may have moved.
    async fn wait(&mut self, inbox: &mut Inbox, pause: Duration) -> Next {
        let moved = async {
            match self.inputs.is_empty() {
                true => std::future::pending().await,
                false => {
                    drop(select_all(self.inputs.iter_mut().map(|input| Box::pin(input.committed.changed()))).await)
                }
            }
        };
        tokio::select! {
            ending = inbox.health.ended() => Next::End(ending),
            () = moved => Next::Look,
            () = tokio::time::sleep(pause) => Next::Look,
            Some(order) = inbox.orders.recv() => {
                if let Order::Flush(done) = order {
                    let _ = done.send(());
                }
                Next::Look
            }
        }
    }

    /// Opens every input, once all are there; `None` where the task is to end before.
    async fn meet(&mut self, inbox: &mut Inbox) -> Result<Option<Vec<Follower>>> {
        let (mut told, mut ending) = (false, None);
        loop {
            let mut met = Vec::with_capacity(self.inputs.len());
            let mut lacking = None;
            for input in &self.inputs {
                match retrying!(&inbox.health, Follower::open(&input.location, &self.place.settings))? {
                    Some(follower) => met.push(follower),
                    None => {
                        lacking = Some(input.id.clone());
                        break;
                    }
                }
            }
            let Some(name) = lacking else { return Ok(Some(met)) };
            let table = inbox.health.id().clone();
            if let Some(ending) = ending {
                if ending == Ending::Complete {
                    tracing::warn!(%table, "not made: `{name}` is not there");
                }
                return Ok(None);
            }
            if !told {
                tracing::info!(%table, "waits for `{name}`, which is not there yet");
                told = true;
            }
            if let Next::End(how) = self.wait(inbox, LOOK_EVERY).await {
                ending = Some(how);
            }
        }
    }

    /// The rows as the inputs are.
    async fn make(&self, inputs: &[Follower], inbox: &Inbox) -> Result<RecordBatch> {
        let rows = match &self.rows {
            WholeRows::Calendar(days) => calendar::days(days.from, days.to)?,
            WholeRows::Query { query, memory_bytes, written } => {
                let tables: Vec<Named> = written
                    .iter()
                    .zip(&self.inputs)
                    .zip(inputs)
                    .map(|((written, spec), input)| Named {
                        written: written.clone(),
                        table: spec.id.clone(),
                        version: input.version(),
                    })
                    .collect();
                let rows = retrying!(&inbox.health, self.lake.query_fixed(&query.sql, &tables, *memory_bytes))?;
                storable(&rows)?
            }
        };
        for name in self.rows.key() {
            if rows.schema().index_of(&name).is_err() {
                return Err(no_column("`key` names what is not there: the query gives", &name, rows.schema_ref()));
            }
        }
        Ok(rows)
    }

    /// The table, made where there is none, with the columns of `rows`.
    async fn fitted<'a>(
        &self,
        writer: &'a mut Option<Writer>,
        rows: &RecordBatch,
        inbox: &Inbox,
    ) -> Result<&'a mut Writer> {
        let (health, key) = (&inbox.health, self.rows.key());
        let writer = match writer {
            Some(writer) => writer,
            None => {
                let spec = TableSpec {
                    name: health.id().path(),
                    fields: rows.schema(),
                    key: key.clone(),
                    renamed: 0,
                    partition_by: self.partition_by.clone(),
                    generation: 0,
                    freshness: Freshness::Differs,
                };
                writer.insert(Writer::make(&self.place, health, spec, &Default::default()).await?)
            }
        };
        if writer.table().key() != key {
            let (has, asked) = (writer.table().key().join(", "), key.join(", "));
            let message = format!("the table has the key ({has}), and `key` says ({asked})");
            return Err(wrong(message, "give the table another name"));
        }
        writer.evolve(&rows.schema(), &Default::default()).await?;
        Ok(writer)
    }

    /// Commits what differs; false where another instance writes the table.
    async fn write(
        &self,
        writer: &mut Option<Writer>,
        rows: RecordBatch,
        inputs: &[Follower],
        inbox: &Inbox,
    ) -> Result<bool> {
        let begun = Instant::now();
        let (health, key) = (&inbox.health, self.rows.key());
        let writer = self.fitted(writer, &rows, inbox).await?;
        let columns = writer.table().schema().fields().iter().map(|field| column_of(&rows, field, None));
        let rows = RecordBatch::try_new(Arc::clone(writer.table().schema()), columns.collect::<Result<Vec<_>>>()?)
            .map_err(arrow_error)?;
        let keys: Vec<ArrayRef> = key.iter().filter_map(|name| rows.column_by_name(name).cloned()).collect();
        let owners = writer.table().owners_of(&keys)?;
        let mut named = HashSet::with_capacity(owners.len());
        if let Some(row) = owners.iter().position(|owner| !named.insert(*owner)) {
            return Err(twice(&key, &keys, row));
        }
        let gone = writer.table().owners_with_rows().into_iter().filter(|owner| !named.contains(owner)).collect();
        let due = due(writer, inputs.iter());
        writer.table_mut().set_memo(Memo::DerivedBy, self.rows.made_by());
        let versions = || self.inputs.iter().zip(inputs).map(|(spec, input)| (spec.id.to_string(), input.version()));
        let mut info = Map::new();
        info.insert("rows".to_owned(), rows.num_rows().into());
        info.insert(
            "inputs".to_owned(),
            versions().map(|(name, version)| (name, Value::from(version))).collect::<Map<_, _>>().into(),
        );
        let selection = writer.table().select_owners(owners, rows.clone(), gone);
        let replace = OwnerRows { selection: &selection, output: &rows, source_rows: None, rejected: &[] };
        let committed = match retrying!(health, writer.table_mut().replace(replace, &due, info.clone()))? {
            Outcome::Fenced => return Ok(false),
            Outcome::Committed(_) => true,
            Outcome::AlreadyCommitted { .. } => false,
        };
        let stand = writer.stand();
        self.progress.table(health.id(), |t| {
            if committed {
                t.counts.rows += rows.num_rows() as u64;
                t.counts.commits += 1;
                t.commits.note(begun.elapsed(), None);
            }
            t.stand = stand;
            t.inputs.extend(versions());
        });
        if committed {
            health.committed();
        }
        Ok(true)
    }
}

fn twice(key: &[String], columns: &[ArrayRef], row: usize) -> Error {
    let value = |column: &ArrayRef| array_value_to_string(column, row).unwrap_or_default();
    let values = columns.iter().map(value).collect::<Vec<_>>().join(", ");
    wrong(
        format!("the query gives several rows of the key ({}) = ({values})", key.join(", ")),
        "name in `key` the columns that tell its rows apart, or group by them",
    )
}

/// The rows of a query in types that a table can hold.
fn storable(rows: &RecordBatch) -> Result<RecordBatch> {
    let mut fields: Vec<FieldRef> = Vec::with_capacity(rows.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(rows.num_columns());
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let Some(stored) = stored_as(field.data_type()) else {
            return Err(wrong(
                format!("the query's column `{}` is {}, which a table cannot hold", field.name(), field.data_type()),
                "give it another type: `CAST(… AS …)`",
            ));
        };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let cast = cast_with_options(column, &stored, &options).map_err(|e| {
            Error::new(
                ErrorKind::Config,
                format!("the query's column `{}` has a value that {stored} cannot hold", field.name()),
            )
            .caused_by(e)
            .hint("give it another type: `CAST(… AS …)`")
        })?;
        fields.push(Arc::new(Field::new(field.name(), stored, true)));
        columns.push(cast);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)
}

fn stored_as(given: &DataType) -> Option<DataType> {
    Some(match given {
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Dictionary(_, values) => return stored_as(values),
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Float32 => given.clone(),
        DataType::Float64 | DataType::Utf8 | DataType::Binary | DataType::Boolean | DataType::Date32 => given.clone(),
        DataType::Decimal128(_, scale) if *scale >= 0 => given.clone(),
        _ => return None,
    })
}
