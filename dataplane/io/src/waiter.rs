//! How a worker without work waits: awake for a moment while waits are short, then asleep until a port or another worker
//! has something. An idle worker costs nothing.
//!
//! Staying awake is for a core that nobody else wants. Who yields it waits until the others have done, be it for
//! milliseconds; who sleeps gets it back when woken, before most of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use nix::errno::Errno;
use nix::sched::sched_yield;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::clock::precise_ns;
use crate::ledger::{Ledger, Times};

/// How long a worker stays awake without work, at most, in nanoseconds: about what waking it costs whoever does it and
/// itself together where that is dear (20 to 25 µs each in a virtual machine without help for it; some 5 µs elsewhere).
/// Others get the core meanwhile whenever they want it.
const AWAKE_NS: u64 = 50_000;

/// A wait that is worth staying awake for: with the time that it took to wake up, if the worker slept.
const SHORT_NS: u64 = 2 * AWAKE_NS;

/// A short wait is worth this many long ones.
const REWARD: u32 = 2;

/// Long waits in a row after which no wait begins awake any more, at most.
const MAX_CONFIDENCE: u32 = 16;

/// Whoever gets the core back only so many nanoseconds after yielding it has lost it to others.
const LOST_NS: u64 = SHORT_NS;

/// Waits that begin asleep after that: others who want the core now will want it again soon.
const WARY: u32 = 64;

/// Wakes one worker from another thread. Aligned so that two workers never share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Wake {
    event: EventFd,
    asleep: AtomicBool,
}

impl Wake {
    fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { event, asleep: AtomicBool::new(false) })
    }

    /// Wakes the worker if it sleeps. What it is to see must have been written before.
    #[inline]
    pub fn wake(&self) {
        // Pairs with the fence in `Waiter::idle`: either we see that it sleeps, or it sees what we wrote.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // The only error is a counter at its limit, and then the worker wakes anyway.
            let _ = self.event.write(1);
        }
    }
}

/// One worker's sleep.
#[derive(Debug)]
pub struct Waiter {
    epoll: Epoll,
    wake: Arc<Wake>,
    /// By the precise clock.
    ledger: Ledger,
    sleeps: u64,
    /// Long waits until staying awake is given up; 0: it is.
    confidence: u32,
    /// Waits until it is tried again, because the core was lost to others.
    wary: u32,
}

const WAKE: u64 = 0;
const PORT: u64 = 1;

impl Waiter {
    /// A waiter without ports.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = Arc::new(Wake::new()?);
        epoll.add(&wake.event, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self { epoll, wake, ledger: Ledger::new(precise_ns()), sleeps: 0, confidence: 0, wary: 0 })
    }

    /// Wakes also when `port` has something to receive. A port that is closed is forgotten.
    pub fn watch(&mut self, port: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.add(port.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, PORT))?)
    }

    /// For those who have something for this worker.
    pub fn wake_handle(&self) -> Arc<Wake> {
        Arc::clone(&self.wake)
    }

    /// To be called after a turn with work.
    #[inline]
    pub fn worked(&mut self) {
        if let Some(since) = self.ledger.something() {
            self.wary = self.wary.saturating_sub(1);
            self.learn(precise_ns() - since);
        }
    }

    fn learn(&mut self, waited_ns: u64) {
        self.confidence = if waited_ns < SHORT_NS {
            (self.confidence + REWARD).min(MAX_CONFIDENCE)
        } else {
            self.confidence.saturating_sub(1)
        };
    }

    /// The core was yielded, and is back after so many nanoseconds.
    fn back(&mut self, after_ns: u64) {
        if after_ns > LOST_NS {
            self.wary = WARY;
        }
    }

    /// To be called after an empty turn. Returns soon while it pays to stay awake, otherwise sleeps for `timeout_ms` at
    /// most; `has_mail` is asked once more before.
    pub fn idle(&mut self, timeout_ms: u16, has_mail: impl FnOnce() -> bool) -> io::Result<()> {
        if self.linger() { Ok(()) } else { self.sleep(timeout_ms, has_mail) }
    }

    /// The first half of [`Self::idle`], for who has something to do before it sleeps. True, and soon, while it pays to stay awake:
    /// then it is time for the next turn.
    #[inline]
    #[must_use]
    pub fn linger(&mut self) -> bool {
        let now = precise_ns();
        let since = self.ledger.nothing(now);
        if self.confidence == 0 || self.wary > 0 || now - since >= AWAKE_NS {
            return false;
        }
        // Whoever else wants the core comes first. Linux knows no failure.
        let _ = sched_yield();
        let again = precise_ns();
        self.back(again - now);
        self.ledger.again(again);
        true
    }

    /// The second half of [`Self::idle`].
    pub fn sleep(&mut self, timeout_ms: u16, has_mail: impl FnOnce() -> bool) -> io::Result<()> {
        self.wake.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let result = if has_mail() { Ok(()) } else { self.wait(timeout_ms) };
        self.wake.asleep.store(false, Ordering::Relaxed);
        self.ledger.again(precise_ns());
        result
    }

    /// How its worker's time since the waiter was made divides into waiting and work.
    pub fn times(&self) -> Times {
        self.ledger.times(precise_ns())
    }

    /// How often it has slept.
    pub fn sleeps(&self) -> u64 {
        self.sleeps
    }

    fn wait(&mut self, timeout_ms: u16) -> io::Result<()> {
        self.sleeps += 1;
        let mut events = [EpollEvent::empty(); 4];
        match self.epoll.wait(&mut events, EpollTimeout::from(timeout_ms)) {
            Ok(count) => {
                if events[..count].iter().any(|event| event.data() == WAKE) {
                    // Empties the counter; it may be empty already.
                    let _ = self.wake.event.read();
                }
                Ok(())
            }
            Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_readable_port_wakes() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut waiter = Waiter::new().unwrap();
        waiter.watch(reader.as_fd()).unwrap();
        nix::unistd::write(&writer, &[1]).unwrap();
        // Without confidence it sleeps at once; were it to do so for its timeout each time, this would take an hour.
        for _ in 0..64 {
            waiter.idle(u16::MAX, || false).unwrap();
        }
    }

    #[test]
    fn no_wake_is_lost() {
        let mut waiter = Waiter::new().unwrap();
        let (wake, mail) = (waiter.wake_handle(), Arc::new(AtomicU32::new(0)));
        let sent = Arc::clone(&mail);
        let other = std::thread::spawn(move || {
            for _ in 0..20_000 {
                sent.fetch_add(1, Ordering::Relaxed);
                wake.wake();
                while sent.load(Ordering::Relaxed) > 0 {
                    std::hint::spin_loop();
                }
            }
        });
        let mut taken = 0;
        while taken < 20_000 {
            let news = mail.swap(0, Ordering::Relaxed);
            taken += news;
            if news > 0 {
                waiter.worked();
            } else {
                waiter.idle(u16::MAX, || mail.load(Ordering::Relaxed) > 0).unwrap();
            }
        }
        other.join().unwrap();
    }

    #[test]
    fn a_short_wait_outweighs_a_long_one_and_many_long_ones_end_staying_awake() {
        let mut waiter = Waiter::new().unwrap();
        for _ in 0..20 {
            waiter.learn(SHORT_NS - 1);
            waiter.learn(SHORT_NS);
        }
        assert_eq!(waiter.confidence, MAX_CONFIDENCE - 1);
        for _ in 0..MAX_CONFIDENCE {
            waiter.learn(u64::MAX);
        }
        assert_eq!(waiter.confidence, 0);
    }

    #[test]
    fn who_has_lost_the_core_sleeps_for_a_while() {
        let mut waiter = Waiter::new().unwrap();
        waiter.learn(0);
        waiter.back(LOST_NS);
        assert_eq!(waiter.wary, 0);
        waiter.back(LOST_NS + 1);
        for _ in 0..WARY {
            let mut asked = false;
            waiter.idle(0, || std::mem::replace(&mut asked, true)).unwrap();
            assert!(asked, "asleep at once");
            waiter.worked();
        }
        assert_eq!(waiter.wary, 0);
    }

    #[test]
    fn a_confident_wait_begins_awake_and_ends_asleep() {
        let mut waiter = Waiter::new().unwrap();
        waiter.learn(0);
        let (begin, mut asked) = (precise_ns(), false);
        while !asked {
            // Mail is only asked about before sleep.
            waiter.idle(0, || std::mem::replace(&mut asked, true)).unwrap();
        }
        assert!(precise_ns() - begin >= AWAKE_NS);
        // The wait goes on, and does not begin anew.
        let mut again = false;
        waiter.idle(0, || std::mem::replace(&mut again, true)).unwrap();
        assert!(again);
        assert_eq!(waiter.sleeps(), 2);
        let times = waiter.times();
        assert!(times.idle_ns >= AWAKE_NS, "{times:?}");
        waiter.worked();
        assert!(waiter.times().busy_ns > times.busy_ns && waiter.times().idle_ns == times.idle_ns);
    }
}
