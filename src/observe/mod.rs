//! What can be seen of a running daemon: the admin socket, metrics, health.
//!
//! In reading order: [`protocol`] is what the admin socket speaks and what everything else is made of, [`views`] and [`policy_views`]
//! make it from the dataplane's own types, [`admin`] serves it, [`inspector`] answers it (with [`enforced`], which waits),
//! [`client`] asks for it, [`metrics`] and [`health`] say the same over HTTP, [`http`] keeps their connections short.

pub mod admin;
pub mod client;
pub mod enforced;
pub mod health;
pub mod http;
pub mod inspector;
pub mod metrics;
pub mod policy_views;
pub mod protocol;
pub mod views;
