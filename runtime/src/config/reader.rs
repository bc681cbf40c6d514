//! TOML with places: every value knows its line and its dotted key, so that every complaint can name them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::{Document as Toml, Item, TableLike, Value};

use super::setting::{Secrets, Setting};
use super::units::{parse_bytes, parse_duration};
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Document {
    file: PathBuf,
    inner: Toml<String>,
}

/// A table of the file and the dotted key that leads to it.
pub(super) struct Section<'a> {
    document: &'a Document,
    path: String,
    table: &'a dyn TableLike,
    line: Option<usize>,
}

impl Document {
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self> {
        let inner = Toml::parse(text.to_owned()).map_err(|e| {
            let line = e.span().map_or(1, |s| line_of(text, s.start));
            let detail = e.message().lines().next().unwrap_or("bad syntax").to_owned();
            Error::new(ErrorKind::Config, format!("{}:{line}: not valid TOML: {detail}", file.display()))
        })?;
        Ok(Document { file: file.to_path_buf(), inner })
    }

    pub(super) fn root(&self) -> Section<'_> {
        Section { document: self, path: String::new(), table: self.inner.as_table(), line: None }
    }
}

impl<'a> Section<'a> {
    /// Refuses every key that is not in `known`.
    pub(super) fn allow(&self, known: &[&str]) -> Result<()> {
        for (key, _) in self.table.iter() {
            if known.contains(&key) {
                continue;
            }
            let error = self.error(Some(key), "is not a known key");
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", quoted(known)),
            };
            return Err(error.hint(hint));
        }
        Ok(())
    }

    /// An error at `key` of this section, or at the section itself.
    pub(super) fn error(&self, key: Option<&str>, what: &str) -> Error {
        let line = key.and_then(|k| self.line_of_key(k)).or(self.line).unwrap_or(1);
        let dotted = match key {
            Some(key) => self.dotted(key),
            None if self.path.is_empty() => "the pipeline".to_owned(),
            None => self.path.clone(),
        };
        let file = self.document.file.display();
        Error::new(ErrorKind::Config, format!("{file}:{line}: `{dotted}` {what}"))
    }

    fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn line_of_key(&self, key: &str) -> Option<usize> {
        let (name, item) = self.table.get_key_value(key)?;
        let span = name.span().or_else(|| item.span())?;
        Some(line_of(self.document.inner.raw(), span.start))
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.table.iter().map(|(k, _)| k.to_owned()).collect()
    }

    pub(super) fn section(&self, key: &str) -> Result<Option<Section<'a>>> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        let Some(table) = item.as_table_like() else {
            return Err(self.error(Some(key), "must be a section"));
        };
        Ok(Some(Section { document: self.document, path: self.dotted(key), table, line: self.line_of_key(key) }))
    }

    pub(super) fn required_section(&self, key: &str) -> Result<Section<'a>> {
        self.section(key)?.ok_or_else(|| self.error(None, &format!("lacks the section `{}`", self.dotted(key))))
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<String>> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        match item.as_str() {
            Some(text) if !text.is_empty() => Ok(Some(text.to_owned())),
            Some(_) => Err(self.error(Some(key), "is empty")),
            None => Err(self.error(Some(key), "must be a text in quotes")),
        }
    }

    pub(super) fn required_string(&self, key: &str) -> Result<String> {
        self.string(key)?.ok_or_else(|| self.error(None, &format!("lacks `{}`", self.dotted(key))))
    }

    pub(super) fn identifier(&self, key: &str) -> Result<String> {
        let text = self.required_string(key)?;
        if super::is_identifier(&text) {
            return Ok(text);
        }
        Err(self.error(Some(key), &format!("`{text}` is not a name")).hint("use letters, digits, `_` and `-`"))
    }

    /// A text or a list of texts.
    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        if let Some(text) = item.as_str() {
            return Ok(Some(vec![text.to_owned()]));
        }
        let texts: Option<Vec<String>> =
            item.as_array().and_then(|a| a.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        texts.map(Some).ok_or_else(|| self.error(Some(key), "must be a text or a list of texts"))
    }

    pub(super) fn required_strings(&self, key: &str) -> Result<Vec<String>> {
        self.strings(key)?.ok_or_else(|| self.error(None, &format!("lacks `{}`", self.dotted(key))))
    }

    pub(super) fn one_of(&self, key: &str, known: &[&str]) -> Result<Option<String>> {
        let Some(text) = self.string(key)? else { return Ok(None) };
        if known.contains(&text.as_str()) {
            return Ok(Some(text));
        }
        let error = self.error(Some(key), &format!("`{text}` is not a known value"));
        Err(match nearest(&text, known.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("known here: {}", quoted(known))),
        })
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        match item.as_integer().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if n > 0 => Ok(Some(n)),
            _ => Err(self.error(Some(key), "must be a whole number above 0")),
        }
    }

    pub(super) fn ratio(&self, key: &str) -> Result<Option<f64>> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        match item.as_float() {
            Some(r) if (0.0..=1.0).contains(&r) => Ok(Some(r)),
            _ => Err(self.error(Some(key), "must be a number from 0.0 to 1.0")),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        item.as_bool().map(Some).ok_or_else(|| self.error(Some(key), "must be true or false"))
    }

    pub(super) fn bytes(&self, key: &str) -> Result<Option<usize>> {
        self.with_unit(key, parse_bytes, "a size with its unit, such as \"64MiB\"")
    }

    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>> {
        self.with_unit(key, parse_duration, "a time with its unit, such as \"5s\" or \"250ms\"")
    }

    fn with_unit<T>(&self, key: &str, parse: fn(&str) -> Option<T>, form: &str) -> Result<Option<T>> {
        let Some(item) = self.table.get(key) else { return Ok(None) };
        match item.as_str().and_then(parse) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error(Some(key), &format!("must be {form}"))),
        }
    }

    /// A section of plain values, as texts.
    pub(super) fn pairs(&self, key: &str) -> Result<Vec<(String, String)>> {
        let Some(section) = self.section(key)? else { return Ok(Vec::new()) };
        section.table.iter().map(|(name, item)| Ok((name.to_owned(), section.plain(name, item)?))).collect()
    }

    /// A section of plain values, each in the file or in a place that `{ env = "NAME" }` or `{ file = "path" }` names.
    pub(super) fn settings(&self, key: &str, base: &Path, secrets: Secrets) -> Result<Vec<(String, Setting)>> {
        let Some(section) = self.section(key)? else { return Ok(Vec::new()) };
        let setting = |(name, item): (&str, &Item)| {
            let setting = match item.as_table_like() {
                Some(place) => section.place(name, place, base)?,
                None => Setting::Text(section.plain(name, item)?),
            };
            if secrets(name) && !setting.is_secret() {
                return Err(section
                    .error(Some(name), "is a secret, which does not belong in a pipeline file")
                    .hint(format!("write `\"{name}\" = {{ env = \"NAME\" }}` or `{{ file = \"path\" }}`")));
            }
            Ok((name.to_owned(), setting))
        };
        section.table.iter().map(setting).collect()
    }

    fn place(&self, name: &str, place: &dyn TableLike, base: &Path) -> Result<Setting> {
        let text = |key: &str| place.get(key).and_then(Item::as_str);
        match (place.len(), text("env"), text("file")) {
            (1, Some(variable), None) => Ok(Setting::Env(variable.to_owned())),
            (1, None, Some(file)) => Ok(Setting::File(base.join(file))),
            _ => Err(self
                .error(Some(name), "must be a value, `{ env = \"NAME\" }` or `{ file = \"path\" }`")
                .hint("a name with dots stands in quotes: `\"sasl.password\" = …`")),
        }
    }

    fn plain(&self, name: &str, item: &Item) -> Result<String> {
        match item.as_value() {
            Some(Value::String(text)) => Ok(text.value().clone()),
            Some(Value::Integer(n)) => Ok(n.value().to_string()),
            Some(Value::Boolean(b)) => Ok(b.value().to_string()),
            _ => Err(self.error(Some(name), "must be a text, a whole number or a boolean")),
        }
    }

    /// Any value as JSON; an empty object where the key is absent.
    pub(super) fn json(&self, key: &str) -> Result<serde_json::Value> {
        match self.table.get(key) {
            None => Ok(serde_json::Value::Object(serde_json::Map::new())),
            Some(item) => to_json(item).ok_or_else(|| self.error(Some(key), "holds a value that JSON cannot")),
        }
    }
}

fn to_json(item: &Item) -> Option<serde_json::Value> {
    if let Some(value) = item.as_value() {
        return value_to_json(value);
    }
    let table = item.as_table_like()?;
    table.iter().map(|(k, v)| Some((k.to_owned(), to_json(v)?))).collect::<Option<_>>().map(serde_json::Value::Object)
}

fn value_to_json(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::String(s) => s.value().as_str().into(),
        Value::Integer(n) => (*n.value()).into(),
        Value::Float(f) => serde_json::Number::from_f64(*f.value())?.into(),
        Value::Boolean(b) => (*b.value()).into(),
        Value::Datetime(d) => d.value().to_string().into(),
        Value::Array(a) => serde_json::Value::Array(a.iter().map(value_to_json).collect::<Option<_>>()?),
        Value::InlineTable(t) => serde_json::Value::Object(
            t.iter().map(|(k, v)| Some((k.to_owned(), value_to_json(v)?))).collect::<Option<_>>()?,
        ),
    })
}

fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes().iter().take(byte).filter(|&&b| b == b'\n').count() + 1
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// The known name that is meant: the one that is written, else the one that is the same but for case, where that is unique.
pub(crate) fn resolve<'a>(written: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let exact = known.clone().find(|name| *name == written);
    exact.or_else(|| {
        let mut alike = known.filter(|name| name.eq_ignore_ascii_case(written));
        alike.next().filter(|_| alike.next().is_none())
    })
}

/// The known name that is fewest edits away, if it is near enough to be a slip of the hand.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = name.chars().count() / 3 + 1;
    known.map(|k| (strsim::levenshtein(name, k), k)).filter(|(d, _)| *d <= close).min().map(|(_, k)| k)
}
