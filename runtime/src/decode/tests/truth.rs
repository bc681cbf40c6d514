//! The captures give the database's own final state back, whatever the order the topics are read in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rand::{Rng, SeedableRng};

use super::capture::{Capture, Line, block, load};
use super::fold::{State, differences};
use crate::decode::{
    Decoded, Decoder, Evidence, Patience, SchemaHistory, Settings, Step, TableName, TopicKind, classify,
};
use crate::model::positions::PartitionId;

struct Run {
    history: SchemaHistory,
    evidence: Evidence,
    decoders: HashMap<Arc<str>, Decoder>,
    states: BTreeMap<String, State>,
    bad: Vec<String>,
    held: usize,
}

impl Run {
    fn new() -> Self {
        Run {
            history: SchemaHistory::new(),
            evidence: Evidence::new(),
            decoders: HashMap::new(),
            states: BTreeMap::new(),
            bad: Vec::new(),
            held: 0,
        }
    }

    /// Decodes some records of a partition; answers how many are done with.
    fn feed(&mut self, partition: &PartitionId, lines: &[Line], patience: Patience) -> usize {
        if !partition.topic.contains('.') {
            for line in lines {
                self.history.apply(line.record()).unwrap();
            }
            return lines.len();
        }
        let Some(table) = partition.topic.split('.').nth(2) else { return lines.len() };
        let decoder = self
            .decoders
            .entry(Arc::clone(&partition.topic))
            .or_insert_with(|| Decoder::new(Arc::clone(&partition.topic), Settings::default()));
        let mut out = Decoded::new();
        let step = decoder.decode(&block(partition, lines), 0, &self.history, &mut self.evidence, patience, &mut out);
        // epochs outlive a restart
        let text = decoder.epochs().to_string();
        decoder.set_epochs(text.parse().unwrap());
        let (changes, floors, bad) = out.finish();
        assert!(floors.is_empty(), "{floors:?}");
        let state = self.states.entry(table.to_owned()).or_default();
        changes.iter().for_each(|c| state.apply(c));
        self.bad.extend(bad.into_iter().map(|b| format!("{}: {}", b.topic, b.reason)));
        match step {
            Step::Done => lines.len(),
            Step::Held { row, .. } => {
                self.held += 1;
                row
            }
            Step::Jump { row, reason } => panic!("{} at {row}: {reason}", partition.topic),
        }
    }

    fn check(&self, variant: &str) {
        let truth = if variant.starts_with("open_m") { "truth_mysql" } else { "truth_mariadb" };
        let ms = matches!(variant, "open_c" | "open_d");
        assert_eq!(self.states.len(), 15);
        let lost = usize::from(variant == "open_e") * 4;
        assert_eq!(self.bad.len(), lost, "{:?}", self.bad);
        assert!(self.bad.iter().all(|b| b.contains("click_log") && b.contains("no image before")), "{:?}", self.bad);
        for (table, state) in &self.states {
            let name = TableName { database: "shop".into(), table: table.clone() };
            let (extra, missing) = differences(state, &self.history.latest(&name).unwrap(), truth, ms);
            let allowed = if table == "click_log" { lost } else { 0 };
            assert!(
                extra.len() <= allowed && missing.len() <= allowed,
                "{variant}.{table}: {} extra, {} missing\nextra   {:?}\nmissing {:?}",
                extra.len(),
                missing.len(),
                extra.first(),
                missing.first()
            );
        }
    }
}

fn in_order(variant: &str, capture: &Capture) {
    let mut run = Run::new();
    for (partition, lines) in capture {
        assert_eq!(run.feed(partition, lines, Patience::Hold), lines.len(), "{partition:?}");
    }
    run.check(variant);
}

/// Small pieces of random partitions; what is held waits until something new is known.
fn interleaved(variant: &str, capture: &Capture, seed: u64) -> usize {
    println!("{variant} seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let partitions: Vec<_> = capture.iter().collect();
    let mut at = vec![0; partitions.len()];
    let mut waits_for = vec![None; partitions.len()];
    let mut run = Run::new();
    loop {
        let known = Some((run.history.revision(), run.evidence));
        let open: Vec<usize> =
            (0..partitions.len()).filter(|&p| at[p] < partitions[p].1.len() && waits_for[p] != known).collect();
        let Some(&p) = open.get(random.random_range(0..open.len().max(1))) else { break };
        let (partition, lines) = partitions[p];
        let to = (at[p] + random.random_range(1..40)).min(lines.len());
        let done = run.feed(partition, &lines[at[p]..to], Patience::Hold);
        waits_for[p] = if at[p] + done < to { Some((run.history.revision(), run.evidence)) } else { None };
        at[p] += done;
    }
    for (p, (partition, lines)) in partitions.iter().enumerate() {
        assert_eq!(at[p], lines.len(), "{variant} seed {seed}: {partition:?} is still held");
    }
    run.check(variant);
    run.held
}

fn both(variant: &str) {
    let capture = load(variant);
    in_order(variant, &capture);
    let held: usize = (0..4).map(|seed| interleaved(variant, &capture, seed)).sum();
    assert!(held > 0, "nothing was ever held: the interleaving tests nothing");
}

#[test]
fn open_a_gives_the_database_back() {
    both("open_a");
}

#[test]
fn open_b_gives_the_database_back() {
    both("open_b");
}

#[test]
fn open_c_gives_the_database_back() {
    both("open_c");
}

#[test]
fn open_d_gives_the_database_back() {
    both("open_d");
}

#[test]
fn open_e_gives_the_database_back() {
    both("open_e");
}

#[test]
fn open_m_a_gives_the_database_back() {
    both("open_m_a");
}

#[test]
fn open_m_b_gives_the_database_back() {
    both("open_m_b");
}

#[test]
fn topics_are_known_by_their_records() {
    for variant in ["open_a", "open_b", "open_c", "open_e", "open_m_b"] {
        for (partition, lines) in &load(variant) {
            let kinds: Vec<_> = lines.iter().map(|l| classify(&partition.topic, l.record())).collect();
            let flat = variant == "open_e";
            let fits = |kind: &TopicKind| match kind {
                TopicKind::Rows { table, flattened } => {
                    *flattened == flat
                        && table.database == "shop"
                        && partition.topic.ends_with(&format!(".shop.{}", table.table))
                }
                TopicKind::SchemaChanges => *partition.topic == *variant,
                TopicKind::Transactions => partition.topic.ends_with(".transaction"),
                TopicKind::Unknown => true,
            };
            assert!(kinds.iter().all(fits), "{partition:?}");
            assert!(kinds.iter().any(|k| *k != TopicKind::Unknown), "{partition:?}");
            let tombstones = lines.iter().filter(|l| l.value.is_none()).count();
            assert_eq!(kinds.iter().filter(|k| **k == TopicKind::Unknown).count(), tombstones);
        }
    }
}

#[test]
fn without_the_schema_topic_bare_rows_are_held_and_then_refused_with_a_hint() {
    let capture = load("open_b");
    let (partition, lines) = capture.iter().find(|(p, _)| p.topic.ends_with("orders")).unwrap();
    let mut run = Run::new();
    assert_eq!(run.feed(partition, lines, Patience::Hold), 0);
    assert_eq!(run.feed(partition, lines, Patience::LastChance), lines.len());
    assert!(run.bad[0].contains("`open_b`") && run.bad[0].contains("`columns`"), "{}", run.bad[0]);
}

#[test]
fn without_the_schema_topic_rows_are_typed_by_their_own_schema_at_the_last_chance() {
    let capture = load("open_a");
    for (partition, lines) in &capture {
        if !partition.topic.contains('.') {
            continue;
        }
        let mut run = Run::new();
        assert_eq!(run.feed(partition, lines, Patience::Hold), 0, "{partition:?}");
        assert_eq!(run.feed(partition, lines, Patience::LastChance), lines.len());
        assert!(run.bad.is_empty(), "{:?}", run.bad);
    }
}

#[test]
fn every_record_shows_the_op_and_the_time_that_a_json_reader_finds() {
    for variant in ["open_a", "open_b", "open_c", "open_d", "open_e", "open_m_a", "open_m_b"] {
        let mut shown = 0;
        for line in load(variant).values().flatten().filter_map(|line| line.value.as_deref()) {
            let whole: serde_json::Value = serde_json::from_str(line).unwrap();
            let payload = whole.get("payload").unwrap_or(&whole);
            let letter = payload["op"].as_str().or(payload["__op"].as_str());
            let ms = payload["source"]["ts_ms"].as_i64().or(payload["__source_ts_ms"].as_i64());
            let (op, found) = crate::decode::op_and_time(line.as_bytes());
            assert_eq!(op.map(crate::model::change::Op::letter), letter.filter(|l| "rcud".contains(l)), "{line}");
            assert_eq!(found, ms, "{line}");
            shown += usize::from(op.is_some());
        }
        assert!(shown > 4000, "{variant}: {shown}");
    }
}
