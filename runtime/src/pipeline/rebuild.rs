//! `lode rebuild`: a Silver table derived again from Bronze with the module as it is now, beside a running stream.
//!
//! Receives a pipeline that does not run here (another process may run it) and a table's name. Promises that readers see the old
//! table until the new one takes its place in one commit, and that a stream running elsewhere goes on from there.
//! Reads Bronze alone, and of it only what the table in force has taken in: everything that could be known of these
//! records is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::Map;
use tokio::sync::watch;

use super::ancestry::{AppendedTopic, Bronzes};
use super::settings::decode_settings;
use super::task::silver::SilverTask;
use super::task::silver::upsert::Opening;
use super::task::{Ending, Tasks, Turn};
use super::topics::feed_name;
use super::{Bounds, Pipeline};
use crate::config::{Config, Flush};
use crate::decode::{self, Decoded, Decoder, Patience, TableName, TopicKind};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::Lake;
use crate::lake::{BronzeTable, Rebuild};
use crate::model::positions::{InputId, Positions};
use crate::model::table_id::TableId;
use crate::source::Requests;

/// Rounds in which the new table takes in what the old one took in meanwhile, before they are exchanged.
const ROUNDS: usize = 3;
/// Rows of a commit at least.
const FLUSH_ROWS: usize = 200_000;
/// Longest wait for Bronze to hold what Silver has taken in.
const BRONZE_WAIT: Duration = Duration::from_secs(60);
/// Pause between two looks at Bronze.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What a rebuild did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Rebuilt {
    /// version of the Delta table that holds it
    pub version: u64,
    /// number of the new generation
    pub generation: u64,
    /// changes taken in
    pub changes: u64,
    /// records and rows set aside
    pub dead_letters: u64,
    /// seconds it took
    pub seconds: f64,
}

/// Derives the Silver table `table` again from Bronze.
///
/// # Errors
/// `Config` where there is no such table, or it has a feed of changes; the lake's; what the module or the records say.
pub async fn rebuild(config: Config, table: &str) -> Result<Rebuilt> {
    let pipeline = Pipeline::new(config, super::Options { until_end: true, ..super::Options::default() })?;
    rebuild_in(pipeline, table).await
}

pub(super) async fn rebuild_in(mut pipeline: Pipeline, table: &str) -> Result<Rebuilt> {
    let started = Instant::now();
    let begun_ms = chrono::Utc::now().timestamp_millis();
    let location = pipeline.root.table(&format!("silver/{table}"))?;
    let Some(rebuild) = Rebuild::begin(&location, &pipeline.settings).await? else {
        return Err(Error::new(ErrorKind::Config, format!("there is no table `silver.{table}` in the lake"))
            .hint("`lode status` lists the tables; `lode run` makes new ones"));
    };
    let (topic, source) = pipeline.topic_of(table).await?;
    let plans = pipeline.plans(&source);
    let Some(plan) = plans.into_iter().find(|plan| plan.name == table) else {
        return Err(Error::new(ErrorKind::Config, format!("the pipeline file does not ask for `silver.{table}`"))
            .hint("add a section for it, or name it in `mirror_tables`"));
    };
    if plan.changes {
        let feed = feed_name(table);
        return Err(Error::new(
            ErrorKind::Config,
            format!("`silver.{table}` has the feed `{feed}`, which a rebuild would break"),
        )
        .hint("take `changes` away and move the feed's folder; it begins anew when asked for again"));
    }
    let module = plan.module.as_ref().map(|(module, _)| module.sha256());
    let mut rounds = 0;
    let mut wanted = rebuild.positions().await?;
    loop {
        rounds += 1;
        pipeline.take_in(table, &topic, &source, &rebuild, &plan, &wanted).await?;
        let now = rebuild.positions().await?;
        if now == wanted || rounds == ROUNDS {
            break;
        }
        wanted = now;
    }
    let mut info = Map::new();
    if let Some(module) = module {
        info.insert("module".to_owned(), module.into());
    }
    let version = rebuild.take_over(info).await?;
    pipeline.letters.forget_before(table, begun_ms, &wanted).await?;
    let counts = pipeline.progress.summary().silver.remove(table).unwrap_or_default();
    Ok(Rebuilt {
        version,
        generation: rebuild.generation(),
        changes: counts.changes,
        dead_letters: counts.dead_letters,
        seconds: started.elapsed().as_secs_f64(),
    })
}

impl Pipeline {
    /// The topic in Bronze that the table is made of. On the way everything that Bronze tells of the connector is learned:
    /// its table structures, and what its values say of its modes.
    async fn topic_of(&mut self, table: &str) -> Result<(Arc<str>, TableName)> {
        let lake = Lake::new(self.root.clone());
        let mut rows = Vec::new();
        for topic in lake.tables("bronze").await? {
            let topic: Arc<str> = topic.into();
            let bronze =
                BronzeTable::open_or_create(self.bronze_location(&topic)?, &topic, self.settings.clone()).await?;
            if let TopicKind::Rows { table, .. } = self.connectors.classify(&topic, &bronze).await? {
                rows.push((topic, table));
            }
        }
        let found = rows.iter().find(|(_, source)| self.plans(source).iter().any(|plan| plan.name == table)).cloned();
        let found = found.ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("no topic in Bronze is a source of `silver.{table}`"))
                .hint("`lode status` lists the topics in Bronze; `from` in the table's section names the source table")
        })?;
        for (topic, _) in &rows {
            self.learn_modes(topic).await?;
        }
        Ok(found)
    }

    /// Lets the values of a topic tell the connector's modes.
    async fn learn_modes(&mut self, topic: &Arc<str>) -> Result<()> {
        let connector = self.connectors.of(decode::schema_topic(topic).unwrap_or(topic));
        let mut decoder = Decoder::new(Arc::clone(topic), decode_settings(&self.config.debezium, &[])?);
        let bronze = BronzeTable::open_or_create(self.bronze_location(topic)?, topic, self.settings.clone()).await?;
        let mut blocks = bronze.read(&Positions::new()).await?;
        while let Some(block) = blocks.next().await {
            let mut evidence = connector.evidence();
            if evidence.is_settled() {
                return Ok(());
            }
            // What it decodes is not wanted.
            let mut decoded = Decoded::new();
            connector.with_history(|history| {
                decoder.decode(&block?, 0, history, &mut evidence, Patience::LastChance, &mut decoded);
                Ok::<_, Error>(())
            })?;
            connector.learn(evidence);
        }
        Ok(())
    }

    /// Brings the new generation to the positions `wanted`, or as far as Bronze goes of them.
    async fn take_in(
        &mut self,
        name: &str,
        topic: &Arc<str>,
        source: &TableName,
        rebuild: &Rebuild,
        plan: &super::task::silver::plan::SilverSpec,
        wanted: &Positions,
    ) -> Result<()> {
        let own: Positions = wanted.partitions().filter(|(id, _)| id.topic == *topic).collect();
        self.await_bronze(topic, &own).await?;
        let section = self.config.silver.iter().find(|s| s.name == name);
        let overrides = section.map(|s| s.columns.as_slice()).unwrap_or_default();
        // The senders are kept until the end: Bronze has not ended, it only holds no more than is wanted.
        let (_bronze, committed) = watch::channel(own);
        let mut earlier: BTreeMap<Arc<str>, Positions> = BTreeMap::new();
        for (id, next) in wanted.partitions().filter(|(id, _)| id.topic != *topic) {
            earlier.entry(Arc::clone(&id.topic)).or_default().insert(id, next);
        }
        let (bronzes, mut kept) = (Bronzes::default(), Vec::new());
        for (topic, positions) in earlier {
            let (sender, committed) = watch::channel(positions);
            kept.push(sender);
            bronzes.add(AppendedTopic { bronze: self.bronze_location(&topic)?, topic, committed });
        }
        // Nobody waits for a row: few large files.
        let flush = Flush { rows: self.config.flush.rows.max(FLUSH_ROWS), ..self.config.flush };
        let (_bounds, bounds) = watch::channel(Bounds { flush, ..Bounds::of(&self.config) });
        let task = SilverTask {
            bronzes: Arc::new(bronzes),
            topic: Arc::clone(topic),
            source: source.clone(),
            follows_schema: overrides.is_empty(),
            decode: decode_settings(&self.config.debezium, overrides)?,
            connector: self.connectors.of(decode::schema_topic(topic).unwrap_or(topic)),
            connectors: Arc::clone(&self.connectors),
            opening: Opening {
                plan: plan.clone(),
                feed: None,
                location: rebuild.staging().clone(),
                generation: Some(rebuild.generation()),
                settings: self.settings.clone(),
                letters: Arc::clone(&self.letters),
                serving: Arc::clone(&self.serving),
            },
            bounds,
            room: self.room.clone(),
            committed,
            within_committed: true,
            bronze: self.bronze_location(topic)?,
            settings: self.settings.clone(),
            requests: Requests::closed(),
            progress: Arc::clone(&self.progress),
        };
        let id = TableId::silver(name);
        let mut tasks = Tasks::new(Arc::clone(&self.progress), true);
        tasks.start(&id, Vec::new(), |inbox| task.work(inbox)).end(Ending::Complete);
        match tasks.next().await {
            Turn::Ended => Ok(()),
            Turn::Failed | Turn::Due(_) | Turn::Stopped(_) => Err(tasks.error_of(&id)),
        }
    }

    /// Silver may be a moment ahead of Bronze while the stream runs.
    async fn await_bronze(&self, topic: &Arc<str>, wanted: &Positions) -> Result<()> {
        let until = Instant::now() + BRONZE_WAIT;
        loop {
            let bronze =
                BronzeTable::open_or_create(self.bronze_location(topic)?, topic, self.settings.clone()).await?;
            let reached = |(id, next): (&InputId, &i64)| bronze.positions().get(id).is_some_and(|end| end >= *next);
            if wanted.iter().all(reached) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Error::new(
                    ErrorKind::Gap,
                    format!("bronze `{topic}` lacks records that Silver has taken in"),
                )
                .hint("let `lode run` catch up first"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
