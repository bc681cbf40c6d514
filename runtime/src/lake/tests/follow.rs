//! A table's rows at a version, with the differences after it laid over them, are its rows at the later one.

use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::{Source, deliver, delta, foreign_append, foreign_delete, foreign_optimize, parts, seeds, settings};
use super::*;

type State = BTreeMap<i64, String>;

fn lay(state: &mut State, batch: &RecordBatch, came: bool) {
    let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
    let values = batch.column_by_name("v").map(|column| column.as_string::<i32>());
    for row in 0..batch.num_rows() {
        match (came, values) {
            (true, Some(values)) => drop(state.insert(ids.value(row), values.value(row).to_owned())),
            _ => drop(state.remove(&ids.value(row))),
        }
    }
}

async fn all(follower: &Follower) -> State {
    let mut state = State::new();
    let batches: Vec<RecordBatch> = follower.rows(&fields()).unwrap().try_collect().await.unwrap();
    batches.iter().for_each(|batch| lay(&mut state, batch, true));
    state
}

/// Goes on to the newest version; how often the rows had to be read anew.
async fn catch_up(location: &Location, follower: &mut Follower, state: &mut State) -> usize {
    let mut anew = 0;
    loop {
        match follower.next(&fields()).await.unwrap() {
            Next::Nothing => return anew,
            Next::Difference(difference) => {
                difference.went.iter().for_each(|batch| lay(state, batch, false));
                difference.came.iter().for_each(|batch| lay(state, batch, true));
            }
            Next::Anew(_) => {
                anew += 1;
                *follower = Follower::open(location, &settings()).await.unwrap().unwrap();
                *state = all(follower).await;
            }
        }
    }
}

async fn run(seed: u64) {
    println!("TABLE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), settings()).await.unwrap();
    let mut source = Source::new(100, 40);
    let mut follower = Follower::open(&location, &settings()).await.unwrap().unwrap();
    let mut state = all(&follower).await;
    let (mut anew, mut times, mut new_id) = (0, 0, 1000);
    for step in 0..60 {
        source.write(&mut rng, 15);
        let (events, covered) = deliver(&mut rng, &source, table.positions());
        let (changes, floors) = parts(&events, vec![0]);
        let selection = table.select(&changes, &floors).unwrap();
        let output = selection.upserts().clone();
        table.replace(OwnerRows::copied(&selection, &output), &covered, Map::new()).await.unwrap();
        match rng.random_range(0..100) {
            0..20 => drop(table.maintain().await.unwrap()),
            20..30 => foreign_optimize(&location).await,
            30..42 => foreign_delete(&location, rng.random_range(0..7)).await,
            42..52 => {
                new_id += 1;
                foreign_append(&location, &[(new_id, format!("f{step}"))]).await;
            }
            52..58 if table.version() > 3 => {
                let back = table.version() - rng.random_range(1..3);
                // A vacuum may have taken what that version had.
                drop(delta(&location).await.restore().with_version_to_restore(back).await);
            }
            _ => {}
        }
        if rng.random_bool(0.4) {
            anew += catch_up(&location, &mut follower, &mut state).await;
            times += 1;
            let told: Vec<_> = state.iter().map(|(id, v)| (*id, v.clone())).collect();
            assert_eq!(told, rows(&location).await, "seed {seed}, step {step}");
        }
    }
    assert!(anew < times, "seed {seed}: read anew {anew} times of {times}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_version_with_the_differences_after_it_are_those_of_the_later_one() {
    for seed in seeds(2) {
        run(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_goes_on_from_a_former_version_as_far_as_the_log_reaches() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    assert!(Follower::open(&location, &settings()).await.unwrap().is_none(), "there is no table");
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), settings()).await.unwrap();
    for (at, v) in [(0, "a"), (1, "b"), (2, "c")] {
        copy(&mut table, &of(&[(1, v, Op::Update, at + 1, 0, at as i64)]), &ranges(&[(0, at as i64, at as i64 + 1)]))
            .await
            .unwrap();
    }
    let mut follower = Follower::open(&location, &settings()).await.unwrap().unwrap();
    assert_eq!(all(&follower).await, State::from([(1, "c".to_owned())]));
    assert!(follower.go_back(1).await.unwrap());
    let mut state = State::from([(1, "a".to_owned())]);
    assert_eq!(catch_up(&location, &mut follower, &mut state).await, 0);
    assert_eq!((state, follower.version()), (State::from([(1, "c".to_owned())]), 3));
    assert!(!follower.go_back(7).await.unwrap(), "there is no such version");
    std::fs::remove_file(location.url().to_file_path().unwrap().join("_delta_log/00000000000000000002.json")).unwrap();
    assert!(!follower.go_back(1).await.unwrap(), "the log lacks what follows on it");
}
