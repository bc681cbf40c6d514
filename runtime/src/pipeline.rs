//! One pipeline: a source, its Bronze tables, its Silver tables, and who hands what to whom.
//!
//! ```text
//! source ─► router ─┬► bronze task (one a topic) ─► commit
//!                   ├► connector (schema-change topic)
//!                   └► silver task (one a table): decode ► buffer ► transform ► commit
//! ```
//!
//! The only module that knows every stage. Each table is a task of its own: one that stops, waits or is slow never
//! holds another back, and Bronze never waits for Silver.

mod bronze;
mod columns;
mod connector;
mod progress;
mod retry;
mod silver;
mod upsert;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::oneshot;

pub use progress::{Progress, Summary, TableCounts};

use crate::config::{self, Config};
use crate::deadletter::DeadLetters;
use crate::decode::{self, Decoder, Epochs, TableName, TopicKind};
use crate::error::{Error, ErrorKind, Result};
use crate::query::Lake;
use crate::record::{PartitionId, Positions};
use crate::source::{self, Budget, Delivery, EndQueries, Source, SourceEvent};
use crate::table::{BronzeTable, Location, Settings};
use crate::transform::{Engine, Limits, Module};
use bronze::Bronze;
use connector::Connector;
use silver::{Ending, Reader, Silver};
use upsert::{Plan, Upsert};

/// Longest wait for a live Silver table before it is left behind to read Bronze.
const SILVER_PATIENCE: Duration = Duration::from_secs(5);
/// Records of a topic that are looked at to find out what it carries.
const CLASSIFY_RECORDS_MAX: usize = 10_000;
/// Time a graceful stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How a run goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// end when everything present at the start is committed
    pub until_end: bool,
}

/// A pipeline ready to run.
pub struct Pipeline {
    config: Config,
    options: Options,
    root: Location,
    settings: Settings,
    modules: HashMap<PathBuf, Module>,
    letters: Arc<DeadLetters>,
    progress: Arc<Progress>,
    connectors: HashMap<String, Arc<Connector>>,
    routes: HashMap<Arc<str>, Route>,
    /// Silver table → the topic it comes from
    tables: HashMap<String, Arc<str>>,
    ends: EndQueries,
}

struct Route {
    bronze: Bronze,
    kind: TopicKind,
    silver: Option<Silver>,
}

/// The lake's options as a map.
pub fn lake_options(config: &Config) -> HashMap<String, String> {
    config.lake.options.iter().cloned().collect()
}

/// The settings of a pipeline's tables.
pub fn table_settings(config: &Config) -> Settings {
    Settings {
        target_file_bytes: config.maintenance.target_file_bytes as u64,
        small_files_min: config.maintenance.small_files,
        hidden_ratio: config.maintenance.hidden_ratio,
        checkpoint_every: config.maintenance.checkpoint_interval,
        vacuum_retention: config.maintenance.retention,
        block_rows: config.flush.rows.min(50_000),
        ..Settings::default()
    }
}

impl Pipeline {
    /// Opens the lake; touches no table yet.
    ///
    /// # Errors
    /// A lake, module or setting that cannot be used.
    pub fn new(config: Config, options: Options) -> Result<Self> {
        let lake_options = lake_options(&config);
        let root = Location::open(&config.lake.root, &lake_options)?;
        let lake = Lake::new(root.clone(), lake_options);
        let settings = table_settings(&config);
        let letters = Arc::new(DeadLetters::new(&root, lake, settings.clone())?);
        let limits = Limits { failed_ratio: config.limits.rejected_ratio, ..Limits::default() };
        Ok(Pipeline {
            modules: load_modules(&config, limits)?,
            config,
            options,
            root,
            settings,
            letters,
            progress: Arc::default(),
            connectors: HashMap::new(),
            routes: HashMap::new(),
            tables: HashMap::new(),
            ends: EndQueries::closed(),
        })
    }

    /// Counts that move while it runs.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Runs until the source is drained (with `until_end`, and for files), `stop` resolves, or nothing can go on.
    ///
    /// # Errors
    /// What ended the source, or stopped the first table that stopped.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<Summary> {
        let mut source = self.start_source()?;
        self.ends = source.ends.clone();
        let mut stop = std::pin::pin!(stop);
        let mut failed = None;
        let mut ending = Ending::BrokenOff;
        loop {
            let event = tokio::select! {
                biased;
                () = &mut stop => break,
                event = source.events.recv() => event,
            };
            match event {
                None => break,
                Some(SourceEvent::Assigned { partitions, reply }) => {
                    let mut positions = Positions::new();
                    for id in partitions {
                        self.take_up(&id).await?;
                        if let Some(route) = self.routes.get(&id.topic)
                            && let Some(next) = route.bronze.committed.borrow().get(&id)
                        {
                            positions.insert(id.clone(), *next);
                        }
                    }
                    let _ = reply.send(positions);
                }
                Some(SourceEvent::Revoked { done, .. }) => {
                    let _ = done.send(());
                }
                Some(SourceEvent::Block(delivery)) => self.route(delivery).await?,
                Some(SourceEvent::Drained) if self.options.until_end => {
                    ending = Ending::Complete;
                    break;
                }
                Some(SourceEvent::Drained) => tracing::info!("everything in the source has been read"),
                Some(SourceEvent::Failed(error)) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let progress = Arc::clone(&self.progress);
        source.stop();
        drop(source);
        let ended = tokio::select! {
            ended = self.drain(ending) => ended,
            () = tokio::time::sleep(STOP_TIMEOUT), if !self.options.until_end => {
                tracing::warn!("tables did not settle in time; they go on from their positions at the next start");
                Ok(())
            }
        };
        match failed {
            Some(error) => Err(error),
            None => ended.map(|()| progress.summary()),
        }
    }

    fn start_source(&self) -> Result<Source> {
        let budget = Budget::new(self.config.limits.memory_bytes);
        let block_rows = self.config.flush.rows;
        match &self.config.source {
            config::Source::Replay { files } => source::replay::start(files.clone(), budget, block_rows),
            config::Source::Kafka { brokers, topics, refresh, options } => source::kafka::start(
                source::kafka::Settings {
                    name: self.config.name.clone(),
                    brokers: brokers.clone(),
                    topics: topics.clone(),
                    refresh: *refresh,
                    options: options.clone(),
                    until_end: self.options.until_end,
                },
                budget,
                block_rows,
            ),
        }
    }

    /// Opens the topic's Bronze table and, where Bronze tells what the topic carries, its Silver table.
    async fn take_up(&mut self, id: &PartitionId) -> Result<()> {
        let topic = &id.topic;
        if self.routes.contains_key(topic) {
            return Ok(());
        }
        let location = self.bronze_location(topic)?;
        let table = BronzeTable::open_or_create(location, topic, self.settings.clone()).await?;
        let kind = self.classify_bronze(topic, &table).await?;
        let bronze = Bronze::spawn(Arc::clone(topic), table, self.config.flush, Arc::clone(&self.progress));
        self.routes.insert(Arc::clone(topic), Route { bronze, kind: TopicKind::Unknown, silver: None });
        self.learn_kind(topic, kind).await
    }

    fn bronze_location(&self, topic: &str) -> Result<Location> {
        self.root.table(&format!("bronze/{topic}"))
    }

    /// Finds out from Bronze what a topic carries; a schema-change topic is taken in whole.
    async fn classify_bronze(&mut self, topic: &Arc<str>, table: &BronzeTable) -> Result<TopicKind> {
        if table.positions().is_empty() {
            return Ok(TopicKind::Unknown);
        }
        let mut blocks = table.read(&Positions::new()).await?;
        let mut seen = 0;
        let mut kind = TopicKind::Unknown;
        while let Some(block) = blocks.next().await {
            let block = block?;
            if matches!(kind, TopicKind::Unknown) {
                kind = block
                    .iter()
                    .map(|record| decode::classify(topic, record))
                    .find(|kind| !matches!(kind, TopicKind::Unknown))
                    .unwrap_or(TopicKind::Unknown);
            }
            match &kind {
                TopicKind::SchemaChanges => self.connector(topic).take(&block),
                TopicKind::Unknown => {
                    seen += block.len();
                    if seen > CLASSIFY_RECORDS_MAX {
                        break;
                    }
                }
                _ => break,
            }
        }
        Ok(kind)
    }

    fn connector(&mut self, schema_topic: &str) -> Arc<Connector> {
        let make = || Arc::new(Connector::new(schema_topic));
        Arc::clone(self.connectors.entry(schema_topic.to_owned()).or_insert_with(make))
    }

    /// A topic shows what it carries: rows get their Silver table.
    async fn learn_kind(&mut self, topic: &Arc<str>, kind: TopicKind) -> Result<()> {
        if let TopicKind::Rows { table, .. } = &kind
            && let Some(plan) = self.plan(&table.database, &table.table)?
        {
            let name = plan.name.clone();
            if let Some(other) = self.tables.insert(name.clone(), Arc::clone(topic))
                && other != *topic
            {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("silver `{name}`: both `{other}` and `{topic}` would write it"),
                )
                .hint("give one of them a section `[silver.<other name>]` with `from = \"<database>.<table>\"`"));
            }
            let silver = match self.start_silver(topic, table, plan).await {
                Ok(silver) => Some(silver),
                Err(error) => {
                    self.progress.stop(&name, &error);
                    None
                }
            };
            if let Some(route) = self.routes.get_mut(topic) {
                route.silver = silver;
            }
        }
        if let Some(route) = self.routes.get_mut(topic) {
            route.kind = kind;
        }
        Ok(())
    }

    /// How the pipeline file wants the source table; `None` where it does not ask for it.
    fn plan(&self, database: &str, table: &str) -> Result<Option<Plan>> {
        let full = format!("{database}.{table}");
        let section = self.config.silver.iter().find(|s| s.from == table || s.from == full);
        if let Some(section) = section {
            let module = section.transform.as_ref().and_then(|path| self.modules.get(path));
            let module = module.map(|module| (module.clone(), section.params.clone()));
            return Ok(Some(Plan {
                name: section.name.clone(),
                module,
                partition_by: section.partition_by.clone(),
                on_incompatible: section.on_incompatible,
            }));
        }
        let mirrored = self
            .config
            .mirror_tables
            .iter()
            .any(|pattern| glob::Pattern::new(pattern).is_ok_and(|p| p.matches(table) || p.matches(&full)));
        let name: String =
            table.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect();
        let on_incompatible = self.config.on_incompatible;
        Ok(mirrored.then_some(Plan { name, module: None, partition_by: Vec::new(), on_incompatible }))
    }

    async fn start_silver(&mut self, topic: &Arc<str>, table: &TableName, plan: Plan) -> Result<Silver> {
        let connector = self.connector(decode::schema_topic(topic).unwrap_or(topic));
        let Some(route) = self.routes.get(topic) else {
            return Err(Error::new(ErrorKind::Internal, format!("topic `{topic}` has no route")));
        };
        let name = plan.name.clone();
        let section = self.config.silver.iter().find(|s| s.name == name);
        let overrides = section.map(|s| s.columns.as_slice()).unwrap_or_default();
        let mut decoder = Decoder::new(Arc::clone(topic), decode_settings(&self.config.debezium, overrides)?);
        let location = self.root.table(&format!("silver/{name}"))?;
        let upsert = Upsert::open(plan, location, self.settings.clone(), Arc::clone(&self.letters)).await?;
        if let Some(epochs) = upsert.epochs() {
            decoder.set_epochs(epochs.parse::<Epochs>().map_err(|e| {
                Error::new(ErrorKind::Corrupt, format!("silver `{name}`: `lode.epochs` cannot be read"))
                    .caused_by(e.to_string())
            })?);
        }
        Ok(Reader {
            name,
            topic: Arc::clone(topic),
            source: table.clone(),
            follows_schema: overrides.is_empty(),
            decoder,
            connector,
            upsert,
            flush: self.config.flush,
            schema_wait: self.config.limits.schema_wait,
            committed: route.bronze.committed.clone(),
            bronze: self.bronze_location(topic)?,
            settings: self.settings.clone(),
            ends: self.ends.clone(),
            progress: Arc::clone(&self.progress),
        }
        .spawn())
    }

    /// Hands a delivery to the topic's Bronze, and to whoever else reads the topic.
    async fn route(&mut self, delivery: Delivery) -> Result<()> {
        let topic = Arc::clone(&delivery.block.partition().topic);
        self.progress.read(delivery.block.len());
        let Some(route) = self.routes.get_mut(&topic) else { return Ok(()) };
        if route.bronze.orders.send(bronze::Order::Take(delivery.clone())).await.is_err() {
            return self.bronze_failed(&topic).await;
        }
        if matches!(route.kind, TopicKind::Unknown) {
            let kind = delivery.block.iter().map(|record| decode::classify(&topic, record));
            let kind = kind.into_iter().find(|kind| !matches!(kind, TopicKind::Unknown));
            if let Some(kind) = kind {
                if matches!(kind, TopicKind::SchemaChanges) {
                    self.connector(&topic);
                }
                self.learn_kind(&topic, kind).await?;
            }
        }
        let Some(route) = self.routes.get_mut(&topic) else { return Ok(()) };
        if matches!(route.kind, TopicKind::SchemaChanges) {
            let connector = self.connector(&topic);
            connector.take(&delivery.block);
            return Ok(());
        }
        if let Some(silver) = &route.silver
            && silver.live.load(Relaxed)
        {
            // Sent or not, nothing is lost: what a table misses it reads from Bronze.
            let _ = silver.orders.send_timeout(silver::Order::Take(delivery), SILVER_PATIENCE).await;
        }
        Ok(())
    }

    async fn bronze_failed(&mut self, topic: &Arc<str>) -> Result<()> {
        let Some(route) = self.routes.remove(topic) else { return Ok(()) };
        drop(route.bronze.orders);
        match route.bronze.task.await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err(Error::new(ErrorKind::Internal, format!("bronze `{topic}` ended early"))),
            Err(panic) => Err(Error::new(ErrorKind::Internal, format!("bronze `{topic}` failed")).caused_by(panic)),
        }
    }

    /// Commits everything that was handed over: Bronze first, then each Silver up to what Bronze holds.
    async fn drain(&mut self, ending: Ending) -> Result<()> {
        let mut answers = Vec::new();
        for (topic, route) in &self.routes {
            let (done, answer) = oneshot::channel();
            if route.bronze.orders.send(bronze::Order::Flush(done)).await.is_ok() {
                answers.push((Arc::clone(topic), answer));
            }
        }
        let mut dead = Vec::new();
        for (topic, answer) in answers {
            if answer.await.is_err() {
                dead.push(topic);
            }
        }
        for topic in dead {
            self.bronze_failed(&topic).await?;
        }
        // A topic in which nothing could be read still owes its dead letters.
        let unknown: Vec<Arc<str>> = self
            .routes
            .iter()
            .filter(|(_, r)| matches!(r.kind, TopicKind::Unknown) && !r.bronze.committed.borrow().is_empty())
            .map(|(topic, _)| Arc::clone(topic))
            .collect();
        for topic in unknown {
            if let Some(kind) = decode::classify_name(&topic) {
                self.learn_kind(&topic, kind).await?;
            }
        }
        let mut first = None;
        let mut waiting = Vec::new();
        for route in self.routes.values_mut() {
            if let Some(silver) = route.silver.take() {
                let _ = silver.orders.send(silver::Order::Drain(ending)).await;
                waiting.push(silver);
            }
        }
        for silver in waiting {
            let ended = match silver.task.await {
                Ok(ended) => ended,
                Err(panic) => {
                    Err(Error::new(ErrorKind::Internal, format!("silver `{}` failed", silver.name)).caused_by(panic))
                }
            };
            if let Err(error) = ended {
                first.get_or_insert(error);
            }
        }
        for (_, route) in self.routes.drain() {
            drop(route.bronze.orders);
            if let Ok(Err(error)) = route.bronze.task.await {
                first.get_or_insert(error);
            }
        }
        match first {
            Some(error) => Err(error),
            None => self.first_stop(),
        }
    }

    /// A table that could not even start makes the run a failure too.
    fn first_stop(&self) -> Result<()> {
        let summary = self.progress.summary();
        match summary.silver.into_iter().find_map(|(_, t)| Some((t.stopped?, t.hint))) {
            None => Ok(()),
            Some((stopped, hint)) => {
                let error = Error::new(ErrorKind::Internal, stopped);
                Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
        }
    }
}

/// Loads every module that the pipeline file names: one that is missing or broken ends the run before it begins.
fn load_modules(config: &Config, limits: Limits) -> Result<HashMap<PathBuf, Module>> {
    let engine = Engine::new(limits)?;
    let mut modules = HashMap::new();
    for section in &config.silver {
        let Some(path) = &section.transform else { continue };
        let bytes = std::fs::read(path).map_err(|e| {
            let message = format!("`silver.{}.transform`: module `{}` cannot be read", section.name, path.display());
            Error::new(ErrorKind::Config, message)
                .caused_by(e)
                .hint("paths are relative to the pipeline file; `make modules` builds those of this repository")
        })?;
        modules.insert(path.clone(), engine.load(&bytes, &path.to_string_lossy())?);
    }
    Ok(modules)
}

fn decode_settings(debezium: &config::Debezium, columns: &[(String, String)]) -> Result<decode::Settings> {
    use decode::{BinaryHandling, DecimalHandling, TimePrecision};
    let columns = columns.iter().map(|(name, kind)| {
        let parsed = kind.parse().map_err(|e: String| {
            Error::new(ErrorKind::Config, format!("column `{name}`: `{kind}` is not a type")).caused_by(e)
        })?;
        Ok((name.clone(), parsed))
    });
    Ok(decode::Settings {
        time_precision: debezium.time_precision.as_deref().map(|mode| match mode {
            "connect" => TimePrecision::Connect,
            "isostring" => TimePrecision::IsoString,
            _ => TimePrecision::AdaptiveTimeMicroseconds,
        }),
        decimal_handling: debezium.decimal_handling.as_deref().map(|mode| match mode {
            "string" => DecimalHandling::String,
            "double" => DecimalHandling::Double,
            _ => DecimalHandling::Precise,
        }),
        binary_handling: debezium.binary_handling.as_deref().map(|mode| match mode {
            "hex" => BinaryHandling::Hex,
            _ => BinaryHandling::Base64,
        }),
        columns: columns.collect::<Result<_>>()?,
        ..decode::Settings::default()
    })
}
