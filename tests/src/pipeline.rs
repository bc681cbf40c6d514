//! A pipeline file in a folder of its own, which is kept for inspection when the test fails.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// Where the records come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// a capture file
    Replay(PathBuf),
    /// a broker, and the connector's topic prefix
    Kafka {
        /// `host:port`
        brokers: String,
        /// names and patterns
        topics: Vec<String>,
    },
}

/// A pipeline: its folder, its file, its lake.
#[derive(Debug)]
pub struct Pipeline {
    folder: Option<TempDir>,
    root: PathBuf,
    runs: AtomicU32,
}

/// What a test wants in the file beside the source.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `[flush] rows`
    pub flush_rows: u32,
    /// `[flush] age`
    pub flush_age: &'static str,
    /// lines for `[source.kafka]`
    pub kafka: &'static str,
    /// TOML put at the end: tables, maintenance
    pub sections: String,
}

impl Default for Wanted {
    fn default() -> Self {
        Wanted { flush_rows: 1000, flush_age: "1s", kafka: "", sections: String::new() }
    }
}

impl Pipeline {
    /// A folder with `pipeline.toml`, called `name`; the lake is `lake` in it.
    pub fn new(name: &str, source: &Source, wanted: &Wanted) -> Pipeline {
        let folder = TempDir::with_prefix(format!("lode-{name}-")).expect("temporary folder");
        let pipeline = Pipeline { root: folder.path().to_path_buf(), folder: Some(folder), runs: AtomicU32::new(0) };
        pipeline.write(name, source, wanted);
        pipeline
    }

    /// Writes the pipeline file anew.
    pub fn write(&self, name: &str, source: &Source, wanted: &Wanted) {
        let mut text = format!("name = \"{name}\"\nmirror_tables = [\"*\"]\n\n");
        let put = match source {
            Source::Replay(file) => write!(text, "[source.replay]\nfiles = {:?}\n", file.display().to_string()),
            Source::Kafka { brokers, topics } => {
                write!(text, "[source.kafka]\nbrokers = {brokers:?}\ntopics = {topics:?}\n{}\n", wanted.kafka)
            }
        };
        put.expect("writing to a string");
        let rows = wanted.flush_rows;
        let age = &wanted.flush_age;
        write!(text, "\n[lake]\nroot = \"lake\"\n\n[flush]\nrows = {rows}\nage = {age:?}\n\n{}", wanted.sections)
            .expect("writing to a string");
        fs::write(self.file(), text).expect("pipeline file");
    }

    /// The pipeline file.
    pub fn file(&self) -> PathBuf {
        self.root.join("pipeline.toml")
    }

    /// The folder of the pipeline file.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// The root of the lake.
    pub fn lake(&self) -> PathBuf {
        self.root.join("lake")
    }

    /// A new name for the output files of a run.
    pub fn log(&self, what: &str) -> PathBuf {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!("{number:03}-{what}.log"))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let keep = std::thread::panicking() || std::env::var_os("LODE_KEEP").is_some();
        if let Some(folder) = self.folder.take()
            && keep
        {
            eprintln!("kept `{}`", folder.keep().display());
        }
    }
}

/// Topics of a connector: the schema-change topic and those that start with its prefix.
pub fn topics(prefix: &str) -> Vec<String> {
    vec![prefix.to_owned(), format!("{prefix}.*")]
}
