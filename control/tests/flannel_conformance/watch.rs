//! What a watcher of leases emits.

use std::collections::BTreeMap;

use canal_control::datastore::{Change, KeyValue, Snapshot};
use canal_control::flannel::watch::Applied;
use canal_control::flannel::{LeaseEvent, LeaseTable};
use canal_control::model::flannel::addr::parse_network4;
use canal_control::model::flannel::{LeaseValue, Prefix, Subnets};
use serde_json::Value;

use super::{same, text, texts};

/// `10.5.2.0/24 via 192.0.2.2`.
fn lease(text: &str) -> (Subnets, LeaseValue) {
    let (net, via) = text.split_once(" via ").unwrap_or_else(|| panic!("{text:?} is no lease"));
    let subnets = Subnets { v4: parse_network4(net).unwrap(), v6: None };
    (subnets, LeaseValue { public_ip: via.parse().unwrap(), ..LeaseValue::default() })
}

fn entry((subnets, value): &(Subnets, LeaseValue)) -> KeyValue {
    let key = Prefix::default().lease_key(subnets);
    KeyValue { key, value: value.encode().into_bytes(), mod_revision: 1, lease: Some(1) }
}

/// As the cases spell it: a lease with other attributes is "added" there too.
fn spell(event: &LeaseEvent) -> String {
    let (what, subnets, value) = match event {
        LeaseEvent::Added { subnets, value } => ("added", subnets, value),
        LeaseEvent::Changed { subnets, new, .. } => ("added", subnets, new),
        LeaseEvent::Removed { subnets, value } => ("removed", subnets, value),
    };
    format!("{what} {} via {}", subnets.v4, value.public_ip)
}

/// Events are compared without their order inside one step, which means nothing. A case that says
/// that it shows a defect of flannel's is run without comparing them. In every case the table
/// must end up with what the datastore has.
pub fn sequence(case: &Value) -> Result<(), String> {
    let (own, _) = lease(text(case, "own"));
    let copied = !case.to_string().to_lowercase().contains("defect");
    let mut table = LeaseTable::new(own);
    let mut truth = BTreeMap::new();
    for step in case["steps"].as_array().unwrap() {
        let leases: Vec<_> = texts(step, "leases").into_iter().map(lease).collect();
        let applied = apply(&mut table, &mut truth, text(step, "op"), &leases)?;
        if copied {
            let mut got: Vec<_> = applied.events.iter().map(spell).collect();
            let mut expected = texts(step, "emitted");
            got.sort();
            expected.sort_unstable();
            same("emitted", got.iter().map(String::as_str).collect(), expected)?;
        }
        let mut peers = truth.clone();
        peers.remove(&own);
        let known: BTreeMap<_, _> = table.peers().map(|(subnets, value)| (*subnets, value.clone())).collect();
        same("known", &known, &peers)?;
    }
    Ok(())
}

fn apply(
    table: &mut LeaseTable,
    truth: &mut BTreeMap<Subnets, LeaseValue>,
    operation: &str,
    leases: &[(Subnets, LeaseValue)],
) -> Result<Applied, String> {
    let entries: Vec<_> = leases.iter().map(entry).collect();
    let changes = |value: fn(KeyValue) -> Option<KeyValue>| -> Vec<Change> {
        let change =
            |entry: &KeyValue| Change { key: entry.key.clone(), value: value(entry.clone()), revision: 1 };
        entries.iter().map(change).collect()
    };
    Ok(match operation {
        "snapshot" => {
            *truth = leases.iter().cloned().collect();
            table.apply_snapshot(&Snapshot { revision: 1, history: 1, entries })
        }
        "put" => {
            truth.extend(leases.iter().cloned());
            table.apply_changes(&changes(Some))
        }
        "delete" => {
            truth.retain(|subnets, _| !leases.iter().any(|(deleted, _)| deleted == subnets));
            table.apply_changes(&changes(|_| None))
        }
        other => return Err(format!("unknown operation {other}")),
    })
}
