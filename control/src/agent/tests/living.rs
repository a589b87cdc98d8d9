use super::*;
use crate::datastore::Unusable;

#[tokio::test(start_paused = true)]
async fn peers_come_change_and_go() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let key = lease_key("10.244.77.0-24");

    world.put(&key, &vxlan_lease("192.0.2.77", 1)).await;
    settle().await;
    assert!(node.reaches("10.244.77.0/24", "192.0.2.77"));
    assert_eq!(node.tables.load().vteps.len(), 1);
    let generation = node.tables.load().generation;

    // A renewal writes the same: no new generation.
    world.put(&key, &vxlan_lease("192.0.2.77", 1)).await;
    settle().await;
    assert_eq!(node.tables.load().generation, generation);
    let in_force = node.status().in_force.unwrap();
    assert_eq!((in_force.revision, in_force.generation), (world.store.revision(), generation));

    world.put(&key, &vxlan_lease("192.0.2.77", 2)).await;
    settle().await;
    assert_eq!(node.spec().vteps[0].mac.0[5], 2, "another MAC");

    world.put(&key, &vxlan_lease("192.0.2.78", 2)).await;
    settle().await;
    assert!(node.reaches("10.244.77.0/24", "192.0.2.78"));
    assert_eq!(
        (node.via("192.0.2.77/32"), node.spec().vteps.len()),
        (None, 1),
        "nothing of the old address is left"
    );

    world.put(&key, "rubbish").await;
    settle().await;
    assert!(matches!(node.via("10.244.77.0/24"), Some(Via::Drop(_))));
    assert_eq!(node.status().complaints[0].key, key);

    world.delete(&key).await;
    settle().await;
    assert_eq!((node.via("10.244.77.0/24"), node.spec().vteps.len()), (None, 0));
    assert_eq!(node.status().complaints, []);
    assert_eq!(node.codes(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn many_changes_are_one_publication() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let before = node.tables.load().generation;
    for subnet in 100..200 {
        world
            .put(
                &lease_key(&format!("10.244.{subnet}.0-24")),
                &vxlan_lease(&format!("192.0.2.{subnet}"), subnet),
            )
            .await;
    }
    settle().await;
    assert_eq!(node.spec().vteps.len(), 100);
    let generations = node.tables.load().generation - before;
    assert!(generations <= 5, "{generations}");
}

#[tokio::test(start_paused = true)]
async fn workloads_attach_and_detach() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    world.put(&workload_key("a"), &workload("cali0", "172.16.0.5")).await;
    settle().await;
    assert_eq!(node.spec().endpoints[0].ifindex, None, "the interface is not there yet");
    let routes = |world: &World| world.host.kernel.state().routes_of(9).count();
    assert_eq!(routes(&world), 2, "outside of the network it needs a route of its own");

    world.host.add_veth(20, "cali0");
    settle().await;
    assert_eq!(node.tables.load().endpoint_at(20), Some(0));
    assert_eq!(world.edge.lock().unwrap().plans.last().unwrap().workloads, [20].into());

    // The interface goes and comes back under another index.
    world.host.change(|view| view.links.retain(|link| link.name != "cali0"));
    settle().await;
    assert_eq!(world.edge.lock().unwrap().plans.last().unwrap().workloads, [].into());
    world.host.add_veth(21, "cali0");
    settle().await;
    assert_eq!(node.tables.load().endpoint_at(21), Some(0));

    world.delete(&workload_key("a")).await;
    settle().await;
    assert_eq!(*node.spec().endpoints, []);
    assert_eq!(routes(&world), 1);
    let notes = world.edge.lock().unwrap();
    assert_eq!(notes.plans.last().unwrap().workloads, [].into());
    assert!(notes.seen.iter().all(|(_, known)| *known), "no interface was steered before the tables knew it");
}

#[tokio::test(start_paused = true)]
async fn a_changed_config_wants_a_restart_and_changes_nothing() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let spec = node.spec();
    world.put(CONFIG, r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan","VNI":7}}"#).await;
    node.until("told", |s| !s.degraded.is_empty()).await;
    assert_eq!(node.codes(), ["restart_required"]);
    assert!(node.status().degraded[0].to_string().contains("Network, Backend"));
    world.put(CONFIG, "not even JSON").await;
    node.until("told", |s| s.degraded.iter().any(|r| r.code() == "config_invalid")).await;
    assert!(node.status().ready);
    assert_eq!(node.spec(), spec);
    world.put(CONFIG, VXLAN).await;
    node.until("well", |s| s.degraded.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn the_underlay_may_change_its_address_and_mtu() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let lease = world.own_lease().await.unwrap();
    world.host.change(|view| {
        view.addresses.retain(|a| a.ifindex != 2);
        view.addresses.push(address(2, "192.0.2.9/24"));
        view.links.iter_mut().find(|l| l.name == "eth0").unwrap().mtu = 9000;
    });
    settle().await;
    let moved = world.get(&lease.key).await.unwrap();
    let value = String::from_utf8(moved.value).unwrap();
    assert_eq!(value, String::from_utf8(lease.value).unwrap().replace("192.0.2.1", "192.0.2.9"));
    assert_eq!(node.spec().vxlan.unwrap().v4.unwrap().address.octets(), [192, 0, 2, 9]);
    assert!(world.subnet_env().contains("FLANNEL_MTU=8950"));
    assert_eq!(world.host.kernel.state().link_by_name("canal0").unwrap().mtu, 8950);
    assert_eq!(node.codes(), Vec::<&str>::new());

    // Gone for a while: what is known stays.
    let spec = node.spec();
    world.host.change(|view| view.addresses.retain(|a| a.ifindex != 2));
    node.until("told", |s| s.degraded.iter().any(|r| r.code() == "underlay")).await;
    assert_eq!(node.spec().vxlan, spec.vxlan);
    world.host.change(|view| view.addresses.push(address(2, "192.0.2.9/24")));
    node.until("well", |s| s.degraded.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn steering_that_fails_is_tried_again() {
    let world = World::with_config(VXLAN).await;
    world.edge.lock().unwrap().refuse = true;
    let mut node = world.start();
    node.until("told", |s| s.degraded.iter().any(|r| r.code() == "steering")).await;
    assert!(!node.status().ready);
    world.pass(Duration::from_secs(60)).await;
    let tries = world.edge.lock().unwrap().plans.len();
    assert!((10..=40).contains(&tries), "{tries}");
    {
        let mut notes = world.edge.lock().unwrap();
        (notes.refuse, notes.fail_underlay) = (false, true);
    }
    node.until("told", |s| s.degraded.iter().any(|r| r.to_string() == "steering: eth0: busy")).await;
    assert!(!node.status().ready);
    world.edge.lock().unwrap().fail_underlay = false;
    node.until_ready().await;
    assert_eq!(node.codes(), Vec::<&str>::new());
    let tries = world.edge.lock().unwrap().plans.len();
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.edge.lock().unwrap().plans.len(), tries, "then it is left alone");
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_may_do_better_later_is_given_the_same_plan_again() {
    let world = World::with_config(VXLAN).await;
    world.edge.lock().unwrap().again = Some(Duration::from_secs(60));
    let mut node = world.start();
    node.until_ready().await;
    let plans = || world.edge.lock().unwrap().plans.len();
    let tries = plans();
    world.pass(Duration::from_secs(600)).await;
    assert!((tries + 8..=tries + 10).contains(&plans()), "{} after {tries}", plans());
    assert_eq!(node.codes(), Vec::<&str>::new(), "nothing is wrong");
    world.edge.lock().unwrap().again = None;
    world.pass(Duration::from_secs(60)).await;
    let tries = plans();
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(plans(), tries, "it has found it");
}

#[tokio::test(start_paused = true)]
async fn our_device_is_put_right_again() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    world.host.change(|view| view.routes.retain(|route| route.ifindex != 9));
    settle().await;
    assert_eq!(world.host.kernel.state().routes_of(9).count(), 1);
    world.host.change(|view| view.links.retain(|link| link.name != "canal0"));
    node.until("told", |s| s.degraded.iter().any(|r| r.code() == "device")).await;
    assert!(node.status().ready, "the overlay itself works");
}

/// A datastore whose user may not list what begins so.
#[derive(Debug)]
pub(super) struct Denying {
    pub(super) store: Memory,
    pub(super) prefix: &'static str,
}

#[async_trait]
impl Datastore for Denying {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn list(&self, prefix: &str) -> Result<crate::datastore::Snapshot, crate::datastore::Error> {
        if prefix.starts_with(self.prefix) {
            return Err(crate::datastore::Error::Denied("permission denied".into()));
        }
        self.store.list(prefix).await
    }

    async fn watch(
        &self,
        prefix: &str,
        from: crate::datastore::Revision,
    ) -> Result<
        futures::stream::BoxStream<'static, Result<crate::datastore::WatchEvent, crate::datastore::Error>>,
        crate::datastore::Error,
    > {
        self.store.watch(prefix, from).await
    }

    async fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
        lease: Option<crate::datastore::LeaseId>,
    ) -> Result<Written, crate::datastore::Error> {
        self.store.put(key, value, expect, lease).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, crate::datastore::Error> {
        self.store.delete(key, expect).await
    }

    async fn grant(
        &self,
        ttl: Duration,
    ) -> Result<Option<crate::datastore::LeaseId>, crate::datastore::Error> {
        self.store.grant(ttl).await
    }

    async fn revoke(&self, lease: crate::datastore::LeaseId) -> Result<(), crate::datastore::Error> {
        self.store.revoke(lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn without_permission_to_read_workloads_the_node_forwards_all_the_same() {
    let world = World::with_config(VXLAN).await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    let mut node = world.start_on(Arc::new(Denying { store: world.store.clone(), prefix: "/calico" }));
    node.until_ready().await;
    assert_eq!(node.codes(), ["no_workloads"]);
    assert!(node.status().degraded[0].to_string().contains("permission denied"));
    assert!(node.reaches("10.244.77.0/24", "192.0.2.77"));
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_in_force_once_every_stream_is_known_to_have_read_it() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    settle().await;
    let revision = world.store.revision();
    let in_force = node.status().in_force.unwrap();
    assert_eq!(in_force.revision, revision);
    assert!(in_force.complete < revision, "workloads may have changed, too, for all that is known");

    node.observer.ask(revision);
    settle().await;
    let told = node.status().in_force.unwrap();
    assert_eq!((told.revision, told.complete), (revision, revision));
    assert_eq!(
        (told.generation, told.since),
        (in_force.generation, in_force.since),
        "nothing else has changed"
    );

    // A revision of no concern to us, and one that changes nothing.
    world.put("/elsewhere", "x").await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    node.observer.ask(revision + 2);
    settle().await;
    let later = node.status().in_force.unwrap();
    assert_eq!((later.complete, later.generation), (revision + 2, in_force.generation));
    assert_eq!(node.status().heard.revision, revision + 2);

    node.observer.ask(revision + 100);
    settle().await;
    assert_eq!(node.status().in_force.unwrap().complete, revision + 2, "nobody has written that yet");
}

#[tokio::test(start_paused = true)]
async fn what_the_datastore_cannot_read_degrades_the_node_until_it_is_mended() {
    let world = World::new();
    let broken = |name: &str| Unusable { place: format!("/etc/canal/{name}"), why: "not valid JSON".into() };
    world.store.set_unusable(vec![broken("net-conf.json")]);
    let mut node = world.start();
    node.until("told", |status| status.degraded.len() == 2).await;
    assert_eq!(node.codes(), ["waiting_for_config", "documents"]);
    assert_eq!(node.status().complaints[0].key, "/etc/canal/net-conf.json");

    world.store.set_unusable(Vec::new());
    world.put(CONFIG, VXLAN).await;
    node.until_ready().await;
    assert_eq!(node.codes(), Vec::<&str>::new());

    world.store.set_unusable(vec![broken("subnets/a.json"), broken("subnets/b.json")]);
    node.until("told", |status| !status.degraded.is_empty()).await;
    assert_eq!(node.codes(), ["documents"]);
    assert_eq!(
        node.status().degraded[0].to_string(),
        "2 documents cannot be used as they are, the first: /etc/canal/subnets/a.json: not valid JSON"
    );
    assert_eq!((node.status().complaints.len(), node.status().complaints_total), (2, 2));
    assert!(node.status().ready, "degraded is no hindrance");

    world.store.set_unusable(Vec::new());
    node.until("well", |status| status.degraded.is_empty()).await;
    assert_eq!(node.status().complaints, []);
}

#[tokio::test(start_paused = true)]
async fn the_revision_is_the_greatest_that_any_stream_has_reached() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    for turn in 0..3 {
        world.put(&workload_key("a"), &workload("cali0", &format!("10.244.9.{turn}"))).await;
        settle().await;
        assert_eq!(node.status().heard.revision, world.store.revision(), "of a workload");
        assert_eq!(node.tables.load().revision, world.store.revision() as u64);
        world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", turn)).await;
        settle().await;
        assert_eq!(node.status().heard.revision, world.store.revision(), "of a lease");
    }
    // A history that was lost counts for nothing, though one stream hears of it before the other.
    let before = world.store.revision();
    world.store.wipe();
    world.put(CONFIG, VXLAN).await;
    world.pass(Duration::from_secs(120)).await;
    assert!(world.store.revision() < before);
    assert_eq!(node.status().heard.revision, world.store.revision());
}
