//! The example that every clone has, and that the checkers are no rubber stamps.

use std::process::Command;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::capture::Capture;
use lodestream_tests::lake;
use lodestream_tests::pipeline::{Pipeline, Source, Wanted, topics};
use lodestream_tests::places;

use crate::modules::{masked, place_module};
use crate::variants::seed;

#[test]
fn the_example_is_what_its_generator_writes() {
    let folder = tempfile::tempdir().expect("temporary folder");
    lake::expect_success(Command::new(places::python()).arg(places::example("generate.py")).arg(folder.path()));
    let made = Capture::read(&folder.path().join("events.jsonl.gz")).expect("generated capture");
    let kept = Capture::read(&places::example("events.jsonl.gz")).expect("capture of the example");
    assert!(made.events == kept.events, "hint: python3 examples/shop/generate.py examples/shop");
}

#[test]
fn the_example_through_a_broker_and_a_module_is_exact() {
    let capture = places::example("events.jsonl.gz");
    let broker = Broker::start(&capture, seed("example"), Pace::AllAtOnce);
    let source = Source::Kafka { brokers: broker.address().to_owned(), topics: topics("demo") };
    let pipeline = Pipeline::new("shop", &source, &masked());
    place_module(&pipeline, "shop_customers.wasm");
    pipeline.run_until_end();
    lake::expect_fold(&pipeline, &capture, "customers", "shop_customers");
    lake::expect_fold(&pipeline, &capture, "orders", "as_is");
    lake::expect_fold(&pipeline, &capture, "order_items", "as_is");
    lake::expect_bronze(&pipeline, &capture);
    assert_eq!(pipeline.dead_letters(), []);
}

#[test]
fn the_checkers_see_a_record_that_is_missing_changed_or_too_many() {
    let file = places::example("events.jsonl.gz");
    let pipeline = Pipeline::new("shop", &Source::Replay(file.clone()), &Wanted::default());
    pipeline.run_until_end();
    assert!(lake::bronze_holds(&pipeline, &file));
    let changes: [fn(&mut Capture); 4] = [
        |c| drop(c.events.pop()),
        |c| c.events[100].timestamp_ms += 1,
        |c| c.events[100].headers.push(("x".to_owned(), None)),
        |c| {
            let again = c.events[100].clone();
            c.insert(101, again);
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut capture = Capture::read(&file).expect("capture of the example");
        change(&mut capture);
        let other = pipeline.folder().join(format!("other-{number}.jsonl.gz"));
        capture.write(&other).expect("changed capture");
        assert!(!lake::bronze_holds(&pipeline, &other), "change {number} was not seen");
    }
}
