//! Customers: the e-mail masked, the telephone number in one form, everything else as it is.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Customer<'a> {
    email: Option<&'a str>,
    phone: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Masked {
    email: Option<String>,
    phone: Option<String>,
}

#[transform(pass_rest)]
fn mask(customer: Customer) -> Masked {
    Masked { email: customer.email.map(mask_email), phone: customer.phone.and_then(plain_phone) }
}

/// `maria@example.com` becomes `m***@example.com`. Of a text without a domain only the first letter stays.
fn mask_email(email: &str) -> String {
    let (person, domain) = email.rsplit_once('@').unwrap_or((email, ""));
    let mut masked = String::with_capacity(domain.len() + 8);
    masked.extend(person.chars().next());
    masked.push_str("***");
    if !domain.is_empty() {
        masked.push('@');
        masked.push_str(domain);
    }
    masked
}

/// Digits, after a plus where there was one; `None` where no digit is left. A leading `00` is a plus.
fn plain_phone(phone: &str) -> Option<String> {
    let mut plain = String::with_capacity(phone.len());
    if phone.trim_start().starts_with('+') {
        plain.push('+');
    }
    plain.extend(phone.chars().filter(char::is_ascii_digit));
    if let Some(rest) = plain.strip_prefix("00") {
        plain = format!("+{rest}");
    }
    plain.ends_with(|c: char| c.is_ascii_digit()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_keeps_its_first_letter_and_its_domain() {
        assert_eq!(mask_email("maria@example.com"), "m***@example.com");
        assert_eq!(mask_email("\"a@b\"@example.com"), "\"***@example.com");
        assert_eq!(mask_email("élise@example.fr"), "é***@example.fr");
        assert_eq!(mask_email("nobody"), "n***");
        assert_eq!(mask_email("@example.com"), "***@example.com");
        assert_eq!(mask_email(""), "***");
    }

    #[test]
    fn a_phone_is_a_plus_and_digits() {
        assert_eq!(plain_phone(" +49 (0)30 / 12-34").as_deref(), Some("+490301234"));
        assert_eq!(plain_phone("0049 30 1234").as_deref(), Some("+49301234"));
        assert_eq!(plain_phone("030 1234").as_deref(), Some("0301234"));
        assert_eq!(plain_phone("+ none"), None);
        assert_eq!(plain_phone(""), None);
    }

    #[test]
    fn a_customer_without_contact_stays() {
        assert_eq!(mask(Customer { email: None, phone: None }), Masked { email: None, phone: None });
    }
}
