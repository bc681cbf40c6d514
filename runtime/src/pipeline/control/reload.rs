//! Changes of modules and of the pipeline file while the stream runs.
//!
//! Receives settled files. Promises that everything slow (reading, hashing, compiling, describing, the trial) happens
//! beside the stream, that a table takes over a module between two batches, and that whatever is wrong with a file
//! leaves everything as it was, with the reason in the log and in `lode status`. Never applies half of a pipeline file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::trial::stand_trial;
use super::watch::{Hash, Settled};
use crate::config;
use crate::config::Config;
use crate::decode::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Location;
use crate::model::table_id::TableId;
use crate::pipeline::control::difference::{Change, change_of, check_fixed, gold_change_of};
use crate::pipeline::observe::report::keep_module;
use crate::pipeline::settings::module_limits;
use crate::pipeline::task::serving::Serving;
use crate::pipeline::task::silver::plan::SilverSpec;
use crate::pipeline::task::{Ending, Handle, Order};
use crate::pipeline::{Bounds, Pipeline, TopicKind};
use crate::transform::{Engine, Limits, Module};

/// Attempts that wait for their turn: more than a pipeline has tables.
const QUEUE: usize = 4096;

/// Where an attempt's module comes from.
pub(in crate::pipeline) enum Origin {
    /// a file as it was read
    File {
        path: PathBuf,
        bytes: Vec<u8>,
    },
    Loaded(Module),
}

/// What is to be tried.
pub(in crate::pipeline) enum Attempt {
    /// another module, or other params, for a table
    Module(Box<Candidate>),
    /// another pipeline file
    File { path: PathBuf, text: String },
}

/// A module that is to take over a table.
pub(in crate::pipeline) struct Candidate {
    pub(in crate::pipeline) table: TableId,
    pub(in crate::pipeline) origin: Origin,
    pub(in crate::pipeline) params: Value,
    /// the only hash it may have
    pub(in crate::pipeline) pin: Option<String>,
    pub(in crate::pipeline) limits: Limits,
    /// `None`: the table does not run
    pub(in crate::pipeline) task: Option<Handle>,
}

/// What came of an attempt that the pipeline must act on.
pub(in crate::pipeline) enum Verdict {
    /// the table, which does not run, has a module that loads
    Loaded { table: TableId },
    /// the pipeline file is sound, and so are all its modules, by table
    File { config: Box<Config>, modules: HashMap<TableId, Module> },
}

/// Tries what it is given, one after the other.
pub(in crate::pipeline) struct Reloader {
    pub(in crate::pipeline) attempts: mpsc::Sender<Attempt>,
    pub(in crate::pipeline) verdicts: mpsc::Receiver<Verdict>,
}

impl Reloader {
    pub(in crate::pipeline) fn start(engine: Engine, root: Location, serving: Arc<Serving>) -> Self {
        let (attempts, inbox) = mpsc::channel(QUEUE);
        let (tell, verdicts) = mpsc::channel(QUEUE);
        tokio::spawn(Tester { engine, root, serving, tell }.work(inbox));
        Reloader { attempts, verdicts }
    }
}

struct Tester {
    engine: Engine,
    root: Location,
    serving: Arc<Serving>,
    tell: mpsc::Sender<Verdict>,
}

impl Tester {
    async fn work(self, mut inbox: mpsc::Receiver<Attempt>) {
        while let Some(attempt) = inbox.recv().await {
            match attempt {
                Attempt::Module(candidate) => {
                    let table = candidate.table.clone();
                    let sha256 = match &candidate.origin {
                        Origin::File { bytes, .. } => hex(&Sha256::digest(bytes).into()),
                        Origin::Loaded(module) => module.sha256(),
                    };
                    if let Err(error) = self.try_module(*candidate).await {
                        self.serving.refuse(&table, Some(sha256), &error);
                    }
                }
                Attempt::File { path, text } => {
                    let engine = self.engine.clone();
                    let loaded = blocking(move || {
                        let config = Config::parse(&path, &text)?;
                        let modules = load_modules(&engine, &config)?;
                        Ok((config, modules))
                    });
                    match loaded.await {
                        Ok((config, modules)) => {
                            for (_, bytes, module) in &modules {
                                keep_module(&self.root, &module.sha256(), bytes.clone()).await;
                            }
                            let modules = modules.into_iter().map(|(table, _, module)| (table, module)).collect();
                            let _ = self.tell.send(Verdict::File { config: Box::new(config), modules }).await;
                        }
                        Err(error) => self.serving.reporter.pipeline_file(Some(&error)),
                    }
                }
            }
        }
    }

    async fn try_module(&self, candidate: Candidate) -> Result<()> {
        let Candidate { table, origin, params, pin, limits, task } = candidate;
        let engine = self.engine.clone();
        let recent = task.as_ref().map(|task| Arc::clone(&task.recent));
        let tried_params = params.clone();
        let (module, bytes, difference) = blocking(move || {
            let (module, bytes) = match origin {
                Origin::File { path, bytes } => {
                    check_pin(pin.as_deref(), &Sha256::digest(&bytes).into(), &path)?;
                    (engine.load(&bytes, &path.to_string_lossy())?, Some(bytes))
                }
                Origin::Loaded(module) => (module, None),
            };
            let module = module.held_to(limits);
            let difference = recent.map(|recent| stand_trial(&module, &tried_params, &recent)).transpose()?;
            Ok((module, bytes, difference))
        })
        .await?;
        let sha256 = module.sha256();
        if let Some(bytes) = bytes {
            keep_module(&self.root, &sha256, bytes).await;
        }
        if let Some(task) = task {
            let (reply, answer) = oneshot::channel();
            let order = Order::Adopt { module: module.clone(), params: params.clone(), reply };
            if task.orders.send(order).await.is_ok()
                && let Ok(adopted) = answer.await
            {
                adopted?;
                let difference = difference.unwrap_or_default();
                tracing::info!(%table, module = %sha256, %difference, "the table has another module now");
                self.serving.reporter.differ(&table, difference);
                return Ok(());
            }
        }
        // The table does not run (not seen yet, or stopped): it starts with this module.
        self.serving.set(&table, module, params);
        tracing::info!(%table, module = %sha256, "the table starts with another module");
        let _ = self.tell.send(Verdict::Loaded { table }).await;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "the trial of a module ended").caused_by(e))?
}

/// Loads the modules of all tables: table, bytes, module.
///
/// # Errors
/// `Config` or `Module` for the first that is missing, broken, or not the one that is pinned.
pub(in crate::pipeline) fn load_modules(engine: &Engine, config: &Config) -> Result<Vec<(TableId, Vec<u8>, Module)>> {
    let limits = module_limits(config);
    let mut modules = Vec::new();
    for (table, transform) in config.transforms() {
        let path = &transform.path;
        let bytes = std::fs::read(path).map_err(|e| {
            let (layer, name) = (table.layer, &table.name);
            let message = format!("`{layer}.{name}.transform`: module `{}` cannot be read", path.display());
            Error::new(ErrorKind::Config, message)
                .caused_by(e)
                .hint("paths are relative to the pipeline file; `make modules` builds those of this repository")
        })?;
        check_pin(transform.sha256.as_deref(), &Sha256::digest(&bytes).into(), path)?;
        let module = engine.load(&bytes, &path.to_string_lossy())?.held_to(limits.clone());
        modules.push((table, bytes, module));
    }
    Ok(modules)
}

fn check_pin(pin: Option<&str>, hash: &Hash, path: &Path) -> Result<()> {
    let hash = hex(hash);
    match pin {
        Some(pin) if pin != hash => {
            let message = format!("module `{}` has the sha256 `{hash}`, pinned is `{pin}`", path.display());
            Err(Error::new(ErrorKind::Config, message).hint("bring the pinned file back, or change `sha256`"))
        }
        _ => Ok(()),
    }
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Pipeline {
    /// Modules and the pipeline file, with the hash of what is in use.
    pub(in crate::pipeline) fn watched_files(&self) -> BTreeMap<PathBuf, Hash> {
        let mut files = BTreeMap::from([(self.config.file.clone(), self.config.sha256)]);
        for (table, transform) in self.config.transforms() {
            if let Some((module, _)) = self.serving.get(&table) {
                files.insert(transform.path.clone(), module.hash());
            }
        }
        files
    }

    /// A file has another content: whoever uses it tries it.
    pub(in crate::pipeline) async fn try_file(&mut self, settled: Settled, attempts: &mpsc::Sender<Attempt>) {
        let Settled { path, content } = settled;
        if path == self.config.file {
            let text = content.and_then(|bytes| String::from_utf8(bytes).map_err(|e| e.to_string()));
            match text {
                Ok(text) => drop(attempts.send(Attempt::File { path, text }).await),
                Err(reason) => self.reporter.pipeline_file(Some(&unreadable("pipeline file", &path, reason))),
            }
            return;
        }
        let limits = module_limits(&self.config);
        for (table, transform) in self.config.transforms().filter(|(_, transform)| transform.path == path) {
            let bytes = match &content {
                Ok(bytes) => bytes.clone(),
                Err(reason) => {
                    self.serving.refuse(&table, None, &unreadable("module", &path, reason.clone()));
                    continue;
                }
            };
            let candidate = Candidate {
                origin: Origin::File { path: path.clone(), bytes },
                params: transform.params.clone(),
                pin: transform.sha256.clone(),
                limits: limits.clone(),
                task: self.tasks.get(&table).cloned(),
                table,
            };
            let _ = attempts.send(Attempt::Module(Box::new(candidate))).await;
        }
    }

    /// Acts on what came of an attempt.
    pub(in crate::pipeline) async fn take_verdict(&mut self, verdict: Verdict, attempts: &mpsc::Sender<Attempt>) {
        match verdict {
            Verdict::Loaded { table } => {
                if self.tasks.get(&table).is_none() {
                    self.start_again(&table);
                }
            }
            Verdict::File { config, modules } => match check_fixed(&self.config, &config) {
                Ok(()) => {
                    self.apply(*config, modules, attempts).await;
                    self.take_up_stopped();
                }
                Err(error) => self.reporter.pipeline_file(Some(&error)),
            },
        }
    }

    /// Takes over a pipeline file that was found sound.
    async fn apply(&mut self, config: Config, modules: HashMap<TableId, Module>, attempts: &mpsc::Sender<Attempt>) {
        let sources: Vec<(Arc<str>, TableName)> = self
            .routes
            .iter()
            .filter_map(|(topic, route)| match &route.kind {
                TopicKind::Rows { table, .. } => Some((Arc::clone(topic), table.clone())),
                _ => None,
            })
            .collect();
        let mut before: HashMap<Arc<str>, Vec<SilverSpec>> =
            sources.iter().map(|(topic, source)| (Arc::clone(topic), self.plans(source))).collect();
        let before_gold = std::mem::replace(&mut self.config, config).gold;
        let given =
            |id: &TableId, config: &Config| Some((modules.get(id)?.clone(), config.transform_of(id)?.params.clone()));
        self.bounds.send_replace(Bounds::of(&self.config));
        for (topic, source) in sources {
            let was = before.remove(&topic).unwrap_or_default();
            let is = self.plans(&source);
            for gone in was.iter().filter(|was| !is.iter().any(|is| is.name == was.name)) {
                tracing::info!(table = %gone.name, "the pipeline file no longer asks for the table; it stays in the lake");
                self.retire(&topic, &gone.name);
            }
            for plan in is {
                let id = TableId::silver(plan.name.as_str());
                let given = given(&id, &self.config);
                let known = was.iter().find(|was| was.name == plan.name);
                match change_of(known, &plan, given.as_ref().map(|(module, params)| (module, params))) {
                    Change::Stays => {}
                    Change::BeginsAnew => self.restart(&topic, &plan.name),
                    Change::TriesModule => {
                        if let Some((module, params)) = given {
                            self.try_module(id, module, params, attempts).await;
                        }
                    }
                    Change::BecomesCopy => {
                        tracing::info!(table = %plan.name, "the pipeline file asks for no module any more");
                        self.retire(&topic, &plan.name);
                        self.restart(&topic, &plan.name);
                    }
                    Change::Begins => {
                        if let Some((module, params)) = given {
                            self.serving.set(&id, module, params);
                        }
                        tracing::info!(table = %plan.name, "the pipeline file asks for the table");
                        self.restart(&topic, &plan.name);
                    }
                }
            }
        }
        // Sections whose topic has not been seen yet.
        for section in &self.config.silver {
            let id = TableId::silver(section.name.as_str());
            if !self.tables.contains_key(&section.name)
                && let Some((module, params)) = given(&id, &self.config)
            {
                self.serving.set(&id, module, params);
            }
        }
        self.apply_gold(&before_gold, given, attempts).await;
        self.reporter.pipeline_file(None);
        tracing::info!("the pipeline file is taken over");
    }

    /// Takes over the sections of Gold, which were `before`.
    async fn apply_gold(
        &mut self,
        before: &[config::Gold],
        given: impl Fn(&TableId, &Config) -> Option<(Module, Value)>,
        attempts: &mpsc::Sender<Attempt>,
    ) {
        let sections = self.config.gold.clone();
        for gone in before.iter().filter(|was| !sections.iter().any(|is| is.name == was.name)) {
            tracing::info!(table = %gone.name, "the pipeline file no longer asks for the table; it stays in the lake");
            let id = TableId::gold(gone.name.as_str());
            self.serving.remove(&id);
            self.tasks.forget(&id);
            self.progress.forget(&id);
        }
        for section in sections {
            let id = TableId::gold(section.name.as_str());
            let was = before.iter().find(|was| was.name == section.name);
            let (had, given) = (self.serving.get(&id), given(&id, &self.config));
            match gold_change_of(was, &section, had.as_ref(), given.as_ref()) {
                Change::Stays => {}
                Change::TriesModule => {
                    if let Some((module, params)) = given {
                        self.try_module(id, module, params, attempts).await;
                    }
                }
                Change::Begins | Change::BeginsAnew | Change::BecomesCopy => {
                    match given {
                        Some((module, params)) => self.serving.set(&id, module, params),
                        None => self.serving.remove(&id),
                    }
                    tracing::info!(table = %section.name, "the pipeline file asks for the table");
                    self.tasks.end(&id, Ending::AtOnce);
                    self.start_again(&id);
                }
            }
        }
    }

    async fn try_module(&self, table: TableId, module: Module, params: Value, attempts: &mpsc::Sender<Attempt>) {
        let candidate = Candidate {
            limits: module.limits().clone(),
            origin: Origin::Loaded(module),
            params,
            pin: None,
            task: self.tasks.get(&table).cloned(),
            table,
        };
        let _ = attempts.send(Attempt::Module(Box::new(candidate))).await;
    }

    /// Ends the table's task; what it has not committed is read again by whoever goes on with the table.
    fn retire(&mut self, topic: &Arc<str>, table: &str) {
        let id = TableId::silver(table);
        self.tables.remove(table);
        self.serving.remove(&id);
        self.tasks.forget(&id);
        self.progress.forget(&id);
        if let Some(route) = self.routes.get_mut(topic) {
            route.silvers.retain(|silver| silver != table);
            route.relay.change(|recipients| recipients.silvers.retain(|silver| silver.id != id));
        }
    }

    /// Starts the table anew, as the pipeline file and the serving modules have it now. Waits for nothing: the new task
    /// begins when the one before has ended.
    fn restart(&mut self, topic: &Arc<str>, table: &str) {
        self.tasks.end(&TableId::silver(table), Ending::AtOnce);
        let Some(TopicKind::Rows { table: source, .. }) = self.routes.get(topic).map(|route| route.kind.clone()) else {
            return;
        };
        if let Some(plan) = self.plans(&source).into_iter().find(|plan| plan.name == table) {
            self.add_silver(topic, &source, plan);
        }
    }
}

fn unreadable(what: &str, path: &Path, reason: String) -> Error {
    Error::new(ErrorKind::Config, format!("{what} `{}` cannot be read", path.display()))
        .caused_by(reason)
        .hint("put the file back; what was read before goes on meanwhile")
}
