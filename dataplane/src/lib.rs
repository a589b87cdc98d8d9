//! canal's packet core.

pub mod checksum;
pub mod coalesce;
pub mod fragment;
pub mod frame;
pub mod limits;
pub mod net;
pub mod offload;
pub mod port;
pub mod reply;
pub mod segment;
#[cfg(test)]
mod test_frames;
