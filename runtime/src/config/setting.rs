//! Settings that are passed through, and the secrets among them.
//!
//! A secret stands in the environment or in a file; the pipeline file says only where. What was read is handed to the
//! client and kept nowhere else: no message, log or `Debug` text holds it.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};

/// Longest secret that is read from a file, in bytes.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// The value of a setting, or where it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// it stands in the pipeline file
    Text(String),
    /// this variable of the environment holds it
    Env(String),
    /// this file holds it; a line break at the end is not part of it
    File(PathBuf),
}

impl Setting {
    /// The value, fetched now; `key` is the setting's name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the variable or the file is not there, empty or not text.
    pub fn fetch(&self, key: &str) -> Result<String> {
        let missing =
            |place: String| Error::new(ErrorKind::Config, format!("{place}, which holds `{key}`, cannot be read"));
        let (place, text) = match self {
            Setting::Text(text) => return Ok(text.clone()),
            Setting::Env(name) => {
                let place = format!("the environment variable `{name}`");
                let text = std::env::var(name).map_err(|e| {
                    // What is not text must not be shown.
                    let why = if e == std::env::VarError::NotPresent { "it is not set" } else { "it is not UTF-8" };
                    missing(place.clone()).caused_by(why).hint(format!("set `{name}` for the process that runs `lode`"))
                })?;
                (place, text)
            }
            Setting::File(path) => {
                let place = format!("the file `{}`", path.display());
                let read = std::fs::metadata(path).and_then(|found| match found.len() {
                    ..=SECRET_BYTES_MAX => std::fs::read_to_string(path),
                    _ => Err(std::io::Error::other("it is larger than 1 MiB")),
                });
                let text = read
                    .map_err(|e| missing(place.clone()).caused_by(e).hint("paths are relative to the pipeline file"))?;
                let line = text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t));
                (place, line.to_owned())
            }
        };
        if text.is_empty() {
            return Err(missing(place).caused_by("it is empty"));
        }
        Ok(text)
    }

    /// True when the value must not be shown.
    pub fn is_secret(&self) -> bool {
        !matches!(self, Setting::Text(_))
    }
}

/// Tells the settings whose values are secrets, and so must not stand in a pipeline file.
pub(super) type Secrets = fn(&str) -> bool;

/// librdkafka's.
pub(super) fn of_the_broker(key: &str) -> bool {
    key.ends_with("password") || key.ends_with("secret") || matches!(key, "ssl.key.pem" | "sasl.oauthbearer.config")
}

/// object_store's; it takes its keys in any case: `azure_storage_account_key`, `SAS_TOKEN`, `aws_secret_access_key`.
pub(super) fn of_the_lake(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["key", "secret", "token", "password", "key_base64"].iter().any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_file_without_the_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for text in ["p w\n", "p w\r\n", "p w"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Setting::File(path.clone()).fetch("sasl.password").unwrap(), "p w");
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(Setting::File(path).fetch("sasl.password").is_err(), "an empty secret is none");
    }

    #[test]
    fn a_place_that_is_not_there_is_named_with_its_setting() {
        let error = Setting::Env("LODE_TEST_NO_SUCH_VARIABLE".to_owned()).fetch("sasl.password").unwrap_err();
        let told = error.to_string();
        assert!(told.contains("`LODE_TEST_NO_SUCH_VARIABLE`") && told.contains("`sasl.password`"), "{told}");
        let error = Setting::File(PathBuf::from("/no/such/file")).fetch("ssl.key.password").unwrap_err();
        assert!(error.to_string().contains("`/no/such/file`"), "{error}");
    }
}
