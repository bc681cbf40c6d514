//! The source against a mock broker: what it hands over, what it gives up, what it waits for.

mod broker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::model::positions::Offsets;
use broker::Broker;

/// Longest wait for anything here; waits of the source on a broker that does not answer are longer on purpose.
const LIMIT: Duration = Duration::from_secs(20);

/// A source that runs, and what it told so far.
struct Run {
    source: Source,
    runtime: tokio::runtime::Runtime,
    /// answers to `Assigned`: the next offset of a topic's only partition
    stands: BTreeMap<&'static str, i64>,
    read: BTreeMap<String, Vec<i64>>,
    headers: Vec<String>,
    /// end of what was handed over
    ends: BTreeMap<String, i64>,
    lost: BTreeMap<String, Error>,
    assigned: Vec<String>,
    /// topics whose tables cannot be opened
    unopened: BTreeSet<String>,
    /// deliveries that keep their room
    kept: Option<Vec<Delivery>>,
    drained: bool,
    /// topics that another instance writes
    followed: BTreeSet<String>,
    /// topics that are ours to write
    written: BTreeSet<String>,
}

impl Run {
    fn start(broker: &Broker, settings: Settings, budget: usize, rows: usize) -> Run {
        let settings = Settings { brokers: broker.cluster.bootstrap_servers(), ..settings };
        Run {
            source: start(settings, Budget::new(budget), rows).unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
            stands: BTreeMap::new(),
            read: BTreeMap::new(),
            headers: Vec::new(),
            ends: BTreeMap::new(),
            lost: BTreeMap::new(),
            assigned: Vec::new(),
            unopened: BTreeSet::new(),
            kept: None,
            drained: false,
            followed: BTreeSet::new(),
            written: BTreeSet::new(),
        }
    }

    /// Takes one event, if there is one soon.
    fn step(&mut self) {
        let events = &mut self.source.events;
        let wait = Duration::from_millis(10);
        let event = self.runtime.block_on(async { tokio::time::timeout(wait, events.recv()).await });
        if let Ok(event) = event {
            self.take(event.expect("the source ended without a word"));
        }
    }

    /// Takes events until `done`.
    #[track_caller]
    fn until(&mut self, done: impl Fn(&Run) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let events = &mut self.source.events;
            let event = self.runtime.block_on(async { tokio::time::timeout(left, events.recv()).await });
            let Ok(event) = event else {
                panic!(
                    "nothing more within {LIMIT:?}: read {:?}, ends {:?}, lost {:?}",
                    self.read, self.ends, self.lost
                )
            };
            self.take(event.expect("the source ended without a word"));
        }
    }

    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Found(partitions) => {
                self.assigned.extend(partitions.iter().map(|id| id.topic.to_string()));
                for id in &partitions {
                    self.begin(&id.topic);
                    self.written.insert(id.topic.to_string());
                    self.tell(&id.topic);
                }
            }
            SourceEvent::Block(delivery) => {
                let topic = delivery.block.partition().topic.to_string();
                if let Some(end) = self.ends.insert(topic.clone(), delivery.range.to) {
                    assert_eq!(end, delivery.range.from, "`{topic}`: a delivery must follow on the one before");
                }
                let headers = delivery.block.iter().map(|r| String::from_utf8(r.headers.to_vec()).unwrap());
                self.headers.extend(headers);
                self.read.entry(topic).or_default().extend(delivery.block.iter().map(|r| r.offset));
                if let Some(kept) = &mut self.kept {
                    kept.push(delivery);
                }
            }
            SourceEvent::Lost { topic, error } => {
                self.lost.insert(topic.to_string(), error);
            }
            SourceEvent::Drained => self.drained = true,
            SourceEvent::Followed(partitions) => {
                for id in &partitions {
                    self.begin(&id.topic);
                    self.followed.insert(id.topic.to_string());
                    self.source.requests.begin(&id.topic, Offsets::new(), 0);
                }
            }
            SourceEvent::Revoked { topics, done } => {
                for topic in &topics {
                    self.begin(topic);
                }
                drop(done);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Says from where a topic goes on, unless its table cannot be opened.
    fn tell(&self, topic: &Arc<str>) {
        if self.unopened.contains(&**topic) {
            return self.source.requests.wait(topic);
        }
        let id = PartitionId { topic: Arc::clone(topic), partition: 0 };
        let stands = self.stands.get(&**topic).map(|next| (id, *next));
        self.source.requests.begin(topic, stands.into_iter().collect(), 1);
    }

    /// The topic is read from its table's position again, or by another instance.
    fn begin(&mut self, topic: &str) {
        for known in [&mut self.written, &mut self.followed] {
            known.remove(topic);
        }
        self.ends.remove(topic);
        self.read.remove(topic);
    }

    fn count(&self, topic: &str) -> usize {
        self.read.get(topic).map_or(0, Vec::len)
    }

    #[track_caller]
    fn expect_all(&self, topic: &str, count: i64) {
        assert_eq!(self.read.get(topic).map(Vec::as_slice).unwrap_or_default(), (0..count).collect::<Vec<_>>());
    }

    fn end_of(&self, topic: &str) -> Option<Offsets> {
        let answer = async { tokio::time::timeout(LIMIT, self.source.requests.end_of(topic)).await };
        self.runtime.block_on(answer).expect("an answer in time")
    }
}

fn settings(until_end: bool) -> Settings {
    Settings {
        name: "test".to_owned(),
        brokers: String::new(),
        topics: vec!["shop".to_owned(), "shop.*".to_owned()],
        refresh: Duration::from_millis(100),
        options: Vec::new(),
        group: None,
        until_end,
    }
}

/// Takes events of all runs until `done`.
#[track_caller]
fn until_all(runs: &mut [Run], done: impl Fn(&[Run]) -> bool) {
    let deadline = Instant::now() + 2 * LIMIT;
    while !done(runs) {
        let told: Vec<_> = runs.iter().map(|r| (&r.written, &r.followed, &r.read)).collect();
        assert!(Instant::now() < deadline, "not within {:?}: {told:?}", 2 * LIMIT);
        runs.iter_mut().for_each(Run::step);
    }
}

const ROOM: usize = 64 << 20;

#[test]
fn a_new_partition_without_a_leader_holds_no_other_back_and_is_read_once_it_has_one() {
    let broker = Broker::with(&["shop.a"]);
    broker.fill("shop.a", 3, 10);
    let mut run = Run::start(&broker, settings(false), ROOM, 10);
    run.until(|r| r.count("shop.a") == 3);
    for topic in ["shop.b", "shop.c", "shop.d"] {
        broker.cluster.create_topic(topic, 1, 1).unwrap();
    }
    broker.fill("shop.c", 2, 10);
    broker.cluster.partition_leader("shop.c", 0, None).unwrap();
    broker.fill("shop.b", 4, 10);
    broker.fill("shop.d", 5, 10);
    run.until(|r| r.count("shop.b") == 4 && r.count("shop.d") == 5);
    assert_eq!(run.count("shop.c"), 0);
    broker.cluster.partition_leader("shop.c", 0, Some(1)).unwrap();
    run.until(|r| r.count("shop.c") == 2);
}

#[test]
fn a_run_to_the_end_waits_for_a_partition_without_a_leader() {
    let broker = Broker::with(&["shop.a", "shop.b"]);
    broker.fill("shop.a", 3, 10);
    broker.fill("shop.b", 4, 10);
    broker.cluster.partition_leader("shop.b", 0, None).unwrap();
    let mut run = Run::start(&broker, settings(true), ROOM, 10);
    run.until(|r| r.assigned.contains(&"shop.a".to_owned()));
    broker.cluster.partition_leader("shop.b", 0, Some(1)).unwrap();
    run.until(|r| r.drained);
    run.expect_all("shop.a", 3);
    run.expect_all("shop.b", 4);
}

#[test]
fn ends_that_cannot_be_read_put_off_that_partition_alone() {
    let broker = Broker::with(&["shop.a"]);
    broker.fill("shop.a", 3, 10);
    let mut run = Run::start(&broker, settings(false), ROOM, 10);
    run.until(|r| r.count("shop.a") == 3);
    broker.cluster.create_topic("shop.b", 1, 1).unwrap();
    broker.cluster.create_topic("shop.c", 1, 1).unwrap();
    broker.fill("shop.b", 4, 10);
    broker.fill("shop.c", 5, 10);
    // one of the new partitions is judged, another is not
    broker.cluster.request_errors(
        RDKafkaApiKey::ListOffsets,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUEST],
    );
    run.until(|r| r.count("shop.b") == 4 && r.count("shop.c") == 5);
}

#[test]
fn a_gap_gives_up_that_topic_alone() {
    let broker = Broker::with(&["shop.a", "shop.b"]);
    broker.fill("shop.a", 3, 10);
    broker.fill("shop.b", 4, 10);
    let mut run = Run::start(&broker, settings(true), ROOM, 10);
    run.stands.insert("shop.a", 50);
    run.until(|r| r.drained);
    let error = &run.lost["shop.a"];
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert!(error.to_string().contains("stands at offset 50, the topic ends at 3"), "{error}");
    run.expect_all("shop.b", 4);
    assert_eq!(run.end_of("shop.a"), None, "of a topic that was given up nothing can be said");
}

#[test]
fn a_gap_in_the_schema_change_topic_lets_the_others_begin() {
    let broker = Broker::with(&["shop", "shop.b"]);
    broker.fill("shop", 3, 10);
    broker.fill("shop.b", 4, 10);
    let mut run = Run::start(&broker, settings(true), ROOM, 10);
    run.stands.insert("shop", 50);
    run.until(|r| r.drained);
    assert!(run.lost.contains_key("shop"));
    run.expect_all("shop.b", 4);
}

#[test]
fn a_gap_of_a_topic_that_comes_later_is_told() {
    let broker = Broker::with(&["shop.a"]);
    broker.fill("shop.a", 3, 10);
    let mut run = Run::start(&broker, settings(false), ROOM, 10);
    run.stands.insert("shop.b", 50);
    run.until(|r| r.count("shop.a") == 3);
    broker.cluster.create_topic("shop.b", 1, 1).unwrap();
    run.until(|r| r.lost.contains_key("shop.b"));
    broker.fill("shop.a", 3, 10);
    run.until(|r| r.count("shop.a") == 6);
}

#[test]
fn records_that_go_while_there_is_no_room_give_their_topic_up() {
    let broker = Broker::with(&["shop.a", "shop.b"]);
    broker.fill("shop.a", 200, 1000);
    let options = [("queued.max.messages.kbytes", "1"), ("fetch.message.max.bytes", "5000")];
    let options = options.map(|(k, v)| (k.to_owned(), Setting::Text(v.to_owned()))).to_vec();
    let mut run = Run::start(&broker, Settings { options, ..settings(false) }, 16 << 10, 10);
    run.kept = Some(Vec::new());
    // With what is kept there is no room for one more block.
    run.until(|r| r.count("shop.a") >= 10);
    // The mock keeps five megabytes.
    broker.fill("shop.a", 70, 100_000);
    run.kept = None;
    run.until(|r| r.lost.contains_key("shop.a"));
    let error = &run.lost["shop.a"];
    assert_eq!(error.kind(), ErrorKind::Gap, "{error}");
    let read = run.read["shop.a"].clone();
    assert_eq!(read, (0..read.len() as i64).collect::<Vec<_>>(), "what came before the gap is whole");
    broker.fill("shop.b", 4, 10);
    run.until(|r| r.count("shop.b") == 4);
}

#[test]
fn a_topic_that_may_not_be_read_is_given_up_alone() {
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let broker = Broker::with(&["shop.a", "shop.b"]);
    broker.fill("shop.a", 3, 10);
    broker.fill("shop.b", 4, 10);
    let options = vec![("topic.metadata.refresh.interval.ms".to_owned(), Setting::Text("200".to_owned()))];
    let mut run = Run::start(&broker, Settings { options, ..settings(false) }, ROOM, 10);
    run.until(|r| r.count("shop.a") == 3 && r.count("shop.b") == 4);
    broker.cluster.topic_error("shop.a", refused).unwrap();
    run.until(|r| r.lost.contains_key("shop.a"));
    assert_eq!(run.lost["shop.a"].kind(), ErrorKind::Denied);
    assert!(
        run.source.known_ends.look().keys().all(|id| *id.topic == *"shop.b"),
        "of what is given up nothing is known"
    );
    broker.fill("shop.b", 4, 10);
    run.until(|r| r.count("shop.b") == 8);

    let mut run = Run::start(&broker, settings(true), ROOM, 10);
    run.until(|r| r.drained);
    assert_eq!(run.lost["shop.a"].kind(), ErrorKind::Denied);
    run.expect_all("shop.b", 8);
}

#[test]
fn a_topic_whose_end_cannot_be_asked_for_is_not_taken_for_none() {
    let broker = Broker::with(&["shop", "shop.a"]);
    broker.fill("shop", 2, 10);
    broker.fill("shop.a", 3, 10);
    let mut run = Run::start(&broker, Settings { refresh: LIMIT * 10, ..settings(false) }, ROOM, 10);
    run.until(|r| r.count("shop.a") == 3);
    let ends = run.end_of("shop").expect("an answer");
    assert_eq!(ends.into_values().collect::<Vec<_>>(), [2]);
    assert_eq!(run.end_of("shop.none"), Some(Offsets::new()));
    let failed = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUEST; 8];
    broker.cluster.request_errors(RDKafkaApiKey::ListOffsets, &failed);
    assert_eq!(run.end_of("shop"), None);
}

#[test]
fn ends_are_known_from_the_start_and_told_to_a_client_of_its_own() {
    let broker = Broker::with(&["shop.a", "shop.b"]);
    broker.fill("shop.a", 3, 10);
    let mut run = Run::start(&broker, settings(false), ROOM, 10);
    run.until(|r| r.count("shop.a") == 3);
    let reach = |run: &Run| {
        let known = run.source.known_ends.look();
        known.into_iter().map(|(id, reach)| (id.topic.to_string(), reach.from, reach.end)).collect::<Vec<_>>()
    };
    assert_eq!(reach(&run), [("shop.a".to_owned(), 0, 3), ("shop.b".to_owned(), 0, 0)]);
    broker.fill("shop.a", 4, 10);
    let settings = Settings { brokers: broker.cluster.bootstrap_servers(), ..settings(false) };
    let ends = EndsClient::new(&settings).unwrap().ends_of_topics(&["shop.a", "shop.none"]).unwrap();
    run.source.known_ends.note(&ends);
    assert_eq!(reach(&run), [("shop.a".to_owned(), 0, 7), ("shop.b".to_owned(), 0, 0)]);
}

#[test]
fn everything_is_handed_over_once_and_in_order_however_little_room_there_is() {
    let broker = Broker::with(&["shop", "shop.a", "shop.b"]);
    for topic in ["shop", "shop.a", "shop.b"] {
        broker.fill(topic, 2000, 500);
    }
    let mut run = Run::start(&broker, settings(true), 2000, 7);
    run.until(|r| r.drained);
    for topic in ["shop", "shop.a", "shop.b"] {
        run.expect_all(topic, 2000);
    }
}

#[test]
fn the_marker_of_a_transaction_counts_as_read() {
    let broker = Broker::with(&["shop", "shop.a"]);
    broker.fill("shop", 3, 10);
    broker.commit_marker("shop");
    broker.fill("shop.a", 4, 10);
    broker.commit_marker("shop.a");
    broker.fill("shop.a", 1, 10);
    broker.commit_marker("shop.a");
    broker.commit_marker("shop.a");
    let mut run = Run::start(&broker, settings(true), ROOM, 10);
    run.until(|r| r.drained);
    assert_eq!(run.read["shop"], [0, 1, 2]);
    assert_eq!(run.read["shop.a"], [0, 1, 2, 3, 5]);
    assert_eq!((run.ends["shop"], run.ends["shop.a"]), (4, 8), "markers are handed over as ranges");
}

#[test]
fn a_partition_that_holds_only_markers_from_the_position_on_is_read_to_its_end() {
    let broker = Broker::with(&["shop.a"]);
    broker.fill("shop.a", 4, 10);
    broker.commit_marker("shop.a");
    let mut run = Run::start(&broker, settings(true), ROOM, 10);
    run.stands.insert("shop.a", 4);
    run.until(|r| r.drained);
    assert_eq!((run.count("shop.a"), run.ends["shop.a"]), (0, 5));
}

#[test]
fn a_header_whose_name_is_not_text_costs_neither_the_record_nor_its_other_headers() {
    let broker = Broker::with(&["shop.a"]);
    broker.append_with_headers("shop.a", &[(b"first", b"1"), (b"\xff\xfe", b"2"), (b"third", b"\xff")]);
    broker.append_with_headers("shop.a", &[(b"a \"name\"", b"")]);
    broker.append_with_headers("shop.a", &[]);
    let mut run = Run::start(&broker, settings(true), ROOM, 10);
    run.until(|r| r.drained);
    run.expect_all("shop.a", 3);
    let expected = [r#"[["first","1"],[null],["third",null,"/w=="]]"#, r#"[["a \"name\"",""]]"#, ""];
    assert_eq!(run.headers, expected);
}

#[test]
fn members_of_a_group_share_the_topics_and_all_read_what_tells_of_tables() {
    let rows = ["shop.a", "shop.b", "shop.c", "shop.d", "shop.e", "shop.f"];
    let all: BTreeSet<String> = rows.iter().chain(&["shop"]).map(|t| (*t).to_owned()).collect();
    let broker = Broker::with(&["shop"]);
    for topic in rows {
        broker.cluster.create_topic(topic, 1, 1).unwrap();
        broker.fill(topic, 3, 10);
    }
    broker.fill("shop", 2, 10);
    let member = || Settings {
        group: Some("tables".to_owned()),
        options: vec![("session.timeout.ms".to_owned(), Setting::Text("6000".to_owned()))],
        ..settings(false)
    };
    let is_whole = |run: &Run, topic: &str| run.count(topic) == if topic == "shop" { 2 } else { 3 };
    let mut runs = vec![Run::start(&broker, member(), ROOM, 10)];
    until_all(&mut runs, |r| r[0].written == all && all.iter().all(|topic| is_whole(&r[0], topic)));

    runs.push(Run::start(&broker, member(), ROOM, 10));
    until_all(&mut runs, |r| {
        let (one, two) = (&r[0].written, &r[1].written);
        let is_shared = one.is_disjoint(two) && one.union(two).cloned().collect::<BTreeSet<_>>() == all;
        let reads = |run: &Run| run.written.iter().all(|topic| is_whole(run, topic)) && is_whole(run, "shop");
        is_shared && one.len() >= 3 && two.len() >= 3 && r.iter().all(reads)
    });
    let follower = runs.iter().find(|run| !run.written.contains("shop")).expect("one writes it");
    assert_eq!(follower.followed, BTreeSet::from(["shop".to_owned()]));
    broker.fill("shop", 1, 10);
    until_all(&mut runs, |r| r.iter().all(|run| run.count("shop") == 3));

    // It leaves, and the other takes over what it had, each topic from where its table stands.
    drop(runs.pop());
    runs[0].stands.extend(rows.map(|topic| (topic, 2)));
    let had = runs[0].written.clone();
    until_all(&mut runs, |r| r[0].written == all && all.iter().all(|topic| r[0].count(topic) > 0));
    for topic in all.difference(&had).filter(|topic| *topic != "shop") {
        assert_eq!(runs[0].read[topic], [2], "`{topic}` goes on from its table's position");
    }
}

#[test]
fn patterns_of_topics_are_told_to_the_group_as_regular_expressions() {
    let told = |pattern: &str| group::regex_of(pattern);
    assert_eq!(told("shop.orders"), "^shop\\.orders$");
    assert_eq!(told("shop.*"), "^shop\\..*$");
    assert_eq!(told("s?op.[!ab]c[x.]"), "^s.op\\.[^ab]c[x.]$");
}

#[test]
fn a_run_without_a_topic_waits_for_the_first_one() {
    let broker = Broker::with(&["other"]);
    let mut run = Run::start(&broker, settings(false), ROOM, 10);
    run.step();
    broker.cluster.create_topic("shop.a", 1, 1).unwrap();
    broker.fill("shop.a", 3, 10);
    run.until(|r| r.count("shop.a") == 3);
}

#[test]
fn a_topic_that_waits_for_its_table_holds_no_other_up_be_it_the_one_that_tells_of_tables() {
    let broker = Broker::with(&["shop", "shop.a", "shop.b"]);
    for (topic, count) in [("shop", 2), ("shop.a", 3), ("shop.b", 4)] {
        broker.fill(topic, count, 10);
    }
    let mut run = Run::start(&broker, settings(true), ROOM, 10);
    run.unopened.extend(["shop".to_owned(), "shop.b".to_owned()]);
    run.until(|r| r.count("shop.a") == 3);
    assert_eq!((run.count("shop"), run.count("shop.b"), run.drained), (0, 0, false));
    run.unopened.clear();
    run.tell(&"shop".into());
    run.until(|r| r.count("shop") == 2);
    run.source.requests.leave(&"shop.b".into());
    run.until(|r| r.drained);
    assert_eq!(run.count("shop.b"), 0);
}

#[test]
fn a_topic_is_read_anew_in_another_turn() {
    let broker = Broker::with(&["shop.a", "shop.b"]);
    broker.fill("shop.a", 50, 10);
    broker.fill("shop.b", 5, 10);
    let mut run = Run::start(&broker, settings(false), ROOM, 10);
    run.until(|r| r.count("shop.a") == 50 && r.count("shop.b") == 5);
    run.begin("shop.a");
    let id = PartitionId { topic: "shop.a".into(), partition: 0 };
    run.source.requests.begin(&"shop.a".into(), Offsets::from([(id, 20)]), 2);
    run.until(|r| r.count("shop.a") == 30);
    assert_eq!(run.read["shop.a"], (20..50).collect::<Vec<_>>());
    broker.fill("shop.a", 1, 10);
    broker.fill("shop.b", 1, 10);
    run.until(|r| r.count("shop.a") == 31 && r.count("shop.b") == 6);
}

#[test]
fn a_topic_whose_records_nobody_takes_in_is_paused_and_the_others_go_on() {
    let broker = Broker::with(&["shop.a", "shop.b"]);
    broker.fill("shop.a", 100, 1000);
    let mut run = Run::start(&broker, settings(false), 50 << 10, 5);
    run.kept = Some(Vec::new());
    run.until(|r| r.count("shop.a") >= 15);
    // Nobody takes in what is kept: the share of `shop.a` is used up.
    let sick = run.kept.take();
    for round in 1..=20 {
        broker.fill("shop.b", 5, 1000);
        run.until(|r| r.count("shop.b") == 5 * round);
    }
    assert!(run.count("shop.a") < 100, "{}", run.count("shop.a"));
    drop(sick);
    run.until(|r| r.count("shop.a") == 100);
    run.expect_all("shop.a", 100);
}
