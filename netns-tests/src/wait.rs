//! Waiting for a condition with a limit, instead of sleeping and hoping.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Generous upper limit for anything that happens "at once": two noisy cores run several tests together.
pub const SOON: Duration = Duration::from_secs(20);

/// Polls `condition` every 50 ms until it is true; an error names `what` when `limit` has passed.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        // An error while things are still moving counts as "not yet"; it is reported if it stays.
        let last = condition();
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= end {
            match last {
                Ok(_) => bail!("{what}: not within {limit:?}"),
                Err(e) => return Err(e.context(format!("{what}: not within {limit:?}"))),
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
