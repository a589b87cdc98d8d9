//! canal's packet core.

pub mod checksum;
pub mod counters;
pub mod flow;
pub mod frame;
pub mod limits;
pub mod net;
pub mod offload;
pub mod packet;
pub mod port;
mod prefetch;
pub mod segment;
pub mod spec;
pub mod tables;
#[cfg(test)]
mod test_frames;
pub mod verdict;
pub mod wire;
