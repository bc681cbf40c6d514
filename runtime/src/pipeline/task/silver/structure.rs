//! What a Silver table's source has become: its columns, their names, its own earlier names, statements that emptied it.
//!
//! Receives what the schema-change topic tells, as far as it is read. Promises that a table is brought to the structure
//! before rows of it are written, and that rows under an earlier name are read first. Never takes a column away.

use std::sync::Arc;

use super::{Worker, jumped};
use crate::decode::{Ancestor, Decoded, Epochs, Lineage, Patience, topic_of};
use crate::error::{Action, Error, ErrorKind, Result};
use crate::model::positions::{Positions, Range};
use crate::model::schema::Rename;
use crate::pipeline::ancestry::AppendedTopic;

impl Worker {
    /// Takes up the names that the table had before, as far as the schema-change topic tells them by now.
    pub(super) fn learn_lineage(&mut self) -> Result<()> {
        let lineage = self.task.connector.with_history(|history| history.lineage(&self.task.source));
        if lineage == Lineage::default() {
            return Ok(());
        }
        let (found, missing) = self.task.bronzes.of(&self.task.topic, &lineage);
        if lineage != self.lineage {
            let name = self.task.name();
            if lineage.since.is_some() && !self.has_read(&found) {
                if self.upsert.is_made() {
                    return Err(reused(name, &lineage));
                }
                // what was decoded and not committed may be the other table's
                (self.decoded, self.next) = (Decoded::new(), Positions::new());
                self.pending.clear();
                self.decoder.set_epochs(Epochs::new());
            }
            if let Some(by) = &lineage.replaced_by {
                tracing::warn!(table = %name, %by, "another table took this one's place; its rows are taken to be the same");
            }
            for ancestor in &lineage.ancestors {
                tracing::info!(table = %name, from = %ancestor.table, "renamed in the source; what came under the old name is read");
            }
            for topic in &missing {
                tracing::warn!(table = %name, topic, "renamed in the source, but Bronze has no topic of the old name: its rows are missing");
            }
            let window = |a: &Ancestor| Some((Arc::from(topic_of(&self.task.topic, &a.table)?), a.until.clone()));
            let windows = lineage.ancestors.iter().filter_map(window).collect();
            self.decoder.set_lineage(lineage.since.clone(), windows);
        }
        self.lineage = lineage;
        // those that are known have been seen as far as they have grown
        let known = |source: &AppendedTopic| self.ancestors.iter().any(|k| k.committed.same_channel(&source.committed));
        if !found.iter().all(known) {
            self.ancestors = found;
        }
        Ok(())
    }

    fn has_read(&self, sources: &[AppendedTopic]) -> bool {
        self.next.partitions().any(|(id, _)| sources.iter().any(|source| source.topic == id.topic))
    }

    /// What renamed columns of the table, as far as the schema-change topic has been read.
    pub(super) fn renames(&self) -> Vec<Arc<Rename>> {
        self.task.connector.with_history(|history| history.renames(&self.task.source))
    }

    fn tell_gone(&mut self) {
        let source = &self.task.source;
        let (gone, now) = self.task.connector.with_history(|h| (h.is_gone(source), h.renamed_to(source).cloned()));
        if gone && !self.told_gone {
            let table = self.task.name();
            match now {
                Some(now) => {
                    let hint = format!("a section `[silver.{table}]` goes on with `from = \"{}\"`", now.table);
                    tracing::warn!(%table, %source, %now, hint, "renamed in the source; the table keeps its last rows");
                }
                None => tracing::warn!(%table, %source, "dropped in the source; the table keeps its last rows"),
            }
        }
        self.told_gone = gone;
    }

    /// Brings the table to the structure that the connector announced last.
    pub(super) async fn follow_schema(&mut self) -> Result<()> {
        self.tell_gone();
        let known = self.lineage.clone();
        self.learn_lineage()?;
        if self.lineage != known {
            self.catch_up(Patience::Hold).await?;
        }
        if !self.task.connector.truncates(&self.task.source, &self.lineage, &self.next).is_empty() {
            self.flush().await?;
        }
        let renames = self.renames();
        if renames.last().is_some_and(|r| r.mark > self.upsert.renamed()) {
            self.flush().await?;
            self.upsert.rename(&renames).await?;
        }
        if !self.task.follows_schema {
            return Ok(());
        }
        let schema = self.task.connector.with_history(|history| history.latest(&self.task.source));
        if let Some(schema) = schema
            && self.upsert.needs(&schema)
        {
            self.flush().await?;
            match self.upsert.follow(&schema).await {
                // Rows of that structure become dead letters; older ones still fit.
                Err(error) if error.action() == Action::DeadLetter => {
                    tracing::warn!(table = %self.task.name(), %error, "the table cannot follow its source's structure");
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes the table in the structure that the source has by now, so that no row is written in an older one.
    pub(super) async fn begin_with_newest(&mut self) -> Result<()> {
        let newest = self.task.connector.with_history(|history| history.latest(&self.task.source));
        match newest {
            Some(schema) if self.task.follows_schema => self.upsert.follow(&schema).await,
            _ => Ok(()),
        }
    }

    /// Takes in the statements that left the table without the rows it had: each is an input of the table like its
    /// records, with a position in the same commits.
    pub(super) fn take_truncates(&mut self) -> Result<()> {
        if self.decoded.rows() == 0 && !self.upsert.is_made() {
            return Ok(());
        }
        for truncate in self.task.connector.truncates(&self.task.source, &self.lineage, &self.next) {
            let (id, change) = (truncate.told_in, truncate.change);
            let floor = self.decoder.floor(&change, &id.topic, id.partition);
            let floor = floor.map_err(|reason| jumped(self.task.name(), &reason))?;
            // Without a row there is nothing to clear; what follows waits with it.
            let Some(floor) = floor else { return Ok(()) };
            tracing::info!(table = %self.task.name(), what = ?change.kind, "older rows are taken away, as in the source");
            self.decoded.push_floor(floor);
            let next = self.next.get(&id).unwrap_or(0);
            self.pending.add(&id, Range { from: next, to: change.offset + 1 }, 0, 0);
            self.next.insert(id, change.offset + 1);
        }
        Ok(())
    }
}

fn reused(table: &str, lineage: &Lineage) -> Error {
    let from = lineage.ancestors.first().map(|a| a.table.to_string()).unwrap_or_default();
    let message = format!("silver `{table}`: `{from}` was given this name, which another table had before");
    Error::new(ErrorKind::Gap, message).hint(format!(
        "remove `silver/{table}` from the lake: it is then made anew from Bronze, with the rows of `{from}`"
    ))
}

pub(super) fn forgotten(reader: &super::SilverTask) -> Error {
    let (name, topic) = (reader.name(), &reader.connector.topic);
    let message =
        format!("silver `{name}`: its columns were renamed by a record that `{topic}` does not have any more");
    Error::new(ErrorKind::Gap, message)
        .hint(format!("bring `{topic}` back, or remove the table: it is then made anew from Bronze"))
}
