//! Documents of a large cluster, as Calico's CNI plugin and controllers write them: keys and values.

use std::fmt::Write;

const PREFIX: &str = "/calico/resources/v3/projectcalico.org";
/// Pods of one node.
pub const ON_A_NODE: usize = 100;

/// How pods are labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labelled {
    /// Ten have one deployment's labels.
    ByDeployment,
    /// Each has a label of its own, as a stateful set gives.
    OneByOne,
}

/// A pod.
pub fn endpoint(n: usize, labelled: Labelled) -> (String, String) {
    let (node, deployment, namespace) = (n / ON_A_NODE, n / 10, n / 1000);
    let [a, b, c] = [n >> 16, n >> 8, n].map(|part| part & 0xff);
    let name = format!("node--{node}-k8s-web--{deployment:x}--7d4b9c5f68--{n:05x}-eth0");
    let own = match labelled {
        Labelled::ByDeployment => String::new(),
        Labelled::OneByOne => {
            format!(r#""statefulset.kubernetes.io/pod-name":"web-{deployment:x}-{n:05x}","#)
        }
    };
    let value = format!(
        r#"{{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","generateName":"web-{deployment:x}-7d4b9c5f68-","namespace":"ns-{namespace}","uid":"30316465-6365-4463-ad63-3564622d3638","creationTimestamp":"2024-01-02T03:04:05Z","labels":{{{own}"app":"web-{deployment:x}","pod-template-hash":"7d4b9c5f68","tier":"backend","version":"v1","projectcalico.org/namespace":"ns-{namespace}","projectcalico.org/orchestrator":"k8s","projectcalico.org/serviceaccount":"default"}}}},"spec":{{"orchestrator":"k8s","node":"node-{node}","containerID":"{n:064x}","pod":"web-{deployment:x}-7d4b9c5f68-{n:05x}","endpoint":"eth0","serviceAccountName":"default","ipNetworks":["10.{a}.{b}.{c}/32"],"profiles":["kns.ns-{namespace}","ksa.ns-{namespace}.default"],"interfaceName":"cali{n:011x}","mac":"aa:bb:cc:{a:02x}:{b:02x}:{c:02x}","ports":[{{"name":"http","protocol":"TCP","port":8080,"hostPort":0,"hostIP":""}}]}}}}"#
    );
    (format!("{PREFIX}/workloadendpoints/ns-{namespace}/{name}"), value)
}

/// A namespace's profile.
pub fn profile(namespace: usize) -> (String, String) {
    let name = format!("kns.ns-{namespace}");
    let value = format!(
        r#"{{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","uid":"6d1a5b0e-6f63-4b0c-9c3f-5d6f1b1c0a01","creationTimestamp":"2024-01-02T03:04:05Z"}},"spec":{{"ingress":[{{"action":"Allow","source":{{}},"destination":{{}}}}],"egress":[{{"action":"Allow","source":{{}},"destination":{{}}}}],"labelsToApply":{{"pcns.projectcalico.org/name":"ns-{namespace}"}}}}}}"#
    );
    (format!("{PREFIX}/profiles/{name}"), value)
}

/// A policy of ten rules about one deployment: ten others of its namespace may reach it.
pub fn policy(n: usize) -> (String, String) {
    let namespace = n / 100;
    let mut rules = String::new();
    for rule in 0..10 {
        let comma = if rule > 0 { "," } else { "" };
        let other = namespace * 100 + (n + rule) % 100;
        write!(
            rules,
            r#"{comma}{{"action":"Allow","protocol":"TCP","source":{{"selector":"app == 'web-{other:x}'","nets":["10.{rule}.0.0/16"]}},"destination":{{"ports":[80,"8000:8090","http"]}}}}"#
        )
        .expect("text grows");
    }
    let name = format!("default.p{n}");
    let value = format!(
        r#"{{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","namespace":"ns-{namespace}","uid":"6d1a5b0e-6f63-4b0c-9c3f-5d6f1b1c0a01","creationTimestamp":"2024-01-02T03:04:05Z"}},"spec":{{"tier":"default","order":{n},"selector":"app == 'web-{n:x}'","types":["Ingress"],"ingress":[{rules}]}}}}"#
    );
    (format!("{PREFIX}/networkpolicies/ns-{namespace}/{name}"), value)
}

/// All of it: so many endpoints, a tenth as many policies, the namespaces.
pub fn cluster(endpoints: usize, labelled: Labelled) -> impl Iterator<Item = (String, String)> {
    let profiles = (0..endpoints.div_ceil(1000)).map(profile);
    let policies = (0..endpoints / 10).map(policy);
    profiles.chain((0..endpoints).map(move |n| endpoint(n, labelled))).chain(policies)
}
