//! Frames that real flannel nodes exchanged (`flannel/wire-vectors.json`, `flannel/pcap/*.pcap` of the conformance directory)
//! through the whole pipeline: what a kernel VXLAN peer sends is decapsulated to exactly the frame that it wrapped.

use std::net::IpAddr;

use canal_dataplane::limits::SUPER_FRAME_BUFFER;
use canal_dataplane::net::{Mac, Vni};
use canal_dataplane::offload::{Caps, Offload};
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::reply::GATEWAY_MAC;
use canal_dataplane::spec::policy::EndpointPolicy;
use canal_dataplane::spec::{Endpoint, LocalVtep, NodeSpec, Route, Via, Vtep, Vxlan};
use canal_dataplane::testing::packets;
use canal_dataplane::testing::world::World;
use canal_dataplane::verdict::DropReason;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use ipnetwork::IpNetwork;
use serde_json::Value;

#[path = "../../tests/recorded/mod.rs"]
mod recorded;

const PORT: u16 = 8472;
const IFINDEX: u32 = 7;

/// A VXLAN frame taken apart by another parser.
struct Seen {
    outer: (IpAddr, IpAddr),
    ports: (u16, u16),
    outer_ttl: u8,
    outer_tos: u8,
    outer_df: bool,
    udp_checksum: u16,
    vxlan: [u8; 8],
    inner: Vec<u8>,
    inner_addresses: (IpAddr, IpAddr),
    inner_ttl: u8,
}

fn addresses(net: &NetSlice<'_>) -> (IpAddr, IpAddr, u8, u8, bool) {
    match net {
        NetSlice::Ipv4(ip) => {
            let h = ip.header();
            let tos = h.dcp().value() << 2 | h.ecn().value();
            (h.source_addr().into(), h.destination_addr().into(), h.ttl(), tos, h.dont_fragment())
        }
        NetSlice::Ipv6(ip) => {
            let h = ip.header();
            (h.source_addr().into(), h.destination_addr().into(), h.hop_limit(), h.traffic_class(), false)
        }
        other => panic!("{other:?}"),
    }
}

/// `None` for whatever is no UDP to the VXLAN port.
fn look(frame: &[u8]) -> Option<Seen> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (net, Some(TransportSlice::Udp(udp))) = (packet.net?, packet.transport?.into()) else { return None };
    if udp.destination_port() != PORT {
        return None;
    }
    let (source, destination, outer_ttl, outer_tos, outer_df) = addresses(&net);
    let (vxlan, inner) = udp.payload().split_first_chunk::<8>()?;
    let inside = SlicedPacket::from_ethernet(inner).ok()?;
    let (inner_source, inner_destination, inner_ttl, ..) = addresses(&inside.net?);
    Some(Seen {
        outer: (source, destination),
        ports: (udp.source_port(), udp.destination_port()),
        outer_ttl,
        outer_tos,
        outer_df,
        udp_checksum: udp.checksum(),
        vxlan: *vxlan,
        inner: inner.to_vec(),
        inner_addresses: (inner_source, inner_destination),
        inner_ttl,
    })
}

fn mac(bytes: &[u8]) -> Mac {
    Mac(bytes[..6].try_into().unwrap())
}

/// The node that the frame was sent to, with the workload that its inner packet is for.
fn receiver(seen: &Seen) -> NodeSpec {
    let local_mac = mac(&seen.inner);
    let mut vxlan = Vxlan {
        vni: Vni::from_octets([seen.vxlan[4], seen.vxlan[5], seen.vxlan[6]]),
        port: PORT,
        v4: None,
        v6: None,
    };
    match seen.outer.1 {
        IpAddr::V4(address) => vxlan.v4 = Some(LocalVtep { address, mac: local_mac, mtu: 1450 }),
        IpAddr::V6(address) => vxlan.v6 = Some(LocalVtep { address, mac: local_mac, mtu: 1430 }),
    }
    NodeSpec {
        vxlan: Some(vxlan),
        endpoints: vec![Endpoint {
            name: "default/recorded".into(),
            interface: "cali0".into(),
            ifindex: Some(IFINDEX),
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            networks: vec![IpNetwork::from(seen.inner_addresses.1)],
            // The captures hold super-frames, whose offload state a capture does not keep.
            mtu: u16::MAX,
            policy: EndpointPolicy::allow_all(),
        }]
        .into(),
        vteps: vec![Vtep {
            outer: seen.outer.0,
            mac: mac(&seen.inner[6..]),
            owns: vec![IpNetwork::from(seen.inner_addresses.0)],
        }]
        .into(),
        routes: vec![Route { prefix: seen.inner_addresses.0.into(), via: Via::Vtep(seen.outer.0) }].into(),
        ..NodeSpec::default()
    }
}

/// What the receiver must have sent before: recordings begin anywhere, and answers belong to a connection.
fn question(seen: &Seen) -> Option<packets::Ip> {
    let inside = SlicedPacket::from_ethernet(&seen.inner).ok()?;
    let (remote, local) = seen.inner_addresses;
    match inside.transport? {
        TransportSlice::Icmpv4(icmp) if icmp.type_u8() == 0 => {
            Some(packets::ping(local, remote, u16::from_be_bytes([icmp.slice()[4], icmp.slice()[5]])))
        }
        TransportSlice::Icmpv6(icmp) if icmp.type_u8() == 129 => {
            Some(packets::ping(local, remote, u16::from_be_bytes([icmp.slice()[4], icmp.slice()[5]])))
        }
        // What is under way is taken up after a start; an answer to an opening is not.
        TransportSlice::Tcp(tcp) if tcp.syn() && tcp.ack() => {
            let (to, from) = (tcp.source_port(), tcp.destination_port());
            Some(packets::tcp((local, from), (remote, to), 0x02, 0))
        }
        _ => None,
    }
}

/// Delivers the frame to its receiver and compares with what was inside, one hop later.
fn deliver(frame: &[u8], seen: &Seen, what: &str) {
    let mut world = World::with_frames(&receiver(seen), Caps::ALL, SUPER_FRAME_BUFFER);
    if let Some(question) = question(seen) {
        let frame = question.frame(GATEWAY_MAC, Mac([2, 0, 0, 0, 0, 9]));
        world.one(Ingress::Workload(IFINDEX), frame).expect(what);
    }
    let sent = world.run([(Ingress::Underlay, Offload::NONE, frame.to_vec())]).pop();
    let Some(sent) = sent else {
        let drops: Vec<_> = DropReason::ALL.iter().filter(|r| world.counters.drops(**r) > 0).collect();
        panic!("{what}: dropped: {drops:?}");
    };
    assert_eq!(sent.egress, Egress::Workload(IFINDEX), "{what}");
    assert_eq!(mac(&sent.packet), Mac([2, 0, 0, 0, 0, 9]), "{what}");
    assert_eq!(mac(&sent.packet[6..]), GATEWAY_MAC, "{what}");
    let inside = SlicedPacket::from_ethernet(&sent.packet).expect(what);
    let (source, destination, ttl, ..) = addresses(&inside.net.expect(what));
    assert_eq!(((source, destination), ttl), (seen.inner_addresses, seen.inner_ttl - 1), "{what}");
    let l4 = if source.is_ipv4() { 34 } else { 54 };
    assert_eq!(sent.packet[l4..], seen.inner[l4..sent.packet.len()], "{what}");
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

/// Compares every field that the case names with what the frame says; returns how many were compared.
fn check_expected(expect: &Value, seen: &Seen, what: &str) -> usize {
    let text = |ip: IpAddr| Value::from(ip.to_string());
    let mut count = 0;
    for (field, wanted) in expect.as_object().expect("an object") {
        let found = match field.as_str() {
            "dport" => Value::from(seen.ports.1),
            "inner_dst" => text(seen.inner_addresses.1),
            "inner_src" => text(seen.inner_addresses.0),
            "inner_dst_mac" => Value::from(mac(&seen.inner).to_string()),
            "inner_src_mac" => Value::from(mac(&seen.inner[6..]).to_string()),
            "inner_ttl" => Value::from(seen.inner_ttl),
            "outer_df" => Value::from(seen.outer_df),
            "outer_dst" => text(seen.outer.1),
            "outer_src" => text(seen.outer.0),
            "outer_tos" => Value::from(seen.outer_tos),
            "outer_ttl" | "outer_hop_limit" => Value::from(seen.outer_ttl),
            "vni" => Value::from(Vni::from_octets([seen.vxlan[4], seen.vxlan[5], seen.vxlan[6]]).get()),
            "vxlan_header" => Value::from(seen.vxlan.map(|byte| format!("{byte:02x}")).concat()),
            "sport_in" => {
                let (low, high) =
                    wanted.as_str().and_then(|range| range.split_once("..")).expect("low..high");
                let range = low.parse::<u16>().unwrap()..=high.parse().unwrap();
                assert!(range.contains(&seen.ports.0), "{what}: source port {}", seen.ports.0);
                wanted.clone()
            }
            "udp_checksum" => {
                assert_ne!(seen.udp_checksum, 0, "{what}");
                wanted.clone()
            }
            other => panic!("{what}: nobody checks {other}"),
        };
        assert_eq!(found, *wanted, "{what}: {field}");
        count += 1;
    }
    count
}

#[test]
fn recorded_frames_of_real_flannel_nodes_are_decapsulated() {
    let Some(directory) = recorded::find("flannel") else { return };
    let file = directory.join("wire-vectors.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(&file).expect("readable")).expect("JSON");
    let cases = cases["cases"].as_array().expect("cases");
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        for (index, frame) in case["hex"].as_array().expect("frames").iter().enumerate() {
            let frame = hex(frame.as_str().expect("hexadecimal text"));
            let what = format!("{name}, frame {index}");
            let Some(seen) = look(&frame) else {
                // Another backend's datagram: never taken for VXLAN.
                assert!(case["expect"].get("vni").is_none(), "{what}: no VXLAN frame");
                let mut world = World::new(&canal_dataplane::testing::world::spec(2), Caps::ALL);
                assert_eq!(world.dropped(Ingress::Underlay, frame), Some(DropReason::NotOurVtep), "{what}");
                continue;
            };
            if index == 0 {
                assert!(check_expected(&case["expect"], &seen, &what) > 0);
            }
            deliver(&frame, &seen, &what);
        }
    }
    println!("wire-vectors.json: {} cases", cases.len());
}

#[test]
fn recorded_captures_of_real_flannel_nodes_are_decapsulated() {
    let Some(directory) = recorded::find("flannel") else { return };
    let Ok(captures) = std::fs::read_dir(directory.join("pcap")) else {
        println!("no captures in {}", directory.display());
        return;
    };
    for capture in captures {
        let path = capture.expect("readable").path();
        let bytes = std::fs::read(&path).expect("readable");
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert!(matches!(word(0), 0xa1b2_c3d4 | 0xa1b2_3c4d), "{}: not a little-endian pcap", path.display());
        assert_eq!(word(20), 1, "{}: not Ethernet", path.display());
        let (mut at, mut taken) = (24, 0);
        while at < bytes.len() {
            let (captured, original) = (word(at + 8), word(at + 12));
            let frame = &bytes[at + 16..at + 16 + captured];
            at += 16 + captured;
            if captured == original
                && let Some(seen) = look(frame)
            {
                deliver(frame, &seen, &format!("{} at {at}", path.display()));
                taken += 1;
            }
        }
        assert!(taken > 0, "{}: no whole VXLAN frame", path.display());
        println!("{}: {taken} frames", path.file_name().unwrap_or_default().display());
    }
}
