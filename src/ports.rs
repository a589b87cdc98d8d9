//! The kernel ports of the daemon: the TAP device with its steering, and the choice of the underlay port.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use canal_dataplane::net::HashSeed;
use canal_io::bpf::{AttachMode, Steering, SteeringError};
use canal_io::tun::{Shortfall, TapAbilities, TapConfig, TapDevice, TapError, TapQueue};
use canal_io::udp::UdpAbilities;
use canal_io::xdp::XdpAbilities;

use crate::config::{Config, PortChoice};
use crate::worker_thread::PortCounters;

/// MTU of the TAP device until the lease says better: that of an overlay over plain Ethernet.
const FIRST_MTU: u32 = 1450;

/// How encapsulated packets cross the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderlayPort {
    /// Through the TAP device.
    Tap,
    /// Through UDP sockets.
    Udp,
    /// Through AF_XDP sockets; what they leave alone, through the TAP device.
    AfXdp,
}

impl UnderlayPort {
    /// As in `--port`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Udp => "udp",
            Self::AfXdp => "af-xdp",
        }
    }
}

/// Which underlay port is in use, and why.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The port.
    pub port: UnderlayPort,
    /// For humans.
    pub why: String,
    /// What the kernel does for the UDP sockets, once there are any.
    pub udp: Option<UdpAbilities>,
    /// The interfaces that AF_XDP has.
    pub xdp: Vec<TakenOver>,
}

/// An interface that AF_XDP has taken over.
#[derive(Clone, Debug)]
pub struct TakenOver {
    /// Its name.
    pub interface: String,
    /// There are plain hosts behind it; otherwise it is the underlay.
    pub gateway: bool,
    /// How its packets get to us.
    pub abilities: XdpAbilities,
    /// What the sockets of each worker count.
    pub counters: Vec<Arc<PortCounters>>,
}

/// The underlay port in use: written by the edge, read by those who show it.
#[derive(Clone, Debug)]
pub struct ChosenPort(Arc<Mutex<Chosen>>);

impl ChosenPort {
    /// Starts with `chosen`.
    pub fn new(chosen: Chosen) -> Self {
        Self(Arc::new(Mutex::new(chosen)))
    }

    /// As of now.
    pub fn get(&self) -> Chosen {
        self.lock().clone()
    }

    /// The port is another one, or its sockets are.
    pub fn set(&self, chosen: Chosen) {
        *self.lock() = chosen;
    }

    fn lock(&self) -> MutexGuard<'_, Chosen> {
        // A value replaced whole is never half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No TAP device.
    #[error(
        "cannot make the TAP device {device} (canal-fwd needs CAP_NET_ADMIN and /dev/net/tun; another name: --device)"
    )]
    Tap {
        /// Its name.
        device: String,
        /// Why.
        #[source]
        source: TapError,
    },
    /// No steering.
    #[error("cannot steer packets to {device} by eBPF (canal-fwd needs CAP_BPF and CAP_NET_ADMIN)")]
    Steering {
        /// Name of the TAP device.
        device: String,
        /// Why.
        #[source]
        source: Box<SteeringError>,
    },
    /// `--port tap` on a kernel that would make it slower than anything else.
    #[error(
        "--port tap needs a kernel whose TAP devices take super-frames inside UDP tunnels (Linux 6.17), and this one refuses \
         them (error {0}); use --port udp or --port auto"
    )]
    NoTunnelOffload(i32),
}

/// The ports before they are given to workers.
pub struct OpenPorts {
    /// The TAP device.
    pub device: TapDevice,
    /// Its queues, one a worker.
    pub queues: Vec<TapQueue>,
    /// What steers packets to it.
    pub steering: Steering,
    /// The underlay port.
    pub chosen: Chosen,
    /// The one to use where that one cannot be.
    pub second: Chosen,
}

impl OpenPorts {
    /// Makes the device, loads the programs, chooses the underlay port.
    ///
    /// # Errors
    /// When the kernel refuses, or cannot do what was asked for.
    pub fn open(config: &Config, seed: HashSeed) -> Result<Self, PortError> {
        let tap =
            TapConfig { name: config.device.clone(), ..TapConfig::new(config.workers as usize, FIRST_MTU) };
        let name = || config.device.clone();
        let (device, queues) =
            TapDevice::create(&tap).map_err(|source| PortError::Tap { device: name(), source })?;
        let first_guess = config.wanted.ifaces.first().map_or("", String::as_str);
        let chosen = choose(config.port.of(first_guess), device.abilities)?;
        let second = choose(PortChoice::Auto, device.abilities)?;
        let steering = Steering::open(&device, &queues, seed, None)
            .map_err(|error| PortError::Steering { device: name(), source: Box::new(error) })?;
        Ok(Self { device, queues, steering, chosen, second })
    }

    /// One sentence for the log about how packets get to the device.
    pub fn describe_steering(&self) -> String {
        let mode = match self.steering.mode() {
            AttachMode::Tcx => "TCX links",
            AttachMode::Clsact => {
                "clsact filters (a kernel before 6.6: they outlive kill -9 until the next start)"
            }
        };
        match self.steering.queue_program() {
            Ok(()) => format!("{mode}; a program picks the queue of each flow's worker"),
            Err(error) => {
                format!("{mode}; the kernel refuses our queue program (error {error}), workers hand over")
            }
        }
    }
}

/// The underlay port for what was asked and what the kernel takes.
///
/// # Errors
/// [`PortError::NoTunnelOffload`].
pub fn choose(choice: PortChoice, abilities: TapAbilities) -> Result<Chosen, PortError> {
    let refused = match abilities.reason {
        Some(Shortfall::Kernel(error)) => error,
        Some(Shortfall::Forbidden) | None => 0,
    };
    let chosen = |port, why: &str| Ok(Chosen { port, why: why.to_owned(), udp: None, xdp: Vec::new() });
    match (choice, abilities.tunnel_gso) {
        (PortChoice::Udp, _) => chosen(UnderlayPort::Udp, "asked for by --port udp"),
        (PortChoice::AfXdp, _) => chosen(UnderlayPort::AfXdp, "asked for by --port af-xdp"),
        (PortChoice::Tap, true) => chosen(UnderlayPort::Tap, "asked for by --port tap"),
        (PortChoice::Tap, false) => Err(PortError::NoTunnelOffload(refused)),
        (PortChoice::Auto, true) => {
            chosen(UnderlayPort::Tap, "the kernel takes super-frames inside UDP tunnels on TAP devices")
        }
        (PortChoice::Auto, false) => chosen(
            UnderlayPort::Udp,
            &format!(
                "the kernel refuses super-frames inside UDP tunnels on TAP devices (error {refused}; Linux 6.17 takes them)"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abilities(tunnel_gso: bool) -> TapAbilities {
        let reason = (!tunnel_gso).then_some(Shortfall::Kernel(22));
        TapAbilities { tunnel_gso, uso: true, reason }
    }

    #[test]
    fn the_fastest_port_that_the_kernel_takes_is_chosen_and_said_why() {
        let pick = |choice, tunnel| choose(choice, abilities(tunnel)).map(|chosen| (chosen.port, chosen.why));
        let (port, why) = pick(PortChoice::Auto, true).unwrap();
        assert_eq!(port, UnderlayPort::Tap);
        assert!(why.contains("takes super-frames"), "{why}");
        let (port, why) = pick(PortChoice::Auto, false).unwrap();
        assert_eq!(port, UnderlayPort::Udp);
        assert!(why.contains("refuses") && why.contains("error 22"), "{why}");
    }

    #[test]
    fn a_choice_is_obeyed_or_refused_with_what_to_do() {
        assert_eq!(choose(PortChoice::Udp, abilities(true)).unwrap().port, UnderlayPort::Udp);
        assert_eq!(choose(PortChoice::Tap, abilities(true)).unwrap().port, UnderlayPort::Tap);
        assert_eq!(choose(PortChoice::AfXdp, abilities(false)).unwrap().port, UnderlayPort::AfXdp);
        let refusal = choose(PortChoice::Tap, abilities(false)).unwrap_err().to_string();
        assert!(refusal.contains("error 22") && refusal.contains("use --port udp"), "{refusal}");
    }
}
