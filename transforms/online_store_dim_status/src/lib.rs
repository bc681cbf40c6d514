//! DimOrderStatus: the name of an order's state.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Status<'a> {
    #[lode(name = "StatusName")]
    name: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Named {
    #[lode(name = "StatusName")]
    name: Option<String>,
}

#[transform(pass("StatusID"))]
fn name(row: Status) -> Named {
    Named { name: row.name.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_single_blanks_and_none_around_it() {
        let named = |text| name(Status { name: text }).name;
        assert_eq!(named(Some("  a \t b\n")).as_deref(), Some("a b"));
        assert_eq!(named(None), None);
    }
}
