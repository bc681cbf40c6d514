//! What the modules of the online store make of a row, said once more for the check.
//!
//! Receives a row of the store. Gives the texts that its Silver row must have. Shares no code with the modules, and
//! says the rules in another way where there is one.

use std::collections::BTreeMap;

use super::schema::Table;
use super::store::{Row, Value};

/// A row's columns as texts; `None` is null.
pub(super) type Texts = BTreeMap<String, Option<String>>;

/// Which of its versions a module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// the one in the pipeline file
    First,
    /// the one that the demo swaps in for contacts
    Masked,
}

/// What Silver must hold of `row`; `None` where the module rejects it.
pub(super) fn expected(row: &Row, version: Version) -> Option<Texts> {
    let columns = row.table.columns().iter().zip(&row.values);
    let mut texts: Texts = columns.map(|(column, value)| (column.name.to_owned(), plain(value))).collect();
    let mut put = |column: &str, value: Option<String>| drop(texts.insert(column.to_owned(), value));
    match row.table {
        Table::Customers | Table::Sellers => {
            let (email, phone) = (string(row, "Email"), string(row, "PhoneNumber"));
            let (email, phone) = match version {
                Version::First => (email.and_then(clean_email), phone.and_then(clean_phone)),
                Version::Masked => (email.and_then(masked_email), phone.and_then(masked_phone)),
            };
            put("Email", email);
            put("PhoneNumber", phone);
        }
        Table::Products => {
            let words: Vec<&str> = string(row, "Name").unwrap_or_default().split_whitespace().collect();
            put("Name", Some(words.join(" ")));
            put("Margin", Some(money(row.number("Price") - row.number("Cost"))));
        }
        Table::Orders => {
            let day = chrono::DateTime::from_timestamp(row.number("CreatedAt"), 0).unwrap_or_default();
            put("OrderDateKey", Some(day.format("%Y%m%d").to_string()));
            put("OrderMonth", Some(day.format("%Y-%m").to_string()));
        }
        Table::OrderItems => put("LineTotal", Some(money(row.number("Quantity") * row.number("CurrentPrice")))),
        Table::Reviews if !(1..=5).contains(&row.number("Rating")) => return None,
        Table::Reviews => {
            put("Comment", string(row, "Comment").map(str::trim).filter(|said| !said.is_empty()).map(str::to_owned));
        }
        Table::Addresses => {
            put("Country", string(row, "Country").map(|country| country.trim().to_uppercase()));
            let flags = ["IsBillingAddress", "IsShippingAddress"].map(|flag| *row.get(flag) == Value::Flag(true));
            let purpose = match flags {
                [true, true] => "both",
                [true, false] => "billing",
                [false, true] => "shipping",
                [false, false] => "none",
            };
            put("Purpose", Some(purpose.to_owned()));
        }
        Table::Inventory => {
            let above = row.number("QuantityInStock") > row.number("ReorderThreshold");
            put("ReorderNeeded", Some((!above).to_string()));
        }
        _ => {}
    }
    Some(texts)
}

fn plain(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Int(n) => n.to_string(),
        Value::Money(hundredths) => money(*hundredths),
        Value::Text(text) => text.clone(),
        Value::Time(seconds) => {
            let time = chrono::DateTime::from_timestamp(*seconds, 0).unwrap_or_default();
            time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
        }
        Value::Flag(flag) => flag.to_string(),
    })
}

fn money(hundredths: i64) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", hundredths.abs() / 100, hundredths.abs() % 100)
}

fn string<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    match row.get(column) {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Both sides of the last `@`, where there is something on both.
fn sides(email: &str) -> Option<(&str, &str)> {
    let email = email.trim();
    let at = email.rfind('@')?;
    let (person, domain) = (&email[..at], &email[at + 1..]);
    (person.len() * domain.len() > 0).then_some((person, domain))
}

fn clean_email(email: &str) -> Option<String> {
    sides(email).map(|(person, domain)| format!("{person}@{domain}").to_ascii_lowercase())
}

fn masked_email(email: &str) -> Option<String> {
    let (person, domain) = sides(email)?;
    let first: String = person.chars().take(1).collect();
    Some(format!("{first}***@{domain}").to_ascii_lowercase())
}

fn digits(phone: &str) -> Option<String> {
    let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
    (!digits.is_empty()).then_some(digits)
}

fn clean_phone(phone: &str) -> Option<String> {
    let digits = digits(phone)?;
    if digits.starts_with("00") {
        return (digits.len() > 2).then(|| digits.replacen("00", "+", 1));
    }
    let plus = if phone.trim_start().starts_with('+') { "+" } else { "" };
    Some(plus.to_owned() + &digits)
}

fn masked_phone(phone: &str) -> Option<String> {
    let digits = digits(phone)?;
    let shown: String = digits.chars().skip(digits.len().saturating_sub(4)).collect();
    Some(format!("***{shown}"))
}
