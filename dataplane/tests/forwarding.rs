//! Whole packets through the whole pipeline: overlay, local workloads, host.

use canal_dataplane::net::{Mac, Vni};
use canal_dataplane::offload::Caps;
use canal_dataplane::port::{Egress, Ingress};
use canal_dataplane::reply::GATEWAY_MAC;
use canal_dataplane::testing::packets::{self, Ip};
use canal_dataplane::testing::world::{self, World, ifindex, mac, our_outer, outer, pod, pod_mac};
use canal_dataplane::verdict::DropReason;

fn from_pod(packet: &Ip) -> Vec<u8> {
    packet.frame(GATEWAY_MAC, pod_mac(1))
}

fn from_node(n: u16, v6: bool, inner: &Ip) -> Vec<u8> {
    let own = if v6 { world::OUR_MAC6 } else { world::OUR_MAC };
    let frame = inner.frame(own, mac(n, v6));
    packets::encapsulated((outer(n, v6), our_outer(v6)), 8472, Vni::FLANNEL, inner.tos & 3, &frame)
}

const POD1: Ingress = Ingress::Workload(101);

#[test]
fn a_pod_reaches_a_remote_pod_through_the_tunnel_in_both_families() {
    for v6 in [false, true] {
        let mut world = World::new(&world::spec(3), Caps::NONE);
        let packet = packets::udp((pod(1, 1, v6), 1000), (pod(3, 7, v6), 2000), 20);
        let sent = world.one(POD1, from_pod(&packet)).expect("forwarded");
        assert_eq!(sent.egress, Egress::Underlay);
        let front = if v6 { 70 } else { 50 };
        let outer_headers = etherparse::SlicedPacket::from_ethernet(&sent.packet).expect("well-formed");
        match (&outer_headers.net, &outer_headers.transport) {
            (Some(net), Some(etherparse::TransportSlice::Udp(udp))) => {
                let (source, target, ttl) = match net {
                    etherparse::NetSlice::Ipv4(ip) => {
                        let h = ip.header();
                        assert!(!h.dont_fragment());
                        let mut header = h.to_header();
                        let stored = header.header_checksum;
                        header.header_checksum = header.calc_header_checksum();
                        assert_eq!(header.header_checksum, stored);
                        (h.source_addr().into(), h.destination_addr().into(), h.ttl())
                    }
                    etherparse::NetSlice::Ipv6(ip) => {
                        let h = ip.header();
                        (h.source_addr().into(), h.destination_addr().into(), h.hop_limit())
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!((source, target, ttl), (our_outer(v6), outer(3, v6), 64));
                assert_eq!(udp.destination_port(), 8472);
                assert!((49_152..).contains(&udp.source_port()));
                assert_eq!(udp.to_header().checksum == 0, !v6);
                if v6 {
                    let etherparse::NetSlice::Ipv6(ip) = net else { unreachable!() };
                    let computed =
                        udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).unwrap();
                    assert_eq!(udp.checksum(), computed);
                }
                assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0, 0, 1, 0]);
            }
            other => panic!("{other:?}"),
        }
        let mut expected = packet.clone();
        expected.ttl = 63;
        let own = if v6 { world::OUR_MAC6 } else { world::OUR_MAC };
        assert_eq!(sent.packet[front..], expected.frame(mac(3, v6), own));
    }
}

#[test]
fn a_remote_pod_reaches_a_pod_and_the_second_packet_is_a_flow_hit() {
    for v6 in [false, true] {
        let mut world = World::new(&world::spec(3), Caps::NONE);
        let packet = packets::tcp((pod(2, 9, v6), 80), (pod(1, 2, v6), 5000), 0x10, 100);
        for hits in 0..2 {
            let sent = world.one(Ingress::Underlay, from_node(2, v6, &packet)).expect("delivered");
            assert_eq!(sent.egress, Egress::Workload(ifindex(2)));
            let mut expected = packet.clone();
            expected.ttl = 63;
            assert_eq!(sent.packet, expected.frame(pod_mac(2), GATEWAY_MAC));
            assert_eq!(world.counters.flow_hits.get(), hits);
        }
    }
}

#[test]
fn pods_of_one_node_and_the_host_reach_each_other() {
    for v6 in [false, true] {
        let mut world = World::new(&world::spec(2), Caps::NONE);
        let local = packets::ping(pod(1, 1, v6), pod(1, 2, v6), 7);
        let sent = world.one(POD1, from_pod(&local)).expect("local");
        assert_eq!(sent.egress, Egress::Workload(ifindex(2)));
        assert_eq!(sent.packet[if v6 { 21 } else { 22 }], 63);

        // This host is the router: no hop between it and its pods.
        for address in [pod(1, 0, v6), our_outer(v6)] {
            let up = packets::ping(pod(1, 1, v6), address, 8);
            let sent = world.one(POD1, from_pod(&up)).expect("to the host");
            assert_eq!((sent.egress, &sent.packet[14..]), (Egress::Host, &up.bytes()[..]));
            let down = packets::ping(address, pod(1, 1, v6), 8);
            let sent = world.one(Ingress::Host, down.frame(Mac::ZERO, Mac::ZERO)).expect("from the host");
            assert_eq!(sent.egress, Egress::Workload(ifindex(1)));
            assert_eq!(sent.packet, down.frame(pod_mac(1), GATEWAY_MAC));
        }
        let out = packets::ping(pod(1, 0, v6), pod(2, 5, v6), 9);
        assert_eq!(
            world.one(Ingress::Host, out.frame(Mac::ZERO, Mac::ZERO)).expect("out").egress,
            Egress::Underlay
        );
        let back = packets::ping(pod(2, 0, v6), pod(1, 0, v6), 9);
        assert_eq!(world.one(Ingress::Underlay, from_node(2, v6, &back)).expect("in").egress, Egress::Host);
    }
}

#[test]
fn an_endpoint_that_goes_takes_its_flows_decision_with_it() {
    let mut spec = world::spec(2);
    let mut world = World::new(&spec, Caps::NONE);
    let packet = packets::ping(pod(1, 1, false), pod(1, 2, false), 7);
    assert!(world.one(POD1, from_pod(&packet)).is_some());
    spec.endpoints.pop();
    world.update(&spec);
    assert_eq!(world.dropped(POD1, from_pod(&packet)), Some(DropReason::UnassignedAddress));
}

#[test]
fn nothing_passes_before_the_first_picture_is_complete() {
    let mut world = World::new(&world::spec(2), Caps::NONE);
    world.tables = canal_dataplane::tables::Tables::closed();
    let packet = packets::ping(pod(1, 1, false), pod(1, 2, false), 7);
    assert_eq!(world.dropped(POD1, from_pod(&packet)), Some(DropReason::NotReady));
}

#[test]
fn a_decapsulated_packet_that_another_worker_owns_arrives_there_and_is_delivered() {
    use canal_dataplane::counters::Counters;
    use canal_dataplane::offload::Offload;
    use canal_dataplane::port::mem::MemPort;
    use canal_dataplane::tables;
    use canal_dataplane::worker::{Ports, Worker, WorkerConfig};
    use std::sync::Arc;

    let tables = tables::compile(&world::spec(2), None, 1);
    let mut workers: Vec<Worker> = (0..2)
        .map(|index| {
            let config =
                WorkerConfig { index, workers: 2, flow_capacity: 64, frames: 64, ..world::config(0) };
            Worker::new(config, Arc::new(Counters::default()))
        })
        .collect();
    let (mut delivered, mut handed_over) = (0, 0);
    for port in 0..32 {
        let packet = packets::udp((pod(2, 9, false), port), (pod(1, 1, false), 53), 10);
        let mut wire = MemPort::new(Caps::ALL);
        wire.inject(Ingress::Underlay, Offload::NONE, from_node(2, false, &packet));
        let mut handover = Vec::new();
        let mut ports = Ports { access: &mut wire, underlay: None };
        workers[0].poll(&tables, 0, &mut ports, &mut handover);
        handed_over += handover.len();
        for (worker, received) in handover.drain(..) {
            assert_eq!(worker, 1);
            workers[1].accept(received);
        }
        workers[1].poll(&tables, 0, &mut ports, &mut handover);
        assert!(handover.is_empty(), "never handed over twice");
        delivered += wire.take_sent().iter().filter(|sent| sent.egress == Egress::Workload(101)).count();
    }
    assert_eq!(delivered, 32);
    assert!((4..28).contains(&handed_over), "{handed_over}");
}
