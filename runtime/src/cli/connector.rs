//! `lode connector`: Debezium's connector, registered, watched, and checked for what loses data.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::connector::{Cluster, Connector, Status, Warning, advise, advise_schema, read_text};
use crate::error::{Error, ErrorKind, Result};

/// What a configuration file, however good, does not say.
const UNSEEN: &str = "not seen from here: `binlog_format` must be `ROW` and `binlog_row_image` `FULL` in the database, \
                      and the binary log must outlive the longest pause of the connector";

/// Registers the connector, or gives it this configuration.
pub(super) async fn apply(file: &Path, connect: &str) -> Result<ExitCode> {
    let connector = Connector::load(file)?;
    let config = connector.filled(|name| std::env::var(name).ok())?;
    let warnings = advise(&connector);
    Cluster::new(connect)?.apply(&connector.name, &config).await?;
    println!("connector `{}` has the configuration of `{}`", connector.name, file.display());
    if !warnings.is_empty() {
        eprintln!("warning: {} of its settings lose data", warnings.len());
        eprintln!("\nhint: lode connector check {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the connector's and its tasks' states; exit code 1 when one does not run.
pub(super) async fn status(file: &Path, connect: &str, json: bool) -> Result<ExitCode> {
    let connector = Connector::load(file)?;
    let Some(status) = Cluster::new(connect)?.status(&connector.name).await? else {
        return Err(Error::new(ErrorKind::Unavailable, format!("Connect has no connector `{}`", connector.name))
            .hint(format!("lode connector apply {} --connect {connect}", file.display())));
    };
    if json {
        print_json(&status)?;
    } else {
        print_status(&status);
    }
    Ok(ExitCode::from(if status.is_running() { 0 } else { 1 }))
}

/// Prints a warning for everything that loses data; exit code 1 when there is one.
pub(super) fn check(file: &Path, schema: Option<&Path>, json: bool) -> Result<ExitCode> {
    let mut warnings = advise(&Connector::load(file)?);
    if let Some(schema) = schema {
        warnings.extend(advise_schema(&read_text(schema)?));
    }
    if json {
        print_json(&warnings)?;
    } else {
        for Warning { what, why, hint } in &warnings {
            println!("loses data  {what}: {why}\n            hint: {hint}");
        }
        if warnings.is_empty() {
            println!("ok    nothing in `{}` loses data", file.display());
        }
        println!("{UNSEEN}");
        if schema.is_none() {
            println!("foreign keys that cascade and tables without a key are looked for with `--schema FILE.sql`");
        }
    }
    Ok(ExitCode::from(if warnings.is_empty() { 0 } else { 1 }))
}

fn print_status(status: &Status) {
    let told = |what: String, state: &str, error: &Option<String>| {
        println!("{state:<10}  {what}");
        if let Some(error) = error {
            println!("            {error}");
        }
    };
    told(format!("connector `{}`", status.name), &status.state, &status.error);
    for task in &status.tasks {
        told(format!("task {} on `{}`", task.id, task.worker), &task.state, &task.error);
    }
    if status.tasks.is_empty() {
        println!("            it has no task yet");
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|e| Error::new(ErrorKind::Internal, "cannot write the result").caused_by(e))?;
    println!("{text}");
    Ok(())
}
