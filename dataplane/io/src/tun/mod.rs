//! The TAP device that carries all traffic of the host: its creation, its header, its tags, a port over each queue.

mod device;
mod ioctl;
mod port;
mod tag;
pub mod vnet_hdr;

pub(crate) use device::is_ethernet;
pub use device::{Shortfall, TapAbilities, TapConfig, TapDevice, TapError, TapQueue};
pub use port::TapPort;
pub use tag::DEVICE_MAC;
