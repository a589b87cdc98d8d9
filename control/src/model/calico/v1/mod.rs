//! Resources as Felix reads them: what libcalico-go's "update processors" make of v3 resources, step by step the same,
//! so that the same policy means the same here.
//!
//! Texts are joined but not yet understood: a selector may make no sense. [`super::check`] types everything.

pub mod config;
mod config_fields;
mod duration;
mod endpoint;
mod entity;
mod node;
mod policy;
pub mod pool;
mod rule;
mod selector_text;
mod set;

pub use endpoint::{EndpointPort, HostEndpoint, IpNat, WorkloadEndpoint};
pub use entity::{Entity, Net, Original};
pub use node::{HostAddresses, Node};
pub use policy::{Policy, Profile};
pub use pool::Pool;
pub use rule::Rule;
pub use set::NetworkSet;

/// Label of everything that lives in a namespace.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// Label of a pod's service account.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// Before the labels of a namespace, where an endpoint inherits them.
pub const NAMESPACE_PREFIX: &str = "pcns.";

/// The same of a service account.
pub const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";

/// Before a namespace's name in that of its profile.
pub const NAMESPACE_PROFILE: &str = "kns.";
