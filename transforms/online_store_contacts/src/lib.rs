//! Customers and sellers: the e-mail address and the telephone number in one form each, or none where they are none.

use lodestream_sdk::prelude::*;

#[derive(Input)]
struct Contact<'a> {
    #[lode(name = "Email")]
    email: Option<&'a str>,
    #[lode(name = "PhoneNumber")]
    phone: Option<&'a str>,
}

#[derive(Output, Debug, PartialEq)]
struct Clean {
    #[lode(name = "Email")]
    email: Option<String>,
    #[lode(name = "PhoneNumber")]
    phone: Option<String>,
}

#[transform(pass_rest)]
fn clean(contact: Contact) -> Clean {
    Clean { email: contact.email.and_then(plain_email), phone: contact.phone.and_then(plain_phone) }
}

/// Without white space around it, its ASCII letters small; `None` without a person or a domain.
fn plain_email(email: &str) -> Option<String> {
    let email = email.trim();
    let (person, domain) = email.rsplit_once('@')?;
    (!person.is_empty() && !domain.is_empty()).then(|| email.to_ascii_lowercase())
}

/// Digits, after a plus where there was one; `None` where no digit is left. A leading `00` is a plus.
fn plain_phone(phone: &str) -> Option<String> {
    let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
    let (abroad, digits) = match digits.strip_prefix("00") {
        Some(rest) => (true, rest),
        None => (phone.trim_start().starts_with('+'), digits.as_str()),
    };
    (!digits.is_empty()).then(|| format!("{}{digits}", if abroad { "+" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_small_and_has_two_sides() {
        assert_eq!(plain_email("  Maria.Lund@Example.COM\t").as_deref(), Some("maria.lund@example.com"));
        assert_eq!(plain_email("\"a@b\"@example.com").as_deref(), Some("\"a@b\"@example.com"));
        assert_eq!(plain_email("nobody"), None);
        assert_eq!(plain_email("@example.com"), None);
        assert_eq!(plain_email("maria@ "), None);
    }

    #[test]
    fn a_phone_is_a_plus_and_digits() {
        assert_eq!(plain_phone(" +49 (0)30 / 12-34").as_deref(), Some("+490301234"));
        assert_eq!(plain_phone("0049 30 1234").as_deref(), Some("+49301234"));
        assert_eq!(plain_phone("030 1234").as_deref(), Some("0301234"));
        assert_eq!(plain_phone("+ none"), None);
        assert_eq!(plain_phone("00"), None);
    }

    #[test]
    fn a_contact_without_either_stays() {
        assert_eq!(clean(Contact { email: None, phone: None }), Clean { email: None, phone: None });
    }
}
