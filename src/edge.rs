//! Carries the control side's plans out on the kernel ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use canal_control::edge::{Edge, EdgeError, EdgeFailure, EdgePlan, EdgeReport, UnderlayPlan};
use canal_dataplane::net::HashSeed;
use canal_dataplane::port::IfIndex;
use canal_io::bpf::{Hook, Steering, SteeringError, Underlay, Whose};
use canal_io::tun::TapAbilities;
use canal_io::udp::{UdpConfig, UdpError, UdpPort, UdpReceiver, overlay_mtu};
use canal_io::xdp::{Ours, Vtep, XdpConfig};
use ipnetwork::IpNetwork;

use crate::config::{PortChoice, PortChoices};
use crate::ports::{Chosen, ChosenPort, PortError, UnderlayPort, choose};
use crate::wires::Wires;
use crate::worker_thread::{Order, Stuck, WorkerHandle};

/// The worker whose sockets catch outer fragments: they are few, and any worker may handle them.
const STRAYS: usize = 0;

/// Addresses that sockets are bound to, and the MTU of the overlay that they were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    port: u16,
    mtu: u32,
}

/// How it is to be done.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// The port of each interface.
    pub port: PortChoices,
    /// What the TAP device takes.
    pub abilities: TapAbilities,
    /// For how long AF_XDP sockets keep the kernel polling.
    pub busy_poll: Option<Duration>,
    /// DF in outer IPv4 headers.
    pub dont_fragment: bool,
    /// Keys of the flow hashes.
    pub seed: HashSeed,
}

/// The kernel ports as the control side sees them.
pub struct KernelEdge {
    /// Before `steering`: without AF_XDP packets still pass, and its programs take their time to go.
    wires: Wires,
    steering: Steering,
    workers: Arc<[WorkerHandle]>,
    options: EdgeOptions,
    chosen: ChosenPort,
    /// The port to use where AF_XDP cannot be.
    second: Chosen,
    /// An interface that cannot be steered, and why: sockets carry the underlay there.
    unsteerable: Option<(IfIndex, String)>,
    /// What the sockets of the workers are bound to.
    sockets: Option<Bound>,
}

/// Why a plan's underlay part could not be carried out.
#[derive(Debug, thiserror::Error)]
enum UnderlayError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Steering(#[from] SteeringError),
    #[error(transparent)]
    Udp(#[from] UdpError),
    #[error(transparent)]
    Stuck(#[from] Stuck),
}

impl KernelEdge {
    /// Nothing is taken from any interface until the first plan.
    pub fn new(
        steering: Steering,
        workers: Arc<[WorkerHandle]>,
        options: EdgeOptions,
        chosen: ChosenPort,
        second: Chosen,
    ) -> Self {
        let wires = Wires::new(Arc::clone(&workers));
        Self { wires, steering, workers, options, chosen, second, unsteerable: None, sockets: None }
    }

    fn workloads(&mut self, wanted: &BTreeSet<IfIndex>, report: &mut EdgeReport) {
        let there = self.steering.attached().into_iter().filter(|there| there.hook == Hook::Workload);
        for ifindex in there.map(|there| there.ifindex).filter(|there| !wanted.contains(there)) {
            if let Err(error) = self.steering.detach_workload(ifindex) {
                report.failed.push(failure(ifindex, false, &error));
            }
        }
        for &ifindex in wanted {
            match self.steering.attach_workload(ifindex) {
                Ok(()) => drop(report.workloads.insert(ifindex)),
                Err(error) => report.failed.push(failure(ifindex, false, &error)),
            }
        }
    }

    /// Steers what hosts behind gateways send; what AF_XDP is to carry of that.
    fn gateways(&mut self, plan: &EdgePlan, report: &mut EdgeReport) -> Vec<XdpConfig> {
        let there = self.steering.attached().into_iter().filter(|there| there.hook == Hook::Gateway);
        for ifindex in there.map(|there| there.ifindex).filter(|there| !plan.gateways.contains_key(there)) {
            if let Err(error) = self.steering.detach_gateway(ifindex) {
                report.failed.push(failure(ifindex, false, &error));
            }
        }
        let whose = |whose: &canal_control::edge::Whose| match whose {
            canal_control::edge::Whose::Kernel => Whose::Kernel,
            canal_control::edge::Whose::Overlay => Whose::Overlay,
            canal_control::edge::Whose::Behind => Whose::Behind,
        };
        let destinations: BTreeMap<_, _> =
            plan.destinations.iter().map(|(prefix, of)| (*prefix, whose(of))).collect();
        // Before anything is taken it is known what is to be left alone.
        let told = self.steering.set_destinations(&destinations);
        for &ifindex in plan.gateways.keys() {
            let taken = match &told {
                Ok(()) => self.steering.attach_gateway(ifindex).map_err(|error| chain(&error)),
                Err(error) => Err(chain(error)),
            };
            if let Err(why) = taken {
                report.failed.push(EdgeFailure { ifindex, underlay: false, why });
            }
        }
        let ours = Ours::Plain(Arc::new(destinations));
        let by_xdp =
            plan.gateways.iter().filter(|(_, to)| self.options.port.of(&to.name) == PortChoice::AfXdp);
        let local = plan.underlay.as_ref().map_or(&[][..], |underlay| &underlay.own_subnets);
        by_xdp.map(|(ifindex, to)| self.xdp_config(*ifindex, &to.name, to.mtu, ours.clone(), local)).collect()
    }

    /// Steers the underlay to what carries it, as far as is known: whether AF_XDP can have it shows in [`Self::take_over`].
    fn underlay(&mut self, plan: Option<&UnderlayPlan>) -> Result<(), UnderlayError> {
        let Some(plan) = plan else {
            self.steering.set_underlay(None)?;
            return self.close_sockets();
        };
        let bound = bound(plan);
        match self.pick(plan)? {
            UnderlayPort::Udp => {
                // Sockets are there at once, steering takes the kernel's grace periods.
                let opened = self.open_sockets(bound);
                // Peers with direct routing send plain packets; they come through the TAP device all the same.
                self.steering.set_underlay(Some(steered(plan, false)))?;
                opened
            }
            // What the XDP program leaves to the kernel comes as it does without one.
            UnderlayPort::Tap | UnderlayPort::AfXdp => {
                if let Err(error) = self.steering.set_underlay(Some(steered(plan, true))) {
                    return self.fall_back(plan, error);
                }
                self.catch_strays(bound)
            }
        }
    }

    /// Has AF_XDP take over what it is to carry of the underlay and of `gateways`, and does without it where it cannot.
    fn take_over(
        &mut self,
        plan: Option<&UnderlayPlan>,
        gateways: Vec<XdpConfig>,
    ) -> Result<(), UnderlayError> {
        let mut wanted = gateways;
        if let Some(plan) = plan
            && let Some(bound) = bound(plan)
            && self.unsteerable.is_none()
            && self.options.port.of(&plan.name) == PortChoice::AfXdp
        {
            let vtep = Vtep { v4: bound.v4, v6: bound.v6, port: bound.port };
            let ours = Ours::Vxlan { vtep, overlay_mtu: bound.mtu };
            wanted.insert(0, self.xdp_config(plan.ifindex, &plan.name, plan.mtu, ours, &plan.own_subnets));
        }
        let before = plan.map(|plan| self.wires.refusal(plan.ifindex).map(str::to_owned));
        self.wires.apply(&wanted)?;
        self.chosen.set(Chosen { xdp: self.wires.taken_over(), ..self.chosen.get() });
        let after = plan.map(|plan| self.wires.refusal(plan.ifindex).map(str::to_owned));
        if before == after { Ok(()) } else { self.underlay(plan) }
    }

    /// What carries the underlay.
    fn pick(&mut self, plan: &UnderlayPlan) -> Result<UnderlayPort, UnderlayError> {
        if self.unsteerable.as_ref().is_some_and(|(ifindex, _)| *ifindex != plan.ifindex) {
            self.unsteerable = None;
        }
        let first = choose(self.options.port.of(&plan.name), self.options.abilities)?;
        let chosen = match (&self.unsteerable, self.wires.refusal(plan.ifindex)) {
            (Some((_, why)), _) => Chosen { port: UnderlayPort::Udp, why: why.clone(), ..first },
            (None, Some(why)) => {
                let why = format!("AF_XDP cannot have {}: {why}", plan.name);
                Chosen { why, ..self.second.clone() }
            }
            (None, None) => first,
        };
        let before = self.chosen.get();
        if before.port != chosen.port {
            tracing::warn!(port = chosen.port.name(), why = chosen.why, "underlay port changed");
            // A socket for fragments is in the way of sockets for everything.
            self.close_sockets()?;
        }
        let udp = before.udp.filter(|_| before.port == chosen.port);
        let port = chosen.port;
        self.chosen.set(Chosen { udp, xdp: before.xdp, ..chosen });
        Ok(port)
    }

    fn xdp_config(
        &self,
        ifindex: IfIndex,
        name: &str,
        mtu: u32,
        ours: Ours,
        local: &[IpNetwork],
    ) -> XdpConfig {
        XdpConfig {
            ifindex,
            name: name.to_owned(),
            ours,
            local: local.to_vec(),
            mtu,
            workers: self.workers.len(),
            forbid_native: false,
            busy_poll: self.options.busy_poll,
        }
    }

    /// Without `--port tap` an interface that cannot be steered (no Ethernet, say) is no reason to give up.
    fn fall_back(&mut self, plan: &UnderlayPlan, error: SteeringError) -> Result<(), UnderlayError> {
        if self.options.port.of(&plan.name) == PortChoice::Tap {
            return Err(error.into());
        }
        let why = format!("{} cannot be steered: {}", plan.name, chain(&error));
        self.unsteerable = Some((plan.ifindex, why));
        self.pick(plan)?;
        self.open_sockets(bound(plan))
    }

    /// Sockets of the UDP port, for each worker.
    fn open_sockets(&mut self, bound: Option<Bound>) -> Result<(), UnderlayError> {
        if bound == self.sockets {
            return Ok(());
        }
        let Some(to) = bound else { return self.close_sockets() };
        let (mtu, dont_fragment) = (to.mtu, self.options.dont_fragment);
        let seed = Some(self.options.seed);
        let config = UdpConfig { mtu, dont_fragment, seed, ..UdpConfig::new(to.v4, to.v6, to.port) };
        // All or none: flows are spread over the sockets there are.
        let ports = self.workers.iter().map(|_| UdpPort::open(&config)).collect::<Result<Vec<_>, _>>()?;
        if let Some(port) = ports.first() {
            self.chosen.set(Chosen { udp: Some(port.abilities()), ..self.chosen.get() });
            for socket in port.sockets() {
                if let Err(error) = self.steering.spread(socket) {
                    tracing::info!(%error, "the kernel spreads outer flows over the sockets, workers hand over");
                }
            }
            tracing::info!(port = to.port, v4 = ?to.v4, v6 = ?to.v6, abilities = ?port.abilities(), "UDP sockets open");
        }
        for (worker, port) in self.workers.iter().zip(ports) {
            worker.order(Order::Udp(Some(Box::new(port))))?;
        }
        self.sockets = bound;
        Ok(())
    }

    /// Sockets at the VXLAN port beside the TAP port: they get what the kernel put together from fragments, and keep it
    /// from answering "port unreachable". The port works without, only not for fragments.
    fn catch_strays(&mut self, bound: Option<Bound>) -> Result<(), UnderlayError> {
        if bound == self.sockets {
            return Ok(());
        }
        let addresses = |to: Bound| to.v4.map(IpAddr::from).into_iter().chain(to.v6.map(IpAddr::from));
        let mut strays = Vec::new();
        for (address, to) in bound.into_iter().flat_map(|to| addresses(to).map(move |a| (a, to))) {
            match UdpReceiver::open(address, to.port, to.mtu) {
                Ok(stray) => strays.push(stray),
                Err(error) => {
                    let why = chain(&error);
                    tracing::warn!(why, "outer fragments will be lost: no socket at the VXLAN port");
                }
            }
        }
        self.workers[STRAYS].order(Order::Strays(strays))?;
        self.sockets = bound;
        Ok(())
    }

    fn close_sockets(&mut self) -> Result<(), UnderlayError> {
        if self.sockets.is_none() {
            return Ok(());
        }
        for worker in self.workers.iter() {
            worker.order(Order::Udp(None))?;
            worker.order(Order::Strays(Vec::new()))?;
        }
        self.sockets = None;
        Ok(())
    }
}

#[async_trait]
impl Edge for KernelEdge {
    /// Each program on an interface takes grace periods of the kernel, some milliseconds. What all packets need goes first, and
    /// AF_XDP, without which packets pass, last: so each workload waits as short as may be when the daemon starts.
    async fn apply(&mut self, plan: &EdgePlan) -> Result<EdgeReport, EdgeError> {
        let mut report = EdgeReport::default();
        let underlay = plan.underlay.as_ref();
        let carried = self.underlay(underlay);
        self.workloads(&plan.workloads, &mut report);
        let gateways = self.gateways(plan, &mut report);
        let taken_over = self.take_over(underlay, gateways);
        if let Err(error) = carried.and(taken_over) {
            match underlay {
                Some(underlay) => report.failed.push(failure(underlay.ifindex, true, &error)),
                None => return Err(EdgeError(Box::new(error))),
            }
        }
        report.again = self.wires.again();
        Ok(report)
    }
}

/// Where the sockets of the underlay are.
fn bound(plan: &UnderlayPlan) -> Option<Bound> {
    let mtu = overlay_mtu(plan.mtu, plan.v6.is_some());
    plan.port.map(|port| Bound { v4: plan.v4, v6: plan.v6, port, mtu })
}

/// What the programs have to know. Without `vxlan` they leave VXLAN packets to the sockets.
fn steered(plan: &UnderlayPlan, vxlan: bool) -> Underlay {
    let mut underlay = Underlay {
        ifindex: plan.ifindex,
        vtep_v4: plan.v4.filter(|_| vxlan),
        vtep_v6: plan.v6.filter(|_| vxlan),
        vxlan_port: plan.port.filter(|_| vxlan).unwrap_or(0),
        pod_subnets_v4: Vec::new(),
        pod_subnets_v6: Vec::new(),
        plain_to_gateways: plan.plain_to_gateways,
    };
    for subnet in &plan.own_subnets {
        match subnet {
            IpNetwork::V4(net) => underlay.pod_subnets_v4.push((net.network(), net.prefix())),
            IpNetwork::V6(net) => underlay.pod_subnets_v6.push((net.network(), net.prefix())),
        }
    }
    underlay
}

fn failure(ifindex: IfIndex, underlay: bool, error: &dyn std::error::Error) -> EdgeFailure {
    EdgeFailure { ifindex, underlay, why: chain(error) }
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        // Transparent errors repeat what they hold.
        if !text.ends_with(&sentence) {
            text.push_str(": ");
            text.push_str(&sentence);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> UnderlayPlan {
        UnderlayPlan {
            ifindex: 3,
            name: "eth0".into(),
            v4: Some([192, 0, 2, 1].into()),
            v6: None,
            port: Some(8472),
            own_subnets: vec!["10.1.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            plain_to_gateways: true,
            mtu: 1500,
        }
    }

    #[test]
    fn with_sockets_only_plain_packets_are_steered() {
        let by_tap = Underlay {
            ifindex: 3,
            vtep_v4: Some([192, 0, 2, 1].into()),
            vtep_v6: None,
            vxlan_port: 8472,
            pod_subnets_v4: vec![([10, 1, 1, 0].into(), 24)],
            pod_subnets_v6: vec![("fd00:1::".parse().unwrap(), 64)],
            plain_to_gateways: true,
        };
        assert_eq!(steered(&plan(), true), by_tap);
        assert_eq!(steered(&plan(), false), Underlay { vtep_v4: None, vxlan_port: 0, ..by_tap });
    }

    #[test]
    fn errors_are_told_with_their_causes() {
        let error = SteeringError::NoInterface(7);
        assert_eq!(chain(&UnderlayError::from(error)), "interface 7 does not exist");
        let io = std::io::Error::from_raw_os_error(22);
        let error = UnderlayError::from(UdpError::Step { step: "open", source: io });
        assert_eq!(chain(&error), "UDP socket: cannot open: Invalid argument (os error 22)");
    }
}
