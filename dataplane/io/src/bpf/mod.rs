//! The eBPF programs that steer packets into the TAP device and out of it: loading, settings, attachment.

mod destinations;
mod link_kind;
mod loader;
mod programs;
#[cfg(test)]
mod queue_test;
mod settings;
mod steering;

pub(crate) use destinations::Destinations;
pub use destinations::Whose;
pub(crate) use loader::load;
pub use programs::{Hook, LoadError, NextHops};
pub use settings::{MAX_SUBNETS, Underlay};
pub use steering::{AttachMode, Attachment, Steering, SteeringError};
