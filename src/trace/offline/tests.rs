use std::fs;
use std::path::PathBuf;

use super::*;
use crate::trace::question::{From, Protocol};
use crate::trace::report::Outcome;

const CONFIG: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

fn lease(public: &str, mac: u8) -> String {
    format!(
        r#"{{"PublicIP":"{public}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{mac:02x}"}}}}"#
    )
}

fn endpoint(node: &str, pod: &str, address: &str) -> String {
    format!(
        r#"{{"apiVersion":"projectcalico.org/v3","kind":"WorkloadEndpoint",
            "metadata":{{"name":"{node}-k8s-{pod}-eth0","namespace":"default"}},
            "spec":{{"node":"{node}","orchestrator":"k8s","pod":"{pod}","endpoint":"eth0",
                    "interfaceName":"cali-{pod}","ipNetworks":["{address}/32"]}}}}"#
    )
}

/// The documents of a cluster of two nodes by their place in a directory.
fn documents() -> Vec<(&'static str, String)> {
    vec![
        ("net-conf.json", CONFIG.to_owned()),
        ("subnets/10.244.1.0-24.json", lease("192.0.2.11", 0x11)),
        ("subnets/10.244.2.0-24.json", lease("192.0.2.12", 0x12)),
        ("resources/a.json", endpoint("n1", "a", "10.244.1.2")),
        ("resources/b.json", endpoint("n1", "b", "10.244.1.3")),
        ("resources/c.json", endpoint("n2", "c", "10.244.2.2")),
        ("resources/wrong.json", "{".to_owned()),
    ]
}

fn directory(documents: &[(&str, String)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in documents {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn options(node: Option<&str>) -> Options {
    let node = node.map(str::to_owned);
    Options { node, public_ip: None, underlay_mtu: 1500, prefix: Prefix::default() }
}

fn ask(from: &str, to: &str) -> Question {
    Question::new(From::Workload(from.into()), to, Protocol::Tcp { port: 80, flags: None })
}

#[test]
fn a_directory_is_as_good_as_a_daemon() {
    let root = directory(&documents());
    let offline = Offline::read(root.path(), &options(Some("n1"))).unwrap();
    let report = offline.trace(&ask("a", "10.244.2.2")).unwrap();
    assert_eq!(report.verdict.to.as_deref(), Some("VTEP 192.0.2.12"));
    assert_eq!(report.sent[0].layers[1], "IPv4 192.0.2.11 > 192.0.2.12, TTL 64, 90 bytes");
    let assumed = &report.assumptions;
    assert_eq!(
        assumed[..4],
        [
            "the node is n1",
            "its lease is 10.244.1.0/24 at 192.0.2.11",
            "its underlay is eth0 with 192.0.2.11 and an MTU of 1500",
            "the interfaces of its workloads exist, with an MTU of 1450",
        ]
    );
    assert!(assumed[4].starts_with("not used: ") && assumed[4].contains("wrong.json"), "{assumed:?}");
    assert_eq!(offline.trace(&ask("a", "b")).unwrap().verdict.outcome, Outcome::Delivered);
    let refused = offline.trace(&ask("c", "a")).unwrap_err().to_string();
    assert!(refused.contains("no workload of this node"), "{refused}");
    // In the place of the other node.
    let offline = Offline::read(root.path(), &options(Some("n2"))).unwrap();
    assert_eq!(
        offline.trace(&ask("c", "10.244.1.2")).unwrap().verdict.to.as_deref(),
        Some("VTEP 192.0.2.11")
    );
}

#[test]
fn the_node_is_asked_for_where_it_is_not_plain() {
    let root = directory(&documents());
    let refused = Offline::read(root.path(), &options(None)).unwrap_err().to_string();
    assert!(refused.contains("n1, n2"), "{refused}");
    let only: Vec<_> = documents().into_iter().filter(|(path, _)| !path.ends_with("c.json")).collect();
    let root = directory(&only);
    assert!(Offline::read(root.path(), &options(None)).is_ok());
    let root = directory(&documents()[..3]);
    assert!(Offline::read(root.path(), &options(None)).is_err());
    assert!(matches!(
        Offline::read(&PathBuf::from("/nowhere"), &options(None)),
        Err(OfflineError::Unreadable { .. })
    ));
}

#[test]
fn a_dump_of_etcd_is_a_directory_in_one_file() {
    let mut keys = serde_json::Map::new();
    let resource = "/calico/resources/v3/projectcalico.org/workloadendpoints/default";
    for (path, text) in documents() {
        let key = match path.split_once('/') {
            None => "/coreos.com/network/config".to_owned(),
            Some(("subnets", file)) => {
                format!("/coreos.com/network/subnets/{}", file.trim_end_matches(".json"))
            }
            Some((_, "c.json")) => format!("{resource}/n2-k8s-c-eth0"),
            Some((_, file)) => format!("{resource}/n1-k8s-{}-eth0", file.trim_end_matches(".json")),
        };
        keys.insert(key, text.into());
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("dump.json");
    fs::write(&path, serde_json::to_vec(&keys).unwrap()).unwrap();
    let offline = Offline::read(&path, &options(Some("n1"))).unwrap();
    let report = offline.trace(&ask("a", "10.244.2.2")).unwrap();
    assert_eq!(report.verdict.to.as_deref(), Some("VTEP 192.0.2.12"));
    assert!(report.assumptions[4].contains("n1-k8s-wrong-eth0"), "{:?}", report.assumptions);
    fs::write(&path, "nonsense").unwrap();
    assert!(Offline::read(&path, &options(Some("n1"))).unwrap_err().to_string().contains("not JSON"));
}

#[test]
fn resources_alone_are_enough_for_this_node() {
    let documents = [
        ("a.yaml", endpoint("n1", "a", "10.7.1.2")),
        ("b.json", endpoint("n1", "b", "10.7.1.3")),
        ("notes.txt", "nothing".to_owned()),
        ("wrong.yaml", "{".to_owned()),
    ];
    let root = directory(&documents);
    let offline = Offline::read(root.path(), &options(None)).unwrap();
    let report = offline.trace(&ask("a", "b")).unwrap();
    assert_eq!(report.verdict.outcome, Outcome::Delivered);
    let assumed = report.assumptions.join("\n");
    for line in ["no network config", "its subnet is 10.7.1.0/24", "192.0.2.1", "wrong.yaml"] {
        assert!(assumed.contains(line), "{line} in {assumed}");
    }
    let report = offline.trace(&ask("a", "10.7.2.2")).unwrap();
    assert_eq!(report.verdict.reason.as_deref(), Some("no_route"));
}

#[test]
fn what_a_network_must_not_say_is_refused() {
    let mut documents = documents();
    documents[0].1 = r#"{"Network":"10.244.0.0/33"}"#.to_owned();
    let root = directory(&documents);
    assert!(matches!(Offline::read(root.path(), &options(Some("n1"))), Err(OfflineError::Config(_))));
    documents[0].1 = CONFIG.replace("vxlan", "wireguard");
    let root = directory(&documents);
    assert!(matches!(Offline::read(root.path(), &options(Some("n1"))), Err(OfflineError::Backend(_))));
}

#[test]
fn direct_routing_assumes_one_link() {
    let mut documents = documents();
    documents[0].1 =
        r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#.to_owned();
    let root = directory(&documents);
    let offline = Offline::read(root.path(), &options(Some("n1"))).unwrap();
    let report = offline.trace(&ask("a", "10.244.2.2")).unwrap();
    assert_eq!(report.verdict.to.as_deref(), Some("direct 192.0.2.12"));
    assert!(report.assumptions.iter().any(|line| line.contains("on one link")), "{:?}", report.assumptions);
}
