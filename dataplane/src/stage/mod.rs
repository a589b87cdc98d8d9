//! The steps a packet takes. A stage is a function over a batch that reads top to bottom; it never calls another stage,
//! and only `pipeline` knows their order. None is inlined: a call per batch costs nothing, and profiles show them apart.

pub mod classify;
pub mod conntrack;
pub mod datagram;
pub mod decap;
pub mod encap;
pub mod forward;
pub mod fragment;
pub mod icmp_error;
pub mod neighbor;
pub mod output;
pub mod owner;
pub mod policy;
pub mod route;
pub mod source;

use crate::counters::Counters;
use crate::flow::{FlowTable, Pieces};
use crate::frame::FramePool;
use crate::policy::Judge;
use crate::reply::RateLimit;
use crate::tables::Tables;

/// What the stages of one batch may read and write besides the packets.
#[derive(Debug)]
pub struct Context<'a> {
    /// The world, at one generation for the whole batch.
    pub tables: &'a Tables,
    /// This worker's connections.
    pub flows: &'a mut FlowTable,
    /// First pieces of datagrams that this worker has seen.
    pub pieces: &'a mut Pieces,
    /// Connections may be taken up in their middle.
    pub pickup: bool,
    /// This worker's side of policy.
    pub judge: &'a mut Judge,
    /// This worker's counters.
    pub counters: &'a Counters,
    /// This worker's free frames.
    pub pool: &'a mut FramePool,
    /// Budget for ICMP errors.
    pub icmp_budget: &'a mut RateLimit,
    /// Identification of the next outer IPv4 header.
    pub ip_id: &'a mut u16,
    /// Monotonic milliseconds.
    pub now_ms: u64,
    /// This worker.
    pub worker: u32,
    /// How many there are.
    pub workers: u32,
}
