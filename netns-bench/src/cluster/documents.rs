//! The cluster's documents, as Calico's CNI plugin and controllers would have written them.

use std::fmt::Write;

const PREFIX: &str = "/calico/resources/v3/projectcalico.org";
/// Pods of one deployment, which have the same labels.
const PODS: usize = 10;
/// Deployments of one namespace, and policies: one about each deployment.
const DEPLOYMENTS: usize = 100;
/// Pods of one node.
const PER_NODE: usize = 100;
/// Rules of a policy.
const RULES: usize = 10;

/// Key of a workload endpoint.
pub fn workload_key(namespace: &str, name: &str) -> String {
    format!("{PREFIX}/workloadendpoints/{namespace}/{name}")
}

/// Everything: so many endpoints, of which the first hundred are on the node `here`, and so many policies.
pub fn cluster(endpoints: usize, policies: usize, here: &str) -> Vec<(String, String)> {
    let profiles = (0..=endpoints / PODS / DEPLOYMENTS).map(profile);
    let all = (0..endpoints).map(|n| endpoint(n, here, 1)).chain((0..policies).map(|n| policy(n, 8090)));
    profiles.chain(all).collect()
}

/// The `n`th of many small changes to a cluster of so many endpoints and policies: three of four are of an endpoint's labels,
/// the others of a policy's ports.
pub fn update(n: usize, endpoints: usize, policies: usize, here: &str) -> (String, String) {
    // A prime takes turns that have no rhythm.
    let which = n * 7_919;
    if n % 4 == 3 {
        policy(which % policies, 8091 + (n % 1000) as u16)
    } else {
        endpoint(which % endpoints, here, 2 + n)
    }
}

fn profile(namespace: usize) -> (String, String) {
    let name = format!("kns.ns-{namespace}");
    let value = format!(
        r#"{{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","uid":"6d1a5b0e-6f63-4b0c-9c3f-5d6f1b1c0a01","creationTimestamp":"2024-01-02T03:04:05Z"}},"spec":{{"ingress":[{{"action":"Allow","source":{{}},"destination":{{}}}}],"egress":[{{"action":"Allow","source":{{}},"destination":{{}}}}],"labelsToApply":{{"pcns.projectcalico.org/name":"ns-{namespace}"}}}}}}"#
    );
    (format!("{PREFIX}/profiles/{name}"), value)
}

fn endpoint(n: usize, here: &str, version: usize) -> (String, String) {
    let (node, deployment) = (n / PER_NODE, n / PODS);
    let namespace = deployment / DEPLOYMENTS;
    let node = if node == 0 { here.to_owned() } else { format!("worker{node}") };
    let [a, b, c] = [n >> 16, n >> 8, n].map(|part| part & 0xff);
    let pod = format!("web-{deployment:x}-7d4b9c5f68-{n:05x}");
    let name = format!("{node}-k8s-{}-eth0", pod.replace('-', "--"));
    let value = format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","generateName":"web-{deployment:x}-7d4b9c5f68-","namespace":"ns-{namespace}","uid":"30316465-6365-4463-ad63-3564622d3638","creationTimestamp":"2024-01-02T03:04:05Z","labels":{{"app":"web-{deployment:x}","pod-template-hash":"7d4b9c5f68","tier":"backend","version":"v{version}","projectcalico.org/namespace":"ns-{namespace}","projectcalico.org/orchestrator":"k8s","projectcalico.org/serviceaccount":"default"}}}},"spec":{{"orchestrator":"k8s","node":"{node}","containerID":"{n:064x}","pod":"{pod}","endpoint":"eth0","serviceAccountName":"default","ipNetworks":["10.{a}.{b}.{c}/32"],"profiles":["kns.ns-{namespace}"],"interfaceName":"cali{n:011x}","mac":"aa:bb:cc:{a:02x}:{b:02x}:{c:02x}","ports":[{{"name":"http","protocol":"TCP","port":8080,"hostPort":0,"hostIP":""}}]}}}}"#
    );
    (workload_key(&format!("ns-{namespace}"), &name), value)
}

/// About one deployment: ten others of its namespace may reach it.
fn policy(n: usize, last_port: u16) -> (String, String) {
    let namespace = n / DEPLOYMENTS;
    let mut rules = String::new();
    for rule in 0..RULES {
        let comma = if rule > 0 { "," } else { "" };
        let other = namespace * DEPLOYMENTS + (n + rule) % DEPLOYMENTS;
        write!(
            rules,
            r#"{comma}{{"action":"Allow","protocol":"TCP","source":{{"selector":"app == 'web-{other:x}'"}},"destination":{{"ports":[80,"8000:{last_port}","http"]}}}}"#
        )
        .expect("text grows");
    }
    let name = format!("default.p{n}");
    let value = format!(
        r#"{{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"ns-{namespace}","uid":"6d1a5b0e-6f63-4b0c-9c3f-5d6f1b1c0a01","creationTimestamp":"2024-01-02T03:04:05Z"}},"spec":{{"tier":"default","order":{n},"selector":"app == 'web-{n:x}'","types":["Ingress"],"ingress":[{rules}]}}}}"#
    );
    (format!("{PREFIX}/networkpolicies/ns-{namespace}/{name}"), value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashSet;

    #[test]
    fn every_document_is_json_under_a_key_of_its_own() {
        let all = cluster(2_000, 200, "node0");
        let keys: HashSet<&String> = all.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), all.len());
        let mut here = 0;
        for (key, value) in &all {
            let value: Value = serde_json::from_str(value).expect(key);
            assert!(key.ends_with(value["metadata"]["name"].as_str().expect("a name")), "{key}");
            here += usize::from(value["spec"]["node"] == "node0");
        }
        assert_eq!(here, PER_NODE);
    }

    #[test]
    fn an_update_is_of_something_that_is_there() {
        let all = cluster(2_000, 200, "node0");
        let keys: HashSet<&String> = all.iter().map(|(key, _)| key).collect();
        for n in 0..1_000 {
            let (key, value) = update(n, 2_000, 200, "node0");
            assert!(keys.contains(&key), "{key}");
            assert!(!all.iter().any(|(k, v)| (k, v) == (&key, &value)), "{n} changes nothing");
        }
    }
}
