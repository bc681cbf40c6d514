//! Orders: `OrderDateKey`, the day they were placed as the warehouse's date dimension counts days, and `OrderMonth` to
//! partition by. Both in UTC.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Order {
    #[lode(name = "CreatedAt")]
    created_at: Option<Timestamp>,
}

#[derive(Output, Debug, PartialEq)]
struct Dated {
    /// `20261124`
    #[lode(name = "OrderDateKey")]
    date_key: Option<i32>,
    /// `2026-11`
    #[lode(name = "OrderMonth")]
    month: Option<String>,
}

#[transform(pass_rest)]
fn date(order: Order) -> Dated {
    let Some(created_at) = order.created_at else { return Dated { date_key: None, month: None } };
    let (year, month, day) = created_at.date().year_month_day();
    Dated {
        date_key: i32::try_from(year * 10_000 + i64::from(month * 100 + day)).ok(),
        month: Some(format!("{year:04}-{month:02}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_its_day_and_its_month() {
        const LAST_MICROSECOND_OF_2025: Timestamp = Timestamp(1_767_225_600_000_000 - 1);
        let dated = date(Order { created_at: Some(LAST_MICROSECOND_OF_2025) });
        assert_eq!(dated, Dated { date_key: Some(20_251_231), month: Some("2025-12".into()) });
    }

    #[test]
    fn an_order_without_a_time_has_neither() {
        assert_eq!(date(Order { created_at: None }), Dated { date_key: None, month: None });
    }
}
