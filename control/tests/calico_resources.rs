//! Resources against the stores they are kept in, and against values that libcalico-go stored.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use canal_control::datastore::dir::Dir;
use canal_control::datastore::{Datastore, Expect, Written};
use canal_control::model::calico::keys::RESOURCES_PREFIX;
use canal_control::resource::{Done, Kind, Mode, Resource, ResourceStore, Stamp, StoreError, prepare, read};
use serde_json::{Value, json};

#[path = "etcd_server/mod.rs"]
#[allow(dead_code, reason = "shared with the datastore's tests, which use more of it")]
mod etcd_server;
#[path = "../../tests/recorded/mod.rs"]
mod recorded;

use etcd_server::{Server, Tls};

const POLICIES: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: deny-bad}
spec:
  order: 10
  selector: all()
  ingress:
  - action: Deny
    source: {selector: kind == 'bad'}
  - action: Allow
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: bad, labels: {kind: bad}}
spec: {nets: [10.98.0.0/24]}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [], reportingInterval: 0s}
";

fn stamp(n: u8) -> Stamp {
    Stamp::new(UNIX_EPOCH + Duration::from_secs(1_704_164_645), [n; 16])
}

fn resources(text: &str) -> Vec<Resource> {
    let found = read(text.as_bytes()).unwrap();
    found
        .iter()
        .map(|(place, value)| Resource::check(value, "default").unwrap_or_else(|e| panic!("{place}: {e:?}")))
        .collect()
}

/// Written, found, shown, written again from what is shown, deleted: the same in every store.
async fn live_through_it(store: &dyn Datastore) {
    let resources_of = ResourceStore::new(store);
    for resource in resources(POLICIES) {
        let done = resources_of.write(&resource, Mode::Create, &stamp(1)).await.unwrap();
        assert!(matches!(done, Done::Created(_)), "{done:?}");
    }
    let keys: Vec<String> =
        store.list(RESOURCES_PREFIX).await.unwrap().entries.into_iter().map(|e| e.key).collect();
    let expected =
        ["felixconfigurations/default", "globalnetworkpolicies/default.deny-bad", "networksets/default/bad"];
    assert_eq!(keys, expected.map(|key| format!("{RESOURCES_PREFIX}{key}")));

    for (kind, namespace, name) in [
        ("GlobalNetworkPolicy", "", "deny-bad"),
        ("NetworkSet", "default", "bad"),
        ("FelixConfiguration", "", "default"),
    ] {
        let kind = Kind::by_name(kind).unwrap();
        let found = resources_of.get(kind, namespace, name).await.unwrap().unwrap();
        assert_eq!(found.name(), name);
        let shown = Resource::check(&found.shown(), "default").unwrap();
        let done = resources_of.write(&shown, Mode::Apply, &stamp(2)).await.unwrap();
        assert_eq!(done, Done::Unchanged(found.revision), "{name}");

        let mut changed = found.shown();
        changed["metadata"]["annotations"] = json!({"changed": "yes"});
        let changed = Resource::check(&changed, "default").unwrap();
        let Done::Updated(revision) = resources_of.write(&changed, Mode::Replace, &stamp(2)).await.unwrap()
        else {
            panic!("{name} was not updated")
        };
        assert!(revision > found.revision);
        assert_eq!(store.keeps_revisions(), found.version == found.revision.to_string());
        let stale = resources_of.write(&changed, Mode::Apply, &stamp(2)).await.unwrap_err();
        assert!(matches!(stale, StoreError::Stale { .. }), "{stale}");
        let updated = resources_of.get(kind, namespace, name).await.unwrap().unwrap();
        assert_eq!(updated.object["metadata"]["uid"], found.object["metadata"]["uid"]);
        assert_eq!(updated.object["spec"], found.object["spec"]);
        let refused = resources_of.delete(kind, namespace, name, Some(&found.version)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Stale { .. }), "{refused}");
        resources_of.delete(kind, namespace, name, None).await.unwrap();
        assert!(resources_of.get(kind, namespace, name).await.unwrap().is_none());
    }
    assert!(store.list(RESOURCES_PREFIX).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn etcd_keeps_resources() {
    if !etcd_server::available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    live_through_it(&server.store()).await;
}

#[tokio::test]
async fn a_directory_keeps_resources() {
    let dir = tempfile::tempdir().unwrap();
    live_through_it(&Dir::open(dir.path(), "/coreos.com/network").unwrap()).await;
}

/// Prefixes of names are other names.
#[tokio::test]
async fn one_key_is_read_alone() {
    if !etcd_server::available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let dir = tempfile::tempdir().unwrap();
    let stores: [&dyn Datastore; 2] =
        [&server.store(), &Dir::open(dir.path(), "/coreos.com/network").unwrap()];
    for store in stores {
        let key = |name: &str| format!("{RESOURCES_PREFIX}tiers/{name}");
        let value = |name: &str| {
            let tier =
                json!({"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name}});
            tier.to_string().into_bytes()
        };
        store.put(&key("ab"), &value("ab"), Expect::Absent, None).await.unwrap();
        assert_eq!(store.get(&key("a")).await.unwrap(), None);
        let written = store.put(&key("a"), &value("a"), Expect::Absent, None).await.unwrap();
        let entry = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!((entry.key, Written::At(entry.mod_revision)), (key("a"), written));
    }
}

#[tokio::test]
async fn of_two_creators_one_wins_and_writers_do_not_undo_each_other() {
    if !etcd_server::available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let store = server.store();
    let policy = |n: usize| {
        let spec = json!({"order": n, "selector": format!("n == '{n}'")});
        let meta = json!({"name": "race", "labels": {"n": n.to_string()}});
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": meta, "spec": spec});
        Resource::check(&value, "default").unwrap()
    };
    let (first, second) = (policy(1), policy(2));
    let resources_of = ResourceStore::new(&store);
    let (stamp_one, stamp_two) = (stamp(1), stamp(2));
    let (one, two) = tokio::join!(
        resources_of.write(&first, Mode::Create, &stamp_one),
        resources_of.write(&second, Mode::Create, &stamp_two)
    );
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1, "{one:?} {two:?}");

    let writers = (3..6).map(|n| {
        let resource = policy(n);
        let stamp = stamp(n as u8);
        async move { resources_of.write(&resource, Mode::Apply, &stamp).await.unwrap() }
    });
    let done = futures::future::join_all(writers).await;
    let revisions: BTreeSet<i64> = done
        .iter()
        .map(|done| match done {
            Done::Updated(revision) => *revision,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(revisions.len(), 3);
    let found =
        resources_of.get(Kind::by_name("GlobalNetworkPolicy").unwrap(), "", "race").await.unwrap().unwrap();
    assert_eq!(Some(&found.revision), revisions.last());
    let order = found.object["spec"]["order"].as_u64().unwrap();
    assert_eq!(found.object["metadata"]["labels"]["n"], order.to_string());
    assert_eq!(found.object["spec"]["selector"], format!("n == '{order}'"));
}

/// What is shown of a stored value, as its author would write it: written anew it must give the stored value again.
#[test]
fn what_libcalico_go_stored_is_what_would_be_stored() {
    let Some(file) = recorded::find("calico/e2e-etcd.json") else { return };
    let document: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let (mut same, mut refused) = (0, Vec::new());
    let mut failures = Vec::new();
    for scenario in document["scenarios"].as_array().unwrap() {
        for (key, stored) in scenario["etcd"].as_object().unwrap() {
            let Some(rest) = key.strip_prefix(RESOURCES_PREFIX) else { continue };
            let mut written = stored.clone();
            let name = stored["metadata"]["name"].as_str().unwrap_or_default();
            if rest.contains("networkpolicies/") {
                written["metadata"]["name"] = name.strip_prefix("default.").unwrap_or(name).into();
            }
            let stamp = Stamp {
                created: stored["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned(),
                uid: stored["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            };
            match Resource::check(&written, "none") {
                Err(errors) => refused.push(format!("{rest}: {errors:?}")),
                Ok(resource) => {
                    let prepared = prepare(&resource, None, &stamp).unwrap();
                    let bytes = prepared.encode(resource.kind());
                    let again: Value = serde_json::from_slice(&bytes).unwrap();
                    match contained(stored, &again, "") {
                        Ok(()) if prepared.name == name => same += 1,
                        difference => failures.push(format!(
                            "{rest} as {}: {difference:?}\n  {stored}\n  {again}",
                            prepared.name
                        )),
                    }
                }
            }
        }
    }
    println!("e2e-etcd.json: {same} values stored as they are, {} refused", refused.len());
    refused.sort();
    refused.dedup();
    println!("{}", refused.join("\n"));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(same > 200 && refused.len() < 30, "{same} {}", refused.len());
}

/// Fields that libcalico-go's types always write and the scenarios' author left out.
const ZEROES: [&str; 9] = [
    "bpfLogLevel",
    "hostPort",
    "hostIP",
    "blockSize",
    "allowedUses",
    "nodeSelector",
    "vxlanMode",
    "ipipMode",
    "types",
];

/// Everything in `stored` is in `again`; beyond that there are [`ZEROES`] only. What is false may be left out.
fn contained(stored: &Value, again: &Value, path: &str) -> Result<(), String> {
    match (stored, again) {
        (Value::Object(stored), Value::Object(again)) => {
            for (name, value) in stored {
                let path = format!("{path}.{name}");
                match again.get(name) {
                    Some(other) => contained(value, other, &path)?,
                    None if *value == json!(false) => {}
                    None => return Err(format!("{path} is missing")),
                }
            }
            match again.keys().find(|name| !stored.contains_key(*name) && !ZEROES.contains(&name.as_str())) {
                Some(name) => Err(format!("{path}.{name} is new")),
                None => Ok(()),
            }
        }
        (Value::Array(stored), Value::Array(again)) if stored.len() == again.len() => stored
            .iter()
            .zip(again)
            .enumerate()
            .try_for_each(|(n, (a, b))| contained(a, b, &format!("{path}[{n}]"))),
        (stored, again) if stored == again => Ok(()),
        _ => Err(format!("{path}: {stored} became {again}")),
    }
}
