//! Silver through a module equals an independent fold with the same rule.

use std::fs;

use std::process::Command;
use std::time::Duration;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::lake::{self, Truth};
use lodestream_tests::pipeline::{Pipeline, Source, Wanted};
use lodestream_tests::places;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::faults::kill_while_working;
use crate::streaming::silver_is_level;
use crate::variants::{OPEN_A, OPEN_B, OPEN_C, OPEN_D, OPEN_E, OPEN_M_A, OPEN_M_B, Variant, seed};

const LIMIT: Duration = Duration::from_secs(120);
/// Kills of each run through all the modules; the tables alone are killed oftener in `faults`.
const KILLS: usize = 4;
/// Tables behind a module, by their sections in the pipeline file.
const BEHIND_MODULES: &str = "customers,orders,order_items,products,customer_interests";

/// The database `shop` as `pipelines/shop.toml` has it.
fn shop(flush_rows: u32) -> Wanted {
    let sections = "[silver.customers]\ntransform = \"shop_customers.wasm\"\n\n\
                    [silver.orders]\ntransform = \"shop_orders.wasm\"\npartition_by = [\"order_month\"]\n\n\
                    [silver.order_items]\ntransform = \"shop_order_items.wasm\"\n\n\
                    [silver.products]\ntransform = \"shop_products.wasm\"\n\n\
                    [silver.customer_interests]\nfrom = \"customers\"\ntransform = \"shop_tags.wasm\"\n";
    Wanted { flush_rows, sections: sections.to_owned(), ..Wanted::default() }
}

fn place_shop(pipeline: &Pipeline) {
    for name in ["customers", "orders", "order_items", "products", "tags"] {
        place_module(pipeline, &format!("shop_{name}.wasm"));
    }
}

/// Silver equals the database's final state with the modules' rules applied to it by somebody else.
#[track_caller]
fn expect_shop(pipeline: &Pipeline, truth: &Truth, tables: &str) {
    let made = pipeline.folder().join("truth");
    let mut rules = Command::new(places::python());
    lake::expect_success(rules.arg(places::script("shop_truth.py")).arg(places::capture(truth.folder)).arg(&made));
    lake::expect_silver_as(pipeline, &made, truth, tables);
}

/// Every module, partitions mixed at random, killed on the way. A column that the database added later is empty in rows
/// that a module wrote before; a rebuild fills it.
fn through_the_shop(variant: Variant) {
    let seed = seed(variant.name);
    let pipeline = variant.replayed_mixed(seed, &shop(20));
    place_shop(&pipeline);
    kill_while_working(&pipeline, &mut StdRng::seed_from_u64(seed), KILLS, || pipeline.start_until_end());
    pipeline.run_until_end();
    expect_shop(&pipeline, &variant.truth, "orders,order_items,products,customer_interests");
    pipeline.output("rebuild", pipeline.command(&["rebuild"], &["silver.customers"])).expect_code(0);
    expect_shop(&pipeline, &variant.truth, BEHIND_MODULES);
    lake::expect_bronze(&pipeline, &variant.file());
    assert_eq!(pipeline.dead_letters().len(), variant.dead);
}

macro_rules! through_the_shop {
    ($($test:ident $variant:expr;)*) => {
        $(#[test] fn $test() { through_the_shop($variant); })*
    };
}

through_the_shop! {
    capture_a_through_the_shop_modules_is_the_truth_by_their_rules OPEN_A;
    capture_b_through_the_shop_modules_is_the_truth_by_their_rules OPEN_B;
    capture_c_through_the_shop_modules_is_the_truth_by_their_rules OPEN_C;
    capture_d_through_the_shop_modules_is_the_truth_by_their_rules OPEN_D;
    capture_e_through_the_shop_modules_is_the_truth_by_their_rules OPEN_E;
    capture_m_a_through_the_shop_modules_is_the_truth_by_their_rules OPEN_M_A;
    capture_m_b_through_the_shop_modules_is_the_truth_by_their_rules OPEN_M_B;
}

#[test]
fn every_table_rebuilt_from_bronze_is_what_it_was() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    pipeline.run_until_end();
    for table in ["orders", "click_log", "inventory", "product_categories"] {
        let table = format!("silver.{table}");
        pipeline.output("rebuild", pipeline.command(&["rebuild"], &[&table])).expect_code(0);
    }
    OPEN_B.expect_exact(&pipeline);
    // The stream goes on from where the rebuild ended: there is nothing left to do.
    let ended = pipeline.run_until_end();
    assert!(ended.out.contains("0 records read"), "{}", ended.out);
    OPEN_B.expect_exact(&pipeline);
    let unknown = pipeline.output("rebuild", pipeline.command(&["rebuild"], &["silver.ordrs"])).expect_code(2);
    assert!(unknown.err.contains("no table `silver.ordrs`"), "{}", unknown.err);
}

#[test]
fn a_rebuild_beside_the_stream_takes_over_and_the_stream_goes_on() {
    let seed = seed("rebuild beside the stream");
    let mut broker = Broker::start(&OPEN_B.file(), seed, Pace::PerSecond(100));
    let pipeline = OPEN_B.through(&broker, &Wanted::default());
    let mut run = pipeline.start();
    let has = |pipeline: &Pipeline, table: &str| pipeline.lake().join("silver").join(table).join("_delta_log").exists();
    assert!(run.wait_until(LIMIT, || has(&pipeline, "orders") && has(&pipeline, "click_log")), "{}", run.last_words());
    for table in ["silver.orders", "silver.click_log", "silver.orders"] {
        pipeline.output("rebuild", pipeline.command(&["rebuild"], &[table])).expect_code(0);
    }
    // One that is killed leaves nothing that anybody sees.
    let mut killed = pipeline.launch_words("rebuild-killed", &["rebuild"], &["silver.order_items"]);
    killed.wait_until(LIMIT, || pipeline.lake().join("silver/order_items/_lode/g1/log").exists());
    killed.kill();
    broker.finish();
    let records = OPEN_B.capture().events.len() as i64;
    assert!(run.wait_until(LIMIT, || silver_is_level(&pipeline, 15, records)), "{}", run.last_words());
    assert!(run.signal("TERM"));
    run.end(LIMIT).expect_code(0);
    OPEN_B.expect_exact(&pipeline);
}

#[test]
fn a_table_rebuilt_with_a_module_is_as_if_the_module_had_always_been_there() {
    let source = Source::Replay(OPEN_B.file());
    let pipeline = Pipeline::new(OPEN_B.name, &source, &Wanted::default());
    pipeline.run_until_end();
    lake::expect_fold(&pipeline, &OPEN_B.file(), "customers", "as_is");
    place_shop(&pipeline);
    pipeline.write(OPEN_B.name, &source, &shop(1000));
    for table in ["customers", "orders", "order_items", "products"] {
        let table = format!("silver.{table}");
        pipeline.output("rebuild", pipeline.command(&["rebuild"], &[&table])).expect_code(0);
    }
    expect_shop(&pipeline, &OPEN_B.truth, "customers,orders,order_items,products");
}

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
