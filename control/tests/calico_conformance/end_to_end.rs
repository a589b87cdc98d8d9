//! Raw etcd content: what Felix's synchronisation makes of it, complains about, and refuses.

use std::collections::BTreeMap;

use canal_control::model::calico::check;
use canal_control::model::calico::decode::{Converted, Key, convert};
use canal_control::model::calico::felix_key::FelixKey;
use canal_control::model::calico::problem::{Problem, Quirks};
use canal_control::model::calico::v1::config::{Scope, Settings};
use canal_control::model::calico::v1::pool::effective;
use canal_control::model::calico::v1::{Pool, Profile};
use serde_json::{Value, json};

use super::{same_set, text, v1_json};

/// What the content of etcd comes to.
#[derive(Default)]
struct Synchronised {
    v1: Vec<(FelixKey, Value)>,
    pools: BTreeMap<String, Pool>,
    errors: Vec<String>,
    rejected: Vec<String>,
}

pub fn scenario(case: &Value) -> Result<(), String> {
    let mut seen = Synchronised::default();
    for (key, value) in case["etcd"].as_object().unwrap() {
        let raw = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        seen.take(key, raw.as_bytes());
    }
    seen.v1.push((
        FelixKey::ProfileRules("projectcalico-default-allow".to_owned()),
        v1_json::profile_rules(&Profile::default_allow()),
    ));
    for (cidr, (_, pool)) in effective(&seen.pools, |pool| pool.pool.cidr) {
        seen.v1.push((FelixKey::Pool(cidr), v1_json::pool(pool)));
    }
    let expected = &case["expected"];
    let listed = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let name = text(case, "name");
    let v1 = seen.v1.iter().map(|(key, value)| json!({ "key": key.path(), "value": value })).collect();
    same_set(&format!("{name}: v1"), v1, listed(&expected["v1"]))?;
    let errors = expected["sync_errors"].as_object().unwrap().keys().map(|key| json!(key)).collect();
    same_set(&format!("{name}: sync_errors"), seen.errors.iter().map(|key| json!(key)).collect(), errors)?;
    let rejected = seen.rejected.iter().map(|key| json!(key)).collect();
    same_set(&format!("{name}: rejected_v1_keys"), rejected, listed(&expected["rejected_v1_keys"]))
}

impl Synchronised {
    fn take(&mut self, key: &str, raw: &[u8]) {
        let Ok(parsed) = Key::parse(key) else { return };
        match convert(&parsed, raw) {
            Ok(converted) => {
                self.list(key, &converted);
                let felix = rules_key(&converted);
                let refused = match converted {
                    // Its labels stay, so that there is something of it all the same.
                    Converted::Profile(_, profile) => check::profile(profile, Quirks::FELIX).is_err(),
                    other => other.check(Quirks::FELIX).is_err(),
                };
                if refused {
                    self.rejected.extend(felix.map(|felix| felix.path()));
                }
            }
            // Lists leave out what is no JSON; other conversions count as deletions.
            Err(
                Problem::Unreadable { part: "spec.cidr", .. } | Problem::Missing(_) | Problem::ConfigName,
            ) => {
                self.errors.push(key.to_owned());
            }
            Err(_) => {}
        }
    }

    fn list(&mut self, key: &str, converted: &Converted) {
        match converted {
            Converted::Policy(name, policy) => {
                self.v1.push((FelixKey::Policy(name.tie_break.to_string()), v1_json::policy(policy)));
            }
            Converted::Profile(name, profile) => {
                let labels = v1_json::profile_labels(profile);
                self.v1.extend(labels.map(|labels| (FelixKey::ProfileLabels(name.clone()), labels)));
                self.v1.push((FelixKey::ProfileRules(name.clone()), v1_json::profile_rules(profile)));
            }
            Converted::Workload(name, endpoint) => match (v1_json::workload_key(name), endpoint) {
                (None, _) => self.errors.push(key.to_owned()),
                (Some(felix), Some(endpoint)) => self.v1.push((felix, v1_json::workload(endpoint))),
                (Some(_), None) => {}
            },
            Converted::HostEndpoint(name, endpoint) => {
                let felix = FelixKey::HostEndpoint(endpoint.node.clone(), name.clone());
                self.v1.push((felix, v1_json::host_endpoint(endpoint)));
            }
            Converted::NetworkSet(name, set) => {
                self.v1.push((FelixKey::NetworkSet(name.clone()), v1_json::network_set(set)));
            }
            Converted::Pool(name, pool) => drop(self.pools.insert(name.clone(), pool.clone())),
            Converted::Node(name, node) => {
                self.v1.extend(v1_json::node(name, node));
                if !node.unreadable.is_empty() {
                    self.errors.push(key.to_owned());
                }
            }
            Converted::Felix(scope, settings, _) => self.settings(scope, settings),
            Converted::Cluster(scope, ready, settings) => {
                self.settings(scope, settings);
                self.v1.extend(ready.map(|ready| (FelixKey::Ready, json!(ready))));
            }
            Converted::Tier(..) | Converted::Block(..) | Converted::Bgp(_) | Converted::Unused(_) => {}
        }
    }

    fn settings(&mut self, scope: &Scope, settings: &Settings) {
        self.v1.extend(settings.iter().map(|(name, value)| match scope {
            Scope::Global => (FelixKey::GlobalConfig(name.to_owned()), json!(value)),
            Scope::Node(node) => (FelixKey::HostConfig(node.clone(), name.to_owned()), json!(value)),
        }));
    }
}

/// The key of what validation looks at.
fn rules_key(converted: &Converted) -> Option<FelixKey> {
    match converted {
        Converted::Policy(name, _) => Some(FelixKey::Policy(name.tie_break.to_string())),
        Converted::Profile(name, _) => Some(FelixKey::ProfileRules(name.clone())),
        Converted::Workload(name, _) => v1_json::workload_key(name),
        Converted::HostEndpoint(name, endpoint) => {
            Some(FelixKey::HostEndpoint(endpoint.node.clone(), name.clone()))
        }
        Converted::NetworkSet(name, _) => Some(FelixKey::NetworkSet(name.clone())),
        _ => None,
    }
}
