//! The sections `[gold.<table>]`.
//!
//! What can be told from the file alone is checked here: names, forms, and that lookups lead to each other without a
//! circle. Whether the columns are there, only the lake knows.

mod whole;

pub use whole::{Days, Query};

use std::path::Path;

use serde::Serialize;

use super::reader::{Section, nearest};
use super::transform::{self, Transform};
use super::{Config, is_identifier};
use crate::error::{Error, Result};

/// A Gold table.
#[derive(Debug, Clone, PartialEq)]
pub struct Gold {
    /// the table's name in the lake
    pub name: String,
    /// what its rows are made of
    pub rows: GoldRows,
    /// partition columns
    pub partition_by: Vec<String>,
}

/// What the rows of a Gold table are made of.
#[derive(Debug, Clone, PartialEq)]
pub enum GoldRows {
    /// of each row of a Silver table, with rows of others that it leads to
    Joined(Joined),
    /// of a query
    Query(Query),
    /// a row a day
    Calendar(Days),
}

/// A Silver table that drives a Gold table, and what is looked up for its rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Joined {
    /// the driving Silver table: one owner a row of it
    pub from: String,
    /// what is looked up, each after those that it goes through
    pub lookups: Vec<Lookup>,
    /// the module that makes its rows; `None`: the columns of `select`
    #[serde(skip)]
    pub transform: Option<Transform>,
    /// without a module: the columns, `column` of the driving table or `alias.column`; empty: those of the driving table
    pub select: Vec<Choice>,
}

/// A Silver table in which rows are found for those of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lookup {
    /// its name in `select`, in the module, and for lookups that go through it
    pub alias: String,
    /// the Silver table
    pub table: String,
    /// where the values to look for stand
    pub on: Vec<Place>,
    /// the columns to look in; `None`: the table's key
    pub by: Option<Vec<String>>,
    /// of several rows with the same values, which one
    pub pick: Option<Pick>,
    /// of the versions of a row, the one in force at the time in this column
    pub as_of: Option<Place>,
    /// no output row where nothing is found
    pub required: bool,
}

/// A column of the driving table (`table` is `None`) or of a lookup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// alias of the lookup
    pub table: Option<String>,
    /// the column's name
    pub column: String,
}

/// A column of a table without a module: `column`, `alias.column`, or one of them with `AS name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// where its values stand
    pub from: Place,
    /// its name in the table; `None`: that of the column
    pub name: Option<String>,
}

/// Which of several rows is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Pick {
    /// the one that was changed last, in the source's order
    Latest,
    /// the one with the greatest value of a column
    Greatest(String),
}

impl Config {
    /// True where the Silver table has a feed of changes: its section asks for one, or a Gold table for versions of its rows.
    pub fn feeds(&self, silver: &str) -> bool {
        let asks = |gold: &Gold| match &gold.rows {
            GoldRows::Joined(joined) => joined.lookups.iter().any(|l| l.table == silver && l.as_of.is_some()),
            GoldRows::Query(_) | GoldRows::Calendar(_) => false,
        };
        self.silver.iter().any(|table| table.name == silver && table.changes) || self.gold.iter().any(asks)
    }
}

impl Joined {
    /// What derives the rows, as text: with a module of this hash and these params, where there is one. Two that are the same
    /// give the same rows.
    pub fn made_by(&self, module: Option<(String, &serde_json::Value)>) -> String {
        serde_json::json!({"section": self, "module": module}).to_string()
    }
}

impl Choice {
    fn of(table: &Section<'_>, text: &str) -> Result<Choice> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (from, name) = match words.as_slice() {
            [from] => (*from, None),
            [from, word, name] if word.eq_ignore_ascii_case("as") && is_identifier(name) => (*from, Some(*name)),
            _ => {
                return Err(table
                    .error(Some("select"), &format!("`{text}` is no column"))
                    .hint("write `column`, `lookup.column`, or one of them with `AS name`"));
            }
        };
        Ok(Choice { from: Place::of(from), name: name.map(str::to_owned) })
    }
}

impl Place {
    fn of(text: &str) -> Place {
        match text.split_once('.') {
            Some((table, column)) => Place { table: Some(table.to_owned()), column: column.to_owned() },
            None => Place { table: None, column: text.to_owned() },
        }
    }
}

pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    silver: impl Fn(&str) -> Result<(), Option<String>>,
) -> Result<Vec<Gold>> {
    let Some(tables) = root.section("gold")? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for name in tables.keys() {
        let table = tables.required_section(&name)?;
        if !is_identifier(&name) {
            return Err(table
                .error(None, &format!("`{name}` cannot be a table name"))
                .hint("use letters, digits and `_`, at most 128 characters"));
        }
        let rows = match (table.string("sql")?, table.string("from")?) {
            (Some(sql), None) => whole::read_query(&table, sql)?,
            (None, Some(from))
                if from == "calendar" && (table.section("calendar")?.is_some() || silver(&from).is_err()) =>
            {
                whole::read_calendar(&table)?
            }
            (None, Some(from)) => read_joined(&table, base, from, &silver)?,
            (Some(_), Some(_)) => return Err(table.error(None, "has both `sql` and `from`; a table has one of them")),
            (None, None) => {
                return Err(table
                    .error(None, "says neither `from` nor `sql`")
                    .hint("`from` names the Silver table that drives it, `sql` a query"));
            }
        };
        out.push(Gold { rows, partition_by: table.strings("partition_by")?.unwrap_or_default(), name });
    }
    Ok(out)
}

fn read_joined(
    table: &Section<'_>,
    base: &Path,
    from: String,
    silver: &impl Fn(&str) -> Result<(), Option<String>>,
) -> Result<GoldRows> {
    let own = ["from", "lookup", "select", "partition_by"];
    table.allow(&[own.as_slice(), transform::KEYS.as_slice()].concat())?;
    let unknown = |section: &Section<'_>, key: &str, name: &str| match silver(name) {
        Ok(()) => Ok(()),
        Err(near) => {
            let error = section.error(Some(key), &format!("`{name}` is no Silver table of the pipeline"));
            Err(match near {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("add a section `[silver.{name}]`")),
            })
        }
    };
    unknown(table, "from", &from)?;
    let mut lookups = Vec::new();
    if let Some(sections) = table.section("lookup")? {
        for alias in sections.keys() {
            let section = sections.required_section(&alias)?;
            let lookup = read_lookup(&section, alias)?;
            unknown(&section, "table", &lookup.table)?;
            lookups.push(lookup);
        }
        lookups = in_order(&sections, lookups)?;
    }
    let select: Vec<Choice> = table
        .strings("select")?
        .unwrap_or_default()
        .iter()
        .map(|text| Choice::of(table, text))
        .collect::<Result<_>>()?;
    let transform = transform::read(table, base)?;
    if transform.is_some() && !select.is_empty() {
        return Err(table
            .error(Some("select"), "stands beside `transform`: a module says its columns itself")
            .hint("leave one of the two out"));
    }
    for choice in &select {
        known_alias(table, "select", &lookups, &choice.from)?;
    }
    Ok(GoldRows::Joined(Joined { from, lookups, transform, select }))
}

fn read_lookup(section: &Section<'_>, alias: String) -> Result<Lookup> {
    section.allow(&["table", "on", "by", "pick", "order_by", "as_of", "required"])?;
    if !is_identifier(&alias) {
        return Err(section.error(None, &format!("`{alias}` cannot be the name of a lookup")));
    }
    let on: Vec<Place> = section.required_strings("on")?.iter().map(|text| Place::of(text)).collect();
    let by = section.strings("by")?;
    if on.is_empty() || by.as_ref().is_some_and(|by| by.len() != on.len()) {
        return Err(section
            .error(Some("on"), "must name as many columns as are looked in")
            .hint("`by` names the columns to look in; without it they are the table's key"));
    }
    let order_by = section.string("order_by")?;
    let pick = section.one_of("pick", &["latest"])?;
    if pick.is_none() && order_by.is_some() {
        return Err(section.error(Some("order_by"), "orders nothing without `pick`").hint("add `pick = \"latest\"`"));
    }
    if pick.is_some() && by.is_none() {
        return Err(section
            .error(Some("pick"), "picks among several rows, but a key finds one at most")
            .hint("name the columns to look in with `by`, or leave `pick` out"));
    }
    let as_of = section.string("as_of")?.map(|text| Place::of(&text));
    if as_of.is_some() && by.is_some() {
        return Err(section
            .error(Some("as_of"), "stands beside `by`: a row has versions by its key")
            .hint("leave one of the two out"));
    }
    Ok(Lookup {
        as_of,
        table: section.string("table")?.unwrap_or_else(|| alias.clone()),
        on,
        by,
        pick: pick.map(|_| order_by.map_or(Pick::Latest, Pick::Greatest)),
        required: section.flag("required")?.unwrap_or(false),
        alias,
    })
}

/// Each lookup after those that it goes through.
fn in_order(sections: &Section<'_>, mut left: Vec<Lookup>) -> Result<Vec<Lookup>> {
    let all = left.clone();
    for lookup in &all {
        let section = sections.required_section(&lookup.alias)?;
        lookup.on.iter().try_for_each(|place| known_alias(&section, "on", &all, place))?;
        lookup.as_of.iter().try_for_each(|place| known_alias(&section, "as_of", &all, place))?;
    }
    let mut ordered: Vec<Lookup> = Vec::new();
    while !left.is_empty() {
        let is_done = |alias: &String| ordered.iter().any(|done| done.alias == *alias);
        let is_ready = |lookup: &Lookup| {
            lookup.on.iter().chain(&lookup.as_of).filter_map(|place| place.table.as_ref()).all(is_done)
        };
        let (ready, waiting): (Vec<_>, Vec<_>) = left.into_iter().partition(is_ready);
        if ready.is_empty() {
            let names: Vec<String> = waiting.iter().map(|lookup| format!("`{}`", lookup.alias)).collect();
            let first = waiting.first().map(|lookup| lookup.alias.as_str());
            return Err(sections
                .error(first, &format!("goes in a circle: {} lead to each other", names.join(", ")))
                .hint("`on` of one of them must name a column of the driving table"));
        }
        ordered.extend(ready);
        left = waiting;
    }
    Ok(ordered)
}

fn known_alias(section: &Section<'_>, key: &str, lookups: &[Lookup], place: &Place) -> Result<()> {
    let Some(table) = &place.table else { return Ok(()) };
    if lookups.iter().any(|lookup| lookup.alias == *table) {
        return Ok(());
    }
    let error: Error = section.error(Some(key), &format!("`{table}.{}` names no lookup", place.column));
    Err(match nearest(table, lookups.iter().map(|lookup| lookup.alias.as_str())) {
        Some(near) => error.hint(format!("did you mean `{near}.{}`?", place.column)),
        None => error.hint(format!("add `lookup.{table} = {{ on = … }}`")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const FILE: &str = "name = \"x\"\n[source.kafka]\nbrokers = \"b:1\"\ntopics = \"x.*\"\n[lake]\nroot = \"lake\"\n[silver.orders]\n[silver.items]\n[silver.products]\n";

    fn parse(gold: &str) -> Result<Vec<Gold>> {
        Config::parse(Path::new("p.toml"), &format!("{FILE}{gold}")).map(|config| config.gold)
    }

    fn message(gold: &str) -> String {
        let error = parse(gold).expect_err("must be refused");
        format!("{error} | {}", error.next_step().unwrap_or(""))
    }

    #[test]
    fn lookups_come_after_those_that_they_go_through() {
        let text = "[gold.facts]\nfrom = \"items\"\nselect = [\"ItemID\", \"buyer.Name\"]\nlookup.buyer = { table = \"products\", on = \"orders.CustomerID\" }\nlookup.orders = { on = \"OrderID\", required = true }\n";
        let gold = parse(text).unwrap();
        let GoldRows::Joined(joined) = &gold[0].rows else { panic!("{gold:?}") };
        let names: Vec<_> = joined.lookups.iter().map(|l| (l.alias.as_str(), l.table.as_str(), l.required)).collect();
        assert_eq!(names, [("orders", "orders", true), ("buyer", "products", false)]);
        assert_eq!(joined.lookups[1].on, [Place { table: Some("orders".into()), column: "CustomerID".into() }]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_the_nearest() {
        for (text, what, hint) in [
            ("[gold.f]\n", "neither `from` nor `sql`", "query"),
            ("[gold.f]\nfrom = \"order\"\n", "`order` is no Silver table", "`orders`"),
            ("[gold.f]\nfrom = \"items\"\nlookup.x = { on = \"a\" }\n", "`x` is no Silver table", "[silver.x]"),
            ("[gold.f]\nfrom = \"items\"\nlookup.orders = { on = \"product.id\" }\n", "names no lookup", "add `lookup"),
            (
                "[gold.f]\nfrom = \"items\"\nselect = \"order.a\"\nlookup.orders = { on = \"a\" }\n",
                "names no lookup",
                "`orders.a`",
            ),
            (
                "[gold.f]\nfrom = \"items\"\nlookup.orders = { on = \"a\", pick = \"latest\" }\n",
                "finds one at most",
                "`by`",
            ),
            (
                "[gold.f]\nfrom = \"items\"\nlookup.orders = { on = \"a\", order_by = \"b\" }\n",
                "orders nothing",
                "`pick",
            ),
            (
                "[gold.f]\nfrom = \"items\"\nlookup.orders = { on = [\"a\", \"b\"], by = \"c\" }\n",
                "as many columns",
                "`by`",
            ),
            (
                "[gold.f]\nfrom = \"items\"\nlookup.orders = { on = \"products.a\" }\nlookup.products = { on = \"orders.a\" }\n",
                "in a circle: `orders`, `products`",
                "driving",
            ),
            ("[gold.f]\nfrom = \"items\"\nselect = \"a b\"\n", "`a b` is no column", "AS name"),
            ("[gold.f]\nsql = \"SELECT 1\"\n", "lacks `gold.f.key`", ""),
            ("[gold.f]\nsql = \"SELECT 1\"\nkey = \"a\"\nselect = \"b\"\n", "`gold.f.select` is not a known key", ""),
        ] {
            let told = message(text);
            let (said, hinted) = told.split_once(" | ").unwrap();
            assert!(said.contains(what) && hinted.contains(hint), "{text}: {told}");
        }
    }
}
