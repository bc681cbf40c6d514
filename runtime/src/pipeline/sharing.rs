//! Tables that change hands while several instances share a pipeline.
//!
//! Receives what the group decided. Promises that nothing of this instance commits for a topic any more once its release
//! is answered, and that a topic is not taken up again before. What another instance writes is only listened to, as far as
//! it tells of tables.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::task::{Ending, Handle, Order};
use super::{Notice, Pipeline};
use crate::decode::{self, TopicKind};
use crate::error::{Action, Result};
use crate::lake::{BronzeTable, positions_of};
use crate::model::positions::{Offsets, PartitionId};
use crate::model::table_id::TableId;
use crate::source::Delivery;

/// Time a table gets to commit what it holds before it is given away; what it has not committed by then, the next owner
/// reads.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a topic that others write is looked at in the lake again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What is shared, and what is on its way to others.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// topics that others write, and whether they tell of tables
    followed: HashMap<Arc<str>, bool>,
    /// tables that are being given away
    releases: JoinSet<()>,
}

impl Sharing {
    /// The topic is ours from now on.
    pub(super) fn take_over(&mut self, topic: &str) {
        self.followed.remove(topic);
        while self.releases.try_join_next().is_some() {}
    }

    /// Ends when everything that was given away is.
    pub(super) async fn finish(&mut self) {
        while self.releases.join_next().await.is_some() {}
    }
}

impl Pipeline {
    /// Takes in what Bronze has of topics that others write, as far as it tells of tables, and goes on from there.
    pub(super) fn follow(&mut self, partitions: Vec<PartitionId>) {
        let mut topics: Vec<Arc<str>> = partitions.into_iter().map(|id| id.topic).collect();
        topics.dedup();
        for topic in topics {
            if self.sharing.followed.contains_key(&topic) {
                self.begin_to_follow(&topic);
                continue;
            }
            self.sharing.followed.insert(Arc::clone(&topic), false);
            let (connectors, words) = (Arc::clone(&self.connectors), self.words.clone());
            let (location, settings) = (self.bronze_location(&topic), self.settings.clone());
            tokio::spawn(async move {
                let look = async || -> Result<bool> {
                    let location = location.clone()?;
                    if positions_of(&location).await?.is_empty() {
                        return Ok(false);
                    }
                    let table = BronzeTable::open_or_create(location, &topic, settings.clone()).await?;
                    Ok(matches!(connectors.classify(&topic, &table).await?, TopicKind::SchemaChanges))
                };
                let tells = loop {
                    match look().await {
                        Err(error) if error.action() == Action::Retry => {
                            tracing::warn!(%topic, %error, "what tells of tables cannot be read from Bronze; trying again");
                            tokio::time::sleep(LOOK_AGAIN).await;
                        }
                        looked => break looked,
                    }
                };
                let tells = tells.unwrap_or_else(|error| {
                    tracing::error!(%topic, %error, hint = error.next_step(), "what tells of tables cannot be read from Bronze");
                    false
                });
                let _ = words.send(Notice::Listened { topic, tells });
            });
        }
    }

    /// What Bronze has of a topic that others write is known.
    pub(super) fn listened(&mut self, topic: &Arc<str>, tells: bool) {
        if let Some(known) = self.sharing.followed.get_mut(topic) {
            *known |= tells;
            self.begin_to_follow(topic);
        }
    }

    fn begin_to_follow(&mut self, topic: &Arc<str>) {
        let positions = match self.sharing.followed.get(topic) {
            Some(true) => self.connectors.of(topic).positions(),
            _ => Offsets::new(),
        };
        self.requests.begin(topic, positions, 0);
    }

    /// Listens to a delivery of a topic that others write.
    pub(super) fn listen(&mut self, delivery: &Delivery) {
        let topic = delivery.block.partition().topic.clone();
        let Some(tells) = self.sharing.followed.get_mut(&topic) else { return };
        *tells |=
            delivery.block.iter().any(|record| matches!(decode::classify(&topic, record), TopicKind::SchemaChanges));
        if *tells {
            let connector = self.connectors.of(&topic);
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
                let bronze = self.tasks.release(&TableId::bronze(Arc::clone(&topic)));
                let silvers: Vec<TableId> = route.silvers.into_iter().map(TableId::silver).collect();
                let gold: Vec<TableId> = silvers.iter().flat_map(|silver| self.gold_driven_by(silver)).collect();
                let release = |id: TableId| (self.tasks.release(&id), id);
                let silvers: Vec<_> = silvers.into_iter().chain(gold).map(release).collect();
                leaving.push((topic, bronze, silvers));
            }
        }
        let progress = Arc::clone(&self.progress);
        self.sharing.releases.spawn(async move {
            let mut tables = JoinSet::new();
            for (topic, bronze, silvers) in leaving {
                let progress = Arc::clone(&progress);
                tables.spawn(async move {
                    if let Some(bronze) = bronze {
                        end_task(bronze).await;
                    }
                    progress.release_topic(&topic);
                    for (silver, id) in silvers {
                        if let Some(silver) = silver {
                            end_task(silver).await;
                        }
                        progress.release(&id);
                    }
                });
            }
            while tables.join_next().await.is_some() {}
            drop(done);
        });
    }
}

/// Has the task end, or ends it where that takes too long.
async fn end_task((handle, abort, mut gone): (Handle, AbortHandle, watch::Receiver<()>)) {
    let ended = tokio::time::timeout(SETTLE_TIMEOUT, async {
        let (flushed, answer) = oneshot::channel();
        if handle.orders.send(Order::Flush(flushed)).await.is_ok() {
            let _ = answer.await;
        }
        handle.end(Ending::BrokenOff);
        while gone.changed().await.is_ok() {}
    });
    if ended.await.is_err() {
        tracing::info!(table = %handle.id, "given away before it had caught up");
        abort.abort();
        while gone.changed().await.is_ok() {}
    }
}
