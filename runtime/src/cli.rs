//! The commands of `lode`: arguments in, library calls, text or JSON out.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 the pipeline
//! file or the command line is wrong.

mod check;
mod connector;
mod heap;
mod print;
mod run;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{Config, Server};
use crate::demo::{self, Fault};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Location;
use crate::lake::query::Lake;
use crate::pipeline::lake_options;
use print::Form;

/// Carries database changes from Kafka into Delta tables.
#[derive(Parser)]
#[command(name = "lode", version, max_term_width = 100)]
struct Arguments {
    /// More messages (-v: debug, -vv: trace); RUST_LOG overrides
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How messages are written to standard error
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line: `timestamp`, `level`, `message`, `target`, and the values that the message is about
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pipeline
    Run {
        /// The pipeline file
        pipeline: PathBuf,
        /// End when everything present at the start is committed
        #[arg(long)]
        until_end: bool,
        /// Answer those who watch at this address, whatever `[server]` says; port 0 is any that is free
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<String>,
        /// Print the summary as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the online store: embedded broker, simulated database, pipeline and lake in one process
    Demo {
        /// Folder for the lake, the modules and the pipeline file in use; what an earlier demo left there is removed
        #[arg(long, default_value = "target/demo")]
        folder: PathBuf,
        /// The pipeline file of the online store
        #[arg(long, default_value = "pipelines/online_store/online_store.toml")]
        pipeline: PathBuf,
        /// Folder of the compiled modules
        #[arg(long, default_value = "target/modules")]
        modules: PathBuf,
        /// Changes a second
        #[arg(long, default_value_t = 200)]
        rate: u32,
        /// The same seed moves the store the same way
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// End after so many seconds: swap a module on the way, check every table, exit with 1 if anything differs
        #[arg(long)]
        seconds: Option<u64>,
        /// What is to go wrong, for tests of the check
        #[arg(long, hide = true)]
        fault: Option<Fault>,
    },
    /// Check a pipeline file and everything it names
    Check {
        /// The pipeline file
        pipeline: PathBuf,
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Tables, positions and dead letters of a pipeline's lake
    Status {
        /// The pipeline file
        pipeline: PathBuf,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run SQL over the lake: bronze."topic", silver.table, gold.table, dead_letters
    Query {
        /// The pipeline file
        pipeline: PathBuf,
        /// The query
        #[arg(allow_hyphen_values = true)]
        sql: String,
        /// Print one JSON object a row
        #[arg(long, conflicts_with = "csv")]
        json: bool,
        /// Print CSV with a header
        #[arg(long)]
        csv: bool,
    },
    /// List records and rows that could not be applied
    DeadLetters {
        /// The pipeline file
        pipeline: PathBuf,
        /// Only those of this Silver table
        #[arg(long)]
        table: Option<String>,
        /// At most so many, newest first
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print one JSON object a letter
        #[arg(long)]
        json: bool,
    },
    /// Derive a Silver table again from Bronze, beside a running stream
    Rebuild {
        /// The pipeline file
        pipeline: PathBuf,
        /// The table, as `silver.<name>`
        table: String,
        /// Print the summary as JSON
        #[arg(long)]
        json: bool,
    },
    /// Debezium's connector: register it, watch it, check it for what loses data
    #[command(subcommand)]
    Connector(ConnectorCommand),
    /// Compact, checkpoint and vacuum the tables now
    Maintain {
        /// The pipeline file
        pipeline: PathBuf,
    },
}

#[derive(Subcommand)]
enum ConnectorCommand {
    /// Register the connector, or give it this configuration; `${NAME}` is filled from the environment
    Apply {
        /// The connector's configuration
        file: PathBuf,
        /// REST address of a Kafka Connect worker
        #[arg(long, value_name = "URL", default_value = CONNECT)]
        connect: String,
    },
    /// State of the connector and its tasks, with their errors
    Status {
        /// The connector's configuration
        file: PathBuf,
        /// REST address of a Kafka Connect worker
        #[arg(long, value_name = "URL", default_value = CONNECT)]
        connect: String,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// What in the configuration, and in the database's schema, loses data
    Check {
        /// The connector's configuration
        file: PathBuf,
        /// The database's schema, as CREATE TABLE statements
        #[arg(long, value_name = "FILE.sql")]
        schema: Option<PathBuf>,
        /// Print the warnings as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where Connect answers when nothing else is said.
const CONNECT: &str = "http://localhost:8083";

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // The demo draws its lines in place; what matters of the log, it tells itself.
    let quiet = matches!(arguments.command, Command::Demo { .. });
    let format = arguments.log_format;
    start_logging(arguments.verbose, quiet, format);
    if matches!(arguments.command, Command::Run { .. } | Command::Demo { .. }) {
        heap::bound();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(&Error::new(ErrorKind::Internal, "cannot start the runtime").caused_by(error), format);
        }
    };
    let code = match runtime.block_on(execute(arguments.command, format)) {
        Ok(code) => code,
        Err(error) => fail(&error, format),
    };
    // What still runs (a log being read, a compaction) has nothing left to do for anyone: the process ends under it.
    // Dropping the runtime would make it panic on the way out.
    std::mem::forget(runtime);
    code
}

fn start_logging(verbose: u8, quiet: bool, format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 if quiet => "off",
        // While a broker is away rdkafka repeats, hundreds of times, what `lodestream` and librdkafka's own log say.
        0 => "warn,lodestream=info,rdkafka::client=off",
        1 => "info,lodestream=debug",
        _ => "debug,lodestream=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn fail(error: &Error, format: LogFormat) -> ExitCode {
    // Whoever filters the log must still be told why it ended.
    if format == LogFormat::Json && tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(hint = error.next_step(), "{error}");
    } else {
        eprintln!("error: {error}");
        if let Some(hint) = error.next_step() {
            eprintln!("\nhint: {hint}");
        }
    }
    ExitCode::from(if error.is_by_user() { 2 } else { 1 })
}

async fn execute(command: Command, format: LogFormat) -> Result<ExitCode> {
    match command {
        Command::Run { pipeline, until_end, listen, json } => {
            let config = Config::load(&pipeline)?;
            let server = Server::overridden(config.server, listen.as_deref())?;
            // A line that is drawn in place is no log.
            let live = format == LogFormat::Text;
            run::run(config, run::Wanted { until_end, server, json, live }).await?;
        }
        Command::Demo { folder, pipeline, modules, rate, seed, seconds, fault } => {
            run::demo(demo::Options { folder, pipeline, modules, rate, seed, seconds, fault }).await?;
        }
        Command::Check { pipeline, json } => return check::check(&Config::load(&pipeline)?, json).await,
        Command::Status { pipeline, json } => return status::status(&Config::load(&pipeline)?, json).await,
        Command::Query { pipeline, sql, json, csv } => {
            let form = Form::of(json, csv);
            let batches = lake(&Config::load(&pipeline)?)?.query(&sql).await?;
            print::batches(&batches, form)?;
        }
        Command::DeadLetters { pipeline, table, limit, json } => {
            status::dead_letters(&Config::load(&pipeline)?, table.as_deref(), limit, Form::of(json, false)).await?;
        }
        Command::Rebuild { pipeline, table, json } => run::rebuild(Config::load(&pipeline)?, &table, json).await?,
        Command::Connector(command) => {
            return match command {
                ConnectorCommand::Apply { file, connect } => connector::apply(&file, &connect).await,
                ConnectorCommand::Status { file, connect, json } => connector::status(&file, &connect, json).await,
                ConnectorCommand::Check { file, schema, json } => connector::check(&file, schema.as_deref(), json),
            };
        }
        Command::Maintain { pipeline } => run::maintain(&Config::load(&pipeline)?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder of a pipeline's lake.
fn lake_root(config: &Config) -> Result<Location> {
    Location::open(&config.lake.root, &lake_options(config)?)
}

/// The lake of a pipeline, read-only.
fn lake(config: &Config) -> Result<Lake> {
    Ok(Lake::new(lake_root(config)?))
}
