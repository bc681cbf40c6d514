//! Each capture, through a file and through a broker, gives the database's own final state.

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::lake;
use lodestream_tests::pipeline::{Source, Wanted};

use crate::variants::{OPEN_A, OPEN_B, OPEN_C, OPEN_D, OPEN_E, OPEN_M_A, OPEN_M_B, Variant, seed};

fn replay_is_exact(variant: Variant) {
    let pipeline = variant.replayed(&Wanted::default());
    pipeline.run_until_end();
    variant.expect_exact(&pipeline);
}

fn mixed_replay_is_exact(variant: Variant) {
    let pipeline = variant.replayed_mixed(seed(variant.name), &Wanted { flush_rows: 50, ..Wanted::default() });
    pipeline.run_until_end();
    variant.expect_exact(&pipeline);
}

fn broker_is_exact(variant: Variant) {
    let broker = Broker::start(&variant.file(), seed(variant.name), Pace::AllAtOnce);
    let pipeline = variant.through(&broker, &Wanted { flush_rows: 50, ..Wanted::default() });
    pipeline.run_until_end();
    variant.expect_exact(&pipeline);
}

macro_rules! for_each_capture {
    ($step:ident: $($test:ident $variant:expr;)*) => {
        $(#[test] fn $test() { $step($variant); })*
    };
}

for_each_capture! { replay_is_exact:
    capture_a_by_replay_gives_the_databases_state OPEN_A;
    capture_b_by_replay_gives_the_databases_state OPEN_B;
    capture_c_by_replay_gives_the_databases_state OPEN_C;
    capture_d_by_replay_gives_the_databases_state OPEN_D;
    capture_e_by_replay_gives_the_databases_state OPEN_E;
    capture_m_a_by_replay_gives_the_databases_state OPEN_M_A;
    capture_m_b_by_replay_gives_the_databases_state OPEN_M_B;
}

for_each_capture! { mixed_replay_is_exact:
    capture_a_in_any_order_of_partitions_gives_the_same OPEN_A;
    capture_b_in_any_order_of_partitions_gives_the_same OPEN_B;
    capture_c_in_any_order_of_partitions_gives_the_same OPEN_C;
    capture_d_in_any_order_of_partitions_gives_the_same OPEN_D;
    capture_e_in_any_order_of_partitions_gives_the_same OPEN_E;
    capture_m_a_in_any_order_of_partitions_gives_the_same OPEN_M_A;
    capture_m_b_in_any_order_of_partitions_gives_the_same OPEN_M_B;
}

for_each_capture! { broker_is_exact:
    capture_a_from_a_broker_in_small_flushes_gives_the_databases_state OPEN_A;
    capture_b_from_a_broker_in_small_flushes_gives_the_databases_state OPEN_B;
    capture_c_from_a_broker_in_small_flushes_gives_the_databases_state OPEN_C;
    capture_d_from_a_broker_in_small_flushes_gives_the_databases_state OPEN_D;
    capture_e_from_a_broker_in_small_flushes_gives_the_databases_state OPEN_E;
    capture_m_a_from_a_broker_in_small_flushes_gives_the_databases_state OPEN_M_A;
    capture_m_b_from_a_broker_in_small_flushes_gives_the_databases_state OPEN_M_B;
}

#[test]
fn a_second_run_over_the_same_capture_commits_nothing() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    pipeline.run_until_end();
    let commits = lake::commits(&pipeline.lake());
    assert!(commits > 0, "the first run committed nothing");
    pipeline.run_until_end();
    assert_eq!(lake::commits(&pipeline.lake()), commits);
    OPEN_B.expect_exact(&pipeline);
}

#[test]
fn a_capture_in_two_files_of_growing_length_continues_where_it_stopped() {
    let whole = OPEN_B.capture().interleaved(seed("growing"));
    let pipeline = OPEN_B.replayed(&Wanted::default());
    let file = pipeline.folder().join("growing.jsonl.gz");
    for part in [3, 2, 1] {
        let mut capture = whole.clone();
        capture.events.truncate(whole.events.len() / part);
        capture.write(&file).expect("capture");
        pipeline.write(OPEN_B.name, &Source::Replay(file.clone()), &Wanted::default());
        pipeline.run_until_end();
    }
    OPEN_B.expect_exact(&pipeline);
}

#[test]
fn queries_count_what_the_database_holds() {
    let pipeline = OPEN_B.replayed(&Wanted::default());
    pipeline.run_until_end();
    let count = |sql: &str| pipeline.query(sql)[0]["n"].as_u64().expect("a count");
    for table in ["customers", "order_items", "click_log"] {
        let rows = lake::rows_in_truth(&OPEN_B.truth, table);
        assert_eq!(count(&format!("SELECT count(*) AS n FROM silver.{table}")), rows, "{table}");
    }
    let sent = OPEN_B.capture().events.iter().filter(|e| e.topic == "open_b.shop.customers").count();
    let bronze = count("SELECT count(*) AS n FROM bronze.\"open_b.shop.customers\"");
    assert_eq!(usize::try_from(bronze), Ok(sent));
    let joined = "SELECT count(*) AS n FROM silver.orders o JOIN silver.customers c ON o.customer_id = c.customer_id";
    assert_eq!(count(joined), lake::rows_in_truth(&OPEN_B.truth, "orders"));
}
