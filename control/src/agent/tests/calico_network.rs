use canal_dataplane::spec::calico::CalicoWay;

use super::*;
use crate::status::CalicoNetworkStatus;

const P: &str = "/calico/resources/v3/projectcalico.org";

#[tokio::test(start_paused = true)]
async fn what_there_is_of_a_network_of_calicos_is_compiled_and_counted() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    assert_eq!(node.status().calico_network, CalicoNetworkStatus::default());

    let pool = |name: &str, cidr: &str, mode: &str| {
        let spec = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"cidr":"{cidr}",{mode}}}}}"#);
        (format!("{P}/ippools/{name}"), spec)
    };
    let pools = [
        pool("a", "10.9.0.0/16", r#""vxlanMode":"Always""#),
        pool("b", "10.8.0.0/16", r#""ipipMode":"CrossSubnet""#),
        pool("c", "10.7.0.0/16", r#""vxlanMode":"Never""#),
    ];
    for (key, value) in &pools {
        world.put(key, value).await;
    }
    let n2 = r#"{"metadata":{"name":"n2"},"spec":{"bgp":{"ipv4Address":"192.0.2.2/24","ipv4IPIPTunnelAddr":"10.8.2.0"},"ipv4VXLANTunnelAddr":"10.9.2.0"}}"#;
    world.put(&format!("{P}/nodes/n2"), n2).await;
    let block =
        r#"{"cidr":"10.9.2.0/26","affinity":"host:n2","allocations":[],"unallocated":[],"attributes":[]}"#;
    let block_key = "/calico/ipam/v2/assignment/ipv4/block/10.9.2.0-26";
    world.put(block_key, block).await;
    settle().await;
    let counts =
        CalicoNetworkStatus { vxlan_pools: 1, ipip_pools: 1, blocks: 1, vxlan_nodes: 1, ipip_nodes: 1 };
    assert_eq!(node.status().calico_network, counts);
    let tables = Arc::clone(node.tables.load());
    let route = tables.calico.route("10.9.2.7".parse().unwrap()).unwrap();
    assert_eq!(route.way, CalicoWay::Vxlan("192.0.2.2".parse().unwrap()));

    world.delete(block_key).await;
    settle().await;
    assert_eq!(node.status().calico_network, CalicoNetworkStatus { blocks: 0, ..counts });
    let tables = Arc::clone(node.tables.load());
    assert_eq!(tables.calico.route("10.9.2.7".parse().unwrap()).unwrap().way, CalicoWay::HostRoutes);
    node.stop().await;
}
