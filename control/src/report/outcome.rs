//! Failures in a row are one event.

use crate::datastore::Error;

/// Whether reports arrive. Says so once when that changes.
#[derive(Debug)]
pub(super) struct Outcomes {
    what: &'static str,
    failing: bool,
}

impl Outcomes {
    pub(super) const fn of(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    /// Takes note of one report.
    pub(super) fn note(&mut self, outcome: Result<(), &Error>) {
        let failed = outcome.is_err();
        let news = std::mem::replace(&mut self.failing, failed) != failed;
        match outcome {
            Err(error) if news => tracing::warn!("{} cannot be reported: {error}", self.what),
            Err(error) => tracing::debug!("{} cannot be reported: {error}", self.what),
            Ok(()) if news => tracing::info!("{} is reported again", self.what),
            Ok(()) => {}
        }
    }
}
