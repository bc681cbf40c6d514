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

mod ancestry;
mod bronze;
mod columns;
mod connector;
mod plan;
mod packing;
mod progress;
mod rebuild;
mod reload;
mod report;
mod retry;
mod silver;
mod trial;
mod upsert;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use progress::{Progress, Summary, TableCounts};
pub use rebuild::{Rebuilt, rebuild};
pub use report::{Refusal, Report, TableReport};

use crate::config::{self, Config};
use crate::deadletter::DeadLetters;
use crate::decode::{self, TableName, TopicKind};
use crate::error::{Action, Error, ErrorKind, Result};
use crate::query::Lake;
use crate::record::{PartitionId, Positions};
use crate::source::{self, Budget, Delivery, EndQueries, Source, SourceEvent};
use crate::table::{BronzeTable, Location, Settings, positions_of};
use crate::transform::{Engine, Limits, Module};
use ancestry::Bronzes;
use bronze::Bronze;
use connector::Connector;
use plan::Plan;
use reload::{Reloader, Serving, load_modules};
use report::{Reporter, keep_module};
use retry::Backoff;
use silver::{Ending, Reader, Silver};
use upsert::Opening;
use watch::Watch;

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
    engine: Engine,
    /// bytes of the modules, until they are kept in the lake
    modules: Vec<(String, Vec<u8>, Module)>,
    serving: Arc<Serving>,
    reporter: Arc<Reporter>,
    letters: Arc<DeadLetters>,
    progress: Arc<Progress>,
    connectors: HashMap<String, Arc<Connector>>,
    routes: HashMap<Arc<str>, Route>,
    bronzes: Arc<Bronzes>,
    /// Silver table → the topic it comes from
    tables: HashMap<String, Arc<str>>,
    /// tasks of tables that are no longer asked for, or start anew
    retired: Vec<(String, JoinHandle<Result<()>>)>,
    ends: EndQueries,
}

struct Route {
    bronze: Bronze,
    kind: TopicKind,
    /// the Silver tables made of it
    silvers: Vec<Silver>,
}

/// The lake's options as a map.
pub fn lake_options(config: &Config) -> HashMap<String, String> {
    config.lake.options.iter().cloned().collect()
}

/// The limits of a pipeline's modules.
pub fn module_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        failed_ratio: limits.rejected_ratio,
        memory_bytes: limits.module_memory_bytes,
        call_time: limits.module_time,
        output_bytes: limits.module_output_bytes,
        output_rows: limits.module_output_rows,
        log_lines: limits.module_log_lines,
        module_bytes: limits.module_size_bytes,
        compile_time: limits.compile_time,
        ..Limits::default()
    }
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
        let engine = Engine::new(module_limits(&config))?;
        let reporter = Arc::new(Reporter::new());
        let serving = Arc::new(Serving::new(Arc::clone(&reporter)));
        let modules = load_modules(&engine, &config)?;
        for section in &config.silver {
            if let Some((_, _, module)) = modules.iter().find(|(table, ..)| *table == section.name) {
                serving.set(&section.name, module.clone(), section.params.clone());
            }
        }
        Ok(Pipeline {
            engine,
            modules,
            serving,
            progress: Arc::new(Progress::new(Arc::clone(&reporter))),
            reporter,
            retired: Vec::new(),
            config,
            options,
            root,
            settings,
            letters,
            connectors: HashMap::new(),
            routes: HashMap::new(),
            bronzes: Arc::default(),
            tables: HashMap::new(),
            ends: EndQueries::closed(),
        })
    }

    /// Counts that move while it runs.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Runs until the source is drained (with `until_end`), `stop` resolves, or nothing can go on.
    ///
    /// # Errors
    /// What ended the source, or stopped the first table that stopped.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Summary> {
        let (stop_now, stopping) = oneshot::channel();
        let mut work = std::pin::pin!(self.work(stopping));
        tokio::select! {
            ended = &mut work => return ended,
            () = stop => drop(stop_now.send(())),
        }
        work.await
    }

    async fn work(mut self, stopping: oneshot::Receiver<()>) -> Result<Summary> {
        let (progress, reporter) = (Arc::clone(&self.progress), Arc::clone(&self.reporter));
        let (root, name) = (self.root.clone(), self.config.name.clone());
        let reporting = tokio::spawn({
            let (reporter, root, name) = (Arc::clone(&reporter), root.clone(), name.clone());
            async move { reporter.keep_written(&root, &name).await }
        });
        let mut source = self.start_source()?;
        self.ends = source.ends.clone();
        let ended = tokio::select! {
            biased;
            Ok(()) = stopping => Ok(Ending::BrokenOff),
            ended = self.stream(&mut source) => ended,
        };
        let ending = *ended.as_ref().unwrap_or(&Ending::BrokenOff);
        let settled = async {
            source.stop();
            // Its thread may be waiting for a broker.
            let _ = tokio::task::spawn_blocking(move || drop(source)).await;
            self.drain(ending).await
        };
        let settled = tokio::select! {
            settled = settled => settled,
            () = tokio::time::sleep(STOP_TIMEOUT), if ending == Ending::BrokenOff => {
                tracing::warn!("tables did not settle in time; they go on from their positions at the next start");
                Ok(())
            }
        };
        reporting.abort();
        reporter.write(&root, &name).await;
        ended.and(settled).map(|()| progress.summary())
    }

    /// Hands on what the source tells, and takes over changed files; how the stream ended.
    async fn stream(&mut self, source: &mut Source) -> Result<Ending> {
        for (_, bytes, module) in std::mem::take(&mut self.modules) {
            keep_module(&self.root, &module.sha256(), bytes).await;
        }
        let mut watch = Watch::start(self.watched_files())?;
        let mut reloader = Reloader::start(self.engine.clone(), self.root.clone(), Arc::clone(&self.serving));
        loop {
            let event = tokio::select! {
                biased;
                Some(settled) = watch.settled.recv() => {
                    self.try_file(settled, &reloader.attempts).await;
                    continue;
                }
                Some(verdict) = reloader.verdicts.recv() => {
                    self.take_verdict(verdict, &reloader.attempts).await;
                    watch.follow(self.watched_files());
                    continue;
                }
                event = source.events.recv() => event,
            };
            match event {
                None => return Err(Error::new(ErrorKind::Internal, "the source ended without saying why")),
                Some(SourceEvent::Assigned { partitions, reply }) => {
                    let mut positions = Positions::new();
                    for id in partitions {
                        if let Err(error) = self.take_up(&id).await {
                            self.progress.stop(&format!("bronze/{}", id.topic), &error);
                        }
                        if let Some(route) = self.routes.get(&id.topic)
                            && let Some(next) = route.bronze.committed.borrow().get(&id)
                        {
                            positions.insert(id.clone(), *next);
                        }
                    }
                    self.follow_renamed_tables().await;
                    let _ = reply.send(positions);
                }
                Some(SourceEvent::Revoked { done, .. }) => {
                    let _ = done.send(());
                }
                Some(SourceEvent::Block(delivery)) => self.route(delivery).await,
                Some(SourceEvent::Lost { topic, error }) => self.progress.stop(&format!("bronze/{topic}"), &error),
                Some(SourceEvent::Drained) if self.options.until_end => return Ok(Ending::Complete),
                Some(SourceEvent::Drained) => tracing::info!("everything in the source has been read"),
                Some(SourceEvent::Failed(error)) => return Err(error),
            }
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
        // What Bronze knows of the structures must be known before a row is decoded.
        if let Some(told) = decode::schema_topic(topic).filter(|told| !self.routes.contains_key(*told))
            && !positions_of(&self.bronze_location(told)?).await?.is_empty()
        {
            Box::pin(self.take_up(&PartitionId { topic: told.into(), partition: 0 })).await?;
        }
        let mut backoff = Backoff::new();
        let (table, kind) = loop {
            match self.open_bronze(topic).await {
                Err(error) if error.action() == Action::Retry => backoff.wait(topic, &error).await,
                other => break other?,
            }
        };
        let bronze = Bronze::spawn(Arc::clone(topic), table, self.config.flush, Arc::clone(&self.progress));
        let (location, committed) = (self.bronze_location(topic)?, bronze.committed.clone());
        self.bronzes.add(ancestry::Source { topic: Arc::clone(topic), bronze: location, committed });
        self.routes.insert(Arc::clone(topic), Route { bronze, kind: TopicKind::Unknown, silvers: Vec::new() });
        self.learn_kind(topic, kind);
        Ok(())
    }

    async fn open_bronze(&mut self, topic: &Arc<str>) -> Result<(BronzeTable, TopicKind)> {
        let location = self.bronze_location(topic)?;
        let table = BronzeTable::open_or_create(location, topic, self.settings.clone()).await?;
        let kind = self.classify_bronze(topic, &table).await?;
        Ok((table, kind))
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
        if matches!(kind, TopicKind::SchemaChanges) {
            let connector = self.connector(topic);
            table.positions().iter().for_each(|(id, end)| connector.pass(id, *end));
        }
        Ok(kind)
    }

    fn connector(&mut self, schema_topic: &str) -> Arc<Connector> {
        let make = || Arc::new(Connector::new(schema_topic));
        Arc::clone(self.connectors.entry(schema_topic.to_owned()).or_insert_with(make))
    }

    /// A topic shows what it carries: rows get their Silver tables.
    fn learn_kind(&mut self, topic: &Arc<str>, kind: TopicKind) {
        if let TopicKind::Rows { table, .. } = &kind {
            for plan in self.plans(table) {
                self.add_silver(topic, table, plan);
            }
        }
        if let Some(route) = self.routes.get_mut(topic) {
            route.kind = kind;
        }
    }

    fn add_silver(&mut self, topic: &Arc<str>, table: &TableName, plan: Plan) {
        let name = plan.name.clone();
        let names: Vec<String> = std::iter::once(name.clone()).chain(plan.changes.then(|| feed_name(&name))).collect();
        let taken = names.iter().find_map(|name| Some((name, self.tables.get(name).filter(|other| *other != topic)?)));
        let started = match taken {
            Some((name, other)) => {
                let message = format!("silver `{name}`: `{other}` writes it already; `{topic}` goes into Bronze only");
                Err(Error::new(ErrorKind::Config, message)
                    .hint("give one of them a section `[silver.<other name>]` with `from = \"<database>.<table>\"`"))
            }
            None => {
                self.tables.extend(names.into_iter().map(|name| (name, Arc::clone(topic))));
                self.start_silver(topic, table, plan)
            }
        };
        match (started, self.routes.get_mut(topic)) {
            (Ok(silver), Some(route)) => route.silvers.push(silver),
            (Ok(_), None) => {}
            (Err(error), _) => self.progress.stop(&name, &error),
        }
    }

    /// A table that got another name goes on under it, whether or not a row has come to the new name's topic yet.
    async fn follow_renamed_tables(&mut self) {
        if let Err(error) = self.take_up_renamed().await {
            tracing::warn!(%error, hint = error.next_step(), "a renamed table is not followed yet");
        }
    }

    async fn take_up_renamed(&mut self) -> Result<()> {
        let mut renamed = Vec::new();
        for connector in self.connectors.values() {
            let topic =
                |t: &TableName| -> Arc<str> { format!("{}.{}.{}", connector.topic, t.database, t.table).into() };
            connector.with_history(|history| {
                for table in history.renamed_tables() {
                    let earlier = history.lineage(&table).ancestors;
                    let earlier: Vec<Arc<str>> = earlier.iter().map(|ancestor| topic(&ancestor.table)).collect();
                    renamed.push((earlier, topic(&table), table));
                }
            });
        }
        for (earlier, topic, table) in renamed {
            if self.routes.get(&topic).is_some_and(|r| !matches!(r.kind, TopicKind::Unknown)) {
                continue;
            }
            for topic in &earlier {
                // Kafka may have the old topic no more; Bronze has it.
                if !self.routes.contains_key(topic) && !positions_of(&self.bronze_location(topic)?).await?.is_empty() {
                    self.take_up(&PartitionId { topic: Arc::clone(topic), partition: 0 }).await?;
                }
            }
            let flattened = earlier.iter().find_map(|topic| match self.routes.get(topic)?.kind {
                TopicKind::Rows { flattened, .. } => Some(flattened),
                _ => None,
            });
            if let Some(flattened) = flattened {
                self.take_up(&PartitionId { topic: Arc::clone(&topic), partition: 0 }).await?;
                self.learn_kind(&topic, TopicKind::Rows { table, flattened });
            }
        }
        Ok(())
    }

    /// How the pipeline file wants the source table: by its sections, else as a typed copy where it asks for copies.
    fn plans(&self, source: &TableName) -> Vec<Plan> {
        let TableName { database, table } = source;
        let full = format!("{database}.{table}");
        let sections = self.config.silver.iter().filter(|s| s.from == *table || s.from == full);
        let plans: Vec<Plan> = sections
            .map(|section| {
                let module = section.transform.as_ref().and_then(|_| self.serving.get(&section.name));
                Plan {
                    name: section.name.clone(),
                    module,
                    partition_by: section.partition_by.clone(),
                    changes: section.changes,
                    on_incompatible: section.on_incompatible,
                }
            })
            .collect();
        if !plans.is_empty() {
            return plans;
        }
        let mirrored = self
            .config
            .mirror_tables
            .iter()
            .any(|pattern| glob::Pattern::new(pattern).is_ok_and(|p| p.matches(table) || p.matches(&full)));
        let name: String =
            table.chars().map(|c| if c.is_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect();
        let on_incompatible = self.config.on_incompatible;
        let copy = Plan { name, module: None, partition_by: Vec::new(), changes: false, on_incompatible };
        mirrored.then_some(copy).into_iter().collect()
    }

    fn start_silver(&mut self, topic: &Arc<str>, table: &TableName, plan: Plan) -> Result<Silver> {
        let connector = self.connector(decode::schema_topic(topic).unwrap_or(topic));
        let Some(route) = self.routes.get(topic) else {
            return Err(Error::new(ErrorKind::Internal, format!("topic `{topic}` has no route")));
        };
        let name = plan.name.clone();
        let section = self.config.silver.iter().find(|s| s.name == name);
        let overrides = section.map(|s| s.columns.as_slice()).unwrap_or_default();
        let decode = decode_settings(&self.config.debezium, overrides)?;
        let feed = plan.changes.then(|| self.root.table(&format!("silver/{}", feed_name(&name)))).transpose()?;
        let opening = Opening {
            plan,
            feed,
            generation: None,
            location: self.root.table(&format!("silver/{name}"))?,
            settings: self.settings.clone(),
            letters: Arc::clone(&self.letters),
            serving: Arc::clone(&self.serving),
            recent: Arc::default(),
        };
        self.progress.start(&name);
        Ok(Reader {
            name,
            topic: Arc::clone(topic),
            source: table.clone(),
            follows_schema: overrides.is_empty(),
            decode,
            connector,
            opening,
            flush: self.config.flush,
            schema_wait: self.config.limits.schema_wait,
            committed: route.bronze.committed.clone(),
            within_committed: false,
            bronze: self.bronze_location(topic)?,
            bronzes: Arc::clone(&self.bronzes),
            settings: self.settings.clone(),
            ends: self.ends.clone(),
            progress: Arc::clone(&self.progress),
        }
        .spawn())
    }

    /// Hands a delivery to the topic's Bronze, and to whoever else reads the topic. A topic whose Bronze has stopped is
    /// read in vain: nothing of it is committed, and the next start reads it again.
    async fn route(&mut self, delivery: Delivery) {
        let topic = Arc::clone(&delivery.block.partition().topic);
        self.progress.read(delivery.block.len());
        let Some(route) = self.routes.get_mut(&topic) else { return };
        if route.bronze.orders.send(bronze::Order::Take(delivery.clone())).await.is_err() {
            // It has said why.
            self.routes.remove(&topic);
            return;
        }
        if matches!(route.kind, TopicKind::Unknown) {
            let kind = delivery.block.iter().map(|record| decode::classify(&topic, record));
            let kind = kind.into_iter().find(|kind| !matches!(kind, TopicKind::Unknown));
            if let Some(kind) = kind {
                if matches!(kind, TopicKind::SchemaChanges) {
                    self.connector(&topic);
                }
                self.learn_kind(&topic, kind);
                self.follow_renamed_tables().await;
            }
        }
        let Some(route) = self.routes.get_mut(&topic) else { return };
        if matches!(route.kind, TopicKind::SchemaChanges) {
            let connector = self.connector(&topic);
            connector.take(&delivery.block);
            connector.pass(delivery.block.partition(), delivery.range.to);
            self.follow_renamed_tables().await;
            return;
        }
        for silver in route.silvers.iter().filter(|silver| silver.live.load(Relaxed)) {
            let order = silver::Order::Take(delivery.clone());
            if silver.orders.send_timeout(order, SILVER_PATIENCE).await.is_err() {
                // Nothing is lost: what a table misses it reads from Bronze, without holding the others up again.
                silver.live.store(false, Relaxed);
            }
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
        for (topic, answer) in answers {
            if answer.await.is_err() {
                // It has said why; its Silver ends with what Bronze holds.
                tracing::debug!(%topic, "bronze has stopped");
            }
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
                self.learn_kind(&topic, kind);
            }
        }
        let mut first = None;
        let mut waiting = Vec::new();
        for route in self.routes.values_mut() {
            for silver in route.silvers.drain(..) {
                let _ = silver.orders.send(silver::Order::Drain(ending)).await;
                waiting.push(silver);
            }
        }
        for (table, task) in self.retired.drain(..) {
            if let Ok(Err(error)) = task.await {
                tracing::warn!(%table, %error, "a table that was no longer asked for had stopped");
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

/// The name of a Silver table's feed of changes.
fn feed_name(table: &str) -> String {
    format!("{table}_changes")
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
