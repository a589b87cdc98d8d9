//! canal's control side.

pub mod datastore;
pub mod flannel;
pub mod host;
pub mod model;
