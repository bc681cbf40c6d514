//! The modules of transforms/ through the host, end to end.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use serde_json::json;

use super::{batch, built, decimals, driving, module, named};
use crate::transform::{Engine, Limits};

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn texts(array: &ArrayRef) -> Vec<Option<String>> {
    array.as_string::<i32>().iter().map(|v| v.map(str::to_owned)).collect()
}

#[test]
fn customers_are_masked_and_the_rest_goes_through() {
    let customers = batch(vec![
        ("customer_id", decimals(&[Some(1), Some(2), Some(3)], 20, 0)),
        ("email", strings(&[Some("maria@example.com"), Some("ö@x.de"), None])),
        ("full_name", strings(&[Some("Maria"), None, Some("Nobody")])),
        ("phone", strings(&[Some("+49 30 12-34"), None, Some("none")])),
        ("_op", strings(&[Some("c"), Some("u"), Some("r")])),
    ]);
    let module = module("shop_customers");
    let prepared = module.describe(&json!({}), &[driving("customers", &customers, &["customer_id"])]).unwrap();
    assert_eq!(prepared.key(), ["customer_id"]);
    assert_eq!(prepared.columns().len(), 4);
    let applied = prepared.apply(&customers).unwrap();
    assert_eq!(applied.rows.schema(), *prepared.schema());
    let names: Vec<&str> = named(&applied.rows).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["customer_id", "email", "full_name", "phone"]);
    let text = |name: &str| texts(applied.rows.column_by_name(name).unwrap());
    assert_eq!(text("email"), [Some("m***@example.com".into()), Some("ö***@x.de".into()), None]);
    assert_eq!(text("phone"), [Some("+49301234".into()), None, None]);
    assert_eq!(applied.rows.column(0).to_data(), customers.column(0).to_data());
    assert_eq!(applied.rows.column(2).to_data(), customers.column(2).to_data());
    assert_eq!((applied.source_rows, applied.rejected, applied.failed, applied.calls), (None, vec![], 0, 1));
}

#[test]
fn a_wrong_column_name_is_answered_with_the_nearest() {
    let customers = batch(vec![("e_mail", strings(&[None])), ("phone", strings(&[None]))]);
    let error = module("shop_customers").describe(&json!({}), &[driving("customers", &customers, &[])]).err().unwrap();
    assert_eq!(
        error.to_string(),
        "module `shop_customers` does not take this table: table `customers` has no column `email`; did you mean `e_mail`?"
    );
}

#[test]
fn a_slice_of_a_batch_and_an_empty_batch_go_through() {
    let customers = batch(vec![
        ("email", strings(&[Some("a@b"), Some("cc@dd"), None, Some("e@f")])),
        ("phone", strings(&[None, Some("1"), Some("2"), Some("3")])),
    ]);
    let module = module("shop_customers");
    let prepared = module.describe(&json!({}), &[driving("customers", &customers, &[])]).unwrap();
    let applied = prepared.apply(&customers.slice(1, 3)).unwrap();
    assert_eq!(texts(applied.rows.column(0)), [Some("c***@dd".into()), None, Some("e***@f".into())]);
    assert_eq!(texts(applied.rows.column(1)), [Some("1".into()), Some("2".into()), Some("3".into())]);
    assert_eq!(prepared.apply(&customers.slice(0, 0)).unwrap().rows.num_rows(), 0);
}

#[test]
fn pending_orders_are_left_out_and_the_rest_has_a_month() {
    let micros = |values: &[Option<i64>]| Arc::new(TimestampMicrosecondArray::from(values.to_vec())) as ArrayRef;
    let orders = batch(vec![
        ("order_id", decimals(&[Some(1), Some(2), Some(3), Some(4)], 20, 0)),
        ("status", strings(&[Some("paid"), Some("pending"), None, Some("shipped")])),
        ("placed_at", micros(&[Some(1_767_225_599_999_999), Some(0), None, Some(-1)])),
    ]);
    let prepared = module("shop_orders").describe(&json!({}), &[driving("orders", &orders, &["order_id"])]).unwrap();
    let applied = prepared.apply(&orders).unwrap();
    assert_eq!(applied.source_rows.as_deref(), Some(&[0, 2, 3][..]));
    assert!(applied.rejected.is_empty());
    let months = texts(applied.rows.column_by_name("order_month").unwrap());
    assert_eq!(months, [Some("2025-12".into()), None, Some("1969-12".into())]);
    assert_eq!(texts(applied.rows.column(1)), [Some("paid".into()), None, Some("shipped".into())]);
}

#[test]
fn line_totals_are_exact_and_one_that_overflows_is_rejected() {
    let items = batch(vec![
        ("order_id", decimals(&[Some(1); 3], 20, 0)),
        ("qty", Arc::new(Int64Array::from(vec![Some(3), None, Some(i64::MAX)])) as ArrayRef),
        ("unit_price", decimals(&[Some(1_999), Some(1), Some(999_999_999_999)], 12, 2)),
    ]);
    let prepared =
        module("shop_order_items").describe(&json!({}), &[driving("order_items", &items, &["order_id"])]).unwrap();
    let applied = prepared.apply(&items).unwrap();
    let totals = applied.rows.column_by_name("line_total").unwrap();
    assert_eq!(totals.to_data(), decimals(&[Some(5_997), None], 24, 2).to_data());
    assert_eq!(applied.rejected, [(2, "line_total has more than 24 digits".to_owned())]);
    assert_eq!((applied.failed, applied.calls), (0, 1));
}

#[test]
fn a_customer_fans_out_to_one_row_an_interest() {
    let customers = batch(vec![
        ("customer_id", decimals(&[Some(7), Some(8), Some(9), Some(10)], 20, 0)),
        ("interests", strings(&[Some("books,garden,tech"), None, Some(""), Some("toys")])),
    ]);
    let prepared =
        module("shop_tags").describe(&json!({}), &[driving("customers", &customers, &["customer_id"])]).unwrap();
    assert_eq!(prepared.key(), ["customer_id", "interest"]);
    assert!(!prepared.schema().field(1).is_nullable());
    let applied = prepared.apply(&customers).unwrap();
    assert_eq!(applied.source_rows.as_deref(), Some(&[0, 0, 0, 3][..]));
    assert_eq!(applied.rows.column(0).to_data(), decimals(&[Some(7), Some(7), Some(7), Some(10)], 20, 0).to_data());
    assert_eq!(
        texts(applied.rows.column(1)).into_iter().flatten().collect::<Vec<_>>(),
        ["books", "garden", "tech", "toys"]
    );
}

#[test]
fn products_are_cleaned() {
    let products = batch(vec![("sku", strings(&[Some("ab-1 ")])), ("title", strings(&[Some(" Big   chair ")]))]);
    let prepared = module("shop_products").describe(&json!({}), &[driving("products", &products, &[])]).unwrap();
    let applied = prepared.apply(&products).unwrap();
    assert_eq!(texts(applied.rows.column(0)), [Some("AB-1".into())]);
    assert_eq!(texts(applied.rows.column(1)), [Some("Big chair".into())]);
}

#[test]
fn a_batch_larger_than_a_call_goes_in_several() {
    let engine = Engine::new(Limits { input_rows: 100, ..Limits::default() }).unwrap();
    let module = engine.load(&built("shop_tags"), "shop_tags").unwrap();
    let interests: Vec<Option<String>> = (0..250).map(|n| (n % 3 != 0).then(|| format!("i{n},j{n}"))).collect();
    let customers = batch(vec![
        ("customer_id", decimals(&(0..250).map(Some).collect::<Vec<_>>(), 20, 0)),
        ("interests", Arc::new(StringArray::from(interests)) as ArrayRef),
    ]);
    let applied =
        module.describe(&json!({}), &[driving("c", &customers, &["customer_id"])]).unwrap().apply(&customers).unwrap();
    assert_eq!(applied.calls, 3);
    let expected: Vec<u32> = (0..250).filter(|n| n % 3 != 0).flat_map(|n| [n, n]).collect();
    assert_eq!(applied.source_rows, Some(expected.clone()));
    let names = texts(applied.rows.column(1));
    assert_eq!(names.last(), Some(&Some("j248".to_owned())));
    assert_eq!(names.len(), expected.len());
}

#[test]
fn the_same_rows_give_the_same_rows_from_many_threads() {
    let customers = batch(vec![("email", strings(&[Some("a@b"), None])), ("phone", strings(&[Some("12"), Some("x")]))]);
    let prepared = module("shop_customers").describe(&json!({}), &[driving("customers", &customers, &[])]).unwrap();
    let expected = prepared.apply(&customers).unwrap().rows;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(prepared.apply(&customers).unwrap().rows, expected);
                }
            });
        }
    });
}
