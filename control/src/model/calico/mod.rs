//! Calico's etcd v3 data model.
//!
//! ```text
//!  key, bytes ──► keys, go_json ──► v3 (as stored) ──► v1 (as Felix reads it) ──► check ──► resources (typed)
//!                                                        └── joins selectors ──► selector
//! ```
//! [`decode::decode`] is all of it. Values are complete Kubernetes-style objects; member names match without regard to
//! case and `null` means absent, as Go's decoder has it. A value that does not decode is a missing object, never a
//! wider one: where Felix takes it for a wider one, [`problem::Quirks`] says whether we do.

pub mod check;
pub mod decode;
pub mod derived;
pub mod felix_key;
mod go_json;
pub mod keys;
pub mod kind;
pub mod labels;
pub mod names;
mod net;
pub mod number;
pub mod problem;
pub mod resources;
pub mod selector;
pub(crate) mod timestamp;
pub mod v1;
pub mod v3;
pub mod workload;

pub use keys::WorkloadKey;
pub use workload::WorkloadEndpoint;
