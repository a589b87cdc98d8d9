//! Builders that tests, fuzz targets and benches share. Not for production code.

pub mod packets;
pub mod verify;
pub mod world;
