//! Is a revision of the datastore enforced? Waits for it without looking at anything twice: the control side says when
//! something has changed, and workers say when they have taken the tables over.

use std::sync::Arc;
use std::time::Duration;

use canal_control::datastore::Revision;
use canal_control::status::{Reason, Status};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::asking::ask_all;
use super::protocol::EnforcedView;
use crate::worker_thread::{Order, WorkerHandle};

/// How long something that hinders may last before waiting is given up: a connection that is made anew is no news.
const GRACE: Duration = Duration::from_secs(1);

/// Pauses between two questions to the datastore, whether nothing is missing; the last one goes on. It has to look at
/// all keys for it, and mostly the watch tells by itself.
const ASK_AFTER: [Duration; 5] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// What the control side says of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// In the tables of this generation.
    Published(u64),
    /// Not yet.
    Awaited,
    /// Something hinders it.
    Hindered,
}

fn standing(control: &Status, revision: Revision) -> Standing {
    let reached = control.in_force.filter(|in_force| in_force.complete >= revision);
    let hinders = |reason: &Reason| match reason {
        // What has been read stays in force without it.
        Reason::DatastoreAway { .. } => reached.is_none(),
        reason => reason.hinders(),
    };
    match reached {
        _ if control.degraded.iter().any(hinders) => Standing::Hindered,
        Some(in_force) => Standing::Published(in_force.generation),
        None => Standing::Awaited,
    }
}

/// Waits until every one of `workers` enforces `revision`, until that cannot be, or until `deadline`. `ask` has the
/// datastore asked whether everything up to a revision has been read.
pub async fn enforced(
    revision: u64,
    deadline: Instant,
    mut status: watch::Receiver<Status>,
    workers: &[WorkerHandle],
    ask: impl Fn(Revision),
) -> EnforcedView {
    let wanted = Revision::try_from(revision).unwrap_or(Revision::MAX);
    let mut pauses = ASK_AFTER[1..].iter().copied();
    let mut ask_at = Instant::now() + ASK_AFTER[0];
    let mut asked = false;
    let mut hindered_since = None;
    loop {
        let control = status.borrow_and_update().clone();
        let now = Instant::now();
        let mut give_up = deadline;
        match standing(&control, wanted) {
            Standing::Published(generation) => {
                let late = late(workers, generation, deadline).await;
                let enforced = late.is_empty();
                if enforced || Instant::now() >= deadline {
                    return view(revision, &control, enforced, false, late);
                }
            }
            Standing::Hindered => {
                let since = *hindered_since.get_or_insert(now);
                if now >= since + GRACE {
                    return view(revision, &control, false, true, Vec::new());
                }
                give_up = deadline.min(since + GRACE);
            }
            Standing::Awaited => {
                hindered_since = None;
                // Where the revision has been heard of, all that is missing is that nothing else is.
                let heard = !asked && control.heard.revision >= wanted;
                if heard || now >= ask_at {
                    ask(wanted);
                    asked = true;
                    ask_at = now + pauses.next().unwrap_or(ASK_AFTER[ASK_AFTER.len() - 1]);
                }
            }
        }
        if now >= deadline {
            return view(revision, &control, false, false, Vec::new());
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() {
                // The control side is gone, and the daemon with it in a moment.
                return view(revision, &control, false, true, Vec::new());
            },
            () = sleep_until(give_up.min(ask_at.max(now + ASK_AFTER[0]))) => {}
        }
    }
}

/// The workers that have not taken over `generation` by the deadline. They are woken for it: one without packets would
/// sleep on, which matters to nobody but who asks.
pub async fn late(workers: &[WorkerHandle], generation: u64, deadline: Instant) -> Vec<u32> {
    let behind = workers.iter().filter(|worker| worker.counters.seen_generation.get() < generation);
    let answers = ask_all(behind, deadline, Order::Look).await;
    let late = answers.into_iter().filter(|(_, seen)| seen.is_none_or(|seen| seen < generation));
    let mut late: Vec<u32> = late.map(|(index, _)| index).collect();
    late.sort_unstable();
    late
}

fn view(
    revision: u64,
    control: &Status,
    enforced: bool,
    degraded: bool,
    late_workers: Vec<u32>,
) -> EnforcedView {
    let number = |revision: Revision| u64::try_from(revision).unwrap_or(0);
    let in_force = control.in_force;
    let mut view = EnforcedView {
        revision,
        enforced,
        degraded,
        in_force: in_force.map_or(0, |in_force| number(in_force.revision)),
        complete: in_force.map_or(0, |in_force| number(in_force.complete)),
        read: number(control.heard.revision),
        generation: in_force.map_or(0, |in_force| in_force.generation),
        late_workers,
        reasons: Vec::new(),
    };
    if !enforced {
        view.reasons = control.degraded.iter().map(ToString::to_string).collect();
        view.reasons.extend(lag(&view));
    }
    view
}

/// What is missing, where nothing is wrong.
fn lag(view: &EnforcedView) -> Option<String> {
    if !view.late_workers.is_empty() {
        let workers: Vec<String> = view.late_workers.iter().map(ToString::to_string).collect();
        return Some(format!(
            "worker {} does not use generation {} yet",
            workers.join(", "),
            view.generation
        ));
    }
    let EnforcedView { revision, in_force, complete, read, .. } = *view;
    (!view.degraded).then(|| match in_force {
        0 => "no tables have been published yet".to_owned(),
        _ if read < revision => format!("the datastore has said nothing beyond revision {read}"),
        _ if in_force < revision => format!("revision {in_force} is in force, {read} has been read"),
        _ => format!("something written after revision {complete} may not have been read yet"),
    })
}

/// Places for clients that wait: fewer than clients, so that a status can always be asked for.
pub const MAX_WAITING: usize = 8;

/// Waits in turn, or says at once how things are when too many wait already.
pub async fn wait_in_turn(
    places: Arc<tokio::sync::Semaphore>,
    revision: u64,
    patience: Duration,
    status: watch::Receiver<Status>,
    workers: &[WorkerHandle],
    ask: impl Fn(Revision),
) -> EnforcedView {
    let place = places.try_acquire_owned().ok();
    let patience = if place.is_some() { patience } else { Duration::ZERO };
    let view = enforced(revision, Instant::now() + patience, status, workers, ask).await;
    drop(place);
    view
}

#[cfg(test)]
mod tests;
