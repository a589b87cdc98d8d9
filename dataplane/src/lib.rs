//! canal's packet core.

pub mod net;
