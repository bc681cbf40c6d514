//! DimSeller: a seller's name.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Seller<'a> {
    #[lode(name = "Name")]
    name: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Named {
    #[lode(name = "SellerName")]
    name: Option<String>,
}

#[transform(pass("SellerID"))]
fn name(row: Seller) -> Named {
    Named { name: row.name.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_single_blanks_and_none_around_it() {
        let named = |text| name(Seller { name: text }).name;
        assert_eq!(named(Some("  a \t b\n")).as_deref(), Some("a b"));
        assert_eq!(named(None), None);
    }
}
