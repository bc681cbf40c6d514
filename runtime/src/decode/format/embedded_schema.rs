//! The schema that stands beside every payload when `schemas.enable` is true.
//!
//! Receives the JSON text of a Kafka Connect schema of a row, an envelope or a key. Promises the fields of the row with
//! what is needed to type them. Called once for each distinct text, so it may allocate; never looks at payloads.

use serde_json::Value;

/// One field of a Connect schema.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// `int64`, `string`, `bytes` …
    pub(crate) base: String,
    /// semantic name, empty where there is none
    pub(crate) semantic: String,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) optional: bool,
    /// the default as JSON text
    pub(crate) default: Option<String>,
}

impl Field {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// The fields of a row, from the schema of its envelope, of the flattened row, or of a key.
pub(crate) fn fields(schema: &[u8]) -> Option<Vec<Field>> {
    let schema: Value = serde_json::from_slice(schema).ok()?;
    let top = schema.get("fields")?.as_array()?;
    let named = |name: &str| top.iter().find(|f| f.get("field").and_then(Value::as_str) == Some(name));
    let image = match (named("source"), named("op"), named("after")) {
        (Some(_), Some(_), Some(after)) => after.get("fields")?.as_array()?,
        _ => top,
    };
    image.iter().map(field).collect()
}

fn field(value: &Value) -> Option<Field> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let parameters = value
        .get("parameters")
        .and_then(Value::as_object)
        .map(|map| map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect());
    Some(Field {
        name: value.get("field")?.as_str()?.to_owned(),
        base: value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
        semantic: text("name"),
        parameters: parameters.unwrap_or_default(),
        optional: value.get("optional").and_then(Value::as_bool).unwrap_or(false),
        default: value.get("default").map(Value::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_row_out_of_an_envelope() {
        let row = r#"{"type":"struct","field":"after","fields":[{"type":"bytes","optional":false,"name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"},"field":"x","default":"AA=="}]}"#;
        let envelope = format!(r#"{{"type":"struct","fields":[{row},{{"field":"source"}},{{"field":"op"}}]}}"#);
        let fields = fields(envelope.as_bytes()).unwrap();
        assert_eq!(fields.len(), 1);
        assert_eq!(fields[0].name, "x");
        assert_eq!(fields[0].parameter("scale"), Some("2"));
        assert_eq!(fields[0].default.as_deref(), Some("\"AA==\""));
        assert!(super::fields(b"null").is_none());
    }
}
