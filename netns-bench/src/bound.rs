//! The emptiest forwarder over AF_XDP: what it carries is the bound of what any other can.
//!
//! Everything that arrives at one interface leaves at the other, with the same headers written in front (towards the
//! underlay) or taken off (towards the pod). Nothing is looked at or looked up, and no frame is copied. Memory, rings and
//! waiting are `canal-io`'s own, so that what is missing to the bound is what canal does with packets, not how it gets them.

use crate::machine;
use crate::packets::{Ends, template};
use anyhow::{Context, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::XskMap;
use aya::programs::Xdp;
use aya::programs::xdp::XdpMode;
use canal_dataplane::frame::Frame;
use canal_io::waiter::Waiter;
use canal_io::xdp::{Borrower, Descriptor, Region, Socket, Transfer};
use netns_tests::Netns;
use netns_tests::cmd::Background;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Stdio;

/// Name of the mode in which this program is that forwarder.
pub const MODE: &str = "bound";
/// Bytes of a chunk: room for a frame of 1500 bytes and the kernel's headroom.
const CHUNK: usize = 2048;
/// Frames that an interface can receive into: as many as the second level of cache holds the headers of.
const FRAMES: usize = 1024;
/// Frames that are moved before others have their turn.
const BATCH: usize = 64;
/// System calls for one batch, at most; one is enough since Linux 6.17, before that each sends 32 frames.
const KICKS: usize = 64;
/// Outer Ethernet, IPv4, UDP and VXLAN.
const TUNNEL: usize = 50;
/// An Ethernet header.
const ETHERNET: usize = 14;
/// Where the lengths and the checksum of the outer headers stand.
const IP_LENGTH: usize = 16;
const IP_CHECKSUM: usize = 24;
const UDP_LENGTH: usize = 38;

/// Aligned as ELF wants it.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/bound.bpf.o")));

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    pod: String,
    underlay: String,
    /// Headers of everything that enters the tunnel, with lengths of zero and the checksum of that.
    tunnel: Vec<u8>,
    /// The Ethernet header of everything that leaves it.
    ethernet: Vec<u8>,
}

/// The running forwarder; it ends with the value.
#[derive(Debug)]
pub struct Bound {
    _process: Background,
}

impl Bound {
    /// Starts it in `ns`, between the pod behind `interface` and `eth0`.
    pub fn start(ns: &Netns, interface: &str, ends: &Ends) -> Result<Self> {
        let order = Order {
            pod: interface.to_owned(),
            underlay: "eth0".to_owned(),
            tunnel: template::outgoing(ends),
            ethernet: template::ethernet(ends.pod_mac, ends.router_mac),
        };
        let mut command = ns.command("taskset");
        command.args(["-c", &machine::FORWARDER_CORE.to_string()]);
        command.arg(std::env::current_exe()?).arg(MODE).arg(serde_json::to_string(&order)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let (process, output) = Background::start_reading("af-xdp-bound", &mut command)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(!line.is_empty(), "the AF_XDP forwarder has not started");
        Ok(Self { _process: process })
    }
}

/// The process: forwards until it is killed.
pub fn main(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order).context("the forwarder's order")?;
    let tunnel = Tunnel::new(&order.tunnel)?;
    let ethernet: [u8; ETHERNET] = order.ethernet.as_slice().try_into().context("an Ethernet header")?;
    let (region, frames) = Region::new(2 * FRAMES, CHUNK).context("packet memory")?;
    let memory = Memory { region, kernel: Borrower::all().next().context("nobody to lend to")? };
    let mut frames = frames.into_iter();
    let mut pod = Side::open(&order.pod, memory, frames.by_ref().take(FRAMES))?;
    let mut underlay = Side::open(&order.underlay, memory, frames)?;
    let mut waiter = Waiter::new()?;
    for side in [&pod, &underlay] {
        waiter.watch(side.socket.as_fd())?;
    }
    println!("ready");
    loop {
        let moved = shift(&mut pod, &mut underlay, memory, |frame| tunnel.enter(frame))
            + shift(&mut underlay, &mut pod, memory, |frame| leave(frame, &ethernet));
        if moved > 0 {
            waiter.worked();
            continue;
        }
        waiter.idle(1000, || false)?;
        ensure!(nix::unistd::getppid().as_raw() != 1, "the bench is gone");
    }
}

/// Packet memory, and in whose name the kernel has it: in one for both interfaces, since what one has received the other sends.
#[derive(Clone, Copy, Debug)]
struct Memory {
    region: &'static Region,
    kernel: Borrower,
}

/// An interface.
struct Side {
    socket: Socket,
    /// Frames on their way out.
    away: usize,
    _object: Ebpf,
}

impl Side {
    /// Takes all that arrives at `interface` into `frames`.
    fn open(interface: &str, memory: Memory, frames: impl Iterator<Item = Frame>) -> Result<Self> {
        let ifindex = nix::net::if_::if_nametoindex(interface).with_context(|| interface.to_owned())?;
        let mut object = Ebpf::load(&OBJECT.0).context("loading the program of the AF_XDP forwarder")?;
        let program: &mut Xdp = object.program_mut("to_socket").context("no program")?.try_into()?;
        program.load().context("the kernel refuses the program")?;
        program
            .attach_to_if_index(ifindex, XdpMode::Driver)
            .with_context(|| format!("attaching to {interface}"))?;
        let Memory { region, kernel } = memory;
        let mut socket = Socket::new(region)?;
        socket.bind(ifindex, 0, Transfer::Copy).with_context(|| format!("a socket on {interface}"))?;
        for frame in frames {
            let Ok(address) = region.lend(frame, kernel) else { bail!("a frame of other memory") };
            ensure!(socket.fill.push(address), "more frames than the ring has room for");
        }
        socket.fill.publish();
        let mut sockets = XskMap::try_from(object.map_mut("bound_socket").context("no map")?)?;
        sockets.set(0, socket.as_fd().as_raw_fd(), 0)?;
        Ok(Self { socket, away: 0, _object: object })
    }
}

/// Moves a batch from one interface to the other; how many packets it was.
fn shift(from: &mut Side, to: &mut Side, memory: Memory, change: impl Fn(&mut Frame) -> bool) -> usize {
    let (from, Side { socket: to, away, .. }, Memory { region, kernel }) = (&mut from.socket, to, memory);
    let (mut moved, mut returned) = (0, false);
    while moved < BATCH
        && let Some(Descriptor { address, len, .. }) = from.rx.pop()
    {
        moved += 1;
        let Some(mut frame) = region.receive(address, len as usize, kernel) else { continue };
        let fits = change(&mut frame);
        let len = frame.len() as u32;
        let Ok(address) = region.lend(frame, kernel) else { continue };
        let sent = fits && to.tx.push(Descriptor { address, len, options: 0 });
        if sent {
            *away += 1;
        } else {
            returned |= from.fill.push(address);
        }
    }
    // What has been sent goes back to where it came from: the kernel looks for the chunk that an address is in. Whoever only
    // looks whether something has arrived leaves the ring to the core that writes it, while there is enough to receive into.
    if moved > 0 || *away > FRAMES / 2 {
        while let Some(address) = to.completion.pop() {
            *away -= 1;
            returned |= from.fill.push(address);
        }
        to.completion.release();
    }
    if moved > 0 {
        from.rx.release();
        to.tx.publish();
        for _ in 0..KICKS {
            // Whatever the kernel says to the call: what is left is tried again with the next batch.
            if to.tx.pending() == 0
                || to.kick().is_err_and(|error| error.raw_os_error() != Some(Errno::EAGAIN as i32))
            {
                break;
            }
        }
    }
    if returned {
        from.fill.publish();
    }
    moved
}

/// What is written in front of a frame.
struct Tunnel {
    header: [u8; TUNNEL + ETHERNET],
    /// Sum of the words of the IPv4 header without its length.
    sum: u32,
}

impl Tunnel {
    fn new(header: &[u8]) -> Result<Self> {
        let header: [u8; TUNNEL + ETHERNET] = header.try_into().context("headers of another length")?;
        let sum = !u16::from_be_bytes([header[IP_CHECKSUM], header[IP_CHECKSUM + 1]]);
        Ok(Self { header, sum: sum.into() })
    }

    /// Puts the headers in front, over the frame's own Ethernet header; false when there is no room.
    fn enter(&self, frame: &mut Frame) -> bool {
        let inner = frame.len() as u32;
        if !frame.grow_front(TUNNEL) {
            return false;
        }
        let Some(header) = frame.data_mut().first_chunk_mut::<{ TUNNEL + ETHERNET }>() else { return false };
        *header = self.header;
        let (ip, udp) = (inner + (TUNNEL - ETHERNET) as u32, inner + 16);
        let sum = self.sum + ip;
        let sum = (sum & 0xffff) + (sum >> 16);
        for (at, value) in [(IP_LENGTH, ip), (UDP_LENGTH, udp), (IP_CHECKSUM, !sum)] {
            header[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
        }
        true
    }
}

/// Takes the headers off; false when the frame is shorter.
fn leave(frame: &mut Frame, ethernet: &[u8; ETHERNET]) -> bool {
    let header = frame.trim_front(TUNNEL).then(|| frame.data_mut().first_chunk_mut::<ETHERNET>()).flatten();
    header.map(|header| *header = *ethernet).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::Direction;
    use canal_dataplane::frame::FramePool;
    use netns_tests::frames;

    #[test]
    fn what_enters_the_tunnel_is_a_packet_and_leaves_it_as_it_came() {
        let ends = template::tests::ends();
        let tunnel = Tunnel::new(&template::outgoing(&ends)).expect("headers");
        let mut inner = template::template(Direction::Encap, &ends)[..64].to_vec();
        inner[16..18].copy_from_slice(&50_u16.to_be_bytes());
        let inner = frames::with_header_checksum(inner);
        let mut frame = FramePool::new(1, CHUNK).take().expect("a frame");
        assert!(frame.fill(&inner) && tunnel.enter(&mut frame));
        let outer = frame.data().to_vec();
        assert_eq!(frames::with_header_checksum(outer.clone()), outer, "the checksum is right");
        assert_eq!(
            (&outer[..6], &outer[16..18]),
            (&ends.remote_underlay_mac[..], &100_u16.to_be_bytes()[..])
        );
        assert_eq!((&outer[38..40], outer.len()), (&80_u16.to_be_bytes()[..], 114));
        let ethernet = template::ethernet(ends.pod_mac, [2; 6]);
        assert!(leave(&mut frame, ethernet.as_slice().try_into().expect("14 bytes")));
        assert_eq!((&frame.data()[..14], &frame.data()[14..]), (&ethernet[..], &inner[14..]));
    }
}
