//! Where things are: the built programs, the modules, the captures, the Python of the checkers.
//!
//! What is made outside the clone can be named by an environment variable; a place that is missing is a failure that says
//! how to get it, never a skipped test.

use std::env;
use std::path::{Path, PathBuf};

/// Root of the workspace.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Folder of the built programs, found from the test binary (`<target>/debug/deps/it-…`).
pub fn programs() -> PathBuf {
    let this = env::current_exe().expect("path of the running test");
    let folder = this.parent().expect("folder of the running test");
    if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_path_buf() } else { folder.to_path_buf() }
}

/// The program `name`; fails when it was not built or is older than its sources.
pub fn program(name: &str) -> PathBuf {
    let path = match env::var_os(format!("{}_BIN", name.to_uppercase())) {
        Some(path) => return PathBuf::from(path),
        None => programs().join(name),
    };
    assert!(path.is_file(), "`{}` is not built; hint: `make build` (or `make test`)", path.display());
    if let Some(newer) = newer_source(&path) {
        panic!("`{}` is older than `{newer}`; hint: `make build` (or `make test`)", path.display());
    }
    path
}

/// A source file that was changed after `program` was linked, by the list that cargo leaves beside it.
fn newer_source(program: &Path) -> Option<String> {
    let built = program.metadata().and_then(|m| m.modified()).ok()?;
    let list = std::fs::read_to_string(program.with_extension("d")).ok()?;
    let (_, sources) = list.split_once(": ")?;
    let newer = |path: &&str| Path::new(path).metadata().and_then(|m| m.modified()).is_ok_and(|t| t > built);
    sources.split_whitespace().find(newer).map(str::to_owned)
}

/// A compiled module, e.g. `shop_customers.wasm`.
pub fn module(name: &str) -> PathBuf {
    let folder = match env::var_os("LODE_MODULES") {
        Some(folder) => PathBuf::from(folder),
        None => programs().parent().map(|target| target.join("modules")).unwrap_or_default(),
    };
    let path = folder.join(name);
    assert!(path.is_file(), "module `{}` is not built; hint: `make modules`", path.display());
    path
}

/// A file or folder of `tests/captures`; fails when it is not there.
pub fn capture(name: &str) -> PathBuf {
    let path = script("captures").join(name);
    assert!(path.exists(), "`{}` is missing; hint: `git restore tests` brings it back", path.display());
    path
}

/// A file of the example `shop`.
pub fn example(name: &str) -> PathBuf {
    workspace().join("examples/shop").join(name)
}

/// A script or file of this package.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Python with Polars and deltalake, made by `scripts/setup.sh`.
pub fn python() -> PathBuf {
    if let Some(path) = env::var_os("LODE_PYTHON") {
        return PathBuf::from(path);
    }
    let cache = match env::var_os("LODE_CACHE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/lodestream"),
    };
    let path = cache.join("venv/bin/python");
    assert!(path.exists(), "`{}` is missing; hint: `scripts/setup.sh` makes it", path.display());
    path
}
