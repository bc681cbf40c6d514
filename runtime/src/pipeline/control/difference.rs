//! What another pipeline file changes, told from the two files alone.
//!
//! Receives two pipeline files that are sound by themselves. Promises that what cannot change while a pipeline runs is
//! refused with the reason before anything was touched, and for each table one answer. Never touches a table or a task.

use serde_json::Value;

use crate::config::{Config, Gold, GoldRows};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::task::silver::plan::SilverSpec;
use crate::transform::Module;

/// What becomes of one table by another pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum Change {
    /// nothing
    Stays,
    /// it is asked for, and was not before
    Begins,
    /// it has the same rows by other rules of structure: its task begins anew
    BeginsAnew,
    /// it is a copy from now on, made by no module
    BecomesCopy,
    /// another module, other params or other limits are to be tried
    TriesModule,
}

/// What becomes of the table `is`, which was `was`; `module`: the one that the new file gives it, with its params.
pub(in crate::pipeline) fn change_of(
    was: Option<&SilverSpec>,
    is: &SilverSpec,
    module: Option<(&Module, &Value)>,
) -> Change {
    let Some(was) = was else { return Change::Begins };
    if was.on_incompatible != is.on_incompatible {
        return Change::BeginsAnew;
    }
    match (&was.module, module) {
        (None, None) => Change::Stays,
        (Some(_), None) => Change::BecomesCopy,
        (Some((serving, had)), Some((module, params)))
            if serving.hash() == module.hash() && serving.limits() == module.limits() && had == params =>
        {
            Change::Stays
        }
        (_, Some(_)) => Change::TriesModule,
    }
}

/// What becomes of a Gold table whose section `is`, and `was`; `had`, `has`: its module with its params, before and now.
pub(in crate::pipeline) fn gold_change_of(
    was: Option<&Gold>,
    is: &Gold,
    had: Option<&(Module, Value)>,
    has: Option<&(Module, Value)>,
) -> Change {
    let Some(was) = was else { return Change::Begins };
    if without_module(was) != without_module(is) {
        return Change::BeginsAnew;
    }
    match (had, has) {
        (None, None) => Change::Stays,
        (Some((serving, had)), Some((module, has)))
            if serving.hash() == module.hash() && serving.limits() == module.limits() && had == has =>
        {
            Change::Stays
        }
        (Some(_), Some(_)) => Change::TriesModule,
        _ => Change::BeginsAnew,
    }
}

fn without_module(section: &Gold) -> Gold {
    let mut section = section.clone();
    if let GoldRows::Joined(joined) = &mut section.rows {
        joined.transform = None;
    }
    section
}

/// What of a pipeline file cannot change while the pipeline runs.
pub(in crate::pipeline) fn check_fixed(old: &Config, new: &Config) -> Result<()> {
    let fixed = [
        ("name", old.name == new.name),
        ("source", old.source == new.source),
        ("debezium", old.debezium == new.debezium),
        ("lake", old.lake == new.lake),
        ("maintenance", old.maintenance == new.maintenance),
        ("server", old.server == new.server),
        ("limits.memory", old.limits.memory_bytes == new.limits.memory_bytes),
    ];
    let changed: Vec<String> = fixed.iter().filter(|(_, same)| !same).map(|(key, _)| format!("`{key}`")).collect();
    if !changed.is_empty() {
        let message =
            format!("pipeline file `{}`: {} cannot change while it runs", new.file.display(), changed.join(", "));
        return Err(Error::new(ErrorKind::Config, message).hint("restart `lode run`: it goes on from where it is"));
    }
    let looked_up = new.gold.iter().chain(&old.gold).flat_map(|gold| match &gold.rows {
        GoldRows::Joined(joined) => joined.lookups.iter().map(|lookup| lookup.table.as_str()).collect::<Vec<_>>(),
        GoldRows::Query(_) | GoldRows::Calendar(_) => Vec::new(),
    });
    let mut tables = new.silver.iter().map(|section| section.name.as_str()).chain(looked_up);
    if let Some(table) = tables.find(|table| old.feeds(table) != new.feeds(table)) {
        let message = format!(
            "pipeline file: whether silver `{table}` has a feed (`changes`, or `as_of` in Gold) cannot change while it runs"
        );
        return Err(Error::new(ErrorKind::Config, message).hint("restart `lode run`: it goes on from where it is"));
    }
    for section in &new.silver {
        let before = old.silver.iter().find(|s| s.name == section.name);
        let Some(before) = before else { continue };
        for (key, same) in [
            ("from", before.from == section.from),
            ("partition_by", before.partition_by == section.partition_by),
            ("columns", before.columns == section.columns),
        ] {
            if !same {
                let message =
                    format!("pipeline file: `silver.{}.{key}` cannot change for a table that is there", section.name);
                return Err(Error::new(ErrorKind::Config, message)
                    .hint("stop `lode run` and use `lode rebuild`, or give the table another name"));
            }
        }
    }
    Ok(())
}
