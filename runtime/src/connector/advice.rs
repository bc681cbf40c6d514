//! What in a connector's configuration loses data, or makes it inexact.
//!
//! Receives the settings as they stand in the file. Promises a warning for each setting, or missing setting, of
//! Debezium's relational connectors that is known to lose rows, events or parts of values: what, why, what to do. Never
//! shows a value of a setting that may be a secret, and says nothing of a value that only the environment knows.

use serde::Serialize;

use super::Connector;

/// The largest message a topic or a producer takes by default is 1 MiB; a row is often two images of that.
const MESSAGE_BYTES_MIN: u64 = 4 << 20;

/// Something that loses data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// the setting, table or constraint
    pub what: String,
    /// what is lost
    pub why: String,
    /// the next step
    pub hint: String,
}

impl Warning {
    pub(super) fn new(what: impl Into<String>, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Warning { what: what.into(), why: why.into(), hint: hint.into() }
    }
}

/// Everything in `connector` that loses data, in the order of the data: what is read, how values are written, what is
/// changed on the way, what the broker takes.
pub fn advise(connector: &Connector) -> Vec<Warning> {
    let mut found = Vec::new();
    what_is_read(connector, &mut found);
    how_values_are_written(connector, &mut found);
    what_is_changed_on_the_way(connector, &mut found);
    what_the_broker_takes(connector, &mut found);
    found
}

fn what_is_read(connector: &Connector, found: &mut Vec<Warning>) {
    let get = |key| known(connector, key);
    let skipped = get("skipped.operations");
    let words: Vec<&str> = skipped.unwrap_or("t").split(',').map(str::trim).collect();
    if !words.contains(&"none") {
        let set = skipped.map_or("is not set, and is then `t`".to_owned(), |value| format!("is `{value}`"));
        found.push(Warning::new(
            "skipped.operations",
            format!("it {set}: no event tells of {}, and the lake keeps those rows as they were", operations(&words)),
            "set it to `none`",
        ));
    }
    match get("snapshot.mode").unwrap_or("initial") {
        "initial" | "always" | "when_needed" | "initial_only" => {}
        "configuration_based" | "custom" => found.push(Warning::new(
            "snapshot.mode",
            "what it reads is decided elsewhere; rows that no snapshot reads are missing until they change",
            "make sure that the rows of every table are read, or set it to `initial`",
        )),
        mode => found.push(Warning::new(
            "snapshot.mode",
            format!("it is `{mode}`: rows that are there already and do not change are never read"),
            "set it to `initial`, or to `when_needed`",
        )),
    }
    if get("snapshot.mode") == Some("initial_only") {
        let why = "it is `initial_only`: the connector ends after the snapshot, and no change is read";
        found.push(Warning::new("snapshot.mode", why, "set it to `initial`"));
    }
    if get("include.schema.changes") == Some("false") {
        let why = "it is `false`: types, new columns, renames and TRUNCATE are not told, and bare JSON has no types";
        found.push(Warning::new("include.schema.changes", why, "leave it at `true`"));
    }
    for key in [
        "event.processing.failure.handling.mode",
        "event.deserialization.failure.handling.mode",
        "inconsistent.schema.handling.mode",
    ] {
        if let Some(mode @ ("warn" | "skip" | "ignore")) = get(key) {
            let why =
                format!("it is `{mode}`: an event that cannot be read is left out, and only the worker's log says so");
            found.push(Warning::new(key, why, "set it to `fail`"));
        }
    }
    if get("errors.tolerance") == Some("all") {
        let why = "it is `all`: an event that cannot be converted is left out, and only the worker's log says so";
        found.push(Warning::new("errors.tolerance", why, "set it to `none`"));
    }
    for key in keys_matching(connector, |key| key.starts_with("snapshot.select.statement.overrides.")) {
        found.push(Warning::new(
            key,
            "the snapshot reads what this query gives instead of the whole table",
            "remove it",
        ));
    }
    if get("message.key.columns").is_some_and(|value| !value.is_empty()) {
        found.push(Warning::new(
            "message.key.columns",
            "rows that share these columns become one row, and a change of them leaves the old row behind",
            "remove it: Debezium's default is the primary key",
        ));
    }
}

fn how_values_are_written(connector: &Connector, found: &mut Vec<Warning>) {
    let get = |key| known(connector, key);
    if get("decimal.handling.mode") == Some("double") {
        let why = "it is `double`: decimals of more than about 15 digits are rounded";
        found.push(Warning::new("decimal.handling.mode", why, "set it to `string` or `precise`"));
    }
    if get("bigint.unsigned.handling.mode").unwrap_or("long") == "long" {
        let why = "it is `long`, the default: a BIGINT UNSIGNED of 2^63 or more comes as a negative number";
        found.push(Warning::new(
            "bigint.unsigned.handling.mode",
            why,
            "set it to `precise` where a table has such a column",
        ));
    }
    if get("time.precision.mode") == Some("connect") {
        let why = "it is `connect`: times are cut to milliseconds";
        found.push(Warning::new("time.precision.mode", why, "set it to `adaptive_time_microseconds`"));
    }
    for key in ["column.include.list", "column.exclude.list"] {
        if get(key).is_some_and(|value| !value.is_empty()) {
            let why = "columns that it leaves out are not in the events, so neither in Bronze nor in Silver";
            found.push(Warning::new(key, why, "leave columns out in a transform, and keep Bronze whole"));
        }
    }
    let rewrites = |key: &str| {
        key.starts_with("column.mask.") || key.starts_with("column.truncate.") || key == "column.mask.with.length.chars"
    };
    for key in keys_matching(connector, rewrites) {
        let why = "the values of these columns are gone before Kafka has them; Silver cannot equal the database";
        found.push(Warning::new(key, why, "mask in a transform, if Bronze may hold the values"));
    }
}

fn what_is_changed_on_the_way(connector: &Connector, found: &mut Vec<Warning>) {
    let names = connector.get("transforms").unwrap_or_default();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let key = |end: &str| format!("transforms.{name}.{end}");
        let kind = connector.get(&key("type")).unwrap_or_default();
        if kind.ends_with("ExtractNewRecordState") {
            unwrapped(connector, &key, found);
        } else if kind.ends_with(".Filter") {
            found.push(Warning::new(
                key("type"),
                "events that it filters out never reach Kafka",
                "filter in a transform of `lode`",
            ));
        } else if kind.contains("ReplaceField") || kind.contains("MaskField") {
            found.push(Warning::new(
                key("type"),
                "fields are changed or dropped before Kafka has them",
                "do it in a transform of `lode`",
            ));
        }
    }
}

fn unwrapped(connector: &Connector, key: &dyn Fn(&str) -> String, found: &mut Vec<Warning>) {
    let mode = connector.get(&key("delete.tombstone.handling.mode")).or(connector.get(&key("delete.handling.mode")));
    match mode {
        Some("rewrite" | "rewrite-with-tombstone") => {}
        mode => found.push(Warning::new(
            key("delete.tombstone.handling.mode"),
            format!(
                "it is `{}`: a delete carries no row and no place in the log, or nothing at all",
                mode.unwrap_or("tombstone")
            ),
            "set it to `rewrite`, or remove this transform: `lode` reads Debezium's own envelope",
        )),
    }
    let fields = connector.get(&key("add.fields")).unwrap_or_default();
    let lacking: Vec<&str> = ["op", "source.file", "source.pos", "source.row"]
        .into_iter()
        .filter(|field| !fields.split(',').any(|f| f.split(':').next().unwrap_or_default().trim() == *field))
        .collect();
    if !lacking.is_empty() {
        found.push(Warning::new(
            key("add.fields"),
            format!("it lacks `{}`: late and repeated events cannot be told from new ones", lacking.join(",")),
            "add them, or remove this transform",
        ));
    }
}

fn what_the_broker_takes(connector: &Connector, found: &mut Vec<Warning>) {
    let bytes = |key| match connector.get(key) {
        Some(text) if text.contains("${") => None,
        Some(text) => Some(text.parse::<u64>().unwrap_or(0)),
        None => Some(1 << 20),
    };
    for key in ["producer.override.max.request.size", "topic.creation.default.max.message.bytes"] {
        if let Some(size @ ..MESSAGE_BYTES_MIN) = bytes(key) {
            found.push(Warning::new(
                key,
                format!("it is {size} bytes: a row larger than that, and an update carries it twice, ends the connector's task"),
                "set both to 16777216, and `message.max.bytes` of the broker",
            ));
        }
    }
    let creates = connector.get("topic.creation.default.partitions").is_some();
    if creates && connector.get("topic.creation.default.cleanup.policy").is_some_and(|p| p.contains("compact")) {
        found.push(Warning::new(
            "topic.creation.default.cleanup.policy",
            "a compacted topic forgets all but the last event of a key; what was not read yet is a gap",
            "set it to `delete`, with `retention.ms` above the longest pause of `lode`",
        ));
    }
    if known(connector, "producer.override.acks").is_some_and(|acks| !matches!(acks, "all" | "-1")) {
        let why = "an event that one broker has may be lost with it";
        found.push(Warning::new("producer.override.acks", why, "set it to `all`"));
    }
}

/// A setting's value unless only the environment, or Connect, knows it.
fn known<'a>(connector: &'a Connector, key: &str) -> Option<&'a str> {
    connector.get(key).filter(|value| !value.contains("${"))
}

fn keys_matching(connector: &Connector, wanted: impl Fn(&str) -> bool) -> Vec<&str> {
    connector.config.keys().map(String::as_str).filter(|key| wanted(key)).collect()
}

fn operations(letters: &[&str]) -> String {
    let names: Vec<&str> = letters
        .iter()
        .map(|letter| match *letter {
            "c" => "an insert",
            "u" => "an update",
            "d" => "a delete",
            "t" => "a TRUNCATE",
            other => other,
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::tests::connector;

    /// A configuration that loses nothing.
    const SOUND: &[(&str, &str)] = &[
        ("skipped.operations", "none"),
        ("bigint.unsigned.handling.mode", "precise"),
        ("decimal.handling.mode", "string"),
        ("tombstones.on.delete", "false"),
        ("producer.override.max.request.size", "16777216"),
        ("topic.creation.default.max.message.bytes", "${MESSAGE_BYTES}"),
    ];

    /// The settings warned of when these are added to the sound ones.
    fn warned(more: &[(&str, &str)]) -> Vec<String> {
        let kept = SOUND.iter().filter(|(key, _)| !more.iter().any(|(k, _)| k == key));
        let all: Vec<_> = kept.chain(more).copied().collect();
        advise(&connector(&all)).into_iter().map(|w| w.what).collect()
    }

    #[test]
    fn a_configuration_that_loses_nothing_has_no_warning() {
        assert_eq!(warned(&[]), Vec::<String>::new());
    }

    #[test]
    fn debezium_s_own_defaults_are_warned_of() {
        let found: Vec<String> = advise(&connector(&[])).into_iter().map(|w| w.what).collect();
        assert_eq!(
            found,
            [
                "skipped.operations",
                "bigint.unsigned.handling.mode",
                "producer.override.max.request.size",
                "topic.creation.default.max.message.bytes",
            ]
        );
    }

    #[test]
    fn every_setting_that_loses_data_is_warned_of_alone() {
        for (key, value) in [
            ("skipped.operations", "d,t"),
            ("snapshot.mode", "no_data"),
            ("snapshot.mode", "recovery"),
            ("snapshot.mode", "initial_only"),
            ("include.schema.changes", "false"),
            ("event.processing.failure.handling.mode", "skip"),
            ("event.deserialization.failure.handling.mode", "warn"),
            ("inconsistent.schema.handling.mode", "warn"),
            ("errors.tolerance", "all"),
            ("snapshot.select.statement.overrides.shop.orders", "SELECT 1"),
            ("message.key.columns", "shop.orders:customer_id"),
            ("decimal.handling.mode", "double"),
            ("bigint.unsigned.handling.mode", "long"),
            ("time.precision.mode", "connect"),
            ("column.exclude.list", "shop.orders.note"),
            ("column.include.list", "shop.orders.id"),
            ("column.mask.hash.SHA-256.with.salt.x", "shop.customers.email"),
            ("column.truncate.to.20.chars", "shop.products.text"),
            ("producer.override.max.request.size", "1048576"),
            ("producer.override.acks", "1"),
        ] {
            assert_eq!(warned(&[(key, value)]), [key], "{key} = {value}");
        }
    }

    #[test]
    fn transforms_that_drop_deletes_or_the_order_are_warned_of() {
        let unwrap = [("transforms", "u"), ("transforms.u.type", "io.debezium.transforms.ExtractNewRecordState")];
        assert_eq!(warned(&unwrap), ["transforms.u.delete.tombstone.handling.mode", "transforms.u.add.fields"]);
        let whole = [
            unwrap[0],
            unwrap[1],
            ("transforms.u.delete.tombstone.handling.mode", "rewrite"),
            ("transforms.u.add.fields", "op,table,source.file:f,source.pos,source.row"),
        ];
        assert_eq!(warned(&whole), Vec::<String>::new());
    }

    #[test]
    fn a_warning_shows_what_the_operations_are() {
        let found = advise(&connector(&[SOUND[1], SOUND[4], SOUND[5], ("skipped.operations", "d,t")]));
        assert_eq!(
            found[0].why,
            "it is `d,t`: no event tells of a delete, a TRUNCATE, and the lake keeps those rows as they were"
        );
    }
}
