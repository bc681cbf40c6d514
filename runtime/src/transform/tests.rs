//! Tests of the host against real and hostile guests.

mod faults;
mod gate_fuzz;
pub(crate) mod guests;
mod modules;
mod pieces;
mod probing;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::{Engine, Limits, Module, Relation};

/// One engine for all tests that need no limits of their own, so that a module is compiled once.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Limits::default()).unwrap());

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Builds a workspace of modules (at once where nothing changed) and gives the folder they are in. Its target directory
/// is not that of this test run, whose lock cargo holds.
fn build(workspace: &str) -> PathBuf {
    let target = match std::env::var_os("MODULES_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => repository().join("transforms/target"),
    };
    let folder = target.join("modules");
    let run = Command::new(repository().join("scripts/build-modules.sh"))
        .arg(&folder)
        .env_remove("CARGO_TARGET_DIR")
        .env("MODULES_TARGET_DIR", target)
        .env("MODULES_WORKSPACE", repository().join(workspace))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    folder
}

/// The bytes of a module of transforms/.
fn built(name: &str) -> Vec<u8> {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| build("transforms"));
    std::fs::read(FOLDER.join(format!("{name}.wasm"))).unwrap()
}

/// The bytes of the module in tests/probe.
fn probe() -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> =
        LazyLock::new(|| std::fs::read(build("runtime/src/transform/tests/probe").join("probe.wasm")).unwrap());
    &BYTES
}

fn module(name: &str) -> Module {
    ENGINE.load(&built(name), name).unwrap()
}

/// A batch of nullable columns.
fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

/// A batch's own schema, with its key columns not null, as the driving relation.
fn driving<'a>(name: &'a str, batch: &RecordBatch, key: &[&str]) -> Relation<'a> {
    let fields =
        batch.schema_ref().fields().iter().map(|f| f.as_ref().clone().with_nullable(!key.contains(&f.name().as_str())));
    Relation {
        name,
        schema: Arc::new(Schema::new(fields.collect::<Vec<Field>>())),
        key: key.iter().map(|k| (*k).to_owned()).collect(),
    }
}

fn decimals(values: &[Option<i128>], precision: u8, scale: i8) -> ArrayRef {
    let array = arrow::array::Decimal128Array::from(values.to_vec());
    Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
}

fn named(batch: &RecordBatch) -> Vec<(&str, &DataType)> {
    batch.schema_ref().fields().iter().map(|f| (f.name().as_str(), f.data_type())).collect()
}
