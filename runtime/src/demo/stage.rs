//! The folder of a demo: the pipeline file in use, copies of its modules, the lake.
//!
//! Promises that the pipeline is the one of the file it is given, but for broker, lake and where modules lie, and that
//! neither that file nor the compiled modules are touched by a swap.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use toml_edit::{DocumentMut, value};

use super::check::Silver;
use super::rules::Version;
use super::schema::Table;
use super::{Fault, Options};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Location;
use crate::pipeline::lake_options;

/// The module that the demo swaps, and what takes its place.
const CONTACTS: &str = "online_store_contacts.wasm";
const MASKED: &str = "online_store_contacts_masked.wasm";

/// The folder, set up.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) config: Config,
    /// root of the lake
    pub(super) lake: PathBuf,
    pub(super) tables: Vec<Silver>,
    /// Silver tables whose module is swapped, with the hash of the first
    pub(super) contacts: BTreeMap<String, String>,
    /// what takes its place, and its hash
    masked: Vec<u8>,
    pub(super) masked_hash: String,
    modules: PathBuf,
}

impl Stage {
    /// Sets the folder up anew.
    ///
    /// # Errors
    /// `Config` when the pipeline file or a module is missing or is none, `Internal` when the folder cannot be written.
    pub(super) fn set(options: &Options, broker: &str) -> Result<Stage> {
        let folder = std::path::absolute(&options.folder).map_err(|e| unwritable(&options.folder, e))?;
        let (file, lake, modules) = (folder.join("online_store.toml"), folder.join("lake"), folder.join("modules"));
        for old in [&lake, &modules] {
            match fs::remove_dir_all(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(old, error)),
                _ => {}
            }
        }
        fs::create_dir_all(&modules).map_err(|e| unwritable(&modules, e))?;

        let text = fs::read_to_string(&options.pipeline).map_err(|e| {
            Error::new(ErrorKind::Config, format!("cannot read pipeline file `{}`", options.pipeline.display()))
                .caused_by(e)
                .hint("start `lode demo` in a clone of the repository, or give the file by `--pipeline`")
        })?;
        let (text, names) = adapt(options, &text, broker)?;
        let mut hashes = BTreeMap::new();
        for name in names {
            let bytes = read_module(&options.modules, &name)?;
            replace(&modules, &name, &bytes)?;
            hashes.insert(name, hash(&bytes));
        }
        fs::write(&file, text).map_err(|e| unwritable(&file, e))?;
        let config = Config::load(&file)?;
        let masked = read_module(&options.modules, MASKED)?;
        let masked_hash = hash(&masked);

        let (mut tables, mut contacts) = (Vec::new(), BTreeMap::new());
        for source in Table::ALL {
            let section = config.silver.iter().find(|section| section.from == source.name());
            let name = section.map_or_else(|| source.name().to_owned(), |section| section.name.clone());
            let module = section.and_then(|section| section.transform.as_ref()?.path.file_name()?.to_str());
            let first = module.and_then(|module| hashes.get(module)).cloned();
            let mut versions: BTreeMap<String, Version> = first.iter().map(|h| (h.clone(), Version::First)).collect();
            if let (Some(CONTACTS), Some(first)) = (module, first) {
                versions.insert(masked_hash.clone(), Version::Masked);
                contacts.insert(name.clone(), first);
            }
            tables.push(Silver { source, name, modules: versions });
        }
        Ok(Stage { config, lake, tables, contacts, masked, masked_hash, modules })
    }

    /// The root of the lake.
    ///
    /// # Errors
    /// `Config` where it is none.
    pub(super) fn root(&self) -> Result<Location> {
        Location::open(&self.config.lake.root, &lake_options(&self.config)?)
    }

    /// Puts the masking module in the place of the one that serves contacts.
    ///
    /// # Errors
    /// `Internal` when the folder cannot be written.
    pub(super) fn swap(&self) -> Result<()> {
        replace(&self.modules, CONTACTS, &self.masked)
    }

    /// What to do in another terminal.
    pub(super) fn welcome(&self, options: &Options) -> String {
        let (tables, rate, lake) = (self.tables.len(), options.rate, self.lake.display());
        let (lode, file, modules) = (this_program(), self.config.file.display(), self.modules.display());
        let contacts = "SELECT \"Name\", \"Email\", \"PhoneNumber\" FROM silver.customers";
        let sales = "SELECT \"SellerName\", sum(\"Revenue\") AS revenue FROM gold.\"FactSales\" JOIN gold.\"DimSeller\" USING (\"SellerID\")";
        let next = match options.seconds {
            Some(seconds) => format!(
                "It ends on its own after {seconds} seconds: half way another module takes over customers and sellers,\n\
                 and at the end every table is compared with the store."
            ),
            None => format!(
                "To see a module swapped, edit transforms/online_store_contacts/src/lib.rs, which makes the e-mail\n\
                 addresses and telephone numbers of customers and sellers, and build it into the running demo:\n  \
                 make modules LODE_MODULES={modules}\n\nCtrl-C ends the demo."
            ),
        };
        format!(
            "The online store is open: {tables} tables and their star schema, {rate} changes a second, from an embedded broker\n\
             into Delta tables in {lake}\n\n\
             In another terminal:\n  \
             {lode} query {file} '{contacts} ORDER BY \"UpdatedAt\" DESC LIMIT 5'\n  \
             {lode} query {file} '{sales} GROUP BY 1 ORDER BY 2 DESC LIMIT 5'\n  \
             {lode} status {file}\n\n{next}\n"
        )
    }

    /// What stays when somebody ended the demo.
    pub(super) fn farewell(&self) -> String {
        format!(
            "The lake stays in {} until the next demo; `lode query` and any reader of Delta tables can read it.",
            self.lake.display()
        )
    }
}

fn this_program() -> String {
    std::env::current_exe().map_or_else(|_| "lode".to_owned(), |path| path.display().to_string())
}

/// The text of the pipeline file for this broker, and the names of the modules it asks for.
fn adapt(options: &Options, text: &str, broker: &str) -> Result<(String, Vec<String>)> {
    let broken =
        || Error::new(ErrorKind::Config, format!("pipeline file `{}` cannot be used", options.pipeline.display()));
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| broken().caused_by(e))?;
    document["source"]["kafka"]["brokers"] = value(broker);
    document["lake"]["root"] = value("lake");
    if options.fault == Some(Fault::CostOfToday)
        && let Some(then) = document["gold"]["FactSales"]["lookup"]["then"].as_table_like_mut()
    {
        then.remove("as_of");
        // what tells the check what a product did cost
        document["silver"]["products"]["changes"] = value(true);
    }
    let mut names = Vec::new();
    for layer in ["silver", "gold"] {
        let sections = document.get_mut(layer).and_then(|tables| tables.as_table_like_mut());
        for (_, section) in sections.into_iter().flat_map(|tables| tables.iter_mut()) {
            let Some(transform) = section.as_table_like_mut().and_then(|section| section.get_mut("transform")) else {
                continue;
            };
            let name = transform.as_str().and_then(|path| Path::new(path).file_name()?.to_str()).map(str::to_owned);
            let name = name.ok_or_else(broken)?;
            *transform = value(format!("modules/{name}"));
            names.push(name);
        }
    }
    Ok((document.to_string(), names))
}

fn read_module(folder: &Path, name: &str) -> Result<Vec<u8>> {
    fs::read(folder.join(name)).map_err(|e| {
        Error::new(ErrorKind::Config, format!("module `{}` cannot be read", folder.join(name).display()))
            .caused_by(e)
            .hint("`make modules` builds them; `--modules` says where they are")
    })
}

/// Written beside, then renamed: whoever watches the folder sees whole files only.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (new, file) = (folder.join(format!(".{name}.new")), folder.join(name));
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, &file)).map_err(|e| unwritable(&file, e))
}

fn unwritable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("`{}` cannot be written", path.display()))
        .caused_by(error)
        .hint("give another folder by `--folder`")
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
