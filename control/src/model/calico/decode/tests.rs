//! Keys and bytes, and what comes of them.

use super::super::keys::{BLOCKS, RESOURCES_PREFIX};
use super::super::resources::{Action, Port, Rule};
use super::*;

fn read(key: &str, value: &str) -> Result<(Decoded, Vec<String>), String> {
    read_as(key, value, Quirks::default())
}

fn read_as(key: &str, value: &str, quirks: Quirks) -> Result<(Decoded, Vec<String>), String> {
    let full = if key.starts_with('/') { key.to_owned() } else { format!("{RESOURCES_PREFIX}{key}") };
    let shown = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect();
    match decode(&full, value.as_bytes(), quirks) {
        Ok((decoded, problems)) => Ok((decoded, shown(problems))),
        Err(problem) => Err(problem.to_string()),
    }
}

fn workload(spec: &str) -> Result<WorkloadEndpoint, String> {
    let value = format!(
        r#"{{"kind":"WorkloadEndpoint","metadata":{{"labels":{{"app":"web","pcns.a":"b"}}}},"spec":{spec}}}"#
    );
    match read("workloadendpoints/default/node--1-k8s-web-eth0", &value)? {
        (Decoded::Workload(key, endpoint), problems) if problems.is_empty() => {
            assert_eq!(key.to_string(), "default/node--1-k8s-web-eth0");
            Ok(endpoint)
        }
        other => Err(format!("{other:?}")),
    }
}

fn policy(spec: &str, quirks: Quirks) -> Result<(Policy, Vec<String>), String> {
    match read_as("globalnetworkpolicies/default.x", &format!(r#"{{"spec":{spec}}}"#), quirks)? {
        (Decoded::Policy(_, policy), problems) => Ok((policy, problems)),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_usual_endpoint() {
    let endpoint = workload(
        r#"{"node":"node-1","InterfaceName":"cali0","ipNetworks":["fd00::5/128","10.244.1.5","10.244.1.5/32"],
            "mac":"EE-00-00-00-00-01","profiles":["kns.default"],"serviceAccountName":"sa",
            "ports":[{"name":"http","protocol":"TCP","port":80},{"protocol":"TCP","port":81}],
            "ipNATs":[{"internalIP":"10.244.1.5","externalIP":"192.0.2.1"}]}"#,
    )
    .unwrap();
    assert_eq!((&*endpoint.node, &*endpoint.interface), ("node-1", "cali0"));
    assert_eq!(*endpoint.networks, ["10.244.1.5/32", "fd00::5/128"].map(|net| net.parse().unwrap()));
    assert_eq!(endpoint.mac, Some("ee:00:00:00:00:01".parse().unwrap()));
    let labels: Vec<_> = endpoint.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let expected = ["app=web", "projectcalico.org/namespace=default", "projectcalico.org/serviceaccount=sa"];
    assert_eq!(labels, expected);
    assert_eq!(endpoint.ports.iter().map(|port| (port.protocol, port.port)).collect::<Vec<_>>(), [(6, 80)]);
    assert_eq!(endpoint.floating[0].external.to_string(), "192.0.2.1");
}

#[test]
fn an_endpoint_without_addresses_is_none() {
    for spec in [r#"{"interfaceName":"cali0","ipNetworks":null}"#, "null", "{}"] {
        let value = format!(r#"{{"metadata":null,"spec":{spec}}}"#);
        let read = read("workloadendpoints/default/n-k8s-web-eth0", &value).unwrap();
        assert!(matches!(read.0, Decoded::NoWorkload(_)), "{spec}");
    }
}

#[test]
fn one_bad_member_costs_the_endpoint() {
    for (members, complaint) in [
        (r#""node":"other","interfaceName":"cali0""#, "spec.node is \"other\""),
        (r#""interfaceName":"""#, "spec.interfaceName: \"\" is no name"),
        (r#""interfaceName":"a/b""#, "\"a/b\" is no name of an interface"),
        (r#""interfaceName":"0123456789abcdef""#, "is no name of an interface"),
        (r#""interfaceName":"cali0","ipNetworks":["0.0.0.0/0"]"#, "\"0.0.0.0/0\" is no single address"),
        (r#""interfaceName":"cali0","ipNetworks":["10.0.0.1/32","x"]"#, "\"x\" is no network or address"),
        (r#""interfaceName":"cali0","ipNetworks":"10.0.0.1/32""#, "expected a sequence"),
        (r#""interfaceName":"cali0","mac":"01:00:5e:00:00:01""#, "is no Ethernet address of a station"),
        (r#""interfaceName":"cali0","mac":"nonsense""#, "is no Ethernet address"),
        (r#""interfaceName":"cali0","ipv4Gateway":"nonsense""#, "is no address"),
        (
            r#""interfaceName":"cali0","ports":[{"name":"a","protocol":"ICMP","port":1}]"#,
            "no protocol with ports",
        ),
        (r#""interfaceName":"cali0","ports":[{"name":"a","protocol":"TCP","port":0}]"#, "\"0\" is no port"),
        (r#""interfaceName":"cali0","ports":[{"name":"a","protocol":"TCP","port":70000}]"#, "not the JSON"),
    ] {
        // The first of two members with one name loses.
        let error = workload(&format!(r#"{{"ipNetworks":["10.0.0.1/32"],{members}}}"#)).unwrap_err();
        assert!(error.contains(complaint), "{members}: {error}");
    }
}

#[test]
fn keys_and_kinds_must_agree() {
    for (key, value, complaint) in [
        ("networkpolicies/x", "{}", "not a key of a resource"),
        ("tiers/a/b", "{}", "not a key"),
        ("profiles/a;b", "{}", "names hold letters"),
        ("profiles/a..b", "{}", "names hold letters"),
        ("profiles/a\0", "{}", "names hold letters"),
        ("networkpolicies/n's/x", "{}", "names hold letters"),
        (
            "profiles/a",
            r#"{"kind":"Tier"}"#,
            "the key is that of a Profile, the value says that it is a \"Tier\"",
        ),
        ("profiles/a", "", "not the JSON of such an object"),
        ("profiles/a", "[]", "not the JSON of such an object"),
        ("felixconfigurations/other", "{}", "settings are called"),
        ("clusterinformations/default", r#"{"spec":{"datastoreReady":"yes"}}"#, "no true or false"),
        ("/calico/other", "{}", "not a key"),
    ] {
        let error = read(key, value).unwrap_err();
        assert!(error.contains(complaint), "{key}: {error}");
    }
    for (key, kind) in [("stagednetworkpolicies/a/b", Some(Kind::StagedNetworkPolicy)), ("whatever/a", None)]
    {
        assert_eq!(read(key, "no JSON").unwrap().0, Decoded::Unused(kind));
    }
}

#[test]
fn an_unreadable_network_makes_the_rule_unreadable_or_wider() {
    let spec = r#"{"ingress":[{"action":"Allow","source":{"nets":["300.1.1.1/8"]}}]}"#;
    let (strict, problems) = policy(spec, Quirks::default()).unwrap();
    let rule = &strict.ingress.as_ref().unwrap()[0];
    assert!(rule.unreadable && rule.source.nets.as_ref().is_some_and(Vec::is_empty));
    assert_eq!(problems, ["ingress rule 1: source.nets: \"300.1.1.1/8\" is no network or address"]);
    let (lax, problems) = policy(spec, Quirks::FELIX).unwrap();
    let rule = &lax.ingress.as_ref().unwrap()[0];
    assert!(!rule.unreadable && rule.source.nets.is_none() && problems.is_empty());
    let destination = spec.replace("source", "destination");
    assert!(policy(&destination, Quirks::FELIX).unwrap().0.ingress.unwrap()[0].unreadable);
}

#[test]
fn an_unreadable_port_makes_the_rule_unreadable_or_the_policy_missing() {
    let spec = r#"{"egress":[{"action":"Allow","protocol":"TCP","destination":{"ports":[80,"90:80"],"notPorts":["http"]}}]}"#;
    let (strict, _) = policy(spec, Quirks::default()).unwrap();
    let rule = &strict.egress.unwrap()[0];
    assert!(rule.unreadable);
    assert_eq!(rule.destination.ports, Some(vec![Port::Range(80, 80)]));
    assert_eq!(rule.destination.not_ports, [Port::Named("http".into())]);
    assert!(policy(spec, Quirks::FELIX).is_err());
}

#[test]
fn what_felix_refuses_a_policy_for() {
    for (spec, complaint) in [
        (r#"{"selector":"a = 'b'"}"#, "spec.selector: selector makes no sense at byte 2"),
        (r#"{"ingress":[{"source":{"selector":"a 'b'"}}]}"#, "ingress rule 1: source.selector"),
        (
            r#"{"egress":[{},{"source":{"namespaceSelector":"a 'b'"}}]}"#,
            "egress rule 2: source.namespaceSelector",
        ),
        (
            r#"{"ingress":[{"source":{"serviceAccounts":{"selector":"a 'b'"}}}]}"#,
            "source.serviceAccounts.selector",
        ),
        (r#"{"ingress":[{"destination":{"notSelector":"a 'b'"}}]}"#, "destination: selector makes no sense"),
        (r#"{"ingress":[{"destination":{"ports":[80]}}]}"#, "ports need the protocol"),
        (r#"{"ingress":[{"protocol":"ICMP","destination":{"ports":[80]}}]}"#, "ports need the protocol"),
        (r#"{"ingress":[{"protocol":"TCP","destination":{"ports":[0]}}]}"#, "\"0\" is no port"),
        (r#"{"ingress":[{"protocol":"esp"}]}"#, "protocol: \"esp\" is no protocol"),
        (r#"{"ingress":[{"protocol":256}]}"#, "not the JSON"),
        (r#"{"ingress":[{"ipVersion":5}]}"#, "\"5\" is no version of IP"),
        (r#"{"ingress":[{"icmp":{"type":255}}]}"#, "\"255\" is no ICMP type or code"),
        (r#"{"ingress":[{"notICMP":{"type":3,"code":256}}]}"#, "\"256\" is no ICMP type or code"),
    ] {
        for quirks in [Quirks::default(), Quirks::FELIX] {
            let error = policy(spec, quirks).unwrap_err();
            assert!(
                error.contains(complaint) || error.contains("spec.selector, completed"),
                "{spec}: {error}"
            );
        }
    }
}

#[test]
fn a_profile_with_refused_rules_keeps_its_labels_and_denies() {
    let value = r#"{"spec":{"labelsToApply":{"a":"b"},"egress":[{"action":"Allow"}],
        "ingress":[{"action":"Allow","source":{"selector":"a 'b'"}}]}}"#;
    let Ok((Decoded::Profile(_, profile), problems)) = read("profiles/a", value) else {
        panic!("no profile")
    };
    assert_eq!(profile.ingress, [Rule::any(Action::Deny)]);
    assert_eq!(profile.egress, [Rule::any(Action::Deny)]);
    assert_eq!((profile.labels.len(), problems.len()), (1, 1));
}

#[test]
fn selectors_that_would_widen_a_policy_are_refused() {
    for spec in [
        r#"{"namespaceSelector":"team 'a'"}"#,
        r#"{"serviceAccountSelector":"role 'a'"}"#,
        r#"{"ingress":[{"source":{"serviceAccounts":{"names":["a'b"]}}}]}"#,
        r#"{"ingress":[{"source":{"serviceAccounts":{"names":["a' } || all() || a in { 'b"]}}}]}"#,
    ] {
        assert!(policy(spec, Quirks::default()).is_err(), "{spec}");
        assert!(policy(spec, Quirks::FELIX).is_ok(), "{spec}");
    }
}

#[test]
fn actions_and_directions() {
    let spec = r#"{"types":["INGRESS"],"order":-1.5,"ingress":[{"action":"Allow"},{"action":"Pass"},{"action":"pass"},
        {"action":"Log"},{"action":"Nuke"},{"protocol":"ICMPv6","icmp":{"code":1}}],"egress":[{}]}"#;
    let (strict, _) = policy(spec, Quirks::default()).unwrap();
    let rules = strict.ingress.unwrap();
    let actions: Vec<_> = rules.iter().map(|rule| rule.action).collect();
    let expected = [Action::Allow, Action::Pass, Action::Pass, Action::Log, Action::Deny, Action::Deny];
    assert_eq!(actions, expected);
    assert_eq!((rules[5].ip_version, rules[5].protocol, rules[5].icmp), (Some(6), Some(58), None));
    assert_eq!((strict.egress, strict.order, &*strict.tier), (None, Some(-1.5), "default"));
    assert_eq!(policy(spec, Quirks::FELIX).unwrap().0.ingress.unwrap()[5].action, Action::Allow);
    let (both, _) = policy("{}", Quirks::default()).unwrap();
    assert_eq!((both.ingress, both.egress, both.order), (Some(vec![]), Some(vec![]), None));
}

#[test]
fn a_block_and_its_borrowers() {
    let value = r#"{"cidr":"10.0.0.0/30","affinity":"host:a","allocations":[0,null,1,2,0],"unallocated":null,
        "attributes":[{"handle_id":"x","secondary":{"node":"a"}},{"secondary":null}]}"#;
    let key = format!("{BLOCKS}ipv4/block/10.0.0.0-30");
    let (decoded, problems) = read(&key, value).unwrap();
    let expected = Block {
        cidr: "10.0.0.0/30".parse().unwrap(),
        node: Some("a".into()),
        allocations: vec![(0, Some("a".into())), (2, None)],
    };
    assert_eq!(decoded, Decoded::Block(expected.cidr, expected));
    assert_eq!(problems.len(), 2, "no third attribute, no fifth address: {problems:?}");
    let node = |value: &str| match read(&key, value) {
        Ok((Decoded::Block(_, block), _)) => block.node,
        other => panic!("{other:?}"),
    };
    assert_eq!(node(r#"{"cidr":"10.0.0.0/30","affinity":null,"hostAffinity":"b"}"#).as_deref(), Some("b"));
    assert_eq!(node(r#"{"cidr":"10.0.0.0/30","affinity":"virtual:lb"}"#), None);
    assert!(read(&key, r#"{"cidr":"10.0.0.0/26"}"#).is_err());
}

#[test]
fn a_node_keeps_what_can_be_read() {
    let value = r#"{"spec":{"bgp":{"ipv4Address":"192.0.2.1/24","ipv6Address":"nonsense","ipv4IPIPTunnelAddr":"10.0.0.1"},
        "ipv4VXLANTunnelAddr":"10.244.0.1","ipv6VXLANTunnelAddr":"fd00::1","vxlanTunnelMACAddr":"66:00:00:00:00:01",
        "addresses":[{"type":"Hostname","address":"a"},{"type":"ExternalIP","address":"2001:db8::1"}]},
        "status":{"podCIDRs":["10.244.0.0/24","x"]}}"#;
    let Ok((Decoded::Node(_, node), problems)) = read("nodes/a", value) else { panic!("no node") };
    assert_eq!(
        (node.ipv4, node.ipv4_network),
        (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.0/24".parse().unwrap()))
    );
    assert_eq!((node.ipv6, node.ipv6_network), (Some("2001:db8::1".parse().unwrap()), None));
    assert_eq!(
        (node.vxlan_v4, node.vxlan_v6),
        (Some("10.244.0.1".parse().unwrap()), Some("fd00::1".parse().unwrap()))
    );
    assert_eq!((node.vxlan_mac, node.vxlan_mac_v6), (Some("66:00:00:00:00:01".parse().unwrap()), None));
    assert_eq!((node.pod_cidrs.len(), node.addresses.len(), problems.len()), (1, 1, 2));
}

#[test]
fn labels_of_sets_and_hosts_are_those_of_kubernetes() {
    for key in ["networksets/ns/a", "globalnetworksets/a", "hostendpoints/a"] {
        let value = |label: &str| {
            format!(
                r#"{{"metadata":{{"labels":{{"a":"{label}"}}}},"spec":{{"node":"n","interfaceName":"*"}}}}"#
            )
        };
        assert!(read(key, &value("b")).is_ok());
        assert!(read(key, &value("not one")).unwrap_err().contains("no value of a label"));
    }
    assert!(read("hostendpoints/a", "{}").unwrap_err().contains("spec.node is missing"));
}

#[test]
fn tiers_and_service_networks() {
    let tier = |value: &str| match read("tiers/a", value) {
        Ok((Decoded::Tier(_, tier), _)) => (tier.order, tier.ends_with_pass),
        other => panic!("{other:?}"),
    };
    assert_eq!(tier(r#"{"spec":{"order":null}}"#), (1_000_000.0, false));
    assert_eq!(tier(r#"{"spec":{"order":5,"defaultAction":"Pass"}}"#), (5.0, true));
    let value =
        r#"{"spec":{"serviceClusterIPs":[{"cidr":"10.96.0.0/12"}],"serviceExternalIPs":[{"cidr":"?"}]}}"#;
    let (decoded, problems) = read("bgpconfigurations/default", value).unwrap();
    assert_eq!(decoded, Decoded::ServiceNets(vec!["10.96.0.0/12".parse().unwrap()]));
    assert_eq!(problems.len(), 1);
    assert_eq!(
        read("bgpconfigurations/node.a", value).unwrap().0,
        Decoded::Unused(Some(Kind::BgpConfiguration))
    );
}
