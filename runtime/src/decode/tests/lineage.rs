//! Names that tables had, told by statements.

use crate::decode::{Lineage, SchemaHistory, TableName, topic_of};
use crate::model::record::Record;

fn name(table: &str) -> TableName {
    TableName { database: "shop".into(), table: table.into() }
}

fn history(statements: &[(u64, &str, &str, &str)]) -> SchemaHistory {
    let mut history = SchemaHistory::new();
    for (at, (pos, kind, id, ddl)) in statements.iter().enumerate() {
        let columns = serde_json::json!([{"name": "id", "typeName": "INT", "position": 1, "optional": false}]);
        let structure = serde_json::json!({"primaryKeyColumnNames": ["id"], "columns": columns});
        let record = serde_json::json!({
            "source": {"file": "binlog.000001", "pos": pos, "ts_ms": pos, "snapshot": "false"}, "databaseName": "shop",
            "ddl": ddl, "tableChanges": [{"type": kind, "id": id, "table": (*kind != "DROP").then_some(structure)}]
        });
        let value = record.to_string();
        let value = Some(value.as_bytes());
        history.apply(Record { offset: at as i64, timestamp_ms: 0, key: None, value, headers: b"" }).unwrap();
    }
    history
}

fn ancestors(history: &SchemaHistory, table: &str) -> Vec<(String, u64)> {
    let lineage = history.lineage(&name(table));
    lineage.ancestors.into_iter().map(|a| (a.table.table, a.until.position.pos)).collect()
}

#[test]
fn names_lead_back_to_the_first_in_every_form_that_tells_them() {
    let history = history(&[
        (1, "CREATE", "\"shop\".\"a\"", "CREATE TABLE a"),
        (2, "ALTER", "\"shop\".\"b\"", "RENAME TABLE a TO b"),
        (3, "ALTER", "\"shop\".\"b\",\"shop\".\"c\"", ""),
        (4, "ALTER", "\"shop\".\"d\"", "shop.c TO d"),
        (5, "CREATE", "\"shop\".\"a\"", "CREATE TABLE a"),
    ]);
    let chain = [("c".to_owned(), 4), ("b".to_owned(), 3), ("a".to_owned(), 2)];
    assert_eq!(ancestors(&history, "d"), chain);
    assert_eq!(history.lineage(&name("a")), Lineage::default());
    assert_eq!(history.renamed_tables(), [name("d")]);
    assert_eq!(history.renamed_to(&name("c")), Some(&name("d")));
    assert_eq!(history.renamed_to(&name("a")), None);
    assert_eq!(topic_of("p.q.shop.d", &name("c")).as_deref(), Some("p.q.shop.c"));
}

#[test]
fn names_that_were_taken_are_told() {
    let history = history(&[
        (1, "CREATE", "\"shop\".\"t\"", "CREATE TABLE t"),
        (2, "ALTER", "\"shop\".\"old\"", "RENAME TABLE t TO old, new TO t"),
        (2, "ALTER", "\"shop\".\"t\"", "RENAME TABLE t TO old, new TO t"),
        (3, "CREATE", "\"shop\".\"u\"", "CREATE TABLE u"),
        (4, "DROP", "\"shop\".\"u\"", "DROP TABLE u"),
        (5, "ALTER", "\"shop\".\"u\"", "RENAME TABLE old TO u"),
    ]);
    let swapped = history.lineage(&name("t"));
    assert_eq!((swapped.ancestors, swapped.replaced_by), (vec![], Some(name("new"))));
    let reused = history.lineage(&name("u"));
    assert_eq!(reused.since.map(|m| m.position.pos), Some(5));
    assert_eq!(ancestors(&history, "u"), [("old".to_owned(), 5), ("t".to_owned(), 2)]);
}
