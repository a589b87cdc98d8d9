//! Fragments of encapsulated packets: put together when they are whole, forgotten when they are not.

use anyhow::{Result, ensure};
use netns_tests::fragments::{payload_len, piece};
use netns_tests::frames::{self, Link, Vxlan, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::{Ping, Transfer};
use netns_tests::{Network, Overlay, Role, Shape, Topology, plan, wait};
use std::net::Ipv4Addr;
use std::time::Duration;

/// What the inner datagrams begin with.
const MARK: &[u8] = b"in pieces";
/// First fragments of the flood, and how many bytes of payload each has.
const FLOOD: u32 = 200_000;
const FLOOD_BYTES: usize = 1200;
/// Bytes the daemon may grow by meanwhile; the flood is thirty times as much.
const GROWTH: u64 = 8_000_000;

/// A canal node on host 0 and a kernel node on host 1 that sends in pieces.
struct Scene<'t> {
    overlay: Overlay<'t>,
    wire: PacketSocket,
    pod: PacketSocket,
}

impl<'t> Scene<'t> {
    fn new(topology: &'t Topology) -> Result<Self> {
        let overlay = Overlay::start(topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
        let wire = PacketSocket::open(&overlay.host(1).ns, "eth0")?;
        let pod = PacketSocket::open(&overlay.pod(0).ns, "eth0")?;
        Ok(Self { overlay, wire, pod })
    }

    /// A whole VXLAN packet from host 1, or from somebody who claims to be `from`.
    fn whole(&self, from: Ipv4Addr, payload: &[u8]) -> Result<Vec<u8>> {
        let (canal, peer) = (self.overlay.host(0), self.overlay.host(1));
        let vtep = self.overlay.lease(0)?.mac_v4.unwrap_or_default();
        let inner_link = Link { from: mac(self.overlay.kernel(1).mac()), to: mac(&vtep) };
        let ends = ((self.overlay.pod(1).v4.into(), 5), (self.overlay.pod(0).v4.into(), 6));
        let inner = frames::udp(inner_link, ends.0, ends.1, 9, payload);
        let link = Link { from: mac(&peer.mac()), to: mac(&canal.mac()) };
        let ends = ((from.into(), 45_678), (canal.v4.into(), plan::VXLAN_PORT));
        Ok(frames::may_fragment(frames::udp(link, ends.0, ends.1, 64, &Vxlan::plain(1).wrap(&inner))))
    }

    fn marked(&self) -> Result<Vec<u8>> {
        let payload: Vec<u8> = MARK.iter().copied().cycle().take(600).collect();
        self.whole(self.overlay.host(1).v4, &payload)
    }

    fn send(&self, pieces: &[Vec<u8>]) -> Result<()> {
        pieces.iter().try_for_each(|piece| self.wire.send(piece))
    }

    /// Datagrams in pieces that the pod gets within a moment.
    fn arrived(&self) -> Result<usize> {
        let marked = |frame: &[u8]| frames::read(frame).filter(|seen| seen.payload.starts_with(MARK));
        Ok(self.pod.collect(Duration::from_millis(500), marked)?.len())
    }

    /// Ordinary traffic still works afterwards.
    fn end(self, topology: &Topology) -> Result<()> {
        Ping::to(self.overlay.pod(1).v4).expect_all(&self.overlay.pod(0).ns)?;
        self.overlay.canal(0).status()?;
        topology.pass()
    }
}

#[test]
fn pieces_in_any_order_are_put_together() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let scene = Scene::new(&topology)?;
    let frame = scene.marked()?;
    let end = payload_len(&frame);
    for (id, order) in [(1, [0, 1, 2]), (2, [2, 1, 0]), (3, [1, 2, 0])] {
        let pieces = [piece(&frame, id, 0..200), piece(&frame, id, 200..400), piece(&frame, id, 400..end)];
        scene.send(&order.map(|n| pieces[n].clone()))?;
        let arrived = scene.arrived()?;
        ensure!(arrived == 1, "order {order:?}: {arrived} arrived");
    }
    scene.end(&topology)
}

#[test]
fn overlapping_pieces_reach_nobody() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let scene = Scene::new(&topology)?;
    let frame = scene.marked()?;
    let end = payload_len(&frame);
    for (id, cuts) in [
        (11, vec![0..200, 192..400, 400..end]),
        (12, vec![0..200, 400..end, 192..408]),
        (13, vec![200..end, 0..208]),
    ] {
        let pieces: Vec<_> = cuts.iter().map(|cut| piece(&frame, id, cut.clone())).collect();
        scene.send(&pieces)?;
        let arrived = scene.arrived()?;
        ensure!(arrived == 0, "{cuts:?}: {arrived} arrived");
    }
    scene.end(&topology)
}

#[test]
fn a_piece_inside_another_changes_nothing() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let scene = Scene::new(&topology)?;
    let frame = scene.marked()?;
    let end = payload_len(&frame);
    let mut forged = frame.clone();
    forged[34 + 104..34 + 208].fill(0xff);
    let pieces = [piece(&frame, 31, 0..400), piece(&forged, 31, 104..208), piece(&frame, 31, 400..end)];
    scene.send(&pieces)?;
    let seen = scene.pod.collect(Duration::from_millis(500), |f| {
        frames::read(f).filter(|seen| seen.payload.starts_with(MARK)).map(|seen| seen.payload)
    })?;
    ensure!(seen.iter().all(|payload| !payload.contains(&0xff)), "the forged bytes arrived: {seen:02x?}");
    scene.end(&topology)
}

#[test]
fn a_packet_with_a_piece_missing_reaches_nobody() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let scene = Scene::new(&topology)?;
    let frame = scene.marked()?;
    let end = payload_len(&frame);
    for (id, cuts) in [(21, [0..200, 400..end]), (22, [0..200, 200..400]), (23, [200..400, 400..end])] {
        scene.send(&cuts.clone().map(|cut| piece(&frame, id, cut)))?;
        let arrived = scene.arrived()?;
        ensure!(arrived == 0, "{cuts:?}: {arrived} arrived");
    }
    // The piece that was missing completes the packet, however late.
    scene.send(&[piece(&frame, 21, 200..400)])?;
    ensure!(scene.arrived()? == 1, "the late piece");
    scene.end(&topology)
}

#[test]
fn a_flood_of_first_pieces_costs_no_memory_and_stops_nobody() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2).without_captures())?;
    let scene = Scene::new(&topology)?;
    let (a, b) = (scene.overlay.pod(0), scene.overlay.pod(1));
    let stream = Transfer::endless(&a.ns, &b.ns, b.v4.into(), 10_000_000)?;
    // Whatever the stream needs is there before it is measured.
    stream.expect_progress(20_000_000, wait::SOON)?;
    let before = scene.overlay.canal(0).resident()?;
    let sources =
        [scene.overlay.host(1).v4, Ipv4Addr::new(192, 168, 77, 66), Ipv4Addr::new(192, 168, 77, 67)];
    for (n, source) in sources.iter().enumerate() {
        let frame = scene.whole(*source, &[n as u8; FLOOD_BYTES + 100])?;
        for id in 0..FLOOD / sources.len() as u32 {
            scene.wire.send(&piece(&frame, id as u16, 0..FLOOD_BYTES))?;
        }
    }
    let growth = scene.overlay.canal(0).resident()?.saturating_sub(before);
    ensure!(growth <= GROWTH, "it grew by {growth} bytes");
    stream.expect_progress(20_000_000, wait::SOON)?;
    stream.finish(wait::SOON)?;
    scene.end(&topology)
}
