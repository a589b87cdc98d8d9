//! Composition of canal: what the daemon `canal-fwd` and the operator's command `canal` are made of.

pub mod config;
pub mod observe;
