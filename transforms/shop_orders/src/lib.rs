//! Orders: the month of `placed_at` to partition by; pending ones are on hold and left out until their status changes.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Order<'a> {
    status: Option<&'a str>,
    placed_at: Option<DateTime>,
}

#[derive(Output, Debug, PartialEq)]
struct Placed {
    order_month: Option<String>,
}

#[transform(pass_rest)]
fn place(order: Order) -> Option<Placed> {
    if order.status == Some("pending") {
        return None;
    }
    Some(Placed { order_month: order.placed_at.map(month) })
}

/// `2026-11`.
fn month(at: DateTime) -> String {
    let (year, month, _) = at.date().year_month_day();
    format!("{year:04}-{month:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST_MICROSECOND_OF_2025: DateTime = DateTime(1_767_225_600_000_000 - 1);

    #[test]
    fn an_order_is_filed_under_its_month() {
        let placed = place(Order { status: Some("paid"), placed_at: Some(LAST_MICROSECOND_OF_2025) });
        assert_eq!(placed, Some(Placed { order_month: Some("2025-12".into()) }));
        assert_eq!(place(Order { status: None, placed_at: None }), Some(Placed { order_month: None }));
    }

    #[test]
    fn a_pending_order_is_on_hold() {
        assert_eq!(place(Order { status: Some("pending"), placed_at: Some(DateTime(0)) }), None);
    }
}
