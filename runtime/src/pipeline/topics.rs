//! A topic is met: its Bronze table is started, what it carries is found out, and its Silver tables are started.
//!
//! Nothing here waits: tables are opened by their own tasks, which send word.

use std::sync::Arc;

use tokio::sync::watch;

use super::relay::Relay;
use super::settings::decode_settings;
use super::task::Handle;
use super::task::bronze::Bronze;
use super::task::silver::SilverTask;
use super::task::silver::plan::SilverSpec;
use super::task::silver::upsert::Opening;
use super::{Pipeline, Route, ancestry};
use crate::decode::{self, TableName, TopicKind};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Location;
use crate::model::positions::{PartitionId, Positions};
use crate::model::table_id::{Layer, TableId};
use crate::source::Delivery;

impl Pipeline {
    /// Partitions were found: those of a topic that is open go on from where its Bronze stands.
    pub(super) fn take_up_found(&mut self, found: Vec<PartitionId>) {
        let mut topics: Vec<Arc<str>> = found.into_iter().map(|id| id.topic).collect();
        topics.dedup();
        for topic in topics {
            self.absent.remove(&topic);
            self.take_up(&topic, false);
            if let Some(route) = self.routes.get(&topic).filter(|route| route.is_open) {
                self.requests.begin(&topic, route.committed.borrow().offsets(), route.relay.turn());
            }
        }
    }

    /// Starts the topic's Bronze table, where it does not run. `only_if_there`: and where the lake has it.
    pub(super) fn take_up(&mut self, topic: &Arc<str>, only_if_there: bool) {
        if let Some(route) = self.routes.get_mut(topic) {
            let was = route.only_if_there;
            route.only_if_there = was && only_if_there;
            if was == route.only_if_there || self.tasks.has(&TableId::bronze(Arc::clone(topic))) {
                return;
            }
        } else {
            self.sharing.take_over(topic);
            let route = Route {
                kind: TopicKind::Unknown,
                only_if_there,
                is_open: false,
                committed: Arc::new(watch::Sender::new(Positions::new())),
                relay: Relay::start(),
                silvers: Vec::new(),
            };
            self.routes.insert(Arc::clone(topic), route);
        }
        self.start_bronze(topic);
    }

    /// Starts the task of the topic's Bronze table, which reads the topic in a new turn.
    pub(super) fn start_bronze(&mut self, topic: &Arc<str>) {
        let id = TableId::bronze(Arc::clone(topic));
        let location = match self.bronze_location(topic) {
            Ok(location) => location,
            Err(error) => return self.tasks.stop(&id, error),
        };
        let Some(route) = self.routes.get_mut(topic) else { return };
        route.is_open = false;
        let source = ancestry::AppendedTopic {
            topic: Arc::clone(topic),
            bronze: location.clone(),
            committed: route.committed.subscribe(),
        };
        self.bronzes.add(source);
        let bronze = Bronze {
            topic: Arc::clone(topic),
            location,
            settings: self.settings.clone(),
            only_if_there: route.only_if_there,
            bounds: self.bounds.subscribe(),
            room: self.room.clone(),
            connectors: Arc::clone(&self.connectors),
            committed: Arc::clone(&route.committed),
            requests: self.requests.clone(),
            words: self.words.clone(),
            progress: Arc::clone(&self.progress),
        };
        self.progress.start_bronze(&id);
        let handle = self.tasks.start(&id, Vec::new(), |inbox| bronze.work(inbox));
        route.relay.change(|recipients| {
            recipients.turn += 1;
            recipients.bronze = Some(handle);
        });
    }

    /// The topic's Bronze table is open.
    pub(super) fn bronze_opened(&mut self, topic: &Arc<str>, kind: TopicKind) {
        let Some(route) = self.routes.get_mut(topic) else { return };
        route.is_open = true;
        let (positions, turn) = (route.committed.borrow().offsets(), route.relay.turn());
        let is_news = matches!(route.kind, TopicKind::Unknown);
        if is_news {
            self.learn_kind(topic, kind);
        }
        self.requests.begin(topic, positions, turn);
        self.follow_renamed_tables();
    }

    /// The lake has no Bronze table of the topic, and nothing was found of it elsewhere.
    pub(super) fn no_bronze(&mut self, topic: &Arc<str>) {
        match self.routes.get(topic) {
            Some(route) if !route.only_if_there => self.start_bronze(topic),
            _ => {
                self.routes.remove(topic);
                self.bronzes.remove(topic);
                self.absent.insert(Arc::clone(topic));
            }
        }
    }

    pub(super) fn bronze_location(&self, topic: &str) -> Result<Location> {
        self.root.table(&format!("bronze/{topic}"))
    }

    /// Hands a delivery to the topic's tables, and learns from it what the topic carries.
    pub(super) fn route(&mut self, delivery: Delivery) {
        let topic = Arc::clone(&delivery.block.partition().topic);
        self.progress.read(delivery.block.len());
        let Some(route) = self.routes.get(&topic) else { return self.listen(&delivery) };
        if matches!(route.kind, TopicKind::Unknown) {
            let kinds = delivery.block.iter().map(|record| decode::classify(&topic, record));
            if let Some(kind) = kinds.into_iter().find(|kind| !matches!(kind, TopicKind::Unknown)) {
                self.learn_kind(&topic, kind);
                self.follow_renamed_tables();
            }
        }
        let Some(route) = self.routes.get(&topic) else { return };
        if matches!(route.kind, TopicKind::SchemaChanges) {
            let connector = self.connectors.of(&topic);
            connector.take(&delivery.block);
            connector.pass(delivery.block.partition(), delivery.range.to);
            route.relay.take(delivery);
            self.follow_renamed_tables();
        } else {
            route.relay.take(delivery);
        }
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

    pub(super) fn add_silver(&mut self, topic: &Arc<str>, table: &TableName, plan: SilverSpec) {
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
        if let Err(error) = started {
            self.tasks.stop(&TableId::silver(name), error);
        }
    }

    /// A table that got another name goes on under it, whether or not a row has come to the new name's topic yet.
    /// With other instances, that is with the first record of the new name's topic: it has no owner before.
    pub(super) fn follow_renamed_tables(&mut self) {
        if self.bronzes.are_shared() {
            return;
        }
        let mut renamed = Vec::new();
        for connector in self.connectors.all() {
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
                // Kafka may have the old topic no more; Bronze has it. Word of it brings us here again.
                if !self.routes.contains_key(topic) && !self.absent.contains(topic) {
                    self.take_up(topic, true);
                }
            }
            let flattened = earlier.iter().find_map(|topic| match self.routes.get(topic)?.kind {
                TopicKind::Rows { flattened, .. } => Some(flattened),
                _ => None,
            });
            if let Some(flattened) = flattened {
                self.take_up(&topic, false);
                self.learn_kind(&topic, TopicKind::Rows { table, flattened });
            }
        }
    }

    /// How the pipeline file wants the source table: by its sections, else as a typed copy where it asks for copies.
    pub(super) fn plans(&self, source: &TableName) -> Vec<SilverSpec> {
        let TableName { database, table } = source;
        let full = format!("{database}.{table}");
        let sections = self.config.silver.iter().filter(|s| s.from == *table || s.from == full);
        let plans: Vec<SilverSpec> = sections
            .map(|section| {
                let module =
                    section.transform.as_ref().and_then(|_| self.serving.get(&TableId::silver(section.name.as_str())));
                SilverSpec {
                    name: section.name.clone(),
                    module,
                    partition_by: section.partition_by.clone(),
                    changes: self.config.feeds(&section.name),
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
        let changes = self.config.feeds(&name);
        let copy = SilverSpec { name, module: None, partition_by: Vec::new(), changes, on_incompatible };
        mirrored.then_some(copy).into_iter().collect()
    }

    fn start_silver(&mut self, topic: &Arc<str>, table: &TableName, plan: SilverSpec) -> Result<()> {
        let Some(route) = self.routes.get_mut(topic) else {
            return Err(Error::new(ErrorKind::Internal, format!("topic `{topic}` has no route")));
        };
        let id = TableId::silver(plan.name.as_str());
        let name = plan.name.clone();
        let section = self.config.silver.iter().find(|s| s.name == name);
        let overrides = section.map(|s| s.columns.as_slice()).unwrap_or_default();
        let decode = decode_settings(&self.config.debezium, overrides)?;
        let feed = plan.changes.then(|| self.root.table(&format!("silver/{}", feed_name(&name)))).transpose()?;
        let opening = Opening {
            plan,
            feed,
            generation: None,
            location: self.root.table(&id.path())?,
            settings: self.settings.clone(),
            letters: Arc::clone(&self.letters),
            serving: Arc::clone(&self.serving),
        };
        let task = SilverTask {
            topic: Arc::clone(topic),
            source: table.clone(),
            follows_schema: overrides.is_empty(),
            decode,
            connector: self.connectors.of(decode::schema_topic(topic).unwrap_or(topic)),
            connectors: Arc::clone(&self.connectors),
            opening,
            bounds: self.bounds.subscribe(),
            room: self.room.clone(),
            committed: route.committed.subscribe(),
            within_committed: false,
            bronze: self.root.table(&format!("bronze/{topic}"))?,
            bronzes: Arc::clone(&self.bronzes),
            settings: self.settings.clone(),
            requests: self.requests.clone(),
            progress: Arc::clone(&self.progress),
        };
        self.progress.start(&id, topic);
        let reads = vec![TableId::bronze(Arc::clone(topic))];
        let handle = self.tasks.start(&id, reads, |inbox| task.work(inbox));
        if !route.silvers.contains(&name) {
            route.silvers.push(name);
        }
        route.relay.change(|recipients| {
            recipients.silvers.retain(|silver| silver.id != handle.id);
            recipients.silvers.push(Handle::clone(&handle));
        });
        self.start_driven_gold(&id);
        Ok(())
    }

    /// Starts the table again, as the pipeline file and the serving modules have it by now.
    pub(super) fn start_again(&mut self, id: &TableId) {
        match id.layer {
            Layer::Bronze => self.start_bronze(&id.name),
            Layer::Gold => self.start_gold_table(&id.name),
            _ => {
                let Some(topic) = self.tables.get(&*id.name).cloned() else { return };
                let Some(TopicKind::Rows { table, .. }) = self.routes.get(&topic).map(|route| route.kind.clone())
                else {
                    return;
                };
                if let Some(plan) = self.plans(&table).into_iter().find(|plan| *plan.name == *id.name) {
                    self.add_silver(&topic, &table, plan);
                }
            }
        }
    }
}

/// The name of a Silver table's feed of changes.
pub(super) fn feed_name(table: &str) -> String {
    format!("{table}_changes")
}
