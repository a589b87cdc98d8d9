//! Who ended, and what that means: the daemon lives only as long as all of its parts.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A part of the daemon that must not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A packet thread.
    Worker(u32),
    /// The control thread.
    Control,
    /// The observe thread.
    Observe,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Worker(index) => write!(f, "worker {index}"),
            Self::Control => f.write_str("the control thread"),
            Self::Observe => f.write_str("the observe thread"),
        }
    }
}

/// Why the daemon comes to an end.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGTERM or SIGINT.
    Signal(&'static str),
    /// A part ended.
    Ended(Part),
    /// A part gave up, and says why.
    Failed(Part, String),
}

/// Where ends are reported.
#[derive(Clone, Debug)]
pub struct Ended(Sender<Event>);

/// A new place to report to, and the end that listens.
pub fn ended() -> (Ended, Listener) {
    let (send, receive) = channel();
    (Ended(send), Listener(receive))
}

impl Ended {
    /// Reports. Nobody listens any more only when the daemon is ending anyway.
    pub fn report(&self, event: Event) {
        let _ = self.0.send(event);
    }

    /// Reports the end of the thread that holds the result, by whatever way it ends.
    #[must_use]
    pub fn watch(&self, part: Part) -> Watched {
        Watched { ended: self.clone(), part }
    }
}

/// Reports when dropped.
#[derive(Debug)]
pub struct Watched {
    ended: Ended,
    part: Part,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let event = if std::thread::panicking() {
            Event::Failed(self.part, "it panicked; the message is above".into())
        } else {
            Event::Ended(self.part)
        };
        self.ended.report(event);
    }
}

/// Hears of ends.
#[derive(Debug)]
pub struct Listener(Receiver<Event>);

impl Listener {
    /// The next event, if one comes within `patience`.
    pub fn wait(&self, patience: Duration) -> Option<Event> {
        self.0.recv_timeout(patience).ok()
    }

    /// Waits until `part` has ended, for `patience` at most; true if it has.
    pub fn wait_for(&self, part: Part, patience: Duration) -> bool {
        let end = std::time::Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            match self.0.recv_timeout(left) {
                Ok(Event::Ended(ended) | Event::Failed(ended, _)) if ended == part => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_panic_and_an_end_are_told_apart() {
        let (ended, listener) = ended();
        let watched = ended.clone();
        let panicked = std::thread::spawn(move || {
            let _watched = watched.watch(Part::Worker(3));
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());
        let Some(Event::Failed(Part::Worker(3), why)) = listener.wait(LONG) else { panic!("not a failure") };
        assert!(why.contains("panicked"));
        drop(ended.watch(Part::Observe));
        assert_eq!(listener.wait(LONG), Some(Event::Ended(Part::Observe)));
    }

    #[test]
    fn waiting_for_a_part_passes_over_the_others_and_ends() {
        let (ended, listener) = ended();
        ended.report(Event::Signal("SIGTERM"));
        ended.report(Event::Ended(Part::Control));
        assert!(listener.wait_for(Part::Control, LONG));
        assert!(!listener.wait_for(Part::Control, Duration::ZERO));
    }
}
