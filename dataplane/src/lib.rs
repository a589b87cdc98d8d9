#![doc = include_str!("../README.md")]

pub mod checksum;
pub mod coalesce;
pub mod counters;
pub mod flow;
pub mod fragment;
pub mod frame;
pub mod limits;
pub mod net;
pub mod offload;
pub mod packet;
pub mod path_mtu;
pub mod pipeline;
pub mod policy;
pub mod port;
pub mod prefetch;
#[cfg(any(test, feature = "testing"))]
pub mod reference;
pub mod reply;
pub mod segment;
pub mod spec;
pub mod stage;
pub mod tables;
#[cfg(test)]
mod test_frames;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod timing;
pub mod trace;
pub mod verdict;
pub mod wire;
pub mod worker;
