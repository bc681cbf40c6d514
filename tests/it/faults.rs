//! Killed, stopped and doubled: after every fault and one more run, nothing is lost and nothing is there twice.

use std::time::Duration;

use lodestream_tests::broker::{Broker, Pace};
use lodestream_tests::lake;
use lodestream_tests::lode::LIMIT;
use lodestream_tests::pipeline::{Pipeline, Wanted};
use lodestream_tests::process::Running;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::poison::Spoiled;
use crate::variants::{OPEN_A, OPEN_B, OPEN_C, OPEN_D, OPEN_E, OPEN_M_A, OPEN_M_B, Variant, seed};

const KILLS: usize = 20;
const ATTEMPTS: usize = 60;
/// Longest that a run may take to end after SIGTERM: half a minute, and something for a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(40);

fn small_flushes() -> Wanted {
    Wanted { flush_rows: 10, ..Wanted::default() }
}

/// Starts and kills the program until enough kills have landed while it was committing; every fifth kill comes at any
/// moment after the start, be it before the first commit.
pub(crate) fn kill_while_working(pipeline: &Pipeline, rng: &mut StdRng, kills: usize, start: impl Fn() -> Running) {
    let (mut working, mut starting) = (0, 0);
    for attempt in 0..ATTEMPTS {
        if working >= kills {
            break;
        }
        let before = lake::commits(&pipeline.lake());
        let mut run = start();
        let early = attempt % 5 == 4;
        if early {
            run.wait_until(Duration::from_millis(rng.random_range(0..400)), || false);
        } else {
            let wanted = before + rng.random_range(1..5);
            run.wait_until(LIMIT, || lake::commits(&pipeline.lake()) >= wanted);
            run.wait_until(Duration::from_millis(rng.random_range(0..20)), || false);
        }
        let words = run.last_words();
        if run.kill() {
            *(if early { &mut starting } else { &mut working }) += 1;
        } else if !early {
            assert!(working > 0, "it ended before the first kill\n{words}");
            break;
        }
    }
    println!("{working} kills landed while it was committing, {starting} at any moment after a start");
    assert!(working >= kills, "{working} kills landed while it was committing; {kills} are wanted");
}

fn killed_over_a_replay(variant: Variant) {
    let seed = seed(variant.name);
    let mut rng = StdRng::seed_from_u64(seed);
    let pipeline = variant.replayed_mixed(seed, &small_flushes());
    kill_while_working(&pipeline, &mut rng, KILLS, || pipeline.start_until_end());
    pipeline.run_until_end();
    variant.expect_exact(&pipeline);
}

fn killed_over_a_broker(variant: Variant) {
    let seed = seed(variant.name);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut broker = Broker::start(&variant.file(), seed, Pace::PerSecond(300));
    let pipeline = variant.through(&broker, &small_flushes());
    kill_while_working(&pipeline, &mut rng, KILLS, || pipeline.start());
    broker.finish();
    pipeline.run_until_end();
    variant.expect_exact(&pipeline);
}

macro_rules! for_each_capture {
    ($step:ident: $($test:ident $variant:expr;)*) => {
        $(#[test] fn $test() { $step($variant); })*
    };
}

for_each_capture! { killed_over_a_replay:
    capture_a_is_exact_after_twenty_kills OPEN_A;
    capture_b_is_exact_after_twenty_kills OPEN_B;
    capture_c_is_exact_after_twenty_kills OPEN_C;
    capture_d_is_exact_after_twenty_kills OPEN_D;
    capture_e_is_exact_after_twenty_kills OPEN_E;
    capture_m_a_is_exact_after_twenty_kills OPEN_M_A;
    capture_m_b_is_exact_after_twenty_kills OPEN_M_B;
}

for_each_capture! { killed_over_a_broker:
    capture_a_is_exact_after_twenty_kills_while_a_broker_fills OPEN_A;
    capture_b_is_exact_after_twenty_kills_while_a_broker_fills OPEN_B;
    capture_c_is_exact_after_twenty_kills_while_a_broker_fills OPEN_C;
    capture_d_is_exact_after_twenty_kills_while_a_broker_fills OPEN_D;
    capture_e_is_exact_after_twenty_kills_while_a_broker_fills OPEN_E;
    capture_m_a_is_exact_after_twenty_kills_while_a_broker_fills OPEN_M_A;
    capture_m_b_is_exact_after_twenty_kills_while_a_broker_fills OPEN_M_B;
}

/// Ends the program at `failpoint` at its first, second and fifth time, each in a run of its own, then lets it finish.
fn ended_at(failpoint: &str, wanted: &Wanted) {
    let spoiled = Spoiled::new(OPEN_B);
    let pipeline = spoiled.replayed(wanted);
    for nth in [1, 2, 5] {
        let point = format!("{failpoint}:{nth}");
        expect_ended_at(&pipeline, &point, &["run"], &["--until-end"]);
    }
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}

#[track_caller]
pub(crate) fn expect_ended_at(pipeline: &Pipeline, point: &str, words: &[&str], more: &[&str]) {
    let ended = pipeline.output_failing_at(point, pipeline.command(words, more));
    let name = point.split(':').next().unwrap_or(point);
    let told = ended.err.contains(&format!("failpoint {name}"));
    assert!(told && ended.aborted(), "`{point}` was not reached: {}\n{}", ended.status, ended.last_words());
    println!("failpoint {point} hit");
}

#[test]
fn ended_between_the_data_file_and_its_commit_a_flush_is_made_again_once() {
    ended_at("flush.after_data_file", &small_flushes());
}

#[test]
fn ended_between_the_vector_file_and_its_commit_a_flush_is_made_again_once() {
    ended_at("flush.after_vector_file", &small_flushes());
}

#[test]
fn ended_right_after_a_commit_a_flush_is_not_made_again() {
    ended_at("flush.after_commit", &small_flushes());
}

#[test]
fn ended_between_the_bronze_file_and_its_commit_no_record_is_lost() {
    ended_at("bronze.after_data_file", &small_flushes());
}

#[test]
fn ended_right_after_a_bronze_commit_no_record_is_there_twice() {
    ended_at("bronze.after_commit", &small_flushes());
}

#[test]
fn ended_after_dead_letters_were_written_they_are_not_doubled() {
    let spoiled = Spoiled::new(OPEN_B);
    let pipeline = spoiled.replayed(&small_flushes());
    for nth in [1, 2] {
        expect_ended_at(&pipeline, &format!("dead_letters.after_write:{nth}"), &["run"], &["--until-end"]);
    }
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}

#[test]
fn ended_while_loading_the_index_the_next_start_loads_it_again() {
    let spoiled = Spoiled::new(OPEN_B);
    let pipeline = spoiled.replayed(&small_flushes());
    expect_ended_at(&pipeline, "flush.after_commit:40", &["run"], &["--until-end"]);
    for nth in [1, 3] {
        expect_ended_at(&pipeline, &format!("index.while_loading:{nth}"), &["run"], &["--until-end"]);
    }
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}

/// Files are packed as soon as there are two.
fn eager_compaction() -> Wanted {
    Wanted { sections: "[maintenance]\nsmall_files = 2\n".to_owned(), ..small_flushes() }
}

#[test]
fn ended_before_a_compaction_commits_the_table_is_as_before() {
    let spoiled = Spoiled::new(OPEN_B);
    let pipeline = spoiled.replayed(&small_flushes());
    pipeline.run_until_end();
    pipeline.write(OPEN_B.name, &spoiled.source(), &eager_compaction());
    for nth in [1, 2] {
        expect_ended_at(&pipeline, &format!("compact.before_commit:{nth}"), &["maintain"], &[]);
        spoiled.expect_exact(&pipeline);
    }
    pipeline.output("maintain", pipeline.command(&["maintain"], &[])).expect_code(0);
    spoiled.expect_exact(&pipeline);
}

#[test]
fn ended_before_a_compaction_beside_the_stream_commits_nothing_is_lost() {
    let spoiled = Spoiled::new(OPEN_B);
    let pipeline = spoiled.replayed(&eager_compaction());
    expect_ended_at(&pipeline, "compact.before_commit:1", &["run"], &["--until-end"]);
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}

#[test]
fn ended_around_a_compaction_of_bronze_beside_the_stream_no_record_is_lost_or_there_twice() {
    let spoiled = Spoiled::new(OPEN_B);
    let pipeline = spoiled.replayed(&eager_compaction());
    // only tables that only grow pass the second point: here that is Bronze
    for point in ["compact.before_commit", "compact.after_commit"] {
        expect_ended_at(&pipeline, point, &["run"], &["--until-end"]);
    }
    pipeline.run_until_end();
    spoiled.expect_exact(&pipeline);
}

#[test]
fn a_run_that_is_told_to_stop_ends_with_zero_and_loses_nothing() {
    let broker = Broker::start(&OPEN_B.file(), seed("stop"), Pace::AllAtOnce);
    let pipeline = OPEN_B.through(&broker, &small_flushes());
    let mut run = pipeline.start();
    assert!(run.wait_until(LIMIT, || lake::commits(&pipeline.lake()) > 20), "no commits\n{}", run.last_words());
    // it may run for weeks: two heaps, however many threads there are
    assert!(run.environment().unwrap().contains(&"MALLOC_ARENA_MAX=2".to_owned()));
    run.signal("TERM");
    run.end(STOP_LIMIT).expect_code(0);
    pipeline.run_until_end();
    OPEN_B.expect_exact(&pipeline);
}

#[test]
fn two_instances_on_one_lake_and_broker_lose_and_double_nothing() {
    let seed = seed("two");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut broker = Broker::start(&OPEN_B.file(), seed, Pace::PerSecond(400));
    let pipeline = OPEN_B.through(&broker, &small_flushes());
    let mut first = pipeline.start();
    let lake = pipeline.lake();
    assert!(first.wait_until(LIMIT, || lake::commits(&lake) > 5), "no commits\n{}", first.last_words());
    let mut second = pipeline.start();
    let wanted = lake::commits(&lake) + rng.random_range(20..60);
    second.wait_until(Duration::from_secs(60), || lake::commits(&lake) >= wanted);
    let words = first.last_words();
    assert!(first.kill(), "the first instance ended on its own\n{words}");
    let mut third = pipeline.start();
    broker.finish();
    for run in [&mut second, &mut third] {
        run.signal("TERM");
    }
    second.end(STOP_LIMIT).expect_code(0);
    third.end(STOP_LIMIT).expect_code(0);
    pipeline.run_until_end();
    OPEN_B.expect_exact(&pipeline);
}
