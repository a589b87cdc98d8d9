use serde_json::json;

use super::*;
use crate::datastore::memory::Memory;
use crate::model::calico::keys::RESOURCES_PREFIX;

fn stamp() -> Stamp {
    Stamp {
        created: "2024-01-02T03:04:05Z".to_owned(),
        uid: "30316465-6365-4463-ad63-3564622d3638".to_owned(),
    }
}

fn kind(name: &str) -> Kind {
    Kind::by_name(name).unwrap()
}

fn resource(kind: &str, name: &str, spec: Value) -> Resource {
    let value =
        json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec});
    Resource::check(&value, "default").unwrap()
}

/// From what `get` shows.
fn again(found: &Found) -> Resource {
    Resource::check(&found.shown(), "default").unwrap()
}

async fn keys(memory: &Memory) -> Vec<String> {
    let listed = memory.list("/calico/").await.unwrap();
    listed.entries.iter().map(|entry| entry.key.replace(RESOURCES_PREFIX, "")).collect()
}

#[tokio::test]
async fn a_policy_is_created_found_shown_replaced_and_deleted() {
    let memory = Memory::new();
    let store = ResourceStore::new(&memory);
    let gnp = kind("GlobalNetworkPolicy");
    let deny = resource("GlobalNetworkPolicy", "deny", json!({"selector": "a == 'b' && has(c)"}));

    assert_eq!(store.write(&deny, Mode::Create, &stamp()).await.unwrap(), Done::Created(2));
    assert_eq!(keys(&memory).await, ["globalnetworkpolicies/default.deny"]);
    let stored = memory.list("/calico/").await.unwrap().entries.remove(0).value;
    assert_eq!(
        String::from_utf8(stored).unwrap(),
        "{\"kind\":\"GlobalNetworkPolicy\",\"apiVersion\":\"projectcalico.org/v3\",\"metadata\":{\"name\":\"default.deny\",\
         \"uid\":\"30316465-6365-4463-ad63-3564622d3638\",\"creationTimestamp\":\"2024-01-02T03:04:05Z\"},\"spec\":{\
         \"selector\":\"a == 'b' \\u0026\\u0026 has(c)\",\"types\":[\"Ingress\"]}}"
    );

    let found = store.get(gnp, "", "deny").await.unwrap().unwrap();
    assert_eq!((found.name(), found.stored_name.as_str(), found.revision), ("deny", "default.deny", 2));
    assert_eq!(found.shown()["metadata"]["resourceVersion"], "2");
    assert_eq!(found.shown()["metadata"]["name"], "deny");

    // The same again is no write; it is one with another order, and then the first answer is out of date.
    assert_eq!(store.write(&again(&found), Mode::Apply, &stamp()).await.unwrap(), Done::Unchanged(2));
    let ordered = resource("GlobalNetworkPolicy", "deny", json!({"order": 5}));
    assert_eq!(store.write(&ordered, Mode::Replace, &stamp()).await.unwrap(), Done::Updated(3));
    let stale = store.write(&again(&found), Mode::Apply, &stamp()).await.unwrap_err();
    assert!(matches!(&stale, StoreError::Stale { latest, .. } if latest == "3"), "{stale}");
    assert!(matches!(store.write(&deny, Mode::Create, &stamp()).await, Err(StoreError::Exists)));

    assert!(matches!(store.delete(gnp, "", "deny", Some("2")).await, Err(StoreError::Stale { .. })));
    assert_eq!(store.delete(gnp, "", "deny", Some("3")).await.unwrap().revision, 3);
    assert!(matches!(store.delete(gnp, "", "deny", None).await, Err(StoreError::Missing)));
    assert!(matches!(store.write(&deny, Mode::Replace, &stamp()).await, Err(StoreError::Missing)));
}

#[tokio::test]
async fn a_policy_that_newer_tools_stored_under_its_own_name_stays_there() {
    let memory = Memory::new();
    let store = ResourceStore::new(&memory);
    let key = format!("{RESOURCES_PREFIX}networkpolicies/default/foo");
    let value = json!({"metadata": {"name": "foo", "namespace": "default", "uid": "u", "creationTimestamp": "t"}, "spec": {}});
    memory.put(&key, value.to_string().as_bytes(), Expect::Absent, None).await.unwrap();
    let policy = resource("NetworkPolicy", "foo", json!({"order": 1}));
    assert_eq!(store.write(&policy, Mode::Apply, &stamp()).await.unwrap(), Done::Updated(3));
    assert_eq!(keys(&memory).await, ["networkpolicies/default/foo"]);
    let found = store.get(kind("NetworkPolicy"), "default", "foo").await.unwrap().unwrap();
    assert_eq!(found.object["metadata"]["uid"], "u");
}

#[tokio::test]
async fn what_cannot_be_read_is_told_of_and_can_be_replaced() {
    let memory = Memory::new();
    let store = ResourceStore::new(&memory);
    for (key, value) in [("tiers/a", "{"), ("tiers/b", "{}"), ("tiers/c/d", "{}"), ("tiers/", "{}")] {
        memory
            .put(&format!("{RESOURCES_PREFIX}{key}"), value.as_bytes(), Expect::Absent, None)
            .await
            .unwrap();
    }
    let (found, unreadable) = store.list(kind("Tier"), None).await.unwrap();
    assert_eq!(found.iter().map(Found::name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(unreadable.len(), 3);
    let done = store.write(&resource("Tier", "a", json!({"order": 1})), Mode::Apply, &stamp()).await.unwrap();
    assert_eq!(done, Done::Updated(6));
    assert_eq!(store.list(kind("Tier"), None).await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn lists_keep_to_a_namespace() {
    let memory = Memory::new();
    let store = ResourceStore::new(&memory);
    for namespace in ["a", "ab"] {
        let value =
            json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkSet", "metadata": {"name": "s"}});
        let set = Resource::check(&value, namespace).unwrap();
        store.write(&set, Mode::Create, &stamp()).await.unwrap();
    }
    let set = kind("NetworkSet");
    assert_eq!(store.list(set, Some("a")).await.unwrap().0.len(), 1);
    assert_eq!(store.list(set, None).await.unwrap().0.len(), 2);
    assert!(store.get(set, "b", "s").await.unwrap().is_none());
}

#[tokio::test]
async fn the_built_in_profile_is_shown_and_never_touched() {
    let memory = Memory::new();
    let store = ResourceStore::new(&memory);
    let profile = kind("Profile");
    let (found, _) = store.list(profile, None).await.unwrap();
    assert_eq!(found[0].name(), ALLOW_PROFILE);
    assert_eq!(found[0].shown()["metadata"].get("resourceVersion"), None);
    assert!(matches!(store.delete(profile, "", ALLOW_PROFILE, None).await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn a_policys_tier_must_be_there_and_does_not_go_before_it() {
    let memory = Memory::new();
    let store = ResourceStore::new(&memory);
    let policy = resource("GlobalNetworkPolicy", "sec.a", json!({"tier": "sec"}));
    let refused = store.write(&policy, Mode::Apply, &stamp()).await.unwrap_err().to_string();
    assert_eq!(refused, "spec.tier: there is no tier sec: apply it first");
    store.write(&resource("Tier", "sec", json!({})), Mode::Create, &stamp()).await.unwrap();
    store.write(&policy, Mode::Apply, &stamp()).await.unwrap();
    assert_eq!(keys(&memory).await, ["globalnetworkpolicies/sec.a", "tiers/sec"]);
    let refused = store.delete(kind("Tier"), "", "sec", None).await.unwrap_err().to_string();
    assert_eq!(refused, "GlobalNetworkPolicy sec.a is in this tier");
    store.delete(kind("GlobalNetworkPolicy"), "", "sec.a", None).await.unwrap();
    store.delete(kind("Tier"), "", "sec", None).await.unwrap();
    store.write(&resource("Tier", "default", json!({})), Mode::Create, &stamp()).await.unwrap();
    assert!(matches!(store.delete(kind("Tier"), "", "default", None).await, Err(StoreError::Refused(_))));
}

#[tokio::test]
async fn pools_do_not_overlap_and_outlive_their_blocks() {
    let memory = Memory::new();
    let store = ResourceStore::new(&memory);
    let pool = |name: &str, cidr: &str, size: i64| {
        resource("IPPool", name, json!({"cidr": cidr, "blockSize": size}))
    };
    store.write(&pool("a", "10.0.0.0/16", 26), Mode::Create, &stamp()).await.unwrap();
    let overlap =
        store.write(&pool("b", "10.0.128.0/17", 26), Mode::Create, &stamp()).await.unwrap_err().to_string();
    assert_eq!(overlap, "spec.cidr: 10.0.128.0/17 overlaps with 10.0.0.0/16 of IPPool a");
    for block in ["10.0.1.0-26", "10.1.1.0-27"] {
        let key = format!("/calico/ipam/v2/assignment/ipv4/block/{block}");
        memory.put(&key, b"{}", Expect::Absent, None).await.unwrap();
    }
    let size =
        store.write(&pool("b", "10.1.0.0/16", 26), Mode::Create, &stamp()).await.unwrap_err().to_string();
    assert_eq!(size, "spec.blockSize: must be 27: block 10.1.1.0/27 is in use");
    store.write(&pool("b", "10.1.0.0/16", 27), Mode::Create, &stamp()).await.unwrap();
    assert!(matches!(store.delete(kind("IPPool"), "", "a", None).await, Err(StoreError::Refused(_))));
    memory.delete("/calico/ipam/v2/assignment/ipv4/block/10.0.1.0-26", Expect::Anything).await.unwrap();
    store.delete(kind("IPPool"), "", "a", None).await.unwrap();
}

#[tokio::test]
async fn the_first_node_makes_the_cluster_ready_and_leaves_when_it_is_empty() {
    let memory = Memory::new();
    let store = ResourceStore::new(&memory);
    store.write(&resource("Node", "n", json!({})), Mode::Apply, &stamp()).await.unwrap();
    let cluster = store.get(kind("ClusterInformation"), "", "default").await.unwrap().unwrap();
    let spec = json!({"clusterGUID": "3031646563654463ad633564622d3638", "datastoreReady": true});
    assert_eq!(cluster.object["spec"], spec);
    assert_ne!(cluster.object["metadata"]["uid"], stamp().uid);
    let endpoint =
        json!({"node": "n", "orchestrator": "k8s", "pod": "p", "endpoint": "e", "interfaceName": "cali0"});
    store.write(&resource("WorkloadEndpoint", "n-k8s-p-e", endpoint), Mode::Apply, &stamp()).await.unwrap();
    let refused = store.delete(kind("Node"), "", "n", None).await.unwrap_err().to_string();
    assert_eq!(refused, "workload endpoint default/n-k8s-p-e is on this node");
    store.delete(kind("WorkloadEndpoint"), "default", "n-k8s-p-e", None).await.unwrap();
    let held = "/calico/ipam/v2/host/n/ipv4/block/10.0.0.0-26";
    memory.put(held, b"{}", Expect::Absent, None).await.unwrap();
    assert!(matches!(store.delete(kind("Node"), "", "n", None).await, Err(StoreError::Refused(_))));
    memory.delete(held, Expect::Anything).await.unwrap();
    store.delete(kind("Node"), "", "n", None).await.unwrap();
}
