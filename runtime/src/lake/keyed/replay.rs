//! Commits of others, replayed into memory.
//!
//! Receives a commit that stands where ours was to go. Promises that afterwards file list, hidden rows, index and positions
//! stand at its version, whatever made it: OPTIMIZE, DELETE by vectors or by rewriting, an append, an overwrite, a
//! RESTORE, or an attempt of ours whose answer was lost. Refuses what lode cannot honour (another protocol, columns
//! that changed their type, another generation). Never writes.

use deltalake::kernel::Add;
use hashbrown::{HashMap, HashSet};
use roaring::RoaringBitmap;
use serde_json::Value;

use super::index::Place;
use super::reader::{Read, Rows};
use super::rename::RENAMED;
use super::{KeyedTable, Owners, own_key};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::file::deletion_vector;
use crate::lake::file::live_files::LiveFile;
use crate::lake::freshness::Freshness;
use crate::lake::log::commit::{Commit, configuration};
use crate::lake::log::schema::{TableSchema, check_protocol};
use crate::model::schema::widen::widens;

/// A known file that a commit states anew.
struct Restated {
    id: u32,
    file: LiveFile,
    hidden_now: RoaringBitmap,
    back: Rows,
}

/// What a commit changes of the files that are known.
struct Changed {
    removed: Vec<u32>,
    restated: Vec<Restated>,
    new: Vec<Read>,
}

/// Replays `commit`, which stands at the version after the table's.
pub(in crate::lake) async fn replay(table: &mut KeyedTable, commit: Commit) -> Result<()> {
    if let Some(protocol) = &commit.protocol {
        check_protocol(protocol)?;
    }
    let moves = commit.moves(table.committer.generation);
    if let Some(metadata) = &commit.metadata {
        take_metadata(table, metadata.clone())?;
    }
    // all reading comes first, so that an error leaves memory where it was
    let changed = read(table, &commit).await?;
    apply(table, changed)?;
    table.committer.note_txns(&commit.txns);
    table.committer.advance();
    // an attempt of ours whose answer was lost, or another instance's: it has told `_lode` what files do not tell
    if moves {
        table.load_owners().await?;
    }
    Ok(())
}

/// Reads what of the table's files `commit` takes away, states anew and adds.
async fn read(table: &KeyedTable, commit: &Commit) -> Result<Changed> {
    let added: HashMap<&str, &Add> = commit.adds.iter().map(|add| (add.path.as_str(), add)).collect();
    let mut removed = Vec::new();
    for remove in &commit.removes {
        if !added.contains_key(remove.path.as_str())
            && let Some(id) = table.files.id_of(&remove.path)
        {
            removed.push(id);
        }
    }
    let reader = table.reader();
    let (mut restated, mut new) = (Vec::new(), Vec::new());
    for add in &commit.adds {
        let Some(id) = table.files.id_of(&add.path) else {
            new.push(reader.read(add.clone()).await?);
            continue;
        };
        let Some(known) = table.files.get(id) else { continue };
        let hidden = match &add.deletion_vector {
            Some(vector) => deletion_vector::read(&reader.committer_store, vector).await?,
            None => RoaringBitmap::new(),
        };
        let shown = &known.hidden - &hidden;
        let file = LiveFile { add: add.clone(), rows: known.rows, hidden: hidden.clone(), vector_ms: None };
        let rows = if shown.is_empty() { Vec::new() } else { reader.rows(add, |row| shown.contains(row)).await?.0 };
        restated.push(Restated { id, hidden_now: &hidden - &known.hidden, back: rows, file });
    }
    Ok(Changed { removed, restated, new })
}

/// Brings file list, hidden rows and index to what was read.
fn apply(table: &mut KeyedTable, changed: Changed) -> Result<()> {
    let Changed { removed, mut restated, new } = changed;
    let whole: HashSet<u32> = removed.iter().copied().collect();
    let parts: HashMap<u32, RoaringBitmap> = restated
        .iter_mut()
        .filter(|r| !r.hidden_now.is_empty())
        .map(|r| (r.id, std::mem::take(&mut r.hidden_now)))
        .collect();
    let mut rowless = Vec::new();
    if !whole.is_empty() || !parts.is_empty() {
        let keep = |place: Place| {
            let gone =
                whole.contains(&place.file) || parts.get(&place.file).is_some_and(|rows| rows.contains(place.row));
            (!gone).then_some(place)
        };
        match &mut table.owners {
            Owners::Keyed(index) => index.map_places(keep, |owner, seq| rowless.push((owner, seq))),
            Owners::Multiset(set) => set.map_places(keep),
        }
    }
    for id in removed {
        table.files.remove(id);
    }
    for one in restated {
        if let Some(known) = table.files.get_mut(one.id) {
            *known = one.file;
        }
        for (row, owner, seq) in one.back {
            table.add_row(owner, seq, Place { file: one.id, row });
        }
    }
    for read in new {
        table.take_in(read)?;
    }
    if let (Owners::Keyed(index), Freshness::Newer) = (&table.owners, table.freshness) {
        // what somebody deleted must not come back by a late change after a restart
        table.rowless_due.extend(rowless.into_iter().filter(|(owner, _)| !index.has_rows(*owner)));
    }
    Ok(())
}

fn take_metadata(table: &mut KeyedTable, metadata: Value) -> Result<()> {
    let settled = configuration(&metadata);
    if settled.contains_key("delta.setTransactionRetentionDuration") {
        return Err(Error::new(ErrorKind::Config, "somebody set `delta.setTransactionRetentionDuration` on the table")
            .hint("unset the property: lode keeps its Kafka positions in those ids"));
    }
    let generation = settled.get("lode.generation").and_then(|g| g.parse().ok()).unwrap_or(0);
    if generation != table.committer.generation {
        return Err(Error::new(ErrorKind::Rebuilt, "the table was rebuilt meanwhile")
            .hint("open it again: it goes on from where the rebuild ended"));
    }
    let schema = TableSchema::of_metadata(&metadata)?;
    if schema.partition_by != table.committer.schema.partition_by {
        return Err(Error::new(ErrorKind::Config, "somebody changed the table's partition columns")
            .hint("`lode rebuild` makes the table anew"));
    }
    // another instance followed a renaming: who has a batch on its way for the old names must not go on with it
    let known = table.renamed();
    let renamed = settled.get(RENAMED).and_then(|mark| mark.parse().ok()).unwrap_or(0) != known;
    for field in table.committer.schema.all.fields() {
        let sound =
            schema.all.field_with_name(field.name()).is_ok_and(|now| widens(field.data_type(), now.data_type()));
        if !sound && !renamed {
            return Err(Error::new(
                ErrorKind::Config,
                format!("somebody dropped column `{}` of the table or changed its type", field.name()),
            )
            .hint("`lode rebuild` makes the table anew"));
        }
    }
    table.committer.schema = schema;
    table.committer.metadata = metadata;
    table.key = own_key(&table.committer)?;
    Ok(())
}
