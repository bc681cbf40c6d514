//! Products: names without surplus white space, and `Margin`, price minus cost, exactly.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Product<'a> {
    #[lode(name = "Name")]
    name: Option<&'a str>,
    #[lode(name = "Price")]
    price: Option<Decimal<12, 2>>,
    #[lode(name = "Cost")]
    cost: Option<Decimal<12, 2>>,
}

#[derive(Output, Debug, PartialEq)]
struct Priced {
    #[lode(name = "Name")]
    name: Option<String>,
    /// one digit more than price and cost have, so that no difference is too large
    #[lode(name = "Margin")]
    margin: Option<Decimal<13, 2>>,
}

#[transform(pass_rest)]
fn price(product: Product) -> Priced {
    Priced {
        name: product.name.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" ")),
        margin: product.price.zip(product.cost).map(|(price, cost)| Decimal(price.0 - cost.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_is_price_minus_cost() {
        let margin = |price: Option<i128>, cost: Option<i128>| {
            super::price(Product { name: None, price: price.map(Decimal), cost: cost.map(Decimal) }).margin
        };
        assert_eq!(margin(Some(1_999), Some(1_250)), Some(Decimal(749)));
        assert_eq!(margin(Some(-999_999_999_999), Some(999_999_999_999)), Some(Decimal(-1_999_999_999_998)));
        assert_eq!(margin(Some(1_999), None), None);
        assert_eq!(margin(None, Some(1_250)), None);
    }

    #[test]
    fn a_name_has_single_spaces() {
        let priced = price(Product { name: Some("  Garden \t chair\n"), price: None, cost: None });
        assert_eq!(priced.name.as_deref(), Some("Garden chair"));
    }
}
