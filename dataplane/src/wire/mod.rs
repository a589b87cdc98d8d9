//! Formats that no library of ours knows.

pub mod vxlan;
