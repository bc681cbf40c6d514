//! Customers and sellers, masked: what `lode demo` puts in the place of `online_store_contacts` while it runs.
//!
//! Of the e-mail address the first letter and the domain stay, of the telephone number the last four digits.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Contact<'a> {
    #[lode(name = "Email")]
    email: Option<&'a str>,
    #[lode(name = "PhoneNumber")]
    phone: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Masked {
    #[lode(name = "Email")]
    email: Option<String>,
    #[lode(name = "PhoneNumber")]
    phone: Option<String>,
}

#[transform(pass_rest)]
fn mask(contact: Contact) -> Masked {
    Masked { email: contact.email.and_then(mask_email), phone: contact.phone.and_then(mask_phone) }
}

/// `Maria@Example.com` becomes `m***@example.com`; `None` without a person or a domain.
fn mask_email(email: &str) -> Option<String> {
    let (person, domain) = email.trim().rsplit_once('@')?;
    let first = person.chars().next()?.to_ascii_lowercase();
    (!domain.is_empty()).then(|| format!("{first}***@{}", domain.to_ascii_lowercase()))
}

/// `+49 30 1234567` becomes `***4567`; `None` where no digit is left.
fn mask_phone(phone: &str) -> Option<String> {
    const SHOWN: usize = 4;
    let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
    let hidden = digits.len().saturating_sub(SHOWN);
    (!digits.is_empty()).then(|| format!("***{}", &digits[hidden..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_keeps_its_first_letter_and_its_domain() {
        assert_eq!(mask_email(" Maria@Example.com").as_deref(), Some("m***@example.com"));
        assert_eq!(mask_email("élise@example.fr").as_deref(), Some("é***@example.fr"));
        assert_eq!(mask_email("nobody"), None);
        assert_eq!(mask_email("@example.com"), None);
        assert_eq!(mask_email("maria@ "), None);
    }

    #[test]
    fn a_phone_keeps_its_last_four_digits() {
        assert_eq!(mask_phone("+49 30 123-4567").as_deref(), Some("***4567"));
        assert_eq!(mask_phone("12").as_deref(), Some("***12"));
        assert_eq!(mask_phone("none"), None);
    }

    #[test]
    fn a_contact_without_either_stays() {
        assert_eq!(mask(Contact { email: None, phone: None }), Masked { email: None, phone: None });
    }
}
