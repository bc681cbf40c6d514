//! A topic is met: its Bronze table is opened, what it carries is found out, and its Silver tables are started.

use std::sync::Arc;

use futures::StreamExt;

use super::bronze::Bronze;
use super::connector::Connector;
use super::plan::Plan;
use super::retry::retrying;
use super::settings::decode_settings;
use super::silver::{Reader, Silver};
use super::upsert::Opening;
use super::{Pipeline, Route, ancestry};
use crate::decode::{self, TableName, TopicKind};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{PartitionId, Positions};
use crate::table::{BronzeTable, Location, positions_of};

/// Records of a topic that are looked at to find out what it carries.
const CLASSIFY_RECORDS_MAX: usize = 10_000;

impl Pipeline {
    /// Opens the topic's Bronze table and, where Bronze tells what the topic carries, its Silver table.
    pub(super) async fn take_up(&mut self, id: &PartitionId) -> Result<()> {
        let topic = &id.topic;
        if self.routes.contains_key(topic) {
            return Ok(());
        }
        self.sharing.take_over(topic).await;
        // What Bronze knows of the structures must be known before a row is decoded.
        if let Some(told) = decode::schema_topic(topic).filter(|told| !self.routes.contains_key(*told))
            && !positions_of(&self.bronze_location(told)?).await?.is_empty()
        {
            if self.bronzes.are_shared() {
                self.listen_to_teller(&told.into()).await?;
            } else {
                Box::pin(self.take_up(&PartitionId { topic: told.into(), partition: 0 })).await?;
            }
        }
        let (table, kind) = retrying!(topic, self.open_bronze(topic))?;
        let bronze =
            Bronze::spawn(Arc::clone(topic), table, self.config.flush, self.room.clone(), Arc::clone(&self.progress));
        let (location, committed) = (self.bronze_location(topic)?, bronze.committed.clone());
        self.bronzes.add(ancestry::Source { topic: Arc::clone(topic), bronze: location, committed });
        self.routes.insert(Arc::clone(topic), Route { bronze, kind: TopicKind::Unknown, silvers: Vec::new() });
        self.learn_kind(topic, kind);
        Ok(())
    }

    pub(super) async fn open_bronze(&mut self, topic: &Arc<str>) -> Result<(BronzeTable, TopicKind)> {
        let location = self.bronze_location(topic)?;
        let table = BronzeTable::open_or_create(location, topic, self.settings.clone()).await?;
        let kind = self.classify_bronze(topic, &table).await?;
        Ok((table, kind))
    }

    pub(super) fn bronze_location(&self, topic: &str) -> Result<Location> {
        self.root.table(&format!("bronze/{topic}"))
    }

    /// Finds out from Bronze what a topic carries; a schema-change topic is taken in whole.
    pub(super) async fn classify_bronze(&mut self, topic: &Arc<str>, table: &BronzeTable) -> Result<TopicKind> {
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
            table.positions().partitions().for_each(|(id, end)| connector.pass(id, end));
        }
        Ok(kind)
    }

    pub(super) fn connector(&mut self, schema_topic: &str) -> Arc<Connector> {
        let make = || Arc::new(Connector::new(schema_topic));
        Arc::clone(self.connectors.entry(schema_topic.to_owned()).or_insert_with(make))
    }

    /// A topic shows what it carries: rows get their Silver tables.
    pub(super) fn learn_kind(&mut self, topic: &Arc<str>, kind: TopicKind) {
        if let TopicKind::Rows { table, .. } = &kind {
            for plan in self.plans(table) {
                self.add_silver(topic, table, plan);
            }
        }
        if let Some(route) = self.routes.get_mut(topic) {
            route.kind = kind;
        }
    }

    pub(super) fn add_silver(&mut self, topic: &Arc<str>, table: &TableName, plan: Plan) {
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
    /// With other instances, that is with the first record of the new name's topic: it has no owner before.
    pub(super) async fn follow_renamed_tables(&mut self) {
        if self.bronzes.are_shared() {
            return;
        }
        if let Err(error) = self.take_up_renamed().await {
            tracing::warn!(%error, hint = error.next_step(), "a renamed table is not followed yet");
        }
    }

    pub(super) async fn take_up_renamed(&mut self) -> Result<()> {
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
    pub(super) fn plans(&self, source: &TableName) -> Vec<Plan> {
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

    pub(super) fn start_silver(&mut self, topic: &Arc<str>, table: &TableName, plan: Plan) -> Result<Silver> {
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
        self.progress.start(&name, topic);
        Ok(Reader {
            name,
            topic: Arc::clone(topic),
            source: table.clone(),
            follows_schema: overrides.is_empty(),
            decode,
            connector,
            opening,
            flush: self.config.flush,
            room: self.room.clone(),
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
}

/// The name of a Silver table's feed of changes.
pub(super) fn feed_name(table: &str) -> String {
    format!("{table}_changes")
}
