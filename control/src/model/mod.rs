//! The data models of other systems, decoded once into checked types.

pub mod flannel;

pub mod calico;
