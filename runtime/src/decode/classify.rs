//! What a topic carries, seen from one of its records.
//!
//! Receives a topic's name and any record of it. Promises a kind only when the record shows it; tombstones, heartbeats
//! and what cannot be read are unknown. Meant for the first records of a topic, not for every row.

use serde_json::Value;

use super::table_name::TableName;
use crate::model::record::Record;

/// What a topic carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicKind {
    /// row changes of one table
    Rows {
        /// the table
        table: TableName,
        /// true when each record is the row itself (ExtractNewRecordState), false for Debezium's envelope
        flattened: bool,
    },
    /// DDL statements and table structures
    SchemaChanges,
    /// BEGIN and END of transactions
    Transactions,
    /// this record does not tell
    Unknown,
}

/// The connector's schema-change topic, from the name of one of its row topics: `open_b.shop.orders` gives `open_b`.
pub fn schema_topic(topic: &str) -> Option<&str> {
    let (rest, table) = topic.rsplit_once('.')?;
    let (prefix, database) = rest.rsplit_once('.')?;
    (!prefix.is_empty() && !database.is_empty() && !table.is_empty()).then_some(prefix)
}

/// The topic of `table`, by the name of another topic of the same connector.
pub fn topic_of(topic: &str, table: &TableName) -> Option<String> {
    Some(format!("{}.{}.{}", schema_topic(topic)?, table.database, table.table))
}

/// What `topic` carries, if `record` shows it.
pub fn classify(topic: &str, record: Record<'_>) -> TopicKind {
    kind(topic, record).unwrap_or(TopicKind::Unknown)
}

fn kind(topic: &str, record: Record<'_>) -> Option<TopicKind> {
    let value: Value = serde_json::from_slice(record.value?).ok()?;
    let top = value.as_object()?;
    let payload = match (top.get("schema"), top.get("payload")) {
        (Some(Value::Object(_) | Value::Null), Some(payload)) if top.len() == 2 => payload.as_object()?,
        _ => top,
    };
    let text = |v: Option<&Value>| v.and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
    if payload.contains_key("ddl") || payload.contains_key("tableChanges") {
        return Some(TopicKind::SchemaChanges);
    }
    if let (Some(Value::Object(source)), Some(Value::String(_))) = (payload.get("source"), payload.get("op")) {
        let table = TableName { database: text(source.get("db"))?, table: text(source.get("table"))? };
        return Some(TopicKind::Rows { table, flattened: false });
    }
    if payload.contains_key("status") && payload.contains_key("id") && payload.contains_key("data_collections") {
        return Some(TopicKind::Transactions);
    }
    if payload.keys().any(|k| matches!(k.as_str(), "__op" | "__deleted" | "__source_file" | "__source_pos")) {
        let table = text(payload.get("__table")).or_else(|| text(payload.get("__source_table")));
        let database = text(payload.get("__db")).or_else(|| text(payload.get("__source_db")));
        return Some(TopicKind::Rows { table: named(topic, database, table)?, flattened: true });
    }
    None
}

/// What a topic with the name of a row topic carries, when no record of it can be read.
pub fn classify_name(topic: &str) -> Option<TopicKind> {
    schema_topic(topic)?;
    Some(TopicKind::Rows { table: named(topic, None, None)?, flattened: false })
}

/// A table's name, filled up from the topic's.
pub(crate) fn named(topic: &str, database: Option<String>, table: Option<String>) -> Option<TableName> {
    let mut parts = topic.rsplit('.');
    let (last, before) = (parts.next(), parts.next());
    let part = |p: Option<&str>| p.filter(|s| !s.is_empty()).map(str::to_owned);
    Some(TableName { database: database.or_else(|| part(before))?, table: table.or_else(|| part(last))? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(topic: &str, value: Option<&str>) -> TopicKind {
        let value = value.map(str::as_bytes);
        classify(topic, Record { offset: 0, timestamp_ms: 0, key: None, value, headers: b"" })
    }

    #[test]
    fn kinds_of_topics() {
        let table = TableName { database: "shop".into(), table: "orders".into() };
        let envelope = r#"{"before":null,"after":{},"source":{"db":"shop","table":"orders"},"op":"c"}"#;
        let wrapped = format!(r#"{{"schema":{{}},"payload":{envelope}}}"#);
        let rows = |flattened| TopicKind::Rows { table: table.clone(), flattened };
        assert_eq!(of("p.shop.orders", Some(envelope)), rows(false));
        assert_eq!(of("p.shop.orders", Some(&wrapped)), rows(false));
        assert_eq!(of("p.shop.x", Some(r#"{"id":1,"__op":"c","__table":"orders"}"#)), rows(true));
        assert_eq!(of("p", Some(r#"{"ddl":"x","tableChanges":[]}"#)), TopicKind::SchemaChanges);
        let transaction = r#"{"status":"BEGIN","id":"1","event_count":null,"data_collections":null}"#;
        assert_eq!(of("p.transaction", Some(transaction)), TopicKind::Transactions);
        for value in [None, Some(""), Some("1"), Some(r#"{"ts_ms":1}"#), Some("[]")] {
            assert_eq!(of("p.shop.orders", value), TopicKind::Unknown);
        }
        assert_eq!(schema_topic("a.b.shop.orders"), Some("a.b"));
        assert_eq!(schema_topic("shop.orders"), None);
    }
}
