//! What `canal get` shows of each kind, in calicoctl's columns.

use canal_control::resource::{Found, Kind};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;

/// Longest list in a column.
const LIST_MAX: usize = 80;

/// How a cell is made of a shown resource.
type Cell = fn(&Value) -> String;

/// Heading and cell.
type Column = (&'static str, Cell);

/// All resources of one kind as a table.
pub fn table(kind: Kind, found: &[Found], wide: bool, namespaces: bool) -> String {
    let mut columns: Vec<Column> = Vec::new();
    if namespaces && kind.is_namespaced() {
        columns.push(("NAMESPACE", |r| text(&r["metadata"]["namespace"])));
    }
    columns.extend_from_slice(if wide { wide_columns(kind) } else { narrow_columns(kind) });
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    for resource in found {
        let shown = resource.shown();
        table.add_row(columns.iter().map(|(_, cell)| cell(&shown)));
    }
    // Names may be longer than a terminal is wide, and tables are for grep, too.
    let lines = table.lines().map(|line| line.trim().to_owned());
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

const NAME: Column = ("NAME", |r| text(&r["metadata"]["name"]));
const TIER: Column = ("TIER", |r| tier(r));
const ORDER: Column = ("ORDER", |r| text(&r["spec"]["order"]));
const SELECTOR: Column = ("SELECTOR", |r| text(&r["spec"]["selector"]));
const NODE: Column = ("NODE", |r| text(&r["spec"]["node"]));
const NETWORKS: Column = ("NETWORKS", |r| list(&r["spec"]["ipNetworks"]));
const INTERFACE: Column = ("INTERFACE", |r| text(&r["spec"]["interfaceName"]));
const PROFILES: Column = ("PROFILES", |r| list(&r["spec"]["profiles"]));
const CIDR: Column = ("CIDR", |r| text(&r["spec"]["cidr"]));
const POOL_SELECTOR: Column = ("SELECTOR", |r| text(&r["spec"]["nodeSelector"]));
const WORKLOAD: Column = ("WORKLOAD", |r| {
    let workload = text(&r["spec"]["workload"]);
    if workload.is_empty() { text(&r["spec"]["pod"]) } else { workload }
});

fn narrow_columns(kind: Kind) -> &'static [Column] {
    match kind.name() {
        "NetworkPolicy" | "GlobalNetworkPolicy" | "StagedNetworkPolicy" | "StagedGlobalNetworkPolicy" => {
            &[NAME, TIER]
        }
        "WorkloadEndpoint" => &[WORKLOAD, NODE, NETWORKS, INTERFACE],
        "HostEndpoint" => &[NAME, NODE],
        "IPPool" => &[NAME, CIDR, POOL_SELECTOR],
        "Tier" | "BGPConfiguration" | "BGPPeer" | "ClusterInformation" => wide_columns(kind),
        _ => &[NAME],
    }
}

fn wide_columns(kind: Kind) -> &'static [Column] {
    match kind.name() {
        "NetworkPolicy" | "GlobalNetworkPolicy" | "StagedNetworkPolicy" | "StagedGlobalNetworkPolicy" => {
            &[NAME, TIER, ORDER, SELECTOR]
        }
        "Tier" => &[NAME, ORDER, ("DEFAULTACTION", |r| text(&r["spec"]["defaultAction"]))],
        "Profile" => &[NAME, ("LABELS", |r| map(&r["spec"]["labelsToApply"]))],
        "WorkloadEndpoint" => {
            &[NAME, WORKLOAD, NODE, NETWORKS, INTERFACE, PROFILES, ("NATS", |r| list(&r["spec"]["ipNATs"]))]
        }
        "HostEndpoint" => &[NAME, NODE, INTERFACE, ("IPS", |r| list(&r["spec"]["expectedIPs"])), PROFILES],
        "NetworkSet" | "GlobalNetworkSet" => &[NAME, ("NETS", |r| list(&r["spec"]["nets"]))],
        "IPReservation" => &[NAME, ("CIDRS", |r| list(&r["spec"]["reservedCIDRs"]))],
        "IPPool" => &[
            NAME,
            CIDR,
            ("NAT", |r| flag(&r["spec"]["natOutgoing"])),
            ("IPIPMODE", |r| text(&r["spec"]["ipipMode"])),
            ("VXLANMODE", |r| text(&r["spec"]["vxlanMode"])),
            ("DISABLED", |r| flag(&r["spec"]["disabled"])),
            ("DISABLEBGPEXPORT", |r| flag(&r["spec"]["disableBGPExport"])),
            POOL_SELECTOR,
        ],
        "Node" => &[
            NAME,
            ("ASN", |r| text(&r["spec"]["bgp"]["asNumber"])),
            ("IPV4", |r| text(&r["spec"]["bgp"]["ipv4Address"])),
            ("IPV6", |r| text(&r["spec"]["bgp"]["ipv6Address"])),
        ],
        "BGPConfiguration" => &[
            NAME,
            ("LOGSEVERITY", |r| text(&r["spec"]["logSeverityScreen"])),
            ("MESHENABLED", |r| text(&r["spec"]["nodeToNodeMeshEnabled"])),
            ("ASNUMBER", |r| text(&r["spec"]["asNumber"])),
        ],
        "BGPPeer" => &[
            NAME,
            ("PEERIP", |r| text(&r["spec"]["peerIP"])),
            ("NODE", |r| {
                let named = [&r["spec"]["node"], &r["spec"]["nodeSelector"]].into_iter().map(text);
                named.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "(global)".to_owned())
            }),
            ("ASN", |r| text(&r["spec"]["asNumber"])),
        ],
        "ClusterInformation" => &[
            NAME,
            ("CLUSTERGUID", |r| text(&r["spec"]["clusterGUID"])),
            ("CLUSTERTYPE", |r| text(&r["spec"]["clusterType"])),
            ("CALICOVERSION", |r| text(&r["spec"]["calicoVersion"])),
            ("DATASTOREREADY", |r| text(&r["spec"]["datastoreReady"])),
        ],
        _ => &[NAME],
    }
}

/// A policy that names no tier says it in its name, or is in the default one.
fn tier(policy: &Value) -> String {
    let named = text(&policy["spec"]["tier"]);
    let name = text(&policy["metadata"]["name"]);
    match name.split_once('.') {
        _ if !named.is_empty() => named,
        Some((tier, _)) if !["knp", "ossg"].contains(&tier) => tier.to_owned(),
        _ => "default".to_owned(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn flag(value: &Value) -> String {
    value.as_bool().unwrap_or_default().to_string()
}

fn list(value: &Value) -> String {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    cut(items.iter().map(text).collect::<Vec<_>>().join(","))
}

fn map(value: &Value) -> String {
    let members = value.as_object().into_iter().flatten();
    cut(members.map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(","))
}

fn cut(text: String) -> String {
    if text.chars().count() <= LIST_MAX {
        return text;
    }
    let kept: String = text.chars().take(LIST_MAX - 3).collect();
    format!("{kept}...")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(kind: &str, name: &str, spec: Value) -> Found {
        let object = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
        Found {
            kind: Kind::by_name(kind).unwrap(),
            namespace: "ns".to_owned(),
            stored_name: name.to_owned(),
            object: object.as_object().cloned().unwrap(),
            revision: 1,
            version: "1".to_owned(),
        }
    }

    fn rows(found: &[Found], wide: bool, namespaces: bool) -> Vec<Vec<String>> {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        table(found[0].kind, found, wide, namespaces).lines().map(words).collect()
    }

    #[test]
    fn policies_have_tiers_and_orders() {
        let policies = [
            found("NetworkPolicy", "default.web", json!({"order": 1.5, "selector": "has(a)"})),
            found("NetworkPolicy", "sec.db", json!({"tier": "sec"})),
            found("NetworkPolicy", "knp.default.x", json!({})),
        ];
        assert_eq!(
            rows(&policies, false, true)[..2],
            [["NAMESPACE", "NAME", "TIER"], ["ns", "web", "default"]]
        );
        let wide = rows(&policies, true, false);
        assert_eq!(wide[1], ["web", "default", "1.5", "has(a)"]);
        assert_eq!(wide[2], ["sec.db", "sec"]);
        assert_eq!(wide[3], ["knp.default.x", "default"]);
    }

    #[test]
    fn pools_show_what_they_mean_and_long_lists_are_cut() {
        let pool = [found("IPPool", "p", json!({"cidr": "10.0.0.0/8"}))];
        assert_eq!(
            rows(&pool, true, false)[1],
            ["p", "10.0.0.0/8", "false", "Never", "Never", "false", "false", "all()"]
        );
        let nets: Vec<String> = (0..50).map(|n| format!("10.0.{n}.0/24")).collect();
        let set = [found("NetworkSet", "s", json!({ "nets": nets }))];
        let cell = &rows(&set, true, false)[1][1];
        assert!(cell.len() == LIST_MAX && cell.ends_with("..."), "{cell}");
    }

    #[test]
    fn every_kind_has_columns() {
        for kind in Kind::all() {
            let empty = [Found { kind, ..found("Tier", "n", json!({})) }];
            for wide in [false, true] {
                assert!(!rows(&empty, wide, false)[0].is_empty(), "{kind}");
            }
        }
    }
}
