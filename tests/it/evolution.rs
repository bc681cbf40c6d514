//! Structures that change while rows flow: whatever the order in which the topics arrive, and however often the program is
//! ended, Silver is what the database holds.

use lodestream_tests::capture::Capture;
use lodestream_tests::pipeline::{Pipeline, Source as Records, Wanted};
use lodestream_tests::source::Source;
use serde_json::{Value, json};

use crate::variants::seed;

/// How the records of the topics come in.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    Mixed,
    SchemaFirst,
    SchemaLast,
    /// what the first record tells is known, the rest comes after every row
    SchemaLate,
}

const ARRIVALS: [Arrival; 4] = [Arrival::Mixed, Arrival::SchemaFirst, Arrival::SchemaLast, Arrival::SchemaLate];

impl Arrival {
    fn of(self, capture: &Capture, seed: u64) -> Capture {
        let mut mixed = capture.interleaved(seed);
        match self {
            Arrival::Mixed => {}
            Arrival::SchemaFirst => mixed.events.sort_by_key(|e| e.topic != "db"),
            Arrival::SchemaLast => mixed.events.sort_by_key(|e| e.topic == "db"),
            Arrival::SchemaLate => mixed.events.sort_by_key(|e| if e.topic != "db" { 1 } else { 2 * e.offset.min(1) }),
        }
        mixed
    }
}

fn wanted() -> Wanted {
    Wanted { flush_rows: 3, ..Wanted::default() }
}

/// A pipeline over `capture`, not yet run.
fn over(capture: &Capture, wanted: &Wanted) -> Pipeline {
    let pipeline = Pipeline::new("evolution", &Records::Replay("events.jsonl.gz".into()), wanted);
    capture.write(&pipeline.folder().join("events.jsonl.gz")).expect("capture");
    pipeline
}

fn silver(pipeline: &Pipeline, table: &str, columns: &str) -> Vec<Value> {
    pipeline.query(&format!("SELECT {columns} FROM silver.{table} ORDER BY id"))
}

/// Every arrival, without a break and ended after each of the first commits; `check` sees the lake each time.
fn expect(name: &str, source: &Source, check: impl Fn(&Pipeline)) {
    let seed = seed(name);
    for arrival in ARRIVALS {
        let capture = arrival.of(source.capture(), seed);
        for ended in [false, true] {
            println!("{name}: {arrival:?}, ended after commits: {ended}");
            let pipeline = over(&capture, &wanted());
            for nth in 1..=if ended { 3 } else { 0 } {
                let run = pipeline.command(&["run"], &["--until-end"]);
                pipeline.output_failing_at(&format!("flush.after_commit:{nth}"), run);
            }
            pipeline.run_until_end();
            check(&pipeline);
            assert_eq!(pipeline.dead_letters(), [], "{arrival:?}");
            pipeline.run_until_end();
            check(&pipeline);
        }
    }
}

#[test]
fn a_renamed_column_carries_its_values_under_the_new_name() {
    let mut db = Source::new(2);
    db.create("t", &[("id", "INT"), ("a", "VARCHAR"), ("n", "INT")]);
    for id in 1..=6 {
        db.put("t", json!({"id": id, "a": format!("a{id}"), "n": id}));
    }
    db.alter(
        "t",
        "ALTER TABLE t RENAME COLUMN a TO b",
        &[("id", "INT"), ("b", "VARCHAR"), ("n", "INT")],
        &[("a", "b")],
    );
    db.put("t", json!({"id": 2, "b": "b2", "n": 20}));
    db.delete("t", 3);
    // the old name is given to a new column, and the key is renamed as well
    db.alter(
        "t",
        "ALTER TABLE t CHANGE `n` `count` BIGINT, ADD COLUMN a VARCHAR(9)",
        &[("id", "INT"), ("b", "VARCHAR"), ("count", "BIGINT"), ("a", "VARCHAR")],
        &[("n", "count")],
    );
    db.put("t", json!({"id": 4, "b": "b4", "count": 40, "a": "new"}));
    db.put("t", json!({"id": 7, "b": "b7", "count": 7_000_000_000_i64, "a": null}));
    db.tell_again();
    db.put("t", json!({"id": 1, "b": "b1", "count": null, "a": "one"}));
    expect("renamed_column", &db, |pipeline| {
        let rows = pipeline.query("SELECT * FROM silver.t ORDER BY id");
        let bare: Vec<Value> = rows.into_iter().map(without_own).collect();
        assert_eq!(bare, db.rows("t"));
    });
}

/// A row without the columns that the table adds.
fn without_own(row: Value) -> Value {
    let Value::Object(row) = row else { panic!("a row is an object") };
    row.into_iter().filter(|(name, _)| !name.starts_with('_')).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn columns_that_swap_their_names_swap_their_values() {
    let mut db = Source::new(1);
    let columns = [("id", "INT"), ("a", "VARCHAR"), ("b", "VARCHAR")];
    db.create("t", &columns);
    for id in 1..=4 {
        db.put("t", json!({"id": id, "a": "left", "b": "right"}));
    }
    let ddl = "ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN b TO a";
    db.alter("t", ddl, &[("id", "INT"), ("b", "VARCHAR"), ("a", "VARCHAR")], &[("a", "b"), ("b", "a")]);
    db.put("t", json!({"id": 2, "b": "was a", "a": "was b"}));
    expect("swapped_columns", &db, |pipeline| assert_eq!(silver(pipeline, "t", "id, a, b"), db.rows("t")));
}

#[test]
fn a_truncate_that_only_the_schema_change_topic_tells_voids_what_is_older() {
    for hidden in [true, false] {
        let mut db = Source::new(3);
        db.create("t", &[("id", "INT"), ("a", "VARCHAR")]);
        for id in 1..=9 {
            db.put("t", json!({"id": id, "a": "old"}));
        }
        db.delete("t", 4);
        db.truncate("t", hidden);
        for id in [2, 4, 11] {
            db.put("t", json!({"id": id, "a": "new"}));
        }
        db.tell_again();
        db.put("t", json!({"id": 12, "a": "last"}));
        expect("truncate", &db, |pipeline| assert_eq!(silver(pipeline, "t", "id, a"), db.rows("t")));
    }
}

#[test]
fn a_truncate_is_followed_though_no_row_comes_after_it() {
    let mut db = Source::new(2);
    db.create("t", &[("id", "INT"), ("a", "VARCHAR")]);
    for id in 1..=5 {
        db.put("t", json!({"id": id, "a": "old"}));
    }
    let before = db.capture().clone();
    db.truncate("t", true);
    let pipeline = over(&before, &wanted());
    pipeline.run_until_end();
    assert_eq!(silver(&pipeline, "t", "id").len(), 5);
    db.capture().write(&pipeline.folder().join("events.jsonl.gz")).expect("capture");
    pipeline.run_until_end();
    assert_eq!(silver(&pipeline, "t", "id").len(), 0);
    let commits = lodestream_tests::lake::commits(&pipeline.lake());
    pipeline.run_until_end();
    assert_eq!(lodestream_tests::lake::commits(&pipeline.lake()), commits, "the truncate was followed again");
}

#[test]
fn a_dropped_table_keeps_its_last_rows_until_it_is_made_anew() {
    let mut db = Source::new(3);
    db.create("t", &[("id", "INT"), ("a", "VARCHAR")]);
    for id in 1..=7 {
        db.put("t", json!({"id": id, "a": "old"}));
    }
    let last = db.rows("t");
    db.drop("t");
    expect("dropped", &db, |pipeline| assert_eq!(silver(pipeline, "t", "id, a"), last));
    db.create("t", &[("id", "INT"), ("b", "INT"), ("a", "VARCHAR")]);
    for id in [3, 8] {
        db.put("t", json!({"id": id, "b": id, "a": null}));
    }
    expect("made_anew", &db, |pipeline| assert_eq!(silver(pipeline, "t", "id, b, a"), db.rows("t")));
}

#[test]
fn an_incompatible_change_is_followed_set_aside_or_stops_the_table_as_the_file_says() {
    let mut db = Source::new(1);
    db.create("wider", &[("id", "INT"), ("n", "INT")]);
    db.create("other", &[("id", "INT"), ("n", "INT")]);
    for id in 1..=2 {
        db.put("wider", json!({"id": id, "n": 1}));
        db.put("other", json!({"id": id, "n": 1}));
    }
    db.alter("wider", "ALTER TABLE wider MODIFY n BIGINT", &[("id", "INT"), ("n", "BIGINT")], &[]);
    db.alter("other", "ALTER TABLE other MODIFY n VARCHAR(9)", &[("id", "INT"), ("n", "VARCHAR")], &[]);
    db.put("wider", json!({"id": 2, "n": 9_000_000_000_i64}));
    db.put("other", json!({"id": 2, "n": "two"}));
    let rows = |n: i64| vec![json!({"id": 1, "n": 1}), json!({"id": 2, "n": n})];
    for (policy, followed, letters) in [("evolve", 9_000_000_000, 1), ("dead_letter", 1, 2), ("stop", 1, 0)] {
        let capture = Arrival::SchemaFirst.of(db.capture(), seed("policy"));
        let pipeline = over(&capture, &Wanted { flush_rows: 1, ..Wanted::default() });
        let text = std::fs::read_to_string(pipeline.file()).expect("pipeline file");
        std::fs::write(pipeline.file(), format!("on_incompatible = {policy:?}\n{text}")).expect("pipeline file");
        let ended = pipeline.start_until_end().end(lodestream_tests::lode::LIMIT);
        let told = ended.err.contains("silver `other`") && ended.err.contains("hint: ");
        assert_eq!(told, policy == "stop", "{policy}: {}", ended.last_words());
        ended.expect_code(i32::from(policy == "stop"));
        assert_eq!(silver(&pipeline, "wider", "id, n"), rows(followed), "{policy}");
        assert_eq!(silver(&pipeline, "other", "id, n"), rows(1), "{policy}");
        assert_eq!(pipeline.dead_letters().len(), letters, "{policy}");
    }
}

#[test]
fn rows_of_a_table_that_got_another_key_are_set_aside() {
    let mut db = Source::new(1);
    db.create("t", &[("id", "INT"), ("n", "INT")]);
    db.put("t", json!({"id": 1, "n": 1}));
    let before = db.rows("t");
    let mut capture = db.capture().clone();
    db.alter("t", "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (n)", &[("id", "INT"), ("n", "INT")], &[]);
    db.put("t", json!({"id": 1, "n": 2}));
    let changed =
        |text: String| text.replace("\"primaryKeyColumnNames\":[\"id\"]", "\"primaryKeyColumnNames\":[\"n\"]");
    for mut event in db.capture().events[capture.events.len()..].iter().cloned() {
        event.value = event.value.map(|v| changed(String::from_utf8(v).expect("text")).into_bytes());
        event.key = event.key.map(|_| b"{\"n\":2}".to_vec());
        capture.events.push(event);
    }
    let pipeline = over(&capture, &wanted());
    pipeline.run_until_end();
    assert_eq!(silver(&pipeline, "t", "id, n"), before);
    assert_eq!(pipeline.dead_letters().len(), 1);
}

#[test]
fn a_snapshot_of_the_connector_made_anew_takes_away_what_it_did_not_read() {
    let mut db = Source::new(2);
    db.create("t", &[("id", "INT"), ("a", "VARCHAR")]);
    for id in 1..=6 {
        db.put("t", json!({"id": id, "a": "old"}));
    }
    db.delete_unseen("t", 2);
    db.delete_unseen("t", 5);
    db.snapshot("t", true, |_| true);
    db.put("t", json!({"id": 7, "a": "new"}));
    db.put("t", json!({"id": 1, "a": "new"}));
    expect("whole_snapshot", &db, |pipeline| assert_eq!(silver(pipeline, "t", "id, a"), db.rows("t")));
}

#[test]
fn a_snapshot_that_was_asked_for_takes_nothing_away() {
    let mut db = Source::new(2);
    db.create("t", &[("id", "INT"), ("a", "VARCHAR")]);
    for id in 1..=8 {
        db.put("t", json!({"id": id, "a": "old"}));
    }
    db.snapshot("t", false, |id| id < 4);
    db.put("t", json!({"id": 2, "a": "new"}));
    db.snapshot_beside("t", |id| id > 6);
    db.put("t", json!({"id": 9, "a": "new"}));
    db.delete("t", 8);
    db.snapshot("t", false, |id| id == 3);
    expect("partial_snapshots", &db, |pipeline| assert_eq!(silver(pipeline, "t", "id, a"), db.rows("t")));
}

#[test]
fn a_renamed_table_goes_on_under_its_new_name_with_every_row() {
    let mut db = Source::new(2);
    db.create("a", &[("id", "INT"), ("x", "VARCHAR")]);
    for id in 1..=6 {
        db.put("a", json!({"id": id, "x": "cleared"}));
    }
    db.truncate("a", true);
    for id in 2..=7 {
        db.put("a", json!({"id": id, "x": "old"}));
    }
    db.delete("a", 4);
    db.rename("a", "b");
    expect("renamed_table_quiet", &db, |pipeline| assert_eq!(silver(pipeline, "b", "id, x"), db.rows("b")));
    db.put("b", json!({"id": 5, "x": "new"}));
    db.delete("b", 6);
    db.put("b", json!({"id": 8, "x": "new"}));
    db.alter("b", "ALTER TABLE b CHANGE x y VARCHAR(9)", &[("id", "INT"), ("y", "VARCHAR")], &[("x", "y")]);
    db.rename("b", "c");
    db.put("c", json!({"id": 2, "y": "newest"}));
    // a table of the old name has nothing to do with it
    db.create("a", &[("id", "INT"), ("x", "VARCHAR")]);
    db.put("a", json!({"id": 3, "x": "another"}));
    expect("renamed_table", &db, |pipeline| {
        assert_eq!(silver(pipeline, "c", "id, y"), db.rows("c"));
        assert_eq!(silver(pipeline, "a", "id, x"), db.rows("a"));
    });
}

#[test]
fn an_online_change_that_swaps_a_table_and_its_copy_keeps_every_row() {
    let mut db = Source::new(2);
    db.create("t", &[("id", "INT"), ("a", "VARCHAR")]);
    for id in 1..=5 {
        db.put("t", json!({"id": id, "a": "old"}));
    }
    db.swap("t", "_t_old", "_t_new", &[("id", "INT"), ("a", "VARCHAR"), ("n", "INT")]);
    db.put("t", json!({"id": 2, "a": "new", "n": 2}));
    db.delete("t", 3);
    db.put("t", json!({"id": 6, "a": "new", "n": null}));
    expect("swapped_table", &db, |pipeline| {
        assert_eq!(silver(pipeline, "t", "id, a, n"), db.rows("t"));
        assert!(!pipeline.lake().join("silver/_t_old").exists());
    });
}

#[test]
fn a_name_that_another_table_had_is_not_mixed_with_it() {
    let mut db = Source::new(1);
    db.create("a", &[("id", "INT"), ("x", "VARCHAR")]);
    db.create("b", &[("id", "INT"), ("x", "VARCHAR")]);
    for id in 1..=3 {
        db.put("a", json!({"id": id, "x": "a"}));
        db.put("b", json!({"id": id + 2, "x": "b"}));
    }
    let before = db.capture().clone();
    db.drop("b");
    db.rename("a", "b");
    db.put("b", json!({"id": 2, "x": "new"}));
    let seed = seed("reused_name");
    let made_anew = |pipeline: &Pipeline| {
        std::fs::remove_dir_all(pipeline.lake().join("silver/b")).expect("the table's folder");
        pipeline.run_until_end();
    };
    for arrival in ARRIVALS {
        let pipeline = over(&arrival.of(db.capture(), seed), &wanted());
        let ended = pipeline.start_until_end().end(lodestream_tests::lode::LIMIT);
        // the dropped table's rows may have been committed before the topic told of the renaming
        if ended.err.contains("remove `silver/b` from the lake") {
            made_anew(&pipeline);
        }
        assert_eq!(silver(&pipeline, "b", "id, x"), db.rows("b"), "{arrival:?}");
    }

    // a table that holds the other's rows already stops, and is right once it is made anew
    let pipeline = over(&before, &wanted());
    pipeline.run_until_end();
    Arrival::SchemaFirst.of(db.capture(), 1).write(&pipeline.folder().join("events.jsonl.gz")).expect("capture");
    let ended = pipeline.start_until_end().end(lodestream_tests::lode::LIMIT).expect_code(1);
    assert!(ended.err.contains("remove `silver/b` from the lake"), "{}", ended.last_words());
    made_anew(&pipeline);
    assert_eq!(silver(&pipeline, "b", "id, x"), db.rows("b"));
}
