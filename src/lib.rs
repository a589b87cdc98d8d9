//! Composition of canal: what the daemon `canal-fwd` and the operator's command `canal` are made of.

pub mod config;
pub mod depot;
pub mod instance;
pub mod logging;
pub mod observe;
pub mod ports;
pub mod supervise;
pub mod worker_thread;
