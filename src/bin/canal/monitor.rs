//! `canal monitor`: asks for what is new until nobody wants to know.

use std::time::Duration;

use canal::observe::client::ClientError;
use canal::observe::protocol::{MAX_RECORDS, RecordView, Reply, Request};

use crate::wait::Daemon;

/// Pause between two questions: soon enough for eyes, and nothing to the daemon.
const PAUSE: Duration = Duration::from_millis(200);

/// Gives `print` every record from now on; ends when that says so.
pub fn follow<D: Daemon>(
    daemon: &mut D,
    mut print: impl FnMut(&RecordView) -> bool,
) -> Result<(), ClientError> {
    let mut seen = ask(daemon, 1, 0)?.last().map_or(0, |newest| newest.number);
    loop {
        daemon.pause(PAUSE);
        for record in ask(daemon, MAX_RECORDS, seen)? {
            seen = record.number;
            if !print(&record) {
                return Ok(());
            }
        }
    }
}

fn ask<D: Daemon>(daemon: &mut D, limit: usize, after: u64) -> Result<Vec<RecordView>, ClientError> {
    match daemon.ask(&Request::Denied { limit, after })? {
        Reply::Denied(records) => Ok(records),
        _ => Err(ClientError::Refused("answered something else than was asked".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::record;

    /// One that has three records more at each question, of which the first are old.
    struct Daemon3(u64);

    impl Daemon for Daemon3 {
        fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
            let Request::Denied { limit, after } = *request else { panic!("{request:?}") };
            self.0 += 3;
            let newer: Vec<_> = (after + 1..=self.0).map(record).collect();
            Ok(Reply::Denied(newer[newer.len().saturating_sub(limit)..].to_vec()))
        }
        fn pause(&mut self, _: Duration) {}
    }

    #[test]
    fn every_record_from_now_on_is_printed_once() {
        let mut printed = Vec::new();
        let print = |record: &RecordView| {
            printed.push(record.number);
            printed.len() < 8
        };
        follow(&mut Daemon3(10), print).unwrap();
        assert_eq!(printed, (14..22).collect::<Vec<_>>());
    }
}
