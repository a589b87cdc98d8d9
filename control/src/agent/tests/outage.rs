use super::*;
use crate::agent::feeds::Feeds;
use crate::datastore::memory::Fault;

#[tokio::test(start_paused = true)]
async fn an_outage_stops_nothing_and_is_caught_up_with() {
    let world = World::with_config(VXLAN).await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    let mut node = world.start();
    node.until_ready().await;
    let spec = node.spec();
    world.store.set_fault(Some(Fault::Unavailable));
    node.until("told", |s| !s.connected).await;
    assert_eq!(node.codes(), ["datastore_away"]);
    assert!(node.status().ready);
    world.pass(Duration::from_secs(1800)).await;
    assert_eq!(node.spec(), spec);
    // A workload's interface comes meanwhile.
    world.host.add_veth(20, "cali0");
    settle().await;
    world.store.set_fault(None);
    world.put(&lease_key("10.244.78.0-24"), &vxlan_lease("192.0.2.78", 2)).await;
    world.delete(&lease_key("10.244.77.0-24")).await;
    node.until("well", |s| s.degraded.is_empty() && s.connected).await;
    world.pass(Duration::from_secs(60)).await;
    assert!(node.reaches("10.244.78.0/24", "192.0.2.78"));
    assert_eq!(node.via("10.244.77.0/24"), None);
}

#[tokio::test(start_paused = true)]
async fn compaction_and_cut_streams_lose_nothing() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    world.store.set_fault(Some(Fault::Unavailable));
    settle().await;
    world.store.set_fault(None);
    world.put(&lease_key("10.244.78.0-24"), &vxlan_lease("192.0.2.78", 2)).await;
    world.store.compact(world.store.revision());
    world.store.cut_streams();
    world.pass(Duration::from_secs(120)).await;
    assert!(node.reaches("10.244.78.0/24", "192.0.2.78"));
    assert_eq!(node.codes(), Vec::<&str>::new());
}

const NETWORK: &str = "/coreos.com/network/";

/// Both ways in which everything can vanish.
async fn vanish(world: &World, wiped: bool) {
    if wiped {
        world.store.wipe();
    } else {
        // `etcdctl del --prefix` of the network; what an operator deletes among the workloads is meant.
        for entry in world.store.list(NETWORK).await.unwrap().entries {
            world.delete(&entry.key).await;
        }
    }
}

async fn a_wiped_store(wiped: bool) {
    let world = World::with_config(VXLAN).await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    world.put(&lease_key("10.244.78.0-24"), &vxlan_lease("192.0.2.78", 2)).await;
    world.put(&workload_key("a"), &workload("cali0", "10.244.1.5")).await;
    world.host.add_veth(20, "cali0");
    let mut node = world.start();
    node.until_ready().await;
    let own = world.own_lease().await.unwrap();
    let spec = node.spec();

    vanish(&world, wiped).await;
    node.until("told", |s| s.degraded.iter().any(|r| r.code() == "datastore_wiped")).await;
    world.pass(Duration::from_secs(1200)).await;
    assert_eq!(node.spec(), spec, "forwarding as before");
    assert_eq!(node.status().in_force.unwrap().complete, 0, "which is not what the datastore says");
    assert_eq!(
        world.store.list(NETWORK).await.unwrap().entries,
        [],
        "nothing is written into a network that is none"
    );
    assert!(node.status().ready);

    // The operator writes the config again; we are back at once, one peer soon, the other never.
    world.put(CONFIG, VXLAN).await;
    settle().await;
    let again = world.own_lease().await.expect("made again");
    assert_eq!((again.key, again.value), (own.key, own.value));
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 9)).await;
    world.put(&workload_key("a"), &workload("cali0", "10.244.1.5")).await;
    settle().await;
    assert_eq!(node.spec().vteps[0].mac.0[5], 9, "what is there goes before what was");
    assert!(node.reaches("10.244.78.0/24", "192.0.2.78"), "time to come back");
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(node.via("10.244.78.0/24"), None);
    assert!(node.reaches("10.244.77.0/24", "192.0.2.77"));
    assert_eq!(node.spec().endpoints.len(), 1);
    assert_eq!((node.codes(), node.status().ready), (vec![], true));
}

#[tokio::test(start_paused = true)]
async fn a_wiped_datastore_costs_nothing_that_runs() {
    a_wiped_store(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_prefix_costs_nothing_that_runs() {
    a_wiped_store(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_datastore_goes_on_by_what_was_saved() {
    let world = World::with_config(VXLAN).await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    world.put(&workload_key("a"), &workload("cali0", "10.244.1.5")).await;
    world.host.add_veth(20, "cali0");
    let mut node = world.start();
    node.until_ready().await;
    world.put(&lease_key("10.244.78.0-24"), &vxlan_lease("192.0.2.78", 2)).await;
    settle().await;
    let spec = node.spec();
    node.stop().await;

    world.store.set_fault(Some(Fault::Unavailable));
    let mut node = world.start();
    node.until_ready().await;
    assert_eq!(*node.spec(), *spec);
    assert!(node.tables.load().ready);
    let codes = node.codes();
    assert!(codes.contains(&"saved_state") && codes.contains(&"datastore_away"), "{codes:?}");
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(*node.spec(), *spec);

    // Back again, without one of the peers.
    world.store.set_fault(None);
    world.delete(&lease_key("10.244.77.0-24")).await;
    let before = world.own_lease().await.unwrap();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(node.spec().endpoints.len(), 1, "no workload is lost on the way");
    }
    assert_eq!(node.codes(), Vec::<&str>::new());
    assert_eq!(node.via("10.244.77.0/24"), None);
    assert!(node.reaches("10.244.78.0/24", "192.0.2.78"));
    let renewed = world.own_lease().await.unwrap();
    assert_eq!((&renewed.key, &renewed.value), (&before.key, &before.value));
    assert!(renewed.mod_revision > before.mod_revision, "made sure of at once");
}

#[tokio::test(start_paused = true)]
async fn a_remembered_lease_that_was_given_away_is_not_taken_back() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let own = world.own_lease().await.unwrap();
    node.stop().await;
    world.put(&own.key, &vxlan_lease("192.0.2.66", 6)).await;
    world.store.set_fault(Some(Fault::Unavailable));
    let mut node = world.start();
    node.until_ready().await;
    world.store.set_fault(None);
    node.until("told", |s| s.degraded.iter().any(|r| r.code() == "lease_taken")).await;
    assert!(!node.status().ready);
    assert_eq!(world.get(&own.key).await.unwrap().value, vxlan_lease("192.0.2.66", 6).into_bytes());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_gone_on_with_that_is_of_no_use() {
    // Never saved.
    let world = World::with_config(VXLAN).await;
    world.store.set_fault(Some(Fault::Unavailable));
    let mut node = world.start();
    node.until("waiting", |s| !s.degraded.is_empty()).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(node.codes(), ["waiting_for_datastore"]);
    drop(node);

    // Damaged.
    world.store.set_fault(None);
    let mut node = world.start();
    node.until_ready().await;
    node.stop().await;
    std::fs::write(world.path("state"), "rubbish").unwrap();
    world.store.set_fault(Some(Fault::Unavailable));
    let mut node = world.start();
    node.until("waiting", |s| !s.degraded.is_empty()).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(node.codes(), ["waiting_for_datastore"]);
    assert!(!node.tables.load().ready);
}

#[tokio::test(start_paused = true)]
async fn of_two_leases_with_one_address_the_older_is_not_saved() {
    let world = World::with_config(VXLAN).await;
    world.put(&lease_key("10.244.9.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    world.put(&lease_key("10.244.8.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    let mut node = world.start();
    node.until_ready().await;
    assert!(node.reaches("10.244.8.0/24", "192.0.2.77"));
    node.stop().await;
    world.store.set_fault(Some(Fault::Unavailable));
    let mut node = world.start();
    node.until_ready().await;
    assert!(node.reaches("10.244.8.0/24", "192.0.2.77"));
    assert_eq!(node.via("10.244.9.0/24"), None);
}

#[tokio::test(start_paused = true)]
async fn a_datastore_that_is_filled_again_costs_what_is_filled_in() {
    const PODS: usize = 300;
    let world = World::with_config(VXLAN).await;
    let key = |n: usize| policy::remote_key(&format!("pod{n}"));
    let pod = |n: usize| policy::remote_pod(&format!("10.244.{}.{}", n / 200, n % 200 + 1));
    for n in 0..PODS {
        world.put(&key(n), &pod(n)).await;
    }
    let store: Arc<dyn Datastore> = Arc::new(world.store.clone());
    let mut feeds = Feeds::start(&store, &Prefix::default(), "n1", 1);
    while !(feeds.network_in_sync && feeds.workloads_in_sync) {
        let batch = feeds.next().await;
        feeds.take(batch);
    }
    assert!(feeds.take_altered().everything);
    assert_eq!(feeds.effective().calico().workloads().len(), PODS);

    world.store.wipe();
    let mut looked_at = 0;
    let mut take = async |feeds: &mut Feeds| {
        let batch = feeds.next().await;
        feeds.take(batch);
        let altered = feeds.take_altered();
        assert!(!altered.everything, "nobody has to look at all there is");
        looked_at += altered.keys.len();
        assert_eq!(feeds.effective().calico().workloads().len(), PODS, "nobody is lost on the way");
    };
    while feeds.hold.is_none() || !feeds.live.calico().workloads().is_empty() {
        take(&mut feeds).await;
    }
    for n in 0..PODS {
        world.put(&key(n), &pod(n)).await;
        while feeds.live.calico().workloads().len() <= n {
            take(&mut feeds).await;
        }
    }
    assert_eq!(looked_at, 2 * PODS, "each once when it went and once when it came");

    feeds.release();
    assert!(feeds.take_altered().everything, "what was not filled in again goes now");
}
