//! Calico's etcd v3 data model, as much of it as forwarding needs.
//!
//! Values are complete Kubernetes-style objects; member names match without regard to case and `null` means absent, as
//! Go's decoder has it. A value that does not decode is a missing object, never a wider one.

pub mod felix_key;
mod json;
pub mod keys;
pub mod kind;
pub mod names;
mod net;
pub mod resources;
pub mod selector;
pub mod workload;

pub use keys::WorkloadKey;
pub use workload::{WorkloadEndpoint, WorkloadError};
