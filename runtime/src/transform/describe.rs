//! What a module declares about itself for one table: columns wanted, output columns, key. Checks it once, so that the
//! way of a batch need not.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::contract::{WitColumnRef, WitDescription, WitField, WitOutputField, WitRelation};
use super::engine::Module;
use super::format::{crossing_type, format_of, parse_format};
use super::instance::{Live, clean};
use crate::error::{Error, ErrorKind, Result};

/// A table that is offered to a module: first the driving one, then each lookup.
#[derive(Debug, Clone)]
pub struct Relation<'a> {
    /// the table's name; of a lookup, the name the pipeline file gives it
    pub name: &'a str,
    /// its columns; of the driving relation with `_op`, `_seq` and `_source_ts` where they are offered
    pub schema: SchemaRef,
    /// the columns that identify a row
    pub key: Vec<String>,
}

/// A field of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ColumnRef {
    /// position among the relations offered; 0 is the driving one
    pub relation: usize,
    /// position among the relation's fields
    pub field: usize,
}

/// A module that has accepted params and relations: ready for batches. Cheap to clone, and used from several threads
/// at once.
#[derive(Clone)]
pub struct Prepared {
    pub(super) module: Module,
    pub(super) plan: Arc<Exchange>,
}

/// What a description comes to.
pub(super) struct Exchange {
    pub(super) params: String,
    /// the columns the module reads, in its order
    pub(super) reads: Vec<Read>,
    /// the same as the contract has them, given with every call
    pub(super) fields: Vec<WitField>,
    pub(super) writes: Vec<Write>,
    /// how many columns the module computes
    pub(super) computed: usize,
    pub(super) schema: SchemaRef,
    key: Vec<String>,
    columns: Vec<ColumnRef>,
}

pub(super) struct Read {
    /// name in the batch
    pub(super) name: String,
    /// type in which it crosses
    pub(super) data_type: DataType,
}

pub(super) enum Write {
    /// the module's column of this place, which has no nulls where it promised so
    Computed { place: usize, nullable: bool },
    /// the batch's column of this name, untouched
    Passed(String),
}

/// The name that a field of a relation has in a batch: that of the driving relation its own, that of a lookup
/// `lookup.field`.
pub(super) fn batch_name(relations: &[Relation<'_>], column: ColumnRef) -> Option<String> {
    let relation = relations.get(column.relation)?;
    let field = relation.schema.fields().get(column.field)?;
    Some(match column.relation {
        0 => field.name().clone(),
        _ => format!("{}.{}", relation.name, field.name()),
    })
}

impl Module {
    /// Asks the module what it does with these relations. Call again when a relation's schema or the params change.
    /// `params` is an object, or null for none.
    ///
    /// # Errors
    /// `Misfit` where the module does not take the relations or params: the message is the module's own. `Module`
    /// where its description breaks the contract or it fails.
    pub fn describe(&self, params: &serde_json::Value, relations: &[Relation<'_>]) -> Result<Prepared> {
        let params = if params.is_null() { "{}".to_owned() } else { params.to_string() };
        let offered: Vec<WitRelation> = relations.iter().enumerate().map(|(n, r)| offer(n, r)).collect();
        let described = Live::new(&self.compiled, &self.limits)
            .and_then(|mut live| live.describe(&self.compiled, (&params, &offered)))
            .map_err(|e| self.broken(&format!("failed in `describe`: {e}")))?;
        let description = described.0.map_err(|message| {
            let message = clean(&message, self.limits.error_bytes);
            Error::new(ErrorKind::Misfit, format!("module `{}` does not take this table: {message}", self.name()))
                .hint("change the module, or what the pipeline file gives it")
        })?;
        let plan = Exchange::new(description, params, relations, &offered, self.limits.columns)
            .map_err(|e| self.broken(&format!("gave a description that breaks the contract: {e}")))?;
        Ok(Prepared { module: self.clone(), plan: Arc::new(plan) })
    }
}

fn offer(number: usize, relation: &Relation<'_>) -> WitRelation {
    let fields = relation.schema.fields().iter().map(|field| WitField {
        name: field.name().clone(),
        // Empty: the column can be passed, not read.
        format: crossing_type(field.data_type()).and_then(|t| format_of(&t)).unwrap_or_default(),
        // A lookup may find nothing.
        nullable: field.is_nullable() || number > 0,
    });
    WitRelation { name: relation.name.to_owned(), fields: fields.collect(), key: relation.key.clone() }
}

impl Prepared {
    /// Columns of the output table, in order. A computed column takes nulls unless it is of the key.
    pub fn schema(&self) -> &SchemaRef {
        &self.plan.schema
    }

    /// Names of the output columns that identify a row; empty: the owner's key does.
    pub fn key(&self) -> &[String] {
        &self.plan.key
    }

    /// Every column that a batch must hold, read or passed, each once.
    pub fn columns(&self) -> &[ColumnRef] {
        &self.plan.columns
    }

    /// The module behind it.
    pub fn module(&self) -> &Module {
        &self.module
    }
}

impl Exchange {
    fn new(
        description: WitDescription,
        params: String,
        relations: &[Relation<'_>],
        offered: &[WitRelation],
        most: usize,
    ) -> Result<Exchange, String> {
        let WitDescription { reads, writes, key } = description;
        if reads.len() > most || writes.len() > most || key.len() > writes.len() {
            return Err(format!("more columns than `{most}`, or a key of more columns than there are"));
        }
        let mut plan = Exchange {
            params,
            reads: Vec::with_capacity(reads.len()),
            fields: Vec::with_capacity(reads.len()),
            writes: Vec::with_capacity(writes.len()),
            computed: writes.iter().filter(|w| matches!(w, WitOutputField::Computed(_))).count(),
            schema: Arc::new(Schema::empty()),
            key: Vec::new(),
            columns: Vec::new(),
        };
        let mut wanted = HashSet::new();
        plan.take_reads(reads, relations, offered, &mut wanted)?;
        let mut fields = plan.take_writes(writes, relations, &mut wanted)?;
        let writes_count = fields.len();
        for index in key {
            let outside = || format!("key column {index} of `{}`", writes_count);
            let field: &mut Field = fields.get_mut(index as usize).ok_or_else(outside)?;
            // Tables hold nulls in every column but those of the key, so that a module may change its mind.
            if let Some(Write::Computed { nullable: false, .. }) = plan.writes.get(index as usize) {
                field.set_nullable(false);
            }
            plan.key.push(field.name().clone());
        }
        plan.schema = Arc::new(Schema::new(fields));
        Ok(plan)
    }

    /// The columns that the module reads; `wanted`: those that are among [`Self::columns`].
    fn take_reads(
        &mut self,
        reads: Vec<WitColumnRef>,
        relations: &[Relation<'_>],
        offered: &[WitRelation],
        wanted: &mut HashSet<ColumnRef>,
    ) -> Result<(), String> {
        for reference in reads {
            let (column, name, field) = resolve(reference, relations)?;
            let data_type = crossing_type(field.data_type())
                .ok_or_else(|| format!("column `{name}` of type `{}` can be passed but not read", field.data_type()))?;
            let offered_field = offered.get(column.relation).and_then(|r| r.fields.get(column.field));
            self.fields.push(offered_field.cloned().ok_or("a column that was not offered")?);
            self.reads.push(Read { name, data_type });
            if wanted.insert(column) {
                self.columns.push(column);
            }
        }
        Ok(())
    }

    /// The columns that the module writes or passes on, as those of a table.
    fn take_writes(
        &mut self,
        writes: Vec<WitOutputField>,
        relations: &[Relation<'_>],
        wanted: &mut HashSet<ColumnRef>,
    ) -> Result<Vec<Field>, String> {
        let mut fields = Vec::with_capacity(writes.len());
        let mut names = HashSet::new();
        let mut placed = vec![false; self.computed];
        for write in writes {
            let (field, write) = match write {
                WitOutputField::Computed(computed) => {
                    let WitField { name, format, nullable } = computed.field;
                    let place = computed.column as usize;
                    match placed.get_mut(place) {
                        Some(taken @ false) => *taken = true,
                        Some(true) => return Err(format!("computed column {place} is named twice")),
                        None => return Err(format!("computed column {place} of `{}`", self.computed)),
                    }
                    (Field::new(name, parse_format(&format)?, true), Write::Computed { place, nullable })
                }
                WitOutputField::Passed(passed) => {
                    let (column, from, field) = resolve(passed.from, relations)?;
                    if wanted.insert(column) {
                        self.columns.push(column);
                    }
                    let nullable = field.is_nullable() || column.relation > 0;
                    (field.clone().with_name(passed.name).with_nullable(nullable), Write::Passed(from))
                }
            };
            check_name(field.name())?;
            if !names.insert(field.name().to_lowercase()) {
                return Err(format!("two output columns are named `{}`", field.name()));
            }
            fields.push(field);
            self.writes.push(write);
        }
        if fields.is_empty() {
            return Err("it has no output column".to_owned());
        }
        Ok(fields)
    }
}

fn resolve<'a>(
    reference: WitColumnRef,
    relations: &'a [Relation<'_>],
) -> Result<(ColumnRef, String, &'a Field), String> {
    let column = ColumnRef { relation: reference.relation as usize, field: reference.field as usize };
    let outside = || format!("column {} of relation {} was not offered", column.field, column.relation);
    let name = batch_name(relations, column).ok_or_else(outside)?;
    let field = relations.get(column.relation).and_then(|r| r.schema.fields().get(column.field)).ok_or_else(outside)?;
    Ok((column, name, field))
}

fn check_name(name: &str) -> Result<(), String> {
    const MOST_BYTES: usize = 255;
    let shown = || clean(name, 100);
    if name.is_empty() || name.len() > MOST_BYTES {
        return Err(format!("an output column needs a name of 1 to {MOST_BYTES} bytes, not `{}`", shown()));
    }
    // What Delta does not take without column mapping, and what would not survive a log line.
    if let Some(c) = name.chars().find(|c| " ,;{}()=".contains(*c) || c.is_control()) {
        return Err(format!("the output column `{}` has a `{}` in its name", shown(), c.escape_debug()));
    }
    if matches!(name, "_seq" | "_source_ts") || name.starts_with("_key_") || name.starts_with("_keep_") {
        return Err(format!("the host itself writes `{name}`"));
    }
    Ok(())
}
