//! How the runtime's source is laid out: data order is import order, and a file is one idea.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lodestream_tests::places;

/// The rooms of `runtime/src` in the order in which the data meets them, the nouns that everybody shares first.
const ROOMS: [&str; 20] = [
    "error",
    "table_id",
    "sequence",
    "schema",
    "record",
    "change",
    "config",
    "failpoint",
    "source",
    "decode",
    "buffer",
    "transform",
    "table",
    "query",
    "deadletter",
    "connector",
    "pipeline",
    "server",
    "demo",
    "cli",
];
/// The rooms of `decode`, those that build on others after them.
const ROOMS_OF_DECODE: [&str; 5] = ["format", "value", "dialect", "order", "schema"];
/// Imports of a later room: the name of the dead letters' table is all that queries know of them.
const UPWARD: [(&str, &str); 1] = [("query", "deadletter")];
/// Lines of a file at most.
const LINES_MAX: usize = 500;
/// Files that are longer, with what they may have.
const LONGER: [(&str, usize); 3] = [("config.rs", 580), ("table/changes.rs", 540), ("pipeline.rs", 510)];

/// The source files without their tests: path below `runtime/src`, text.
fn sources() -> BTreeMap<String, String> {
    let root = places::workspace().join("runtime/src");
    let mut found = BTreeMap::new();
    gather(&root, &root, &mut found);
    assert!(found.len() > 100, "{} files", found.len());
    found
}

fn gather(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        if name.contains("tests") {
            continue;
        }
        if path.is_dir() {
            gather(root, &path, found);
        } else if name.ends_with(".rs") {
            found.insert(name, fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// The code of a file: no comments, and nothing after its own tests begin.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Imports, by `prefix`, of the files below `below` that go to a later room: from, to, file.
fn upward(
    files: &BTreeMap<String, String>,
    below: &str,
    prefix: &str,
    rooms: &[&str],
) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (file, text) in files.iter().filter_map(|(file, text)| Some((file.strip_prefix(below)?, text))) {
        let from = file.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = rooms.iter().position(|room| *room == from) else { continue };
        for rest in code(text).split(prefix).skip(1) {
            let to = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            if rooms.iter().position(|room| *room == to).is_some_and(|other| other > own) {
                found.push((from.to_owned(), to.to_owned(), file.to_owned()));
            }
        }
    }
    found
}

#[test]
fn no_room_of_the_runtime_imports_a_later_one() {
    let files = sources();
    for room in files.keys().filter_map(|file| file.split(['/', '.']).next()) {
        assert!(ROOMS.contains(&room) || ["lib", "main"].contains(&room), "where does the room `{room}` stand?");
    }
    let mut found = upward(&files, "", "crate::", &ROOMS);
    found.retain(|(from, to, _)| !UPWARD.contains(&(from.as_str(), to.as_str())));
    assert!(found.is_empty(), "imports of a later room: {found:?}");
    let found = upward(&files, "decode/", "decode::", &ROOMS_OF_DECODE);
    assert!(found.is_empty(), "within `decode`: {found:?}");
}

#[test]
fn an_import_of_a_later_room_is_found() {
    let text =
        "//! use crate::cli::one;\nuse crate::pipeline::two;\n#[cfg(test)]\nmod tests {\n    use crate::demo;\n}\n";
    let files = BTreeMap::from([("table/keyed.rs".to_owned(), text.to_owned())]);
    let found = upward(&files, "", "crate::", &ROOMS);
    assert_eq!(found, [("table".to_owned(), "pipeline".to_owned(), "table/keyed.rs".to_owned())]);
}

#[test]
fn a_file_is_no_longer_than_one_idea() {
    for (file, text) in sources() {
        let may = LONGER.iter().find(|(name, _)| *name == file).map_or(LINES_MAX, |(_, lines)| *lines);
        let lines = text.lines().count();
        assert!(lines <= may, "`{file}` has {lines} lines: is it still one idea?");
        assert!(may == LINES_MAX || lines > LINES_MAX, "`{file}` is short enough: take it out of the list");
    }
}
