//! One Gold table: driving rows of Silver joined with the rows that they lead to, at one version of each after the other.
//!
//! Receives word that a table it reads has committed, and looks at their logs now and then, as others may commit too.
//! Promises that the Gold table holds what the join of its inputs gives at the versions that its newest whole commit names as
//! positions, whatever was committed there, in which order and by whom, and that rows which are the same are not written
//! again. Never reads Kafka or Bronze, and needs nothing of the tasks that write its inputs.

mod inputs;
mod letters;
mod round;
mod shape;
pub(in crate::pipeline) mod whole;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use futures::future::select_all;
use tokio::sync::watch;

use super::derivation::Derivation;
use super::serving::Serving;
use super::writer::{Place, Writer};
use super::{Ending, Inbox, Order, retrying};
use crate::config::{Joined, nearest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::dead_letters::DeadLetters;
use crate::lake::{Follower, Freshness, Location, Pace, TableSpec};
use crate::model::positions::{Range, Ranges};
use crate::model::table_id::TableId;
use crate::pipeline::observe::progress::Progress;
use inputs::Input;
use letters::Letters;
use round::Gold;
use shape::Shape;

/// Time between two looks at the logs of inputs that nobody here says anything of.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a Gold task works with.
pub(in crate::pipeline) struct GoldTask {
    pub(in crate::pipeline) joined: Joined,
    pub(in crate::pipeline) partition_by: Vec<String>,
    /// the driving table, then the lookups in their order
    pub(in crate::pipeline) inputs: Vec<InputSpec>,
    pub(in crate::pipeline) place: Place,
    pub(in crate::pipeline) letters: Arc<DeadLetters>,
    pub(in crate::pipeline) serving: Arc<Serving>,
    pub(in crate::pipeline) progress: Arc<Progress>,
}

/// A table that a Gold table reads.
pub(in crate::pipeline) struct InputSpec {
    pub(in crate::pipeline) id: TableId,
    pub(in crate::pipeline) location: Location,
    /// its feed of changes, where versions of its rows are looked up
    pub(in crate::pipeline) feed: Option<(Location, TableId)>,
    /// moves with every commit of the table
    pub(in crate::pipeline) committed: watch::Receiver<u64>,
}

/// What follows on a wait.
enum Next {
    /// an input may have moved
    Look,
    /// another module makes the rows, or an input is another table now
    Reopen,
    End(Ending),
}

impl GoldTask {
    pub(in crate::pipeline) async fn work(mut self, mut inbox: Inbox) -> Result<()> {
        let id = inbox.health.id().clone();
        let serving = self.serving.get(&id);
        let mut derivation = Derivation::new(&id, serving, Arc::clone(&self.serving), Arc::clone(&inbox.recent));
        loop {
            let Some(mut gold) = self.open(&mut inbox, derivation).await? else { return Ok(()) };
            let ending = self.keep(&mut gold, &mut inbox).await?;
            match ending {
                None => derivation = gold.derivation,
                Some(ending) => {
                    gold.writer.finish(ending).await;
                    return Ok(());
                }
            }
        }
    }

    /// Keeps the table as its inputs are; how it is to end, `None` where it is to be opened anew.
    async fn keep(&mut self, gold: &mut Gold, inbox: &mut Inbox) -> Result<Option<Ending>> {
        loop {
            if !gold.round(&inbox.health, false).await? {
                return Ok(None);
            }
            gold.writer.tend(Pace::Steady).await;
            self.progress.table(inbox.health.id(), |t| t.caught_up = true);
            match self.wait(inbox, Some(&mut *gold)).await {
                Next::Look => {}
                Next::Reopen => return Ok(None),
                Next::End(Ending::AtOnce) => return Ok(Some(Ending::AtOnce)),
                Next::End(ending) => {
                    // What Silver committed in the end; where that is too much to go on with, the next start does.
                    while !gold.round(&inbox.health, true).await? {
                        let derivation = gold.take_derivation();
                        let Some(again) = self.open(inbox, derivation).await? else { break };
                        *gold = again;
                    }
                    return Ok(Some(ending));
                }
            }
        }
    }

    /// Waits until an input may have moved, or something else is to be done. Another module is adopted where there is a
    /// table to try it with.
    async fn wait(&mut self, inbox: &mut Inbox, gold: Option<&mut Gold>) -> Next {
        let moved = select_all(self.inputs.iter_mut().map(|input| Box::pin(input.committed.changed())));
        tokio::select! {
            ending = inbox.health.ended() => Next::End(ending),
            _ = moved => Next::Look,
            () = tokio::time::sleep(LOOK_EVERY) => Next::Look,
            Some(order) = inbox.orders.recv() => match order {
                Order::Flush(done) => {
                    let _ = done.send(());
                    Next::Look
                }
                Order::Adopt { module, params, reply } => {
                    let adopted = match gold {
                        Some(gold) => gold.adopt(module, params).await,
                        None => {
                            self.serving.set(inbox.health.id(), module, params);
                            Ok(())
                        }
                    };
                    let next = if adopted.is_ok() { Next::Reopen } else { Next::Look };
                    let _ = reply.send(adopted);
                    next
                }
            },
        }
    }

    /// Opens every input, once it is there, and the Gold table, which is made where there is none; `None` where the task
    /// is to end before.
    async fn open(&mut self, inbox: &mut Inbox, mut derivation: Derivation) -> Result<Option<Gold>> {
        let (mut followers, mut tables) = (Vec::new(), Vec::new());
        for number in 0..self.inputs.len() {
            match self.meet(number, inbox).await? {
                Some((follower, table)) => {
                    followers.push(follower);
                    tables.push(table);
                }
                None => return Ok(None),
            }
        }
        let health = &inbox.health;
        let names: Vec<&str> = self.inputs.iter().map(|input| &*input.id.name).collect();
        let shape = Shape::of(&self.joined, &names, tables)?;
        let offer = shape.offer();
        let described = derivation.describe(&offer)?;
        let key = shape.key().to_vec();
        let spec = TableSpec {
            name: health.id().path(),
            fields: Arc::clone(described.fields()),
            key: described.stored_key(&key),
            renamed: 0,
            partition_by: self.partition_by.clone(),
            generation: 0,
            freshness: Freshness::Differs,
        };
        let mut writer = Writer::make(&self.place, health, spec, &Default::default()).await?;
        let (columns, join) = shape.join(described.wanted())?;
        let selected = derivation.is_copy().then(|| shape.selected(&join)).transpose()?;
        derivation.take_up(described, offer, writer.columns());
        let named = self.inputs.iter().map(|input| input.feed.as_ref().map_or(&input.id, |(_, feed)| feed).clone());
        let inputs = followers.into_iter().zip(columns).zip(named).enumerate();
        let inputs = inputs.map(|(number, ((follower, columns), name))| Input::new(number, name, follower, columns));
        let made_by = self.joined.made_by(derivation.module().map(|(module, params)| (module.sha256(), params)));
        let letters = Letters::open(&self.letters, health, names.first().copied().unwrap_or_default(), &key).await?;
        let progress = Arc::clone(&self.progress);
        progress.table(health.id(), |t| t.stand = writer.stand());
        let mut gold = Gold::new(writer, inputs.collect(), join, derivation, selected, letters, key, made_by, progress);
        let begun = Instant::now();
        gold.load(health).await?;
        tracing::debug!(table = %health.id(), seconds = begun.elapsed().as_secs_f64(), "the inputs are read");
        Ok(Some(gold))
    }

    /// Opens an input once it is there: what is followed, and its columns and key.
    async fn meet(&mut self, number: usize, inbox: &mut Inbox) -> Result<Option<(Follower, (SchemaRef, Vec<String>))>> {
        let (mut told, mut ending) = (false, None);
        loop {
            let Some(spec) = self.inputs.get(number) else { return Ok(None) };
            let settings = &self.place.settings;
            if let Some(follower) = retrying!(&inbox.health, Follower::open(&spec.location, settings))? {
                let table = (Arc::clone(follower.schema()), follower.key().to_vec());
                let Some((feed, _)) = &spec.feed else { return Ok(Some((follower, table))) };
                if let Some(feed) = retrying!(&inbox.health, Follower::open_feed(feed, &table.1, settings))? {
                    return Ok(Some((feed, table)));
                }
            }
            let (name, table) = (spec.id.clone(), inbox.health.id().clone());
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
            if let Next::End(how) = self.wait(inbox, None).await {
                ending = Some(how);
            }
        }
    }
}

/// What the table's positions move by, as far as its inputs are followed: a position is the version after the last.
fn due<'a>(writer: &Writer, inputs: impl Iterator<Item = &'a Follower>) -> Ranges {
    let mut due = Ranges::new();
    for input in inputs {
        let from = writer.table().positions().get(input.input()).unwrap_or(0);
        let to = i64::try_from(input.version()).unwrap_or(i64::MAX - 1) + 1;
        if from < to {
            due.add(input.input(), Range { from, to });
        }
    }
    due
}

/// `what` does not have the column `name`: names the nearest, or all there are.
fn no_column(what: &str, name: &str, columns: &SchemaRef) -> Error {
    let names = columns.fields().iter().map(|field| field.name().as_str());
    let hint = match nearest(name, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
    };
    wrong(format!("{what} no column `{name}`"), hint)
}

/// What stops a table for good.
fn wrong(message: String, hint: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message).hint(hint.into())
}
