//! From Calico's resources to policy in the dataplane's terms: what Felix calls its calculation graph.
//!
//! ```text
//!  workloads, host endpoints, network sets ─┬─► label_index ─► ip_sets ──────────────► sets
//!  profiles (labels) ───────────────────────┤                    ▲ named by rules
//!                            local ones ────┴─► label_index ─► policies ─► lists ────► endpoints' policy
//!  policies, tiers, profiles (rules) ──────────────────────────┘  ▲
//!  pools, blocks, nodes, workloads ────────────► routes, vteps    └ rules
//! ```
//! [`CalicoGraph`] keeps the outcome up to date change by change; [`oracle::recompute`] is the slow twin that says the
//! same from scratch.

mod change;
mod complaints;
mod endpoint_lists;
mod feed;
mod graph;
mod id_set;
mod ip_sets;
mod label_index;
mod lists;
mod members;
pub mod oracle;
mod policies;
mod precedence;
mod profiles;
mod resolution;
pub mod routes;
mod rule_sets;
mod rules;
mod services;
mod set_definition;
mod slots;
mod tally;
mod tiers;
pub mod vteps;

pub use change::{Change, Latest};
pub use endpoint_lists::HostLists;
pub use feed::{change_of, in_use, resolution, sync};
pub use graph::CalicoGraph;
pub use resolution::{Resolution, ResolvedHost};
pub use services::ServiceSlice;

#[cfg(test)]
mod tests;
