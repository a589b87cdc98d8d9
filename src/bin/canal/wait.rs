//! `canal wait`: asks again until the revision is enforced, until that cannot be, or until the time is up.

use std::time::Duration;

use canal::observe::client::{Client, ClientError};
use canal::observe::protocol::{EnforcedView, MAX_PATIENCE_MS, Reply, Request};

/// Pause after an answer that came at once although there was time: others wait already, and took all the places.
const PAUSE: Duration = Duration::from_millis(250);

/// Who can be asked.
pub trait Daemon {
    /// See [`Client::ask`].
    fn ask(&mut self, request: &Request) -> Result<Reply, ClientError>;

    /// Lets time pass.
    fn pause(&mut self, time: Duration);
}

impl Daemon for Client {
    fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.ask(request)
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The last answer within `timeout`; `elapsed` says how much of it is over.
pub fn until_enforced<D: Daemon>(
    revision: u64,
    timeout: Duration,
    daemon: &mut D,
    elapsed: impl Fn() -> Duration,
) -> Result<EnforcedView, ClientError> {
    loop {
        let asked = elapsed();
        let left = timeout.saturating_sub(asked);
        let patience = left.min(Duration::from_millis(MAX_PATIENCE_MS));
        let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(MAX_PATIENCE_MS);
        let Reply::Enforced(view) = daemon.ask(&Request::Enforced { revision, patience_ms })? else {
            return Err(ClientError::Refused("answered something else than was asked".into()));
        };
        let now = elapsed();
        if view.enforced || view.degraded || now >= timeout {
            return Ok(view);
        }
        if now - asked < patience {
            daemon.pause(PAUSE.min(timeout - now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A daemon with a clock of its own, and what it answers at which time, ms.
    struct Scripted {
        clock: Rc<Cell<u64>>,
        /// Answers are made when the patience is over, or at once.
        waits: bool,
        enforced_at: u64,
        asked: Vec<u64>,
    }

    impl Daemon for Scripted {
        fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
            let Request::Enforced { revision, patience_ms } = *request else { panic!("{request:?}") };
            self.asked.push(patience_ms);
            let end = self.clock.get() + if self.waits { patience_ms } else { 0 };
            let enforced = end >= self.enforced_at;
            self.clock.set(if enforced { self.clock.get().max(self.enforced_at) } else { end });
            Ok(Reply::Enforced(EnforcedView { revision, enforced, ..EnforcedView::default() }))
        }

        fn pause(&mut self, time: Duration) {
            self.clock.set(self.clock.get() + time.as_millis() as u64);
        }
    }

    fn wait(timeout_ms: u64, waits: bool, enforced_at: u64) -> (bool, u64, Vec<u64>) {
        let clock = Rc::new(Cell::new(0));
        let mut daemon = Scripted { clock: Rc::clone(&clock), waits, enforced_at, asked: Vec::new() };
        let elapsed = || Duration::from_millis(clock.get());
        let view = until_enforced(7, Duration::from_millis(timeout_ms), &mut daemon, elapsed).unwrap();
        assert_eq!(view.revision, 7);
        (view.enforced, clock.get(), daemon.asked)
    }

    #[test]
    fn long_waits_are_several_requests() {
        assert_eq!(wait(30_000, true, 12_345), (true, 12_345, vec![5000, 5000, 5000]));
        assert_eq!(wait(6_000, true, 12_345), (false, 6_000, vec![5000, 1000]));
        assert_eq!(wait(0, true, 12_345), (false, 0, vec![0]));
    }

    #[test]
    fn a_daemon_with_too_many_who_wait_is_asked_now_and_then() {
        let (enforced, at, asked) = wait(30_000, false, 1_000);
        assert_eq!((enforced, at, asked.len()), (true, 1_000, 5));
        assert!(!wait(1_100, false, 2_000).0);
    }
}
