//! The module that makes a table's rows, as a section `[silver.<table>]` or `[gold.<table>]` names it: the keys
//! `transform`, `sha256` and `params`.

use std::path::{Path, PathBuf};

use super::Config;
use super::gold::GoldRows;
use super::reader::Section;
use crate::error::Result;
use crate::model::table_id::TableId;

/// The keys of a section that are read here.
pub(super) const KEYS: [&str; 3] = ["transform", "sha256", "params"];

/// A module and what it is given.
#[derive(Debug, Clone, PartialEq)]
pub struct Transform {
    /// path of the module
    pub path: PathBuf,
    /// the only hash that the module may have, 64 hexadecimal digits in lower case
    pub sha256: Option<String>,
    /// JSON handed to the module
    pub params: serde_json::Value,
}

impl Config {
    /// The tables that modules make, with these.
    pub fn transforms(&self) -> impl Iterator<Item = (TableId, &Transform)> {
        let silver = self.silver.iter().map(|table| (TableId::silver(table.name.as_str()), table.transform.as_ref()));
        let gold = self.gold.iter().map(|table| {
            let transform = match &table.rows {
                GoldRows::Joined(joined) => joined.transform.as_ref(),
                GoldRows::Query(_) | GoldRows::Calendar(_) => None,
            };
            (TableId::gold(table.name.as_str()), transform)
        });
        silver.chain(gold).filter_map(|(id, transform)| Some((id, transform?)))
    }

    /// The module of one table.
    pub fn transform_of(&self, id: &TableId) -> Option<&Transform> {
        self.transforms().find(|(table, _)| table == id).map(|(_, transform)| transform)
    }
}

pub(super) fn read(table: &Section<'_>, base: &Path) -> Result<Option<Transform>> {
    let (path, sha256, params) = (table.string("transform")?, read_pin(table)?, table.json("params")?);
    match path {
        Some(path) => Ok(Some(Transform { path: base.join(path), sha256, params })),
        None if sha256.is_some() => Err(table.error(Some("sha256"), "pins a module, but the table has no `transform`")),
        None => Ok(None),
    }
}

fn read_pin(table: &Section<'_>) -> Result<Option<String>> {
    let Some(pin) = table.string("sha256")? else { return Ok(None) };
    if pin.len() != 64 || !pin.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(table
            .error(Some("sha256"), "is not a sha256 of 64 hexadecimal digits")
            .hint("`lode check` prints the hash of each module"));
    }
    Ok(Some(pin.to_ascii_lowercase()))
}
