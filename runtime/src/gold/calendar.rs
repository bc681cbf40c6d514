//! The days of a calendar, one a row.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int8Array, Int16Array, Int32Array, RecordBatch};
use chrono::{Datelike, NaiveDate};

use crate::error::{Error, ErrorKind, Result};

/// The column that names a day.
pub const KEY: &str = "DateKey";

/// A row for each day from `from` to `to`: `DateKey` (yyyymmdd), `Date`, `Day`, `Month`, `Quarter`, `Year`, and `DayOfWeek`
/// by ISO 8601, Monday 1.
///
/// # Errors
/// `Internal` where the columns do not fit together.
pub fn days(from: NaiveDate, to: NaiveDate) -> Result<RecordBatch> {
    let days: Vec<NaiveDate> = from.iter_days().take_while(|day| *day <= to).collect();
    let epoch = NaiveDate::default();
    let small = |of: fn(&NaiveDate) -> u32| -> ArrayRef {
        Arc::new(Int8Array::from_iter_values(days.iter().map(|day| of(day) as i8)))
    };
    let key = days.iter().map(|day| day.year() * 10_000 + (day.month() * 100 + day.day()) as i32);
    let since = days.iter().map(|day| day.signed_duration_since(epoch).num_days() as i32);
    let columns: [(&str, ArrayRef); 7] = [
        (KEY, Arc::new(Int32Array::from_iter_values(key))),
        ("Date", Arc::new(Date32Array::from_iter_values(since))),
        ("Day", small(|day| day.day())),
        ("Month", small(|day| day.month())),
        ("Quarter", small(|day| day.month0() / 3 + 1)),
        ("Year", Arc::new(Int16Array::from_iter_values(days.iter().map(|day| day.year() as i16)))),
        ("DayOfWeek", small(|day| day.weekday().number_from_monday())),
    ];
    RecordBatch::try_from_iter(columns)
        .map_err(|e| Error::new(ErrorKind::Internal, "the days of a calendar do not fit together").caused_by(e))
}

#[cfg(test)]
mod tests {
    use arrow::util::display::array_value_to_string;

    use super::*;

    fn told(rows: &RecordBatch, row: usize) -> String {
        let cells = rows.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
        cells.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_day_is_there_once_with_its_parts() {
        let day = |text| NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap();
        let rows = days(day("1969-12-28"), day("2024-03-01")).unwrap();
        assert_eq!(rows.num_rows(), 19_788);
        assert_eq!(told(&rows, 0), "19691228 1969-12-28 28 12 4 1969 7");
        assert_eq!(told(&rows, 4), "19700101 1970-01-01 1 1 1 1970 4");
        assert_eq!(told(&rows, 19_786), "20240229 2024-02-29 29 2 1 2024 4");
        let one = days(day("2020-06-15"), day("2020-06-15")).unwrap();
        assert_eq!((one.num_rows(), told(&one, 0).as_str()), (1, "20200615 2020-06-15 15 6 2 2020 1"));
    }
}
