//! What a daemon costs that has nothing to do: processor time of all its threads, in percent of one core.

use crate::pair::Pair;
use crate::report::Samples;
use crate::site::Plan;
use anyhow::Result;
use std::time::{Duration, Instant};

/// What others have just sent has been dealt with by then.
const SETTLED: Duration = Duration::from_secs(2);
/// Long beside the half second after which a worker looks whether connections have expired.
const WATCHED: Duration = Duration::from_secs(30);

/// Watches the daemon of the first node.
pub fn measure(pair: &Pair<'_>, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let canal = pair.overlay.canal(0);
    std::thread::sleep(SETTLED);
    let (begin, before) = (Instant::now(), canal.processor_time()?);
    std::thread::sleep(plan.scale(WATCHED, Duration::from_secs(1)));
    let (spent, passed) = (canal.processor_time()? - before, begin.elapsed());
    let percent = 100.0 * spent.as_secs_f64() / passed.as_secs_f64();
    samples.add(&pair.peer.to_string(), "idle", "core_percent", percent);
    Ok(())
}
