//! Gold tables that no Silver table drives: those of a query, and the calendar.

use std::time::Duration;

use chrono::{Datelike, NaiveDate};

use super::GoldRows;
use crate::config::reader::Section;
use crate::error::Result;

/// A query whose rows a Gold table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// DataFusion's dialect, over `silver.<table>` and `gold.<table>`
    pub sql: String,
    /// columns that identify a row
    pub key: Vec<String>,
    /// pause between two runs at least; a run happens only when a table that it reads has moved
    pub refresh: Duration,
}

/// The days that a calendar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    /// the first day
    pub from: NaiveDate,
    /// the last day
    pub to: NaiveDate,
}

pub(super) fn read_query(table: &Section<'_>, sql: String) -> Result<GoldRows> {
    table.allow(&["sql", "key", "refresh", "partition_by"])?;
    let key = table.required_strings("key")?;
    if key.is_empty() {
        return Err(table.error(Some("key"), "names no column").hint("name the columns that identify a row"));
    }
    let refresh = table.duration("refresh")?.unwrap_or(Duration::from_secs(60));
    Ok(GoldRows::Query(Query { sql, key, refresh }))
}

pub(super) fn read_calendar(table: &Section<'_>) -> Result<GoldRows> {
    table.allow(&["from", "calendar", "partition_by"])?;
    let section = table.required_section("calendar")?;
    section.allow(&["from", "to"])?;
    let day = |key: &str| {
        let text = section.required_string(key)?;
        let day = NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok().filter(|day| (1..=9999).contains(&day.year()));
        day.ok_or_else(|| {
            section.error(Some(key), &format!("`{text}` is no day")).hint("write it as in `from = \"2020-01-01\"`")
        })
    };
    let (from, to) = (day("from")?, day("to")?);
    if to < from {
        return Err(section.error(Some("to"), &format!("`{to}` is before `{from}`")).hint("name the last day in `to`"));
    }
    Ok(GoldRows::Calendar(Days { from, to }))
}
