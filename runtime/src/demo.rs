//! `lode demo`: the online store in one process, with nothing else running.
//!
//! ```text
//! store ─► connector ─► embedded broker ─► the pipeline, as `lode run` runs it ─► local lake
//!   └──────────────────────────── check ◄────────────────────────────────────────────┘
//! ```
//!
//! Receives the pipeline file of the online store and its modules. Shows what goes on until it is stopped; with a
//! number of seconds it swaps a module on its own, stops the store, and fails unless the lake is what the store is.
//! Never reaches into the pipeline: records go through the broker, results come from the lake.

mod schema;
mod names;
mod store;
mod event;
mod broker;
mod simulator;
mod stage;
mod ledger;
mod screen;
mod rules;
mod authors;
mod gold;
mod check;
mod play;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::Lake;
use crate::pipeline::{self, Pipeline, Summary};
use broker::{Broker, Producer};
use play::Play;
use screen::Screen;
use simulator::{Simulator, Work};
use stage::Stage;

/// What is to be shown.
#[derive(Debug, Clone)]
pub struct Options {
    /// where the lake, the modules and the pipeline file in use go; what an earlier demo left there is removed
    pub folder: PathBuf,
    /// the pipeline file of the online store
    pub pipeline: PathBuf,
    /// folder of the compiled modules
    pub modules: PathBuf,
    /// changes a second
    pub rate: u32,
    /// what the store does is the same for the same seed
    pub seed: u64,
    /// ends on its own after so many seconds, with a swap on the way and a check at the end
    pub seconds: Option<u64>,
    /// what is to go wrong
    pub fault: Option<Fault>,
}

/// What goes wrong for tests of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// a change of the store is never written to the broker
    LoseRecord,
    /// the store does not know of a change that it wrote to the broker
    ForgetChange,
    /// sales are made with what a product costs today, not with what it cost when it was ordered
    CostOfToday,
}

/// Runs the demo until `stop` resolves or, with a number of seconds, to its end.
///
/// # Errors
/// What cannot be set up, what ended the pipeline, or, checked at the end, a lake that is not what the store is.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<()> {
    let broker = Broker::start()?;
    let producer = Producer::to(&broker)?;
    let appended = producer.appended();
    let stage = Stage::set(&options, &broker.address())?;
    let mut screen = Screen::new();
    screen.news("compiling the modules of the pipeline");
    let pipeline = Pipeline::new(stage.config.clone(), pipeline::Options::default())?;
    let progress = pipeline.progress();
    let (end, ending) = oneshot::channel::<()>();
    let mut running = tokio::spawn(pipeline.run(async { drop(ending.await) }));
    let work = Work { seed: options.seed, rate: options.rate, fault: options.fault };
    let simulator = Simulator::start(producer, work)?;
    let mut play = Play::begin(&stage, progress, Arc::clone(&appended), screen)?;
    play.tell(&stage.welcome(&options));

    let played = tokio::select! {
        played = play.go_on(&simulator, options.seconds) => played.map(|()| Played::Out),
        () = stop => Ok(Played::Interrupted),
        ended = &mut running => return Err(ended_early(ended)),
    }?;
    let counts = Arc::clone(simulator.counts());
    let store = tokio::task::spawn_blocking(move || simulator.stop()).await.map_err(task_failed)??;
    let ends = appended.ends();
    if played == Played::Out {
        play.tell("the store is closed; waiting until the lake has taken in everything");
        tokio::select! {
            drained = play.drain(&counts, &ends) => drained?,
            ended = &mut running => return Err(ended_early(ended)),
        }
    }
    let _ = end.send(());
    running.await.map_err(task_failed)??;
    if played == Played::Interrupted {
        play.tell(&stage.farewell());
        return Ok(());
    }

    let lake = Lake::new(stage.root()?);
    let place = check::Place { lake: &lake, root: &stage.lake, location: &stage.root()? };
    let findings = check::check(place, &store, &stage.tables, &ends).await?;
    play.tell(findings.table().trim_end());
    findings.verdict()?;
    let ((tables, rows), (star, facts)) = (findings.extent(), findings.star());
    play.tell(&format!(
        "the check passed: {tables} tables, {rows} rows, each as the store has it; \
         {star} tables of Gold, {facts} rows, each as a query over Silver gives it"
    ));
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Played {
    /// its time is over
    Out,
    /// somebody stopped it
    Interrupted,
}

fn ended_early(ended: Result<Result<Summary>, tokio::task::JoinError>) -> Error {
    match ended {
        Ok(Ok(_)) => Error::new(ErrorKind::Internal, "the pipeline ended before the demo"),
        Ok(Err(error)) => error,
        Err(error) => task_failed(error),
    }
}

fn task_failed(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a task of the demo failed").caused_by(error)
}
