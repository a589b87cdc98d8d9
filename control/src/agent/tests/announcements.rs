use super::*;
use crate::host::HostRoute;
use crate::host::view::Scope;

const BEHIND: &str = "172.16.1.0-24";

fn route(dst: &str) -> HostRoute {
    let dst = dst.parse().unwrap();
    let weight = std::num::NonZeroU16::MIN;
    HostRoute {
        dst,
        metric: 0,
        ifindex: 3,
        gateway: None,
        weight,
        src: None,
        scope: Scope::Link,
        protocol: 2,
    }
}

/// A node with 172.16.1.0/24 behind `eth1`.
async fn world() -> World {
    let world = World { gateways: vec!["eth1".into()], ..World::with_config(VXLAN).await };
    world.host.change(|view| {
        view.links.push(link(3, "eth1"));
        view.addresses.push(address(3, "172.16.1.1/24"));
        view.routes.push(route("172.16.1.0/24"));
    });
    world
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_gateway_is_announced_for_days_and_taken_back_at_the_end() {
    let world = world().await;
    let mut node = world.start();
    node.until_ready().await;
    settle().await;
    let announced = world.get(&lease_key(BEHIND)).await.expect("announced");
    let own = world.own_lease().await.unwrap();
    assert_eq!(announced.value, own.value, "it says of the node what its own lease says");
    assert!(own.key.contains("10.244"), "{}", own.key);
    world.pass(DAY * 2).await;
    let later = world.get(&lease_key(BEHIND)).await.expect("renewed");
    assert_ne!(later.lease, announced.lease);
    assert_eq!((node.codes(), node.status().announcements.len()), (vec![], 1));
    // Somebody deletes it: it is made again. The network goes: so does its announcement.
    world.delete(&lease_key(BEHIND)).await;
    settle().await;
    assert!(world.get(&lease_key(BEHIND)).await.is_some());
    world.host.change(|view| view.routes.clear());
    settle().await;
    assert_eq!(world.get(&lease_key(BEHIND)).await, None);
    world.host.change(|view| view.routes.push(route("172.16.1.0/24")));
    settle().await;
    assert!(world.get(&lease_key(BEHIND)).await.is_some());
    node.stop().await;
    assert_eq!(world.get(&lease_key(BEHIND)).await, None);
    assert!(world.own_lease().await.is_some(), "a stop leaves the node's own lease");
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_another_node_is_left_alone_and_said() {
    let world = world().await;
    world.put(&lease_key(BEHIND), &vxlan_lease("192.0.2.66", 6)).await;
    let mut node = world.start();
    node.until("said", |status| status.degraded.iter().any(|reason| reason.code() == "gateway")).await;
    assert!(node.status().ready);
    let sentence = node.status().degraded[0].to_string();
    assert_eq!(sentence, "172.16.1.0/24 is not announced: the node 192.0.2.66 has a lease of it");
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.get(&lease_key(BEHIND)).await.unwrap().value, vxlan_lease("192.0.2.66", 6).into_bytes());
    // The other one leaves.
    world.delete(&lease_key(BEHIND)).await;
    node.until("well", |status| status.degraded.is_empty()).await;
    assert!(world.get(&lease_key(BEHIND)).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_announced_and_this_one_does_not_is_deleted() {
    let world = world().await;
    let mut node = world.start();
    node.until_ready().await;
    settle().await;
    let own = world.own_lease().await.unwrap();
    node.stop().await;
    // As after kill -9: one of a network that is there no more, and a reservation, which is somebody's will.
    let object = world.store.grant(DAY).await.unwrap();
    for (subnets, object) in [("172.30.0.0-16", object), ("172.31.0.0-16", None)] {
        world.store.put(&lease_key(subnets), &own.value, Expect::Absent, object).await.unwrap();
    }
    let mut node = world.start();
    node.until_ready().await;
    settle().await;
    assert_eq!(world.own_lease().await.unwrap().key, own.key);
    assert_eq!(world.get(&lease_key("172.30.0.0-16")).await, None);
    assert!(world.get(&lease_key("172.31.0.0-16")).await.is_some());
    assert!(world.get(&lease_key(BEHIND)).await.is_some());
}
