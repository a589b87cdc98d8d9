//! Formats that no library of ours knows.

pub mod ecn;
pub mod outer;
pub mod vxlan;
