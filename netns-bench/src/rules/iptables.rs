//! The policies for iptables and ipset, in the form of Calico's agent, as far as it is on a packet's way: dispatch by
//! interface, a chain for each end of an endpoint, established connections first, then a chain for each policy.

use super::{Policies, Policy};
use anyhow::Result;
use netns_tests::Netns;

/// Mark of a packet that a policy has accepted, with its mask.
const ACCEPTED: &str = "0x10000/0x10000";
/// The same to take it off.
const CLEAR: &str = "0x0/0x10000";

/// Makes `ns` enforce `policies` for the pod behind `interface`.
pub fn install(ns: &Netns, interface: &str, policies: &Policies) -> Result<()> {
    ns.run_with(&["ipset", "restore"], &sets(policies))?;
    ns.run_with(&["iptables-legacy-restore"], &rules(interface, policies)).map(drop)
}

fn sets(policies: &Policies) -> String {
    let mut text = String::new();
    for set in 0..policies.sets() {
        text += &format!("create s{set} hash:net maxelem 1048576\n");
        for address in policies.members(set) {
            text += &format!("add s{set} {address}\n");
        }
    }
    text
}

fn rules(interface: &str, policies: &Policies) -> String {
    let mut text = String::from("*filter\n:FORWARD DROP [0:0]\n:cali-FORWARD - [0:0]\n");
    for chain in ["from-wl", "to-wl", "fw", "tw"] {
        text += &format!(":cali-{chain} - [0:0]\n");
    }
    for n in 0..policies.all().count() {
        text += &format!(":cali-po-{n} - [0:0]\n:cali-pi-{n} - [0:0]\n");
    }
    text += "-A FORWARD -j cali-FORWARD\n";
    text += &format!("-A cali-FORWARD -j MARK --set-xmark {CLEAR}\n");
    text += &format!("-A cali-FORWARD -i {interface} -j cali-from-wl\n");
    text += &format!("-A cali-FORWARD -o {interface} -j cali-to-wl\n");
    text += &format!("-A cali-FORWARD -m mark --mark {ACCEPTED} -j ACCEPT\n");
    text += &format!("-A cali-from-wl -i {interface} -g cali-fw\n-A cali-from-wl -j DROP\n");
    text += &format!("-A cali-to-wl -o {interface} -g cali-tw\n-A cali-to-wl -j DROP\n");
    text += &endpoint("fw", "po", "dst", policies);
    text += &endpoint("tw", "pi", "src", policies);
    text + "COMMIT\n"
}

/// One end of the pod: `side` is where the peer's address stands.
fn endpoint(chain: &str, prefix: &str, side: &str, policies: &Policies) -> String {
    let mut text = format!("-A cali-{chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
    text += &format!("-A cali-{chain} -m conntrack --ctstate INVALID -j DROP\n");
    text += &format!("-A cali-{chain} -j MARK --set-xmark {CLEAR}\n");
    for (n, Policy { set, tcp_port }) in policies.all().enumerate() {
        let port = tcp_port.map_or_else(String::new, |port| format!("-p tcp -m tcp --dport {port} "));
        let matched = format!("{port}-m set --match-set s{set} {side}");
        text += &format!("-A cali-{chain} -m mark --mark 0x0/0x20000 -j cali-{prefix}-{n}\n");
        text += &format!("-A cali-{chain} -m mark --mark {ACCEPTED} -j RETURN\n");
        text += &format!("-A cali-{prefix}-{n} {matched} -j MARK --set-xmark {ACCEPTED}\n");
        text += &format!("-A cali-{prefix}-{n} -m mark --mark {ACCEPTED} -j RETURN\n");
    }
    text + &format!("-A cali-{chain} -j DROP\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_a_chain_for_each_direction() {
        let policies = Policies::new(3, vec![[10, 244, 2, 2].into()]);
        let text = rules("cali0", &policies);
        let count = |what: &str| text.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!((count(":cali-po-"), count(":cali-pi-")), (3, 3));
        assert_eq!(text.matches("--match-set s2 dst").count(), 1);
        assert_eq!(text.matches("--match-set s2 src").count(), 1);
        assert_eq!(sets(&policies).matches("10.244.2.2").count(), 1);
    }
}
