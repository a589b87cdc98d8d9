//! An interface taken over: memory, sockets on all its queues, the program that feeds them, and the thread that knows its
//! neighbours.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::MapError;
use canal_dataplane::frame::Frame;
use canal_dataplane::limits::ETHERNET;
use canal_dataplane::net::Mac;
use canal_dataplane::port::IfIndex;
use crossbeam::queue::ArrayQueue;

use super::neighbors::Neighbors;
use super::port::{Common, Queue, XdpPort};
use super::region::Region;
use super::socket::{FILL, Socket, SocketError, TX, Transfer};
use super::steering::{AttachError, MAX_QUEUES, Mode, Ours, Program, receive_queues};

/// Bytes that the kernel keeps free in front of a received frame (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM: usize = 256;
/// An 802.1Q tag, which the interface's MTU does not count.
const VLAN: usize = 4;
/// Frames that all queues together can receive into: 128 MiB of chunks of 2048 bytes.
const ALL_QUEUES: usize = 65_536;
/// Frames of a queue, at least.
const FEW: usize = 512;
/// Frames of a worker beside those in its queues: all that can be on their way out, and some batches in its hands.
const HANDS: usize = TX as usize + 512;

/// Attempts to bind a queue whose last socket the kernel has not finished closing, and the pause between them.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// How an interface is to be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpConfig {
    /// The interface.
    pub ifindex: IfIndex,
    /// Its name.
    pub name: String,
    /// Our VTEP's IPv4 address.
    pub vtep_v4: Option<Ipv4Addr>,
    /// Our VTEP's IPv6 address.
    pub vtep_v6: Option<Ipv6Addr>,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// MTU of the interface, bytes of an IP packet.
    pub mtu: u32,
    /// MTU of the overlay, bytes of an IP packet.
    pub overlay_mtu: u32,
    /// Workers; queue *i* is given to worker *i* modulo their number.
    pub workers: usize,
    /// Do without the driver's own XDP even where it has it.
    pub forbid_native: bool,
}

/// Why an interface cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// It is gone, or says nothing.
    #[error("cannot look at {name}")]
    Interface {
        /// Its name.
        name: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Frames of the interface do not start with an Ethernet header.
    #[error("{0} is not an Ethernet interface")]
    NotEthernet(String),
    /// A frame would not fit a chunk.
    #[error("the MTU of {name} is {mtu}, and AF_XDP takes {} at most", longest_mtu())]
    Mtu {
        /// The interface.
        name: String,
        /// Its MTU.
        mtu: u32,
    },
    /// No memory.
    #[error("no memory for packets")]
    Memory(#[source] io::Error),
    /// The program could not be attached, in either mode.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A socket could not be made.
    #[error("AF_XDP socket")]
    Socket(#[from] SocketError),
    /// A socket could not be bound.
    #[error("cannot bind an AF_XDP socket to queue {queue} of {name}")]
    Bind {
        /// The interface.
        name: String,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The program could not be told.
    #[error("cannot tell the XDP program")]
    Map(#[from] MapError),
    /// Next hops could not be watched.
    #[error("cannot watch neighbours")]
    Neighbors(#[source] io::Error),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpAbilities {
    /// Where the program runs.
    pub mode: Mode,
    /// How frames get into our memory.
    pub transfer: Transfer,
    /// Queues with a socket.
    pub queues: u32,
    /// The memory is on huge pages.
    pub huge_pages: bool,
    /// Why the driver's own XDP is not used, if it is not.
    pub why_generic: Option<String>,
}

/// The interface. Dropped, it is left as it was; ports that are still there then get nothing more.
pub struct XdpDevice {
    // The program first: what arrives afterwards goes to the kernel.
    program: Program,
    _neighbors: Neighbors,
    common: Arc<Common>,
    abilities: XdpAbilities,
}

/// Memory of a device whose sockets are closed, for the next one. What the kernel had of it is free again.
#[derive(Debug)]
pub struct Leftover(&'static Region);

impl XdpDevice {
    /// Takes it over and makes a port for each worker; `None` for workers beyond the number of queues.
    ///
    /// # Errors
    /// [`XdpError`]; then nothing is left on the interface.
    pub fn open(
        config: &XdpConfig,
        leftover: Option<Leftover>,
    ) -> Result<(Self, Vec<Option<XdpPort>>), XdpError> {
        let looked = |source| XdpError::Interface { name: config.name.clone(), source };
        let mac = crate::tun::hardware_address(&config.name).map_err(looked)?;
        let mac = mac.ok_or_else(|| XdpError::NotEthernet(config.name.clone()))?;
        let queues = receive_queues(&config.name).map_err(looked)?;
        let chunk = chunk_for(config)?;
        let (region, frames) = memory(config.workers, queues, chunk, leftover).map_err(XdpError::Memory)?;
        let (mut program, mut sockets, abilities) = bind_all(config, queues, region)?;
        let neighbors = Neighbors::start(config.ifindex).map_err(XdpError::Neighbors)?;
        let common = Arc::new(Common {
            region,
            surplus: ArrayQueue::new(frames.len()),
            mac,
            longest: config.mtu as usize + ETHERNET,
            overlay_mtu: config.overlay_mtu as usize,
        });
        let mut frames = frames.into_iter();
        for Queue { socket, owed } in &mut sockets {
            *owed = 0;
            for frame in frames.by_ref().take(fill_of(queues)) {
                let Ok(address) = region.lend(frame) else { unreachable!("the region's own frames") };
                let pushed = socket.fill.push(address);
                debug_assert!(pushed, "fewer frames than the ring has places");
            }
            socket.fill.publish();
        }
        program.take(&ours(config, mac, chunk))?;
        for (queue, Queue { socket, .. }) in sockets.iter().enumerate() {
            program.set_socket(queue as u32, socket.as_fd())?;
        }
        let mut of_worker: Vec<Vec<Queue>> = (0..config.workers).map(|_| Vec::new()).collect();
        for (queue, socket) in sockets.into_iter().enumerate() {
            of_worker[queue % config.workers].push(socket);
        }
        let ports = of_worker.into_iter().map(|queues| {
            let mut hands = || frames.by_ref().take(HANDS).collect::<Vec<Frame>>();
            (!queues.is_empty()).then(|| XdpPort::new(queues, Arc::clone(&common), hands(), neighbors.hops()))
        });
        let ports = ports.collect();
        Ok((Self { program, _neighbors: neighbors, common, abilities }, ports))
    }

    /// What became of it.
    pub fn abilities(&self) -> &XdpAbilities {
        &self.abilities
    }

    /// Other addresses or another port are ours from now on; the sockets stay.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    pub fn take(&mut self, config: &XdpConfig) -> Result<(), XdpError> {
        Ok(self.program.take(&ours(config, self.common.mac, self.common.region.chunk()))?)
    }

    /// Leaves the interface as it was. Its memory can be used again if all its ports have been closed, and no NIC could
    /// still write to it: what the kernel copies it has copied when a socket is closed, a NIC may be late.
    pub fn close(self) -> Option<Leftover> {
        let Self { program, _neighbors, common, abilities } = self;
        drop(program);
        let region = common.region;
        for _ in 0..ATTEMPTS {
            if Arc::strong_count(&common) == 1 {
                while let Some(frame) = common.surplus.pop() {
                    let _ = region.lend(frame);
                }
                return (abilities.transfer == Transfer::Copy).then_some(Leftover(region));
            }
            std::thread::sleep(PAUSE);
        }
        None
    }
}

fn ours(config: &XdpConfig, mac: Mac, chunk: usize) -> Ours {
    Ours {
        vtep_v4: config.vtep_v4,
        vtep_v6: config.vtep_v6,
        vxlan_port: config.vxlan_port,
        mac,
        longest: (chunk - KERNEL_HEADROOM) as u32,
    }
}

/// The smallest chunk that a frame of the interface fits.
fn chunk_for(config: &XdpConfig) -> Result<usize, XdpError> {
    let longest = config.mtu as usize + ETHERNET + VLAN;
    let fitting = [2048, 4096].into_iter().find(|chunk| longest <= chunk - KERNEL_HEADROOM);
    fitting.ok_or_else(|| XdpError::Mtu { name: config.name.clone(), mtu: config.mtu })
}

const fn longest_mtu() -> usize {
    4096 - KERNEL_HEADROOM - ETHERNET - VLAN
}

/// Frames that each of `queues` queues can receive into.
fn fill_of(queues: u32) -> usize {
    (ALL_QUEUES / queues as usize).clamp(FEW, FILL as usize)
}

/// The region and all its frames that nobody has.
fn memory(
    workers: usize,
    queues: u32,
    chunk: usize,
    leftover: Option<Leftover>,
) -> io::Result<(&'static Region, Vec<Frame>)> {
    let count = queues as usize * fill_of(queues) + workers * HANDS;
    if let Some(Leftover(region)) = leftover.filter(|Leftover(region)| region.chunk() == chunk) {
        let frames = region.reclaim();
        if frames.len() >= count {
            return Ok((region, frames));
        }
        // Too many are on their way still. The others are lost with this region.
    }
    Region::new(count, chunk)
}

/// Attaches the program and binds a socket to each queue: in the driver with zero copy, in the driver, or behind it.
fn bind_all(
    config: &XdpConfig,
    queues: u32,
    region: &'static Region,
) -> Result<(Program, Vec<Queue>, XdpAbilities), XdpError> {
    let abilities = |mode, transfer, why_generic| XdpAbilities {
        mode,
        transfer,
        queues: queues.min(MAX_QUEUES),
        huge_pages: region.is_huge(),
        why_generic,
    };
    let native = || -> Result<_, XdpError> {
        let program = Program::attach(config.ifindex, Mode::Native)?;
        match bind_queues(config, queues, region, Transfer::ZeroCopy) {
            Ok(sockets) => Ok((program, sockets, abilities(Mode::Native, Transfer::ZeroCopy, None))),
            Err(XdpError::Bind { .. }) => {
                let sockets = bind_queues(config, queues, region, Transfer::Copy)?;
                Ok((program, sockets, abilities(Mode::Native, Transfer::Copy, None)))
            }
            Err(error) => Err(error),
        }
    };
    let why = if config.forbid_native {
        "forbidden".to_owned()
    } else {
        match native() {
            Ok(taken) => return Ok(taken),
            // The other mode would fare no better.
            Err(error @ (XdpError::Socket(_) | XdpError::Attach(AttachError::Taken(_)))) => {
                return Err(error);
            }
            Err(error) => causes(&error),
        }
    };
    let program = Program::attach(config.ifindex, Mode::Generic)?;
    let sockets = bind_queues(config, queues, region, Transfer::Copy)?;
    Ok((program, sockets, abilities(Mode::Generic, Transfer::Copy, Some(why))))
}

fn bind_queues(
    config: &XdpConfig,
    queues: u32,
    region: &'static Region,
    transfer: Transfer,
) -> Result<Vec<Queue>, XdpError> {
    let bind = |queue| -> Result<Queue, XdpError> {
        let socket = bind_queue(config.ifindex, queue, region, transfer)?;
        let socket = socket.map_err(|source| XdpError::Bind { name: config.name.clone(), queue, source })?;
        Ok(Queue { socket, owed: 0 })
    };
    (0..queues.min(MAX_QUEUES)).map(bind).collect()
}

/// Binds a new socket, patiently while the one before it is still being closed. A socket whose binding failed is not tried
/// again: it keeps what it had got hold of.
fn bind_queue(
    ifindex: IfIndex,
    queue: u32,
    region: &'static Region,
    transfer: Transfer,
) -> Result<io::Result<Socket>, SocketError> {
    for _ in 0..ATTEMPTS {
        let socket = Socket::new(region)?;
        match socket.bind(ifindex, queue, transfer) {
            Ok(()) => return Ok(Ok(socket)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => drop(socket),
            Err(error) => return Ok(Err(error)),
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Err(io::Error::from_raw_os_error(libc::EBUSY)))
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        if !text.ends_with(&sentence) {
            text = format!("{text}: {sentence}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mtu: u32) -> XdpConfig {
        XdpConfig {
            ifindex: 1,
            name: "eth0".into(),
            vtep_v4: None,
            vtep_v6: None,
            vxlan_port: 8472,
            mtu,
            overlay_mtu: mtu - 50,
            workers: 1,
            forbid_native: false,
        }
    }

    #[test]
    fn chunks_fit_the_mtu_or_it_is_said_which_would() {
        assert_eq!(chunk_for(&config(1500)).unwrap(), 2048);
        assert_eq!(chunk_for(&config(1774)).unwrap(), 2048);
        assert_eq!(chunk_for(&config(1775)).unwrap(), 4096);
        assert_eq!(chunk_for(&config(longest_mtu() as u32)).unwrap(), 4096);
        let refusal = chunk_for(&config(9000)).unwrap_err().to_string();
        assert!(refusal.contains("9000") && refusal.contains("3822"), "{refusal}");
    }

    #[test]
    fn many_queues_share_a_bounded_memory() {
        assert_eq!((fill_of(1), fill_of(8), fill_of(64), fill_of(256)), (8192, 8192, 1024, 512));
    }

    #[test]
    fn the_next_device_gets_what_the_last_one_left() {
        let (region, frames) = memory(1, 1, 2048, None).unwrap();
        let all = frames.len();
        for frame in frames {
            region.lend(frame).unwrap();
        }
        let (again, frames) = memory(1, 1, 2048, Some(Leftover(region))).unwrap();
        assert!(std::ptr::eq(region, again));
        assert_eq!(frames.len(), all);
        // All are somebody's: another region.
        let (other, _) = memory(1, 1, 2048, Some(Leftover(region))).unwrap();
        assert!(!std::ptr::eq(region, other));
        let (other, _) = memory(1, 1, 4096, Some(Leftover(region))).unwrap();
        assert_eq!(other.chunk(), 4096);
    }
}
