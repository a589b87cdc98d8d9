//! How long to wait before the datastore is asked again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// First wait (flannel's and this project's number: short enough not to be felt).
const FIRST: Duration = Duration::from_millis(100);

/// Longest wait: an outage must not be followed by a long blindness.
pub(super) const LONGEST: Duration = Duration::from_secs(5);

/// Doubling waits with jitter: each is drawn from the upper half of its step, so that it is never near zero and
/// hosts that lost the store together do not return together.
#[derive(Debug)]
pub(super) struct Backoff {
    step: Duration,
    random: StdRng,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { step: FIRST, random: StdRng::seed_from_u64(seed) }
    }

    /// The store has answered: begin with short waits again.
    pub(super) fn reset(&mut self) {
        self.step = FIRST;
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(LONGEST);
        self.random.random_range(step / 2..=step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_never_vanish() {
        let mut backoff = Backoff::new(1);
        let mut expected = FIRST;
        for _ in 0..20 {
            let wait = backoff.next();
            assert!(wait >= expected / 2 && wait <= expected, "{wait:?} not within {expected:?}");
            expected = (expected * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..8).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_eq!(waits(5), waits(5));
        assert_ne!(waits(5), waits(6));
    }
}
