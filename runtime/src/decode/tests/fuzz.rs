//! Records of the captures, mutated at random: nothing panics, and every record is accounted for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::capture::{Capture, load};
use crate::decode::{Decoded, Decoder, Evidence, Patience, SchemaHistory, Settings, Step, classify};
use crate::model::positions::PartitionId;
use crate::model::record::{Block, Record};

const PIECES: [&[u8]; 16] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u12",
    b":",
    b",",
    b"null",
    b"-9223372036854775809",
    b"-9223372036854775808",
    b"9223372036854775807",
    b"1e999",
    b"\xff",
    b"{\"schema\":{},\"payload\":",
];

fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..5) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => {
                let to = (at + random.random_range(0..40)).min(bytes.len());
                bytes.drain(at..to);
            }
            3 => {
                let to = (at + random.random_range(0..200)).min(bytes.len());
                let piece = bytes[at..to].to_vec();
                let at = random.random_range(0..=bytes.len());
                bytes.splice(at..at, piece);
            }
            _ => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
}

#[test]
fn mutated_records_never_panic() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("FUZZ_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let captures: Vec<Capture> = ["open_a", "open_b", "open_e"].iter().map(|v| load(v)).collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut records = 0;
    while Instant::now() < until || records < 1000 {
        let capture = &captures[random.random_range(0..captures.len())];
        let mut history = SchemaHistory::new();
        for (_, lines) in capture.iter().filter(|(p, _)| !p.topic.contains('.')) {
            for line in lines {
                let mut value = line.value.clone().unwrap_or_default().into_bytes();
                if random.random_range(0..20) == 0 {
                    mutate(&mut value, &mut random);
                }
                let _ = history.apply(Record { value: Some(&value), ..line.record() });
            }
        }
        let rows: Vec<_> = capture.iter().filter(|(p, _)| p.topic.contains('.')).collect();
        let (partition, lines) = rows[random.random_range(0..rows.len())];
        let mut block = Block::new(PartitionId { topic: Arc::clone(&partition.topic), partition: partition.partition });
        let mut nothing = 0;
        for line in lines.iter().take(200) {
            let mut parts = [line.key.clone(), line.value.clone()].map(|p| p.map(String::into_bytes));
            for part in parts.iter_mut().flatten() {
                if random.random_range(0..3) == 0 {
                    mutate(part, &mut random);
                }
            }
            let [key, value] = parts;
            nothing += usize::from(value.is_none());
            let record = Record { key: key.as_deref(), value: value.as_deref(), ..line.record() };
            classify(&partition.topic, record);
            assert!(block.push(record));
        }
        let mut out = Decoded::new();
        let mut decoder = Decoder::new(Arc::clone(&partition.topic), Settings::default());
        let mut evidence = Evidence::new();
        let (mut from, mut jumps) = (0, 0);
        loop {
            let before = out.rows();
            match decoder.decode(&block, from, &history, &mut evidence, Patience::Hold, &mut out) {
                Step::Done => break,
                Step::Jump { row, .. } => {
                    jumps += 1;
                    from = row + 1;
                }
                Step::Held { row, .. } => {
                    assert!(row >= from && out.rows() >= before);
                    let mut one = Block::new(block.partition().clone());
                    assert!(one.push(block.get(row).unwrap()));
                    let step = decoder.decode(&one, 0, &history, &mut evidence, Patience::LastChance, &mut out);
                    jumps += usize::from(matches!(step, Step::Jump { .. }));
                    assert!(!matches!(step, Step::Held { .. }));
                    from = row + 1;
                }
            }
        }
        let (changes, _, bad) = out.finish();
        let mut offsets: Vec<i64> = changes
            .iter()
            .filter_map(|c| c.records.as_ref())
            .flat_map(|r| r.offsets.iter().copied())
            .chain(bad.iter().map(|b| b.offset))
            .collect();
        offsets.sort_unstable();
        offsets.dedup();
        assert!(bad.iter().all(|b| b.reason.len() <= 300));
        // what mutation makes of a record may also be a tombstone, a truncate or a message
        assert!(offsets.len() + nothing + jumps <= block.len());
        records += block.len();
    }
    println!("{records} records");
}
