//! The policies as Calico's resources: what an agent, ours or Calico's, starts from.

use super::{Policies, Policy};
use netns_tests::calico::{Kind, Resource};
use serde_json::{Value, json};

/// The label by which the policies select the pod.
pub const LABEL: (&str, &str) = ("bench", "pod");

/// Every resource: the sets of addresses, then the policies.
pub fn resources(policies: &Policies) -> Vec<Resource> {
    let sets = (0..policies.sets()).map(|set| network_set(policies, set));
    sets.chain(policies.all().enumerate().map(|(n, policy)| resource(n, policy))).collect()
}

/// The interface `interface` of `node` as what the policies select.
pub fn host_endpoint(node: &str, interface: &str) -> Resource {
    let spec = json!({"node": node, "interfaceName": interface});
    Resource::global(Kind::HostEndpoint, &format!("{node}-{interface}"), spec)
        .labelled(json!({LABEL.0: LABEL.1}))
}

fn network_set(policies: &Policies, set: usize) -> Resource {
    let nets: Vec<String> = policies.members(set).iter().map(|a| format!("{a}/32")).collect();
    Resource::global(Kind::GlobalNetworkSet, &format!("s{set}"), json!({"nets": nets}))
        .labelled(json!({"set": format!("s{set}")}))
}

fn resource(n: usize, Policy { set, tcp_port }: Policy) -> Resource {
    let rule = |side: &str| -> Value {
        let mut rule = json!({"action": "Allow", "source": {}, "destination": {}});
        rule[side] = json!({"selector": format!("set == 's{set}'")});
        if let Some(port) = tcp_port {
            rule["protocol"] = json!("TCP");
            rule["destination"]["ports"] = json!([port]);
        }
        rule
    };
    let spec = json!({
        "order": n,
        "selector": format!("{} == '{}'", LABEL.0, LABEL.1),
        // For host endpoints: what passes the host is meant. For pods it says nothing.
        "applyOnForward": true,
        "types": ["Ingress", "Egress"],
        "ingress": [rule("source")],
        "egress": [rule("destination")],
    });
    Resource::global(Kind::GlobalNetworkPolicy, &format!("default.p{n:05}"), spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_say_what_the_policies_say() {
        let all = resources(&Policies::new(2, vec![[10, 244, 2, 2].into()]));
        let values: Vec<Value> = all.iter().map(Resource::value).collect();
        assert_eq!(values.len(), 4);
        assert_eq!(values[1]["spec"]["nets"], json!(["10.244.2.2/32"]));
        assert_eq!(values[3]["spec"]["ingress"][0]["source"]["selector"], "set == 's1'");
        assert_eq!(values[3]["spec"]["egress"][0]["destination"]["selector"], "set == 's1'");
    }
}
