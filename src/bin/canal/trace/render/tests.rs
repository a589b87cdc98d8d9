use canal::trace::Tracer;
use canal::trace::question::{From, Protocol, Question};
use canal_dataplane::net::{HashSeed, Mac, Vni};
use canal_dataplane::spec::policy::EndpointPolicy;
use canal_dataplane::spec::{Endpoint, LocalVtep, NodeSpec, Route, Via, Vtep, Vxlan};
use canal_dataplane::tables::compile;

use super::*;

/// A pod at 10.1.1.2 and a peer with 10.1.2.0/24.
fn spec() -> NodeSpec {
    let local = LocalVtep { address: [192, 0, 2, 1].into(), mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1450 };
    let (peer, network) = ("192.0.2.2".parse().unwrap(), |text: &str| text.parse().unwrap());
    NodeSpec {
        revision: 345,
        vxlan: Some(Vxlan { vni: Vni::new(1).unwrap(), port: 8472, v4: Some(local), v6: None }),
        gateway_v4: Some([10, 1, 1, 0].into()),
        endpoints: vec![Endpoint {
            name: "default/n1-k8s-a-eth0".into(),
            interface: "cali1".into(),
            ifindex: Some(7),
            mac: Some(Mac([2, 0, 0, 0, 1, 7])),
            networks: vec![network("10.1.1.2/32")],
            mtu: 1450,
            policy: EndpointPolicy::allow_all(),
        }]
        .into(),
        vteps: vec![Vtep {
            outer: peer,
            mac: Mac([2, 0, 0, 0, 0, 2]),
            owns: vec![network("10.1.2.0/24"), network("192.0.2.2/32")],
        }]
        .into(),
        routes: vec![Route { prefix: network("10.1.2.0/24"), via: Via::Vtep(peer) }].into(),
        ..NodeSpec::default()
    }
}

fn shown(question: &Question) -> String {
    let tables = compile(&spec(), None, 12);
    let text = text(&Tracer::new(HashSeed(1, 2), 1).trace(question, &spec(), &tables, 0).unwrap(), false);
    // The outer source port is a matter of the hash.
    let line = |line: &str| match line.split_once("UDP ").filter(|_| line.ends_with(" > 8472")) {
        Some((front, _)) => format!("{front}UDP PORT > 8472\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn question() -> Question {
    Question::new(From::Workload("a".into()), "10.1.2.9", Protocol::Tcp { port: 80, flags: None })
}

#[test]
fn a_packet_that_gets_through() {
    let golden = "\
packet      from workload default/n1-k8s-a-eth0 (cali1), 54 bytes
            Ethernet 02:00:00:00:01:07 > ee:ee:ee:ee:ee:ee
            IPv4 10.1.1.2 > 10.1.2.9, TTL 64, 40 bytes
            TCP 40000 > 80, SYN, 0 bytes of data
tables      generation 12, revision 345
classify    IPv4 packet of 40 bytes, protocol TCP
source      10.1.1.2 is one of the addresses of workload default/n1-k8s-a-eth0
conntrack   no such connection is assumed
egress      workload default/n1-k8s-a-eth0: allowed by Profile projectcalico-default-allow, egress rule 0 (Allow)
              Profile projectcalico-default-allow, rule 0: Allow
route       10.1.2.0/24 through the tunnel to VTEP 192.0.2.2
forward     40 bytes fit the MTU, 1450; TTL 64 becomes 63
encap       into the tunnel to VTEP 192.0.2.2, VNI 1, UDP port 8472
verdict     FORWARDED to VTEP 192.0.2.2: Sent through the tunnel to the node that has the destination.
sent        to underlay, 104 bytes
            Ethernet, addresses left to the kernel
            IPv4 192.0.2.1 > 192.0.2.2, TTL 64, 90 bytes
            UDP PORT > 8472
            VXLAN VNI 1
            Ethernet 02:00:00:00:00:01 > 02:00:00:00:00:02
            IPv4 10.1.1.2 > 10.1.2.9, TTL 63, 40 bytes
            TCP 40000 > 80, SYN, 0 bytes of data
";
    assert_eq!(shown(&question()), golden);
}

#[test]
fn a_packet_that_does_not() {
    let golden = "\
packet      from tunnel, 104 bytes
            Ethernet, addresses left to the kernel
            IPv4 192.0.2.7 > 192.0.2.1, TTL 64, 90 bytes
            UDP PORT > 8472
            VXLAN VNI 1
            Ethernet 02:00:00:00:00:01 > 02:00:00:00:00:01
            IPv4 10.1.2.9 > 10.1.1.2, TTL 64, 40 bytes
            TCP 40000 > 80, SYN, 0 bytes of data
tables      generation 12, revision 345
decap       DROP unknown_vtep: The outer source is no known VTEP.
verdict     DROPPED (unknown_vtep): The outer source is no known VTEP.
";
    let node = "192.0.2.7".parse().unwrap();
    let source = Some("10.1.2.9".parse().unwrap());
    let from = From::Vxlan { node, vni: None };
    assert_eq!(shown(&Question { from, source, to: "a".into(), ..question() }), golden);
}

fn step(tier: Option<&str>, rule: Option<usize>, action: &str, mismatch: Option<&str>) -> PolicyStep {
    PolicyStep {
        tier: tier.map(Into::into),
        kind: rule.map(|_| if tier.is_some() { "NetworkPolicy" } else { "Profile" }.into()),
        name: rule.map(|_| "default/web".into()),
        rule,
        action: action.into(),
        matched: mismatch.is_none(),
        mismatch: mismatch.map(Into::into),
    }
}

#[test]
fn policy_is_told_rule_by_rule() {
    let why = Some("protocol is another one");
    let mut policy = PolicyView {
        direction: "egress".into(),
        steps: vec![
            step(Some("security"), Some(0), "Pass", None),
            step(Some("default"), Some(0), "Allow", why),
            step(Some("default"), None, "Deny", None),
            step(None, Some(1), "Allow", None),
        ],
        ..PolicyView::default()
    };
    let lines = |policy: &PolicyView, verbose| {
        let mut lines = Lines(String::new());
        policy_lines(policy, verbose, &mut lines);
        lines.0
    };
    let all = "              tier security, NetworkPolicy default/web, rule 0: Pass
              tier default, NetworkPolicy default/web, rule 0 (Allow): no match, protocol is another one
              end of tier default: Deny
              Profile default/web, rule 1: Allow
";
    assert_eq!(lines(&policy, false), all);
    let many = (1..=MISMATCHES).map(|rule| step(Some("default"), Some(rule), "Allow", why));
    policy.steps.splice(2..2, many);
    assert_eq!(lines(&policy, true).lines().count(), 4 + MISMATCHES);
    let few = "              tier security, NetworkPolicy default/web, rule 0: Pass
              end of tier default: Deny
              Profile default/web, rule 1: Allow
              6 rules that did not match are not shown
";
    assert_eq!(lines(&policy, false), few);
}
