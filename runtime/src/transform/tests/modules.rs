//! The modules of transforms/ through the host, end to end.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use serde_json::json;

use super::{batch, decimals, driving, module, named};

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
