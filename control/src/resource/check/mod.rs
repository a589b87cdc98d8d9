//! What the fields of one object have to do with each other.

pub(super) mod bgp;
pub(super) mod policy;
pub(super) mod pool;
pub(super) mod rule;
