//! The tables as text for a terminal: no line is longer than 100 columns, however long names and numbers are.

use std::fmt::Write as _;

use super::{TableStatus, rows};

/// Columns of a name.
const NAME: usize = 34;
/// Columns of a Kafka partition.
const PLACE: usize = 48;
/// Partitions that are listed, those with the greatest lag first.
const LISTED: usize = 20;

/// A line a table, then the partitions that lag.
pub(super) fn tables(tables: &[TableStatus]) -> String {
    let width = tables.iter().map(|t| t.table.chars().count()).max().unwrap_or(0).clamp("table".len(), NAME);
    let mut text = String::new();
    let mut line = |cells: [&str; 8]| {
        let [name, version, files, size, records, lag, letters, module] = cells;
        let numbers = format!("{version:>8} {files:>6} {size:>9} {records:>12} {lag:>9} {letters:>7}");
        let _ = writeln!(text, "{:<width$} {numbers} {module}", cut(name, width));
    };
    line(["table", "version", "files", "size", "records", "lag", "letters", "module"]);
    for t in tables {
        line([
            &t.table,
            &number(t.version, 8),
            &number(t.files as u64, 6),
            &size(t.bytes),
            &number(rows(&t.positions).map(|(_, next)| next.unsigned_abs()).sum(), 12),
            &t.behind.map_or_else(|| "-".to_owned(), |lag| number(lag.unsigned_abs(), 9)),
            &number(t.dead_letters, 7),
            t.module.as_deref().map_or("-", |sha256| sha256.get(..8).unwrap_or(sha256)),
        ]);
    }
    text + &partitions(tables)
}

fn partitions(tables: &[TableStatus]) -> String {
    let lags = tables.iter().flat_map(|t| t.lag.iter().flatten().map(move |(place, lag)| (*lag, &t.table, place)));
    let mut behind: Vec<_> = lags.filter(|(lag, ..)| *lag > 0).collect();
    behind.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
    let mut text = String::new();
    if !behind.is_empty() {
        let _ = writeln!(text, "\n{:<NAME$} {:<PLACE$} {:>12}", "behind", "partition", "records");
    }
    for (lag, table, place) in behind.iter().take(LISTED) {
        let (table, place) = (cut(table, NAME), cut(place, PLACE));
        let _ = writeln!(text, "{table:<NAME$} {place:<PLACE$} {:>12}", number(lag.unsigned_abs(), 12));
    }
    if let Some(more) = behind.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = writeln!(text, "and {more} partitions more; `--json` lists them all");
    }
    text
}

/// At most `width` characters of the name: its beginning, which tells the layer, and its end, which tells the table.
fn cut(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.to_owned();
    }
    let head = width / 3;
    let tail = width.saturating_sub(head + 1);
    name.chars().take(head).chain(['…']).chain(name.chars().skip(length - tail)).collect()
}

/// The number in full where it fits, else its thousands, millions and so on.
fn number(n: u64, width: usize) -> String {
    let units = ["", "k", "M", "G", "T", "P"];
    let scaled = units.iter().zip(0..).map(|(unit, power)| format!("{}{unit}", n / 1000_u64.pow(power)));
    scaled.into_iter().find(|text| text.len() <= width).unwrap_or_else(|| "many".to_owned())
}

fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut size = bytes as f64;
    let mut name = "B";
    for unit in units {
        if size < 1000.0 {
            break;
        }
        (size, name) = (size / 1024.0, unit);
    }
    if name == "B" { format!("{bytes} B") } else { format!("{size:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn status(name: &str, big: u64) -> TableStatus {
        let place = |partition: i64| (format!("{name}/{partition}"), big as i64 / 100);
        let lag: BTreeMap<String, i64> = (0..30).map(place).collect();
        TableStatus {
            table: name.to_owned(),
            version: big,
            files: big as usize,
            bytes: big,
            positions: lag.clone(),
            behind: Some(lag.values().sum()),
            lag: Some(lag),
            module: Some("0123456789abcdef".repeat(4)),
            dead_letters: big,
            refused: None,
            retrying: None,
            stopped: None,
        }
    }

    #[test]
    fn no_line_is_longer_than_a_terminal_is_wide() {
        let long = format!("bronze.{}", "schéma.table_".repeat(20));
        for big in [0, 1 << 20, 1 << 40, i64::MAX as u64] {
            let text = tables(&[status("silver.a", big), status(&long, big)]);
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
            }
        }
    }

    #[test]
    fn a_name_is_cut_where_it_says_least() {
        let name = "bronze.online_store.online_store.OrderItems";
        assert_eq!(cut(name, 34), "bronze.onli…nline_store.OrderItems");
        assert_eq!(cut(name, 34).chars().count(), 34);
        assert_eq!(cut("silver.orders", 34), "silver.orders");
    }

    #[test]
    fn numbers_are_whole_as_long_as_they_fit() {
        assert_eq!([number(999_999, 6), number(1_000_000, 6), number(u64::MAX, 6)], ["999999", "1000k", "18446P"]);
        assert_eq!([size(0), size(999), size(1_500_000), size(u64::MAX)], ["0 B", "999 B", "1.4 MiB", "16.0 EiB"]);
    }

    #[test]
    fn the_partitions_that_lag_most_are_listed() {
        let mut orders = status("silver.orders", 300);
        orders.lag = Some(BTreeMap::from([("t/0".to_owned(), 0), ("t/1".to_owned(), 5), ("t/2".to_owned(), 7)]));
        let text = tables(&[orders]);
        let listed: Vec<Vec<&str>> = text.lines().skip(4).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(listed, [["silver.orders", "t/2", "7"], ["silver.orders", "t/1", "5"]]);
    }
}
