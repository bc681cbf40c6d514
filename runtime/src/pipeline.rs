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
mod chore;
mod columns;
mod connector;
mod packing;
mod plan;
mod progress;
mod rebuild;
mod reload;
mod report;
mod retry;
mod settings;
mod sharing;
mod silver;
mod topics;
mod trial;
mod upsert;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use progress::{
    CLASSES, Commits, Fill, ModuleUse, Partition, Progress, SilverStatus, Status, Summary, TableCounts, TopicStatus,
};
pub use rebuild::{Rebuilt, rebuild};
pub use report::{Refusal, Report, TableReport};
pub use settings::{kafka_settings, lake_options, module_limits, table_settings};

use crate::buffer::Room;
use crate::config::{self, Config};
use crate::deadletter::DeadLetters;
use crate::decode::{self, TopicKind};
use crate::error::{Error, ErrorKind, Result};
use crate::query::Lake;
use crate::record::Offsets;
use crate::source::{self, Budget, Delivery, EndQueries, Source, SourceEvent};
use crate::table::{Location, Settings};
use crate::transform::{Engine, Module};
use ancestry::Bronzes;
use bronze::Bronze;
use connector::Connector;
use reload::{Reloader, Serving, load_modules};
use report::{Reporter, keep_module};
use sharing::Sharing;
use silver::{Ending, Silver};
use watch::Watch;

/// Longest wait for a live Silver table before it is left behind to read Bronze.
const SILVER_PATIENCE: Duration = Duration::from_secs(5);
/// Time a graceful stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How a run goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// end when everything present at the start is committed
    pub until_end: bool,
    /// somebody watches: the source is asked how far it reaches
    pub watched: bool,
}

/// A pipeline ready to run.
pub struct Pipeline {
    config: Config,
    options: Options,
    root: Location,
    settings: Settings,
    /// what the tables may buffer together
    room: Room,
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
    /// with the other instances of the pipeline
    sharing: Sharing,
    ends: EndQueries,
}

struct Route {
    bronze: Bronze,
    kind: TopicKind,
    /// the Silver tables made of it
    silvers: Vec<Silver>,
}

impl Pipeline {
    /// Opens the lake; touches no table yet.
    ///
    /// # Errors
    /// A lake, module or setting that cannot be used.
    pub fn new(config: Config, options: Options) -> Result<Self> {
        let lake_options = lake_options(&config)?;
        let root = Location::open(&config.lake.root, &lake_options)?;
        let lake = Lake::new(root.clone(), lake_options);
        let settings = table_settings(&config);
        let letters = Arc::new(DeadLetters::new(&root, lake, settings.clone())?);
        let engine = Engine::with_cache(module_limits(&config))?;
        let group = group(&config, options);
        let reporter = Arc::new(Reporter::new(&config.name, group.is_some()));
        let bronzes = group.map_or_else(Bronzes::default, |_| Bronzes::shared(root.clone()));
        let serving = Arc::new(Serving::new(Arc::clone(&reporter)));
        let modules = load_modules(&engine, &config)?;
        for section in &config.silver {
            if let Some((_, _, module)) = modules.iter().find(|(table, ..)| *table == section.name) {
                serving.set(&section.name, module.clone(), section.params.clone());
            }
        }
        let room = Room::new(config.limits.memory_bytes);
        Ok(Pipeline {
            engine,
            modules,
            serving,
            progress: Arc::new(Progress::new(&config.name, room.clone(), Arc::clone(&reporter))),
            reporter,
            retired: Vec::new(),
            room,
            config,
            options,
            root,
            settings,
            letters,
            connectors: HashMap::new(),
            routes: HashMap::new(),
            bronzes: Arc::new(bronzes),
            sharing: Sharing::default(),
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

    async fn work(mut self, mut stopping: oneshot::Receiver<()>) -> Result<Summary> {
        let (progress, reporter) = (Arc::clone(&self.progress), Arc::clone(&self.reporter));
        let root = self.root.clone();
        let reporting = tokio::spawn({
            let (reporter, root) = (Arc::clone(&reporter), root.clone());
            async move { reporter.keep_written(&root).await }
        });
        let mut source = self.start_source()?;
        let asking = self.keep_ends_known(&source);
        // Others take the tables over when these are done with them.
        let membership = source.membership.take();
        self.ends = source.ends.clone();
        let ended = tokio::select! {
            biased;
            Ok(()) = &mut stopping => Ok(Ending::BrokenOff),
            ended = self.stream(&mut source) => ended,
        };
        progress.ending();
        let ending = *ended.as_ref().unwrap_or(&Ending::BrokenOff);
        let settled = async {
            source.stop();
            // Its thread may be waiting for a broker.
            let _ = tokio::task::spawn_blocking(move || drop(source)).await;
            self.drain(ending).await
        };
        let settled = tokio::select! {
            settled = settled => settled,
            () = out_of_time(ending, stopping, STOP_TIMEOUT) => {
                tracing::warn!("tables did not settle in time; they go on from their positions at the next start");
                Ok(())
            }
        };
        reporting.abort();
        asking.inspect(JoinHandle::abort);
        reporter.conclude(&root).await;
        let _ = tokio::task::spawn_blocking(move || drop(membership)).await;
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
                    let mut positions = Offsets::new();
                    for id in partitions {
                        if let Err(error) = self.take_up(&id).await {
                            self.progress.stop(&format!("bronze/{}", id.topic), &error);
                        }
                        if let Some(route) = self.routes.get(&id.topic)
                            && let Some(next) = route.bronze.committed.borrow().get(&id)
                        {
                            positions.insert(id, next);
                        }
                    }
                    self.follow_renamed_tables().await;
                    let _ = reply.send(positions);
                    self.progress.assigned();
                }
                Some(SourceEvent::Followed { partitions, reply }) => {
                    let _ = reply.send(self.follow(partitions).await);
                    self.progress.assigned();
                }
                Some(SourceEvent::Revoked { topics, done }) => self.release(topics, done),
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
        let source = match kafka_settings(&self.config, self.options.until_end) {
            Some(settings) => source::kafka::start(settings, budget.clone(), block_rows),
            None => source::replay::start(self.config.source.captures().to_vec(), budget.clone(), block_rows),
        }?;
        self.progress.reads_from(budget, source.known_ends.clone());
        if self.bronzes.are_shared() {
            // The group may leave us nothing to do.
            self.progress.assigned();
        }
        Ok(source)
    }

    /// The task that asks how far the source reaches, where somebody wants to know and there is a broker to ask.
    fn keep_ends_known(&self, source: &Source) -> Option<JoinHandle<()>> {
        let settings = kafka_settings(&self.config, false).filter(|_| self.options.watched)?;
        Some(tokio::spawn(source::kafka::keep_known(settings, source.known_ends.clone())))
    }

    /// Hands a delivery to the topic's Bronze, and to whoever else reads the topic. A topic whose Bronze has stopped is
    /// read in vain: nothing of it is committed, and the next start reads it again.
    async fn route(&mut self, delivery: Delivery) {
        let topic = Arc::clone(&delivery.block.partition().topic);
        self.progress.read(delivery.block.len());
        let Some(route) = self.routes.get_mut(&topic) else { return self.listen(&delivery) };
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
        self.sharing.settle().await;
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
        if ending == Ending::Complete {
            for route in self.routes.values() {
                let _ = route.bronze.orders.send(bronze::Order::Settle).await;
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

/// Resolves when what ends has no more time: a run that is broken off, or one to its end that is told to stop while tables
/// finish their upkeep.
async fn out_of_time(ending: Ending, stopping: oneshot::Receiver<()>, bound: Duration) {
    if ending == Ending::Complete && stopping.await.is_err() {
        // nobody is left to tell it
        return std::future::pending().await;
    }
    tokio::time::sleep(bound).await;
}

/// The group whose members share the tables. A run to the end reads everything itself: it ends, and what is another's by
/// then would not be done.
fn group(config: &Config, options: Options) -> Option<&str> {
    match &config.source {
        config::Source::Kafka { group: Some(group), .. } if !options.until_end => Some(group),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_to_the_end_has_all_the_time_until_it_is_told_to_stop() {
        let (stop_now, stopping) = oneshot::channel();
        let mut over = std::pin::pin!(out_of_time(Ending::Complete, stopping, Duration::ZERO));
        assert!(futures::poll!(&mut over).is_pending());
        stop_now.send(()).unwrap();
        over.await;

        let (stop_now, stopping) = oneshot::channel();
        drop(stop_now);
        assert!(futures::poll!(std::pin::pin!(out_of_time(Ending::Complete, stopping, Duration::ZERO))).is_pending());
        out_of_time(Ending::BrokenOff, oneshot::channel().1, Duration::ZERO).await;
    }
}
