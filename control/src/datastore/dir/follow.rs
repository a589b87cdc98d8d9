//! The thread that waits for the directory to change and has it scanned.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use inotify::Inotify;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Inner;
use super::scan::Trust;

/// After an event: most changes come as several (write, rename), and a scan sees them all.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Between two scans without any event, should events be lost.
const RESCAN: Duration = Duration::from_secs(30);

/// The same where no events can be had at all.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(2);

/// Room for the events of one read (the kernel wants 272 bytes at least).
const EVENT_BYTES: usize = 4096;

/// What woke the thread.
const CHANGED: u64 = 1;
const STOPPED: u64 = 2;

/// The running thread; it ends soon after this is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    stop: Arc<EventFd>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Fails only when the counter is full, and then the thread has been woken already.
        let _ = self.stop.write(1);
    }
}

impl Follower {
    /// Starts the thread. Without `inotify` the directory is scanned every now and then only. `again` asks for
    /// another scan in a moment.
    pub(super) fn start(inner: Arc<Inner>, inotify: Option<Inotify>, again: bool) -> io::Result<Self> {
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOPPED))?;
        if let Some(inotify) = &inotify {
            epoll.add(inotify, EpollEvent::new(EpollFlags::EPOLLIN, CHANGED))?;
        }
        let stopped = stop.clone();
        thread::Builder::new().name("canal-dir".to_owned()).spawn(move || {
            follow(&inner, inotify, &epoll, again);
            // Kept until here, so that the descriptor epoll watches cannot become another one's.
            drop(stopped);
        })?;
        Ok(Self { stop })
    }
}

/// Waits, lets the events settle, scans; until stopped.
fn follow(inner: &Inner, mut inotify: Option<Inotify>, epoll: &Epoll, mut again: bool) {
    loop {
        let pause = match (again, &inotify) {
            (true, _) => DEBOUNCE,
            (false, Some(_)) => RESCAN,
            (false, None) => RESCAN_UNWATCHED,
        };
        let mut events = [EpollEvent::empty(); 2];
        let timeout = EpollTimeout::try_from(pause).unwrap_or(EpollTimeout::NONE);
        // An interrupted wait is one that found nothing: the scan it leads to does no harm.
        let woken = epoll.wait(&mut events, timeout).unwrap_or(0);
        let woken = &events[..woken];
        if woken.iter().any(|event| event.data() == STOPPED) {
            return;
        }
        if woken.iter().any(|event| event.data() == CHANGED) {
            thread::sleep(DEBOUNCE);
            drain(&mut inotify);
        }
        again = inner.state().rescan(&inner.feed, Trust::Settled);
    }
}

/// Throws the events away: a scan looks at everything anyhow, so that an overflow of the queue is no loss.
fn drain(inotify: &mut Option<Inotify>) {
    let Some(inotify) = inotify else { return };
    let mut buffer = [0; EVENT_BYTES];
    while inotify.read_events(&mut buffer).is_ok() {}
}
