//! Silver through a module equals an independent fold with the same rule.

use std::fs;

use lodestream_tests::lake;
use lodestream_tests::pipeline::{Pipeline, Wanted};
use lodestream_tests::places;

use crate::variants::OPEN_B;

/// Customers through a module, in small flushes.
pub(crate) fn masked() -> Wanted {
    let section = "[silver.customers]\nfrom = \"customers\"\ntransform = \"shop_customers.wasm\"\n";
    Wanted { flush_rows: 50, sections: section.to_owned(), ..Wanted::default() }
}

/// Puts a module beside the pipeline file.
pub(crate) fn place_module(pipeline: &Pipeline, name: &str) {
    fs::copy(places::module(name), pipeline.folder().join(name)).expect("a copy of the module");
}

#[test]
fn customers_through_a_module_equal_an_independent_fold() {
    let pipeline = OPEN_B.replayed(&masked());
    place_module(&pipeline, "shop_customers.wasm");
    pipeline.run_until_end();
    lake::expect_fold(&pipeline, &OPEN_B.file(), "customers", "shop_customers");
    lake::expect_silver(&pipeline, &OPEN_B.truth, Some("orders,order_items,payments"));
    lake::expect_bronze(&pipeline, &OPEN_B.file());
}
