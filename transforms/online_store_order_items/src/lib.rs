//! Order items: `LineTotal` is quantity times the price at the time of the order, exactly.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Item {
    #[lode(name = "Quantity")]
    quantity: Option<i32>,
    #[lode(name = "CurrentPrice")]
    price: Option<Decimal<12, 2>>,
}

#[derive(Output, Debug, PartialEq)]
struct Line {
    /// the ten digits of a quantity and the twelve of a price: no product has more
    #[lode(name = "LineTotal")]
    total: Option<Decimal<22, 2>>,
}

#[transform(pass_rest)]
fn total(item: Item) -> Line {
    let factors = item.quantity.zip(item.price);
    Line { total: factors.and_then(|(quantity, price)| price.checked_mul(quantity.into())).map(Decimal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_quantity_times_price() {
        let line = |quantity, price: i128| total(Item { quantity: Some(quantity), price: Some(Decimal(price)) }).total;
        assert_eq!(line(3, 1_999), Some(Decimal(5_997)));
        assert_eq!(line(-2, 1_999), Some(Decimal(-3_998)));
        let largest = line(i32::MIN, 999_999_999_999).expect("a product");
        assert_eq!(Decimal::<22, 2>::checked(largest.0), Some(largest));
    }

    #[test]
    fn without_a_price_there_is_no_total() {
        assert_eq!(total(Item { quantity: Some(1), price: None }), Line { total: None });
    }
}
