//! What leads out of the host beside the TAP device, as one port: UDP sockets for the underlay, AF_XDP sockets for
//! interfaces.

use std::sync::Arc;

use canal_dataplane::frame::FramePool;
use canal_dataplane::offload::Caps;
use canal_dataplane::port::{Egress, IfIndex, Outgoing, Port, PortStats, Received};
use canal_io::udp::UdpPort;
use canal_io::xdp::{Memory, XdpPort};

/// The sockets of one worker.
#[derive(Default)]
pub struct Outside {
    /// For the underlay, unless AF_XDP or the TAP device carries it.
    pub udp: Option<Box<UdpPort>>,
    /// For the interfaces that AF_XDP has.
    pub xdp: Option<XdpPort>,
    /// Where frames of AF_XDP's memory belong, whether or not this worker has sockets of it.
    pub home: Option<Arc<Memory>>,
    /// What is for AF_XDP while both are there.
    apart: Vec<Outgoing>,
}

impl Outside {
    /// The port, if there are any sockets.
    pub fn port(&mut self) -> Option<&mut dyn Port> {
        (self.udp.is_some() || self.xdp.is_some()).then_some(self as &mut dyn Port)
    }

    /// Closes the AF_XDP sockets on an interface.
    pub fn detach(&mut self, ifindex: IfIndex) {
        if let Some(port) = &mut self.xdp {
            port.remove(ifindex);
        }
        self.xdp = self.xdp.take().filter(|port| !port.wires().is_empty());
    }

    /// Takes home what other workers' sockets have received and this one, without any, has used: theirs would run dry.
    #[inline]
    pub fn settle(&self, pool: &mut FramePool) {
        if let (Some(home), None) = (&self.home, &self.xdp) {
            home.take_home(pool);
        }
    }
}

impl Port for Outside {
    /// Both cut and finish by themselves.
    fn caps(&self) -> Caps {
        Caps::ALL
    }

    fn carries_gateways(&self) -> bool {
        self.xdp.as_ref().is_some_and(XdpPort::carries_gateways)
    }

    fn receive(&mut self, pool: &mut FramePool, into: &mut Vec<Received>, limit: usize) {
        let before = into.len();
        if let Some(xdp) = &mut self.xdp {
            xdp.receive(pool, into, limit);
        }
        if let Some(udp) = &mut self.udp {
            udp.receive(pool, into, limit.saturating_sub(into.len() - before));
        }
    }

    fn transmit(&mut self, frames: &mut Vec<Outgoing>, pool: &mut FramePool) {
        match (&mut self.udp, &mut self.xdp) {
            (Some(udp), Some(xdp)) => {
                self.apart.extend(frames.extract_if(.., |outgoing| outgoing.egress != Egress::Underlay));
                udp.transmit(frames, pool);
                xdp.transmit(&mut self.apart, pool);
            }
            (Some(udp), None) => udp.transmit(frames, pool),
            (None, Some(xdp)) => xdp.transmit(frames, pool),
            (None, None) => unreachable!("no port is made of no sockets"),
        }
    }

    fn stats(&self) -> PortStats {
        let udp = self.udp.as_ref().map(|udp| udp.stats()).unwrap_or_default();
        self.xdp.as_ref().map_or(udp, |xdp| udp.and(xdp.stats()))
    }
}
