//! AF_XDP as a port to the underlay and to gateway interfaces: packet rate, and NICs that write into our memory themselves.

mod device;
mod gather;
mod lookup;
mod memory;
mod neighbors;
mod plain;
mod port;
mod region;
mod ring;
mod socket;
mod steering;
mod wire;

pub use device::{Ours, XdpAbilities, XdpConfig, XdpDevice, XdpError};
pub use memory::{Memory, Needs};
pub use port::XdpPort;
pub use region::{Borrower, Region};
pub use ring::{Descriptor, Ring};
pub use socket::{Socket, SocketError, Transfer};
pub use steering::{AttachError, Mode, Vtep};
pub use wire::Wire;
