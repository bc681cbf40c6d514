//! How long to wait before something that failed is tried again.
//!
//! Receives how often it has failed in a row. Promises pauses that double up to a longest one, each shortened at random by
//! up to a half, so that many who failed together do not come back at the same moment. Never waits itself, and never
//! decides whether another try is worth it: [`super::ErrorKind::action`] does, and each caller's bound.

use std::time::Duration;

use rand::Rng as _;

/// The pauses between tries of one kind of thing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    /// after the first failure, at most
    pub(crate) first: Duration,
    /// after any failure, at most
    pub(crate) longest: Duration,
}

impl Pauses {
    /// The pause after so many `failures` in a row; none after none.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let whole = self.first.saturating_mul(1 << doublings.min(20)).min(self.longest);
        whole.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        let pauses = Pauses { first: Duration::from_millis(200), longest: Duration::from_secs(10) };
        assert_eq!(pauses.after(0), Duration::ZERO);
        for (failures, whole_ms) in [(1, 200), (2, 400), (3, 800), (6, 6_400), (7, 10_000), (u32::MAX, 10_000)] {
            let whole = Duration::from_millis(whole_ms);
            let some: Vec<Duration> = (0..20).map(|_| pauses.after(failures)).collect();
            assert!(some.iter().all(|pause| (whole / 2..whole).contains(pause)), "{failures}: {some:?}");
            assert!(some.iter().any(|pause| *pause != some[0]), "{failures}: {some:?}");
        }
    }
}
