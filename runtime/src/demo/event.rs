//! How Debezium's MySQL connector writes what a store does.
//!
//! Receives the store's rows and transactions. Gives records as a connector with bare JSON writes them: the statements
//! that made the tables in the schema-change topic, a snapshot, then one record a change, a tombstone after each
//! delete, and a key change as the delete of the old key and the create of the new. Promises that positions in the
//! binlog only grow. Never says what a real connector would not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value as Json, json};

use super::schema::{Column, Kind, Table};
use super::store::{Change, Row, Store, Value};

/// The connector's topic prefix, and its schema-change topic.
pub(super) const PREFIX: &str = "online_store";
const DATABASE: &str = "online_store";
const VERSION: &str = "3.6.1.Final";
const BINLOG: &str = "binlog.000001";
/// Where the snapshot stands in the binlog.
const START: u64 = 157;
/// Bytes of a transaction's begin and end, and of a statement, about.
const TRANSACTION_BYTES: u64 = 210;
const STATEMENT_BYTES: u64 = 180;

/// A record before it has an offset.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) key: String,
    /// `None`: a tombstone
    pub(super) value: Option<String>,
    pub(super) headers: Vec<(&'static str, String)>,
}

/// The topic of a table's rows.
pub(super) fn topic(table: Table) -> String {
    format!("{PREFIX}.{DATABASE}.{}", table.name())
}

/// A connector: where it stands in the binlog.
#[derive(Debug)]
pub(super) struct Connector {
    position: u64,
}

/// Where a change stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    snapshot: &'static str,
    position: u64,
    row: u32,
    /// microseconds since 1970
    time: i64,
}

impl Connector {
    pub(super) fn new() -> Connector {
        Connector { position: START }
    }

    /// The statements that a snapshot begins with. `time` in microseconds since 1970.
    pub(super) fn structures(&self, time: i64) -> Vec<Message> {
        let drop = |table: Table| {
            let change = json!([{"type": "DROP", "id": id(table), "table": null}]);
            (Some(table), DATABASE, format!("DROP TABLE IF EXISTS `{DATABASE}`.`{}`", table.name()), change)
        };
        let create = |table: Table| {
            let change = json!([{"type": "CREATE", "id": id(table), "table": structure(table)}]);
            (Some(table), DATABASE, create_statement(table), change)
        };
        let of_database = |database, statement: String| (None, database, statement, json!([]));
        let mut statements =
            vec![of_database("", "SET character_set_server=utf8mb4, collation_server=utf8mb4_0900_ai_ci".to_owned())];
        statements.extend(Table::ALL.map(drop));
        statements.push(of_database(DATABASE, format!("DROP DATABASE IF EXISTS `{DATABASE}`")));
        let create_database = format!("CREATE DATABASE `{DATABASE}` CHARSET utf8mb4 COLLATE utf8mb4_0900_ai_ci");
        statements.push(of_database(DATABASE, create_database));
        statements.push(of_database(DATABASE, format!("USE `{DATABASE}`")));
        statements.extend(Table::ALL.map(create));
        let message = |(table, database, statement, changes): (Option<Table>, &str, String, Json)| {
            let place = Place { snapshot: "true", position: self.position, row: 0, time };
            let value = json!({
                "source": source(place, database, table),
                "ts_ms": time / 1000,
                "databaseName": database,
                "schemaName": null,
                "ddl": statement,
                "tableChanges": changes,
            });
            Message {
                topic: PREFIX.to_owned(),
                key: json!({"databaseName": database}).to_string(),
                value: Some(value.to_string()),
                headers: context(),
            }
        };
        statements.into_iter().map(message).collect()
    }

    /// Every row of the store, as the snapshot reads it.
    pub(super) fn snapshot(&self, store: &Store, time: i64) -> Vec<Message> {
        let mut messages = Vec::new();
        for table in Table::ALL {
            let rows = store.rows(table);
            for (number, row) in rows.values().enumerate() {
                let (first, last) = (number == 0, number + 1 == rows.len());
                let snapshot = match () {
                    () if first && messages.is_empty() => "first",
                    () if last && Table::ALL.last() == Some(&table) => "last",
                    () if last => "last_in_data_collection",
                    () if first => "first_in_data_collection",
                    () => "true",
                };
                let place = Place { snapshot, position: self.position, row: 0, time };
                messages.push(row_message(place, "r", table, None, Some(row)));
            }
        }
        messages
    }

    /// The records of a transaction.
    pub(super) fn transaction(&mut self, changes: &[Change], time: i64) -> Vec<Message> {
        self.position += TRANSACTION_BYTES;
        let mut place = Place { snapshot: "false", position: self.position, row: 0, time };
        let mut messages = Vec::new();
        let mut statement = None;
        for change in changes {
            // Rows that one statement makes stand at one position, one after the other.
            let this = (change.table, change.before.is_some(), change.after.is_some());
            if statement.replace(this) == Some(this) {
                place.row += 1;
            } else {
                self.position += STATEMENT_BYTES;
                (place.position, place.row) = (self.position, 0);
            }
            write_change(place, change, &mut messages);
        }
        messages
    }
}

fn write_change(place: Place, change: &Change, messages: &mut Vec<Message>) {
    let table = change.table;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if before.key() != after.key() => {
            let header = |name, row: &Row| std::iter::once((name, key_text(row))).chain(context()).collect::<Vec<_>>();
            let gone = row_message(place, "d", table, Some(before), None);
            let gone = Message { headers: header("__debezium.newkey", after), ..gone };
            let tombstone = Message { value: None, ..gone.clone() };
            let made = row_message(place, "c", table, None, Some(after));
            messages.extend([gone, tombstone, Message { headers: header("__debezium.oldkey", before), ..made }]);
        }
        (Some(before), Some(after)) => messages.push(row_message(place, "u", table, Some(before), Some(after))),
        (None, Some(after)) => messages.push(row_message(place, "c", table, None, Some(after))),
        (Some(before), None) => {
            let gone = row_message(place, "d", table, Some(before), None);
            let tombstone = Message { value: None, ..gone.clone() };
            messages.extend([gone, tombstone]);
        }
        (None, None) => {}
    }
}

fn row_message(place: Place, op: &str, table: Table, before: Option<&Row>, after: Option<&Row>) -> Message {
    let value = json!({
        "before": before.map(image),
        "after": after.map(image),
        "source": source(place, DATABASE, Some(table)),
        "transaction": null,
        "op": op,
        "ts_ms": place.time / 1000,
        "ts_us": place.time,
        "ts_ns": place.time * 1000,
    });
    Message {
        topic: topic(table),
        key: after.or(before).map(key_text).unwrap_or_default(),
        value: Some(value.to_string()),
        headers: context(),
    }
}

fn source(place: Place, database: &str, table: Option<Table>) -> Json {
    let streamed = place.snapshot == "false";
    json!({
        "version": VERSION,
        "connector": "mysql",
        "name": PREFIX,
        "ts_ms": place.time / 1000,
        "snapshot": place.snapshot,
        "db": database,
        "sequence": null,
        "ts_us": place.time,
        "ts_ns": place.time * 1000,
        "table": table.map(Table::name),
        "server_id": u32::from(streamed),
        "gtid": null,
        "file": BINLOG,
        "pos": place.position,
        "row": place.row,
        "thread": streamed.then_some(42),
        "query": null,
    })
}

fn context() -> Vec<(&'static str, String)> {
    vec![
        ("__debezium.context.connectorLogicalName", PREFIX.to_owned()),
        ("__debezium.context.taskId", "0".to_owned()),
        ("__debezium.context.connectorName", "mysql".to_owned()),
    ]
}

fn key_text(row: &Row) -> String {
    json!({row.table.key(): row.key()}).to_string()
}

fn image(row: &Row) -> Json {
    let columns = row.table.columns().iter().zip(&row.values);
    Json::Object(columns.map(|(column, value)| (column.name.to_owned(), written(value))).collect::<Map<_, _>>())
}

/// A value by the connector's defaults: `decimal.handling.mode=precise`, times with a zone as text.
fn written(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Int(n) => Json::from(*n),
        Value::Money(hundredths) => Json::from(BASE64.encode(shortest_bytes(*hundredths))),
        Value::Text(text) => Json::from(text.as_str()),
        Value::Time(seconds) => {
            let time = chrono::DateTime::from_timestamp(*seconds, 0).unwrap_or_default();
            Json::from(time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
        }
        Value::Flag(flag) => Json::from(*flag),
    }
}

/// Two's complement, big end first, without bytes that only repeat the sign.
fn shortest_bytes(n: i64) -> Vec<u8> {
    let bytes = n.to_be_bytes();
    let repeats =
        |pair: &&[u8]| matches!(pair, [0, next] if *next < 0x80) || matches!(pair, [0xff, next] if *next >= 0x80);
    let surplus = bytes.windows(2).take_while(repeats).count();
    bytes.get(surplus..).unwrap_or_default().to_vec()
}

fn id(table: Table) -> String {
    format!("\"{DATABASE}\".\"{}\"", table.name())
}

fn create_statement(table: Table) -> String {
    let mut lines: Vec<String> =
        table.columns().iter().map(|column| format!("  {}", column_statement(table, column))).collect();
    lines.push(format!("  PRIMARY KEY (`{}`)", table.key()));
    let body = lines.join(",\n");
    format!(
        "CREATE TABLE `{}` (\n{body}\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_0900_ai_ci",
        table.name()
    )
}

fn column_statement(table: Table, column: &Column) -> String {
    let kind = match column.kind {
        Kind::Int => "int".to_owned(),
        Kind::Varchar(length) => format!("varchar({length})"),
        Kind::Text => "text".to_owned(),
        Kind::Money => "decimal(12,2)".to_owned(),
        Kind::Timestamp => "timestamp".to_owned(),
        Kind::Bit => "bit(1)".to_owned(),
        Kind::Enum(words) => format!("enum({})", quoted(words).join(",")),
    };
    let rest = match column.kind {
        Kind::Timestamp if column.name == "UpdatedAt" => {
            " NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"
        }
        Kind::Timestamp => " NOT NULL DEFAULT CURRENT_TIMESTAMP",
        Kind::Bit => " NOT NULL DEFAULT b'0'",
        _ if column.name == table.key() => " NOT NULL AUTO_INCREMENT",
        Kind::Text => "",
        _ if column.nullable => " DEFAULT NULL",
        _ => " NOT NULL",
    };
    format!("`{}` {kind}{rest}", column.name)
}

fn quoted(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("'{word}'")).collect()
}

fn structure(table: Table) -> Json {
    let columns = table.columns().iter().zip(1_u32..).map(|(column, position)| {
        // type, JDBC's number for it, charset, length, scale, default
        let (name, jdbc, charset, length, scale, default) = match column.kind {
            Kind::Int => ("INT", 4, None, None, None, None),
            Kind::Varchar(length) => ("VARCHAR", 12, Some("utf8mb4"), Some(length), None, None),
            Kind::Text => ("TEXT", 12, Some("utf8mb4"), None, None, None),
            Kind::Money => ("DECIMAL", 3, None, Some(12), Some(2), None),
            Kind::Timestamp => ("TIMESTAMP", 2014, None, None, None, Some("1970-01-01 00:00:00")),
            Kind::Bit => ("BIT", -7, None, Some(1), None, Some("0")),
            Kind::Enum(_) => ("ENUM", 1, Some("utf8mb4"), Some(1), None, None),
        };
        let words = if let Kind::Enum(words) = column.kind { Some(quoted(words)) } else { None };
        let counted = column.name == table.key();
        json!({
            "name": column.name,
            "jdbcType": jdbc,
            "nativeType": null,
            "typeName": name,
            "typeExpression": name,
            "charsetName": charset,
            "length": length,
            "scale": scale,
            "position": position,
            "optional": column.nullable,
            "autoIncremented": counted,
            "generated": counted,
            "comment": null,
            "defaultValueExpression": default,
            "enumValues": words,
        })
    });
    json!({
        "defaultCharsetName": "utf8mb4",
        "primaryKeyColumnNames": [table.key()],
        "columns": columns.collect::<Vec<_>>(),
        "comment": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: i64 = 1_795_000_000_000_000;

    fn parsed(message: &Message) -> Json {
        serde_json::from_str(message.value.as_deref().unwrap()).unwrap()
    }

    #[test]
    fn a_decimal_is_the_shortest_two_s_complement() {
        // as in captures of a real connector: 10438.42 with two digits after the point
        assert_eq!(written(&Value::Money(1_038_522)), json!("D9i6"));
        assert_eq!(shortest_bytes(0), [0]);
        assert_eq!(shortest_bytes(127), [127]);
        assert_eq!(shortest_bytes(128), [0, 128]);
        assert_eq!(shortest_bytes(-128), [128]);
        assert_eq!(shortest_bytes(-129), [255, 127]);
        assert_eq!(shortest_bytes(-1), [255]);
    }

    #[test]
    fn a_snapshot_has_one_first_and_one_last_row_and_one_record_a_row() {
        let store = Store::new(1, TIME / 1_000_000);
        let messages = Connector::new().snapshot(&store, TIME);
        let rows: usize = Table::ALL.iter().map(|table| store.rows(*table).len()).sum();
        assert_eq!(messages.len(), rows);
        let marked = |mark: &str| messages.iter().filter(|m| parsed(m)["source"]["snapshot"] == mark).count();
        assert_eq!((marked("first"), marked("last")), (1, 1));
        assert_eq!((marked("first_in_data_collection"), marked("last_in_data_collection")), (14, 14));
    }

    #[test]
    fn a_key_change_is_a_delete_a_tombstone_and_a_create_at_one_place() {
        let store = Store::new(1, TIME / 1_000_000);
        let before = store.rows(Table::CartItems).values().next().unwrap().clone();
        let mut after = before.clone();
        after.values[0] = Value::Int(9_999);
        let change = Change { table: Table::CartItems, before: Some(before.clone()), after: Some(after) };
        let messages = Connector::new().transaction(&[change], TIME);
        let [gone, tombstone, made] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((parsed(gone)["op"].as_str(), parsed(made)["op"].as_str()), (Some("d"), Some("c")));
        assert_eq!((&gone.key, &tombstone.value), (&key_text(&before), &None));
        assert_eq!(gone.headers[0], ("__debezium.newkey", "{\"CartItemID\":9999}".to_owned()));
        assert_eq!(made.headers[0], ("__debezium.oldkey", key_text(&before)));
        assert_eq!(parsed(gone)["source"], parsed(made)["source"]);
    }

    #[test]
    fn places_in_the_binlog_grow() {
        let mut store = Store::new(1, TIME / 1_000_000);
        let mut connector = Connector::new();
        let mut last = (0, 0);
        for n in 0..500 {
            let changes = store.transact(TIME / 1_000_000 + n);
            for message in connector.transaction(&changes, TIME).iter().filter(|m| m.value.is_some()) {
                let source = &parsed(message)["source"];
                let place = (source["pos"].as_u64().unwrap(), source["row"].as_u64().unwrap());
                let of_key_change = message.headers[0].0 == "__debezium.oldkey";
                assert!(place > last || place == last && of_key_change, "{place:?} after {last:?}");
                last = place;
            }
        }
    }
}
