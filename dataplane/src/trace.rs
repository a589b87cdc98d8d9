//! What happened to a packet, stage by stage. Costs nothing when nobody looks.

use crate::packet::{Packet, Source};
use crate::verdict::Verdict;

/// The stages, in the order of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Taken into the batch.
    Admit,
    /// Out of the tunnel.
    Decap,
    /// Headers validated.
    Classify,
    /// ARP and ND.
    Neighbor,
    /// Is the source allowed?
    Source,
    /// Whose piece is it? Only when there are pieces of datagrams.
    Datagram,
    /// Which worker owns the flow?
    Owner,
    /// Known connection?
    Conntrack,
    /// Does the workload that it comes from agree?
    PolicyOfSource,
    /// Longest prefix.
    Route,
    /// Does the workload that it goes to agree?
    PolicyOfDestination,
    /// Decision remembered.
    Commit,
    /// TTL and MTU.
    Forward,
    /// Cut into pieces.
    Fragment,
    /// Sender told.
    IcmpError,
    /// Into the tunnel or to the workload.
    Encap,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Self; 16] = [
        Self::Admit,
        Self::Decap,
        Self::Classify,
        Self::Neighbor,
        Self::Source,
        Self::Datagram,
        Self::Owner,
        Self::Conntrack,
        Self::PolicyOfSource,
        Self::Route,
        Self::PolicyOfDestination,
        Self::Commit,
        Self::Forward,
        Self::Fragment,
        Self::IcmpError,
        Self::Encap,
    ];

    /// Its name in metrics and in `canal show workers`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Decap => "decap",
            Self::Classify => "classify",
            Self::Neighbor => "neighbor",
            Self::Source => "source",
            Self::Datagram => "datagram",
            Self::Owner => "owner",
            Self::Conntrack => "conntrack",
            Self::PolicyOfSource => "policy_of_source",
            Self::Route => "route",
            Self::PolicyOfDestination => "policy_of_destination",
            Self::Commit => "commit",
            Self::Forward => "forward",
            Self::Fragment => "fragment",
            Self::IcmpError => "icmp_error",
            Self::Encap => "encap",
        }
    }
}

/// Somebody who looks at a batch after each stage.
pub trait Trace {
    /// Called after `stage` has run over `batch`.
    fn after(&mut self, stage: Stage, batch: &[Packet]);
}

/// Nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    #[inline(always)]
    fn after(&mut self, _: Stage, _: &[Packet]) {}
}

/// One packet after one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// Position in the batch.
    pub packet: usize,
    /// Whose it is.
    pub source: Source,
    /// What was decided so far.
    pub verdict: Verdict,
}

/// Keeps every step; for `canal trace` and for failing tests.
#[derive(Clone, Debug, Default)]
pub struct RecordTrace {
    /// In order.
    pub steps: Vec<Step>,
}

impl Trace for RecordTrace {
    fn after(&mut self, stage: Stage, batch: &[Packet]) {
        self.steps.extend(batch.iter().enumerate().map(|(packet, p)| Step {
            stage,
            packet,
            source: p.source,
            verdict: p.verdict,
        }));
    }
}
