//! What Felix made of a state, against ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use canal_control::model::calico::WorkloadKey;
use canal_control::resolve::calico::Resolution;
use canal_dataplane::spec::calico::RouteKind;
use canal_dataplane::spec::policy::PolicyList;
use serde_json::{Value, json};

use crate::{compiled, rendered, v1};

/// The first part in which they differ, of a state of `calc-graph.json`.
pub fn compare(resolution: &Resolution, datastore: &v1::Datastore, case: &Value) -> Result<(), String> {
    let expected = &case["expected"];
    let names = |list: BTreeSet<String>| json!(list);
    let policies = |list: &BTreeMap<String, Lists<'_>>, wanted: for<'a> fn(&Lists<'a>) -> Pair<'a>| {
        let orders = list.iter().map(|(name, lists)| {
            let [ingress, egress] = wanted(lists);
            let tiers = rendered::tiers(ingress, egress).into_iter();
            let order = tiers
                .map(|(tier, [ingress, egress])| json!({"tier": tier, "ingress": ingress, "egress": egress}));
            (name.clone(), Value::from_iter(order))
        });
        Value::from_iter(orders)
    };
    let lists = endpoint_lists(resolution, |key| datastore.workload_names[key].clone());
    let parts = [
        ("ipsets", rendered::sets(resolution)),
        ("active_policies", names(active_policies(resolution))),
        ("active_profiles", json!(resolution.active_profiles)),
        ("endpoint_policy_order", policies(&lists, |lists| lists.normal)),
        ("endpoint_untracked_order", policies(&lists, |lists| lists.untracked)),
        ("endpoint_pre_dnat_policy_order", policies(&lists, |lists| lists.pre_dnat)),
        ("routes", routes(resolution, datastore)),
        ("vteps", rendered::vteps(resolution)),
    ];
    for (part, ours) in parts {
        differ(part, rendered::sorted(&expected[part], part), rendered::sorted(&ours, part))?;
    }
    compiled::compare(resolution, &expected["routes"], &expected["vteps"])?;
    if let Some(theirs) = case.get("rendered").filter(|rendered| !rendered.is_null()) {
        compare_endpoints(&lists, &theirs["endpoints"])?;
        differ("ipset_types", theirs["ipset_types"].clone(), set_types(resolution))?;
        rendered::compare_rules(resolution, &theirs["policies"], &theirs["profiles"])?;
    }
    Ok(())
}

/// The same of a scenario of `e2e-etcd.json`.
pub fn compare_scenario(resolution: &Resolution, expected: &Value) -> Result<(), String> {
    let keys = |objects: &Value| json!(objects.as_object().unwrap().keys().collect::<BTreeSet<_>>());
    let governed = rendered::governed_sets(expected);
    let needed = |sets: &Value| -> Value {
        let sets = sets.as_object().unwrap().iter().filter(|(id, _)| governed.contains(*id));
        sets.map(|(id, value)| (id.clone(), value.clone())).collect()
    };
    let parts = [
        ("ipsets", needed(&expected["ipsets"]), rendered::sets(resolution)),
        ("ipset_types", needed(&expected["ipset_types"]), set_types(resolution)),
        ("active_policies", keys(&expected["active_policies"]), json!(active_policies(resolution))),
        ("active_profiles", keys(&expected["active_profiles"]), json!(resolution.active_profiles)),
        ("routes", expected["routes"].clone(), scenario_routes(resolution)),
        ("vteps", expected["vteps"].clone(), rendered::vteps(resolution)),
    ];
    for (part, theirs, ours) in parts {
        differ(part, rendered::sorted(&theirs, part), rendered::sorted(&ours, part))?;
    }
    compiled::compare(resolution, &expected["routes"], &expected["vteps"])?;
    let name = |key: &WorkloadKey| {
        let [_, orchestrator, workload, endpoint] = key.segments().unwrap();
        format!("{orchestrator}/{}/{workload}/{endpoint}", key.namespace())
    };
    compare_endpoints(&endpoint_lists(resolution, name), &expected["endpoints"])?;
    rendered::compare_rules(resolution, &expected["active_policies"], &expected["active_profiles"])
}

/// An empty datastore means nothing.
pub fn is_empty(resolution: &Resolution) -> Result<(), String> {
    if *resolution == Resolution::default() { Ok(()) } else { Err(format!("left over: {resolution:#?}")) }
}

fn differ(part: &str, theirs: Value, ours: Value) -> Result<(), String> {
    if theirs == ours { Ok(()) } else { Err(format!("{part}:\nexpected {theirs:#}\nfound    {ours:#}")) }
}

fn compare_endpoints(lists: &BTreeMap<String, Lists<'_>>, theirs: &Value) -> Result<(), String> {
    let ours: Value = lists.values().map(|lists| (lists.id.clone(), lists.rendered())).collect();
    let endpoints = theirs.as_object().into_iter().flatten();
    let theirs = endpoints.map(|(id, endpoint)| (id.clone(), rendered::endpoint_lists_of(endpoint)));
    differ("rendered endpoints", theirs.collect(), ours)
}

fn set_types(resolution: &Resolution) -> Value {
    resolution.sets.iter().map(|(id, set)| (id.to_string(), rendered::set_type(set))).collect()
}

fn active_policies(resolution: &Resolution) -> BTreeSet<String> {
    resolution.active_policies.iter().map(|key| format!("default/{}", key.tie_break)).collect()
}

fn routes(resolution: &Resolution, datastore: &v1::Datastore) -> Value {
    let tunnel = |kind| matches!(kind, RouteKind::LocalTunnel | RouteKind::RemoteTunnel);
    let (_, tables) = compiled::tables(resolution);
    let routes = tables.entries().iter().map(|entry| (&entry.prefix, &entry.route));
    let known =
        routes.filter(|(dst, route)| !tunnel(route.kind) || datastore.routed_tunnels.contains(&dst.ip()));
    rendered::routes(known)
}

fn scenario_routes(resolution: &Resolution) -> Value {
    let (_, tables) = compiled::tables(resolution);
    rendered::routes(tables.entries().iter().map(|entry| (&entry.prefix, &entry.route)))
}

/// An endpoint's lists, ingress first.
pub struct Lists<'a> {
    id: String,
    normal: Pair<'a>,
    untracked: Pair<'a>,
    pre_dnat: Pair<'a>,
    forward: Pair<'a>,
}

impl Lists<'_> {
    fn rendered(&self) -> Value {
        let lists = [
            ("tiers", self.normal),
            ("untracked_tiers", self.untracked),
            ("pre_dnat_tiers", self.pre_dnat),
            ("forward_tiers", self.forward),
        ];
        rendered::endpoint(&lists)
    }
}

/// Ingress and egress.
type Pair<'a> = [&'a Arc<PolicyList>; 2];

static NONE: std::sync::LazyLock<Arc<PolicyList>> = std::sync::LazyLock::new(Arc::default);

/// By what Felix calls the endpoints.
fn endpoint_lists(
    resolution: &Resolution,
    name: impl Fn(&WorkloadKey) -> String,
) -> BTreeMap<String, Lists<'_>> {
    let none: Pair<'_> = [&NONE, &NONE];
    let workloads = resolution.workloads.iter().map(|(key, policy)| {
        let name = name(key);
        let normal = [&policy.ingress, &policy.egress];
        let id = format!("wep:{name}");
        (name, Lists { id, normal, untracked: none, pre_dnat: none, forward: none })
    });
    let hosts = resolution.host_endpoints.iter().map(|(name, host)| {
        let (ingress, egress) = (&host.lists.ingress, &host.lists.egress);
        let lists = Lists {
            id: format!("hep:{name}"),
            normal: [&ingress.normal, &egress.normal],
            untracked: [&ingress.untracked, &egress.untracked],
            pre_dnat: [&ingress.pre_dnat, &egress.pre_dnat],
            forward: [&ingress.forward, &egress.forward],
        };
        (name.clone(), lists)
    });
    workloads.chain(hosts).collect()
}
