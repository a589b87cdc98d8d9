//! ICMP errors from the underlay: is it about a packet that we sent? Then the path MTU of that VTEP, and of no other, falls.

use std::net::IpAddr;

use crate::net::HashSeed;
use crate::packet::Quote;
use crate::tables::{PathMtu, Tables};
use crate::verdict::DropReason;
use crate::wire::vxlan;

/// Lowers a path MTU if the message quotes a packet that this VTEP sent: our address, a known VTEP, our port and VNI,
/// and the source port that our secret hash gives to the quoted inner packet. A quote that ends before the inner ports
/// proves nothing and is not believed. Returns why the message itself ends here.
#[cold]
pub fn learn(
    frame: &[u8],
    quote: usize,
    mtu: u32,
    tables: &Tables,
    seed: HashSeed,
    now_ms: u64,
) -> DropReason {
    match verify(frame.get(quote..).unwrap_or(&[]), tables, seed) {
        Some((adjacency, overhead)) => {
            let limit = PathMtu::inner_limit(mtu, overhead);
            if let Some(cell) = tables.adjacencies[adjacency as usize].path_mtu() {
                cell.lower(limit, now_ms);
            }
            DropReason::PathMtuLearnt
        }
        None => DropReason::PathMtuForged,
    }
}

/// The adjacency whose packet is quoted, and the bytes that the tunnel adds to an inner IP packet.
fn verify(quote: &[u8], tables: &Tables, seed: HashSeed) -> Option<(u32, u16)> {
    let local = tables.vxlan?;
    let (source, destination, protocol, udp) = match quote.first()? >> 4 {
        4 => {
            let ip: &[u8; 20] = quote.first_chunk()?;
            let header_len = usize::from(ip[0] & 0x0f) * 4;
            (
                IpAddr::from(*ip[12..16].first_chunk::<4>()?),
                IpAddr::from(*ip[16..20].first_chunk::<4>()?),
                ip[9],
                quote.get(header_len..)?,
            )
        }
        6 => {
            let ip: &[u8; 40] = quote.first_chunk()?;
            (
                IpAddr::from(*ip[8..24].first_chunk::<16>()?),
                IpAddr::from(*ip[24..40].first_chunk::<16>()?),
                ip[6],
                quote.get(40..)?,
            )
        }
        _ => return None,
    };
    let ours = match source {
        IpAddr::V4(a) => local.v4.is_some_and(|vtep| vtep.address == a),
        IpAddr::V6(a) => local.v6.is_some_and(|vtep| vtep.address == a),
    };
    let ports: &[u8; 16] = udp.first_chunk()?;
    let header = vxlan::Header::read(ports[8..].first_chunk()?);
    let source_port = u16::from_be_bytes([ports[0], ports[1]]);
    let destination_port = u16::from_be_bytes([ports[2], ports[3]]);
    let expected = quoted_source_port(udp.get(16 + 14..)?, seed)?;
    let genuine = ours
        && protocol == 17
        && destination_port == local.port
        && header.vni == Some(local.vni)
        && source_port == expected;
    let vtep = tables.vtep_at(destination)?;
    let overhead = if source.is_ipv4() { vxlan::MTU_OVERHEAD_V4 } else { vxlan::MTU_OVERHEAD_V6 };
    genuine.then(|| (tables.vteps[vtep as usize].adjacency, overhead))
}

/// The source port that our secret hash gives to a quoted, hence truncated, inner IP packet: for ports that send from
/// sockets and learn of errors from the kernel, which has checked the port on the wire.
pub fn quoted_source_port(inner: &[u8], seed: HashSeed) -> Option<u16> {
    Some(vxlan::source_port(Quote::read(inner)?.outer_key().hash(seed)))
}
