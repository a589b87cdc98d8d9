//! Packet threads: what each has done, and where its time goes.

use canal::observe::protocol::WorkerView;

use super::{grid, optional, or_none};

/// One line for each worker, then one for each part of a turn that took any time.
pub fn show(workers: &[WorkerView]) -> String {
    let columns = [
        ">WORKER",
        ">CORE",
        ">BUSY",
        ">SLEEPS",
        ">BATCH",
        ">RX",
        ">TX",
        ">ENCAP",
        ">DECAP",
        ">HOST",
        ">REPLIES",
        ">HANDED",
        ">DROPS",
        ">FLOWS",
        ">GENERATION",
    ];
    or_none(workers.len(), "workers", || grid(&columns, workers.iter().map(line)) + &parts(workers))
}

fn line(worker: &WorkerView) -> Vec<String> {
    let share = worker.rates.handed_over.filter(|share| *share > 0.0);
    let handed = share.map_or_else(String::new, |share| format!(" ({})", percent(Some(share))));
    vec![
        worker.worker.to_string(),
        optional(worker.core),
        percent(worker.rates.busy),
        worker.sleeps.to_string(),
        decimal(worker.rates.batch),
        worker.received.to_string(),
        worker.forwarded.to_string(),
        worker.encapsulated.to_string(),
        worker.decapsulated.to_string(),
        worker.to_host.to_string(),
        worker.replies.to_string(),
        format!("{}{handed}", worker.handed_over),
        worker.dropped.to_string(),
        worker.flows.to_string(),
        worker.seen_generation.to_string(),
    ]
}

/// A column for each worker. Every worker names the same parts in the same order.
fn parts(workers: &[WorkerView]) -> String {
    let Some(any) = workers.iter().find(|worker| worker.timed_frames > 0) else { return String::new() };
    let mut columns = vec!["NS/FRAME".to_owned()];
    columns.extend(workers.iter().map(|worker| format!(">WORKER {}", worker.worker)));
    let row = |name: &str, cell: &dyn Fn(&WorkerView) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(workers.iter().map(cell));
        row
    };
    let mut rows = Vec::new();
    for (at, part) in any.parts.iter().enumerate() {
        let of = |worker: &WorkerView| worker.parts.get(at).cloned().unwrap_or_default();
        if workers.iter().any(|worker| of(worker).timed_ns > 0) {
            rows.push(row(&part.part, &|worker| decimal(of(worker).ns_per_frame)));
        }
    }
    rows.push(row("all", &|worker| decimal(worker.rates.ns_per_frame)));
    rows.push(row("frames timed", &|worker| worker.timed_frames.to_string()));
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    format!("\n{}", grid(&columns, rows))
}

fn percent(share: Option<f64>) -> String {
    optional(share.map(|share| format!("{:.1}%", 100.0 * share)))
}

fn decimal(value: Option<f64>) -> String {
    optional(value.map(|value| format!("{value:.1}")))
}
