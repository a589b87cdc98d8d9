//! UDP sockets as a port to the underlay: for any kernel, without eBPF. Outer headers exist between core and port only.

mod errors;
mod inner;
mod lane;
mod message;
mod outer;
mod port;
mod receiver;
mod run;
mod socket;
mod unpack;

pub(crate) use message::set_option;
pub(crate) use outer::Outer;
pub use port::{UdpAbilities, UdpConfig, UdpPort, overlay_mtu};
pub use receiver::UdpReceiver;
pub use socket::UdpError;
pub(crate) use unpack::unpack;
