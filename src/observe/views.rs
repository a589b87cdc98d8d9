//! From the dataplane's own types to what is shown. Pure: the caller brings specs, tables, counters and the time.

use std::collections::BTreeMap;

use canal_control::felix::{Config, Effect, Setting};
use canal_control::host::Neighbours;
use canal_control::status::AnnouncementStatus;
use canal_dataplane::counters::Counters;
use canal_dataplane::flow::{Action, Census, FlowInfo, State};
use canal_dataplane::offload::Caps;
use canal_dataplane::policy::{Facts, Outcome};
use canal_dataplane::port::PortStats;
use canal_dataplane::spec::policy::{HostPolicy, PolicyDirection};
use canal_dataplane::spec::{Gateway, Hop, NodeSpec, Via};
use canal_dataplane::tables::policy::Memo;
use canal_dataplane::tables::{Kind, Tables};
use canal_dataplane::timing::Part;
use canal_dataplane::verdict::DropReason;
use ipnetwork::IpNetwork;

use super::protocol::{
    BehindView, CensusView, DropView, EndpointView, FdbView, FlowView, GatewayView, GenerationView, HopView,
    PartView, PortView, RouteView, RulingView, SettingView, VerdictsView, VtepView, WorkerView,
};
use super::{names, policy_views};

/// Felix's settings.
pub fn config(config: &Config) -> Vec<SettingView> {
    let view = |setting: &Setting| {
        let (effect, why) = match setting.effect {
            Effect::Obeyed => ("obeyed", None),
            Effect::Partly(why) => ("partly", Some(why.to_owned())),
            Effect::Prepared(why) => ("prepared", Some(why.to_owned())),
            Effect::Invalid(expected) => ("invalid", Some(format!("not {expected}; the default counts"))),
            Effect::Meaningless(why) => ("meaningless", Some(why.to_owned())),
        };
        SettingView {
            name: setting.name.clone(),
            value: setting.value.clone(),
            source: setting.source.to_string(),
            effect: effect.to_owned(),
            why,
        }
    };
    config.settings.iter().map(view).collect()
}

/// Local workloads, in the spec's order.
pub fn endpoints(spec: &NodeSpec) -> Vec<EndpointView> {
    let view = |endpoint: &canal_dataplane::spec::Endpoint| EndpointView {
        name: endpoint.name.clone(),
        interface: endpoint.interface.clone(),
        ifindex: endpoint.ifindex,
        mac: endpoint.mac.map(|mac| mac.to_string()),
        networks: endpoint.networks.iter().map(IpNetwork::to_string).collect(),
        mtu: endpoint.mtu,
        ingress: policy_views::names(&endpoint.policy.ingress),
        egress: policy_views::names(&endpoint.policy.egress),
    };
    spec.endpoints.iter().map(view).collect()
}

/// All routes, those of host and workloads included, by prefix.
pub fn routes(spec: &NodeSpec) -> Vec<RouteView> {
    // Later insertions win, in the order in which the tables are compiled.
    let mut routes: BTreeMap<IpNetwork, RouteView> = BTreeMap::new();
    let mut insert = |prefix: IpNetwork, kind: &str, via: String, mtu: Option<u16>| {
        let view = RouteView { prefix: prefix.to_string(), kind: kind.into(), via, mtu };
        routes.insert(prefix, view);
    };
    for route in &spec.routes {
        match &route.via {
            Via::Vtep(outer) => {
                let vxlan = spec.vxlan.as_ref();
                let mtu = vxlan.and_then(|vxlan| match outer {
                    std::net::IpAddr::V4(_) => vxlan.v4.map(|local| local.mtu),
                    std::net::IpAddr::V6(_) => vxlan.v6.map(|local| local.mtu),
                });
                insert(route.prefix, "vtep", outer.to_string(), mtu);
            }
            Via::Direct { next_hop, mtu } => {
                insert(route.prefix, "direct", next_hop.to_string(), Some(*mtu));
            }
            Via::Gateway(hops) => {
                let mtu = spec
                    .gateways
                    .iter()
                    .filter(|gateway| hops.iter().any(|hop| hop.interface == gateway.name));
                let via: Vec<String> =
                    hops.iter().map(|hop| names::hop(&hop.interface, hop.next_hop)).collect();
                insert(route.prefix, "gateway", via.join(", "), mtu.map(|gateway| gateway.mtu).min());
            }
            Via::Drop(reason) => insert(route.prefix, "drop", reason.label().into(), None),
        }
    }
    for endpoint in &spec.endpoints {
        for network in &endpoint.networks {
            match endpoint.ifindex {
                Some(_) => insert(*network, "endpoint", endpoint.name.clone(), Some(endpoint.mtu)),
                None => insert(*network, "drop", DropReason::EndpointDown.label().into(), None),
            }
        }
    }
    for address in &spec.host_addresses {
        insert(IpNetwork::from(*address), "host", String::new(), None);
    }
    routes.into_values().collect()
}

/// Interfaces with plain hosts behind them, and what is behind.
pub fn gateways(
    spec: &NodeSpec,
    announcements: &[AnnouncementStatus],
    neighbours: &Neighbours,
) -> Vec<GatewayView> {
    let announced = |prefix: IpNetwork| {
        let status = announcements.iter().find(|status| status.networks.contains(&prefix));
        match status.map(|status| &status.problem) {
            None => "no".to_owned(),
            Some(None) => "yes".to_owned(),
            Some(Some(why)) => why.clone(),
        }
    };
    let router = |gateway: &Gateway, hop: &Hop| {
        let address = hop.next_hop?;
        let state = gateway.ifindex.and_then(|ifindex| neighbours.get(&(ifindex, address)));
        let (state, weight) = (state.unwrap_or(&"NONE").to_string(), hop.weight.get());
        Some(HopView { address, state, weight })
    };
    let view = |gateway: &Gateway| {
        let behind = spec.routes.iter().filter_map(|route| {
            let Via::Gateway(hops) = &route.via else { return None };
            let mut own = hops.iter().filter(|hop| hop.interface == gateway.name).peekable();
            own.peek()?;
            Some(BehindView {
                prefix: route.prefix.to_string(),
                next_hops: own.filter_map(|hop| router(gateway, hop)).collect(),
                announced: announced(route.prefix),
            })
        });
        let host = spec.host_endpoint_of(&gateway.name).map(|index| &spec.host_endpoints[index]);
        let lists = |policy: &HostPolicy| {
            let lists = [&policy.untracked, &policy.pre_dnat, &policy.forward];
            lists.into_iter().flat_map(|list| policy_views::names(list)).collect::<Vec<_>>()
        };
        GatewayView {
            name: gateway.name.to_string(),
            ifindex: gateway.ifindex,
            mtu: gateway.mtu,
            networks: behind.collect(),
            host_endpoint: host.map(|host| host.name.to_string()),
            ingress: host.map(|host| lists(&host.ingress)).unwrap_or_default(),
            egress: host.map(|host| lists(&host.egress)).unwrap_or_default(),
        }
    };
    spec.gateways.iter().map(view).collect()
}

/// Remote tunnel end points, with the MTU in force at `now_ms`.
pub fn vteps(spec: &NodeSpec, tables: &Tables, now_ms: u64) -> Vec<VtepView> {
    let view = |vtep: &canal_dataplane::spec::Vtep| {
        let adjacency = tables
            .vtep_at(vtep.outer)
            .map(|index| &tables.adjacencies[tables.vteps[index as usize].adjacency as usize]);
        VtepView {
            outer: vtep.outer,
            mac: vtep.mac.to_string(),
            owns: vtep.owns.iter().map(IpNetwork::to_string).collect(),
            mtu: adjacency.map_or(0, |adjacency| adjacency.mtu_at(now_ms)),
            path_mtu: adjacency.and_then(|adjacency| adjacency.path_mtu()?.current(now_ms)),
        }
    };
    spec.vteps.iter().map(view).collect()
}

/// The forwarding database that a kernel VXLAN device would have in our place.
pub fn fdb(spec: &NodeSpec, device: &str) -> Vec<FdbView> {
    let Some(vxlan) = spec.vxlan else { return Vec::new() };
    let view = |vtep: &canal_dataplane::spec::Vtep| FdbView {
        mac: vtep.mac.to_string(),
        dev: device.to_owned(),
        dst: vtep.outer,
        vni: vxlan.vni.get(),
        port: vxlan.port,
    };
    spec.vteps.iter().map(view).collect()
}

/// One connection of one worker; `memo` helps to find out what policy says.
pub fn flow(worker: u32, flow: &FlowInfo, tables: &Tables, memo: &mut Memo) -> FlowView {
    let (source, destination) = flow.key.ends(flow.origin);
    let (forth, back) = (flow.origin as usize, flow.origin.flip() as usize);
    FlowView {
        worker,
        protocol: names::protocol(flow.key.protocol()),
        source: source.0,
        source_port: source.1,
        source_name: names::holder(source.0, tables),
        destination: destination.0,
        destination_port: destination.1,
        destination_name: names::holder(destination.0, tables),
        egress: ruling(flow, tables, memo, PolicyDirection::Egress),
        ingress: ruling(flow, tables, memo, PolicyDirection::Ingress),
        state: flow.state.name().into(),
        answered: flow.answered,
        frames: [forth, back].map(|direction| flow.packets[direction].into()),
        bytes: [forth, back].map(|direction| flow.bytes[direction]),
        idle_ms: flow.idle_ms.into(),
        left_ms: flow.left_ms.into(),
        via: [forth, back].map(|direction| via(flow.actions[direction], tables)),
    }
}

/// What the policy of one end's workload says of opening the connection; `None` if it is not one of this node, or is not
/// asked: what the host itself opens is not for its workloads' policy to refuse.
fn ruling(
    flow: &FlowInfo,
    tables: &Tables,
    memo: &mut Memo,
    direction: PolicyDirection,
) -> Option<RulingView> {
    let (source, destination) = flow.key.ends(flow.origin);
    let of = |address| tables.route(address).map(|adjacency| &tables.adjacencies[adjacency as usize].kind);
    let (own, peer) = match direction {
        PolicyDirection::Egress => (source.0, destination.0),
        PolicyDirection::Ingress => (destination.0, source.0),
    };
    let Kind::Endpoint { endpoint, .. } = of(own)? else { return None };
    let programs = tables.policy.endpoint(*endpoint);
    let program = match direction {
        PolicyDirection::Egress => &programs.egress,
        PolicyDirection::Ingress if matches!(of(peer), Some(Kind::Host)) => return None,
        PolicyDirection::Ingress => &programs.ingress,
    };
    let judgement = tables.policy.judge(program, memo, &Facts::of(&flow.key, flow.origin));
    let allowed = judgement.outcome == Outcome::Allowed;
    Some(RulingView { allowed, by: names::decider(&judgement.decider) })
}

/// Where an action leads, if it was decided by tables with the same ways.
fn via(action: Action, tables: &Tables) -> String {
    let adjacency = action.adjacency.and_then(|adjacency| tables.adjacencies.get(adjacency as usize));
    let generation = tables.generation as u32;
    let age = |since: u32| generation.wrapping_sub(since);
    let decided = age(action.generation) <= age(tables.ways_since() as u32);
    let next = adjacency.filter(|_| decided).map(|adjacency| names::next_hop(adjacency, tables));
    next.flatten().unwrap_or_else(|| "-".into())
}

/// Every reason, also those that never happened.
pub fn drops<'a>(workers: impl Iterator<Item = &'a Counters> + Clone) -> Vec<DropView> {
    let view = |reason: &DropReason| {
        let workers: Vec<u64> = workers.clone().map(|counters| counters.drops(*reason)).collect();
        DropView {
            reason: reason.label().into(),
            frames: workers.iter().sum(),
            sentence: reason.sentence().into(),
            workers,
        }
    };
    DropReason::ALL.iter().map(view).collect()
}

/// One packet thread.
pub fn worker(index: u32, core: Option<u32>, counters: &Counters) -> WorkerView {
    let timing = &counters.timing;
    let part =
        |part: Part| PartView { part: part.label().into(), timed_ns: timing.ns(part), ..PartView::default() };
    let view = WorkerView {
        worker: index,
        core,
        received: counters.received.get(),
        received_bytes: counters.received_bytes.get(),
        forwarded: counters.forwarded.get(),
        forwarded_bytes: counters.forwarded_bytes.get(),
        encapsulated: counters.encapsulated.get(),
        decapsulated: counters.decapsulated.get(),
        to_host: counters.to_host.get(),
        replies: counters.replies.get(),
        handed_over: counters.handed_over.get(),
        taken_over: counters.taken_over.get(),
        batches: counters.batches.get(),
        dropped: counters.all_drops(),
        flow_hits: counters.flow_hits.get(),
        flows_created: counters.flows_created.get(),
        flows_expired: counters.flows_expired.get(),
        flows_evicted: counters.flows_evicted.get(),
        flows_cut: counters.flows_cut.get(),
        flows: counters.flows.get(),
        vxlan_reserved_bits: counters.vxlan_reserved_bits.get(),
        icmp_limited: counters.icmp_limited.get(),
        records_lost: counters.records_lost.get(),
        verdicts: verdicts(counters),
        seen_generation: counters.seen_generation.get(),
        busy_ns: counters.busy_ns.get(),
        idle_ns: counters.idle_ns.get(),
        sleeps: counters.sleeps.get(),
        timed_turns: timing.turns.get(),
        timed_frames: timing.frames.get(),
        parts: Part::all().map(part).collect(),
        ..WorkerView::default()
    };
    view.with_rates()
}

fn verdicts(counters: &Counters) -> Vec<VerdictsView> {
    [PolicyDirection::Ingress, PolicyDirection::Egress]
        .map(|direction| VerdictsView {
            direction: direction.to_string(),
            allowed: counters.verdicts(direction, true),
            denied: counters.verdicts(direction, false),
        })
        .into()
}

/// Flows of all workers together by protocol and state, also those that there are none of.
pub fn census<'a>(workers: impl Iterator<Item = &'a Counters>) -> Vec<CensusView> {
    let mut sums = [0; Census::PLACES.len()];
    for counters in workers {
        sums.iter_mut().zip(counters.census()).for_each(|(sum, count)| *sum += count);
    }
    let view = |((protocol, state), flows): ((&str, State), u64)| CensusView {
        protocol: protocol.into(),
        state: state.name().into(),
        flows,
    };
    Census::PLACES.into_iter().zip(sums).map(view).collect()
}

/// Which tables are in force, and who has seen them.
pub fn generation<'a>(tables: &Tables, workers: impl Iterator<Item = &'a Counters>) -> GenerationView {
    GenerationView {
        generation: tables.generation,
        revision: tables.revision,
        complete: tables.ready,
        workers: workers.map(|counters| counters.seen_generation.get()).collect(),
    }
}

/// Names of what a port takes off our hands.
pub fn offloads(caps: Caps) -> Vec<String> {
    let named = [(caps.checksum, "checksum"), (caps.tso, "tso"), (caps.uso, "uso"), (caps.tunnel, "tunnel")];
    named.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned()).collect()
}

/// A port's view with its counters as of now.
pub fn with_stats(port: &PortView, stats: PortStats) -> PortView {
    PortView {
        rx_frames: stats.rx_frames,
        rx_bytes: stats.rx_bytes,
        rx_dropped: stats.rx_dropped,
        tx_frames: stats.tx_frames,
        tx_bytes: stats.tx_bytes,
        tx_full: stats.tx_full,
        tx_errors: stats.tx_errors,
        ..port.clone()
    }
}

#[cfg(test)]
mod tests {
    use canal_dataplane::net::{Mac, Vni};
    use canal_dataplane::spec::policy::EndpointPolicy;
    use canal_dataplane::spec::{Endpoint, LocalVtep, Route, Vtep, Vxlan};
    use canal_dataplane::tables::compile;

    use super::*;
    use crate::observe::protocol::{DeciderView, RatesView};

    fn spec() -> NodeSpec {
        let network = |text: &str| text.parse::<IpNetwork>().unwrap();
        NodeSpec {
            revision: 9,
            vxlan: Some(Vxlan {
                vni: Vni::new(1).unwrap(),
                port: 8472,
                v4: Some(LocalVtep {
                    address: [192, 0, 2, 1].into(),
                    mac: Mac([2, 0, 0, 0, 0, 1]),
                    mtu: 1450,
                }),
                v6: None,
            }),
            host_addresses: vec!["10.1.1.0".parse().unwrap()],
            endpoints: vec![
                Endpoint {
                    name: "default/a".into(),
                    interface: "cali1".into(),
                    ifindex: Some(7),
                    mac: None,
                    networks: vec![network("10.1.1.2/32")],
                    mtu: 1450,
                    policy: EndpointPolicy::allow_all(),
                },
                Endpoint {
                    name: "default/b".into(),
                    interface: "cali2".into(),
                    ifindex: None,
                    mac: Some(Mac([2, 0, 0, 0, 0, 9])),
                    networks: vec![network("10.1.1.3/32")],
                    mtu: 1450,
                    policy: EndpointPolicy::allow_all(),
                },
            ]
            .into(),
            vteps: vec![Vtep {
                outer: "192.0.2.2".parse().unwrap(),
                mac: Mac([2, 0, 0, 0, 0, 2]),
                owns: vec![network("10.1.2.0/24")],
            }]
            .into(),
            routes: vec![
                Route { prefix: network("10.1.1.0/24"), via: Via::Drop(DropReason::UnassignedAddress) },
                Route { prefix: network("10.1.2.0/24"), via: Via::Vtep("192.0.2.2".parse().unwrap()) },
                Route {
                    prefix: network("10.1.3.0/24"),
                    via: Via::Direct { next_hop: "192.0.2.3".parse().unwrap(), mtu: 1500 },
                },
            ]
            .into(),
            ..NodeSpec::default()
        }
    }

    #[test]
    fn routes_are_those_the_tables_have() {
        let shown: Vec<String> = routes(&spec())
            .into_iter()
            .map(|route| format!("{} {} {} {:?}", route.prefix, route.kind, route.via, route.mtu))
            .collect();
        assert_eq!(
            shown,
            [
                "10.1.1.0/24 drop unassigned_address None",
                "10.1.1.0/32 host  None",
                "10.1.1.2/32 endpoint default/a Some(1450)",
                "10.1.1.3/32 drop endpoint_down None",
                "10.1.2.0/24 vtep 192.0.2.2 Some(1450)",
                "10.1.3.0/24 direct 192.0.2.3 Some(1500)",
            ]
        );
    }

    #[test]
    fn a_learnt_path_mtu_is_shown_while_it_is_believed() {
        let tables = compile(&spec(), None, 3);
        assert_eq!((vteps(&spec(), &tables, 5)[0].mtu, vteps(&spec(), &tables, 5)[0].path_mtu), (1450, None));
        let adjacency = &tables.adjacencies[tables.vteps[0].adjacency as usize];
        adjacency.path_mtu().unwrap().lower(1300, 0);
        let shown = vteps(&spec(), &tables, 5);
        assert_eq!((shown[0].mtu, shown[0].path_mtu), (1300, Some(1300)));
        assert_eq!(shown[0].owns, ["10.1.2.0/24"]);
    }

    #[test]
    fn the_fdb_names_every_vtep() {
        let line = FdbView {
            mac: "02:00:00:00:00:02".into(),
            dev: "canal0".into(),
            dst: "192.0.2.2".parse().unwrap(),
            vni: 1,
            port: 8472,
        };
        assert_eq!(fdb(&spec(), "canal0"), [line]);
        assert_eq!(fdb(&NodeSpec::default(), "canal0"), []);
    }

    #[test]
    fn drops_are_summed_and_complete() {
        let counters = [Counters::default(), Counters::default()];
        counters[0].drop(DropReason::NoRoute);
        counters[1].drop(DropReason::NoRoute);
        counters[1].drop(DropReason::NoRoute);
        let shown = drops(counters.iter());
        assert_eq!(shown.len(), DropReason::COUNT);
        let no_route = &shown[DropReason::NoRoute as usize];
        assert_eq!((no_route.reason.as_str(), no_route.frames), ("no_route", 3));
        assert_eq!(no_route.workers, [1, 2]);
        assert_eq!(shown.iter().map(|drop| drop.frames).sum::<u64>(), 3);
    }

    #[test]
    fn workers_and_generation_are_read_from_the_counters() {
        let counters = Counters::default();
        counters.verdict(PolicyDirection::Ingress, true);
        counters.received.add(3);
        counters.batches.add(2);
        counters.idle_ns.set(5);
        counters.seen_generation.set(2);
        counters.drop(DropReason::TooBig);
        let expected = WorkerView {
            worker: 1,
            core: Some(4),
            received: 3,
            batches: 2,
            idle_ns: 5,
            dropped: 1,
            seen_generation: 2,
            verdicts: [("ingress", 1), ("egress", 0)]
                .map(|(direction, allowed)| VerdictsView { direction: direction.into(), allowed, denied: 0 })
                .into(),
            parts: Part::all()
                .map(|part| PartView { part: part.label().into(), ..PartView::default() })
                .collect(),
            rates: RatesView {
                busy: Some(0.0),
                batch: Some(1.5),
                handed_over: Some(0.0),
                ns_per_frame: None,
            },
            ..WorkerView::default()
        };
        assert_eq!(worker(1, Some(4), &counters), expected);
        let tables = compile(&spec(), None, 3);
        let expected = GenerationView { generation: 3, revision: 9, complete: true, workers: vec![2] };
        assert_eq!(generation(&tables, std::iter::once(&counters)), expected);
    }

    #[test]
    fn a_flow_says_where_each_direction_goes() {
        use canal_dataplane::flow::State;
        use canal_dataplane::net::FlowKey;
        let tables = compile(&spec(), None, 3);
        let (key, origin) = FlowKey::v4(0x0a01_0102, 0x0a01_0203, (4000, 80), 6, false);
        let action = |address: &str, generation| Action {
            adjacency: tables.route(address.parse().unwrap()),
            generation,
        };
        let mut memo = Memo::default();
        let mut flow =
            |worker, info: &FlowInfo, tables: &Tables| super::flow(worker, info, tables, &mut memo);
        let everything = || RulingView {
            allowed: true,
            by: DeciderView {
                tier: None,
                kind: Some("Profile".into()),
                name: Some("projectcalico-default-allow".into()),
                rule: Some(0),
                text: "Profile projectcalico-default-allow, egress rule 0 (Allow)".into(),
            },
        };
        let info = FlowInfo {
            key,
            origin,
            state: State::Established,
            answered: true,
            packets: [2, 1],
            bytes: [200, 100],
            idle_ms: 5,
            left_ms: 70,
            actions: [action("10.1.2.3", 3), action("10.1.1.2", 3)],
        };
        let expected = FlowView {
            worker: 1,
            protocol: "tcp".into(),
            source: "10.1.1.2".parse().unwrap(),
            source_port: 4000,
            source_name: Some("default/a".into()),
            destination: "10.1.2.3".parse().unwrap(),
            destination_port: 80,
            destination_name: Some("vtep 192.0.2.2".into()),
            egress: Some(everything()),
            ingress: None,
            state: "ESTABLISHED".into(),
            answered: true,
            frames: [2, 1],
            bytes: [200, 100],
            idle_ms: 5,
            left_ms: 70,
            via: ["vtep 192.0.2.2".into(), "default/a".into()],
        };
        assert_eq!(flow(1, &info, &tables), expected);
        // The same, opened by the other end.
        let back = flow(1, &FlowInfo { origin: origin.flip(), ..info.clone() }, &tables);
        assert_eq!(
            (back.source_port, back.destination_port, back.frames, back.bytes),
            (80, 4000, [1, 2], [100, 200])
        );
        assert_eq!(back.via, ["default/a", "vtep 192.0.2.2"]);
        let old = FlowInfo { actions: [action("10.1.3.9", 3), action("10.1.2.3", 2)], ..info };
        assert_eq!(flow(1, &old, &tables).via, ["direct 192.0.2.3", "-"]);
    }

    #[test]
    fn endpoints_say_what_is_missing() {
        let shown = endpoints(&spec());
        assert_eq!((shown[0].ifindex, &shown[0].mac), (Some(7), &None));
        assert_eq!((shown[1].ifindex, shown[1].mac.as_deref()), (None, Some("02:00:00:00:00:09")));
    }

    #[test]
    fn offloads_are_named() {
        assert_eq!(offloads(Caps::ALL), ["checksum", "tso", "uso", "tunnel"]);
        assert_eq!(offloads(Caps::NONE), [] as [&str; 0]);
    }

    #[test]
    fn gateways_say_what_is_behind_them_and_who_is_told() {
        let network = |text: &str| text.parse::<IpNetwork>().unwrap();
        let mut spec = spec();
        let gateway = |name: &str, ifindex| Gateway {
            name: name.into(),
            ifindex,
            mtu: 1500,
            address_v4: None,
            address_v6: None,
            sources: Vec::new(),
        };
        spec.gateways = vec![gateway("eth1", Some(50)), gateway("eth2", None)];
        let hop = |interface: &str, hop: &str| Hop {
            interface: interface.into(),
            next_hop: hop.parse().ok(),
            weight: std::num::NonZeroU16::new(3).unwrap(),
        };
        for (prefix, hops) in [
            ("172.16.1.0/24", vec![hop("eth1", "")]),
            ("172.20.0.0/16", vec![hop("eth1", "172.16.1.11"), hop("eth2", "172.17.1.11")]),
        ] {
            spec.routes.push(Route { prefix: network(prefix), via: Via::Gateway(hops.into()) });
        }
        let told = |prefix: &str, problem: Option<&str>| AnnouncementStatus {
            networks: vec![network(prefix)],
            problem: problem.map(str::to_owned),
        };
        let told = [told("172.16.1.0/24", None), told("172.20.0.0/16", Some("taken"))];
        let known = Neighbours::from([((50, "172.16.1.11".parse().unwrap()), "STALE")]);
        let views = gateways(&spec, &told, &known);
        let shown = |view: &GatewayView| -> Vec<String> {
            let hop = |hop: &HopView| format!("{} {} {}", hop.address, hop.state, hop.weight);
            let hops = |net: &BehindView| net.next_hops.iter().map(hop).collect::<Vec<_>>().join(",");
            let one = |net: &BehindView| format!("{} [{}] {}", net.prefix, hops(net), net.announced);
            view.networks.iter().map(one).collect()
        };
        assert_eq!(shown(&views[0]), ["172.16.1.0/24 [] yes", "172.20.0.0/16 [172.16.1.11 STALE 3] taken"]);
        assert_eq!(shown(&views[1]), ["172.20.0.0/16 [172.17.1.11 NONE 3] taken"]);
        assert_eq!((views[0].ifindex, views[1].ifindex), (Some(50), None));
        let routes = routes(&spec);
        let far = routes.iter().find(|route| route.prefix == "172.20.0.0/16").unwrap();
        assert_eq!((far.kind.as_str(), far.via.as_str()), ("gateway", "eth1 172.16.1.11, eth2 172.17.1.11"));
        let unannounced = gateways(&spec, &[], &known);
        assert_eq!(unannounced[0].networks[0].announced, "no");
    }
}
