//! The receiving end: verifies what the forwarder sends, counts it, and takes it away before it costs anything.

use super::{Direction, Ends, object, program, template};
use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::xdp::XdpMode;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use netns_tests::Netns;

/// What has been counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets as they should be.
    pub good: u64,
    /// Packets for the measurement that are not.
    pub other: u64,
}

/// A sink on an interface; it goes with the value.
pub struct Sink {
    _object: Ebpf,
    counted: PerCpuArray<MapData, u64>,
}

impl Sink {
    /// Counts what arrives at `interface` of `ns` after it went `direction`.
    pub fn attach(ns: &Netns, interface: &str, direction: Direction, ends: &Ends) -> Result<Self> {
        let (from, to) = match direction {
            Direction::Encap => (ends.pod, ends.remote_pod),
            Direction::Decap => (ends.remote_pod, ends.pod),
        };
        let word = |address: std::net::Ipv4Addr| u32::from_ne_bytes(address.octets());
        let (tunnel, vni) = (u32::from(direction == Direction::Encap), template::VNI);
        let (outer, from, to) = (word(ends.remote_vtep), word(from), word(to));
        let mut object = object(|loader| {
            loader
                .override_global("sink_tunnel", &tunnel, true)
                .override_global("sink_vni", &vni, true)
                .override_global("sink_outer_to", &outer, true)
                .override_global("sink_inner_from", &from, true)
                .override_global("sink_inner_to", &to, true);
        })?;
        let device = program(&mut object, "sink")?;
        device.load().context("the kernel refuses the sink")?;
        ns.enter(|| {
            device.attach(interface, XdpMode::Driver).with_context(|| format!("a sink on {interface}"))?;
            Ok(())
        })?;
        let received = object.program_mut("sink_received").context("no second sink")?;
        let received: &mut SchedClassifier = received.try_into()?;
        received.load().context("the kernel refuses the second sink")?;
        ns.enter(|| {
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            received
                .attach_with_options(interface, TcAttachType::Ingress, first)
                .with_context(|| format!("a second sink on {interface}"))?;
            Ok(())
        })?;
        let Some(Map::PerCpuArray(map)) = object.take_map("counted") else { bail!("no counters") };
        Ok(Self { _object: object, counted: PerCpuArray::try_from(Map::PerCpuArray(map))? })
    }

    /// What has been counted so far.
    pub fn count(&self) -> Result<Count> {
        let sum = |which| -> Result<u64> { Ok(self.counted.get(&which, 0)?.iter().sum()) };
        Ok(Count { good: sum(0)?, other: sum(1)? })
    }
}
