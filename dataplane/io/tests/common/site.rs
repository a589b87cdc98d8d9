//! Hosts with a workload each, and what joins them.

use std::net::IpAddr;

use canal_dataplane::net::HashSeed;
use canal_dataplane::port::{Egress, Ingress, Received};
use canal_io::bpf::{Steering, Underlay};
use canal_io::tun::{TapConfig, TapDevice, TapPort};
use canal_io::udp::{UdpAbilities, UdpConfig, UdpPort, UdpReceiver};
use canal_io::xdp::{Memory, Mode, Needs, Ours, Transfer, Vtep, XdpConfig, XdpDevice, XdpPort};

use super::daemon::{Both, Watched, Worker};
use super::overlay::Overlay;
use super::{Namespace, veth};

/// MTU of workloads: fits behind outer IPv6 headers.
pub const MTU: u32 = 1430;

/// What carries the outer packets.
#[derive(Clone, Copy, Debug)]
pub enum Wire {
    Tap,
    Udp,
    Xdp(Mode),
}

/// One host: `eth0` towards others, `wl` towards its workload, whose own end is `eth0` too.
pub struct Host {
    pub host: Namespace,
    pub workload: Namespace,
    pub overlay: Overlay,
}

impl Host {
    /// A host whose workload has 10.9.0.`last`; `eth0` is for the caller to connect.
    pub fn new(overlay: Overlay, last: u8) -> Self {
        let [host, workload] = ["host", "pod"].map(Namespace::new);
        veth(&host, "wl", &workload, "eth0");
        workload.ip(&format!("addr add 10.9.0.{last}/24 dev eth0"));
        workload.ip(&format!("link set eth0 mtu {MTU}"));
        Self { host, workload, overlay }
    }

    pub fn underlay(&self) -> Underlay {
        let (v4, v6) = match self.overlay.local {
            IpAddr::V4(address) => (Some(address), None),
            IpAddr::V6(address) => (None, Some(address)),
        };
        Underlay {
            ifindex: self.host.ifindex("eth0"),
            vtep_v4: v4,
            vtep_v6: v6,
            vxlan_port: self.overlay.port,
            pod_subnets_v4: Vec::new(),
            pod_subnets_v6: Vec::new(),
            plain_to_gateways: false,
        }
    }

    /// Starts a daemon in miniature on the host.
    pub fn join(&self, wire: Wire) -> Worker {
        match wire {
            Wire::Tap => self.join_by_tap(),
            Wire::Udp => self.join_by_udp(),
            Wire::Xdp(mode) => self.join_by_xdp(mode),
        }
    }

    fn join_by_tap(&self) -> Worker {
        let (workload, underlay, overlay) = (self.host.ifindex("wl"), self.underlay(), self.overlay);
        self.run(move || {
            let (device, mut queues) = TapDevice::create(&TapConfig::new(1, MTU)).unwrap();
            assert!(
                device.abilities.tunnel_gso && device.abilities.reason.is_none(),
                "{:?}",
                device.abilities
            );
            let mut steering = Steering::open(&device, &queues, HashSeed(1, 2), None).unwrap();
            steering.attach_workload(workload).unwrap();
            steering.set_underlay(Some(underlay)).unwrap();
            assert_eq!(steering.attached().len(), 3);
            let mut tap = TapPort::new(&device, queues.remove(0), steering.next_hops());
            tap.set_fallback(vec![UdpReceiver::open(overlay.local, overlay.port, MTU).unwrap()]);
            (tap, steering)
        })
    }

    fn join_by_udp(&self) -> Worker {
        let (workload, underlay) = (self.host.ifindex("wl"), self.underlay());
        self.run(move || {
            let config = TapConfig { forbid_tunnel_gso: true, ..TapConfig::new(1, MTU) };
            let (device, mut queues) = TapDevice::create(&config).unwrap();
            assert!(!device.abilities.tunnel_gso);
            let mut steering = Steering::open(&device, &queues, HashSeed(1, 2), None).unwrap();
            steering.attach_workload(workload).unwrap();
            let tap = TapPort::new(&device, queues.remove(0), steering.next_hops());
            let config = UdpConfig::new(underlay.vtep_v4, underlay.vtep_v6, underlay.vxlan_port);
            let udp = UdpPort::open(&config).unwrap();
            assert_eq!(udp.abilities(), UdpAbilities { gro: true, segments: 128 });
            (Both { tap, underlay: udp }, steering)
        })
    }

    /// What AF_XDP is to be told of the host.
    pub fn xdp_config(&self, mode: Mode) -> XdpConfig {
        let Underlay { ifindex, vtep_v4, vtep_v6, vxlan_port, .. } = self.underlay();
        XdpConfig {
            ifindex,
            name: "eth0".into(),
            ours: Ours::Vxlan { vtep: Vtep { v4: vtep_v4, v6: vtep_v6, port: vxlan_port }, overlay_mtu: MTU },
            local: Vec::new(),
            mtu: 1500,
            workers: 1,
            forbid_native: mode == Mode::Generic,
            busy_poll: None,
        }
    }

    fn join_by_xdp(&self, mode: Mode) -> Worker {
        let (workload, underlay, overlay) = (self.host.ifindex("wl"), self.underlay(), self.overlay);
        let config = self.xdp_config(mode);
        self.run(move || {
            let (device, mut queues) = TapDevice::create(&TapConfig::new(1, MTU)).unwrap();
            let mut steering = Steering::open(&device, &queues, HashSeed(1, 2), None).unwrap();
            steering.attach_workload(workload).unwrap();
            steering.set_underlay(Some(underlay)).unwrap();
            let mut tap = TapPort::new(&device, queues.remove(0), steering.next_hops());
            tap.set_fallback(vec![UdpReceiver::open(overlay.local, overlay.port, MTU).unwrap()]);
            let memory = Memory::new(Needs::of(&config).unwrap()).unwrap();
            let (xdp, mut wires) = XdpDevice::open(&config, &memory).unwrap();
            assert_eq!((xdp.abilities().mode, xdp.abilities().transfer), (mode, Transfer::Copy));
            let port = XdpPort::new(wires.remove(0).unwrap(), tap.writer());
            (Both { tap, underlay: port }, (steering, xdp))
        })
    }

    fn run<P: Watched, K>(&self, open: impl FnOnce() -> (P, K) + Send + 'static) -> Worker {
        let (workload, overlay) = (self.host.ifindex("wl"), self.overlay);
        Worker::start(&self.host, open, move |packet: &mut Received| match packet.ingress {
            Ingress::Workload(_) => {
                overlay.encapsulate(packet, 0);
                Some(Egress::Underlay)
            }
            Ingress::Underlay => overlay.decapsulate(packet).then_some(Egress::Workload(workload)),
            _ => None,
        })
    }
}
