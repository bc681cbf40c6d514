//! Which structure a row has, and how each of its members is read.
//!
//! Receives the layout of a row, its place in the source and all that is known of its table. Promises a plan, or the
//! reason why nothing explains the row yet. Plans are kept, so that a row like the one before costs a comparison.

use std::sync::Arc;

use super::classify::schema_topic;
use super::format::embedded_schema::Field;
use super::format::json::cursor::Cursor;
use super::format::json::layout::Layout;
use super::schema::history::{SchemaHistory, StructureFrom};
use super::schema::structure::Structure;
use super::settings::Settings;
use super::step::Patience;
use super::table_name::TableName;
use super::value::codec::Codec;
use super::value::column::one_value;
use super::value::column_type::{ColumnSpec, ColumnType};
use super::value::modes::{BinaryHandling, Modes};

/// Most plans kept of one table.
const PLANS_MAX: usize = 64;
/// Most structures kept that did not come from the history.
const DERIVED_MAX: usize = 64;

/// What a plan holds for. A row with another key needs another plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlanKey {
    /// layout of the image
    pub(crate) image: Option<u32>,
    /// layout of the key
    pub(crate) key: Option<u32>,
    pub(crate) wrap: Option<u32>,
    /// index of the history's entry in force
    pub(crate) entry: Option<usize>,
    pub(crate) table: u32,
    pub(crate) revision: u64,
    pub(crate) patience: Patience,
    pub(crate) modes: Modes,
    /// a delete needs no more than the key
    pub(crate) key_only: bool,
}

/// How a column of the key is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyStep {
    pub(crate) column: usize,
    pub(crate) codec: Codec,
    /// member of the record's key
    pub(crate) key: Option<usize>,
    /// member of the image
    pub(crate) image: Option<usize>,
}

/// How rows of one layout are read.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) structure: Arc<Structure>,
    /// per member of the image: its column and how it is written; `None`: not a column
    pub(crate) steps: Vec<Option<(usize, Codec)>>,
    pub(crate) keys: Vec<KeyStep>,
}

/// What a plan is made of.
pub(crate) struct Row<'a> {
    pub(crate) table: &'a TableName,
    pub(crate) topic: &'a str,
    pub(crate) image: Option<&'a Layout>,
    pub(crate) key: Option<&'a Layout>,
    pub(crate) fields: Option<&'a Arc<Vec<Field>>>,
    pub(crate) flattened: bool,
    pub(crate) base: &'a str,
}

/// Why a row has no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoPlan {
    /// a structure that is not known yet may explain it
    Unexplained(String),
    /// nothing will
    Bad(String),
}

/// The plans of one table's rows.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    known: Vec<(PlanKey, Arc<Plan>)>,
    last: usize,
    derived: Vec<Arc<Structure>>,
    /// embedded schemas that typed rows at the last chance: their rows need not wait again
    accepted: Vec<Arc<Vec<Field>>>,
}

impl Plans {
    /// The plan for `key`, made from `row` when there is none.
    #[inline]
    pub(crate) fn get<'a>(
        &mut self,
        key: &PlanKey,
        settings: &Settings,
        history: &SchemaHistory,
        row: impl FnOnce() -> Row<'a>,
    ) -> Result<&Plan, NoPlan> {
        let hit = self.known.get(self.last).is_some_and(|(k, _)| k == key);
        if !hit {
            self.last = match self.known.iter().position(|(k, _)| k == key) {
                Some(at) => at,
                None => {
                    let plan = self.make(key, settings, history, &row())?;
                    if self.known.len() == PLANS_MAX {
                        self.known.clear();
                    }
                    self.known.push((*key, Arc::new(plan)));
                    self.known.len() - 1
                }
            };
        }
        match self.known.get(self.last) {
            Some((_, plan)) => Ok(plan),
            None => Err(NoPlan::Bad("no plan was kept".to_owned())),
        }
    }

    #[cold]
    fn make(
        &mut self,
        key: &PlanKey,
        settings: &Settings,
        history: &SchemaHistory,
        row: &Row<'_>,
    ) -> Result<Plan, NoPlan> {
        let entries = history.entries(row.table).map(|e| e.as_slice()).unwrap_or_default();
        let structure = match (self.chosen(key, entries, row), row.image) {
            (Some(Err(reason)), _) => return Err(NoPlan::Bad(reason.to_string())),
            (Some(Ok(structure)), _) => self.overridden(&structure, settings),
            (None, Some(image)) => {
                let members = columns_of(image, row.flattened, None);
                let renamed = renamed(entries, key.entry);
                if let Some(structure) = self.typed_by_settings(settings, &members, renamed, row)? {
                    structure
                } else if let Some(fields) = row.fields
                    && (key.patience == Patience::LastChance || self.accepted.iter().any(|f| Arc::ptr_eq(f, fields)))
                {
                    self.accept(fields);
                    self.typed_by_fields(settings, fields, &members, (entries, renamed), row)?
                } else {
                    return Err(unexplained(entries, key.entry, &members, row));
                }
            }
            (None, None) => return Err(unexplained(entries, key.entry, &[], row)),
        };
        Ok(plan(structure, key.modes, row))
    }

    /// The history's structure that has exactly the row's fields: the one in force, else a later, else an earlier one.
    fn chosen(
        &self,
        key: &PlanKey,
        entries: &[StructureFrom],
        row: &Row<'_>,
    ) -> Option<Result<Arc<Structure>, Arc<str>>> {
        let comparable = |at: &usize| {
            entries.get(*at).is_some_and(|e| e.position.base == row.base)
                || !entries.iter().any(|e| e.position.base == row.base)
        };
        let from = key.entry.map_or(0, |at| at + 1);
        let order = key.entry.into_iter().chain((from..entries.len()).filter(comparable));
        let order = order.chain((0..key.entry.unwrap_or(0)).rev().filter(comparable));
        if let Some(image) = row.image {
            for at in order {
                match entries.get(at).and_then(|e| e.structure.as_ref()) {
                    Some(Ok(structure)) => {
                        let members = columns_of(image, row.flattened, Some(structure));
                        if structure.has_exactly(members.iter().copied()) {
                            return Some(Ok(Arc::clone(structure)));
                        }
                    }
                    Some(Err(reason)) if Some(at) == key.entry => return Some(Err(Arc::clone(reason))),
                    _ => {}
                }
            }
        }
        if !key.key_only {
            return None;
        }
        // a delete is told by its key alone
        let structure = entries.get(key.entry?)?.structure.as_ref()?.as_ref().ok()?;
        let members = row.key?;
        let whole = !structure.schema.key.is_empty()
            && structure
                .schema
                .key
                .iter()
                .all(|&k| structure.names.get(k).is_some_and(|name| members.find(name).is_some()));
        whole.then(|| Ok(Arc::clone(structure)))
    }

    fn accept(&mut self, fields: &Arc<Vec<Field>>) {
        if !self.accepted.iter().any(|known| Arc::ptr_eq(known, fields)) {
            if self.accepted.len() == DERIVED_MAX {
                self.accepted.clear();
            }
            self.accepted.push(Arc::clone(fields));
        }
    }

    /// A structure that did not come from the history; one that is equal to an earlier one is the same.
    fn keep(&mut self, structure: Structure) -> Arc<Structure> {
        if let Some(same) =
            self.derived.iter().find(|v| v.equals(&structure) && v.schema.table == structure.schema.table)
        {
            return Arc::clone(same);
        }
        if self.derived.len() == DERIVED_MAX {
            self.derived.clear();
        }
        let structure = Arc::new(structure);
        self.derived.push(Arc::clone(&structure));
        structure
    }

    fn overridden(&mut self, structure: &Arc<Structure>, settings: &Settings) -> Arc<Structure> {
        let wanted = |name: &str, kind: ColumnType| settings.columns.get(name).copied().unwrap_or(kind);
        if structure.names.iter().zip(&structure.types).all(|(name, kind)| wanted(name, *kind) == *kind) {
            return Arc::clone(structure);
        }
        let table = TableName { database: structure.schema.database.clone(), table: structure.schema.table.clone() };
        let columns = structure.names.iter().zip(&structure.types).zip(&structure.schema.defaults);
        let columns = columns
            .map(|((name, kind), default)| {
                let wanted = wanted(name, *kind);
                let default = default.clone().filter(|_| wanted == *kind);
                ColumnSpec { name: name.clone(), column_type: wanted, default }
            })
            .collect();
        let key: Vec<String> = structure.schema.key.iter().filter_map(|&k| structure.names.get(k).cloned()).collect();
        match Structure::new(&table, columns, &key) {
            Ok(changed) => self.keep(changed.after(structure.schema.renamed)),
            Err(_) => Arc::clone(structure),
        }
    }

    /// The pipeline file alone types a row when it names every column.
    fn typed_by_settings(
        &mut self,
        settings: &Settings,
        members: &[&str],
        renamed: i64,
        row: &Row<'_>,
    ) -> Result<Option<Arc<Structure>>, NoPlan> {
        let columns: Option<Vec<ColumnSpec>> = members
            .iter()
            .map(|name| {
                Some(ColumnSpec { name: (*name).to_owned(), column_type: *settings.columns.get(*name)?, default: None })
            })
            .collect();
        match columns {
            Some(columns) if !columns.is_empty() => Ok(Some(self.build(columns, renamed, row)?)),
            _ => Ok(None),
        }
    }

    fn build(&mut self, columns: Vec<ColumnSpec>, renamed: i64, row: &Row<'_>) -> Result<Arc<Structure>, NoPlan> {
        let key = row.key.map(|k| k.names.clone()).unwrap_or_default();
        Ok(self.keep(Structure::new(row.table, columns, &key).map_err(NoPlan::Bad)?.after(renamed)))
    }

    /// The record's own schema types a row; what the history says of a column still counts.
    fn typed_by_fields(
        &mut self,
        settings: &Settings,
        fields: &[Field],
        members: &[&str],
        (entries, renamed): (&[StructureFrom], i64),
        row: &Row<'_>,
    ) -> Result<Arc<Structure>, NoPlan> {
        let known = entries.iter().rev().find_map(|e| e.structure.as_ref()?.as_ref().ok());
        let mut columns = Vec::with_capacity(members.len());
        for name in members {
            let Some(field) = fields.iter().find(|f| f.name == *name) else {
                return Err(NoPlan::Bad(format!("the record's own schema does not know its field `{name}`")));
            };
            let of_history = known.and_then(|v| v.types.get(v.names.iter().position(|n| n == name)?)).copied();
            let column_type = settings.columns.get(*name).copied().or(of_history);
            let column_type = column_type.unwrap_or_else(|| ColumnType::of_connect(field));
            let modes = Modes { time: None, decimal: None, binary: BinaryHandling::Base64 };
            // the first moment of 1970 stands for CURRENT_TIMESTAMP, whose value for old rows nobody tells
            let stands_in =
                |text: &str| field.semantic.ends_with("Timestamp") && matches!(text, "0" | "\"1970-01-01T00:00:00Z\"");
            let default = field.default.as_deref().filter(|text| !stands_in(text));
            let default = default.and_then(|text| {
                let token = Cursor::new(text.as_bytes()).value().ok()?;
                one_value(column_type, Codec::of_field(column_type, field, modes), text, token)
            });
            columns.push(ColumnSpec { name: (*name).to_owned(), column_type, default });
        }
        self.build(columns, renamed, row)
    }
}

/// The last renaming before a position of the source.
fn renamed(entries: &[StructureFrom], in_force: Option<usize>) -> i64 {
    let known = in_force.and_then(|at| entries.get(..=at)).unwrap_or_default().iter().rev();
    let mut known = known.filter_map(|e| e.structure.as_ref()?.as_ref().ok());
    known.next().map_or(0, |structure| structure.schema.renamed)
}

/// The members of an image that are columns: all but those that the flattening added.
fn columns_of<'a>(image: &'a Layout, flattened: bool, structure: Option<&Structure>) -> Vec<&'a str> {
    let added = |name: &str| {
        flattened && name.starts_with("__") && !structure.is_some_and(|v| v.names.iter().any(|n| n == name))
    };
    image.names.iter().map(String::as_str).filter(|name| !added(name)).collect()
}

fn unexplained(entries: &[StructureFrom], in_force: Option<usize>, members: &[&str], row: &Row<'_>) -> NoPlan {
    let table = row.table;
    let told_in = schema_topic(row.topic).unwrap_or("<topic.prefix>");
    let structure = in_force.and_then(|at| entries.get(at)?.structure.as_ref()?.as_ref().ok());
    NoPlan::Unexplained(match structure {
        None if entries.is_empty() => format!(
            "no structure of table `{table}` is known; include the schema-change topic `{told_in}` in `topics`, or give `columns`"
        ),
        None => format!("no structure of table `{table}` is known for this position of the source"),
        Some(structure) if structure.schema.key.is_empty() && row.image.is_none() => {
            "the record has no row image (`before`), and its table has no primary key".to_owned()
        }
        Some(_) if row.image.is_none() => format!("the record's key lacks a column of the primary key of `{table}`"),
        Some(structure) => {
            let extra = members.iter().find(|m| !structure.names.iter().any(|n| n == *m));
            let lacking = structure.names.iter().find(|n| !members.iter().any(|m| m == n));
            match (extra, lacking) {
                (Some(extra), _) => format!("the structure of `{table}` in force has no column `{}`", clip(extra)),
                (None, Some(lacking)) => format!(
                    "the row lacks column `{}` of `{table}`; if the connector leaves columns out, give `columns` with all that it sends",
                    clip(lacking)
                ),
                (None, None) => format!("the row does not have the columns of `{table}`"),
            }
        }
    })
}

fn clip(name: &str) -> String {
    name.chars().take(64).collect()
}

fn plan(structure: Arc<Structure>, modes: Modes, row: &Row<'_>) -> Plan {
    let codec = |column: usize| {
        let kind = structure.types.get(column).copied().unwrap_or(ColumnType::Text);
        let name = structure.names.get(column).map(String::as_str).unwrap_or_default();
        match row.fields.and_then(|fields| fields.iter().find(|f| f.name == name)) {
            Some(field) => Codec::of_field(kind, field, modes),
            None => Codec::of_modes(kind, modes),
        }
    };
    let column = |name: &String| structure.names.iter().position(|n| n == name);
    let steps = row
        .image
        .map(|image| image.names.iter().map(|n| column(n).map(|c| (c, codec(c)))).collect())
        .unwrap_or_default();
    let keys = structure
        .schema
        .key
        .iter()
        .map(|&at| {
            let name = structure.names.get(at).map(String::as_str).unwrap_or_default();
            KeyStep {
                column: at,
                codec: codec(at),
                key: row.key.and_then(|k| k.find(name)),
                image: row.image.and_then(|i| i.find(name)),
            }
        })
        .collect();
    Plan { structure, steps, keys }
}
