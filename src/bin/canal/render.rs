//! How replies look, as tables and as JSON. Pure: replies in, text out.

mod calico;

use canal::observe::protocol::{
    DatastoreView, DeciderView, DropView, EndpointView, EnforcedView, FdbView, FlowView, GatewayView,
    GenerationView, HopView, IpSetView, PolicyView, PortView, RecordView, Reply, RouteView, RuleSetView,
    RulingView, SettingView, StatusView, VtepView,
};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde_json::{Map, Value};

mod workers;

/// One reply: its value. Several: an object of them.
pub fn json(replies: &[Reply]) -> String {
    let named: Map<String, Value> = replies
        .iter()
        .filter_map(|reply| match serde_json::to_value(reply) {
            Ok(Value::Object(object)) => object.into_iter().next(),
            _ => unreachable!("a reply is an object with its name"),
        })
        .collect();
    let value = match replies {
        [_] => named.into_iter().next().map_or(Value::Null, |(_, value)| value),
        _ => Value::Object(named),
    };
    format!("{value:#}\n")
}

/// Tables, with headings when there are several. `all_drops`: also reasons that never happened.
pub fn tables(replies: &[Reply], all_drops: bool) -> String {
    let heading = replies.len() > 1;
    let mut text = String::new();
    for reply in replies {
        let (name, body) = table(reply, all_drops);
        if heading {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}{name}\n{}\n", "-".repeat(name.len())));
        }
        text.push_str(&body);
    }
    text
}

fn table(reply: &Reply, all_drops: bool) -> (&'static str, String) {
    match reply {
        Reply::Ports(ports) => ("ports", show_ports(ports)),
        Reply::Endpoints(endpoints) => ("endpoints", show_endpoints(endpoints)),
        Reply::Policies(sets) => ("policies", show_rule_sets(sets, "policies")),
        Reply::Profiles(sets) => ("profiles", show_rule_sets(sets, "profiles")),
        Reply::IpSets(sets) => ("ipsets", show_ip_sets(sets)),
        Reply::Routes(routes) => ("routes", show_routes(routes)),
        Reply::Gateways(gateways) => ("gateways", show_gateways(gateways)),
        Reply::Vteps(vteps) => ("vteps", show_vteps(vteps)),
        Reply::Fdb(fdb) => ("fdb", show_fdb(fdb)),
        Reply::CalicoRoutes(routes) => ("calico-routes", calico::routes(routes)),
        Reply::CalicoVteps(vteps) => ("calico-vteps", calico::vteps(vteps)),
        Reply::Flows(flows) => ("flows", show_flows(flows)),
        Reply::Denied(records) => ("denied", show_records(records)),
        Reply::Drops(drops) => ("drops", show_drops(drops, all_drops)),
        Reply::Workers(workers) => ("workers", workers::show(workers)),
        Reply::Generation(generation) => ("generation", show_generation(generation)),
        Reply::Config(settings) => ("config", show_config(settings)),
        Reply::Status(view) => ("status", status(view)),
        Reply::Enforced(view) => ("enforced", enforced(view)),
        Reply::Trace(report) => ("trace", crate::trace::text(report, false)),
    }
}

/// Columns two spaces apart; those named with `>` in front are numbers, to the right.
fn grid(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(columns.iter().map(|name| name.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (column, name) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What is printed where a table has no row.
fn or_none(rows: usize, what: &str, table: impl FnOnce() -> String) -> String {
    if rows == 0 { format!("no {what}\n") } else { table() }
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn listed(values: &[impl ToString]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "-".into() } else { texts.join(",") }
}

fn show_ports(ports: &[PortView]) -> String {
    let columns = [
        ">WORKER",
        "PORT",
        "KIND",
        "CARRIES",
        "OFFLOADS",
        ">RX",
        ">RX-BYTES",
        ">RX-DROP",
        ">TX",
        ">TX-BYTES",
        ">TX-FULL",
        ">TX-ERR",
    ];
    let row = |port: &PortView| {
        let mut row = vec![port.worker.to_string(), port.name.clone(), port.kind.clone()];
        row.extend([listed(&port.carries), listed(&port.offloads)]);
        let numbers = [
            port.rx_frames,
            port.rx_bytes,
            port.rx_dropped,
            port.tx_frames,
            port.tx_bytes,
            port.tx_full,
            port.tx_errors,
        ];
        row.extend(numbers.map(|number| number.to_string()));
        row
    };
    let mut reasons: Vec<String> = Vec::new();
    for port in ports.iter().filter(|port| !port.why.is_empty()) {
        let line = format!("{}: {}\n", port.kind, port.why);
        if !reasons.contains(&line) {
            reasons.push(line);
        }
    }
    or_none(ports.len(), "ports", || grid(&columns, ports.iter().map(row)) + &reasons.concat())
}

fn show_config(settings: &[SettingView]) -> String {
    let row = |setting: &SettingView| {
        let value = if setting.value.is_empty() { "-" } else { &setting.value };
        let effect = match &setting.why {
            None => setting.effect.clone(),
            Some(why) => format!("{}: {why}", setting.effect),
        };
        vec![setting.name.clone(), value.to_owned(), setting.source.clone(), effect]
    };
    or_none(settings.len(), "settings", || {
        grid(&["SETTING", "VALUE", "SOURCE", "EFFECT"], settings.iter().map(row))
    })
}

fn show_endpoints(endpoints: &[EndpointView]) -> String {
    let row = |endpoint: &EndpointView| {
        vec![
            endpoint.name.clone(),
            endpoint.interface.clone(),
            optional(endpoint.ifindex),
            optional(endpoint.mac.as_ref()),
            listed(&endpoint.networks),
            endpoint.mtu.to_string(),
            abridged(&endpoint.ingress),
            abridged(&endpoint.egress),
        ]
    };
    let columns = ["ENDPOINT", "INTERFACE", ">IFINDEX", "MAC", "NETWORKS", ">MTU", "INGRESS", "EGRESS"];
    or_none(endpoints.len(), "endpoints", || grid(&columns, endpoints.iter().map(row)))
}

/// The first names of a list.
fn abridged(names: &[String]) -> String {
    match names {
        [] => "denied".into(),
        [first, second, rest @ ..] if !rest.is_empty() => format!("{first},{second},+{}", rest.len()),
        names => names.join(","),
    }
}

/// A line for each rule; one without rules has a line of its own.
fn show_rule_sets(sets: &[RuleSetView], what: &str) -> String {
    let rows = sets.iter().flat_map(|set| {
        let name = match set.kind.as_str() {
            "TierEnd" | "ProfilesEnd" => "-".to_owned(),
            _ => set.name.clone(),
        };
        let head = [set.tier.clone().unwrap_or_else(|| "-".into()), name, set.direction.clone()];
        let row = move |rest: [String; 5]| head.clone().into_iter().chain(rest).collect::<Vec<_>>();
        let empty = set.rules.is_empty().then(|| row(["-", "-", "no rules", "0", "0"].map(str::to_owned)));
        let rules: Vec<Vec<String>> = set
            .rules
            .iter()
            .map(|rule| {
                let numbers = [rule.packets.to_string(), rule.bytes.to_string()];
                let [packets, bytes] = numbers;
                let is_end = matches!(set.kind.as_str(), "TierEnd" | "ProfilesEnd");
                let number = if is_end { "end".to_owned() } else { rule.rule.to_string() };
                row([number, rule.action.clone(), rule.criteria.clone(), packets, bytes])
            })
            .collect();
        empty.into_iter().chain(rules)
    });
    let columns = ["TIER", "NAME", "DIRECTION", ">RULE", "ACTION", "MATCHES", ">PACKETS", ">BYTES"];
    or_none(sets.len(), what, || grid(&columns, rows))
}

fn show_ip_sets(sets: &[IpSetView]) -> String {
    const SHOWN: usize = 3;
    let row = |set: &IpSetView| {
        let shown = set.members.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(" ");
        let more = set.count.saturating_sub(SHOWN);
        let members = if more > 0 { format!("{shown} +{more}") } else { shown };
        vec![set.id.clone(), set.kind.clone(), set.count.to_string(), members]
    };
    or_none(sets.len(), "ipsets", || grid(&["ID", "KIND", ">COUNT", "MEMBERS"], sets.iter().map(row)))
}

fn show_routes(routes: &[RouteView]) -> String {
    let row = |route: &RouteView| {
        vec![route.prefix.clone(), route.kind.clone(), route.via.clone(), optional(route.mtu)]
    };
    or_none(routes.len(), "routes", || grid(&["PREFIX", "KIND", "VIA", ">MTU"], routes.iter().map(row)))
}

/// A line for each network, and one for an interface that has none.
fn show_gateways(gateways: &[GatewayView]) -> String {
    let rows = |gateway: &GatewayView| {
        let state = if gateway.ifindex.is_some() { gateway.mtu.to_string() } else { "missing".to_owned() };
        // Unlike workloads, hosts behind gateways are denied nothing where there is no policy.
        let policies = |names: &[String]| if names.is_empty() { "-".to_owned() } else { abridged(names) };
        let policy = gateway.host_endpoint.as_ref().map(|name| {
            format!("{name} in {} out {}", policies(&gateway.ingress), policies(&gateway.egress))
        });
        let (name, policy) = (gateway.name.clone(), optional(policy));
        let row = |prefix: &str, hops: String, announced: &str| {
            vec![name.clone(), state.clone(), prefix.to_owned(), hops, announced.to_owned(), policy.clone()]
        };
        let hop = |hop: &HopView| match hop.weight {
            1 => format!("{} {}", hop.address, hop.state),
            weight => format!("{} {} weight {weight}", hop.address, hop.state),
        };
        let hops = |hops: &[HopView]| match hops {
            [] => "on link".to_owned(),
            hops => hops.iter().map(hop).collect::<Vec<_>>().join(", "),
        };
        let networks = gateway.networks.iter();
        let rows: Vec<_> =
            networks.map(|net| row(&net.prefix, hops(&net.next_hops), &net.announced)).collect();
        if rows.is_empty() { vec![row("-", "-".into(), "-")] } else { rows }
    };
    or_none(gateways.len(), "gateways", || {
        let columns = ["INTERFACE", ">MTU", "NETWORK", "NEXT-HOPS", "ANNOUNCED", "HOST-ENDPOINT"];
        grid(&columns, gateways.iter().flat_map(rows))
    })
}

fn show_vteps(vteps: &[VtepView]) -> String {
    let row = |vtep: &VtepView| {
        vec![
            vtep.outer.to_string(),
            vtep.mac.clone(),
            listed(&vtep.owns),
            vtep.mtu.to_string(),
            optional(vtep.path_mtu),
        ]
    };
    or_none(vteps.len(), "vteps", || {
        grid(&["OUTER", "MAC", "OWNS", ">MTU", ">PATH-MTU"], vteps.iter().map(row))
    })
}

/// Lines as `bridge fdb show` prints them.
fn show_fdb(fdb: &[FdbView]) -> String {
    let line = |entry: &FdbView| {
        let FdbView { mac, dev, dst, vni, port } = entry;
        format!("{mac} dev {dev} dst {dst} port {port} vni {vni} self permanent\n")
    };
    or_none(fdb.len(), "fdb entries", || fdb.iter().map(line).collect())
}

fn show_flows(flows: &[FlowView]) -> String {
    let row = |flow: &FlowView| {
        vec![
            flow.worker.to_string(),
            flow.protocol.clone(),
            end(flow.source, Some(flow.source_port)),
            end(flow.destination, Some(flow.destination_port)),
            flow.state.clone(),
            format!("{}/{}", flow.frames[0], flow.frames[1]),
            format!("{}/{}", flow.bytes[0], flow.bytes[1]),
            format!("{}s", flow.idle_ms / 1000),
            format!("{}s", flow.left_ms / 1000),
            optional(flow.source_name.as_ref()),
            optional(flow.destination_name.as_ref()),
            ruling(flow.egress.as_ref()),
            ruling(flow.ingress.as_ref()),
        ]
    };
    let columns = [
        ">WORKER",
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "STATE",
        ">FRAMES",
        ">BYTES",
        ">IDLE",
        ">LEFT",
        "FROM",
        "TO",
        "EGRESS",
        "INGRESS",
    ];
    or_none(flows.len(), "flows", || grid(&columns, flows.iter().map(row)))
}

/// An address, with its port if it has one.
fn end(address: std::net::IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// What policy says now of a flow.
fn ruling(ruling: Option<&RulingView>) -> String {
    ruling.map_or_else(
        || "-".into(),
        |ruling| format!("{} {}", if ruling.allowed { "allow" } else { "deny" }, decider(&ruling.by)),
    )
}

/// `tier/policy#rule`, as short as it can be.
fn decider(by: &DeciderView) -> String {
    match by {
        DeciderView { name: Some(name), rule: Some(rule), tier, .. } => {
            let tier = tier.as_ref().map_or_else(String::new, |tier| format!("{tier}/"));
            format!("{tier}{name}#{rule}")
        }
        DeciderView { tier: Some(tier), .. } => format!("end of {tier}"),
        _ => "end".to_owned(),
    }
}

fn show_records(records: &[RecordView]) -> String {
    let row = |record: &RecordView| {
        vec![
            utc(record.at_ms),
            record.event.clone(),
            record.direction.clone(),
            record.protocol.clone(),
            end(record.source, record.source_port),
            end(record.destination, record.destination_port),
            optional(record.source_name.as_ref()),
            optional(record.destination_name.as_ref()),
            decider(&record.by),
            record.generation.to_string(),
        ]
    };
    let columns =
        ["TIME", "EVENT", "DIRECTION", "PROTO", "SOURCE", "DESTINATION", "FROM", "TO", "BY", ">GENERATION"];
    or_none(records.len(), "denied or logged connections", || grid(&columns, records.iter().map(row)))
}

/// One record on one line: what `canal monitor` prints.
pub fn record_line(record: &RecordView) -> String {
    let named = |name: &Option<String>| name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
    let icmp = record.icmp.map_or_else(String::new, |[kind, code]| format!(" type {kind} code {code}"));
    format!(
        "{} {} {}{} > {}{} {}{icmp}, {} bytes: {}\n",
        utc(record.at_ms),
        record.event,
        end(record.source, record.source_port),
        named(&record.source_name),
        end(record.destination, record.destination_port),
        named(&record.destination_name),
        record.protocol,
        record.bytes,
        record.by.text
    )
}

/// The same as JSON.
pub fn json_line(record: &RecordView) -> String {
    match serde_json::to_string(record) {
        Ok(text) => text + "\n",
        Err(_) => unreachable!("a record is plain data"),
    }
}

/// Milliseconds since 1970, as the time of day (UTC): records are minutes old, not days.
fn utc(at_ms: u64) -> String {
    let (seconds, ms) = (at_ms / 1000 % 86_400, at_ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn show_drops(drops: &[DropView], all: bool) -> String {
    let shown: Vec<&DropView> = drops.iter().filter(|drop| all || drop.frames > 0).collect();
    let row = |drop: &&DropView| vec![drop.reason.clone(), drop.frames.to_string(), drop.sentence.clone()];
    or_none(shown.len(), "drops", || grid(&["REASON", ">FRAMES", "MEANING"], shown.iter().map(row)))
}

fn show_generation(view: &GenerationView) -> String {
    let complete = if view.complete { "complete" } else { "no complete picture yet: everything is dropped" };
    format!(
        "generation {} of revision {} ({complete}); seen by workers: {}\n",
        view.generation,
        view.revision,
        listed(&view.workers)
    )
}

/// `canal status`.
pub fn status(view: &StatusView) -> String {
    let headline = match (view.ready, view.reasons.is_empty()) {
        (true, true) => "ready\n",
        (true, false) => "ready, but degraded\n",
        (false, _) => "not ready\n",
    };
    let mut text = String::from(headline);
    for reason in &view.reasons {
        text.push_str(&format!("  {}\n", reason.sentence));
    }
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<11}{value}\n"));
    line("node", view.node.clone());
    line("daemon", format!("canal-fwd {}, pid {}, up {} s", view.version, view.pid, view.uptime_s));
    line("port", format!("{} ({})", view.port, view.port_why));
    let datastore = &view.datastore;
    let connected = if datastore.connected { "connected" } else { "not connected" };
    let sync = if datastore.in_sync { "in sync" } else { "not in sync" };
    let silent = datastore.silent_ms.map_or_else(String::new, |ms| format!(", heard of {} ago", ago(ms)));
    line("datastore", format!("{}, {connected}, {sync}{silent}", datastore.name));
    line("revision", revision(datastore));
    match &view.lease {
        None => line("lease", "none".into()),
        Some(lease) => {
            let end = match lease.expires_in_s {
                Some(seconds) => format!("{seconds} s left"),
                None => "without end".into(),
            };
            let (subnets, public) = (listed(&lease.subnets), listed(&lease.public));
            line("lease", format!("{subnets} at {public}, {}, mtu {}, {end}", lease.backend, lease.mtu));
        }
    }
    if let Some(view) = &view.policy {
        line("policy", policy(view));
    }
    if let Some(view) = &view.calico_network {
        line("calico", calico::network(view));
    }
    for complaint in &view.complaints {
        line("ignored", complaint.clone());
    }
    text
}

fn policy(view: &PolicyView) -> String {
    match view {
        PolicyView { switched_off: true, .. } => "off: everything is allowed".into(),
        PolicyView { enforced: false, .. } => "none in the datastore: everything is allowed".into(),
        PolicyView { workloads, host_endpoints, policies, profiles, sets, .. } => {
            let hosts = match host_endpoints {
                0 => String::new(),
                count => format!(
                    "; {count} host endpoints, enforced for what passes gateway interfaces; the host's own traffic is not taken off the interface"
                ),
            };
            format!(
                "enforced: {policies} policies, {profiles} profiles, {sets} sets for {workloads} workloads{hosts}"
            )
        }
    }
}

/// What has been read, and how far it is enforced.
fn revision(datastore: &DatastoreView) -> String {
    let DatastoreView { revision, in_force, in_force_ms, behind_ms, late_workers, .. } = datastore;
    let mut text = format!("{revision} read");
    match in_force_ms {
        None => text.push_str(", nothing in force"),
        Some(ms) if revision == in_force => text.push_str(&format!(", in force for {}", ago(*ms))),
        Some(_) => text.push_str(&format!(" {} ago, {in_force} in force", ago(*behind_ms))),
    }
    if !late_workers.is_empty() {
        text.push_str(&format!("; not used yet by worker {}", listed(late_workers)));
    }
    text
}

/// A time in the unit that says something.
fn ago(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..600_000 => format!("{} s", ms / 1000),
        _ => format!("{} min", ms / 60_000),
    }
}

/// `canal wait`.
pub fn enforced(view: &EnforcedView) -> String {
    if view.enforced {
        return format!(
            "revision {} is enforced by every worker (generation {})\n",
            view.revision, view.generation
        );
    }
    let why = if view.degraded { "cannot be waited for" } else { "is not enforced yet" };
    let mut text = format!("revision {} {why}\n", view.revision);
    for reason in &view.reasons {
        text.push_str(&format!("  {reason}\n"));
    }
    text
}

#[cfg(test)]
pub mod tests;
