//! The program on the interface: loaded, attached, told what is ours and which socket takes it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::{Array, Map, MapData, MapError, XskMap};
use aya::programs::links::FdLink;
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp, loaded_programs};
use aya::{Ebpf, EbpfError, EbpfLoader};
use canal_dataplane::net::Mac;
use canal_dataplane::port::IfIndex;

use crate::netlink::{Attributes, IFINFO, Netlink, link_request};

/// Queues of an interface that can have a socket (`CANAL_XDP_QUEUES`).
pub const MAX_QUEUES: u32 = 256;
/// Words of `struct xdp_settings`.
const WORDS: usize = 8;
const PROGRAM: &str = "canal_xdp";

/// Aligned as ELF wants it.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/xdp.bpf.o")));

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before there is a packet of the kernel's.
    Native,
    /// Behind any driver, on a packet of the kernel's ("SKB mode").
    Generic,
}

/// Why there is no program on the interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused the object: no privilege, too old, or without AF_XDP.
    #[error("cannot load the XDP program")]
    Object(#[from] EbpfError),
    /// The kernel refused the program.
    #[error("the kernel refuses the XDP program")]
    Program(#[from] ProgramError),
    /// A map is missing or of another type, or cannot be written.
    #[error("cannot use the maps of the XDP program")]
    Map(#[from] MapError),
    /// Somebody else's is there already; we do not push it aside.
    #[error("another XDP program is attached already: {0}")]
    Taken(String),
    /// The attachment would outlive the process.
    #[error("the kernel has no links for XDP programs (Linux 5.9 has)")]
    NoLink,
}

/// What is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Our VTEP's IPv4 address.
    pub vtep_v4: Option<Ipv4Addr>,
    /// Our VTEP's IPv6 address.
    pub vtep_v6: Option<Ipv6Addr>,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// The interface's own address.
    pub mac: Mac,
    /// Bytes of the longest frame that fits a chunk.
    pub longest: u32,
}

/// The attached program. Detached when dropped, and by the kernel when the process ends.
pub struct Program {
    // Before the object that it belongs to.
    _link: FdLink,
    settings: Array<MapData, [u32; WORDS]>,
    sockets: XskMap<MapData>,
    _object: Ebpf,
}

impl Program {
    /// Loads it and puts it on the interface; nothing is ours yet, and no queue has a socket.
    ///
    /// # Errors
    /// [`AttachError`]; a driver that does not know native XDP is a [`AttachError::Program`].
    pub fn attach(ifindex: IfIndex, mode: Mode) -> Result<Self, AttachError> {
        let mut object = EbpfLoader::new().load(&OBJECT.0)?;
        let settings = Array::try_from(take(&mut object, "xdp_settings")?)?;
        let sockets = XskMap::try_from(take(&mut object, "xdp_sockets")?)?;
        let program: &mut Xdp = object.program_mut(PROGRAM).ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.load()?;
        let mode = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        let id = program.attach_to_if_index(ifindex, mode).map_err(|error| match owner(ifindex) {
            Some(owner) => AttachError::Taken(owner),
            None => error.into(),
        })?;
        let link: XdpLink = program.take_link(id)?;
        let link = FdLink::try_from(link).map_err(|_| AttachError::NoLink)?;
        Ok(Self { _link: link, settings, sockets, _object: object })
    }

    /// Says what is ours from now on.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    pub fn take(&mut self, ours: &Ours) -> Result<(), MapError> {
        self.settings.set(0, encode(ours), 0)
    }

    /// Gives what is ours and comes by `queue` to `socket`, which must be bound to it.
    ///
    /// # Errors
    /// As above.
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        self.sockets.set(queue, socket.as_raw_fd(), 0)
    }
}

fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, MapError> {
    object.take_map(name).ok_or(MapError::InvalidName { name: name.into() })
}

/// `struct xdp_settings`: addresses, port and MAC in network order, as in the packet.
fn encode(ours: &Ours) -> [u32; WORDS] {
    let mut bytes = [0; 4 * WORDS];
    bytes[..4].copy_from_slice(&ours.vtep_v4.map_or([0; 4], |v4| v4.octets()));
    bytes[4..20].copy_from_slice(&ours.vtep_v6.map_or([0; 16], |v6| v6.octets()));
    bytes[20..22].copy_from_slice(&ours.vxlan_port.to_be_bytes());
    bytes[22..28].copy_from_slice(&ours.mac.0);
    bytes[28..].copy_from_slice(&ours.longest.to_ne_bytes());
    let (words, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|i| u32::from_ne_bytes(words[i]))
}

/// Name and number of the program that is on the interface, if any.
fn owner(ifindex: IfIndex) -> Option<String> {
    let link = Netlink::open(0).and_then(|netlink| netlink.ask(&link_request(ifindex))).ok()?;
    let id = attached_program(&link)?;
    let known = loaded_programs().flatten().find(|program| program.id() == id);
    let name = known.as_ref().and_then(|program| program.name_as_str()).unwrap_or("(unnamed)").to_owned();
    Some(format!("{name} (id {id})"))
}

fn attached_program(link: &[u8]) -> Option<u32> {
    const IFLA_XDP: u16 = 43;
    const IFLA_XDP_PROG_ID: u16 = 4;
    let (_, xdp) = Attributes(link.get(IFINFO..)?).find(|(name, _)| *name == IFLA_XDP)?;
    let (_, id) = Attributes(xdp).find(|(name, _)| *name == IFLA_XDP_PROG_ID)?;
    Some(u32::from_ne_bytes(id.try_into().ok()?))
}

/// Receive queues that the interface uses; 1 where it does not say.
pub fn receive_queues(name: &str) -> io::Result<u32> {
    Ok(crate::tun::channels(name)?.unwrap_or(1).clamp(1, MAX_QUEUES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_structure_is_written() {
        let ours = Ours {
            vtep_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            vtep_v6: Some("2001:db8::1".parse().unwrap()),
            vxlan_port: 8472,
            mac: Mac([2, 3, 4, 5, 6, 7]),
            longest: 1792,
        };
        let words = encode(&ours);
        assert_eq!(words[0].to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!(words[1].to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(words[4].to_ne_bytes(), [0, 0, 0, 1]);
        assert_eq!(words[5].to_ne_bytes(), [0x21, 0x18, 2, 3]);
        assert_eq!((words[6].to_ne_bytes(), words[7]), ([4, 5, 6, 7], 1792));
        let nothing = Ours { vtep_v4: None, vtep_v6: None, ..ours };
        assert_eq!(encode(&nothing)[..5], [0; 5]);
    }
}
