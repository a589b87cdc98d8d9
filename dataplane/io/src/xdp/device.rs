//! An interface taken over: memory, sockets on all its queues, the program that feeds them, and the thread that knows its
//! neighbours.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aya::maps::MapError;
use canal_dataplane::limits::ETHERNET;
use canal_dataplane::port::IfIndex;
use ipnetwork::IpNetwork;

use super::memory::{HANDS, Memory, fill_of, longest_mtu};
use super::neighbors::Neighbors;
use super::region::Region;
use super::socket::{Socket, SocketError, Transfer};
use super::steering::{AttachError, Frames, MAX_QUEUES, Mode, Program, Vtep, receive_queues};
use super::wire::{Interface, Queue, Role, Wire};
use crate::bpf::Whose;

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
    /// What of it is ours.
    pub ours: Ours,
    /// Destinations on this host: what goes there in pieces is merged. What goes elsewhere is merged only if no other
    /// interface's sockets could have to cut it again.
    pub local: Vec<IpNetwork>,
    /// MTU of the interface, bytes of an IP packet.
    pub mtu: u32,
    /// Workers; queue *i* is given to worker *i* modulo their number.
    pub workers: usize,
    /// Do without the driver's own XDP even where it has it.
    pub forbid_native: bool,
    /// Have the kernel poll a queue for so long, up to microseconds, whenever there is nothing in it, rather than wait for
    /// interrupts (Linux 5.11).
    pub busy_poll: Option<Duration>,
}

/// What of an interface is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ours {
    /// Of the underlay: VXLAN for this end of the tunnel.
    Vxlan {
        /// The end.
        vtep: Vtep,
        /// MTU of the overlay, bytes of an IP packet.
        overlay_mtu: u32,
    },
    /// Of a gateway: plain packets for what is the overlay's, by the longest prefix.
    Plain(Arc<BTreeMap<IpNetwork, Whose>>),
}

impl Ours {
    /// The program that knows it.
    fn program(&self) -> &'static str {
        match self {
            Self::Vxlan { .. } => "canal_xdp",
            Self::Plain(_) => "canal_xdp_gate",
        }
    }

    /// What it makes of sockets.
    fn role(&self) -> Role {
        match self {
            Self::Vxlan { overlay_mtu, .. } => Role::Underlay { overlay_mtu: *overlay_mtu as usize },
            Self::Plain(_) => Role::Gateway,
        }
    }
}

impl XdpConfig {
    /// Do the sockets of the one do for the other? What differs, the program can be told ([`XdpDevice::take`]).
    pub fn same_sockets(&self, other: &Self) -> bool {
        let sockets = |config: &Self| {
            let modes = (config.workers, config.forbid_native, config.busy_poll);
            (config.ifindex, config.mtu, config.ours.role(), modes)
        };
        sockets(self) == sockets(other)
    }
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
    /// More than the memory has numbers for.
    #[error("too many interfaces")]
    TooMany,
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
    /// The kernel polls queues when we look at them.
    pub busy_poll: bool,
    /// Why the driver's own XDP is not used, if it is not.
    pub why_generic: Option<String>,
}

/// The interface. Dropped, it is left as it was; sockets that are still there then get nothing more.
pub struct XdpDevice {
    // The program first: what arrives afterwards goes to the kernel.
    program: Program,
    _neighbors: Neighbors,
    interface: Arc<Interface>,
    abilities: XdpAbilities,
}

impl XdpDevice {
    /// Takes it over with frames of `memory`, and makes what each worker has of it; `None` for workers beyond the number of
    /// queues. The memory must serve the interface beside all others that are open ([`Memory::serves`]); with less of it
    /// fewer packets can wait.
    ///
    /// # Errors
    /// [`XdpError`]; then nothing is left on the interface.
    pub fn open(config: &XdpConfig, memory: &Arc<Memory>) -> Result<(Self, Vec<Option<Wire>>), XdpError> {
        let looked = |source| XdpError::Interface { name: config.name.clone(), source };
        let mac = crate::tun::hardware_address(&config.name).map_err(looked)?;
        let mac = mac.ok_or_else(|| XdpError::NotEthernet(config.name.clone()))?;
        let queues = receive_queues(&config.name).map_err(looked)?;
        let (mut program, mut sockets, abilities) = bind_all(config, queues, memory.region())?;
        let neighbors = Neighbors::start(config.ifindex).map_err(XdpError::Neighbors)?;
        let interface = Arc::new(Interface {
            memory: Arc::clone(memory),
            borrower: memory.borrower().ok_or(XdpError::TooMany)?,
            ifindex: config.ifindex,
            mac,
            longest: config.mtu as usize + ETHERNET,
            role: config.ours.role(),
            local: ArcSwap::from_pointee(config.local.clone()),
            polls: config.busy_poll.is_some(),
        });
        sockets.iter_mut().for_each(|queue| queue.fill(&interface, fill_of(queues)));
        tell(&mut program, &config.ours, &Frames { mac, longest: memory.longest() })?;
        for (queue, Queue { socket, .. }) in sockets.iter().enumerate() {
            program.set_socket(queue as u32, socket.as_fd())?;
        }
        let mut of_worker: Vec<Vec<Queue>> = (0..config.workers).map(|_| Vec::new()).collect();
        for (queue, socket) in sockets.into_iter().enumerate() {
            of_worker[queue % config.workers].push(socket);
        }
        let wire = |queues: Vec<Queue>| {
            let hands = || std::iter::from_fn(|| memory.spare()).take(HANDS).collect();
            (!queues.is_empty()).then(|| Wire::new(queues, Arc::clone(&interface), neighbors.hops(), hands()))
        };
        let wires = of_worker.into_iter().map(wire).collect();
        Ok((Self { program, _neighbors: neighbors, interface, abilities }, wires))
    }

    /// What became of it.
    pub fn abilities(&self) -> &XdpAbilities {
        &self.abilities
    }

    /// Other addresses, another port or other destinations are ours from now on; the sockets stay.
    ///
    /// # Errors
    /// When the kernel refuses, which it has no reason to.
    pub fn take(&mut self, config: &XdpConfig) -> Result<(), XdpError> {
        let Interface { mac, memory, local, .. } = &*self.interface;
        local.store(Arc::new(config.local.clone()));
        Ok(tell(&mut self.program, &config.ours, &Frames { mac: *mac, longest: memory.longest() })?)
    }

    /// Leaves the interface as it was. What its sockets had of the memory is free again once the workers have closed them, for
    /// which it waits a little, unless a NIC could still write there: what the kernel copies it has copied when a socket is
    /// closed, a NIC may be late.
    pub fn close(self) {
        let Self { program, _neighbors, interface, abilities } = self;
        drop(program);
        for _ in 0..ATTEMPTS {
            if Arc::strong_count(&interface) == 1 {
                interface.memory.release(interface.borrower, abilities.transfer == Transfer::Copy);
                return;
            }
            std::thread::sleep(PAUSE);
        }
        // A worker is stuck with them: they are its own for good.
    }
}

fn tell(program: &mut Program, ours: &Ours, frames: &Frames) -> Result<(), MapError> {
    match ours {
        Ours::Vxlan { vtep, .. } => program.take(vtep, frames),
        Ours::Plain(whose) => {
            program.take_for(whose)?;
            program.take(&Vtep::default(), frames)
        }
    }
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
        busy_poll: config.busy_poll.is_some(),
        why_generic,
    };
    let native = || -> Result<_, XdpError> {
        let program = Program::attach(config.ours.program(), config.ifindex, Mode::Native)?;
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
    let program = Program::attach(config.ours.program(), config.ifindex, Mode::Generic)?;
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
        let socket = bind_queue(config, queue, region, transfer)?;
        let socket = socket.map_err(|source| XdpError::Bind { name: config.name.clone(), queue, source })?;
        Ok(Queue { socket, owed: 0 })
    };
    (0..queues.min(MAX_QUEUES)).map(bind).collect()
}

/// Binds a new socket, patiently while the one before it is still being closed. A socket whose binding failed is not tried
/// again: it keeps what it had got hold of.
fn bind_queue(
    config: &XdpConfig,
    queue: u32,
    region: &'static Region,
    transfer: Transfer,
) -> Result<io::Result<Socket>, SocketError> {
    for _ in 0..ATTEMPTS {
        let socket = Socket::new(region)?;
        if let Some(duration) = config.busy_poll {
            socket.poll_busily(duration)?;
        }
        match socket.bind(config.ifindex, queue, transfer) {
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
impl XdpConfig {
    /// Of an interface with this MTU.
    pub(super) fn example(mtu: u32) -> Self {
        Self {
            ifindex: 1,
            name: "eth0".into(),
            ours: Ours::Vxlan { vtep: Vtep::default(), overlay_mtu: mtu - 50 },
            local: Vec::new(),
            mtu,
            workers: 1,
            forbid_native: false,
            busy_poll: None,
        }
    }
}
