//! Whether the lake is what the store is.
//!
//! Receives the store as it stands and a lake that has taken in everything. Compares every Silver table row by row and
//! column by column with the store's own rows, each by the rules of the module that made it; Bronze with what was
//! appended; dead letters with the rows that a module must reject. Never writes to the lake.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::authors::{Authors, authors, texts};
use super::event::topic;
use super::gold;
use super::rules::{Texts, Version, expected};
use super::schema::Table;
use super::store::{Row, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::query::Lake;
use crate::lake::{DEAD_LETTERS, Location, SEQ};
use crate::model::positions::Offsets;

/// Differences of a table that are told in full.
const TOLD: usize = 3;

/// A Silver table of the demo.
#[derive(Debug)]
pub(super) struct Silver {
    pub(super) source: Table,
    /// its name in the lake
    pub(super) name: String,
    /// the modules that may have made its rows, by hash; none: a typed copy
    pub(super) modules: BTreeMap<String, Version>,
}

/// What the check found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    tables: Vec<Found>,
    gold: Vec<gold::Found>,
    bronze: i64,
    set_aside: usize,
    /// what is wrong beside the tables' rows
    wrong: Vec<String>,
}

/// What the check found of one table.
#[derive(Debug, Default)]
struct Found {
    name: String,
    rows: usize,
    missing: usize,
    too_many: usize,
    differ: usize,
    /// rows by the hash of the module that made them
    by_module: BTreeMap<String, usize>,
    /// some of what is wrong, in words
    told: Vec<String>,
}

/// Where the lake is.
pub(super) struct Place<'a> {
    pub(super) lake: &'a Lake,
    /// its root, a local folder
    pub(super) root: &'a Path,
    pub(super) location: &'a Location,
}

/// Compares the lake with `store`; `ends` is what was appended to the broker.
///
/// # Errors
/// `Corrupt` or `Unavailable` when the lake cannot be read. A lake that differs is a finding, not an error.
pub(super) async fn check(place: Place<'_>, store: &Store, tables: &[Silver], ends: &Offsets) -> Result<Findings> {
    let mut findings = Findings::default();
    for table in tables {
        findings.tables.push(check_table(&place, store, table).await?);
    }
    findings.gold = gold::check(place.lake, place.location).await?;
    check_bronze(&place, ends, &mut findings).await?;
    check_dead_letters(&place, store, &mut findings).await?;
    Ok(findings)
}

async fn check_table(place: &Place<'_>, store: &Store, table: &Silver) -> Result<Found> {
    let path = format!("silver/{}", table.name);
    let authors = match table.modules.is_empty() {
        true => Authors::new(),
        false => authors(&place.root.join(&path), table.source.key())?,
    };
    let mut found = Found { name: table.name.clone(), ..Found::default() };
    let mut seen = BTreeSet::new();
    for batch in place.lake.query_table(&path, &format!("SELECT * FROM \"{}\"", table.name)).await? {
        let (keys, sequences) = (texts(&batch, table.source.key())?, texts(&batch, SEQ)?);
        let schema = batch.schema();
        let names: Vec<&str> =
            schema.fields().iter().map(|f| f.name().as_str()).filter(|n| !n.starts_with('_')).collect();
        let mut rows = vec![Texts::new(); batch.num_rows()];
        for name in names {
            let nulls = batch.column_by_name(name).and_then(|column| column.logical_nulls());
            for (row, (text, values)) in texts(&batch, name)?.into_iter().zip(&mut rows).enumerate() {
                let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                values.insert(name.to_owned(), (!is_null).then_some(text));
            }
        }
        for ((key, sequence), got) in keys.into_iter().zip(sequences).zip(rows) {
            found.rows += 1;
            if !seen.insert(key.clone()) {
                found.too_many += 1;
                found.tell(|| format!("key {key} is there twice"));
                continue;
            }
            let version = match table.modules.is_empty() {
                true => Some(Version::First),
                false => found.version(table, authors.get(&(key.clone(), sequence)), &key),
            };
            let of_store = key.parse().ok().and_then(|key: i64| store.rows(table.source).get(&key));
            match version {
                Some(version) => found.compare(&key, of_store, version, &got),
                None => found.differ += 1,
            }
        }
    }
    for (key, row) in store.rows(table.source) {
        if expected(row, Version::First).is_some() && !seen.contains(&key.to_string()) {
            found.missing += 1;
            found.tell(|| format!("key {key} is missing"));
        }
    }
    Ok(found)
}

impl Found {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() < TOLD {
            self.told.push(what());
        }
    }

    /// By which version of the module a row was made.
    fn version(&mut self, table: &Silver, author: Option<&String>, key: &str) -> Option<Version> {
        let Some(hash) = author else {
            self.tell(|| format!("no commit added the row of key {key}"));
            return None;
        };
        *self.by_module.entry(hash.clone()).or_default() += 1;
        let version = table.modules.get(hash).copied();
        if version.is_none() {
            self.tell(|| format!("key {key} was made by the module `{hash}`, which never served"));
        }
        version
    }

    fn compare(&mut self, key: &str, of_store: Option<&Row>, version: Version, got: &Texts) {
        let Some(wanted) = of_store.and_then(|row| expected(row, version)) else {
            self.too_many += 1;
            self.tell(|| format!("key {key} is no row of the store"));
            return;
        };
        if *got == wanted {
            return;
        }
        self.differ += 1;
        self.tell(|| {
            let names: BTreeSet<&String> = wanted.keys().chain(got.keys()).collect();
            let column = names.into_iter().find(|name| wanted.get(*name) != got.get(*name));
            let shown = |texts: &Texts, name: &String| match texts.get(name) {
                None => "no such column".to_owned(),
                Some(None) => "null".to_owned(),
                Some(Some(text)) => format!("`{text}`"),
            };
            let told = column.map(|name| format!("{name} is {}, not {}", shown(got, name), shown(&wanted, name)));
            format!("key {key}: {}", told.unwrap_or_default())
        });
    }

    fn is_exact(&self) -> bool {
        self.missing + self.too_many + self.differ == 0
    }
}

async fn check_bronze(place: &Place<'_>, ends: &Offsets, findings: &mut Findings) -> Result<()> {
    let mut appended: BTreeMap<&str, i64> = BTreeMap::new();
    for (id, end) in ends {
        *appended.entry(&id.topic).or_default() += end;
    }
    for (topic, wanted) in appended {
        let places = format!("SELECT count(*) AS n FROM \"{topic}\" GROUP BY _partition, _offset");
        let sql = format!("SELECT sum(n) AS n, count(*) AS d FROM ({places})");
        let (mut rows, mut distinct) = (0, 0);
        for batch in place.lake.query_table(&format!("bronze/{topic}"), &sql).await? {
            let sum =
                |column| texts(&batch, column).map(|n| n.iter().filter_map(|n| n.parse::<i64>().ok()).sum::<i64>());
            rows += sum("n")?;
            distinct += sum("d")?;
        }
        if (rows, distinct) != (wanted, wanted) {
            findings.wrong.push(format!("bronze `{topic}` has {rows} records, {distinct} distinct, of {wanted}"));
        }
        findings.bronze += rows;
    }
    Ok(())
}

/// Every review whose rating is none is set aside, and nothing else is.
async fn check_dead_letters(place: &Place<'_>, store: &Store, findings: &mut Findings) -> Result<()> {
    let mut set_aside: BTreeSet<i64> = BTreeSet::new();
    let reviews = topic(Table::Reviews);
    if place.lake.has_table(DEAD_LETTERS).await? {
        let sql = format!(
            "SELECT d.topic AS topic, b._key AS k FROM {} d LEFT JOIN bronze.\"{reviews}\" b \
             ON d.topic = '{reviews}' AND d.\"partition\" = b._partition AND d.\"offset\" = b._offset",
            DEAD_LETTERS
        );
        for batch in place.lake.query(&sql).await? {
            for (topic, key) in texts(&batch, "topic")?.into_iter().zip(texts(&batch, "k")?) {
                let key = serde_json::from_str::<serde_json::Value>(&key).ok();
                match key.and_then(|key| key[Table::Reviews.key()].as_i64()) {
                    Some(key) => drop(set_aside.insert(key)),
                    None => findings.wrong.push(format!("a record of `{topic}` is set aside")),
                }
            }
        }
    }
    for key in set_aside.iter().filter(|key| !store.misrated().contains(key)) {
        findings.wrong.push(format!("review {key} is set aside, and its rating was always one"));
    }
    let rejected = store.rows(Table::Reviews).values().filter(|row| expected(row, Version::First).is_none());
    for key in rejected.map(Row::key).filter(|key| !set_aside.contains(key)) {
        findings.wrong.push(format!("review {key} is not set aside, and its rating is none"));
    }
    findings.set_aside = set_aside.len();
    Ok(())
}

impl Findings {
    /// Nothing differs.
    ///
    /// # Errors
    /// `Corrupt`, with how much differs.
    pub(super) fn verdict(&self) -> Result<()> {
        let differing = self.tables.iter().filter(|table| !table.is_exact()).count();
        let star = self.gold.iter().filter(|table| table.differ > 0).count();
        if differing + star + self.wrong.len() == 0 {
            return Ok(());
        }
        let of = self.tables.len();
        let message = format!(
            "the check failed: {differing} of {of} tables differ from the store, {star} of Gold from what Silver gives, {} other findings",
            self.wrong.len()
        );
        Err(Error::new(ErrorKind::Corrupt, message)
            .hint("the lines above say which rows; the lake stays for inspection"))
    }

    /// A short table of everything.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<18} {:>7} {:>7} {:>7} {:>8}  rows by module\n",
            "silver", "rows", "differ", "missing", "too many"
        );
        for table in &self.tables {
            let by = table.by_module.iter().map(|(hash, rows)| format!("{} {rows}", hash.get(..8).unwrap_or(hash)));
            let _ = writeln!(
                text,
                "{:<18} {:>7} {:>7} {:>7} {:>8}  {}",
                table.name,
                table.rows,
                table.differ,
                table.missing,
                table.too_many,
                by.collect::<Vec<_>>().join(", ")
            );
            for told in &table.told {
                let _ = writeln!(text, "  {}: {told}", table.name);
            }
        }
        let _ = writeln!(text, "{:<18} {:>7} {:>7}  made of these versions", "gold", "rows", "differ");
        for gold::Found { name, rows, differ, inputs, told } in &self.gold {
            let _ = writeln!(text, "{name:<18} {rows:>7} {differ:>7}  {inputs}");
            for told in told {
                let _ = writeln!(text, "  {name}: {told}");
            }
        }
        let _ = writeln!(
            text,
            "bronze has {} records, each once; {} reviews are set aside, for their rating is none",
            self.bronze, self.set_aside
        );
        for wrong in &self.wrong {
            let _ = writeln!(text, "  {wrong}");
        }
        text
    }

    /// Gold tables and their rows compared.
    pub(super) fn star(&self) -> (usize, usize) {
        (self.gold.len(), self.gold.iter().map(|table| table.rows).sum())
    }

    /// Silver tables and their rows compared.
    pub(super) fn extent(&self) -> (usize, usize) {
        (self.tables.len(), self.tables.iter().map(|table| table.rows).sum())
    }
}
