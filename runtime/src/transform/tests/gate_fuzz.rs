//! Random bytes against the column gate: sound columns come through as they were, and whatever is done to them, the
//! gate answers with an array that Arrow finds valid, or with an error. FUZZ_SECONDS sets the time (2), FUZZ_SEED the
//! seed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int8Array, Int64Array, StringArray,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::columns::Lent;
use super::super::gate::{Claimed, admit, check_rows};

fn random_array(rng: &mut StdRng) -> ArrayRef {
    let rows = if rng.random_bool(0.1) { 0 } else { rng.random_range(1..40) };
    let nulls = rng.random_bool(0.5);
    let some = |rng: &mut StdRng| !nulls || rng.random_bool(0.7);
    let word = |rng: &mut StdRng| {
        "aäß€😀zq".chars().cycle().skip(rng.random_range(0..7)).take(rng.random_range(0..6)).collect::<String>()
    };
    match rng.random_range(0..7) {
        0 => Arc::new((0..rows).map(|_| some(rng).then(|| rng.random::<bool>())).collect::<BooleanArray>()),
        1 => Arc::new((0..rows).map(|_| some(rng).then(|| rng.random::<i8>())).collect::<Int8Array>()),
        2 => Arc::new((0..rows).map(|_| some(rng).then(|| rng.random::<i64>())).collect::<Int64Array>()),
        3 => Arc::new((0..rows).map(|_| some(rng).then(|| rng.random::<f64>())).collect::<Float64Array>()),
        4 => Arc::new((0..rows).map(|_| some(rng).then(|| word(rng))).collect::<StringArray>()),
        5 => Arc::new((0..rows).map(|_| some(rng).then(|| word(rng).into_bytes())).collect::<BinaryArray>()),
        _ => {
            let values = (0..rows).map(|_| some(rng).then(|| i128::from(rng.random_range(-99_999..=99_999))));
            Arc::new(values.collect::<Decimal128Array>().with_precision_and_scale(5, 2).unwrap())
        }
    }
}

struct Column {
    length: u32,
    null_count: u32,
    buffers: Vec<Vec<u8>>,
    children: u32,
}

impl Column {
    fn of(array: &ArrayRef) -> Column {
        let lent = Lent::new(array).unwrap();
        let column = lent.as_column();
        let buffers = column.buffers.iter().map(|b| b.to_vec()).collect();
        Column { length: column.length, null_count: column.null_count, buffers, children: 0 }
    }

    fn damage(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..9) {
            0 => self.length = rng.random(),
            1 => self.null_count = rng.random_range(0..50),
            2 => self.children = 1,
            3 => drop(self.buffers.pop()),
            4 => self.buffers.push(vec![0; rng.random_range(0..9)]),
            5 => {
                let at = rng.random_range(0..=self.buffers.len());
                if let Some(buffer) = self.buffers.get_mut(at) {
                    let length = rng.random_range(0..=buffer.len() + 4);
                    buffer.resize(length, rng.random());
                }
            }
            _ => {
                let at = rng.random_range(0..=self.buffers.len());
                if let Some(buffer) = self.buffers.get_mut(at)
                    && !buffer.is_empty()
                {
                    let byte = rng.random_range(0..buffer.len());
                    buffer[byte] = rng.random();
                }
            }
        }
    }
}

#[test]
fn the_gate_never_panics_and_admits_only_valid_arrays() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("FUZZ_SEED={seed} FUZZ_SECONDS={seconds}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (start, mut admitted, mut refused) = (Instant::now(), 0_u64, 0_u64);
    while start.elapsed() < Duration::from_secs_f64(seconds) || admitted < 100 || refused < 100 {
        let array = random_array(&mut rng);
        let rows = array.len() as u32;
        let mut column = Column::of(&array);
        let damages = rng.random_range(0..4);
        for _ in 0..damages {
            column.damage(&mut rng);
        }
        let Column { length, null_count, buffers, children } = column;
        let claimed = Claimed { length, null_count, buffers, children };
        match admit(claimed, array.data_type(), true, rows) {
            Ok(given) => {
                admitted += 1;
                assert_eq!((given.len(), given.data_type()), (array.len(), array.data_type()));
                given.to_data().validate_full().unwrap();
                let formatter = ArrayFormatter::try_new(&given, &FormatOptions::default()).unwrap();
                for row in 0..given.len() {
                    let _ = formatter.value(row).to_string();
                }
                if damages == 0 {
                    assert_eq!(&given, &array);
                }
            }
            Err(reason) => {
                refused += 1;
                assert!(damages > 0, "a sound column was refused: {reason}");
                assert!(reason.len() < 200, "{reason}");
            }
        }
        let numbers: Vec<u32> = (0..rng.random_range(0..6)).map(|_| rng.random_range(0..8)).collect();
        let rejected: Vec<(u32, String)> =
            (0..rng.random_range(0..3)).map(|_| (rng.random_range(0..8), String::new())).collect();
        if check_rows(Some(&numbers), &rejected, rows).is_ok() {
            assert!(numbers.iter().all(|row| *row < rows && rejected.iter().all(|(other, _)| other != row)));
            assert!(rejected.iter().all(|(row, _)| *row < rows));
        }
    }
    println!("{admitted} admitted, {refused} refused");
}
