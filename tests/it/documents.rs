//! What the documents and the lists claim is there.

use std::fs;
use std::path::Path;

use lodestream_tests::lode::FAILPOINTS;
use lodestream_tests::places;

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("`{}`: {e}", path.display()))
}

/// All test sources of this package as one text.
fn sources() -> String {
    let files = fs::read_dir(places::script("it")).expect("folder of the tests").flatten().map(|entry| entry.path());
    files.map(|path| text(&path)).collect()
}

/// All Rust sources below `folder` as one text.
fn below(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("`{}`: {e}", folder.display())).flatten();
    let texts = entries.map(|entry| match entry.path() {
        path if path.is_dir() => below(&path),
        path if path.extension().is_some_and(|ext| ext == "rs") => text(&path),
        _ => String::new(),
    });
    texts.collect()
}

#[test]
fn every_promise_names_a_test_that_exists() {
    // promises that need no process are held by unit tests
    let sources = sources() + &below(&places::workspace().join("runtime/src"));
    let promises = text(&places::workspace().join("GUARANTEES.md"));
    let is_test = |word: &&str| word.len() > 25 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let named: Vec<&str> = promises.split('`').filter(is_test).collect();
    assert!(named.len() > 15, "no tests named in GUARANTEES.md");
    for name in named {
        let there = sources.contains(&format!("fn {name}(")) || sources.contains(&format!("    {name} OPEN_"));
        assert!(there, "GUARANTEES.md names `{name}`, which does not exist");
    }
}

#[test]
fn every_failpoint_of_the_program_is_hit_by_a_test() {
    let source = text(&places::workspace().join("runtime/src/failpoint.rs"));
    let list = source.split("NAMES").nth(1).and_then(|rest| rest.split("];").next()).unwrap_or_default();
    let names: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert_eq!(names, FAILPOINTS);
    let sources = sources();
    for name in names {
        assert!(sources.contains(&format!("\"{name}")), "no test hits `{name}`");
    }
}

#[test]
fn the_way_of_a_record_names_functions_that_are_there() {
    let page = text(&places::workspace().join("ARCHITECTURE.md"));
    let source = places::workspace().join("runtime/src");
    let mut seen = 0;
    for row in page.lines().filter(|line| line.starts_with("| `") && line.contains(".rs`")) {
        let cells: Vec<&str> = row.split('|').collect();
        let [_, file, functions, ..] = cells.as_slice() else { panic!("a row of the table: {row}") };
        let code = text(&source.join(file.trim().trim_matches('`')));
        for name in functions.split('`').skip(1).step_by(2) {
            assert!(code.contains(&format!("fn {name}(")), "`{name}` is not in {file}");
            seen += 1;
        }
    }
    assert!(seen > 12, "{seen} functions");
}
