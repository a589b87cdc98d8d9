//! Values of every kind of Calico's: nothing panics, and what comes out keeps what its types promise.
//!
//! The first byte says which kind, the rest is the value.
#![no_main]

use canal_control::model::calico::decode::{Decoded, decode};
use canal_control::model::calico::keys::BLOCKS;
use canal_control::model::calico::kind::Kind;
use canal_control::model::calico::problem::Quirks;
use canal_control::model::calico::resources::{Entity, Rule};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [which, value @ ..] = data else { return };
    let key = match Kind::ALL.get(usize::from(*which) % (Kind::ALL.len() + 1)) {
        Some(kind) if kind.namespaced() => format!("{}ns/n-k8s-p-e", kind.prefix()),
        Some(kind) => format!("{}default", kind.prefix()),
        None => format!("{BLOCKS}ipv4/block/10.0.0.0-26"),
    };
    for quirks in [Quirks::default(), Quirks::FELIX] {
        let Ok((decoded, _)) = decode(&key, value, quirks) else { continue };
        match decoded {
            Decoded::Policy(_, policy) => {
                policy.ingress.iter().chain(&policy.egress).flatten().for_each(check_rule)
            }
            Decoded::Profile(_, profile) => {
                profile.ingress.iter().chain(&profile.egress).for_each(check_rule)
            }
            Decoded::Workload(key, endpoint) => {
                assert!(!endpoint.networks.is_empty() && endpoint.networks.is_sorted());
                assert!(
                    endpoint.networks.iter().all(|net| net.prefix() == if net.is_ipv4() { 32 } else { 128 })
                );
                assert_eq!(endpoint.labels.get("projectcalico.org/namespace"), Some(key.namespace()));
                assert!(!endpoint.labels.iter().any(|(label, _)| label.starts_with("pcns.")));
            }
            Decoded::Block(_, block) => {
                assert!(
                    block.allocations.is_sorted()
                        && block.allocations.iter().all(|(ordinal, _)| *ordinal < 64)
                );
            }
            _ => {}
        }
    }
});

fn check_rule(rule: &Rule) {
    let has_ports = matches!(rule.protocol, Some(6 | 17 | 132));
    for side in [&rule.source, &rule.destination] {
        let Entity { nets, not_nets, ports, not_ports, .. } = &**side;
        assert!(nets.iter().flatten().chain(not_nets).all(|net| net.ip() == net.network()));
        assert!(has_ports || (ports.is_none() && not_ports.is_empty()));
    }
}
