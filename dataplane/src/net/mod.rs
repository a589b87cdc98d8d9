//! The small types of the field: addresses and identifiers with checked constructors.

mod flow_key;
mod mac;
mod vni;

pub use flow_key::{Direction, FlowKey, HashSeed};
pub use mac::{Mac, ParseMacError};
pub use vni::Vni;
