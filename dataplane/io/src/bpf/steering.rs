//! Ownership of everything that steers packets into and out of the TAP device: programs, attachments, their lifetime.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use aya::maps::MapError;
use aya::programs::tc::{self, NlOptions, SchedClassifier, SchedClassifierLink, TcAttachOptions, TcError};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use canal_dataplane::net::HashSeed;
use canal_dataplane::port::IfIndex;
use ipnetwork::IpNetwork;

use super::destinations::Whose;
use super::link_kind::is_pair_across_namespaces;
use super::programs::{Hook, LoadError, NextHops, Picker, Programs, Via};
use super::settings::{self, Fixed, Underlay};
use crate::tun::{TapDevice, TapQueue, is_ethernet};
use crate::udp::set_option;

/// How programs are put on interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX links (Linux ≥ 6.6): they go with the process, however it ends, and coexist with other programs.
    Tcx,
    /// Filters of a clsact qdisc: they stay after `kill -9`, until the next start or the device's end.
    Clsact,
}

/// Why steering failed.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The programs are not in the kernel.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no interface of that number (any more).
    #[error("interface {0} does not exist")]
    NoInterface(IfIndex),
    /// Frames of the interface do not start with an Ethernet header.
    #[error("interface {0} is not an Ethernet interface: use the UDP port")]
    NotEthernet(String),
    /// A program could not be put on an interface.
    #[error("cannot attach {program} to {interface}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Name of the interface.
        interface: String,
        /// The kernel's answer.
        #[source]
        source: ProgramError,
    },
    /// A map could not be written.
    #[error("cannot tell the eBPF programs")]
    Map(#[from] MapError),
}

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub ifindex: IfIndex,
    /// Which program.
    pub hook: Hook,
}

struct Attached {
    hook: Hook,
    /// Detaches when dropped.
    _link: SchedClassifierLink,
}

/// The programs and where they are attached. Dropping it detaches everything.
pub struct Steering {
    // Before `programs`: links go before what they refer to.
    attached: BTreeMap<IfIndex, Attached>,
    programs: Programs,
    mode: AttachMode,
    fixed: Fixed,
    underlay: Option<Underlay>,
    queue_program: Result<(), i32>,
}

/// Of netlink filters the one with the lowest number runs first.
const CLSACT_PRIORITY: u16 = 1;

impl Steering {
    /// Loads the programs, attaches the device's own and the one that picks its queue. `mode`: `None` takes what the
    /// kernel has. A kernel that refuses the queue program is said so in [`Self::queue_program`]; then the kernel
    /// picks queues by its own hash and workers hand frames over.
    pub fn open(
        device: &TapDevice,
        queues: &[TapQueue],
        seed: HashSeed,
        mode: Option<AttachMode>,
    ) -> Result<Self, SteeringError> {
        let mut programs = Programs::load()?;
        let fixed = Fixed { device: device.ifindex, queues: queues.len() as u32, seed };
        programs.set_settings(settings::encode(&fixed, None))?;
        let queue_program = attach_queue_program(&mut programs, queues);
        let mut steering = Self {
            attached: BTreeMap::new(),
            programs,
            mode: mode.unwrap_or(AttachMode::Tcx),
            fixed,
            underlay: None,
            queue_program,
        };
        match steering.attach(device.ifindex, Hook::Device) {
            Err(SteeringError::Attach { .. }) if mode.is_none() => {
                steering.mode = AttachMode::Clsact;
                steering.attach(device.ifindex, Hook::Device)?;
            }
            result => result?,
        }
        if steering.mode == AttachMode::Clsact {
            remove_leftovers(device.ifindex);
        }
        Ok(steering)
    }

    /// How programs are attached.
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Whether the kernel lets our program pick queues; the error number if not.
    pub fn queue_program(&self) -> Result<(), i32> {
        self.queue_program
    }

    /// Lets the kernel give every datagram to the socket of the worker that owns the inner flow, among the sockets that
    /// share address and port with `socket`: the first that was opened is that of worker 0, and so on. Without, it
    /// spreads outer flows, and workers hand over.
    ///
    /// # Errors
    /// When the kernel does not take the program for this socket.
    pub fn spread(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let refused = |error: ProgramError| io::Error::other(error);
        let program = self.programs.filter(Picker::Socket).map_err(refused)?;
        let fd = program.fd().map_err(refused)?.as_fd().as_raw_fd();
        set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF, fd)
    }

    /// The table of IPv6 next hops, for [`crate::tun::TapPort`].
    pub fn next_hops(&self) -> Arc<NextHops> {
        self.programs.next_hops()
    }

    /// Takes our traffic from another underlay interface, address or port, or (`None`) from none. When the interface
    /// stays, no packet is missed.
    pub fn set_underlay(&mut self, underlay: Option<Underlay>) -> Result<(), SteeringError> {
        let old = self.underlay.take().map(|u| u.ifindex);
        let new = underlay.as_ref().map(|u| u.ifindex);
        if let Some(ifindex) = old.filter(|ifindex| Some(*ifindex) != new) {
            self.attached.remove(&ifindex);
        }
        self.programs.set_settings(settings::encode(&self.fixed, underlay.as_ref()))?;
        if let Some(ifindex) = new {
            require_ethernet(ifindex)?;
            self.attach(ifindex, Hook::Underlay)?;
        }
        self.underlay = underlay;
        Ok(())
    }

    /// Takes over the workload behind `ifindex`: all it sends goes to the daemon, and the daemon may send to it.
    /// Harmless when it is attached already.
    pub fn attach_workload(&mut self, ifindex: IfIndex) -> Result<(), SteeringError> {
        let wanted = Attachment { ifindex, hook: Hook::Workload };
        if self.is_there(wanted) {
            return Ok(self.programs.allow_workload(ifindex, via(ifindex))?);
        }
        // What is known of this number is about another interface that had it.
        self.programs.forbid_workload(ifindex)?;
        self.programs.allow_workload(ifindex, via(ifindex))?;
        self.attach(ifindex, Hook::Workload).inspect_err(|_| {
            // Half an attachment must not stay; the first error is the one to report.
            let _ = self.programs.forbid_workload(ifindex);
        })
    }

    /// Leaves the workload behind `ifindex` alone. Harmless when it is not attached, or gone.
    pub fn detach_workload(&mut self, ifindex: IfIndex) -> Result<(), SteeringError> {
        self.detach(ifindex, Hook::Workload);
        Ok(self.programs.forbid_workload(ifindex)?)
    }

    /// Takes what hosts behind the gateway interface `ifindex` send into the overlay, and lets the daemon send plain packets
    /// out of it. Harmless when it is attached already.
    pub fn attach_gateway(&mut self, ifindex: IfIndex) -> Result<(), SteeringError> {
        require_ethernet(ifindex)?;
        self.programs.allow_gateway(ifindex)?;
        self.attach(ifindex, Hook::Gateway).inspect_err(|_| {
            // Half an attachment must not stay; the first error is the one to report.
            let _ = self.programs.forbid_gateway(ifindex);
        })
    }

    /// Leaves the gateway interface `ifindex` alone. Harmless when it is not attached, or gone.
    pub fn detach_gateway(&mut self, ifindex: IfIndex) -> Result<(), SteeringError> {
        self.detach(ifindex, Hook::Gateway);
        Ok(self.programs.forbid_gateway(ifindex)?)
    }

    /// Says whose the destinations of packets from gateway interfaces are, by the longest prefix (without host bits).
    pub fn set_destinations(&mut self, whose: &BTreeMap<IpNetwork, Whose>) -> Result<(), SteeringError> {
        Ok(self.programs.destinations().set(whose)?)
    }

    /// What the kernel has attached right now. Interfaces that vanished are forgotten, their numbers forbidden.
    pub fn attached(&mut self) -> Vec<Attachment> {
        let entries: Vec<_> =
            self.attached.iter().map(|(&ifindex, a)| Attachment { ifindex, hook: a.hook }).collect();
        let (alive, gone): (Vec<_>, Vec<_>) = entries.into_iter().partition(|a| self.is_alive(*a));
        for Attachment { ifindex, hook } in gone {
            self.attached.remove(&ifindex);
            // These fail only if the map itself is gone, hence the programs too.
            let _ = match hook {
                Hook::Workload => self.programs.forbid_workload(ifindex),
                Hook::Gateway => self.programs.forbid_gateway(ifindex),
                Hook::Underlay | Hook::Device => Ok(()),
            };
        }
        alive
    }

    /// Names of the programs of others at the ingress of `ifindex`, in the order in which they run. Ours runs before them,
    /// so that they see what it leaves.
    pub fn others(&mut self, ifindex: IfIndex) -> Vec<String> {
        let Ok(name) = name_of(ifindex) else { return Vec::new() };
        let Ok((_, there)) = SchedClassifier::query_tcx(&name, TcAttachType::Ingress) else {
            return Vec::new();
        };
        let ours = Hook::ALL.map(|hook| self.program_id(hook));
        let foreign = there.iter().filter(|program| !ours.contains(&Some(program.id())));
        foreign.map(|program| program.name_as_str().unwrap_or("(not text)").to_owned()).collect()
    }

    fn program_id(&mut self, hook: Hook) -> Option<u32> {
        Some(self.programs.classifier(hook).ok()?.info().ok()?.id())
    }

    fn is_alive(&mut self, attachment: Attachment) -> bool {
        let Ok(name) = name_of(attachment.ifindex) else { return false };
        if self.mode == AttachMode::Clsact {
            return true;
        }
        let ours = self.program_id(attachment.hook);
        let there = SchedClassifier::query_tcx(&name, TcAttachType::Ingress);
        there.is_ok_and(|(_, there)| there.iter().any(|program| Some(program.id()) == ours))
    }

    fn is_there(&mut self, wanted: Attachment) -> bool {
        let known = self.attached.get(&wanted.ifindex).is_some_and(|there| there.hook == wanted.hook);
        known && self.is_alive(wanted)
    }

    fn attach(&mut self, ifindex: IfIndex, hook: Hook) -> Result<(), SteeringError> {
        if self.is_there(Attachment { ifindex, hook }) {
            return Ok(());
        }
        // An entry of the same number is that of an interface that vanished, or of another role.
        self.attached.remove(&ifindex);
        let interface = name_of(ifindex)?;
        let link = attach_program(&mut self.programs, self.mode, &interface, hook)
            .map_err(|source| SteeringError::Attach { program: hook.program(), interface, source })?;
        self.attached.insert(ifindex, Attached { hook, _link: link });
        Ok(())
    }

    /// Takes the program of this role away from an interface, if it has it.
    fn detach(&mut self, ifindex: IfIndex, hook: Hook) {
        if self.attached.get(&ifindex).is_some_and(|attached| attached.hook == hook) {
            self.attached.remove(&ifindex);
        }
    }
}

fn require_ethernet(ifindex: IfIndex) -> Result<(), SteeringError> {
    let name = name_of(ifindex)?;
    match is_ethernet(&name) {
        Ok(true) => Ok(()),
        Ok(false) => Err(SteeringError::NotEthernet(name)),
        Err(_) => Err(SteeringError::NoInterface(ifindex)),
    }
}

fn attach_program(
    programs: &mut Programs,
    mode: AttachMode,
    interface: &str,
    hook: Hook,
) -> Result<SchedClassifierLink, ProgramError> {
    let options = match mode {
        AttachMode::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
        AttachMode::Clsact => {
            match tc::qdisc_add_clsact(interface) {
                Err(TcError::NetlinkError(_)) | Ok(()) => {} // it is there already, or the next step says why not
                Err(error) => return Err(error.into()),
            }
            let _ = tc::qdisc_detach_program(interface, TcAttachType::Ingress, hook.program());
            TcAttachOptions::Netlink(NlOptions { priority: CLSACT_PRIORITY, ..NlOptions::default() })
        }
    };
    let program = programs.classifier(hook)?;
    let id = program.attach_with_options(interface, TcAttachType::Ingress, options)?;
    program.take_link(id)
}

fn attach_queue_program(programs: &mut Programs, queues: &[TapQueue]) -> Result<(), i32> {
    let Some(first) = queues.first() else { return Ok(()) };
    let program = programs.filter(Picker::Queue).map_err(|_| libc::EINVAL)?;
    let fd = program.fd().map_err(|_| libc::EINVAL)?.as_fd().as_raw_fd();
    first.set_steering_program(fd).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
}

/// Detaches the filters that a killed daemon left, from every interface but `except`.
fn remove_leftovers(except: IfIndex) {
    let Ok(interfaces) = nix::net::if_::if_nameindex() else { return };
    for interface in &interfaces {
        let Ok(name) = interface.name().to_str() else { continue };
        if interface.index() == except {
            continue;
        }
        for hook in [Hook::Workload, Hook::Underlay, Hook::Gateway] {
            // An error means that there is nothing to detach.
            let _ = tc::qdisc_detach_program(name, TcAttachType::Ingress, hook.program());
        }
    }
}

fn name_of(ifindex: IfIndex) -> Result<String, SteeringError> {
    let name = nix::net::if_::if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
    // nix 0.31 takes the null pointer of a failure for success and gives an empty name.
    name.filter(|name| !name.is_empty()).ok_or(SteeringError::NoInterface(ifindex))
}

/// A veth whose other end is in another namespace takes frames at that end, which saves a pass through the backlog;
/// any other device sends them out.
fn via(ifindex: IfIndex) -> Via {
    match is_pair_across_namespaces(ifindex) {
        Ok(true) => Via::Peer,
        Ok(false) | Err(_) => Via::Device,
    }
}
