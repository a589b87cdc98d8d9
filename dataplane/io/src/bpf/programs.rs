//! The compiled eBPF programs and their maps, loaded into the kernel.

use std::collections::HashMap as StdHashMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use aya::programs::{ProgramError, SchedClassifier, SocketFilter};
use aya::{Ebpf, EbpfError};
use canal_dataplane::port::IfIndex;

use super::destinations::Destinations;
use super::loader;
use super::settings::WORDS;

/// Next hops that may ever be used (`CANAL_NEXT_HOPS`).
const MAX_NEXT_HOPS: u32 = 4096;

/// Aligned as ELF wants it.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/canal.bpf.o")));

/// Why the programs are not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused the object: no privilege, or too old.
    #[error("cannot load the eBPF programs")]
    Object(#[from] EbpfError),
    /// The kernel's verifier refused a program.
    #[error("the kernel refuses the eBPF program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// The kernel's answer.
        #[source]
        source: ProgramError,
    },
    /// A map is missing or of another type: object and crate do not belong together.
    #[error("the eBPF object has no map {0} as expected")]
    Map(&'static str, #[source] Option<MapError>),
}

/// The programs that sit on interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Ingress of a workload's host-side interface.
    Workload,
    /// Ingress of the underlay interface.
    Underlay,
    /// Ingress of a gateway interface.
    Gateway,
    /// Ingress of the TAP device.
    Device,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Workload, Self::Underlay, Self::Gateway, Self::Device];

    /// Name of the program in the kernel.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Workload => "canal_workload",
            Self::Underlay => "canal_underlay",
            Self::Gateway => "canal_gateway",
            Self::Device => "canal_device",
        }
    }
}

/// The programs that pick a worker for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picker {
    /// By the queue of the TAP device.
    Queue,
    /// By the socket, among those that share the VXLAN port.
    Socket,
}

impl Picker {
    const ALL: [Self; 2] = [Self::Queue, Self::Socket];

    const fn program(self) -> &'static str {
        match self {
            Self::Queue => "canal_queue",
            Self::Socket => "canal_socket",
        }
    }
}

/// `struct workload`: how its frames reach it, and the address it was last seen to send from.
type Workload = [u64; 2];

/// The loaded programs.
pub struct Programs {
    object: Ebpf,
    settings: Array<MapData, [u32; WORDS]>,
    workloads: HashMap<MapData, u32, Workload>,
    gateways: HashMap<MapData, u32, u32>,
    destinations: Destinations,
    next_hops: Arc<NextHops>,
}

impl Programs {
    /// Loads everything; nothing is attached yet.
    pub fn load() -> Result<Self, LoadError> {
        let mut object = loader::load(&OBJECT.0)?;
        for hook in Hook::ALL {
            classifier(&mut object, hook)
                .and_then(SchedClassifier::load)
                .map_err(|source| LoadError::Program { name: hook.program(), source })?;
        }
        for picker in Picker::ALL {
            filter(&mut object, picker)
                .and_then(SocketFilter::load)
                .map_err(|source| LoadError::Program { name: picker.program(), source })?;
        }
        let settings = take(&mut object, "settings")?;
        let workloads = take(&mut object, "workloads")?;
        let gateways = take(&mut object, "gateways")?;
        let destinations =
            Destinations::new(take(&mut object, "destinations_v4")?, take(&mut object, "destinations_v6")?);
        let next_hops = Arc::new(NextHops {
            inner: Mutex::new(NextHopTable {
                map: take(&mut object, "next_hops_v6")?,
                known: StdHashMap::new(),
            }),
        });
        Ok(Self { object, settings, workloads, gateways, destinations, next_hops })
    }

    /// The program of `hook`.
    pub fn classifier(&mut self, hook: Hook) -> Result<&mut SchedClassifier, ProgramError> {
        classifier(&mut self.object, hook)
    }

    /// The program that picks queues or sockets.
    pub fn filter(&mut self, picker: Picker) -> Result<&mut SocketFilter, ProgramError> {
        filter(&mut self.object, picker)
    }

    /// Replaces the settings.
    pub fn set_settings(&mut self, words: [u32; WORDS]) -> Result<(), MapError> {
        self.settings.set(0, words, 0)
    }

    /// Lets frames go to the workload behind `ifindex`. What is known of the address it sends from stays known.
    pub fn allow_workload(&mut self, ifindex: IfIndex, via: Via) -> Result<(), MapError> {
        let via = via as u64;
        match self.workloads.get(&ifindex, 0) {
            Ok([known, _]) if known == via => Ok(()),
            Ok([_, address]) => self.workloads.insert(ifindex, [via, address], 0),
            Err(_) => self.workloads.insert(ifindex, [via, 0], 0),
        }
    }

    /// No more frames to `ifindex`; no error when there never were.
    pub fn forbid_workload(&mut self, ifindex: IfIndex) -> Result<(), MapError> {
        if_there(self.workloads.remove(&ifindex))
    }

    /// Lets plain frames go out of the gateway interface `ifindex`.
    pub fn allow_gateway(&mut self, ifindex: IfIndex) -> Result<(), MapError> {
        self.gateways.insert(ifindex, 1, 0)
    }

    /// No more frames out of `ifindex`; no error when there never were.
    pub fn forbid_gateway(&mut self, ifindex: IfIndex) -> Result<(), MapError> {
        if_there(self.gateways.remove(&ifindex))
    }

    /// Whose the destinations of packets from gateway interfaces are.
    pub fn destinations(&mut self) -> &mut Destinations {
        &mut self.destinations
    }

    /// The table of IPv6 next hops.
    pub fn next_hops(&self) -> Arc<NextHops> {
        Arc::clone(&self.next_hops)
    }
}

/// The result of a removal: what is not there needs none.
pub(super) fn if_there(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn classifier(object: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier, ProgramError> {
    object.program_mut(hook.program()).ok_or(ProgramError::NotLoaded)?.try_into()
}

fn filter(object: &mut Ebpf, picker: Picker) -> Result<&mut SocketFilter, ProgramError> {
    object.program_mut(picker.program()).ok_or(ProgramError::NotLoaded)?.try_into()
}

fn take<T: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Result<T, LoadError> {
    let map = object.take_map(name).ok_or(LoadError::Map(name, None))?;
    T::try_from(map).map_err(|error| LoadError::Map(name, Some(error)))
}

/// How a frame reaches a workload (`CANAL_VIA_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Via {
    /// Straight into the other end of a veth pair, in another namespace.
    Peer = 1,
    /// Out of the device.
    Device = 2,
}

/// IPv6 next hops, numbered, because an address does not fit into a tag. Shared by all workers; asked once per worker
/// and next hop.
pub struct NextHops {
    inner: Mutex<NextHopTable>,
}

struct NextHopTable {
    map: Array<MapData, [u32; 4]>,
    known: StdHashMap<Ipv6Addr, u32>,
}

impl NextHops {
    /// Number of `next_hop`, a new one when it was unknown; `None` when the table is full or the kernel refuses.
    pub fn index_of(&self, next_hop: Ipv6Addr) -> Option<u32> {
        let mut table = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = table.known.get(&next_hop) {
            return Some(*index);
        }
        let index = u32::try_from(table.known.len()).ok().filter(|index| *index < MAX_NEXT_HOPS)?;
        let octets = next_hop.octets();
        let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        table.map.set(index, [word(0), word(4), word(8), word(12)], 0).ok()?;
        table.known.insert(next_hop, index);
        Some(index)
    }
}
