//! DimProduct: a product's name, its category and its seller.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Product<'a> {
    #[lode(name = "Name")]
    name: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Named {
    #[lode(name = "ProductName")]
    name: Option<String>,
}

#[transform(pass("ProductID", "CategoryID", "SellerID"))]
fn name(row: Product) -> Named {
    Named { name: row.name.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_single_blanks_and_none_around_it() {
        let named = |text| name(Product { name: text }).name;
        assert_eq!(named(Some("  a \t b\n")).as_deref(), Some("a b"));
        assert_eq!(named(None), None);
    }
}
