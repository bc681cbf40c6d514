//! One pipeline: a source, its Bronze tables, its Silver tables, and who hands what to whom.
//!
//! ```text
//! source ─► router ─► relay (one a topic) ─┬► bronze task ─► commit
//!               │                          └► silver task (one a table): decode ► buffer ► transform ► commit
//!               └► connector (schema-change topic)
//! ```
//!
//! The only module that knows every stage. Each table is a task of its own: one that stops, waits or is slow never
//! holds another back, and Bronze never waits for Silver. The router itself waits for nothing but the next event: it
//! touches no lake, opens no table and sends into no queue that may be full.

mod ancestry;
mod connector;
mod control;
mod observe;
mod gold;
mod rebuild;
mod relay;
mod settings;
mod sharing;
mod task;
mod topics;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

pub use observe::progress::{
    CLASSES, Commits, Fill, ModuleUse, Partition, Progress, Status, Summary, TableCounts, TableStatus, TopicStatus,
};
pub use observe::report::{Refusal, Report, TableReport};
pub use rebuild::{Rebuilt, rebuild};
pub use settings::{kafka_settings, lake_options, module_limits, table_settings};

use crate::buffer::Room;
use crate::config::{self, Config, Flush};
use crate::decode::{self, TopicKind};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::dead_letters::DeadLetters;
use crate::lake::query::Lake;
use crate::lake::{Location, Settings};
use crate::model::positions::Positions;
use crate::model::table_id::{Layer, TableId};
use crate::source::{self, Budget, Requests, Source, SourceEvent};
use crate::transform::{Engine, Module};
use ancestry::Bronzes;
use connector::Connectors;
use control::reload::{Reloader, load_modules};
use control::watch::Watch;
use observe::report::{Reporter, keep_module};
use relay::Relay;
use settings::{BeginSource, named_source};
use sharing::Sharing;
use task::serving::Serving;
use task::upkeep::LettersUpkeep;
use task::{Ending, Order, Tasks, Turn};

/// Time a graceful stop may take; the rest of half a minute is for what follows.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);

/// How a run goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// end when everything present at the start is committed
    pub until_end: bool,
    /// somebody watches: the source is asked how far it reaches
    pub watched: bool,
}

/// Bounds that may change while it runs.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    flush: Flush,
    /// how long a record that nothing explains waits for the schema-change topic
    schema_wait: Duration,
}

impl Bounds {
    fn of(config: &Config) -> Self {
        Bounds { flush: config.flush, schema_wait: config.limits.schema_wait }
    }
}

/// What tasks tell the router.
enum Notice {
    /// the topic's Bronze table is open, and carries this as far as it tells
    Opened { topic: Arc<str>, kind: TopicKind },
    /// the lake has no Bronze table of the topic
    NoBronze(Arc<str>),
    /// what Bronze has of a topic that another instance writes is known; true where it tells of tables
    Listened { topic: Arc<str>, tells: bool },
}

/// Opens the lake, with its credentials as they are at that moment.
type OpenRoot = Box<dyn Fn(&Config) -> Result<Location> + Send + Sync>;

/// A pipeline ready to run.
pub struct Pipeline {
    config: Config,
    options: Options,
    open_root: OpenRoot,
    begin_source: BeginSource,
    root: Location,
    settings: Settings,
    /// what the tables may buffer together
    room: Room,
    bounds: tokio::sync::watch::Sender<Bounds>,
    engine: Engine,
    /// bytes of the modules, until they are kept in the lake
    modules: Vec<(TableId, Vec<u8>, Module)>,
    serving: Arc<Serving>,
    reporter: Arc<Reporter>,
    letters: Arc<DeadLetters>,
    /// of the dead letters as they were opened once and again; the last is of those in force
    letters_upkeep: Vec<LettersUpkeep>,
    progress: Arc<Progress>,
    connectors: Arc<Connectors>,
    routes: HashMap<Arc<str>, Route>,
    /// topics that were looked for in the lake in vain
    absent: HashSet<Arc<str>>,
    bronzes: Arc<Bronzes>,
    /// Silver table → the topic it comes from
    tables: HashMap<String, Arc<str>>,
    tasks: Tasks,
    words: mpsc::UnboundedSender<Notice>,
    heard: mpsc::UnboundedReceiver<Notice>,
    /// with the other instances of the pipeline
    sharing: Sharing,
    requests: Requests,
    /// somebody wants what has stopped to be taken up again
    nudge: Arc<Notify>,
}

/// A topic and its tables.
struct Route {
    kind: TopicKind,
    /// nothing was found of the topic but what the lake has
    only_if_there: bool,
    /// its Bronze table is open
    is_open: bool,
    /// how far Bronze is committed, whichever task writes it
    committed: Arc<tokio::sync::watch::Sender<Positions>>,
    relay: Relay,
    /// the Silver tables made of it
    silvers: Vec<String>,
}

impl Pipeline {
    /// Opens the lake; touches no table yet.
    ///
    /// # Errors
    /// A lake, module or setting that cannot be used.
    pub fn new(config: Config, options: Options) -> Result<Self> {
        let open_root = |config: &Config| Location::open(&config.lake.root, &lake_options(config)?);
        Self::over(config, options, Box::new(open_root))
    }

    fn over(config: Config, options: Options, open_root: OpenRoot) -> Result<Self> {
        let root = open_root(&config)?;
        let settings = table_settings(&config);
        let engine = Engine::with_cache(module_limits(&config))?;
        let group = group(&config, options);
        let reporter = Arc::new(Reporter::new(&config.name, group.is_some()));
        let bronzes = group.map_or_else(Bronzes::default, |_| Bronzes::shared(root.clone()));
        let serving = Arc::new(Serving::new(Arc::clone(&reporter)));
        let modules = load_modules(&engine, &config)?;
        for (id, transform) in config.transforms() {
            if let Some((_, _, module)) = modules.iter().find(|(table, ..)| *table == id) {
                serving.set(&id, module.clone(), transform.params.clone());
            }
        }
        let room = Room::new(config.limits.memory_bytes);
        let progress = Arc::new(Progress::new(&config.name, room.clone(), Arc::clone(&reporter)));
        let (words, heard) = mpsc::unbounded_channel();
        Ok(Pipeline {
            engine,
            modules,
            serving,
            tasks: Tasks::new(Arc::clone(&progress), options.until_end),
            progress,
            reporter,
            room,
            bounds: tokio::sync::watch::Sender::new(Bounds::of(&config)),
            letters: Arc::new(letters(&root, &settings)?),
            letters_upkeep: Vec::new(),
            connectors: Arc::new(Connectors::new(root.clone(), settings.clone())),
            config,
            options,
            open_root,
            begin_source: Box::new(named_source),
            root,
            settings,
            routes: HashMap::new(),
            absent: HashSet::new(),
            bronzes: Arc::new(bronzes),
            sharing: Sharing::default(),
            tables: HashMap::new(),
            words,
            heard,
            requests: Requests::closed(),
            nudge: Arc::default(),
        })
    }

    /// Takes up again what has stopped, each time it is notified.
    pub fn nudge(&self) -> Arc<Notify> {
        Arc::clone(&self.nudge)
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
        self.keep_letters();
        self.start_gold();
        let mut source = self.start_source()?;
        let asking = self.keep_ends_known(&source);
        // Others take the tables over when these are done with them.
        let membership = source.membership.take();
        self.requests = source.requests.clone();
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
            let drained = self.drain(ending).await;
            if let Some(upkeep) = self.letters_upkeep.pop() {
                upkeep.finish(ending).await;
            }
            drained
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
        let nudge = Arc::clone(&self.nudge);
        loop {
            tokio::select! {
                biased;
                Some(settled) = watch.settled.recv() => self.try_file(settled, &reloader.attempts).await,
                Some(verdict) = reloader.verdicts.recv() => {
                    self.take_verdict(verdict, &reloader.attempts).await;
                    watch.follow(self.watched_files());
                }
                Some(word) = self.heard.recv() => self.hear(word),
                turn = self.tasks.next() => self.take_turn(turn),
                () = nudge.notified() => self.take_up_stopped(),
                event = source.events.recv() => if let Some(ending) = self.take_event(event)? {
                    return Ok(ending);
                },
            }
        }
    }

    /// Acts on what the source tells; how the stream ends, where it does.
    fn take_event(&mut self, event: Option<SourceEvent>) -> Result<Option<Ending>> {
        match event {
            None => return Err(Error::new(ErrorKind::Internal, "the source ended without saying why")),
            Some(SourceEvent::Found(partitions)) => {
                self.take_up_found(partitions);
                self.progress.assigned();
            }
            Some(SourceEvent::Followed(partitions)) => {
                self.follow(partitions);
                self.progress.assigned();
            }
            Some(SourceEvent::Revoked { topics, done }) => self.release(topics, done),
            Some(SourceEvent::Block(delivery)) => self.route(delivery),
            Some(SourceEvent::Lost { topic, error }) => self.tasks.stop(&TableId::bronze(topic), error),
            Some(SourceEvent::Drained) if self.options.until_end => return Ok(Some(Ending::Complete)),
            Some(SourceEvent::Drained) => tracing::info!("everything in the source has been read"),
            Some(SourceEvent::Failed(error)) => return Err(error),
        }
        Ok(None)
    }

    fn hear(&mut self, word: Notice) {
        match word {
            Notice::Opened { topic, kind } => self.bronze_opened(&topic, kind),
            Notice::NoBronze(topic) => self.no_bronze(&topic),
            Notice::Listened { topic, tells } => self.listened(&topic, tells),
        }
    }

    /// Acts on what became of a table's task.
    fn take_turn(&mut self, turn: Turn) {
        match turn {
            Turn::Ended | Turn::Failed => {}
            Turn::Due(id) => {
                self.renew_root();
                self.start_again(&id);
            }
            Turn::Stopped(id) if id.layer == Layer::Bronze => self.bronze_stopped(&id.name),
            Turn::Stopped(_) => {}
        }
    }

    /// Nothing more is appended to Bronze: its Silver tables go on with what it holds.
    fn bronze_stopped(&mut self, topic: &Arc<str>) {
        self.requests.leave(topic);
        if let Some(route) = self.routes.get_mut(topic) {
            // Who waits for more of it hears that nothing comes.
            let holds = route.committed.borrow().clone();
            route.committed = Arc::new(tokio::sync::watch::Sender::new(holds));
            route.relay.change(|recipients| recipients.bronze = None);
        }
    }

    /// Opens the lake once more: what is opened from here on uses the credentials as they are now.
    fn renew_root(&mut self) {
        let renewed = (self.open_root)(&self.config).and_then(|root| Ok((letters(&root, &self.settings)?, root)));
        match renewed {
            Ok((letters, root)) => {
                self.connectors.renew(root.clone());
                (self.letters, self.root) = (Arc::new(letters), root);
                self.keep_letters();
            }
            Err(error) => tracing::warn!(%error, hint = error.next_step(), "the lake's settings cannot be read again"),
        }
    }

    /// The dead letters in force get upkeep beside what is written. Tables that go on write those opened before.
    fn keep_letters(&mut self) {
        self.letters_upkeep.retain(LettersUpkeep::goes_on);
        self.letters_upkeep.push(LettersUpkeep::start(&self.letters));
    }

    /// Takes up again every table that has stopped, Bronze first.
    fn take_up_stopped(&mut self) {
        self.renew_root();
        for id in self.tasks.stopped() {
            tracing::info!(table = %id, "the table is taken up again");
            if id.layer == Layer::Bronze {
                self.requests.recall(&id.name);
            }
            self.start_again(&id);
            if id.layer == Layer::Bronze {
                // They wait for a Bronze that has ended.
                let silvers = self.routes.get(&id.name).map(|route| route.silvers.clone()).unwrap_or_default();
                silvers.into_iter().for_each(|name| self.start_again(&TableId::silver(name)));
            }
        }
    }

    fn start_source(&self) -> Result<Source> {
        let budget = Budget::new(self.config.limits.memory_bytes);
        let source = (self.begin_source)(&self.config, self.options, budget.clone())?;
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

    /// Commits everything that was handed over: Bronze first, then each table that reads it up to what it holds.
    async fn drain(&mut self, ending: Ending) -> Result<()> {
        self.sharing.finish().await;
        let relays = self.routes.values_mut().map(|route| std::mem::replace(&mut route.relay, Relay::start()));
        for relay in relays.collect::<Vec<_>>() {
            relay.end().await;
        }
        self.flush_bronze().await;
        // A topic in which nothing could be read still owes its dead letters.
        let owes = |route: &Route| matches!(route.kind, TopicKind::Unknown) && !route.committed.borrow().is_empty();
        let unknown: Vec<Arc<str>> =
            self.routes.iter().filter(|(_, route)| owes(route)).map(|(topic, _)| Arc::clone(topic)).collect();
        for topic in unknown {
            if let Some(kind) = decode::classify_name(&topic) {
                self.learn_kind(&topic, kind);
            }
        }
        self.end_tasks(ending).await;
        match self.tasks.first_stop() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    async fn flush_bronze(&mut self) {
        let mut answers = Vec::new();
        for bronze in self.tasks.running().filter(|handle| handle.id.layer == Layer::Bronze) {
            let (done, answer) = oneshot::channel();
            if bronze.orders.send(Order::Flush(done)).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            // One that has stopped has said why; its Silver ends with what Bronze holds.
            let _ = answer.await;
        }
    }

    /// Ends every task, each before those that it reads, but Gold after them: it reads what they have committed in the end.
    async fn end_tasks(&mut self, ending: Ending) {
        loop {
            let running: Vec<_> = self.tasks.running().map(|task| (task.id.clone(), task.reads.clone())).collect();
            let is_read = |id: &TableId| running.iter().any(|(_, reads)| reads.contains(id));
            let are_gold = running.iter().all(|(id, _)| id.layer == Layer::Gold);
            let runs = |id: &TableId| running.iter().any(|(running, _)| running == id);
            let may_end = |(id, reads): &&(TableId, Vec<TableId>)| match id.layer {
                Layer::Gold => are_gold && !reads.iter().any(runs),
                _ => !is_read(id),
            };
            running.iter().filter(may_end).for_each(|(id, _)| self.tasks.end(id, ending));
            if running.is_empty() && (ending != Ending::Complete || !self.tasks.has_due()) {
                return;
            }
            tokio::select! {
                turn = self.tasks.next() => self.take_turn(turn),
                Some(word) = self.heard.recv() => self.hear(word),
            }
        }
    }
}

/// The dead letters of the lake at `root`.
fn letters(root: &Location, settings: &Settings) -> Result<DeadLetters> {
    DeadLetters::new(root, Lake::new(root.clone()), settings.clone())
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
