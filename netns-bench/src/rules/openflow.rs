//! The policies for Open vSwitch: stateful, by its own tracking of connections, in OpenFlow.

use super::{Policies, Policy};
use std::fmt::Write;
use std::net::Ipv4Addr;

/// Numbers of the ports in the flows.
pub const POD_PORT: u16 = 1;
/// The tunnel.
pub const TUNNEL_PORT: u16 = 2;

/// What is done to packets that may pass, as OpenFlow actions, by direction.
#[derive(Clone, Debug)]
pub struct Actions {
    /// From the pod into the tunnel.
    pub out: String,
    /// Out of the tunnel to the pod.
    pub into: String,
}

/// The flows, one a line; without policies everything passes.
pub fn flows(pod: Ipv4Addr, actions: &Actions, policies: Option<&Policies>) -> String {
    let Actions { out, into } = actions;
    let (from_pod, to_pod) =
        (format!("in_port={POD_PORT},ip"), format!("in_port={TUNNEL_PORT},ip,nw_dst={pod}"));
    let Some(policies) = policies else {
        return format!("priority=10,{from_pod},actions={out}\npriority=10,{to_pod},actions={into}\n");
    };
    let mut text = format!("table=0,priority=10,{from_pod},actions=ct(table=1,zone=1)\n");
    text += &format!("table=0,priority=10,{to_pod},actions=ct(table=2,zone=1)\n");
    let blocks: Vec<Vec<String>> = (0..policies.sets()).map(|set| blocks(policies.members(set))).collect();
    for (table, side, actions) in [(1, "nw_dst", out), (2, "nw_src", into)] {
        text += &format!("table={table},priority=20,ct_state=+trk+est,ip,actions={actions}\n");
        text += &format!("table={table},priority=20,ct_state=+trk+inv,ip,actions=drop\n");
        for Policy { set, tcp_port } in policies.all() {
            let protocol = tcp_port.map_or_else(|| "ip".to_owned(), |port| format!("tcp,tp_dst={port}"));
            for block in &blocks[set] {
                // All allow: their order does not matter, and with one priority the switch has less to look for.
                writeln!(
                    text,
                    "table={table},priority=10,ct_state=+trk+new,{protocol},{side}={block},actions=ct(commit,zone=1),{actions}"
                )
                .expect("text grows");
            }
        }
    }
    text
}

/// The fewest prefixes that hold these addresses and no other.
fn blocks(mut addresses: Vec<Ipv4Addr>) -> Vec<String> {
    addresses.sort_unstable();
    addresses.dedup();
    let numbers: Vec<u32> = addresses.into_iter().map(u32::from).collect();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(first) = numbers.get(at) {
        let fits = |bits: &u32| {
            let size = 1_usize << bits;
            let last = numbers.get(at + size - 1);
            first.trailing_zeros() >= *bits && last.is_some_and(|last| last - first == size as u32 - 1)
        };
        let bits = (0..=16).take_while(fits).last().unwrap_or(0);
        found.push(format!("{}/{}", Ipv4Addr::from(*first), 32 - bits));
        at += 1 << bits;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_as_few_prefixes_as_possible() {
        let address = |last| Ipv4Addr::new(10, 0, 1, last);
        assert_eq!(blocks((0..=255).map(address).collect()), ["10.0.1.0/24"]);
        assert_eq!(
            blocks([3, 4, 5, 6, 7, 9].map(address).to_vec()),
            ["10.0.1.3/32", "10.0.1.4/30", "10.0.1.9/32"]
        );
        assert_eq!(blocks(vec![]), [""; 0]);
    }

    #[test]
    fn each_policy_has_a_flow_for_each_direction() {
        let actions = Actions { out: "output:2".into(), into: "output:1".into() };
        let (pod, peer) = (Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 2, 2));
        let text = flows(pod, &actions, Some(&Policies::new(3, vec![peer])));
        assert_eq!(text.matches("+trk+new").count(), 6);
        assert_eq!(
            (text.matches("nw_dst=10.244.2.2").count(), text.matches("nw_src=10.244.2.2").count()),
            (1, 1)
        );
        assert!(text.contains("tcp,tp_dst=2"), "{text}");
        assert_eq!(flows(pod, &actions, None).lines().count(), 2);
    }
}
