//! The small types of the field: addresses and identifiers with checked constructors.

mod mac;
mod vni;

pub use mac::{Mac, ParseMacError};
pub use vni::Vni;
