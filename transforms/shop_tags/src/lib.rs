//! Tags: of a row of customers, one row for each of its interests, and none where it has none.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Customer<'a> {
    interests: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Tag<'a> {
    interest: &'a str,
}

#[transform(pass("customer_id"), key("customer_id", "interest"))]
fn tags(customer: Customer<'_>) -> impl Iterator<Item = Tag<'_>> {
    let interests = customer.interests.unwrap_or_default().split(',');
    interests.filter(|interest| !interest.is_empty()).map(|interest| Tag { interest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interest_is_a_tag() {
        let found: Vec<_> = tags(Customer { interests: Some("books,garden") }).collect();
        assert_eq!(found, [Tag { interest: "books" }, Tag { interest: "garden" }]);
        assert_eq!(tags(Customer { interests: Some("") }).count(), 0);
        assert_eq!(tags(Customer { interests: None }).count(), 0);
    }
}
