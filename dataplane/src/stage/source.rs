//! May this packet come from there? Nothing is learnt from packets: who may use which source address is in the tables.

use super::Context;
use crate::packet::{Headers, Packet, Source};
use crate::port::{IfIndex, Ingress};
use crate::tables::{Kind, Networks, Tables};
use crate::verdict::{DropReason, Verdict};

const IPIP: u8 = 4;
const UDP: u8 = 17;

/// Checks the source of every pending packet and says whose it is.
#[inline(never)]
pub fn run(batch: &mut [Packet], cx: &mut Context<'_>) {
    let mut runs = Runs { workload: Run::NONE, vtep: Run::NONE, gateway: Run::NONE };
    for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Pending) {
        match check(packet, cx.tables, &mut runs) {
            Ok(source) => packet.source = source,
            Err(reason) => packet.verdict = Verdict::Drop(reason),
        }
    }
}

/// The last packet that was found to be what it says: packets come in runs, most are from where the one before was from.
struct Runs {
    workload: Run,
    vtep: Run,
    gateway: Run,
}

#[derive(Clone, Copy)]
struct Run {
    /// By which way it came: an interface, or a VTEP's index.
    way: u32,
    /// IPv4 source; more than 32 bits = there was no such packet.
    address: u64,
    /// The endpoint, VTEP or gateway that may use that source.
    index: u32,
}

impl Run {
    const NONE: Self = Self { way: 0, address: u64::MAX, index: 0 };

    /// Does this packet belong to it, whose way is given?
    #[inline(always)]
    fn goes_on(&self, way: u32, headers: &Headers) -> bool {
        self.way == way && self.address == headers.key.source_low(headers.direction) && !headers.is_v6()
    }

    fn begin(&mut self, way: u32, headers: &Headers, index: u32) {
        if !headers.is_v6() {
            *self = Self { way, address: headers.source_v4().into(), index };
        }
    }
}

#[inline(always)]
fn check(packet: &Packet, tables: &Tables, runs: &mut Runs) -> Result<Source, DropReason> {
    let headers = &packet.headers;
    match packet.ingress {
        Ingress::Workload(ifindex) => {
            if !runs.workload.goes_on(ifindex, headers) {
                let index = of_workload(headers, ifindex, tables)?;
                runs.workload.begin(ifindex, headers, index);
                return allowed(headers, tables).map(|()| Source::Endpoint(index));
            }
            allowed(headers, tables).map(|()| Source::Endpoint(runs.workload.index))
        }
        Ingress::Underlay => {
            let Source::Vtep(index) = packet.source else { return Err(DropReason::UnknownVtep) };
            if !runs.vtep.goes_on(index, headers) {
                from_vtep(headers, index, tables)?;
                runs.vtep.begin(index, headers, index);
            }
            Ok(packet.source)
        }
        Ingress::Decapsulated(outer) => {
            let index = tables.vtep_at(outer).ok_or(DropReason::UnknownVtep)?;
            from_vtep(headers, index, tables)
        }
        Ingress::Direct => {
            not_ours(headers, tables)?;
            match tables.direct_source(headers.source_address()) {
                _ if is_martian(headers) => Err(DropReason::MartianSource),
                true => Ok(Source::Direct),
                false => Err(DropReason::SpoofedSource),
            }
        }
        Ingress::Gateway(ifindex) => {
            if !runs.gateway.goes_on(ifindex, headers) {
                let index = of_gateway(headers, ifindex, tables)?;
                runs.gateway.begin(ifindex, headers, index);
                return allowed(headers, tables).map(|()| Source::Gateway(index));
            }
            allowed(headers, tables).map(|()| Source::Gateway(runs.gateway.index))
        }
        Ingress::Host => Ok(Source::Host),
    }
}

/// The workload behind this interface, if the source is one of its addresses.
fn of_workload(headers: &Headers, ifindex: IfIndex, tables: &Tables) -> Result<u32, DropReason> {
    let index = tables.endpoint_at(ifindex).ok_or(DropReason::UnknownInterface)?;
    owned(headers, &tables.endpoints[index as usize].networks)?;
    Ok(index)
}

/// May a workload, or a host behind a gateway, send packets like this?
#[inline(always)]
fn allowed(headers: &Headers, tables: &Tables) -> Result<(), DropReason> {
    if is_forbidden_encapsulation(headers, tables) { Err(DropReason::EncapFromWorkload) } else { Ok(()) }
}

/// May this VTEP send it?
fn from_vtep(headers: &Headers, index: u32, tables: &Tables) -> Result<Source, DropReason> {
    not_ours(headers, tables)?;
    owned(headers, &tables.vteps[index as usize].owns)?;
    Ok(Source::Vtep(index))
}

/// The gateway of this interface, if the source is the address of a host behind it.
fn of_gateway(headers: &Headers, ifindex: IfIndex, tables: &Tables) -> Result<u32, DropReason> {
    let index = tables.gateway_at(ifindex).ok_or(DropReason::UnknownInterface)?;
    not_ours(headers, tables)?;
    owned(headers, &tables.gateways[index as usize].sources).map_err(|reason| match reason {
        DropReason::SpoofedSource => DropReason::GatewaySource,
        other => other,
    })?;
    // A wide prefix behind it may hold addresses of the overlay and of this host, which have longer ones.
    let route = match headers.is_v6() {
        false => tables.route_v4(headers.source_v4()),
        true => tables.route_v6(headers.source_v6()),
    };
    let way = route.map(|adjacency| &tables.adjacencies[adjacency as usize].kind);
    if !matches!(way, Some(Kind::Gateway { .. } | Kind::Spread(_))) {
        return Err(DropReason::GatewaySource);
    }
    Ok(index)
}

/// Nobody else speaks as this node: a peer whose lease overlaps ours must not reach what trusts our tunnel address.
#[inline]
fn not_ours(headers: &Headers, tables: &Tables) -> Result<(), DropReason> {
    let ours = if headers.is_v6() {
        tables.gateway_v6.is_some_and(|own| own.to_bits() == headers.source_v6())
    } else {
        tables.gateway_v4.is_some_and(|own| own.to_bits() == headers.source_v4())
    };
    if ours { Err(DropReason::MartianSource) } else { Ok(()) }
}

/// Is the source one of `networks`, and one that can be a source at all?
#[inline]
fn owned(headers: &Headers, networks: &Networks) -> Result<(), DropReason> {
    if is_martian(headers) {
        return Err(DropReason::MartianSource);
    }
    let inside = if headers.is_v6() {
        networks.contains_v6(headers.source_v6())
    } else {
        networks.contains_v4(headers.source_v4())
    };
    if inside { Ok(()) } else { Err(DropReason::SpoofedSource) }
}

/// Addresses that are never a sender beyond their own link: this network, loopback, link-local, multicast, class E
/// (RFC 1122 §3.2.1.3, RFC 1812 §5.3.7, RFC 4291 §2.5).
#[inline]
fn is_martian(headers: &Headers) -> bool {
    if headers.is_v6() {
        let source = headers.source_v6();
        let high = (source >> 112) as u16;
        source <= 1 || high >= 0xff00 || high & 0xffc0 == 0xfe80 || source >> 32 == 0xffff
    } else {
        let source = headers.source_v4();
        matches!(source >> 24, 0 | 127 | 224..) || source >> 16 == 0xa9fe
    }
}

/// VXLAN to our overlay's port, or IP in IP, unless it is allowed: whoever speaks it could inject packets into
/// other nodes.
#[inline(always)]
fn is_forbidden_encapsulation(headers: &Headers, tables: &Tables) -> bool {
    match headers.protocol() {
        UDP => {
            tables.vxlan.is_some_and(|vxlan| headers.destination_port == vxlan.port)
                && !tables.settings.allow_vxlan_from_workloads
        }
        IPIP => !tables.settings.allow_ipip_from_workloads,
        _ => false,
    }
}
