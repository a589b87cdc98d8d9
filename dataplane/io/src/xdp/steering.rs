//! The program on the interface: loaded, attached, told what is ours and which socket takes it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, Map, MapData, MapError, XskMap};
use aya::programs::links::FdLink;
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp, loaded_programs};
use aya::{Ebpf, EbpfError};
use canal_dataplane::net::Mac;
use canal_dataplane::port::IfIndex;
use ipnetwork::IpNetwork;

use crate::bpf::{Destinations, Whose, load};
use crate::netlink::{Attributes, IFINFO, Netlink, link_request};

/// Queues of an interface that can have a socket (`CANAL_XDP_QUEUES`).
pub const MAX_QUEUES: u32 = 256;
/// Words of `struct xdp_settings`.
const WORDS: usize = 8;

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

/// The end of the tunnel: what arrives for it is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vtep {
    /// Our IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Our IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// UDP port of the overlay; 0: nothing is ours.
    pub port: u16,
}

/// Which frames of an interface can be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
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
    destinations: Destinations,
    sockets: XskMap<MapData>,
    _object: Ebpf,
}

impl Program {
    /// Loads `program` and puts it on the interface; nothing is ours yet, and no queue has a socket.
    ///
    /// # Errors
    /// [`AttachError`]; a driver that does not know native XDP is a [`AttachError::Program`].
    pub fn attach(program: &str, ifindex: IfIndex, mode: Mode) -> Result<Self, AttachError> {
        let mut object = load(&OBJECT.0)?;
        let settings = Array::try_from(take(&mut object, "xdp_settings")?)?;
        let sockets = XskMap::try_from(take(&mut object, "xdp_sockets")?)?;
        let v4 = LpmTrie::try_from(take(&mut object, "destinations_v4")?)?;
        let v6 = LpmTrie::try_from(take(&mut object, "destinations_v6")?)?;
        let destinations = Destinations::new(v4, v6);
        let program: &mut Xdp = object.program_mut(program).ok_or(ProgramError::NotLoaded)?.try_into()?;
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
        Ok(Self { _link: link, settings, destinations, sockets, _object: object })
    }

    /// Says which frames are ours from now on.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    pub fn take(&mut self, vtep: &Vtep, frames: &Frames) -> Result<(), MapError> {
        self.settings.set(0, encode(vtep, frames), 0)
    }

    /// Says to which destinations.
    ///
    /// # Errors
    /// As [`Destinations::set`].
    pub fn take_for(&mut self, whose: &BTreeMap<IpNetwork, Whose>) -> Result<(), MapError> {
        self.destinations.set(whose)
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
fn encode(vtep: &Vtep, frames: &Frames) -> [u32; WORDS] {
    let mut bytes = [0; 4 * WORDS];
    bytes[..4].copy_from_slice(&vtep.v4.map_or([0; 4], |v4| v4.octets()));
    bytes[4..20].copy_from_slice(&vtep.v6.map_or([0; 16], |v6| v6.octets()));
    bytes[20..22].copy_from_slice(&vtep.port.to_be_bytes());
    bytes[22..28].copy_from_slice(&frames.mac.0);
    bytes[28..].copy_from_slice(&frames.longest.to_ne_bytes());
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
        let vtep = Vtep {
            v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
            v6: Some("2001:db8::1".parse().unwrap()),
            port: 8472,
        };
        let frames = Frames { mac: Mac([2, 3, 4, 5, 6, 7]), longest: 1792 };
        let words = encode(&vtep, &frames);
        assert_eq!(words[0].to_ne_bytes(), [192, 0, 2, 1]);
        assert_eq!(words[1].to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(words[4].to_ne_bytes(), [0, 0, 0, 1]);
        assert_eq!(words[5].to_ne_bytes(), [0x21, 0x18, 2, 3]);
        assert_eq!((words[6].to_ne_bytes(), words[7]), ([4, 5, 6, 7], 1792));
        assert_eq!(encode(&Vtep { v4: None, v6: None, ..vtep }, &frames)[..5], [0; 5]);
    }
}
