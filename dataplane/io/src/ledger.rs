//! How a worker's time divides into waiting and work. Pure: who writes it says what time it is.

/// A wait begins when a turn has found nothing to do; it ends with the beginning of the turn that finds something. Between,
/// the worker slept or looked in vain, any number of times. Times are nanoseconds of one clock that never goes back.
#[derive(Debug)]
pub struct Ledger {
    began: u64,
    /// The wait that goes on: since when, and until when it has lasted if the present turn finds something.
    wait: Option<(u64, u64)>,
    /// Waits before that one.
    waited: u64,
}

/// A worker's time since its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// It waited for so many nanoseconds.
    pub idle_ns: u64,
    /// And worked for so many. Neither number ever falls.
    pub busy_ns: u64,
}

impl Ledger {
    /// Begins now, with work.
    pub fn new(now: u64) -> Self {
        Self { began: now, wait: None, waited: 0 }
    }

    /// A turn has found nothing; returns since when that is so.
    #[inline]
    pub fn nothing(&mut self, now: u64) -> u64 {
        self.wait.get_or_insert((now, now)).0
    }

    /// The next turn begins.
    #[inline]
    pub fn again(&mut self, now: u64) {
        if let Some((_, until)) = &mut self.wait {
            *until = now;
        }
    }

    /// The turn has found something; returns since when there had been nothing, if this ends a wait.
    #[inline]
    pub fn something(&mut self) -> Option<u64> {
        let (since, until) = self.wait.take()?;
        self.waited += until - since;
        Some(since)
    }

    /// How the time until now divides. A turn that is not over belongs to neither while the worker waits.
    pub fn times(&self, now: u64) -> Times {
        let (end, waiting) = self.wait.map_or((now, 0), |(since, until)| (until, until - since));
        let idle_ns = self.waited + waiting;
        Times { idle_ns, busy_ns: end - self.began - idle_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_and_looking_in_vain_are_waiting_and_the_turn_that_finds_something_is_work() {
        let mut ledger = Ledger::new(1000);
        assert_eq!(ledger.something(), None);
        assert_eq!(ledger.times(1100), Times { idle_ns: 0, busy_ns: 100 });
        // Work and a first look in vain until 1200, asleep until 1500, a look in vain, asleep until 1900, work until 2000.
        assert_eq!(ledger.nothing(1200), 1200);
        ledger.again(1500);
        assert_eq!(ledger.times(1510), Times { idle_ns: 300, busy_ns: 200 });
        assert_eq!(ledger.nothing(1520), 1200);
        ledger.again(1900);
        assert_eq!(ledger.something(), Some(1200));
        assert_eq!(ledger.times(2000), Times { idle_ns: 700, busy_ns: 300 });
    }

    #[test]
    fn no_number_ever_falls_and_together_they_are_all_time_but_the_present_look() {
        let mut ledger = Ledger::new(0);
        let (mut now, mut before) = (0, ledger.times(0));
        // Every order of three events, again and again: some are what no worker does.
        for step in 0..6000u64 {
            now += step * 7919 % 101;
            match step * 31 % 10 {
                0..4 => drop(ledger.nothing(now)),
                4..7 => ledger.again(now),
                _ => drop(ledger.something()),
            }
            let after = ledger.times(now);
            assert!(
                after.idle_ns >= before.idle_ns && after.busy_ns >= before.busy_ns,
                "{before:?} {after:?}"
            );
            let all = after.idle_ns + after.busy_ns;
            assert!(all == now || ledger.wait.is_some_and(|(_, until)| all == until));
            before = after;
        }
        assert!(before.idle_ns > 0 && before.busy_ns > 0);
    }
}
