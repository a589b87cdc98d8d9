//! Creation of the TAP device: queues, address, offloads.
//!
//! Directly on ioctl: the `tun` crate (0.8) refuses more than one queue on Linux and knows nothing of offloads.

use std::ffi::c_int;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use canal_dataplane::limits::MAX_WORKERS;
use canal_dataplane::net::Mac;
use canal_dataplane::offload::Caps;
use canal_dataplane::port::IfIndex;

use super::ioctl::{self, Interface, InterfaceRequest, Number};
use super::{tag, vnet_hdr};

const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Fail when the device exists: another daemon's device must not gain a queue of ours.
const IFF_TUN_EXCL: u16 = 0x8000;

const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;
const TUN_F_UDP_TUNNEL_GSO: u32 = 0x80;
const TUN_F_UDP_TUNNEL_GSO_CSUM: u32 = 0x100;

/// How the device is to be made.
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// Name of the device.
    pub name: String,
    /// Queues, one per worker.
    pub queues: usize,
    /// MTU in bytes: what the host's own packets into the overlay may have.
    pub mtu: u32,
    /// Frames that wait for each worker before the kernel drops.
    pub queue_length: u32,
    /// Do without super-frames inside UDP tunnels even where the kernel has them.
    pub forbid_tunnel_gso: bool,
    /// Do without UDP super-frames even where the kernel has them.
    pub forbid_uso: bool,
}

impl TapConfig {
    /// `canal0` with `queues` queues and the given MTU.
    pub fn new(queues: usize, mtu: u32) -> Self {
        Self {
            name: "canal0".into(),
            queues,
            mtu,
            queue_length: 1000,
            forbid_tunnel_gso: false,
            forbid_uso: false,
        }
    }
}

/// Why an ability is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// The configuration forbids it.
    Forbidden,
    /// The kernel refused with this error number; `EINVAL` means that it is too old.
    Kernel(i32),
}

/// What the kernel takes from us on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapAbilities {
    /// Super-frames inside a VXLAN tunnel (Linux ≥ 6.17). Without it the underlay needs the UDP port.
    pub tunnel_gso: bool,
    /// UDP super-frames (Linux ≥ 6.2).
    pub uso: bool,
    /// Why the first ability that is missing is missing.
    pub reason: Option<Shortfall>,
}

impl TapAbilities {
    /// In the core's terms.
    pub fn caps(self) -> Caps {
        Caps { checksum: true, tso: true, uso: self.uso, tunnel: self.tunnel_gso }
    }

    /// Bytes of the header in front of every frame.
    pub fn header_len(self) -> usize {
        if self.tunnel_gso { vnet_hdr::TUNNEL } else { vnet_hdr::PLAIN }
    }

    fn offload_bits(self) -> u32 {
        let mut bits = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
        if self.uso {
            bits |= TUN_F_USO4 | TUN_F_USO6;
        }
        if self.tunnel_gso {
            bits |= TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM;
        }
        bits
    }
}

/// Why there is no TAP device.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The driver is missing or closed to us.
    #[error("cannot open /dev/net/tun")]
    Open(#[source] io::Error),
    /// No such name or number of queues.
    #[error("a TAP device needs a name of 1 to 15 bytes and 1 to {MAX_WORKERS} queues")]
    Config,
    /// Somebody else has a device of that name.
    #[error("an interface of that name exists already")]
    Exists,
    /// A step failed.
    #[error("TAP device: cannot {step}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> TapError {
    move |source| TapError::Step { step, source }
}

/// One queue of the device. The device lives as long as one of its queues.
#[derive(Debug)]
pub struct TapQueue(OwnedFd);

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl TapQueue {
    fn open(name: &str, flags: u16) -> Result<Self, TapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(TapError::Open)?;
        let mut request = InterfaceRequest::new(name).ok_or(TapError::Config)?.with(flags.to_ne_bytes());
        ioctl::attach_queue(file.as_fd(), &mut request).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => TapError::Exists,
            _ => step("attach a queue")(error),
        })?;
        Ok(Self(file.into()))
    }

    /// Lets `program` (a socket filter) pick the queue of every frame that leaves the kernel by the device.
    pub(crate) fn set_steering_program(&self, program: c_int) -> io::Result<()> {
        ioctl::set_number(self.as_fd(), Number::SteeringProgram, program)
    }
}

/// What is known about a device; the device itself is its queues.
#[derive(Clone, Debug)]
pub struct TapDevice {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ifindex: IfIndex,
    /// Its own address: source and target of what the host sends and gets.
    pub mac: Mac,
    /// What it takes.
    pub abilities: TapAbilities,
}

impl TapDevice {
    /// Makes the device and brings it up; queue *i* is for worker *i*. The device vanishes when the last queue is
    /// closed, by whatever end of the process.
    pub fn create(config: &TapConfig) -> Result<(Self, Vec<TapQueue>), TapError> {
        if !(1..=MAX_WORKERS).contains(&config.queues) {
            return Err(TapError::Config);
        }
        let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
        let first = TapQueue::open(&config.name, flags | IFF_TUN_EXCL)?;
        ioctl::set_number(first.as_fd(), Number::LittleEndian, 1)
            .map_err(step("make headers little-endian"))?;
        let abilities = negotiate(first.as_fd(), config)?;
        let mut queues = vec![first];
        for _ in 1..config.queues {
            queues.push(TapQueue::open(&config.name, flags)?);
        }
        let mac = tag::DEVICE_MAC;
        set_up(config, mac)?;
        let ifindex = nix::net::if_::if_nametoindex(config.name.as_str())
            .map_err(|errno| step("find its number")(errno.into()))?;
        Ok((Self { name: config.name.clone(), ifindex, mac, abilities }, queues))
    }
}

fn negotiate(queue: BorrowedFd<'_>, config: &TapConfig) -> Result<TapAbilities, TapError> {
    let wanted = [(true, true), (false, true), (false, false)].map(|(tunnel, uso)| TapAbilities {
        tunnel_gso: tunnel && !config.forbid_tunnel_gso,
        uso: uso && !config.forbid_uso,
        reason: (config.forbid_tunnel_gso || config.forbid_uso).then_some(Shortfall::Forbidden),
    });
    let mut refused = None;
    for mut abilities in wanted {
        abilities.reason = abilities.reason.or(refused);
        let size = abilities.header_len() as c_int;
        ioctl::set_number(queue, Number::HeaderSize, size).map_err(step("set the size of its headers"))?;
        match ioctl::set_offload(queue, abilities.offload_bits()) {
            Ok(()) => return Ok(abilities),
            Err(error) => refused = refused.or(error.raw_os_error().map(Shortfall::Kernel)),
        }
    }
    let source = match refused {
        Some(Shortfall::Kernel(number)) => io::Error::from_raw_os_error(number),
        _ => io::ErrorKind::Unsupported.into(),
    };
    Err(step("agree on offloads")(source))
}

fn set_up(config: &TapConfig, mac: Mac) -> Result<(), TapError> {
    let socket = control_socket().map_err(step("open a socket"))?;
    let request = || InterfaceRequest::new(&config.name).ok_or(TapError::Config);
    let run = |what, mut request: InterfaceRequest, name| {
        ioctl::interface(socket.as_fd(), what, &mut request).map_err(step(name))?;
        Ok::<_, TapError>(request)
    };
    let mut address = [0; 8];
    address[..2].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
    address[2..].copy_from_slice(&mac.0);
    run(Interface::SetHardwareAddress, request()?.with(address), "set its address")?;
    let length = (config.queue_length as c_int).to_ne_bytes();
    run(Interface::SetQueueLength, request()?.with(length), "set the length of its queues")?;
    run(Interface::SetMtu, request()?.with((config.mtu as c_int).to_ne_bytes()), "set its MTU")?;
    // No link-local address of its own, hence no router solicitations into the overlay. Without IPv6 there is
    // nothing to switch off, so a failure means nothing.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", config.name), "1");
    let flags = u16::from_ne_bytes(run(Interface::Flags, request()?, "read its flags")?.value());
    let up = flags | (libc::IFF_UP | libc::IFF_NOARP) as u16;
    run(Interface::SetFlags, request()?.with(up.to_ne_bytes()), "bring it up")?;
    Ok(())
}

fn control_socket() -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// True when frames of the interface start with an Ethernet header.
pub(crate) fn is_ethernet(name: &str) -> io::Result<bool> {
    Ok(hardware_address(name)?.is_some())
}

/// The Ethernet address of an interface; `None` when its frames have no Ethernet header.
pub(crate) fn hardware_address(name: &str) -> io::Result<Option<Mac>> {
    let socket = control_socket()?;
    let mut request = InterfaceRequest::new(name).ok_or(io::ErrorKind::InvalidInput)?;
    ioctl::interface(socket.as_fd(), Interface::HardwareAddress, &mut request)?;
    let [a, b, mac @ ..]: [u8; 8] = request.value();
    Ok((u16::from_ne_bytes([a, b]) == libc::ARPHRD_ETHER).then_some(Mac(mac)))
}

/// Receive queues that the interface uses; `None` when its driver does not say.
pub(crate) fn channels(name: &str) -> io::Result<Option<u32>> {
    let socket = control_socket()?;
    let request = InterfaceRequest::new(name).ok_or(io::ErrorKind::InvalidInput)?;
    match ioctl::channels(socket.as_fd(), request) {
        Ok([_, _, _, _, _, receive, _, _, combined]) => Ok(Some(receive + combined)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}
