//! The Bronze tables of the names that a Silver table had before.
//!
//! A renaming moves no row, and no event tells the rows again: the changes that were told under the old name are the
//! table's own and are read from the old topic's Bronze, with positions of their own. Never live: after the renaming
//! nothing of the table comes to that topic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::watch;

use crate::decode::{Lineage, topic_of};
use crate::record::Positions;
use crate::table::Location;

/// A Bronze table and how far it is committed.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) topic: Arc<str>,
    pub(super) bronze: Location,
    pub(super) committed: watch::Receiver<Positions>,
}

/// The Bronze tables of a pipeline, by topic.
#[derive(Debug, Default)]
pub(super) struct Bronzes(Mutex<HashMap<Arc<str>, Source>>);

impl Bronzes {
    pub(super) fn add(&self, source: Source) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&source.topic), source);
    }

    fn get(&self, topic: &str) -> Option<Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }

    /// The Bronze tables of `lineage`, of a table whose own topic is `topic`; topics that have none.
    pub(super) fn of(&self, topic: &str, lineage: &Lineage) -> (Vec<Source>, Vec<String>) {
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

/// Ends when one of `sources` has committed more; never without one.
pub(super) async fn grown(sources: &mut [Source]) {
    let grown = sources.iter_mut().map(|source| {
        async {
            // a Bronze table that has ended commits no more
            if source.committed.changed().await.is_err() {
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
