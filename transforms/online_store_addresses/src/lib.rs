//! Addresses: `Purpose` names what the two flags of an address say together; the country is a code in capitals.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Address<'a> {
    #[lode(name = "Country")]
    country: Option<&'a str>,
    #[lode(name = "IsBillingAddress")]
    is_billing: Option<bool>,
    #[lode(name = "IsShippingAddress")]
    is_shipping: Option<bool>,
}

#[derive(Output, Debug, PartialEq)]
struct Filed {
    #[lode(name = "Country")]
    country: Option<String>,
    #[lode(name = "Purpose")]
    purpose: &'static str,
}

#[transform(pass_rest)]
fn file(address: Address) -> Filed {
    let purpose = match (address.is_billing.unwrap_or(false), address.is_shipping.unwrap_or(false)) {
        (true, true) => "both",
        (true, false) => "billing",
        (false, true) => "shipping",
        (false, false) => "none",
    };
    Filed { country: address.country.map(|country| country.trim().to_ascii_uppercase()), purpose }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_flags_are_one_purpose() {
        let purpose = |is_billing, is_shipping| file(Address { country: None, is_billing, is_shipping }).purpose;
        assert_eq!(purpose(Some(true), Some(true)), "both");
        assert_eq!(purpose(Some(true), Some(false)), "billing");
        assert_eq!(purpose(None, Some(true)), "shipping");
        assert_eq!(purpose(None, None), "none");
    }

    #[test]
    fn a_country_is_in_capitals() {
        let filed = file(Address { country: Some(" de "), is_billing: None, is_shipping: None });
        assert_eq!(filed.country.as_deref(), Some("DE"));
    }
}
