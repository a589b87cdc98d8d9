use super::*;

#[tokio::test(start_paused = true)]
async fn a_node_joins_and_everything_is_in_place() {
    let world = World::with_config(VXLAN).await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 0x77)).await;
    let mut node = world.start();
    node.until_ready().await;

    let lease = world.own_lease().await.expect("a lease");
    let subnet = lease.key.rsplit('/').next().unwrap().replace('-', "/");
    let base = subnet.split('/').next().unwrap().to_owned();
    let status = node.status();
    assert_eq!(status.degraded, []);
    assert_eq!(status.lease.as_ref().unwrap().subnet.to_string(), subnet);
    assert!(status.lease.as_ref().unwrap().expires_in_s().unwrap() > 86_000);
    assert_eq!(status.published_generation, 1);
    let overlay = status.overlay.unwrap();
    assert_eq!((overlay.backend, overlay.port, overlay.mtu), ("vxlan", Some(8472), 1450));

    assert!(node.reaches("10.244.77.0/24", "192.0.2.77"));
    assert_eq!(node.tables.load().generation, 1);
    assert!(node.tables.load().ready);

    let env = world.subnet_env();
    let first = base.replace(".0", ".1");
    let first = format!("{}.1/24", first.rsplit_once('.').unwrap().0);
    let expected = format!(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET={first}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    );
    assert_eq!(env, expected);

    let device = world.host.kernel.state().clone();
    assert_eq!(device.link_by_name("canal0").unwrap().mtu, 1450);
    assert_eq!(device.addresses_of(9).map(|a| a.net.to_string()).collect::<Vec<_>>(), [format!("{base}/32")]);
    assert_eq!(device.routes_of(9).map(|r| r.dst.to_string()).collect::<Vec<_>>(), ["10.244.0.0/16"]);

    let plan = world.edge.lock().unwrap().plans.last().unwrap().clone();
    let underlay = plan.underlay.unwrap();
    assert_eq!((underlay.ifindex, underlay.port, underlay.v4), (2, Some(8472), Some([192, 0, 2, 1].into())));
    assert_eq!(underlay.own_subnets, [subnet.parse().unwrap()]);

    // SIGTERM leaves the lease, and a restart takes the same with the same VTEP address.
    node.stop().await;
    assert_eq!(world.own_lease().await.unwrap().mod_revision, lease.mod_revision);
    let mut again = world.start();
    again.until_ready().await;
    let renewed = world.own_lease().await.unwrap();
    assert_eq!((renewed.key, renewed.value), (lease.key, lease.value));
}

#[tokio::test(start_paused = true)]
async fn the_config_may_come_later_and_may_be_wrong_first() {
    let world = World::new();
    let mut node = world.start();
    node.until("waiting", |s| s.in_sync && s.degraded[0].code() == "waiting_for_config").await;
    world.pass(Duration::from_secs(600)).await;
    world.put(CONFIG, r#"{"Network":"x"}"#).await;
    node.until("told", |s| s.degraded[0].to_string().contains("\"x\"")).await;
    assert!(!node.status().ready);
    assert_eq!(world.subnet_env(), "");
    world.put(CONFIG, VXLAN).await;
    node.until_ready().await;
    assert_eq!(node.codes(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn the_datastore_may_come_later() {
    let world = World::with_config(VXLAN).await;
    world.store.set_fault(Some(crate::datastore::memory::Fault::Unavailable));
    let mut node = world.start();
    node.until("waiting", |s| s.degraded.first().is_some_and(|r| r.code() == "waiting_for_datastore")).await;
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(node.spec(), Arc::default());
    world.store.set_fault(None);
    node.until_ready().await;
    assert_eq!(node.codes(), Vec::<&str>::new());
}

async fn refused(config: &str) -> AgentError {
    let world = World::with_config(config).await;
    let node = world.start();
    let error = node.task.await.unwrap().unwrap_err();
    assert_eq!(world.own_lease().await, None, "{config}");
    error
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_spoken_is_refused_by_name() {
    for name in ["udp", "ipip", "wireguard", "ipsec", "extension", "tencent-vpc", "gre"] {
        let error = refused(&format!(r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"{name}"}}}}"#)).await;
        assert!(matches!(error, AgentError::Backend(_)), "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = refused(r#"{"Network":"10.244.0.0/16"}"#).await.to_string();
    assert!(error.contains("udp"), "{error}");
    let error = refused(
        r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}"#,
    )
    .await;
    assert!(error.to_string().contains("IPv6-only"), "{error}");
    let error = refused(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":100}}"#).await;
    assert!(matches!(error, AgentError::Mtu(_)), "{error}");
    let full = r#"{"Network":"10.244.0.0/16","SubnetMin":"10.244.2.0","SubnetMax":"10.244.1.0","Backend":{"Type":"vxlan"}}"#;
    assert!(refused(full).await.to_string().contains("out of subnets"));
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_is_not_there_is_refused() {
    let mut world = World::with_config(VXLAN).await;
    world.wanted.ifaces = vec!["eth7".into()];
    let error = world.start().task.await.unwrap().unwrap_err();
    assert!(matches!(error, AgentError::Select(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_before_the_datastore_has_answered() {
    let mut world = World::with_config(VXLAN).await;
    world.store.set_fault(Some(crate::datastore::memory::Fault::Unavailable));
    // A gateway may come later, and is missed until then.
    world.gateways = vec!["eth8".into()];
    let mut node = world.start();
    let missed = |s: &Status| {
        let codes: Vec<_> = s.degraded.iter().map(Reason::code).collect();
        codes == ["waiting_for_datastore", "gateway"]
            && s.degraded[1].to_string().contains("eth8 does not exist")
    };
    node.until("waiting, and the gateway is missed", missed).await;
    world.host.change(|view| view.links.push(link(8, "eth8")));
    node.until("waiting alone", |s| s.degraded.len() == 1).await;
    node.stop().await;

    world.wanted.ifaces = vec!["eth7".into()];
    let task = world.start().task;
    let error = tokio::time::timeout(DAY, task).await.expect("it does not wait").unwrap().unwrap_err();
    assert!(matches!(error, AgentError::Select(_)), "{error}");
    assert!(error.to_string().contains("--iface eth7: no such interface"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn host_gw_and_alloc_are_joined_too() {
    let world = World::with_config(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#).await;
    world.put(&lease_key("10.244.77.0-24"), r#"{"PublicIP":"192.0.2.77","BackendType":"host-gw"}"#).await;
    world.put(&lease_key("10.244.78.0-24"), r#"{"PublicIP":"203.0.113.78","BackendType":"host-gw"}"#).await;
    let mut node = world.start();
    node.until_ready().await;
    let next_hop: IpAddr = "192.0.2.77".parse().unwrap();
    assert_eq!(node.via("10.244.77.0/24"), Some(Via::Direct { next_hop, mtu: 1500 }));
    let complaints: Vec<_> = node.status().complaints.into_iter().map(|c| c.key).collect();
    assert_eq!(complaints, [lease_key("10.244.78.0-24")], "behind a gateway");

    let world = World::with_config(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"alloc"}}"#).await;
    let mut node = world.start();
    node.until_ready().await;
    assert_eq!(world.edge.lock().unwrap().plans.last().unwrap().underlay, None);
    assert!(world.subnet_env().contains("FLANNEL_MTU=1500"));
}

#[tokio::test(start_paused = true)]
async fn direct_routing_asks_the_kernel_who_is_near() {
    let world =
        World::with_config(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#)
            .await;
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 7)).await;
    world.put(&lease_key("10.244.78.0-24"), &vxlan_lease("203.0.113.78", 8)).await;
    let mut node = world.start();
    node.until_ready().await;
    assert!(matches!(node.via("10.244.77.0/24"), Some(Via::Direct { .. })));
    assert!(node.reaches("10.244.78.0/24", "203.0.113.78"));
}
