use canal_dataplane::spec::policy::{EndpointPolicy, PolicyList};

use super::*;
use crate::datastore::memory::Fault;

const P: &str = "/calico/resources/v3/projectcalico.org";

fn cluster_information(ready: bool) -> String {
    format!(
        r#"{{"kind":"ClusterInformation","metadata":{{"name":"default"}},"spec":{{"datastoreReady":{ready}}}}}"#
    )
}

fn pod(interface: &str, address: &str, app: &str) -> String {
    format!(
        r#"{{"kind":"WorkloadEndpoint","metadata":{{"labels":{{"app":"{app}"}}}},"spec":{{"node":"n1","interfaceName":"{interface}","ipNetworks":["{address}/32"],"profiles":["kns.default"]}}}}"#
    )
}

pub(super) fn remote_pod(address: &str) -> String {
    format!(
        r#"{{"metadata":{{"labels":{{"app":"client"}}}},"spec":{{"node":"n2","interfaceName":"cali7","ipNetworks":["{address}/32"]}}}}"#
    )
}

pub(super) fn remote_key(name: &str) -> String {
    WorkloadKey::new("default", &format!("n2-k8s-{name}-eth0")).key()
}

const ALLOW_ALL: &str = r#"{"kind":"Profile","metadata":{"name":"kns.default"},"spec":{"ingress":[{"action":"Allow"}],"egress":[{"action":"Allow"}]}}"#;
const ALLOW_CLIENTS: &str = r#"{"kind":"NetworkPolicy","metadata":{"name":"default.web","namespace":"default"},
    "spec":{"selector":"app == 'web'","types":["Ingress"],"ingress":[{"action":"Allow","source":{"selector":"app == 'client'"}}]}}"#;

/// `tier(policies)`, then profiles.
fn shown(list: &PolicyList) -> String {
    let names = |rules: &Arc<canal_dataplane::spec::policy::RuleSet>| rules.origin.name.to_string();
    let tiers = list.tiers.iter().map(|tier| {
        let policies: Vec<String> = tier.policies.iter().map(names).collect();
        format!("{}({})", tier.name, policies.join(" "))
    });
    tiers.chain(list.profiles.iter().map(names)).collect::<Vec<_>>().join(" ")
}

impl Node {
    /// Of the only endpoint: ingress, egress.
    fn lists(&self) -> [String; 2] {
        let spec = self.spec();
        let [endpoint] = &spec.endpoints[..] else { panic!("not one endpoint: {spec:#?}") };
        [&endpoint.policy.ingress, &endpoint.policy.egress].map(|list| shown(list))
    }

    fn set_sizes(&self) -> Vec<usize> {
        let size = |set: &Arc<canal_dataplane::spec::policy::IpSet>| match &set.members {
            canal_dataplane::spec::policy::Members::Nets(nets) => nets.len(),
            canal_dataplane::spec::policy::Members::Ports(ports) => ports.len(),
        };
        self.spec().sets.iter().map(size).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn without_policy_in_the_datastore_everything_is_allowed_until_there_is_some() {
    let world = World::with_config(VXLAN).await;
    world.put(&workload_key("a"), &pod("cali0", "10.244.9.1", "web")).await;
    let mut node = world.start();
    node.until_ready().await;
    assert_eq!(node.spec().endpoints[0].policy, EndpointPolicy::allow_all());
    let policy = node.status().policy.unwrap();
    assert_eq!((policy.enforced, policy.switched_off), (false, false));

    world.put(&format!("{P}/clusterinformations/default"), &cluster_information(true)).await;
    settle().await;
    assert_eq!(node.lists(), ["kns.default", "kns.default"], "a profile that does not exist: denied");
    assert!(node.status().policy.unwrap().enforced);
    let complaint = node.status().complaints[0].clone();
    assert_eq!(complaint.key, format!("{P}/profiles/kns.default"));

    world.put(&format!("{P}/profiles/kns.default"), ALLOW_ALL).await;
    world.put(&format!("{P}/networkpolicies/default/default.web"), ALLOW_CLIENTS).await;
    world.put(&remote_key("c"), &remote_pod("10.244.7.1")).await;
    settle().await;
    assert_eq!(node.lists(), ["default(default/default.web) kns.default", "kns.default"]);
    assert_eq!((node.set_sizes(), node.status().complaints), (vec![1], vec![]));

    // Somebody else's pod: one address more, nothing else.
    let before = node.spec();
    world.put(&remote_key("d"), &remote_pod("10.244.7.2")).await;
    settle().await;
    let after = node.spec();
    assert_eq!(node.set_sizes(), [2]);
    assert!(Arc::ptr_eq(&before.endpoints[0].policy.ingress, &after.endpoints[0].policy.ingress));

    for key in ["clusterinformations/default", "profiles/kns.default", "networkpolicies/default/default.web"]
    {
        world.delete(&format!("{P}/{key}")).await;
    }
    settle().await;
    assert_eq!(node.lists(), ["kns.default", "kns.default"], "deleting the last policy opens nothing");
    let policy = node.status().policy.unwrap();
    assert_eq!((policy.enforced, policy.workloads, policy.policies, policy.profiles), (true, 1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_operator_may_want_policy_always_or_never() {
    for (mode, ingress) in
        [(PolicyMode::Enforce, "kns.default"), (PolicyMode::Off, "projectcalico-default-allow")]
    {
        let mut world = World::with_config(VXLAN).await;
        world.policy = mode;
        world.put(&workload_key("a"), &pod("cali0", "10.244.9.1", "web")).await;
        if mode == PolicyMode::Off {
            world.put(&format!("{P}/networkpolicies/default/default.web"), ALLOW_CLIENTS).await;
        }
        let mut node = world.start();
        node.until_ready().await;
        assert_eq!(node.lists()[0], ingress);
        assert_eq!(node.status().policy.unwrap().enforced, mode == PolicyMode::Enforce);
        assert!(node.spec().sets.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_datastore_that_is_not_ready_is_not_an_empty_one() {
    let world = World::with_config(VXLAN).await;
    let information = format!("{P}/clusterinformations/default");
    let policy = format!("{P}/networkpolicies/default/default.web");
    world.put(&information, &cluster_information(false)).await;
    world.put(&workload_key("a"), &pod("cali0", "10.244.9.1", "web")).await;
    let mut node = world.start();
    node.until("told", |status| status.degraded.iter().any(|r| r.code() == "calico_not_ready")).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!((node.status().ready, node.status().published_generation), (false, 0));

    world.put(&policy, ALLOW_CLIENTS).await;
    world.put(&information, &cluster_information(true)).await;
    node.until_ready().await;
    let lists = node.lists();
    assert_eq!(lists[0], "default(default/default.web) kns.default");

    world.put(&information, &cluster_information(false)).await;
    world.delete(&policy).await;
    settle().await;
    assert_eq!((node.lists(), node.codes()), (lists, vec!["calico_not_ready"]));
    assert!(node.status().ready, "what was in force stays");
    world.put(&lease_key("10.244.77.0-24"), &vxlan_lease("192.0.2.77", 1)).await;
    settle().await;
    assert!(node.reaches("10.244.77.0/24", "192.0.2.77"), "the network goes on");

    world.put(&information, &cluster_information(true)).await;
    settle().await;
    assert_eq!((node.lists()[0].as_str(), node.codes()), ("kns.default", vec![]));
}

#[tokio::test(start_paused = true)]
async fn policy_survives_a_restart_without_datastore_and_its_loss() {
    let world = World::with_config(VXLAN).await;
    world.put(&workload_key("a"), &pod("cali0", "10.244.9.1", "web")).await;
    world.put(&format!("{P}/profiles/kns.default"), ALLOW_ALL).await;
    world.put(&format!("{P}/networkpolicies/default/default.web"), ALLOW_CLIENTS).await;
    let mut node = world.start();
    node.until_ready().await;
    let lists = node.lists();
    assert_eq!(lists[0], "default(default/default.web) kns.default");
    node.stop().await;

    world.store.set_fault(Some(Fault::Unavailable));
    let mut node = world.start();
    node.until("forwarding", |status| status.published_generation > 0).await;
    assert_eq!(node.lists(), lists);
    world.store.set_fault(None);
    node.until("well", |status| status.degraded.is_empty()).await;
    assert_eq!(node.lists(), lists);

    world.store.wipe();
    settle().await;
    assert_eq!(node.lists(), lists);
    assert!(node.codes().contains(&"datastore_wiped"));
}

#[tokio::test(start_paused = true)]
async fn who_is_on_other_nodes_is_known_after_a_restart_without_datastore() {
    let deny = r#"{"spec":{"selector":"app == 'web'","types":["Ingress"],
        "ingress":[{"action":"Deny","source":{"selector":"app == 'client'"}},{"action":"Allow"}]}}"#;
    let world = World::with_config(VXLAN).await;
    world.put(&workload_key("a"), &pod("cali0", "10.244.9.1", "web")).await;
    world.put(&format!("{P}/profiles/kns.default"), ALLOW_ALL).await;
    world.put(&format!("{P}/globalnetworkpolicies/default.deny"), deny).await;
    for (name, address) in [("c", "10.244.7.1"), ("d", "10.244.7.2")] {
        world.put(&remote_key(name), &remote_pod(address)).await;
    }
    let mut node = world.start();
    node.until_ready().await;
    assert_eq!(node.set_sizes(), [2]);
    let spec = node.spec();
    // One more comes later: that is news, too.
    world.put(&remote_key("e"), &remote_pod("10.244.7.3")).await;
    world.pass(Duration::from_secs(30)).await;
    let spec_of_three = node.spec();
    assert_ne!(spec.sets, spec_of_three.sets);
    node.stop().await;

    world.store.set_fault(Some(Fault::Unavailable));
    let mut node = world.start();
    node.until("forwarding", |status| status.published_generation > 0).await;
    assert!(node.codes().contains(&"saved_state"));
    assert_eq!(node.spec().sets, spec_of_three.sets);
    assert_eq!(node.spec().endpoints, spec_of_three.endpoints);
}

#[tokio::test(start_paused = true)]
async fn what_is_resolved_and_not_enforced_is_said() {
    let world = World::with_config(VXLAN).await;
    let host = |interface: &str, ip: &str| {
        format!(
            r#"{{"metadata":{{"labels":{{"app":"web"}}}},"spec":{{"node":"n1","interfaceName":"{interface}","expectedIPs":[{ip}]}}}}"#
        )
    };
    world.put(&format!("{P}/hostendpoints/b-named"), &host("eth0", "")).await;
    world.put(&format!("{P}/hostendpoints/a-by-address"), &host("", r#""192.0.2.1""#)).await;
    world.put(&format!("{P}/hostendpoints/c-other"), &host("eth7", "")).await;
    world.put(&format!("{P}/hostendpoints/d-all"), &host("*", "")).await;
    world.put(&format!("{P}/hostendpoints/e-nowhere"), &host("", r#""198.51.100.1""#)).await;
    let policy = r#"{"spec":{"selector":"app == 'web'","types":["Ingress"],"ingress":[{"action":"Allow"}]}}"#;
    world.put(&format!("{P}/globalnetworkpolicies/default.all"), policy).await;
    let pool = r#"{"spec":{"cidr":"10.244.0.0/16","vxlanMode":"Always"}}"#;
    world.put(&format!("{P}/ippools/p"), pool).await;
    let mut node = world.start();
    node.until_ready().await;
    let spec = node.spec();
    let hosts: Vec<_> =
        spec.host_endpoints.iter().map(|host| (&*host.name, host.interface.as_deref())).collect();
    assert_eq!(hosts, [("a-by-address", Some("eth0")), ("c-other", Some("eth7")), ("d-all", None)]);
    assert_eq!(shown(&spec.host_endpoints[0].ingress.normal), "default(default.all)");
    let complaints = node.status().complaints;
    let told: Vec<_> =
        complaints.iter().map(|c| (c.key.strip_prefix(P).unwrap(), &c.sentence[..24])).collect();
    let expected = [
        ("/hostendpoints/a-by-address", "resolved, but not enforc"),
        ("/hostendpoints/b-named", "it stands for no interfa"),
        ("/hostendpoints/c-other", "resolved, but not enforc"),
        ("/hostendpoints/d-all", "resolved, but not enforc"),
        ("/hostendpoints/e-nowhere", "it stands for no interfa"),
        ("/ippools/p", "its encapsulation is not"),
    ];
    assert_eq!(told, expected);
    assert_eq!(node.status().policy.unwrap().host_endpoints, 5);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_read_whole_allows_nothing() {
    let world = World::with_config(VXLAN).await;
    world.put(&workload_key("a"), &pod("cali0", "10.244.9.1", "web")).await;
    world.put(&format!("{P}/profiles/kns.default"), ALLOW_ALL).await;
    let store = living::Denying { store: world.store.clone(), prefix: "/calico/ipam" };
    let mut node = world.start_on(Arc::new(store));
    node.until_ready().await;
    assert_eq!((node.codes(), node.lists()), (vec!["no_workloads"], [String::new(), String::new()]));
}
