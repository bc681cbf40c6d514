//! The pipeline file.
//!
//! Receives one TOML file. Promises a [`Config`] in which every value is checked and every path is absolute, or a
//! message that names the file, the line, the dotted key and the nearest known key. Never holds secrets: those come
//! from the environment or from files, which the file only names.

mod gold;
mod reader;
mod server;
mod setting;
mod transform;
mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use gold::{Choice, Days, Gold, GoldRows, Joined, Lookup, Pick, Place, Query};
pub use server::Server;
pub use setting::Setting;
pub use transform::Transform;
pub use units::{parse_bytes, parse_duration};

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use reader::{Document, Section};
pub(crate) use reader::{nearest, resolve};

/// A pipeline: one source, one lake, the tables.
#[derive(Debug, Clone)]
pub struct Config {
    /// the file it was read from
    pub file: PathBuf,
    /// sha256 of the file's text
    pub sha256: [u8; 32],
    /// the pipeline's name; consumer group and commit info carry it
    pub name: String,
    /// patterns of source tables that become typed copies without a section of their own
    pub mirror_tables: Vec<String>,
    /// what a table does when its source changes a type or the key; a table's section may say otherwise
    pub on_incompatible: OnIncompatible,
    /// where records come from
    pub source: Source,
    /// how the connector writes values, where records do not say so themselves
    pub debezium: Debezium,
    /// where tables go
    pub lake: Lake,
    /// when a table's buffered changes are committed
    pub flush: Flush,
    /// upper bounds
    pub limits: Limits,
    /// background upkeep of the tables
    pub maintenance: Maintenance,
    /// where a run answers those who watch it; `None`: nowhere
    pub server: Option<Server>,
    /// Silver tables with a section of their own
    pub silver: Vec<Silver>,
    /// Gold tables
    pub gold: Vec<Gold>,
}

/// What a Silver table does when its source changes the type of a column, or the key. Added and renamed columns are followed
/// in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnIncompatible {
    /// the table follows where no value is lost; other rows of that structure are dead letters
    #[default]
    Evolve,
    /// the table stays as it is; rows of that structure are dead letters
    DeadLetter,
    /// the table stops before the first row of that structure
    Stop,
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// captured records
    Replay {
        /// absolute paths, in order
        files: Vec<PathBuf>,
    },
    /// a Kafka cluster
    Kafka {
        /// `host:port`, comma-separated
        brokers: String,
        /// patterns of topic names (`*` any run of characters, `?` one)
        topics: Vec<String>,
        /// the consumer group whose members share the tables; `None`: this process writes them all
        group: Option<String>,
        /// how often new topics and partitions are looked for
        refresh: Duration,
        /// librdkafka settings, passed through
        options: Vec<(String, Setting)>,
    },
}

impl Source {
    /// The capture files, in order; none where the source is a broker.
    pub fn captures(&self) -> &[PathBuf] {
        match self {
            Source::Replay { files } => files,
            Source::Kafka { .. } => &[],
        }
    }
}

/// How the connector writes values; `None`: told by the records' schema, else inferred from the values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Debezium {
    /// `time.precision.mode`: `adaptive_time_microseconds`, `connect` or `isostring`
    pub time_precision: Option<String>,
    /// `decimal.handling.mode`: `precise`, `string` or `double`
    pub decimal_handling: Option<String>,
    /// `binary.handling.mode`: `base64` or `hex`
    pub binary_handling: Option<String>,
}

/// Where tables go.
#[derive(Debug, Clone, PartialEq)]
pub struct Lake {
    /// a URL, or an absolute path
    pub root: String,
    /// object store options, passed through
    pub options: Vec<(String, Setting)>,
}

/// A table commits when any of these is reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flush {
    /// buffered records
    pub rows: usize,
    /// buffered bytes
    pub bytes: usize,
    /// age of the oldest buffered record
    pub age: Duration,
}

/// Upper bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// records read and not yet taken in; apart from that, what all tables buffer before some commit early
    pub memory_bytes: usize,
    /// how long a record that nothing explains waits for the schema-change topic
    pub schema_wait: Duration,
    /// share of a batch's rows that may make a module fail before the table stops, or that a new module may reject
    pub rejected_ratio: f64,
    /// linear memory of one instance of a module
    pub module_memory_bytes: usize,
    /// wall time of one call of a module
    pub module_time: Duration,
    /// what one call of a module may return
    pub module_output_bytes: usize,
    /// rows that one call of a module may return
    pub module_output_rows: usize,
    /// log lines of one call of a module
    pub module_log_lines: usize,
    /// size of a module's file
    pub module_size_bytes: usize,
    /// time to compile a module
    pub compile_time: Duration,
    /// what the query of a Gold table holds in memory, and what its result may take
    pub query_memory_bytes: usize,
}

/// Background upkeep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Maintenance {
    /// size that compaction packs data files to
    pub target_file_bytes: usize,
    /// number of small files that sets compaction off
    pub small_files: usize,
    /// share of hidden rows above which a file is rewritten
    pub hidden_ratio: f64,
    /// commits between two checkpoints
    pub checkpoint_interval: u64,
    /// how long files of older versions are kept
    pub retention: Duration,
}

/// A Silver table with a section of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Silver {
    /// the table's name in the lake
    pub name: String,
    /// the source table, `table` or `database.table`
    pub from: String,
    /// the module that makes its rows; `None`: a typed copy
    pub transform: Option<Transform>,
    /// partition columns of the Silver table
    pub partition_by: Vec<String>,
    /// every change is appended to `<name>_changes`
    pub changes: bool,
    /// what it does when its source changes a type or the key
    pub on_incompatible: OnIncompatible,
    /// column type overrides, `column = "type"`
    pub columns: Vec<(String, String)>,
}

impl Config {
    /// Reads and checks the pipeline file `file`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with file, line and dotted key.
    pub fn load(file: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(file).map_err(|e| {
            Error::new(ErrorKind::Config, format!("cannot read pipeline file `{}`", file.display()))
                .caused_by(e)
                .hint("give the path of a pipeline file, for example `lode run pipeline.toml`")
        })?;
        Self::parse(file, &text)
    }

    /// Checks `text`; relative paths in it start at the folder of `file`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(file: &Path, text: &str) -> Result<Config> {
        let document = Document::parse(file, text)?;
        let root = document.root();
        root.allow(&[
            "name",
            "mirror_tables",
            "on_incompatible",
            "source",
            "debezium",
            "lake",
            "flush",
            "limits",
            "maintenance",
            "server",
            "silver",
            "gold",
        ])?;
        let base = std::path::absolute(file)
            .ok()
            .and_then(|p| p.parent().map(Path::to_path_buf))
            .unwrap_or_else(|| PathBuf::from("."));

        let name = root.identifier("name")?;
        let mirror_tables = root.strings("mirror_tables")?.unwrap_or_default();
        let on_incompatible = read_on_incompatible(&root)?.unwrap_or_default();
        let silver = read_silver(&root, &base, on_incompatible)?;
        if silver.is_empty() && mirror_tables.is_empty() {
            return Err(root.error(None, "no table is asked for").hint(
                "set `mirror_tables = [\"*\"]` for a typed copy of every source table, or add a `[silver.<table>]` section",
            ));
        }
        Ok(Config {
            file: file.to_path_buf(),
            sha256: Sha256::digest(text).into(),
            name,
            on_incompatible,
            source: read_source(&root, &base)?,
            debezium: read_debezium(&root)?,
            lake: read_lake(&root, &base)?,
            flush: read_flush(&root)?,
            limits: read_limits(&root)?,
            maintenance: read_maintenance(&root)?,
            server: server::read(&root)?,
            gold: gold::read(&root, &base, |name| match silver.iter().find(|s| s.name == name) {
                Some(_) => Ok(()),
                None if !mirror_tables.is_empty() => Ok(()),
                None => Err(reader::nearest(name, silver.iter().map(|s| s.name.as_str())).map(str::to_owned)),
            })?,
            silver,
            mirror_tables,
        })
    }
}

fn read_source(root: &Section<'_>, base: &Path) -> Result<Source> {
    let section = root.required_section("source")?;
    section.allow(&["replay", "kafka"])?;
    match (section.section("replay")?, section.section("kafka")?) {
        (Some(replay), None) => {
            replay.allow(&["files"])?;
            let patterns = replay.required_strings("files")?;
            Ok(Source::Replay { files: expand(&replay, &patterns, base)? })
        }
        (None, Some(kafka)) => {
            kafka.allow(&["brokers", "topics", "group", "refresh", "options"])?;
            let brokers = kafka.required_string("brokers")?;
            let topics = kafka.required_strings("topics")?;
            if topics.is_empty() {
                return Err(kafka.error(Some("topics"), "names no topic"));
            }
            Ok(Source::Kafka {
                brokers,
                topics,
                group: kafka.string("group")?,
                refresh: kafka.duration("refresh")?.unwrap_or(Duration::from_secs(10)),
                options: kafka.settings("options", base, setting::of_the_broker)?,
            })
        }
        (Some(_), Some(_)) => Err(section.error(None, "has both `replay` and `kafka`; a pipeline has one source")),
        (None, None) => Err(section.error(None, "names no source").hint("add `[source.kafka]` or `[source.replay]`")),
    }
}

fn expand(section: &Section<'_>, patterns: &[String], base: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for pattern in patterns {
        let full = base.join(pattern);
        let matches = glob::glob(&full.to_string_lossy())
            .map_err(|e| section.error(Some("files"), &format!("has a bad pattern `{pattern}`")).caused_by(e))?;
        let before = files.len();
        for path in matches {
            files.push(path.map_err(|e| section.error(Some("files"), "cannot be listed").caused_by(e))?);
        }
        if files.len() == before {
            return Err(section
                .error(Some("files"), &format!("matches no file: `{pattern}`"))
                .hint("paths are relative to the pipeline file"));
        }
    }
    Ok(files)
}

fn read_debezium(root: &Section<'_>) -> Result<Debezium> {
    let Some(section) = root.section("debezium")? else { return Ok(Debezium::default()) };
    section.allow(&["time_precision", "decimal_handling", "binary_handling"])?;
    Ok(Debezium {
        time_precision: section.one_of("time_precision", &["adaptive_time_microseconds", "connect", "isostring"])?,
        decimal_handling: section.one_of("decimal_handling", &["precise", "string", "double"])?,
        binary_handling: section.one_of("binary_handling", &["base64", "hex"])?,
    })
}

fn read_lake(root: &Section<'_>, base: &Path) -> Result<Lake> {
    let section = root.required_section("lake")?;
    section.allow(&["root", "options"])?;
    let text = section.required_string("root")?;
    let root = match text.split_once("://") {
        Some(("file" | "abfss" | "abfs" | "az" | "adl" | "s3" | "s3a", _)) => text,
        Some((scheme, _)) => {
            return Err(section
                .error(Some("root"), &format!("has the unknown scheme `{scheme}`"))
                .hint("use `abfss://…`, `az://…`, `s3://…` or a local path"));
        }
        None => base.join(text).to_string_lossy().into_owned(),
    };
    Ok(Lake { root, options: section.settings("options", base, setting::of_the_lake)? })
}

fn read_flush(root: &Section<'_>) -> Result<Flush> {
    let section = root.section("flush")?;
    if let Some(s) = &section {
        s.allow(&["rows", "bytes", "age"])?;
    }
    let s = section.as_ref();
    Ok(Flush {
        rows: s.map(|s| s.count("rows")).transpose()?.flatten().unwrap_or(200_000),
        bytes: s.map(|s| s.bytes("bytes")).transpose()?.flatten().unwrap_or(64 << 20),
        age: s.map(|s| s.duration("age")).transpose()?.flatten().unwrap_or(Duration::from_secs(1)),
    })
}

fn read_limits(root: &Section<'_>) -> Result<Limits> {
    let section = root.section("limits")?;
    if let Some(s) = &section {
        s.allow(&[
            "memory",
            "schema_wait",
            "rejected_ratio",
            "module_memory",
            "module_time",
            "module_output",
            "module_output_rows",
            "module_log_lines",
            "module_size",
            "compile_time",
            "query_memory",
        ])?;
    }
    let s = section.as_ref();
    let bytes = |key| s.map(|s| s.bytes(key)).transpose().map(Option::flatten);
    let count = |key| s.map(|s| s.count(key)).transpose().map(Option::flatten);
    let time = |key| s.map(|s| s.duration(key)).transpose().map(Option::flatten);
    Ok(Limits {
        memory_bytes: bytes("memory")?.unwrap_or(128 << 20),
        schema_wait: time("schema_wait")?.unwrap_or(Duration::from_secs(30)),
        rejected_ratio: s.map(|s| s.ratio("rejected_ratio")).transpose()?.flatten().unwrap_or(0.5),
        module_memory_bytes: bytes("module_memory")?.unwrap_or(256 << 20),
        module_time: time("module_time")?.unwrap_or(Duration::from_secs(5)),
        module_output_bytes: bytes("module_output")?.unwrap_or(128 << 20),
        module_output_rows: count("module_output_rows")?.unwrap_or(1 << 20),
        module_log_lines: count("module_log_lines")?.unwrap_or(64),
        module_size_bytes: bytes("module_size")?.unwrap_or(64 << 20),
        compile_time: time("compile_time")?.unwrap_or(Duration::from_secs(120)),
        query_memory_bytes: bytes("query_memory")?.unwrap_or(256 << 20),
    })
}

/// A shorter one would let a vacuum take files that are written and not committed yet.
const RETENTION_MIN: Duration = Duration::from_secs(3600);

fn read_maintenance(root: &Section<'_>) -> Result<Maintenance> {
    let section = root.section("maintenance")?;
    if let Some(s) = &section {
        s.allow(&["target_file", "small_files", "hidden_ratio", "checkpoint_interval", "retention"])?;
    }
    let s = section.as_ref();
    let retention = s.map(|s| s.duration("retention")).transpose()?.flatten();
    if let Some(section) = s.filter(|_| retention.is_some_and(|time| time < RETENTION_MIN)) {
        let what = "is shorter than `1h`";
        return Err(section
            .error(Some("retention"), what)
            .hint("a younger file may be of a commit that is on its way"));
    }
    Ok(Maintenance {
        target_file_bytes: s.map(|s| s.bytes("target_file")).transpose()?.flatten().unwrap_or(128 << 20),
        small_files: s.map(|s| s.count("small_files")).transpose()?.flatten().unwrap_or(16),
        hidden_ratio: s.map(|s| s.ratio("hidden_ratio")).transpose()?.flatten().unwrap_or(0.25),
        checkpoint_interval: s.map(|s| s.count("checkpoint_interval")).transpose()?.flatten().unwrap_or(50) as u64,
        retention: retention.unwrap_or(Duration::from_secs(7 * 86_400)),
    })
}

fn read_on_incompatible(section: &Section<'_>) -> Result<Option<OnIncompatible>> {
    let word = section.one_of("on_incompatible", &["evolve", "dead_letter", "stop"])?;
    Ok(word.map(|word| match word.as_str() {
        "dead_letter" => OnIncompatible::DeadLetter,
        "stop" => OnIncompatible::Stop,
        _ => OnIncompatible::Evolve,
    }))
}

fn read_silver(root: &Section<'_>, base: &Path, on_incompatible: OnIncompatible) -> Result<Vec<Silver>> {
    let Some(tables) = root.section("silver")? else { return Ok(Vec::new()) };
    let mut out: Vec<Silver> = Vec::new();
    for name in tables.keys() {
        let table = tables.required_section(&name)?;
        let own = ["from", "partition_by", "changes", "columns", "on_incompatible"];
        table.allow(&[own.as_slice(), transform::KEYS.as_slice()].concat())?;
        if !is_identifier(&name) {
            return Err(table
                .error(None, &format!("`{name}` cannot be a table name"))
                .hint("use letters, digits and `_`, at most 128 characters"));
        }
        out.push(Silver {
            from: table.string("from")?.unwrap_or_else(|| name.clone()),
            transform: transform::read(&table, base)?,
            partition_by: table.strings("partition_by")?.unwrap_or_default(),
            changes: table.flag("changes")?.unwrap_or(false),
            columns: table.pairs("columns")?,
            on_incompatible: read_on_incompatible(&table)?.unwrap_or(on_incompatible),
            name,
        });
    }
    for feed in out.iter().filter(|t| t.changes).map(|t| format!("{}_changes", t.name)) {
        if tables.keys().contains(&feed) {
            let what = format!("lies where the feed of `{}` goes", feed.trim_end_matches("_changes"));
            return Err(tables.error(Some(&feed), &what).hint("give one of the two tables another name"));
        }
    }
    Ok(out)
}

/// True for a name that may become a folder of the lake.
pub fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        let error = Config::parse(Path::new("p.toml"), text).expect_err("must be refused");
        format!("{error} | {}", error.next_step().unwrap_or(""))
    }

    const GOOD: &str = "name = \"x\"\nmirror_tables = [\"*\"]\n[source.kafka]\nbrokers = \"b:1\"\ntopics = \"x.*\"\n[lake]\nroot = \"lake\"\n";

    #[test]
    fn a_small_file_gets_careful_defaults() {
        let config = Config::parse(Path::new("p.toml"), GOOD).unwrap();
        assert_eq!(config.flush.age, Duration::from_secs(1));
        assert!(Path::new(&config.lake.root).is_absolute());
    }

    #[test]
    fn unknown_keys_name_line_dotted_key_and_nearest() {
        let m = message(&GOOD.replace("brokers", "broker"));
        assert!(m.contains("p.toml:4"), "{m}");
        assert!(m.contains("`source.kafka.broker`") && m.contains("`brokers`"), "{m}");
    }

    #[test]
    fn a_retention_that_takes_files_on_their_way_is_refused() {
        let with = |time: &str| format!("{GOOD}[maintenance]\nretention = \"{time}\"\n");
        let m = message(&with("59m"));
        assert!(m.contains("`maintenance.retention` is shorter than `1h` | "), "{m}");
        let config = Config::parse(Path::new("p.toml"), &with("1h")).unwrap();
        assert_eq!(config.maintenance.retention, RETENTION_MIN);
    }

    #[test]
    fn sizes_and_times_need_units() {
        let m = message(&format!("{GOOD}[flush]\nage = 5\n"));
        assert!(m.contains("flush.age") && m.contains("5s"), "{m}");
        let m = message(&format!("{GOOD}[flush]\nbytes = \"64\"\n"));
        assert!(m.contains("flush.bytes") && m.contains("64MiB"), "{m}");
    }

    #[test]
    fn a_table_in_the_place_of_a_feed_is_refused() {
        let m = message(&format!("{GOOD}[silver.a]\nchanges = true\n[silver.a_changes]\n"));
        assert!(m.contains("`silver.a_changes`") && m.contains("feed of `a`"), "{m}");
        let m = message(&format!("{GOOD}[silver.a]\nchanges = 1\n"));
        assert!(m.contains("`silver.a.changes`") && m.contains("true or false"), "{m}");
    }

    #[test]
    fn a_table_says_otherwise_than_the_pipeline() {
        let text =
            format!("on_incompatible = \"stop\"\n{GOOD}[silver.a]\n[silver.b]\non_incompatible = \"dead_letter\"\n");
        let config = Config::parse(Path::new("p.toml"), &text).unwrap();
        assert_eq!(config.on_incompatible, OnIncompatible::Stop);
        let of: Vec<_> = config.silver.iter().map(|s| s.on_incompatible).collect();
        assert_eq!(of, [OnIncompatible::Stop, OnIncompatible::DeadLetter]);
        assert_eq!(Config::parse(Path::new("p.toml"), GOOD).unwrap().on_incompatible, OnIncompatible::Evolve);
        let m = message(&format!("{GOOD}[silver.b]\non_incompatible = \"dead_leter\"\n"));
        assert!(m.contains("`silver.b.on_incompatible`") && m.contains("`dead_letter`"), "{m}");
    }

    #[test]
    fn a_setting_may_stand_in_the_environment_or_in_a_file() {
        let options = "[source.kafka.options]\n\"sasl.password\" = { env = \"PW\" }\n\"ssl.key.password\" = { file = \"pw\" }\n\"check.crcs\" = true\n";
        let text = GOOD.replace("[lake]", &format!("{options}[lake]"));
        let config = Config::parse(Path::new("/etc/p.toml"), &text).unwrap();
        let Source::Kafka { options, .. } = config.source else { panic!("no broker") };
        let values: Vec<Setting> = options.into_iter().map(|(_, value)| value).collect();
        let expected = [Setting::Env("PW".into()), Setting::File("/etc/pw".into()), Setting::Text("true".into())];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_secret_in_the_pipeline_file_is_refused_and_not_repeated() {
        let options = "[source.kafka.options]\n\"sasl.password\" = \"hunter2\"\n";
        let m = message(&GOOD.replace("[lake]", &format!("{options}[lake]")));
        assert!(m.contains("sasl.password") && m.contains("env = ") && !m.contains("hunter2"), "{m}");
        for key in ["azure_storage_account_key", "SAS_TOKEN", "aws_secret_access_key", "azure_client_secret"] {
            let m = message(&format!("{GOOD}[lake.options]\n{key} = \"hunter2\"\n"));
            assert!(m.contains(key) && m.contains("env = ") && !m.contains("hunter2"), "{m}");
        }
        let text = format!("{GOOD}[lake.options]\naws_access_key_id = \"AK\"\nuse_emulator = true\n");
        assert_eq!(Config::parse(Path::new("p.toml"), &text).unwrap().lake.options.len(), 2);
    }

    #[test]
    fn a_pin_is_a_hash_of_a_module() {
        let m = message(&format!("{GOOD}[silver.a]\nsha256 = \"{}\"\n", "a".repeat(64)));
        assert!(m.contains("`silver.a.sha256`") && m.contains("no `transform`"), "{m}");
        let m = message(&format!("{GOOD}[silver.a]\ntransform = \"a.wasm\"\nsha256 = \"abc\"\n"));
        assert!(m.contains("`silver.a.sha256`") && m.contains("64 hexadecimal"), "{m}");
        let text = format!("{GOOD}[silver.a]\ntransform = \"a.wasm\"\nsha256 = \"{}\"\n", "AB".repeat(32));
        assert_eq!(
            Config::parse(Path::new("p.toml"), &text).unwrap().silver[0].transform.as_ref().unwrap().sha256,
            Some("ab".repeat(32))
        );
    }

    #[test]
    fn broken_toml_names_the_line() {
        let m = message("name = \"x\"\nmirror_tables = [\n");
        assert!(m.contains("p.toml:"), "{m}");
    }
}
