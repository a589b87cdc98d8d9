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

pub(crate) use inner::{
    offload as inner_offload, plain_offload, plain_tcp_target, tcp_segment_target as inner_tcp_target,
};
pub(crate) use message::set_option;
pub(crate) use outer::Outer;
#[cfg(test)]
pub(crate) use outer::set_lengths;
pub(crate) use port::finish_segment;
pub use port::{UdpAbilities, UdpConfig, UdpPort, overlay_mtu};
pub use receiver::UdpReceiver;
pub use socket::UdpError;
#[cfg(test)]
pub(crate) use unpack::tests as unpack_cases;
pub(crate) use unpack::unpack;
