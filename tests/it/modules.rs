//! Silver through a module equals an independent fold with the same rule.

use std::fs;
use std::process::Command;

use lodestream_tests::lake;
use lodestream_tests::pipeline::Wanted;
use lodestream_tests::places;

use crate::variants::OPEN_B;

#[test]
fn customers_through_a_module_equal_an_independent_fold() {
    let wanted = Wanted {
        flush_rows: 50,
        sections: "[silver.customers]\nfrom = \"customers\"\ntransform = \"shop_customers.wasm\"\n".to_owned(),
    };
    let pipeline = OPEN_B.replayed(&wanted);
    let module = pipeline.folder().join("shop_customers.wasm");
    fs::copy(places::module("shop_customers.wasm"), module).expect("a copy of the module");
    pipeline.run_until_end();
    let mut fold = Command::new(places::python());
    fold.arg(places::script("fold.py")).arg(pipeline.lake().join("silver/customers")).arg(OPEN_B.file());
    fold.args(["customers", "--rule", "shop_customers"]);
    print!("{}", lake::expect_success(&mut fold));
    lake::expect_silver(&pipeline, &OPEN_B.truth, Some("orders,order_items,payments"));
    lake::expect_bronze(&pipeline, &OPEN_B.file());
}
