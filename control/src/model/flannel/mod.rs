//! flannel's etcd v3 data model: keys, network config, lease values.
//!
//! Everything here is a pure function from bytes to checked types and back. It follows what
//! flannel's programs write and accept, including the habits of Go's JSON, because the documents
//! are shared with real flannel nodes.

pub mod addr;
pub mod backend;
pub mod config;
mod json;
pub mod keys;
pub mod lease;
pub mod mtu;

pub use backend::{Backend, BackendError, VxlanOptions};
pub use config::{CheckError, ConfigDocument, ConfigError, NetworkConfig, Pool4, Pool6};
pub use keys::{Prefix, Subnets};
pub use lease::{LeaseValue, LeaseValueError, RawJson, VxlanData};
