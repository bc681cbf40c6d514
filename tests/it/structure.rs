//! How the runtime's source is laid out: data order is import order, and a file is one idea.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lodestream_tests::places;

/// The rooms of `runtime/src` in the order in which the data meets them, the nouns that everybody shares first.
const ROOMS: [&str; 15] = [
    "error",
    "model",
    "config",
    "failpoint",
    "source",
    "decode",
    "buffer",
    "transform",
    "lake",
    "gold",
    "connector",
    "pipeline",
    "server",
    "demo",
    "cli",
];
/// The rooms within a room, each before those that build on it.
const INNER_ROOMS: [(&str, &[&str]); 4] = [
    ("model", &["sequence", "positions", "record", "schema", "change", "table_id"]),
    ("decode", &["format", "value", "dialect", "order", "schema"]),
    (
        "lake",
        &[
            "failure",
            "location",
            "freshness",
            "log",
            "file",
            "append",
            "keyed",
            "upkeep",
            "feed",
            "query",
            "dead_letters",
        ],
    ),
    (
        "pipeline",
        &["settings", "observe", "connector", "ancestry", "task", "relay", "control", "sharing", "topics", "rebuild"],
    ),
];
/// Lines of a file at most.
const LINES_MAX: usize = 500;
/// Files that are longer, with what they may have.
const LONGER: [(&str, usize); 2] = [("config.rs", 580), ("lake/feed.rs", 540)];
/// Lines of a function at most.
const FUNCTION_LINES_MAX: usize = 64;
/// Functions that are longer: a table of the demo's columns, in one piece.
const LONGER_FUNCTIONS: [(&str, &str); 1] = [("demo/schema.rs", "columns")];

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

/// Imports of the files below the folder `below` (empty, or with its slash) that go to a later room: from, to, file.
fn upward(files: &BTreeMap<String, String>, below: &str, rooms: &[&str]) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (file, text) in files {
        let Some(inner) = file.strip_prefix(below) else { continue };
        let from = inner.split(['/', '.']).next().unwrap_or_default();
        let Some(own) = rooms.iter().position(|room| *room == from) else { continue };
        for to in imported(file, &code(text), below) {
            if rooms.iter().position(|room| *room == to).is_some_and(|other| other > own) {
                found.push((from.to_owned(), to, inner.to_owned()));
            }
        }
    }
    found
}

/// What `text` names directly below the folder `below`, by `crate::` or by `super::`.
fn imported(file: &str, text: &str, below: &str) -> Vec<String> {
    let module: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    let depth = below.matches('/').count();
    let path = format!("crate::{}", below.replace('/', "::"));
    let mut named: Vec<&str> = text.split(&path).skip(1).collect();
    let mut rest = text;
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let mut ups = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, ups) = (after, ups + 1);
        }
        if module.len().checked_sub(ups) == Some(depth) {
            named.push(rest);
        }
    }
    let word =
        |text: &str| text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
    let mut all = Vec::new();
    for rest in named {
        match rest.strip_prefix('{') {
            None => all.extend(word(rest)),
            Some(group) => {
                let group = group.split(';').next().unwrap_or_default();
                let mut level = 0;
                let outer: String = group
                    .chars()
                    .filter(|c| {
                        level += i32::from(*c == '{') - i32::from(*c == '}');
                        level == 0
                    })
                    .collect();
                all.extend(outer.split(',').filter_map(word));
            }
        }
    }
    all
}

#[test]
fn no_room_of_the_runtime_imports_a_later_one() {
    let files = sources();
    for room in files.keys().filter_map(|file| file.split(['/', '.']).next()) {
        assert!(ROOMS.contains(&room) || ["lib", "main"].contains(&room), "where does the room `{room}` stand?");
    }
    let found = upward(&files, "", &ROOMS);
    assert!(found.is_empty(), "imports of a later room: {found:?}");
    for (room, inner) in INNER_ROOMS {
        let found = upward(&files, &format!("{room}/"), inner);
        assert!(found.is_empty(), "within `{room}`: {found:?}");
    }
}

#[test]
fn an_import_of_a_later_room_is_found() {
    let text = "//! use crate::cli::one;\nuse crate::pipeline::two;\nuse super::{SEQ, log::{file, keyed}, feed};\nuse super::super::demo::three;\n#[cfg(test)]\nmod tests {\n    use crate::demo;\n}\n";
    let files = BTreeMap::from([("lake/keyed.rs".to_owned(), text.to_owned())]);
    let found = |below, rooms: &[&str]| {
        upward(&files, below, rooms).into_iter().map(|(from, to, _)| format!("{from} {to}")).collect::<Vec<_>>()
    };
    assert_eq!(found("", &ROOMS), ["lake pipeline", "lake demo"]);
    let (_, inner) = INNER_ROOMS.iter().find(|(room, _)| *room == "lake").expect("the rooms of `lake`");
    assert_eq!(found("lake/", inner), ["keyed feed"]);
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

/// The functions of a file with their numbers of lines, as rustfmt lays them out.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some((before, rest)) = line.split_once("fn ") else { continue };
        if !before
            .split_whitespace()
            .all(|word| word.starts_with("pub") || ["async", "const", "in"].contains(&word) || word.ends_with(')'))
        {
            continue;
        }
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let end = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[at..].iter().position(|line| *line == end).filter(|_| !line.ends_with(';')) {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn a_function_can_be_taken_in_at_a_glance() {
    let mut seen = 0;
    for (file, text) in sources() {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (name, lines) in functions(text) {
            seen += 1;
            let may_be_long = LONGER_FUNCTIONS.contains(&(file.as_str(), name.as_str()));
            assert!(may_be_long || lines <= FUNCTION_LINES_MAX, "`{name}` in `{file}` has {lines} lines");
        }
    }
    assert!(seen > 1000, "{seen} functions");
    let long = format!("    pub(super) async fn one(\n{}    }}\n", "        two();\n".repeat(70));
    assert_eq!(functions(&long), [("one".to_owned(), 72)]);
}
