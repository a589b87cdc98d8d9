//! Questions that workers answer between two turns.

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::worker_thread::{Order, WorkerHandle};

/// Puts one question to several workers at once; each with its answer, `None` where there was none by the deadline.
pub async fn ask_all<T>(
    workers: impl IntoIterator<Item = &WorkerHandle>,
    deadline: Instant,
    question: impl Fn(oneshot::Sender<T>) -> Order,
) -> Vec<(u32, Option<T>)> {
    let asked: Vec<_> = workers
        .into_iter()
        .map(|worker| {
            let (reply, answer) = oneshot::channel();
            (worker.index, worker.order(question(reply)).ok().map(|()| answer))
        })
        .collect();
    let mut answers = Vec::with_capacity(asked.len());
    for (index, answer) in asked {
        let said = match answer {
            Some(answer) => timeout_at(deadline, answer).await.ok().and_then(Result::ok),
            None => None,
        };
        answers.push((index, said));
    }
    answers
}
