//! What can be seen of a running daemon: the admin socket, metrics, health.
//!
//! In reading order: [`protocol`] is what the admin socket speaks and what everything else is made of, [`views`], [`policy_views`] and
//! [`calico_views`] make it from the dataplane's own types with [`names`] for people, [`admin`] serves it, [`inspector`] answers it (with
//! [`enforced`], which waits, [`flow_filter`], [`flow_shares`], and the [`journal`] of what policy has to tell), [`client`] asks for it,
//! [`metrics`] and [`felix_metrics`] ([`exposition`]: how they are written) and [`health`] say the same over HTTP, [`http`] keeps their connections short.

pub mod admin;
mod asking;
pub mod calico_views;
pub mod client;
pub mod enforced;
pub mod exposition;
pub mod felix_metrics;
pub mod flow_filter;
pub mod flow_shares;
pub mod health;
pub mod http;
pub mod inspector;
pub mod journal;
pub mod listener;
pub mod metrics;
pub mod names;
pub mod policy_views;
pub mod protocol;
pub mod views;

#[cfg(test)]
mod socket_tests;
