//! The way out of gateway interfaces.

use canal_dataplane::offload::Caps;
use canal_dataplane::port::mem::MemPort;
use canal_dataplane::port::{Egress, Port};
use canal_dataplane::spec::{Route, Via};
use canal_dataplane::testing::packets;
use canal_dataplane::testing::world::{
    self, World, behind, from_pod, gateway, gateway_ifindex, hop, link, pod,
};

use crate::POD1;

#[test]
fn what_goes_out_of_a_gateway_leaves_by_the_port_that_carries_gateways() {
    for v6 in [false, true] {
        let mut spec = world::spec(2);
        spec.gateways.push(gateway(1, 1500));
        spec.routes.push(Route { prefix: link(1, v6), via: Via::Gateway([hop(1, None)].into()) });
        spec.routes.sort();
        let host = behind(1, 2, v6);
        let packet = from_pod(1, &packets::ping(pod(1, 1, v6), host, 1));
        let plain = MemPort::new(Caps::ALL);
        for (underlay, expected) in [
            (None, (1, None)),
            (Some(MemPort::new(Caps::ALL)), (1, Some(0))),
            (Some(plain.carrying_gateways()), (0, Some(1))),
        ] {
            let mut world = World::new(&spec, Caps::ALL);
            world.underlay = underlay;
            let sent = world.one(POD1, packet.clone()).unwrap();
            assert_eq!(sent.egress, Egress::Gateway { ifindex: gateway_ifindex(1), next_hop: host });
            let by_underlay = world.underlay.as_ref().map(|port| port.stats().tx_frames);
            assert_eq!((world.port.stats().tx_frames, by_underlay), expected);
        }
    }
}
