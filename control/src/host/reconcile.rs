//! Makes the kernel as desired, and keeps it so.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::delta::{Op, diff};
use super::desired::Desired;
use super::kernel::{Error, Kernel};
use super::view::HostView;

/// Read-backs after which we stop for now. Two are the rule; a third is needed where one change undoes another
/// (IPv4 secondaries go with their primary, IPv6 addresses with `down`).
const MAX_ROUNDS: usize = 3;

/// A check even if nothing was heard: IPv4 routes can vanish without a message when their source address does.
const RECHECK: Duration = Duration::from_secs(30);

/// First wait after a failure; doubles up to [`RECHECK`].
const RETRY: Duration = Duration::from_secs(1);

/// How a reconciliation ended.
#[derive(Debug)]
pub enum Outcome {
    /// Read back as desired.
    InSync {
        /// Operations it took.
        applied: usize,
    },
    /// The device does not exist: whoever owns it must make it again.
    NoDevice,
    /// The kernel would not do all of it; what could be done is done.
    Degraded {
        /// What is still missing, with the reason where the kernel gave one in the last round.
        missing: Vec<(Op, Option<Error>)>,
    },
}

/// Applies differences until the read-back shows none. Touches nothing but the device of `desired`.
pub async fn reconcile<K: Kernel + ?Sized>(kernel: &K, desired: &Desired) -> Result<Outcome, Error> {
    let mut applied = 0;
    let mut refused: Vec<(Op, Error)> = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let view = kernel.view(&desired.device).await?;
        let Some(ops) = plan(desired, &view) else {
            return Ok(Outcome::NoDevice);
        };
        if ops.is_empty() {
            return Ok(Outcome::InSync { applied });
        }
        refused.clear();
        for op in ops {
            match kernel.apply(&op).await {
                Ok(()) => {
                    tracing::info!(device = %desired.device, "{op}");
                    applied += 1;
                }
                // Refusals count only if the read-back still misses it: what was to be removed may be gone by itself.
                Err(error) => refused.push((op, error)),
            }
        }
    }
    let view = kernel.view(&desired.device).await?;
    let Some(ops) = plan(desired, &view) else {
        return Ok(Outcome::NoDevice);
    };
    if ops.is_empty() {
        return Ok(Outcome::InSync { applied });
    }
    let reason = |op: &Op, refused: &mut Vec<(Op, Error)>| {
        refused.iter().position(|(other, _)| other == op).map(|at| refused.swap_remove(at).1)
    };
    let missing = ops.into_iter().map(|op| {
        let error = reason(&op, &mut refused);
        (op, error)
    });
    Ok(Outcome::Degraded { missing: missing.collect() })
}

fn plan(desired: &Desired, view: &HostView) -> Option<Vec<Op>> {
    view.link_by_name(&desired.device)?;
    Some(diff(desired, view))
}

/// Reconciles whenever the desired state or the host changes, and every 30 s; failures are tried again with
/// growing pauses. `report` hears every outcome. Returns when either channel's sender is gone.
pub async fn keep<K: Kernel + ?Sized>(
    kernel: &K,
    mut desired: watch::Receiver<Arc<Desired>>,
    mut host: watch::Receiver<Arc<HostView>>,
    mut report: impl FnMut(&Result<Outcome, Error>),
) {
    let mut pause = RETRY;
    loop {
        let wanted = Arc::clone(&desired.borrow_and_update());
        host.mark_unchanged();
        let outcome = reconcile(kernel, &wanted).await;
        report(&outcome);
        let wait = match outcome {
            Ok(Outcome::InSync { .. }) => {
                pause = RETRY;
                RECHECK
            }
            _ => {
                let wait = pause;
                pause = (pause * 2).min(RECHECK);
                wait
            }
        };
        tokio::select! {
            changed = desired.changed() => if changed.is_err() { return },
            changed = host.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[cfg(test)]
mod tests;
