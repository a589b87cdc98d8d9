//! What is said about packet threads.

use serde::{Deserialize, Serialize};

use super::VerdictsView;

/// A packet thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "as in canal_dataplane::counters::Counters")]
pub struct WorkerView {
    pub worker: u32,
    /// Core it is pinned to; `None` = the kernel refused.
    pub core: Option<u32>,
    pub received: u64,
    pub received_bytes: u64,
    pub forwarded: u64,
    pub forwarded_bytes: u64,
    pub encapsulated: u64,
    pub decapsulated: u64,
    pub to_host: u64,
    pub replies: u64,
    pub handed_over: u64,
    pub taken_over: u64,
    pub batches: u64,
    pub dropped: u64,
    pub flow_hits: u64,
    pub flows_created: u64,
    pub flows_expired: u64,
    pub flows_evicted: u64,
    pub flows_cut: u64,
    pub flows: u64,
    pub vxlan_reserved_bits: u64,
    pub icmp_limited: u64,
    pub records_lost: u64,
    /// Answers of policy about packets that want to open connections.
    pub verdicts: Vec<VerdictsView>,
    /// Table generation it uses.
    pub seen_generation: u64,
    pub busy_ns: u64,
    pub idle_ns: u64,
    pub sleeps: u64,
    /// Turns whose parts have been timed.
    pub timed_turns: u64,
    /// Frames that they handled.
    pub timed_frames: u64,
    /// What each part of these turns has taken, in the order of a turn.
    pub parts: Vec<PartView>,
    /// What follows from these numbers.
    pub rates: RatesView,
}

/// A part of a worker's turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartView {
    /// Its name: `receive`, `merge`, one of the stages, `output`, `transmit` or `upkeep`.
    pub part: String,
    /// Nanoseconds in timed turns.
    pub timed_ns: u64,
    /// Of each frame that the timed turns handled, whether or not the part had to do with it: the parts add up to what a
    /// frame costs. `None` = no turn has been timed.
    pub ns_per_frame: Option<f64>,
}

/// What follows from a worker's numbers. `None` where there is nothing to divide by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RatesView {
    /// Share of the time in which it did not wait, 0 to 1.
    pub busy: Option<f64>,
    /// Frames in a batch that had any.
    pub batch: Option<f64>,
    /// Share of the received frames that went to another worker, 0 to 1.
    pub handed_over: Option<f64>,
    /// Nanoseconds that a turn took for each of its frames, from the ports to the ports.
    pub ns_per_frame: Option<f64>,
}

impl WorkerView {
    /// Fills in what follows from the other numbers.
    pub fn with_rates(mut self) -> Self {
        let frames = self.received + self.taken_over;
        let timed: u64 = self.parts.iter().map(|part| part.timed_ns).sum();
        self.rates = RatesView {
            busy: ratio(self.busy_ns, self.busy_ns + self.idle_ns),
            batch: ratio(frames, self.batches),
            handed_over: ratio(self.handed_over, self.received),
            ns_per_frame: ratio(timed, self.timed_frames),
        };
        for part in &mut self.parts {
            part.ns_per_frame = ratio(part.timed_ns, self.timed_frames);
        }
        self
    }

    /// What has been counted since `before`, which is an earlier view of the same worker. Numbers that do not only grow
    /// stay as they are.
    pub fn since(mut self, before: &Self) -> Self {
        for (now, before) in self.counts().into_iter().zip(before.clone().counts()) {
            *now = now.saturating_sub(*before);
        }
        self.with_rates()
    }

    /// Everything that only grows.
    fn counts(&mut self) -> Vec<&mut u64> {
        let Self {
            worker: _,
            core: _,
            received,
            received_bytes,
            forwarded,
            forwarded_bytes,
            encapsulated,
            decapsulated,
            to_host,
            replies,
            handed_over,
            taken_over,
            batches,
            dropped,
            flow_hits,
            flows_created,
            flows_expired,
            flows_evicted,
            flows_cut,
            flows: _,
            vxlan_reserved_bits,
            icmp_limited,
            records_lost,
            verdicts,
            seen_generation: _,
            busy_ns,
            idle_ns,
            sleeps,
            timed_turns,
            timed_frames,
            parts,
            rates: _,
        } = self;
        let mut counts = vec![
            received,
            received_bytes,
            forwarded,
            forwarded_bytes,
            encapsulated,
            decapsulated,
            to_host,
            replies,
            handed_over,
            taken_over,
            batches,
            dropped,
            flow_hits,
            flows_created,
            flows_expired,
            flows_evicted,
            flows_cut,
            vxlan_reserved_bits,
            icmp_limited,
            records_lost,
            busy_ns,
            idle_ns,
            sleeps,
            timed_turns,
            timed_frames,
        ];
        counts.extend(verdicts.iter_mut().flat_map(|view| [&mut view.allowed, &mut view.denied]));
        counts.extend(parts.iter_mut().map(|part| &mut part.timed_ns));
        counts
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(part: &str, timed_ns: u64, ns_per_frame: Option<f64>) -> PartView {
        PartView { part: part.into(), timed_ns, ns_per_frame }
    }

    #[test]
    fn rates_follow_from_counts_and_are_absent_where_nothing_was_counted() {
        let view = WorkerView {
            received: 90,
            taken_over: 10,
            handed_over: 45,
            batches: 20,
            busy_ns: 1,
            idle_ns: 3,
            timed_frames: 4,
            parts: vec![part("receive", 100, None), part("encap", 22, None)],
            ..WorkerView::default()
        };
        let expected = WorkerView {
            rates: RatesView {
                busy: Some(0.25),
                batch: Some(5.0),
                handed_over: Some(0.5),
                ns_per_frame: Some(30.5),
            },
            parts: vec![part("receive", 100, Some(25.0)), part("encap", 22, Some(5.5))],
            ..view.clone()
        };
        assert_eq!(view.with_rates(), expected);
        assert_eq!(WorkerView::default().with_rates(), WorkerView::default());
    }

    #[test]
    fn what_happened_between_two_views_is_their_difference_and_gauges_are_the_later_ones() {
        let view = |n: u64| WorkerView {
            core: Some(n as u32),
            received: 10 * n,
            flows: 3 * n,
            busy_ns: n * n,
            verdicts: vec![VerdictsView { direction: "ingress".into(), allowed: n, denied: 5 }],
            timed_frames: n,
            parts: vec![part("decap", 7 * n, None)],
            ..WorkerView::default()
        };
        let expected = WorkerView {
            core: Some(5),
            received: 30,
            flows: 15,
            busy_ns: 21,
            verdicts: vec![VerdictsView { direction: "ingress".into(), allowed: 3, denied: 0 }],
            timed_frames: 3,
            parts: vec![part("decap", 21, None)],
            ..WorkerView::default()
        };
        assert_eq!(view(5).since(&view(2)), expected.with_rates());
    }
}
