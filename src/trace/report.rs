//! The answer: plain values, the same for tables and for JSON. Names are a promise to scripts; `docs/cli.md` describes
//! them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What becomes of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Generation of the tables it was judged by; 0 = nothing was ever published.
    pub generation: u64,
    /// Datastore revision they were made from.
    pub revision: u64,
    /// What had to be assumed for want of a running daemon.
    pub assumptions: Vec<String>,
    /// The packet as it arrives.
    pub packet: PacketView,
    /// The stages that had something to do with it, in order.
    pub stages: Vec<StageView>,
    /// The end.
    pub verdict: VerdictView,
    /// What is sent: nothing, the packet, its pieces, or an answer to its sender.
    pub sent: Vec<SentView>,
}

/// A packet as it arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketView {
    /// From whom: `workload NAME`, `host`, `tunnel`, `direct`.
    pub ingress: String,
    /// Its layers from the outside in, a line each.
    pub layers: Vec<String>,
    /// Bytes with the outermost Ethernet header.
    pub length: usize,
}

/// What one stage did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageView {
    /// The stage's name.
    pub stage: String,
    /// `pass`, `drop`, or `reply` when the packet has become an answer to its sender.
    pub result: StageResult,
    /// What it did, for people.
    pub text: String,
    /// The same for programs; which there are depends on the stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
    /// How policy came to its judgement; the stages `egress` and `ingress` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyView>,
}

/// How a stage left the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageResult {
    /// It goes on.
    #[default]
    Pass,
    /// It ends.
    Drop,
    /// It has become an answer to its sender.
    Reply,
}

/// How one direction of one endpoint's policy came to its judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// `egress` or `ingress`, from the endpoint's point of view.
    pub direction: String,
    /// The endpoint.
    pub endpoint: String,
    /// `allowed` or `denied`.
    pub outcome: String,
    /// What has decided.
    pub decider: String,
    /// Everything that was asked, in order, up to [`MAX_STEPS`].
    pub steps: Vec<PolicyStep>,
    /// Steps that are left out.
    pub omitted: usize,
}

/// Most steps of one list that a report holds.
pub const MAX_STEPS: usize = 10_000;

/// One question that policy asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStep {
    /// The tier; `None` = a profile.
    pub tier: Option<String>,
    /// Kind of the object: `NetworkPolicy`, `GlobalNetworkPolicy`, `Profile`; `None` = the end of a tier.
    pub kind: Option<String>,
    /// Name of the object.
    pub name: Option<String>,
    /// Position of the rule among those of this direction, from 0.
    pub rule: Option<usize>,
    /// What the rule, or the tier's end, does: `Allow`, `Deny`, `Log`, `Pass`.
    pub action: String,
    /// Whether it met the packet.
    pub matched: bool,
    /// Why it did not.
    pub mismatch: Option<String>,
}

/// How it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictView {
    /// The end.
    pub outcome: Outcome,
    /// To whom, where it is sent.
    pub to: Option<String>,
    /// Drop reason, as in the metrics: also the reason why its sender is told.
    pub reason: Option<String>,
    /// What it means.
    pub sentence: String,
}

/// The ends of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Sent to another node.
    Forwarded,
    /// Delivered to a workload or to this host.
    Delivered,
    /// Its sender gets an answer instead: an ICMP error, or one of neighbour discovery.
    Answered,
    /// Ends here, silently.
    #[default]
    Dropped,
}

impl Outcome {
    /// Does the packet get where it is addressed to, as far as this node is concerned?
    pub const fn gets_through(self) -> bool {
        matches!(self, Self::Forwarded | Self::Delivered)
    }
}

/// A packet that is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentView {
    /// Where to: `workload NAME`, `host`, `underlay`, `direct ADDRESS`.
    pub egress: String,
    /// Its layers from the outside in, a line each.
    pub layers: Vec<String>,
    /// Bytes with the outermost Ethernet header.
    pub length: usize,
}
