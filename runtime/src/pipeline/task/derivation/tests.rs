//! Derivations without a table: rows in, rows out, by guests written by hand.

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Int64Type};

use super::*;
use crate::lake::tests::{fields, lake, spec};
use crate::lake::{KeyedTable, Settings, TableSpec};
use crate::pipeline::observe::report::Reporter;
use crate::transform::tests::ENGINE;
use crate::transform::tests::guests::{Guest, trapping_on};

/// The value that makes [`fragile`] trap.
const BAD: i64 = 13;

fn module(guest: &Guest) -> Module {
    ENGINE.load(&guest.wasm(), "guest").unwrap()
}

/// Gives the column `id` back under the name `out`.
fn sound() -> Module {
    module(&Guest::default())
}

/// The same, but traps on [`BAD`].
fn fragile() -> Module {
    module(&trapping_on(BAD))
}

/// `id` and `v` of the table `orders`, whose key is `id`.
fn source() -> TableSchema {
    TableSchema {
        database: "shop".into(),
        table: "orders".into(),
        fields: fields(),
        key: vec![0],
        defaults: vec![None, None],
        renamed: 0,
    }
}

/// A batch as it is offered of [`source`].
fn input(ids: &[i64]) -> RecordBatch {
    let count = ids.len();
    let sequences = Decimal128Array::from_iter_values(0..count as i128).with_precision_and_scale(38, 0).unwrap();
    let times = TimestampMicrosecondArray::from(vec![None::<i64>; count]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.to_vec())),
        Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("v{id}")))),
        Arc::new(StringArray::from(vec!["c"; count])),
        Arc::new(sequences),
        Arc::new(times),
    ];
    RecordBatch::try_new(offered(&source().fields), columns).unwrap()
}

struct Table {
    derivation: Derivation,
    serving: Arc<Serving>,
    table: KeyedTable,
    _lake: tempfile::TempDir,
}

impl Table {
    async fn of(module: Option<Module>) -> Self {
        let serving = Arc::new(Serving::new(Arc::new(Reporter::new("shop", false))));
        let module = module.map(|module| (module, Value::Null));
        let derivation = Derivation::new(&TableId::silver("orders"), module, Arc::clone(&serving), Arc::default());
        let described = derivation.describe(&Offer::of_source(&source())).unwrap();
        let (dir, root) = lake();
        let key = if derivation.is_copy() { "id" } else { "_key_id" };
        let spec = TableSpec { fields: Arc::clone(described.fields()), key: vec![key.into()], ..spec() };
        let at = root.table("silver/orders").unwrap();
        let table = KeyedTable::open_or_create(at, spec, Settings::default()).await.unwrap();
        let mut this = Table { derivation, serving, table, _lake: dir };
        this.describe();
        this
    }

    /// As a task does once its table has the columns.
    fn describe(&mut self) {
        let offer = Offer::of_source(&source());
        let described = self.derivation.describe(&offer).unwrap();
        self.derivation.take_up(described, offer, self.table.columns());
    }

    fn take_over(&mut self, module: Module) {
        let before = self.derivation.exchange(module, Value::Null);
        self.describe();
        self.derivation.begin_probation(before);
    }

    async fn derive(&self, ids: &[i64]) -> Result<Derived> {
        self.derivation.derive(input(ids), self.table.schema()).await
    }

    fn serves(&self) -> Option<String> {
        self.serving.get(&TableId::silver("orders")).map(|(module, _)| module.sha256())
    }
}

fn numbers(rows: &RecordBatch, column: &str) -> Vec<i64> {
    rows.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn a_copy_has_the_tables_columns_and_every_row() {
    let table = Table::of(None).await;
    let columns = vec![
        Arc::new(Field::new("v", DataType::Utf8, true)),
        Arc::new(Field::new("id", DataType::Int64, false)),
        Arc::new(Field::new("later", DataType::Int64, true)),
    ];
    let to = Arc::new(Schema::new(columns));
    let derived = table.derivation.derive(input(&[1, BAD]), &to).await.unwrap();
    assert_eq!(derived.rows.schema(), to);
    assert_eq!(numbers(&derived.rows, "id"), [1, BAD]);
    assert_eq!(derived.rows.column_by_name("later").unwrap().null_count(), 2);
    assert!(derived.source_rows.is_none() && derived.rejected.is_empty());
}

#[tokio::test]
async fn key_columns_that_a_module_leaves_out_are_kept_beside_its_own() {
    let table = Table::of(Some(sound())).await;
    let names: Vec<&str> = table.table.schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["out", "_key_id"]);
    let derived = table.derive(&[5, 6]).await.unwrap();
    assert_eq!(numbers(&derived.rows, "out"), [5, 6]);
    assert_eq!(numbers(&derived.rows, "_key_id"), [5, 6]);
    assert_eq!(derived.used.calls, 1);
}

#[tokio::test]
async fn a_row_that_makes_the_module_fail_is_rejected_with_its_reason_and_the_rest_goes_on() {
    let table = Table::of(Some(fragile())).await;
    let derived = table.derive(&[5, BAD, 6]).await.unwrap();
    assert_eq!(numbers(&derived.rows, "out"), [5, 6]);
    assert_eq!(numbers(&derived.rows, "_key_id"), [5, 6], "kept columns are those of the rows that are left");
    assert_eq!(derived.source_rows, Some(vec![0, 2]));
    let [(row, reason)] = derived.rejected.as_slice() else { panic!("{:?}", derived.rejected) };
    assert_eq!(*row, 1);
    assert!(reason.contains("trapped"), "{reason}");
}

#[tokio::test]
async fn nothing_in_nothing_out_and_no_module_is_asked() {
    let table = Table::of(Some(sound())).await;
    let derived = table.derive(&[]).await.unwrap();
    assert_eq!((derived.rows.num_rows(), derived.used.calls), (0, 0));
    assert_eq!(derived.rows.schema(), *table.table.schema());
}

#[tokio::test]
async fn a_module_on_probation_that_rejects_too_much_makes_room_for_the_one_before() {
    let mut table = Table::of(Some(sound())).await;
    table.take_over(fragile());
    assert_eq!(table.serves(), Some(fragile().sha256()));
    // two of ten are more than a hundredth, and few enough not to stop a table
    let ids = [1, 2, BAD, 4, 5, BAD, 7, 8, 9, 10];
    let derived = table.derive(&ids).await;
    assert_eq!(derived.as_ref().unwrap().rejected.len(), 2);
    let failure = table.derivation.judge(&derived, ids.len()).expect("it makes room");
    assert!(failure.to_string().contains("failed on `2` of `10` rows"), "{failure}");
    table.derivation.roll_back(&failure);
    table.describe();
    assert_eq!(table.serves(), Some(sound().sha256()));
    let derived = table.derive(&ids).await;
    assert_eq!(numbers(&derived.as_ref().unwrap().rows, "out"), ids);
    assert!(table.derivation.judge(&derived, ids.len()).is_none(), "the one before is on no probation");
}

#[tokio::test]
async fn a_module_on_probation_that_fails_on_every_row_makes_room() {
    let mut table = Table::of(Some(sound())).await;
    table.take_over(module(&Guest { transform: "unreachable".into(), ..Guest::default() }));
    let ids: Vec<i64> = (0..50).collect();
    let derived = table.derive(&ids).await;
    assert_eq!(derived.as_ref().unwrap_err().kind(), ErrorKind::Module);
    assert!(table.derivation.judge(&derived, ids.len()).is_some());
}

#[tokio::test]
async fn a_module_that_has_served_for_long_stays() {
    let mut table = Table::of(Some(sound())).await;
    table.take_over(fragile());
    for _ in 0..PROBATION_BATCHES {
        let derived = table.derive(&[1]).await;
        assert!(table.derivation.judge(&derived, 1).is_none());
    }
    let derived = table.derive(&[BAD, 1]).await;
    assert!(table.derivation.judge(&derived, 2).is_none());
    assert_eq!(table.serves(), Some(fragile().sha256()));
}

#[tokio::test]
async fn a_module_that_does_not_fit_changes_nothing() {
    let mut table = Table::of(Some(sound())).await;
    // a relation that is not there
    let other = module(&Guest { reads: vec![[7, 0]], ..Guest::default() });
    let before = table.derivation.exchange(other, Value::Null);
    assert!(table.derivation.describe(&Offer::of_source(&source())).is_err());
    table.derivation.put_back(before);
    assert_eq!(numbers(&table.derive(&[3]).await.unwrap().rows, "out"), [3]);
}

#[tokio::test]
async fn a_module_reads_the_columns_of_a_table_that_is_looked_up() {
    let serving = Arc::new(Serving::new(Arc::new(Reporter::new("shop", false))));
    // the first column of the second table
    let guest = Guest { reads: vec![[1, 0]], ..Guest::default() };
    let mut derivation =
        Derivation::new(&TableId::silver("orders"), Some((module(&guest), Value::Null)), serving, Arc::default());
    let mut offer = Offer::of_source(&source());
    let rate = Arc::new(Schema::new(vec![Field::new("rate", DataType::Int64, true)]));
    offer.tables.push(Offered { name: "rates".into(), columns: rate, key: vec!["rate".into()] });
    let described = derivation.describe(&offer).unwrap();
    let fields = Arc::clone(described.fields());
    let mut columns = input(&[1, 2]).columns().to_vec();
    let mut all: Vec<Arc<Field>> = input(&[1]).schema().fields().iter().cloned().collect();
    all.push(Arc::new(Field::new("rates.rate", DataType::Int64, true)));
    columns.push(Arc::new(Int64Array::from(vec![70, 80])));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(all)), columns).unwrap();
    assert!(offer.is_met_by(&batch));
    assert!(!offer.is_met_by(&input(&[1])), "the column that is looked up is missing");
    let table = Table::of(None).await;
    derivation.take_up(described, offer, table.table.columns());
    let derived = derivation.derive(batch, &fields).await.unwrap();
    assert_eq!(numbers(&derived.rows, "out"), [70, 80]);
    assert_eq!(numbers(&derived.rows, "_key_id"), [1, 2]);
}
