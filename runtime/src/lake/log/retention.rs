//! How long what was replaced is kept: by its tombstone, by its own age, and in the log.
//!
//! Receives `maintenance.retention`. Promises that what a version younger than that uses is kept, and that the tombstones in
//! a checkpoint follow the size of the table, not the number of its commits. Each flush replaces the vectors of the files it
//! touches and each compaction files that are minutes old: at two commits a second a week of their tombstones is a gigabyte,
//! in each checkpoint. But vacuum, ours and that of others, spares young files by their own age. So a file that is replaced at a
//! hundredth of the retention or less gets a tombstone that is dated back: it leaves the log with the next checkpoints.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::commit::{Attempts, Committer, Put};
use crate::error::Result;
use crate::lake::Settings;

const FILES: &str = "delta.deletedFileRetentionDuration";
const LOG: &str = "delta.logRetentionDuration";
/// What Delta's readers and writers take where a table does not say it.
const FILES_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
const LOG_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);
/// No table asks other engines to keep what was removed for less than this, and a tombstone counts at least as long.
const FILES_MIN: Duration = Duration::from_secs(3600);
/// Readers of a table count in nanoseconds: a century fits.
const FILES_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// What happened is worth a day of log.
const LOG_MIN: Duration = Duration::from_secs(24 * 3600);
/// A tombstone counts for this many times the age at which its file or vector went: twice as long as fifty commits, the
/// distance of two checkpoints, take a table that replaces it in each.
const LIFE: i64 = 100;

/// How much longer vacuum waits for the sake of what has no tombstone any more.
pub(in crate::lake) fn slack(retention: Duration) -> Duration {
    retention / LIFE as u32
}

/// What other engines must keep so that `settings.vacuum_retention` holds: files, log.
fn wanted(settings: &Settings) -> [(&'static str, Duration, Duration); 2] {
    let files = settings.vacuum_retention.min(FILES_MAX);
    // in whole seconds, as the table says it
    let files = Duration::from_secs((files + slack(files)).as_secs() + 1).max(FILES_MIN);
    [(FILES, files, FILES_DEFAULT), (LOG, files.max(LOG_MIN), LOG_DEFAULT)]
}

/// The configuration of a new table, with what it asks of other engines.
pub(in crate::lake) fn configure(mut configuration: Value, settings: &Settings) -> Value {
    if let Some(members) = configuration.as_object_mut() {
        members.extend(wanted(settings).map(|(name, time, _)| (name.to_owned(), interval(time))));
    }
    configuration
}

/// Brings what the table asks of others up to what the settings say by now; false when somebody was faster with a commit, and
/// the table is to be opened again.
pub(in crate::lake) async fn raise(committer: &mut Committer) -> Result<bool> {
    let Some(metadata) = raised(&committer.metadata, &committer.settings) else { return Ok(true) };
    let actions = [json!({"metaData": metadata})];
    if let Put::Taken(_) = Attempts::of("SET TBLPROPERTIES", Map::new()).put(committer, &actions).await? {
        return Ok(false);
    }
    committer.metadata = metadata;
    committer.advance();
    Ok(true)
}

/// The metadata of a table of ours that asks for more than `metadata` does, `None` where that is enough. Never for less.
fn raised(metadata: &Value, settings: &Settings) -> Option<Value> {
    let mut metadata = metadata.clone();
    let members = metadata.get_mut("configuration")?.as_object_mut()?;
    let mut is_raised = false;
    if !members.contains_key("lode.generation") {
        return None;
    }
    for (name, time, default) in wanted(settings) {
        let stands = members.get(name).and_then(Value::as_str).map_or(Some(default), parse);
        // what cannot be read is somebody's own business
        if stands.is_some_and(|stands| stands < time) {
            members.insert(name.to_owned(), interval(time));
            is_raised = true;
        }
    }
    is_raised.then_some(metadata)
}

/// How long a tombstone keeps a file in the table that `metadata` describes; zero where that cannot be read.
pub(in crate::lake) fn tombstones(metadata: &Value) -> Duration {
    match metadata.pointer("/configuration").and_then(|all| all.get(FILES)).and_then(Value::as_str) {
        Some(text) => parse(text).unwrap_or_default(),
        None => FILES_DEFAULT,
    }
}

/// The time that a remove of now says, milliseconds since 1970: now, or so long ago that a tombstone kept for `kept` counts no
/// longer than needed for what has been there since `since_ms`, `None` where that is not known.
pub(in crate::lake) fn removal_ms(now_ms: i64, since_ms: Option<i64>, kept: Duration) -> i64 {
    let Some(age_ms) = since_ms.map(|since| now_ms.saturating_sub(since)).filter(|age| *age >= 0) else {
        return now_ms;
    };
    let life_ms = age_ms.saturating_mul(LIFE).max(FILES_MIN.as_millis() as i64);
    let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    now_ms.saturating_sub(kept_ms.saturating_sub(life_ms).max(0))
}

fn interval(time: Duration) -> Value {
    format!("interval {} seconds", time.as_secs()).into()
}

/// A time as Delta's table properties write it: `interval 7 days`.
fn parse(text: &str) -> Option<Duration> {
    let mut words = text.split_whitespace().skip_while(|word| word.eq_ignore_ascii_case("interval"));
    let (number, unit) = (words.next()?.parse::<u64>().ok()?, words.next()?.to_ascii_lowercase());
    let seconds = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 24 * 3600,
        "week" => 7 * 24 * 3600,
        _ => return None,
    };
    words.next().is_none().then(|| Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const WEEK: Duration = FILES_DEFAULT;
    const WEEK_MS: i64 = 7 * 24 * HOUR_MS;

    #[test]
    fn a_tombstone_counts_as_long_as_the_age_at_which_its_file_went_calls_for() {
        let now = 10 * WEEK_MS;
        let counts_ms = |since: Option<i64>| removal_ms(now, since, WEEK) + WEEK_MS - now;
        assert_eq!(counts_ms(Some(now)), HOUR_MS);
        assert_eq!(counts_ms(Some(now - 1_000)), HOUR_MS);
        assert_eq!(counts_ms(Some(now - HOUR_MS)), 100 * HOUR_MS);
        // what goes later than at a hundredth of the time is not kept by its age, but by the tombstone alone
        let hundredth = slack(WEEK).as_millis() as i64;
        assert_eq!(counts_ms(Some(now - hundredth)), WEEK_MS);
        assert_eq!(counts_ms(Some(0)), WEEK_MS);
        assert_eq!(counts_ms(None), WEEK_MS, "of unknown age");
        assert_eq!(counts_ms(Some(now + 1)), WEEK_MS, "by another clock");
        assert_eq!(removal_ms(now, Some(now), Duration::ZERO), now);
    }

    #[test]
    fn an_older_table_is_asked_for_more_and_never_for_less() {
        let of = |files: Option<&str>| {
            let mut metadata = json!({"configuration": {"lode.generation": "0"}});
            metadata["configuration"]
                .as_object_mut()
                .unwrap()
                .extend(files.map(|text| (FILES.to_owned(), text.into())));
            metadata
        };
        let settings =
            |days: u32| Settings { vacuum_retention: days * Duration::from_secs(24 * 3600), ..Settings::default() };
        let raised = |files, days| Some(raised(&of(files), &settings(days))?["configuration"][FILES].clone());
        assert_eq!(raised(Some("interval 1 day"), 30), Some(interval(Duration::from_secs(2_617_921))));
        assert_eq!(raised(None, 6), None);
        assert!(raised(None, 7).is_some(), "by the hundredth");
        assert_eq!(raised(Some("interval 31 days"), 29), None);
        assert_eq!(raised(Some("interval 1 month"), 29), None, "somebody's own");
        let odd = Settings { vacuum_retention: Duration::from_millis(86_400_001), ..Settings::default() };
        let new = json!({"configuration": configure(json!({"lode.generation": "0"}), &odd)});
        assert!(super::raised(&new, &odd).is_none(), "{new}");
        let endless = Settings { vacuum_retention: Duration::MAX, ..Settings::default() };
        let most = super::raised(&new, &endless).unwrap();
        assert_eq!(most["configuration"][FILES], "interval 3185136001 seconds", "and no panic");
    }

    #[test]
    fn times_are_read_as_delta_writes_them() {
        assert_eq!(parse("interval 7 days"), Some(WEEK));
        assert_eq!(parse("INTERVAL 1 week"), Some(WEEK));
        assert_eq!(parse("168 Hours"), Some(WEEK));
        assert_eq!(parse(interval(WEEK).as_str().unwrap()), Some(WEEK));
        for wrong in
            ["", "interval", "interval 7", "interval seven days", "interval 7 months", "interval 1 day 2 hours"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
