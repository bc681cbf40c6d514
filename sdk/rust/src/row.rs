//! Row functions: from a batch to rows, through the author's function, and back to columns.

use std::fmt::Display;

use crate::contract::{Batch, Columns, Description, Relation};
use crate::describe::Describe;
use crate::input::Input;
use crate::output::Output;
use crate::params::Params;

/// A module: what the host calls. `#[transform]` makes one of a row function; a module that works on whole columns
/// implements it and names itself in [`crate::export!`].
pub trait Transform {
    /// What this module reads and writes.
    ///
    /// # Errors
    /// It does not take this table or these params; the text is for the author of the pipeline.
    fn describe(params: &Params, relations: &[Relation]) -> Result<Description, String>;

    /// The rows that a batch becomes. Nothing may be kept between two calls: each has a fresh instance.
    ///
    /// # Errors
    /// The whole batch fails; the host splits it to find the rows at fault.
    fn transform(params: &Params, batch: &Batch) -> Result<Columns, String>;
}

/// Which columns go through untouched.
#[doc(hidden)]
pub enum Pass {
    /// those named
    Named(&'static [&'static str]),
    /// all that are not written, save those named
    RestBut(&'static [&'static str]),
}

/// The description of a row function.
#[doc(hidden)]
pub fn describe<'a, I: Input<'a>, O: Output>(
    relations: &[Relation],
    pass: &Pass,
    key: Option<&[&str]>,
) -> Result<Description, String> {
    let mut description = Describe::new(relations)?;
    for wanted in I::wanted() {
        description = description.want(&wanted)?;
    }
    for field in O::fields() {
        description = description.write_field(field);
    }
    description = match pass {
        Pass::Named(names) => names.iter().try_fold(description, |d, name| d.pass(name))?,
        Pass::RestBut(names) => description.pass_rest(names)?,
    };
    match key {
        Some(names) => description.key(names),
        None => description,
    }
    .finish()
}

/// What a row function may return: a row, an `Option` to leave rows out, a `Vec` or [`Each`] to give several, a
/// `Result` whose error rejects the row.
pub trait Rows {
    /// The row type.
    type Row: Output;

    /// Hands the rows on.
    fn emit(self, row: u32, sink: &mut Sink<Self::Row>);
}

/// Collects the output of a batch.
pub struct Sink<O: Output> {
    builders: O::Builders,
    source_rows: Vec<u32>,
    rejected: Vec<(u32, String)>,
    one_to_one: bool,
}

impl<O: Output> Sink<O> {
    /// An empty one for `rows` input rows.
    #[doc(hidden)]
    pub fn new(rows: u32) -> Self {
        Sink {
            builders: O::builders(rows as usize),
            source_rows: Vec::with_capacity(rows as usize),
            rejected: Vec::new(),
            one_to_one: true,
        }
    }

    /// Adds an output row that comes from input row `row`.
    #[inline]
    pub fn push(&mut self, row: u32, output: O) {
        self.one_to_one &= self.source_rows.len() == row as usize;
        self.source_rows.push(row);
        output.push(&mut self.builders);
    }

    /// Rejects input row `row`, which must have given no output row: a row is either rejected or transformed.
    pub fn reject(&mut self, row: u32, reason: String) {
        self.rejected.push((row, reason));
    }

    /// The columns of the `rows` input rows.
    #[doc(hidden)]
    pub fn finish(self, rows: u32) -> Columns {
        let one_to_one = self.one_to_one && self.rejected.is_empty() && self.source_rows.len() == rows as usize;
        Columns {
            columns: O::finish(self.builders),
            source_rows: (!one_to_one).then_some(self.source_rows),
            rejected: self.rejected,
        }
    }
}

impl<O: Output> Rows for Option<O> {
    type Row = O;

    #[inline]
    fn emit(self, row: u32, sink: &mut Sink<O>) {
        if let Some(output) = self {
            sink.push(row, output);
        }
    }
}

impl<O: Output> Rows for Vec<O> {
    type Row = O;

    fn emit(self, row: u32, sink: &mut Sink<O>) {
        for output in self {
            sink.push(row, output);
        }
    }
}

impl<R: Rows, E: Display> Rows for Result<R, E> {
    type Row = R::Row;

    #[inline]
    fn emit(self, row: u32, sink: &mut Sink<R::Row>) {
        match self {
            Ok(rows) => rows.emit(row, sink),
            Err(error) => sink.reject(row, error.to_string()),
        }
    }
}

/// The rows of an iterator.
#[derive(Debug, Clone)]
pub struct Each<I>(pub I);

impl<O: Output, I: Iterator<Item = O>> Rows for Each<I> {
    type Row = O;

    fn emit(self, row: u32, sink: &mut Sink<O>) {
        for output in self.0 {
            sink.push(row, output);
        }
    }
}
