//! The TAP device that carries all traffic of the host: its creation, its header, its tags, a port over each queue.

mod device;
mod ioctl;
mod losses;
mod port;
mod tag;
pub mod vnet_hdr;
mod writer;

pub use device::{Shortfall, TapAbilities, TapConfig, TapDevice, TapError, TapQueue};
pub(crate) use device::{channels, hardware_address, is_ethernet};
pub use losses::lost_frames;
pub use port::TapPort;
pub use tag::DEVICE_MAC;
pub use writer::TapWriter;
