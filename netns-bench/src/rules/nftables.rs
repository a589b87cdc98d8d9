//! The policies for nftables, in its own idiom: dispatch by a map of interfaces, the state of the connection by a map, a named
//! set and a chain for each policy.

use super::{Policies, Policy};
use anyhow::Result;
use netns_tests::Netns;

/// Makes `ns` enforce `policies` for the pod behind `interface`.
pub fn install(ns: &Netns, interface: &str, policies: &Policies) -> Result<()> {
    ns.run_with(&["nft", "-f", "-"], &ruleset(interface, policies)).map(drop)
}

fn ruleset(interface: &str, policies: &Policies) -> String {
    let mut text = String::from("table ip cali {\n");
    for set in 0..policies.sets() {
        let members: Vec<String> = policies.members(set).iter().map(ToString::to_string).collect();
        text += &format!("set s{set} {{ type ipv4_addr; elements = {{ {} }}; }}\n", members.join(", "));
    }
    for (prefix, side) in [("po", "daddr"), ("pi", "saddr")] {
        for (n, Policy { set, tcp_port }) in policies.all().enumerate() {
            let port = tcp_port.map_or_else(String::new, |port| format!("tcp dport {port} "));
            text += &format!("chain {prefix}{n} {{ {port}ip {side} @s{set} accept; }}\n");
        }
        text += &format!("chain ep-{prefix} {{\n");
        text += "ct state vmap { established : accept, related : accept, invalid : drop }\n";
        for n in 0..policies.all().count() {
            text += &format!("jump {prefix}{n}\n");
        }
        text += "drop\n}\n";
    }
    text += "chain forward { type filter hook forward priority 0; policy drop;\n";
    text += &format!("iifname vmap {{ \"{interface}\" : goto ep-po }}\n");
    text += &format!("oifname vmap {{ \"{interface}\" : goto ep-pi }}\n");
    text + "}\n}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_a_chain_for_each_direction() {
        let text = ruleset("cali0", &Policies::new(3, vec![[10, 244, 2, 2].into()]));
        assert_eq!((text.matches("jump po").count(), text.matches("jump pi").count()), (3, 3));
        assert_eq!(text.matches("@s2").count(), 2);
        assert_eq!(text.matches("10.244.2.2").count(), 1);
    }
}
