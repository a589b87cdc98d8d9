//! When to renew: deadlines on a clock that goes on while the machine sleeps.
//!
//! `now` is always the time since boot, suspension included (Linux `CLOCK_BOOTTIME`). The wall
//! clock may jump, and the plain monotonic clock stands still during suspension, after which a
//! node would believe in a lease that has expired long ago.

use std::time::Duration;

use super::acquire::LEASE_TTL;

/// How long to wait after a renewal that failed, and the longest sleep at all: timers usually run
/// on a clock that suspension stops, so that a long one would oversleep.
pub const RETRY: Duration = Duration::from_secs(60);

/// How long before its end a lease is renewed; flannel's `--subnet-lease-renew-margin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewMargin(Duration);

/// The margin is not one that fits into a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("subnet-lease-renew-margin is {0} minutes, must be 1 to 1439")]
pub struct BadRenewMargin(pub u64);

impl RenewMargin {
    /// From minutes: at least one, and less than the 24 hours of a lease.
    pub const fn from_minutes(minutes: u64) -> Result<Self, BadRenewMargin> {
        if minutes >= 1 && minutes <= 1439 {
            Ok(Self(Duration::from_secs(minutes * 60)))
        } else {
            Err(BadRenewMargin(minutes))
        }
    }

    /// The margin.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for RenewMargin {
    /// flannel's 60 minutes.
    fn default() -> Self {
        Self(Duration::from_secs(3600))
    }
}

/// The deadlines of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    margin: RenewMargin,
    /// `None` for a lease that never expires.
    expires: Option<Duration>,
    /// `None` while there is nothing to do.
    renew_at: Option<Duration>,
}

impl Renewal {
    /// A lease that never expires: never due.
    pub const fn never(margin: RenewMargin) -> Self {
        Self { margin, expires: None, renew_at: None }
    }

    /// A lease object was granted. `now` must have been read *before* it was asked for, so that
    /// the deadline is early rather than late.
    pub fn granted(&mut self, now: Duration) {
        let expires = now + LEASE_TTL;
        self.expires = Some(expires);
        self.renew_at = Some(expires.saturating_sub(self.margin.get()));
    }

    /// The lease has turned out to be permanent.
    pub const fn permanent(&mut self) {
        *self = Self::never(self.margin);
    }

    /// The lease is not what it should be: renew it at once.
    pub const fn at_once(&mut self, now: Duration) {
        self.renew_at = Some(now);
    }

    /// A renewal failed: try again in a minute, for ever.
    pub fn failed(&mut self, now: Duration) {
        self.renew_at = Some(now + RETRY);
    }

    /// Time to renew.
    pub fn is_due(&self, now: Duration) -> bool {
        self.renew_at.is_some_and(|at| now >= at)
    }

    /// The datastore has dropped the lease by now, unless it was renewed by an answer that got lost.
    pub fn is_expired(&self, now: Duration) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }

    /// How long to sleep before asking [`Renewal::is_due`] again; at most [`RETRY`].
    pub fn wait(&self, now: Duration) -> Duration {
        self.renew_at.map_or(RETRY, |at| at.saturating_sub(now)).min(RETRY)
    }
}

/// The time since boot, suspension included.
pub fn boot_time() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or_else(|_| unreachable!("every kernel since 2.6.39 has this clock"), Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn granted(at: Duration, minutes: u64) -> Renewal {
        let mut renewal = Renewal::never(RenewMargin::from_minutes(minutes).unwrap());
        renewal.granted(at);
        renewal
    }

    #[test]
    fn margins_are_checked_as_flannel_does() {
        assert_eq!(RenewMargin::from_minutes(0), Err(BadRenewMargin(0)));
        assert_eq!(RenewMargin::from_minutes(1440), Err(BadRenewMargin(1440)));
        assert_eq!(RenewMargin::from_minutes(60), Ok(RenewMargin::default()));
        assert!(RenewMargin::from_minutes(1).is_ok() && RenewMargin::from_minutes(1439).is_ok());
    }

    #[test]
    fn due_a_margin_before_the_end() {
        let renewal = granted(5 * HOUR, 60);
        assert!(!renewal.is_due(28 * HOUR - Duration::from_secs(1)));
        assert!(renewal.is_due(28 * HOUR));
        assert!(!renewal.is_expired(28 * HOUR));
        assert!(renewal.is_expired(29 * HOUR));
    }

    #[test]
    fn a_failure_is_tried_again_each_minute_even_past_the_end() {
        let mut renewal = granted(Duration::ZERO, 60);
        for now in [23 * HOUR, 25 * HOUR, 100 * HOUR] {
            assert!(renewal.is_due(now));
            renewal.failed(now);
            assert!(!renewal.is_due(now));
            assert_eq!(renewal.wait(now), RETRY);
            assert!(renewal.is_due(now + RETRY));
        }
        renewal.granted(101 * HOUR);
        assert!(!renewal.is_expired(101 * HOUR) && !renewal.is_due(101 * HOUR));
    }

    #[test]
    fn no_sleep_is_long_enough_to_miss_a_suspension() {
        let renewal = granted(Duration::ZERO, 60);
        assert_eq!(renewal.wait(Duration::ZERO), RETRY);
        assert_eq!(renewal.wait(23 * HOUR - Duration::from_secs(7)), Duration::from_secs(7));
        assert_eq!(renewal.wait(30 * HOUR), Duration::ZERO);
    }

    #[test]
    fn a_permanent_lease_is_never_due() {
        let mut renewal = granted(Duration::ZERO, 60);
        renewal.permanent();
        assert!(!renewal.is_due(1000 * HOUR) && !renewal.is_expired(1000 * HOUR));
    }

    #[test]
    fn a_permanent_lease_that_got_lost_is_tried_for_until_it_is_back() {
        let mut renewal = Renewal::never(RenewMargin::default());
        renewal.at_once(HOUR);
        assert!(renewal.is_due(HOUR) && !renewal.is_expired(HOUR));
        renewal.failed(HOUR);
        assert!(!renewal.is_due(HOUR) && renewal.is_due(HOUR + RETRY));
    }

    #[test]
    fn time_since_boot_goes_on() {
        let first = boot_time();
        assert!(first > Duration::ZERO && boot_time() >= first);
    }
}
