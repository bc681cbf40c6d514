//! Debezium's connector: its configuration, the Connect cluster that runs it, and what in it loses data.
//!
//! Receives a configuration as Connect's REST API takes it, `{"name", "config"}`, with `${NAME}` placeholders that the
//! environment fills. Promises that a filled value, which may be a secret, stands in no message. Never starts, stops or
//! deletes a connector by itself.

mod advice;
mod cascade;
mod rest;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

pub use advice::{Warning, advise};
pub use cascade::advise_schema;
pub use rest::{Cluster, Status, Task};

use crate::error::{Error, ErrorKind, Result};

/// Largest configuration or schema file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A connector's configuration file, placeholders and all.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connector {
    /// the name under which Connect knows it
    pub name: String,
    /// Kafka Connect's and Debezium's settings
    pub config: BTreeMap<String, String>,
}

impl Connector {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the file cannot be read or is not of that form.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let connector: Connector = serde_json::from_str(&text).map_err(|e| {
            Error::new(ErrorKind::Config, format!("`{}` is no connector's configuration", path.display()))
                .caused_by(e)
                .hint("it must be `{\"name\": …, \"config\": {…}}`, every value a string")
        })?;
        if connector.name.is_empty() || connector.name.contains(['/', '?', '#', '%']) {
            let told = format!("`{}`: the name `{}` cannot stand in an address", path.display(), connector.name);
            return Err(Error::new(ErrorKind::Config, told).hint("letters, digits, `_`, `-` and `.`"));
        }
        Ok(connector)
    }

    /// A setting as it stands in the file.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(|value| value.trim())
    }

    /// The settings with their placeholders filled by `lookup`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names every variable that is missing.
    pub fn filled(&self, lookup: impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>> {
        let mut missing: Vec<String> = Vec::new();
        let mut filled = BTreeMap::new();
        for (key, template) in &self.config {
            let mut value = String::with_capacity(template.len());
            for piece in pieces(template) {
                match piece {
                    Piece::Text(text) => value.push_str(text),
                    Piece::Variable(name) => match lookup(name) {
                        Some(found) => value.push_str(&found),
                        None => missing.push(format!("`{name}` (for `{key}`)")),
                    },
                }
            }
            filled.insert(key.clone(), value);
        }
        if missing.is_empty() {
            return Ok(filled);
        }
        Err(Error::new(ErrorKind::Config, format!("the environment lacks {}", missing.join(", ")))
            .hint("set them for the process that runs `lode`"))
    }
}

enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// `${NAME}` is a variable; what Connect's own config providers fill, `${file:…:key}`, is text to us.
fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(name) = variable(rest) {
            rest = rest.get(name.len() + "${}".len()..).unwrap_or_default();
            return Some(Piece::Variable(name));
        }
        let next = rest.char_indices().skip(1).find(|(at, _)| rest.get(*at..).and_then(variable).is_some());
        let (text, after) = rest.split_at(next.map_or(rest.len(), |(at, _)| at));
        rest = after;
        Some(Piece::Text(text))
    })
}

fn variable(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(sound)).then_some(name)
}

/// Reads a file of text.
///
/// # Errors
/// [`ErrorKind::Config`] when it is missing, too large or not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let read = std::fs::metadata(path).and_then(|found| match found.len() {
        ..=FILE_BYTES_MAX => std::fs::read_to_string(path),
        _ => Err(std::io::Error::other("it is larger than 16 MiB")),
    });
    read.map_err(|e| Error::new(ErrorKind::Config, format!("`{}` cannot be read", path.display())).caused_by(e))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn connector(settings: &[(&str, &str)]) -> Connector {
        let config = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Connector { name: "shop".to_owned(), config }
    }

    #[test]
    fn placeholders_are_filled_and_what_connect_fills_is_left() {
        let connector =
            connector(&[("a", "x${ONE}y${ONE}${TWO}"), ("b", "${file:/run/secrets:pw}"), ("c", "é$ ${} {x}")]);
        let filled = connector.filled(|name| Some(name.to_lowercase())).unwrap();
        assert_eq!(filled["a"], "xoneyonetwo");
        assert_eq!(filled["b"], "${file:/run/secrets:pw}");
        assert_eq!(filled["c"], "é$ ${} {x}");
    }

    #[test]
    fn every_missing_variable_is_named_with_its_setting_and_no_value_is_shown() {
        let connector = connector(&[("database.password", "${PW}"), ("database.user", "${WHO}"), ("x", "${KNOWN}")]);
        let error = connector.filled(|name| (name == "KNOWN").then(|| "hunter2".to_owned())).unwrap_err();
        let told = error.to_string();
        assert_eq!(told, "the environment lacks `PW` (for `database.password`), `WHO` (for `database.user`)");
    }
}
