//! A Silver table that is behind: it reads Bronze from its own position, and waits where a record explains itself later.
//!
//! Promises that the table meets Bronze's committed position, then takes what is handed over. Never keeps the queue from
//! the router meanwhile: what is in it is in Bronze.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::watch;

use super::{Intake, Worker, bronze_ended};
use crate::decode::Patience;
use crate::error::Result;
use crate::lake::BronzeTable;
use crate::model::positions::{Offsets, Positions, Range};
use crate::pipeline::ancestry::AppendedTopic;
use crate::pipeline::task::{Ending, at, retrying};
use crate::source::Delivery;

/// Pause before a source that could not tell the end of a topic is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Worker {
    /// Reads from Bronze what lies before the delivery, then takes it.
    pub(super) async fn fill_gap(&mut self, delivery: Delivery) -> Result<()> {
        let id = delivery.block.partition().clone();
        let from = delivery.range.from;
        let mut committed = self.task.committed.clone();
        let reached = tokio::select! {
            reached = committed.wait_for(|p| p.get(&id).unwrap_or(0) >= from) => reached.is_ok(),
            ending = self.inbox.health.ended() => {
                self.told_to_end(ending);
                return Ok(());
            }
        };
        if !reached {
            return Err(bronze_ended(&self.task.topic));
        }
        // The queue is kept: what follows on this delivery is in it, and Bronze may not hold it for a while.
        if let Intake::Held(reason) = self.read_bronze(&self.own_source(), Patience::Hold).await? {
            drop(delivery);
            return self.wait_and_reach(&reason).await;
        }
        Box::pin(self.take(delivery)).await
    }

    pub(super) async fn wait_and_reach(&mut self, reason: &str) -> Result<()> {
        match self.hold(reason).await? {
            Some(patience) => self.catch_up(patience).await,
            None => Ok(()),
        }
    }

    /// Reads Bronze from our position until it holds nothing that we lack; then the table is live.
    pub(super) async fn reach_bronze(&mut self) -> Result<()> {
        self.catch_up(Patience::Hold).await
    }

    pub(super) async fn catch_up(&mut self, mut patience: Patience) -> Result<()> {
        loop {
            self.learn_lineage()?;
            let Some(source) = self.behind() else { break };
            if self.must_end() {
                return Ok(());
            }
            self.inbox.live.set(false);
            if self.ending.is_none() {
                // What was queued is in Bronze by the time it is needed; room for it must not be kept.
                self.drop_queue();
            }
            match self.read_bronze(&source, patience).await? {
                Intake::All => patience = Patience::Hold,
                Intake::Held(reason) => match self.hold(&reason).await? {
                    Some(next) => patience = next,
                    None => return Ok(()),
                },
            }
        }
        self.go_live();
        Ok(())
    }

    fn own_source(&self) -> AppendedTopic {
        AppendedTopic {
            topic: Arc::clone(&self.task.topic),
            bronze: self.task.bronze.clone(),
            committed: self.task.committed.clone(),
        }
    }

    /// A topic of which Bronze holds something that we lack, those of earlier names first.
    fn behind(&self) -> Option<AppendedTopic> {
        let lacks = |committed: &watch::Receiver<Positions>| {
            committed.borrow().iter().any(|(id, end)| self.next.get(id).unwrap_or(0) < *end)
        };
        let earlier = self.ancestors.iter().rev().find(|source| lacks(&source.committed)).cloned();
        earlier.or_else(|| lacks(&self.task.committed).then(|| self.own_source()))
    }

    fn drop_queue(&mut self) {
        while self.inbox.deliveries.try_recv().is_ok() {}
    }

    async fn read_bronze(&mut self, source: &AppendedTopic, patience: Patience) -> Result<Intake> {
        let health = self.inbox.health.clone();
        retrying!(&health, self.read_bronze_once(source, patience))
    }

    async fn read_bronze_once(&mut self, source: &AppendedTopic, patience: Patience) -> Result<Intake> {
        let (location, settings) = (source.bronze.clone(), self.task.settings.clone());
        let table = BronzeTable::open_or_create(location, &source.topic, settings).await?;
        let ends = match self.task.within_committed {
            true => source.committed.borrow().clone(),
            false => table.positions().clone(),
        };
        let mut blocks = table.read(&self.next).await?;
        while let Some(block) = blocks.next().await {
            if self.must_end() {
                return Ok(Intake::All);
            }
            let mut block = block?;
            if self.task.within_committed {
                block.cut(source.committed.borrow().get(block.partition()).unwrap_or(0));
            }
            if let Intake::Held(reason) = self.decode(&block, None, patience)? {
                return Ok(Intake::Held(reason));
            }
            if self.pending.is_full() {
                self.flush().await?;
                while let Ok(order) = self.inbox.orders.try_recv() {
                    Box::pin(self.obey(order)).await?;
                }
            }
        }
        // Offsets that Bronze skipped (transaction markers, compacted topics) are passed as well.
        for (id, end) in ends.partitions() {
            let next = self.next.get(id).unwrap_or(0);
            if next < end {
                self.pending.add(id, Range { from: next, to: end }, 0, 0);
                self.next.insert(id, end);
            }
        }
        Ok(Intake::All)
    }

    /// Waits until more is known, or until nothing more can come; `None` when the run is broken off meanwhile.
    async fn hold(&mut self, reason: &str) -> Result<Option<Patience>> {
        self.inbox.live.set(false);
        tracing::debug!(table = %self.task.name(), reason, "held");
        self.flush().await?;
        let mut waited = self.task.committed.borrow().clone();
        if let Some(id) = &self.held {
            let held = self.next.get(id).unwrap_or(0) + 1;
            waited.insert(id, waited.get(id).map_or(held, |end| held.max(end)));
        }
        let requests = self.task.requests.clone();
        let topic = self.task.connector.topic.clone();
        // A source that cannot tell, or has ended, says nothing about the topic.
        let mut asked = Box::pin(async move {
            loop {
                match requests.end_of(&topic).await {
                    Some(known) => break known,
                    None => tokio::time::sleep(ASK_AGAIN).await,
                }
            }
        });
        let mut ends: Option<Offsets> = None;
        // Topics have no order among each other: what explains the record may arrive after it.
        let patient_until = Instant::now() + self.bounds.schema_wait;
        loop {
            match self.ending {
                Some(Ending::Complete) => {
                    self.waited = None;
                    return Ok(Some(Patience::LastChance));
                }
                Some(Ending::BrokenOff | Ending::AtOnce) => return Ok(None),
                None => {}
            }
            self.unexplained |= ends.as_ref().is_some_and(Offsets::is_empty);
            let reached = ends.as_ref().is_some_and(|ends| self.task.connector.has_reached(ends));
            if self.unexplained && self.task.connector.is_silent() || reached && Instant::now() >= patient_until {
                self.waited = Some(waited);
                return Ok(Some(Patience::LastChance));
            }
            tokio::select! {
                Ok(()) = self.learned.changed() => return Ok(Some(Patience::Hold)),
                () = at(Some(patient_until)), if reached => {}
                Some(order) = self.inbox.orders.recv() => self.obey(order).await?,
                known = &mut asked, if ends.is_none() => ends = Some(known),
                ending = self.inbox.health.ended() => self.told_to_end(ending),
                Some(delivery) = self.inbox.deliveries.recv() => drop(delivery),
            }
        }
    }
}
