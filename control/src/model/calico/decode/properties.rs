//! What holds for whatever somebody writes into the datastore.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::keys::RESOURCES_PREFIX;
use super::super::resources::Rule;
use super::super::selector::Selector;
use super::super::v1::NAMESPACE_LABEL;
use super::*;

/// Selectors, and attempts at breaking out of what they are put into.
fn selector_text() -> impl Strategy<Value = String> {
    let parts = [
        "",
        " ",
        "all()",
        "global()",
        "has(a)",
        "a == 'b'",
        "!has(projectcalico.org/namespace)",
        "a == 'b') || (all()",
        "all() || all()",
        "a == \"all()\"",
        "!all()",
        "a 'b'",
        "(",
        "'",
        "b' || all() || c == 'd",
        "has(a) && !has(b)",
        "projectcalico.org/namespace == 'other'",
        "projectcalico.org/namespace != 'ns'",
    ];
    prop_oneof![
        8 => prop::sample::select(parts.to_vec()).prop_map(str::to_owned),
        2 => "[ab!=&|(){}'\" ]{0,12}",
    ]
}

fn member<V: Strategy<Value = Value>>(value: V) -> impl Strategy<Value = Value> {
    prop_oneof![1 => Just(Value::Null), 4 => value]
}

fn texts(values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    member(prop::collection::vec(prop::sample::select(values), 0..3).prop_map(|list| json!(list)))
}

fn port() -> impl Strategy<Value = Value> {
    let values =
        [json!(80), json!(0), json!("http"), json!("80:90"), json!("90:80"), json!(70000), json!(null)];
    prop::sample::select(values.to_vec())
}

fn entity() -> impl Strategy<Value = Value> {
    let nets = || texts(&["10.0.0.0/8", "10.1.2.3", "fd00::/8", "300.1.1.1", "10.0.0.0/33", ""]);
    let names = || texts(&["sa", "a'b", "a' } || all() || a in { 'b", "a', 'b"]);
    let ports = || member(prop::collection::vec(port(), 0..3).prop_map(Value::from));
    (nets(), nets(), selector_text(), selector_text(), selector_text(), names(), selector_text(), ports(), ports())
        .prop_map(|(nets, not_nets, selector, not_selector, namespaces, names, accounts, ports, not_ports)| {
            json!({
                "nets": nets, "notNets": not_nets, "selector": selector, "notSelector": not_selector,
                "namespaceSelector": namespaces, "serviceAccounts": {"names": names, "selector": accounts},
                "ports": ports, "notPorts": not_ports,
            })
        })
}

/// Simple sides are frequent, or hardly any rule would make sense.
fn side() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just(json!({})),
        3 => selector_text().prop_map(|selector| json!({ "selector": selector })),
        1 => selector_text().prop_map(|selector| json!({ "notSelector": selector })),
        2 => entity(),
    ]
}

fn rule() -> impl Strategy<Value = Value> {
    let pick = |values: &[Value]| prop::sample::select(values.to_vec());
    let action = pick(&[json!("Allow"), json!("Deny"), json!("pass"), json!("Nuke"), json!(null)]);
    let protocol =
        pick(&[json!(null), json!("TCP"), json!("udp"), json!(6), json!("ICMP"), json!("esp"), json!(0)]);
    let icmp = pick(&[json!(null), json!({"type": 8}), json!({"code": 1}), json!({"type": 255})]);
    (action, protocol, icmp, side(), side()).prop_map(|(action, protocol, icmp, source, destination)| {
        json!({
            "action": action, "protocol": protocol, "icmp": icmp, "source": source, "destination": destination,
        })
    })
}

fn policy() -> impl Strategy<Value = Value> {
    let rules = || member(prop::collection::vec(rule(), 0..3).prop_map(Value::from));
    let types = texts(&["Ingress", "egress", "other"]);
    (rules(), rules(), selector_text(), selector_text(), selector_text(), types).prop_map(
        |(ingress, egress, selector, accounts, namespaces, types)| {
            json!({ "spec": {
                "ingress": ingress, "egress": egress, "selector": selector, "serviceAccountSelector": accounts,
                "namespaceSelector": namespaces, "types": types,
            }})
        },
    )
}

fn read(rest: &str, value: &Value, quirks: Quirks) -> Result<Policy, Problem> {
    match decode(&format!("{RESOURCES_PREFIX}{rest}"), value.to_string().as_bytes(), quirks)? {
        (Decoded::Policy(_, policy), _) => Ok(policy),
        other => panic!("{other:?}"),
    }
}

fn rules(policy: &Policy) -> impl Iterator<Item = &Rule> {
    policy.ingress.iter().chain(&policy.egress).flatten()
}

/// Whether an object of this namespace, with some labels, is selected.
fn selects(selector: &Selector, namespace: &str) -> bool {
    let label = |name: &str| match name {
        NAMESPACE_LABEL => Some(namespace),
        "a" | "projectcalico.org/serviceaccount" => Some("b"),
        _ => None,
    };
    selector.matches(label)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_namespaced_policy_stays_in_its_namespace(value in policy()) {
        if let Ok(policy) = read("networkpolicies/ns/x", &value, Quirks::default()) {
            prop_assert!(!selects(&policy.selector, "other"), "{}", policy.selector);
            let directions = [("ingress", &policy.ingress), ("egress", &policy.egress)];
            for (name, typed) in directions {
                let written = value["spec"][name].as_array().cloned().unwrap_or_default();
                for (rule, written) in typed.iter().flatten().zip(written) {
                    for (side, name) in [(&rule.source, "source"), (&rule.destination, "destination")] {
                        let widened = written[name]["namespaceSelector"].as_str().is_some_and(|text| !text.is_empty());
                        if let Some(selector) = side.selector.as_ref().filter(|_| !widened) {
                            prop_assert!(!selects(selector, "other"), "{selector}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn we_are_never_wider_than_felix(value in policy()) {
        for rest in ["networkpolicies/ns/x", "globalnetworkpolicies/x"] {
            let strict = read(rest, &value, Quirks::default());
            let Ok(felix) = read(rest, &value, Quirks::FELIX) else { continue };
            let Ok(strict) = strict else { continue };
            // What both take is the same, but for rules of which a part cannot be read.
            prop_assert_eq!(&strict.selector, &felix.selector);
            for (ours, theirs) in rules(&strict).zip(rules(&felix)) {
                let mut alike = ours.clone();
                if ours.unreadable {
                    alike.unreadable = theirs.unreadable;
                    alike.source = theirs.source.clone();
                    alike.destination = theirs.destination.clone();
                }
                // No action is a denial here.
                alike.action = theirs.action;
                prop_assert_eq!(&alike, theirs);
                prop_assert!(ours.action == theirs.action || ours.action == super::super::resources::Action::Deny);
            }
        }
    }

    #[test]
    fn networks_have_no_host_bits(value in policy()) {
        for quirks in [Quirks::default(), Quirks::FELIX] {
            let Ok(policy) = read("globalnetworkpolicies/x", &value, quirks) else { continue };
            for side in rules(&policy).flat_map(|rule| [&rule.source, &rule.destination]) {
                let nets = side.nets.iter().flatten().chain(&side.not_nets);
                prop_assert!(nets.clone().all(|net| net.ip() == net.network()));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        value in "(\\{\"(spec|metadata|kind|status)\":)?[\\[\\]{}\",:a-z0-9null.-]{0,40}\\}?",
    ) {
        let name = if kind.namespaced() { "ns/n-k8s-p-e" } else { "default" };
        for quirks in [Quirks::default(), Quirks::FELIX] {
            let key = format!("{}{name}", kind.prefix());
            let read = decode(&key, value.as_bytes(), quirks);
            prop_assert!(read.is_err() || serde_json::from_str::<Value>(&value).is_ok() || matches!(read, Ok((Decoded::Unused(_), _))));
        }
    }
}
