//! What the source meets at a broker: topics made anew, transactions, refusals.

use std::collections::BTreeMap;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::capture::{Capture, Event};
use lodestream_tests::lake;
use lodestream_tests::lode::LIMIT;
use lodestream_tests::pipeline::Wanted;

use crate::variants::{OPEN_B, seed};

/// The events of each Kafka partition up to `share` of them, in the capture's own order.
fn beginning(capture: &Capture, share: impl Fn(&Event) -> f64) -> Capture {
    let mut lengths: BTreeMap<(&str, i32), f64> = BTreeMap::new();
    for event in &capture.events {
        *lengths.entry((&event.topic, event.partition)).or_default() += 1.0;
    }
    let kept = |e: &&Event| (e.offset as f64) < lengths[&(e.topic.as_str(), e.partition)] * share(e);
    Capture { events: capture.events.iter().filter(kept).cloned().collect() }
}

#[test]
fn a_topic_made_anew_stops_its_table_and_no_other() {
    let capture = OPEN_B.capture();
    let is_orders = |event: &Event| event.topic.ends_with(".orders");
    let folder = tempfile::tempdir().expect("temporary folder");
    let (early, anew) = (folder.path().join("early.jsonl.gz"), folder.path().join("anew.jsonl.gz"));
    // The structures are all there from the start: rows without one would be set aside at the end of the first run.
    beginning(&capture, |event| if event.topic.contains('.') { 0.5 } else { 1.0 }).write(&early).expect("capture");
    beginning(&capture, |event| if is_orders(event) { 0.25 } else { 1.0 }).write(&anew).expect("capture");

    let broker = Broker::start(&early, seed("early"), Pace::AllAtOnce);
    let pipeline = OPEN_B.through(&broker, &Wanted::default());
    pipeline.run_until_end();
    drop(broker);
    let broker = Broker::start(&anew, seed("anew"), Pace::AllAtOnce);
    pipeline.write(OPEN_B.name, &OPEN_B.source(&broker), &Wanted::default());
    let ended = pipeline.start_until_end().end(LIMIT).expect_code(1);
    let told = ended.err.contains("open_b.shop.orders") && ended.err.contains("lode rebuild");
    assert!(told, "{}", ended.last_words());
    lake::expect_silver(&pipeline, &OPEN_B.truth, Some("customers,products,order_items"));
}

#[test]
fn the_markers_of_transactions_are_read_past_once() {
    let broker = Broker::start_with_markers(&OPEN_B.file(), seed("markers"), 2);
    let pipeline = OPEN_B.through(&broker, &Wanted::default());
    pipeline.run_until_end();
    OPEN_B.expect_exact(&pipeline);
    let before = lake::commits(&pipeline.lake());
    pipeline.run_until_end();
    assert_eq!(lake::commits(&pipeline.lake()), before, "the positions are past the markers already");
}
