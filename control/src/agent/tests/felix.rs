//! Felix's settings that change while the node lives, and what it reports of itself.

use canal_dataplane::spec::policy::EndpointToHost;
use serde_json::{Value, json};

use super::*;
use crate::datastore::memory::Fault;

const P: &str = "/calico/resources/v3/projectcalico.org";
const STATUS: &str = "/calico/felix/v2/no-region/host/n1/status";

fn felix(spec: &str) -> String {
    format!(r#"{{"kind":"FelixConfiguration","spec":{spec}}}"#)
}

fn cluster_information(ready: bool) -> String {
    format!(r#"{{"kind":"ClusterInformation","spec":{{"datastoreReady":{ready}}}}}"#)
}

/// Where the condition of a pod is told.
fn pod_key(name: &str) -> String {
    format!("/calico/felix/v2/no-region/host/n1/workload/k8s/default%2f{name}/endpoint/eth0")
}

impl World {
    async fn configure(&self, name: &str, spec: &str) {
        self.put(&format!("{P}/felixconfigurations/{name}"), &felix(spec)).await;
        settle().await;
    }

    async fn value(&self, key: &str) -> Option<Value> {
        self.get(key).await.map(|found| serde_json::from_slice(&found.value).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn settings_are_obeyed_when_they_change() {
    let world = World::with_config(VXLAN).await;
    let mut node = world.start();
    node.until_ready().await;
    let settings = |node: &Node| {
        let Settings { endpoint_to_host, allow_vxlan_from_workloads, allow_ipip_from_workloads, .. } =
            node.spec().settings;
        (endpoint_to_host == EndpointToHost::Drop, allow_vxlan_from_workloads, allow_ipip_from_workloads)
    };
    assert_eq!(settings(&node), (false, false, false));
    world.configure("default", r#"{"defaultEndpointToHostAction":"Drop"}"#).await;
    assert_eq!(settings(&node), (true, false, false));
    world.configure("node.n2", r#"{"allowIPIPPacketsFromWorkloads":true}"#).await;
    assert_eq!(settings(&node), (true, false, false), "another node's");
    let own = r#"{"defaultEndpointToHostAction":"Return","allowVXLANPacketsFromWorkloads":true,"healthEnabled":true}"#;
    world.configure("node.n1", own).await;
    assert_eq!(settings(&node), (false, true, false));
    assert!(node.observer.felix.borrow().values.health().is_some(), "others are told, too");
    world.configure("node.n1", r#"{"defaultEndpointToHostAction":"Nonsense"}"#).await;
    assert_eq!(settings(&node), (false, false, false), "nonsense is the default, not what all nodes have");
    let told = node.status().complaints;
    assert!(told.iter().any(|c| c.key.ends_with("/node.n1") && c.sentence.contains("Nonsense")), "{told:?}");
    world.delete(&format!("{P}/felixconfigurations/node.n1")).await;
    settle().await;
    assert_eq!(settings(&node), (true, false, false));
    // What cannot be read says nothing new, and neither does a datastore that is not ready.
    world.store.set_fault(Some(Fault::Unavailable));
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(settings(&node), (true, false, false));
    world.store.set_fault(None);
    world.pass(Duration::from_secs(30)).await;
    world.put(&format!("{P}/clusterinformations/default"), &cluster_information(false)).await;
    settle().await;
    world.configure("default", "{}").await;
    assert_eq!(settings(&node), (true, false, false));
    world.put(&format!("{P}/clusterinformations/default"), &cluster_information(true)).await;
    settle().await;
    assert_eq!(settings(&node), (false, false, false));
}

#[tokio::test(start_paused = true)]
async fn flags_and_variables_go_before_the_datastore() {
    let mut world = World::with_config(VXLAN).await;
    let variables = [("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Drop")];
    world.felix = Local::new(vec![], variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    world
        .put(
            &format!("{P}/felixconfigurations/default"),
            &felix(r#"{"defaultEndpointToHostAction":"Accept"}"#),
        )
        .await;
    let mut node = world.start();
    node.until_ready().await;
    assert_eq!(node.spec().settings.endpoint_to_host, EndpointToHost::Drop);
}

#[tokio::test(start_paused = true)]
async fn the_node_and_its_workloads_are_reported_where_calico_is_in_use() {
    let world = World::with_config(VXLAN).await;
    world.host.add_veth(20, "cali0");
    world.put(&workload_key("a"), &workload("cali0", "10.244.9.1")).await;
    world.configure("default", r#"{"endpointReportingEnabled":true}"#).await;
    let mut node = world.start();
    node.until_ready().await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.store.list("/calico/felix/").await.unwrap().entries, [], "nobody uses Calico");
    world.put(&format!("{P}/clusterinformations/default"), &cluster_information(true)).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.value(STATUS).await.unwrap()["first_update"], json!(false));
    assert_eq!(world.value(&pod_key("a")).await, Some(json!({"status": "up"})));
    world.host.change(|view| {
        view.links.iter_mut().filter(|link| link.index == 20).for_each(|link| link.running = false)
    });
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.value(&pod_key("a")).await, Some(json!({"status": "down"})));
    // Away for a while, during which the workload goes: its key follows.
    world.store.set_fault(Some(Fault::Unavailable));
    world.pass(Duration::from_secs(120)).await;
    world.store.set_fault(None);
    world.delete(&workload_key("a")).await;
    world.pass(Duration::from_secs(300)).await;
    assert_eq!(world.value(&pod_key("a")).await, None);
    assert!(world.value(STATUS).await.is_some(), "it lives");
    node.stop().await;
    world.pass(Duration::from_secs(120)).await;
    assert!(world.value(STATUS).await.is_none(), "it does not");
}
