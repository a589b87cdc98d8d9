//! Builders, generators and the in-memory world that tests, fuzz targets and benches share. Not for production code.

pub mod calico;
pub mod entropy;
pub mod fuzz;
pub mod packets;
pub mod policies;
pub mod talk;
pub mod topology;
pub mod traffic;
pub mod twin;
pub mod verify;
pub mod world;
