//! Order items: `line_total` is quantity times unit price, exactly.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Item {
    qty: Option<i64>,
    unit_price: Option<Decimal<24, 2>>,
}

#[derive(Output, Debug, PartialEq)]
struct Line {
    line_total: Option<Decimal<24, 2>>,
}

#[transform(pass_rest)]
fn total(item: Item) -> Result<Line, &'static str> {
    let (Some(qty), Some(price)) = (item.qty, item.unit_price) else {
        return Ok(Line { line_total: None });
    };
    let total = price.checked_mul(qty).and_then(Decimal::checked);
    Ok(Line { line_total: Some(total.ok_or("line_total has more than 24 digits")?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_quantity_times_price() {
        let line = |qty, price: i128| total(Item { qty: Some(qty), unit_price: Some(Decimal(price)) });
        assert_eq!(line(3, 1_999), Ok(Line { line_total: Some(Decimal(5_997)) }));
        assert_eq!(line(-2, 1_999), Ok(Line { line_total: Some(Decimal(-3_998)) }));
        assert_eq!(line(i64::MAX, 999_999_999_999), Err("line_total has more than 24 digits"));
    }

    #[test]
    fn without_a_price_there_is_no_total() {
        assert_eq!(total(Item { qty: Some(1), unit_price: None }), Ok(Line { line_total: None }));
    }
}
