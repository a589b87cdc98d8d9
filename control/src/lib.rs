#![doc = include_str!("../README.md")]

pub mod agent;
pub mod datastore;
pub mod edge;
pub mod flannel;
pub mod host;
pub mod model;
pub mod resolve;
pub mod state;
pub mod status;
