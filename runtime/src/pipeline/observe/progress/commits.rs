//! How long the commits of a table took, and how fresh the last one left it.

use std::time::Duration;

use super::now_ms;

/// Upper bounds of the classes that commits are counted in, seconds; longer ones are in none.
pub const CLASSES: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The commits of one table.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Commits {
    /// how many
    pub count: u64,
    /// seconds that they took, all together
    pub seconds: f64,
    /// seconds that the last one took
    pub last_seconds: Option<f64>,
    /// when the last one was, milliseconds since 1970
    pub last_ms: Option<i64>,
    /// Kafka's timestamp of the newest record in any of them, milliseconds since 1970
    pub newest_record_ms: Option<i64>,
    /// how many took at most as long as the class says and longer than the class before
    #[serde(skip)]
    classes: [u64; CLASSES.len()],
}

impl Commits {
    /// A commit took `took` and has just ended; its newest record is of `newest_ms`, where it holds one.
    pub(in crate::pipeline) fn note(&mut self, took: Duration, newest_ms: Option<i64>) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.seconds += seconds;
        (self.last_seconds, self.last_ms) = (Some(seconds), Some(now_ms()));
        self.newest_record_ms = self.newest_record_ms.max(newest_ms);
        let class = CLASSES.iter().position(|bound| seconds <= *bound);
        if let Some(class) = class.and_then(|at| self.classes.get_mut(at)) {
            *class += 1;
        }
    }

    /// For each of [`CLASSES`], how many commits took no longer.
    pub fn up_to(&self) -> impl Iterator<Item = (f64, u64)> {
        let counts = self.classes.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        CLASSES.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_commit_is_in_its_class_and_in_every_longer_one() {
        let mut commits = Commits::default();
        for (ms, newest) in [(1, None), (5, Some(70)), (30, Some(60)), (30_000, None), (31_000, Some(65))] {
            commits.note(Duration::from_millis(ms), newest);
        }
        let counts: Vec<u64> = commits.up_to().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4], "what took longer than all is in none");
        assert_eq!((commits.count, commits.last_seconds, commits.newest_record_ms), (5, Some(31.0), Some(70)));
        assert!((commits.seconds - 61.036).abs() < 1e-9, "{}", commits.seconds);
    }
}
