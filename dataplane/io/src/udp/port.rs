//! The port itself: receivers and lanes of one worker.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use canal_dataplane::checksum;
use canal_dataplane::frame::FramePool;
use canal_dataplane::limits::ETHERNET;
use canal_dataplane::net::HashSeed;
use canal_dataplane::offload::{Caps, Checksum, GsoKind, Offload};
use canal_dataplane::port::{Ingress, Outgoing, Port, PortStats, Received};
use canal_dataplane::segment::{Finish, MAX_HEADERS, Segment, Segmenter};

use super::errors;
use super::lane::{Datagram, Lane, MAX_DATAGRAMS, Outcome};
use super::message::SendStore;
use super::outer::{self, Outer};
use super::receiver::UdpReceiver;
use super::run::NETWORK;
use super::socket::{self, UdpError};

/// Headers written before everything is sent: half of a first-level cache.
const HEADERS: usize = 16 * 1024;
/// Lanes of one family, at most: as many as a number has bits.
const MAX_LANES: usize = 64;

/// How the port is to be made.
#[derive(Clone, Debug)]
pub struct UdpConfig {
    /// Our VTEP's IPv4 address.
    pub vtep_v4: Option<Ipv4Addr>,
    /// Our VTEP's IPv6 address.
    pub vtep_v6: Option<Ipv6Addr>,
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// MTU of the overlay, bytes of an IP packet: a larger TCP packet was never on a wire, but left to be cut by a sender
    /// on this machine or hypervisor.
    pub mtu: u32,
    /// Sockets to send from, 1 to 64, per family: as many source ports do peers and switches see. The flow's own
    /// source port picks one.
    pub lanes: usize,
    /// Set DF on outer IPv4 packets.
    pub dont_fragment: bool,
    /// Keys of the flow hashes, to give packets quoted in ICMP errors the source port that the core knows them by.
    /// Without them no error is told.
    pub seed: Option<HashSeed>,
}

impl UdpConfig {
    /// 32 source ports, DF clear as the kernel's VXLAN device has it, an underlay of plain Ethernet.
    pub fn new(vtep_v4: Option<Ipv4Addr>, vtep_v6: Option<Ipv6Addr>, vxlan_port: u16) -> Self {
        let mtu = overlay_mtu(1500, vtep_v6.is_some());
        Self { vtep_v4, vtep_v6, vxlan_port, mtu, lanes: 32, dont_fragment: false, seed: None }
    }
}

/// The largest inner packet over an interface of the given MTU: 50 bytes less, or 70 where VTEPs have IPv6 addresses.
/// flannel gives both families of a dual-stack overlay the smaller one.
pub fn overlay_mtu(interface: u32, v6: bool) -> u32 {
    let outer = if v6 { outer::LEN_V6 } else { outer::LEN_V4 };
    interface.saturating_sub((NETWORK - ETHERNET + outer) as u32)
}

/// What the kernel does for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpAbilities {
    /// Several datagrams are delivered at once (UDP_GRO).
    pub gro: bool,
    /// Datagrams of one message (UDP_SEGMENT); 1: the kernel cannot cut.
    pub segments: usize,
}

struct Family {
    address: IpAddr,
    receiver: UdpReceiver,
    lanes: Vec<Lane>,
    /// Bit *i*: lane *i* has something to send.
    dirty: u64,
}

/// UDP sockets of one worker, towards all VTEPs. Takes super-frames: it cuts them itself.
pub struct UdpPort {
    v4: Option<Family>,
    v6: Option<Family>,
    abilities: UdpAbilities,
    headers: Vec<u8>,
    store: SendStore,
    seed: Option<HashSeed>,
    /// ICMP errors about what was sent, as frames, until the next call of `receive`.
    errors: Vec<Vec<u8>>,
    stats: PortStats,
}

/// Errors that may wait; more say nothing new.
const MAX_ERRORS: usize = 16;

impl UdpPort {
    /// Opens the sockets of one worker; the kernel spreads flows over all workers' ports.
    ///
    /// # Errors
    /// When somebody else has the VXLAN port, or an address is not the host's.
    pub fn open(config: &UdpConfig) -> Result<Self, UdpError> {
        let family = |address: IpAddr| -> Result<Family, UdpError> {
            let lanes = (0..config.lanes.clamp(1, MAX_LANES))
                .map(|_| socket::sender(address, config.dont_fragment).map(Lane::new))
                .collect::<Result<_, _>>()?;
            let receiver = UdpReceiver::open(address, config.vxlan_port, config.mtu)?;
            Ok(Family { address, receiver, lanes, dirty: 0 })
        };
        let v4 = config.vtep_v4.map(|address| family(address.into())).transpose()?;
        let v6 = config.vtep_v6.map(|address| family(address.into())).transpose()?;
        let any = v4.as_ref().or(v6.as_ref());
        let abilities = UdpAbilities {
            gro: any.is_some_and(|f| f.receiver.has_gro()),
            segments: match any.and_then(|f| f.lanes.first()) {
                Some(lane) if socket::can_segment(lane.socket.as_fd()) => MAX_DATAGRAMS,
                _ => 1,
            },
        };
        Ok(Self {
            v4,
            v6,
            abilities,
            headers: Vec::with_capacity(2 * HEADERS),
            store: SendStore::default(),
            seed: config.seed,
            errors: Vec::new(),
            stats: PortStats::default(),
        })
    }

    /// What the kernel does for us.
    pub fn abilities(&self) -> UdpAbilities {
        self.abilities
    }

    /// The sockets that frames arrive at, for [`crate::waiter::Waiter::watch`].
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.v4.iter().chain(&self.v6).map(|family| family.receiver.as_fd())
    }

    /// Puts frame number `index` onto its lane; false when it is none of ours or cannot be cut.
    fn plan(&mut self, index: usize, frames: &mut [Outgoing]) -> bool {
        let Outgoing { frame, offload, .. } = &mut frames[index];
        let Some(outer) = Outer::read(frame.data()) else { return false };
        let family = if outer.target.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let Some(family) = family else { return false };
        let (to, skip) = (SocketAddr::new(outer.target, outer.ports.1), outer.len());
        let number = usize::from(outer.ports.0) % family.lanes.len();
        let lane = &mut family.lanes[number];
        let max = self.abilities.segments;
        if offload.gso.is_none() {
            if let Checksum::Partial { start, offset } = offload.checksum
                && crate::checksum::finish_partial(frame.data_mut(), start, offset).is_err()
            {
                return false;
            }
            let bytes = skip..frame.len();
            lane.add(Datagram { to, tos: outer.tos, header: 0..0, frame: index, bytes }, max);
        } else {
            let Ok(segmenter) = Segmenter::new(frame.data(), offload) else { return false };
            let ours = matches!(offload.checksum, Checksum::Partial { .. });
            let mut segmenter = segmenter.finish(if ours { Finish::Partial } else { Finish::Complete });
            let mut header = [0; MAX_HEADERS];
            while let Some(Segment { header_len, payload }) = segmenter.next(&mut header) {
                finish_segment(&mut header[..header_len], &frame.data()[payload.clone()], offload);
                let from = self.headers.len();
                self.headers.extend_from_slice(&header[skip..header_len]);
                let header = from..self.headers.len();
                lane.add(Datagram { to, tos: outer.tos, header, frame: index, bytes: payload }, max);
            }
        }
        family.dirty |= 1 << number;
        self.stats.tx_frames += 1;
        self.stats.tx_bytes += frame.len() as u64;
        true
    }

    fn flush(&mut self, frames: &[Outgoing]) {
        for family in self.v4.iter_mut().chain(&mut self.v6) {
            while family.dirty != 0 {
                let number = family.dirty.trailing_zeros() as usize;
                family.dirty &= family.dirty - 1;
                let outcome = family.lanes[number].flush(frames, &self.headers, &mut self.store);
                account(&mut self.stats, &mut self.abilities, &outcome);
                if outcome.pending_error {
                    let socket = family.lanes[number].socket.as_fd();
                    errors::drain(socket, family.address, self.seed, MAX_ERRORS, &mut self.errors);
                }
            }
        }
        self.headers.clear();
    }
}

/// Finishes the transport checksum of a segment, if its field was left with the sum of the pseudo-header.
pub(crate) fn finish_segment(header: &mut [u8], payload: &[u8], offload: &Offload) {
    let Checksum::Partial { start, offset } = offload.checksum else { return };
    let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
    let Some(transport) = header.get(start..) else { return };
    // Transport headers have even lengths.
    let sum = crate::checksum::sum(payload, checksum::sum(transport, 0));
    let is_udp = offload.gso.is_some_and(|gso| gso.kind == GsoKind::Udp);
    let value = if is_udp { checksum::finish_udp(sum) } else { checksum::finish(sum) };
    if let Some(field) = header.get_mut(field..field + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

fn account(stats: &mut PortStats, abilities: &mut UdpAbilities, outcome: &Outcome) {
    stats.tx_full += outcome.full;
    stats.tx_errors += outcome.refused;
    abilities.segments = outcome.max_datagrams.map_or(abilities.segments, |max| max.min(abilities.segments));
}

impl Port for UdpPort {
    fn caps(&self) -> Caps {
        Caps::ALL
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize) {
        for error in self.errors.drain(..) {
            let Some(mut frame) = pool.take() else { return };
            if frame.fill(&error) {
                into.push(Received { frame, offload: Offload::NONE, ingress: Ingress::Underlay });
            } else {
                pool.give(frame);
            }
        }
        for family in self.v4.iter_mut().chain(&mut self.v6) {
            family.receiver.receive(pool, into, limit);
        }
    }

    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool) {
        for index in 0..frames.len() {
            if !self.plan(index, frames) {
                self.stats.tx_errors += 1;
            }
            if self.headers.len() >= HEADERS {
                self.flush(frames);
            }
        }
        self.flush(frames);
        for Outgoing { frame, .. } in frames.drain(..) {
            pool.give(frame);
        }
    }

    fn stats(&self) -> PortStats {
        let mut stats = self.stats;
        for family in self.v4.iter().chain(&self.v6) {
            let received = family.receiver.stats();
            stats.rx_frames += received.rx_frames;
            stats.rx_bytes += received.rx_bytes;
            stats.rx_dropped += received.rx_dropped;
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_s_mtu_is_what_flannel_announces() {
        assert_eq!(overlay_mtu(1500, false), 1450);
        assert_eq!(overlay_mtu(1500, true), 1430);
        assert_eq!(overlay_mtu(40, false), 0);
    }
}
