//! From Felix's terms to ours: every text typed, what Felix's own validation refuses refused.
//!
//! A refused object counts as missing, as with Felix. Where Felix would take a thing for a wider one, see [`Quirks`].

mod endpoint;
mod entity;
mod labels;
mod node;
mod policy;
mod rule;

pub use endpoint::{host_endpoint, network_set, workload};
pub use node::{block, node, tier};
pub use policy::{default_allow, policy, profile, profile_or_denial};

use super::problem::{Problem, Quirks};
