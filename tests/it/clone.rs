//! Whoever clones the repository has nothing beside it, so nothing in it points outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lodestream_tests::{lake, places};

/// Folders of the clone that git does not keep: what is built, what the examples write.
const MADE: [&str; 2] = ["target", "lake"];
/// Where people and machines have their own things.
const FOREIGN: [&str; 4] = ["home", "root", "Users", "work"];
/// Those that name a place have one in the clone, or in the cache, where they are not set.
const VARIABLES: [&str; 7] =
    ["LODE_CACHE", "LODE_FAILPOINT", "LODE_KEEP", "LODE_MODULES", "LODE_PYTHON", "LODE_SEED", "LODE_STACK"];

/// All files that git keeps, or would, with the folders that they lie in.
fn kept() -> BTreeSet<PathBuf> {
    let mut list = Command::new("git");
    list.arg("-C").arg(places::workspace()).args(["-c", "safe.directory=*", "-c", "core.quotePath=false", "ls-files"]);
    let list = lake::expect_success(list.args(["--cached", "--others", "--exclude-standard"]));
    list.lines().flat_map(|file| Path::new(file).ancestors()).map(Path::to_path_buf).collect()
}

/// The parts of a path, each `..` taken off the part before it. A variable is a folder nobody knows: what climbs from
/// there begins with `..`, as what climbs from nowhere does; nothing at all if it climbs from the root.
fn parts(path: &str) -> Option<Vec<&str>> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match parts.last() {
            Some(last) if part == ".." && last.contains(['$', '{']) => {
                if last.to_lowercase().trim_matches(['$', '{', '}']) == "root" {
                    return None;
                }
                parts = vec![".."];
            }
            Some(&last) if part == ".." && last != ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    Some(parts)
}

/// Whether `word`, which stands in `file`, is in the clone if it is a path that climbs: there is a folder at or above the
/// file's from which it leads to something that is there.
fn stays(word: &str, file: &Path, kept: &BTreeSet<PathBuf>) -> bool {
    let Some(parts) = parts(word) else { return false };
    let ups = parts.iter().take_while(|part| **part == "..").count();
    let rest: PathBuf = parts[ups..].iter().collect();
    let folders = file.parent().unwrap_or(file).ancestors();
    let mut leads = folders.filter_map(|from| Some(from.ancestors().nth(ups)?.join(&rest)));
    ups == 0 || leads.any(|to| kept.contains(&to) || MADE.iter().any(|made| to.starts_with(made)))
}

/// What in a line of `file` is nowhere but on somebody's own machine.
fn foreign(line: &str, file: &Path, kept: &BTreeSet<PathBuf>) -> Option<String> {
    let line = line.replace(['"', '\''], "");
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"_./-${}".contains(c));
    let found = words.find(|word| {
        let first = word.strip_prefix('/').and_then(|path| path.split('/').next());
        let mut names = word.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        first.is_some_and(|folder| FOREIGN.contains(&folder))
            || word.contains('/') && !stays(word, file, kept)
            || names.any(|name| name.starts_with("LODE_") && !is_known(name))
    });
    found.map(str::to_owned)
}

fn is_known(variable: &str) -> bool {
    variable == "LODE_" || variable.starts_with("LODE_TEST_") || VARIABLES.contains(&variable)
}

#[test]
fn nothing_in_the_clone_points_outside() {
    let (root, kept) = (places::workspace(), kept());
    let (mut texts, mut found) = (0, Vec::new());
    for file in &kept {
        let Ok(place) = root.join(file).canonicalize() else { continue };
        assert!(
            place.starts_with(root.canonicalize().expect("the clone")),
            "`{}` leads out of the clone",
            file.display()
        );
        let Some(text) = fs::read(place).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
        texts += 1;
        let lines = text.lines().zip(1..);
        let lines = lines.filter_map(|(line, n)| Some((n, foreign(line, file, &kept)?)));
        found.extend(lines.map(|(n, word)| format!("{}:{n}: `{word}`", file.display())));
    }
    assert!(texts > 200, "only {texts} texts were read");
    assert!(found.is_empty(), "these are in no other clone:\n{}", found.join("\n"));
}

#[test]
fn a_path_or_a_variable_that_leaves_the_clone_is_found() {
    let (file, kept, up) = (Path::new("scripts/stack/up.sh"), kept(), "..");
    let finds = |line: &str| foreign(line, file, &kept).is_some();
    for line in [
        format!("cd \"$here/{up}/captures\""),
        format!("cd \"$root\"/{up}"),
        format!("for folder in $here/{up}/{up}/{up}; do"),
        format!("include_str!(\"{up}/{up}/beside/text\")"),
        format!("files = /{}/me/events.jsonl", FOREIGN[0]),
        format!("${{LODE_{}:-here}}", "ELSEWHERE"),
    ] {
        assert!(finds(&line), "{line}");
    }
    for line in [
        format!("cd \"$(dirname \"$0\")/{up}/{up}\" && pwd"),
        format!("{up}/{up}/lake/bronze, {up}/{up}/pipelines/shop.toml"),
        format!("a/{up}/b, https://example.org/{}/page", FOREIGN[0]),
        "let rest = &parts[ups..]; // ${LODE_CACHE:-$HOME/.cache}".to_owned(),
    ] {
        assert!(!finds(&line), "{line}");
    }
}
