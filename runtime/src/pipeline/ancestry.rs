//! The Bronze tables of the names that a Silver table had before.
//!
//! A renaming moves no row, and no event tells the rows again: the changes that were told under the old name are the
//! table's own and are read from the old topic's Bronze, with positions of their own, whichever instance appends it. Never
//! live: after the renaming nothing of the table comes to that topic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::watch;

use crate::decode::{Lineage, topic_of};
use crate::lake::{Location, positions_of};
use crate::model::positions::Positions;

/// How often is looked how far another instance got.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A Bronze table and how far it is committed.
#[derive(Debug, Clone)]
pub(super) struct AppendedTopic {
    pub(super) topic: Arc<str>,
    pub(super) bronze: Location,
    pub(super) committed: watch::Receiver<Positions>,
}

/// The Bronze tables of a pipeline, by topic.
#[derive(Debug, Default)]
pub(super) struct Bronzes {
    sources: Mutex<HashMap<Arc<str>, AppendedTopic>>,
    /// the lake, where other instances may write what is not written here
    shared: Option<Location>,
}

impl Bronzes {
    /// Those of a pipeline of which other instances write some into the lake at `root`.
    pub(super) fn shared(root: Location) -> Self {
        Bronzes { sources: Mutex::default(), shared: Some(root) }
    }

    pub(super) fn add(&self, source: AppendedTopic) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&source.topic), source);
    }

    /// The topic is not written here any more.
    pub(super) fn remove(&self, topic: &str) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    fn get(&self, topic: &str) -> Option<AppendedTopic> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sources.get(topic);
        let Some(root) = &self.shared else { return known.cloned() };
        if let Some(source) = known.filter(|source| source.committed.has_changed().is_ok()) {
            return Some(source.clone());
        }
        let source = watch_others(topic, root.table(&format!("bronze/{topic}")).ok()?);
        sources.insert(Arc::clone(&source.topic), source.clone());
        Some(source)
    }

    /// True when other instances write some of them.
    pub(super) fn are_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The Bronze tables of `lineage`, of a table whose own topic is `topic`; topics that have none.
    pub(super) fn of(&self, topic: &str, lineage: &Lineage) -> (Vec<AppendedTopic>, Vec<String>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for ancestor in &lineage.ancestors {
            let Some(name) = topic_of(topic, &ancestor.table) else { continue };
            match self.get(&name) {
                Some(source) => found.push(source),
                None => missing.push(name),
            }
        }
        (found, missing)
    }
}

/// A Bronze table that another instance appends, or none: its positions as its log tells them.
fn watch_others(topic: &str, bronze: Location) -> AppendedTopic {
    let (told, committed) = watch::channel(Positions::new());
    let at = bronze.clone();
    tokio::spawn(async move {
        while !told.is_closed() {
            match positions_of(&at).await {
                Ok(positions) => {
                    told.send_if_modified(|known| {
                        let is_new = *known != positions;
                        *known = positions;
                        is_new
                    });
                }
                Err(error) => tracing::debug!(table = %at.url(), %error, "cannot see how far another instance got"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    AppendedTopic { topic: topic.into(), bronze, committed }
}

/// Ends when one of `sources` has committed more, or with `others` when another instance goes on with it; never without
/// one.
pub(super) async fn grown(sources: &mut [AppendedTopic], others: bool) {
    let grown = sources.iter_mut().map(|source| {
        async {
            // a Bronze table that has ended commits no more
            if source.committed.changed().await.is_err() && !others {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    });
    let grown: Vec<_> = grown.collect();
    if grown.is_empty() {
        std::future::pending::<()>().await;
    }
    select_all(grown).await;
}
