//! Record batches as a table, as JSON lines, as CSV.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, ErrorKind, Result};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    Table,
    Json,
    Csv,
}

impl Form {
    pub(super) fn of(json: bool, csv: bool) -> Form {
        match (json, csv) {
            (true, _) => Form::Json,
            (_, true) => Form::Csv,
            _ => Form::Table,
        }
    }
}

/// Prints rows to standard output.
pub(super) fn batches(batches: &[RecordBatch], form: Form) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let printed = match form {
        Form::Table => table(&mut out, batches),
        Form::Json => json(&mut out, batches),
        Form::Csv => csv(&mut out, batches),
    };
    match printed {
        Ok(()) => Ok(()),
        // The reader had enough (`| head`).
        Err(Failure::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(Failure::Io(error)) => Err(Error::new(ErrorKind::Internal, "cannot print").caused_by(error)),
        Err(Failure::Arrow(error)) => Err(Error::new(ErrorKind::Internal, "cannot print a value").caused_by(error)),
    }
}

enum Failure {
    Io(std::io::Error),
    Arrow(arrow::error::ArrowError),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Failure::Arrow(error)
    }
}

fn table(out: &mut impl Write, batches: &[RecordBatch]) -> Result<(), Failure> {
    let text = arrow::util::pretty::pretty_format_batches(batches)?;
    Ok(writeln!(out, "{text}")?)
}

/// One object a row. Whole numbers and booleans stay what they are; decimals, times and binary become texts, so that
/// no reader rounds them.
fn json(out: &mut impl Write, batches: &[RecordBatch]) -> Result<(), Failure> {
    use arrow::datatypes::DataType as T;
    let options = FormatOptions::default();
    for batch in batches {
        let schema = batch.schema();
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let mut object = serde_json::Map::new();
            for ((field, column), text) in schema.fields().iter().zip(batch.columns()).zip(&columns) {
                let value = if column.is_null(row) {
                    serde_json::Value::Null
                } else {
                    let text = text.value(row).try_to_string()?;
                    match field.data_type() {
                        T::Boolean
                        | T::Int8
                        | T::Int16
                        | T::Int32
                        | T::Int64
                        | T::UInt8
                        | T::UInt16
                        | T::UInt32
                        | T::UInt64
                        | T::Float32
                        | T::Float64 => serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
                        _ => serde_json::Value::String(text),
                    }
                };
                object.insert(field.name().clone(), value);
            }
            writeln!(out, "{}", serde_json::Value::Object(object))?;
        }
    }
    Ok(())
}

fn csv(out: &mut impl Write, batches: &[RecordBatch]) -> Result<(), Failure> {
    let options = FormatOptions::default();
    let mut header = true;
    for batch in batches {
        if std::mem::take(&mut header) {
            let schema = batch.schema();
            line(out, schema.fields().iter().map(|f| f.name().clone()))?;
        }
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).try_to_string()).collect::<Result<_, _>>()?;
            line(out, cells.into_iter())?;
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, cells: impl Iterator<Item = String>) -> std::io::Result<()> {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        if cell.contains(['"', ',', '\n', '\r']) {
            write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            out.write_all(cell.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}
