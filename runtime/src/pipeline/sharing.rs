//! Tables that change hands while several instances share a pipeline.
//!
//! Receives what the group decided. Promises that nothing of this instance commits for a topic any more once its release
//! is answered, and that a topic is not taken up again before. What another instance writes is only listened to, as far as
//! it tells of tables.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::retry::retrying;
use super::silver::{self, Ending, Silver};
use super::{Pipeline, Route, bronze};
use crate::decode::{self, TopicKind};
use crate::error::Result;
use crate::record::{Offsets, PartitionId};
use crate::source::Delivery;
use crate::table::{BronzeTable, positions_of};

/// Time a table gets to commit what it holds before it is given away; what it has not committed by then, the next owner
/// reads.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is shared, and what is on its way to others.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// topics that others write, and whether they tell of tables
    followed: HashMap<Arc<str>, bool>,
    /// tables that are being given away
    releases: JoinSet<()>,
}

impl Sharing {
    pub(super) fn follows(&self, topic: &str) -> bool {
        self.followed.contains_key(topic)
    }

    /// The topic is ours from now on; ends when nothing of it is on its way to others any more.
    pub(super) async fn take_over(&mut self, topic: &str) {
        self.followed.remove(topic);
        self.settle().await;
    }

    /// Ends when everything that was given away is.
    pub(super) async fn settle(&mut self) {
        while self.releases.join_next().await.is_some() {}
    }
}

impl Pipeline {
    /// Takes in what Bronze has of a topic that others write, as far as it tells of tables; where to go on from.
    pub(super) async fn follow(&mut self, partitions: Vec<PartitionId>) -> Offsets {
        let mut positions = Offsets::new();
        for id in partitions {
            if !self.sharing.follows(&id.topic) {
                let told = retrying!(&id.topic, self.listen_to(&id.topic));
                if let Err(error) = told {
                    tracing::error!(topic = %id.topic, %error, hint = error.next_step(), "what tells of tables cannot be read from Bronze");
                }
            }
            let known = self.connectors.get(&*id.topic).and_then(|connector| connector.position(&id));
            positions.extend(known.map(|next| (id, next)));
        }
        positions
    }

    async fn listen_to(&mut self, topic: &Arc<str>) -> Result<()> {
        let location = self.bronze_location(topic)?;
        let mut tells = false;
        if !positions_of(&location).await?.is_empty() {
            let table = BronzeTable::open_or_create(location, topic, self.settings.clone()).await?;
            tells = matches!(self.classify_bronze(topic, &table).await?, TopicKind::SchemaChanges);
        }
        self.sharing.followed.insert(Arc::clone(topic), tells);
        Ok(())
    }

    /// Takes in what Bronze has of the topic that tells of `topic`'s table, where Kafka has it no more.
    pub(super) async fn listen_to_teller(&mut self, topic: &Arc<str>) -> Result<()> {
        match self.sharing.follows(topic) {
            true => Ok(()),
            false => self.listen_to(topic).await,
        }
    }

    /// Listens to a delivery of a topic that others write.
    pub(super) fn listen(&mut self, delivery: &Delivery) {
        let topic = delivery.block.partition().topic.clone();
        let Some(tells) = self.sharing.followed.get_mut(&topic) else { return };
        *tells |=
            delivery.block.iter().any(|record| matches!(decode::classify(&topic, record), TopicKind::SchemaChanges));
        if *tells {
            let connector = self.connector(&topic);
            connector.take(&delivery.block);
            connector.pass(delivery.block.partition(), delivery.range.to);
        }
    }

    /// Gives the topics' tables away: what is buffered is committed if that is soon done; `done` is dropped when nothing
    /// of them commits any more.
    pub(super) fn release(&mut self, topics: Vec<Arc<str>>, done: mpsc::SyncSender<()>) {
        let mut leaving = Vec::new();
        for topic in topics {
            self.sharing.followed.remove(&topic);
            self.bronzes.remove(&topic);
            self.tables.retain(|_, of| *of != topic);
            if let Some(route) = self.routes.remove(&topic) {
                tracing::info!(%topic, "the topic's tables are another instance's now");
                leaving.push((topic, route));
            }
        }
        let retired = std::mem::take(&mut self.retired);
        let progress = Arc::clone(&self.progress);
        self.sharing.releases.spawn(async move {
            let mut tables = JoinSet::new();
            for (name, task) in retired {
                tables.spawn(settle(name, task, async {}));
            }
            for (topic, Route { bronze, silvers, .. }) in leaving {
                let progress = Arc::clone(&progress);
                tables.spawn(async move {
                    let orders = bronze.orders;
                    let flush = async move {
                        let (flushed, answer) = oneshot::channel();
                        let _ = orders.send(bronze::Order::Flush(flushed)).await;
                        let _ = answer.await;
                    };
                    settle(format!("bronze/{topic}"), bronze.task, flush).await;
                    progress.release_topic(&topic);
                    for Silver { name, orders, task, .. } in silvers {
                        let drain = async move { drop(orders.send(silver::Order::Drain(Ending::BrokenOff)).await) };
                        settle(name.clone(), task, drain).await;
                        progress.release(&name);
                    }
                });
            }
            while tables.join_next().await.is_some() {}
            drop(done);
        });
    }
}

/// Has the task end by `order`, or ends it where that takes too long.
async fn settle(name: String, mut task: tokio::task::JoinHandle<Result<()>>, order: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(SETTLE_TIMEOUT, async {
        order.await;
        (&mut task).await
    });
    if ended.await.is_err() {
        tracing::info!(table = %name, "given away before it had caught up");
        task.abort();
        let _ = task.await;
    }
}
