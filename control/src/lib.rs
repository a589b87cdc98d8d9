#![doc = include_str!("../README.md")]

pub mod datastore;

pub mod model;

pub mod flannel;

pub mod state;

pub mod host;

pub mod felix;

pub mod resolve;

pub mod edge;

pub mod status;

pub mod agent;

pub mod report;

pub mod resource;
