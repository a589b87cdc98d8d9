use super::*;

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_in_time_for_days() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let first = world.own_lease().await.unwrap();
    world.pass(DAY * 3).await;
    let now = world.own_lease().await.expect("still there");
    assert_eq!((&now.key, &now.value), (&first.key, &first.value));
    assert_ne!(now.lease, first.lease);
    assert!((3..10).contains(&(now.mod_revision - first.mod_revision)), "{now:?}");
    assert_eq!((node.codes(), node.status().ready), (vec![], true));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_taken_again_at_once() {
    let world = World::with_config(VXLAN).await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    let mut node = world.start();
    node.until_ready().await;
    let lease = world.own_lease().await.unwrap();
    let generation = node.tables.load().generation;
    world.delete(&lease.key).await;
    settle().await;
    let again = world.own_lease().await.unwrap();
    assert_eq!((again.key, again.value), (lease.key, lease.value));
    assert_eq!(node.tables.load().generation, generation, "nothing was touched meanwhile");
    assert_eq!((node.codes(), node.status().ready), (vec![], true));
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_by_another_is_left_alone_and_said() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let own = world.own_lease().await.unwrap();
    let spec = node.spec();
    world.put(&own.key, &vxlan_lease("192.0.2.66", 6)).await;
    node.until("taken", |s| !s.ready).await;
    assert_eq!(node.codes(), ["lease_taken"]);
    assert!(node.status().degraded[0].to_string().contains("192.0.2.66"));
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.get(&own.key).await.unwrap().value, vxlan_lease("192.0.2.66", 6).into_bytes());
    assert_eq!(node.spec().routes, spec.routes, "running pods go on");

    // The other one leaves.
    world.delete(&own.key).await;
    node.until("well", |s| s.ready && s.degraded.is_empty()).await;
    assert_eq!(world.get(&own.key).await.unwrap().value, own.value);
    assert_eq!(node.codes(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn two_machines_with_one_address_do_not_storm_the_datastore() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let own = world.own_lease().await.unwrap();
    let other = vxlan_lease("192.0.2.1", 0x66);
    // The other machine writes its value back whenever ours is there.
    let mut written = 0;
    for _ in 0..3000 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if world.get(&own.key).await.unwrap().value == own.value {
            world.put(&own.key, &other).await;
            written += 1;
        }
    }
    assert!((3..30).contains(&written), "{written} times in ten minutes");
    assert_eq!(node.codes(), ["lease_contended"]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_said_and_tried_until_it_works() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    world.pass(Duration::from_secs(22 * 3600)).await;
    world.store.set_fault(Some(crate::datastore::memory::Fault::Unavailable));
    world.pass(Duration::from_secs(90 * 60)).await;
    let codes = node.codes();
    assert!(codes.contains(&"lease_not_renewed") && codes.contains(&"datastore_away"), "{codes:?}");
    assert!(node.status().ready);
    world.store.set_fault(None);
    node.until("well", |s| s.degraded.is_empty()).await;
    world.pass(Duration::from_secs(3600)).await;
    assert!(world.own_lease().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_reservation_stays_one() {
    let world = World::with_config(VXLAN).await;
    world.put(&lease_key("10.244.5.0-24"), &vxlan_lease("192.0.2.1", 5)).await;
    let mut node = world.start();
    node.until_ready().await;
    let lease = node.status().lease.unwrap();
    assert_eq!((lease.subnet.to_string().as_str(), lease.expires_at), ("10.244.5.0/24", None));
    world.pass(DAY * 2).await;
    assert_eq!(world.own_lease().await.unwrap().lease, None);
    assert_eq!(node.codes(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn a_slow_datastore_keeps_nothing_else_waiting() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let own = world.own_lease().await.unwrap();
    world.put(&workload_key("a"), &workload("cali0", "10.244.99.5")).await;
    settle().await;
    world.delete(&own.key).await;
    world.store.set_latency(Duration::from_secs(1800));
    settle().await;
    assert_eq!(node.codes(), ["lease_lost"]);
    world.host.add_veth(20, "cali0");
    settle().await;
    assert_eq!(node.tables.load().endpoint_at(20), Some(0));
}
