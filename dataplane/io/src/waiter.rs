//! How a worker without work waits: a few empty turns while traffic is dense, then asleep until a port or another
//! worker has something. An idle worker costs nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Empty turns a worker may take before it sleeps, at most. An empty turn is one system call per port, about 0.2 µs;
/// waking up costs 5 µs and more. Beyond this the core is better left to the workloads.
const MAX_SPIN: u32 = 64;

/// Wakes one worker from another thread.
#[derive(Debug)]
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
    /// Empty turns allowed before sleeping: doubled when one of them found work, halved when none did.
    spin: u32,
    /// Empty turns since the last work.
    empty: u32,
}

const WAKE: u64 = 0;
const PORT: u64 = 1;

impl Waiter {
    /// A waiter without ports.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = Arc::new(Wake::new()?);
        epoll.add(&wake.event, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self { epoll, wake, spin: 1, empty: 0 })
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
        if self.empty > 0 {
            self.spin = (self.spin * 2).min(MAX_SPIN);
            self.empty = 0;
        }
    }

    /// To be called after an empty turn. Returns at once while spinning pays, otherwise sleeps for `timeout_ms` at
    /// most; `has_mail` is asked once more before.
    pub fn idle(&mut self, timeout_ms: u16, has_mail: impl FnOnce() -> bool) -> io::Result<()> {
        self.empty += 1;
        if self.empty <= self.spin {
            std::hint::spin_loop();
            return Ok(());
        }
        self.spin = (self.spin / 2).max(1);
        self.empty = 0;
        self.wake.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let result = if has_mail() { Ok(()) } else { self.sleep(timeout_ms) };
        self.wake.asleep.store(false, Ordering::Relaxed);
        result
    }

    fn sleep(&self, timeout_ms: u16) -> io::Result<()> {
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

    fn fall_asleep(waiter: &mut Waiter, timeout_ms: u16) {
        for _ in 0..=MAX_SPIN {
            waiter.idle(timeout_ms, || false).unwrap();
        }
    }

    #[test]
    fn a_readable_port_wakes() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut waiter = Waiter::new().unwrap();
        waiter.watch(reader.as_fd()).unwrap();
        nix::unistd::write(&writer, &[1]).unwrap();
        // Were it to sleep for its timeout each time, this would take more than an hour.
        fall_asleep(&mut waiter, u16::MAX);
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
    fn spinning_grows_when_it_pays_and_shrinks_when_not() {
        let mut waiter = Waiter::new().unwrap();
        for _ in 0..20 {
            waiter.idle(1, || false).unwrap();
            waiter.worked();
        }
        assert_eq!(waiter.spin, MAX_SPIN);
        while waiter.spin > 1 {
            waiter.idle(0, || false).unwrap();
        }
        fall_asleep(&mut waiter, 0);
        assert_eq!(waiter.spin, 1);
    }
}
