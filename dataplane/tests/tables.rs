//! Tables that keep what has not changed are those that a compilation from nothing gives, after any sequence of changes.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use canal_dataplane::spec::policy::EndpointPolicy;
use canal_dataplane::spec::{NodeSpec, Via};
use canal_dataplane::tables::{Tables, compile};
use canal_dataplane::testing::entropy::{Entropy, noise};
use canal_dataplane::testing::{topology, world};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Every address that a spec tells apart, and the neighbours of each.
fn addresses(spec: &NodeSpec) -> BTreeSet<IpAddr> {
    let endpoints = spec.endpoints.iter().flat_map(|endpoint| &endpoint.networks);
    let routes = spec.routes.iter().map(|route| &route.prefix);
    let owned = spec.vteps.iter().flat_map(|vtep| &vtep.owns);
    let prefixes = endpoints.chain(routes).chain(owned).chain(&spec.direct_sources);
    let ends = prefixes.flat_map(|prefix| [prefix.network(), prefix.broadcast()]);
    let outers = spec.vteps.iter().map(|vtep| vtep.outer);
    let next_hops = spec.routes.iter().filter_map(|route| match route.via {
        Via::Direct { next_hop, .. } => Some(next_hop),
        Via::Vtep(_) | Via::Gateway(_) | Via::Drop(_) => None,
    });
    let named = ends.chain(outers).chain(next_hops).chain(spec.host_addresses.iter().copied());
    named.flat_map(|address| [address, beside(address)]).collect()
}

fn beside(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) => IpAddr::from(a.to_bits().wrapping_add(1).to_be_bytes()),
        IpAddr::V6(a) => IpAddr::from(a.to_bits().wrapping_add(1).to_be_bytes()),
    }
}

/// Everything that tables say of ways, in words. Serials are left out: they remember who was there before.
fn ways(tables: &Tables, addresses: &BTreeSet<IpAddr>) -> String {
    let way = |index: u32| &tables.adjacencies[index as usize];
    let to: Vec<_> =
        addresses.iter().map(|to| (to, tables.route(*to).map(way), tables.vtep_at(*to))).collect();
    let endpoints: Vec<_> =
        tables.endpoints.iter().map(|e| (&e.name, &e.networks, way(e.adjacency))).collect();
    let vteps: Vec<_> = tables.vteps.iter().map(|v| (v.outer, v.mac, &v.owns, way(v.adjacency))).collect();
    let interfaces: Vec<_> = (0..200).map(|ifindex| tables.endpoint_at(ifindex)).collect();
    format!("{to:#?}\n{endpoints:#?}\n{vteps:#?}\n{interfaces:?}")
}

#[test]
fn what_is_kept_is_what_would_be_made_anew() {
    let (kept, made) = (Cell::new(0), Cell::new(0));
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(any::<u64>(), 0usize..3000), |(seed, len)| {
            let bytes = noise(seed, len);
            let mut e = Entropy::new(&bytes);
            let mut spec = topology::spec(&mut e);
            let mut tables = compile(&spec, None, 1);
            while !e.is_empty() {
                topology::change(&mut spec, &mut e);
                let next = compile(&spec, Some(&tables), tables.generation + 1);
                let fresh = compile(&spec, None, next.generation);
                let addresses = addresses(&spec);
                prop_assert_eq!(ways(&next, &addresses), ways(&fresh, &addresses));
                for source in &addresses {
                    prop_assert_eq!(next.direct_source(*source), fresh.direct_source(*source));
                }
                if next.ways_since() == tables.ways_since() {
                    // Connections go on by what was decided: it must be the same, number by number.
                    prop_assert_eq!(ways(&next, &addresses), ways(&tables, &addresses));
                    prop_assert!(Arc::ptr_eq(&next.adjacencies, &tables.adjacencies));
                    kept.set(kept.get() + 1);
                } else {
                    prop_assert_eq!(next.ways_since(), next.generation);
                    made.set(made.get() + 1);
                }
                prop_assert!(next.residents.since() <= next.ways_since(), "who lives there is part of a way");
                tables = next;
            }
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert!(kept.get() > 100 && made.get() > 100, "{kept:?} {made:?}");
}

#[test]
fn only_what_a_change_is_about_is_made_anew() {
    let mut spec = world::spec(20);
    let first = compile(&spec, None, 1);
    let same = |a: &Tables, b: &Tables| {
        (Arc::ptr_eq(&a.vteps, &b.vteps), Arc::ptr_eq(&a.adjacencies, &b.adjacencies), b.ways_since())
    };
    spec.endpoints[0].policy = EndpointPolicy::default();
    spec.revision += 1;
    let policy = compile(&spec, Some(&first), 2);
    assert_eq!(same(&first, &policy), (true, true, 1));
    spec.endpoints[1].ifindex = None;
    let interface = compile(&spec, Some(&policy), 3);
    assert_eq!(same(&policy, &interface), (true, false, 3));
    // Values, not where they are in memory, decide.
    let copied =
        NodeSpec { vteps: spec.vteps.to_vec().into(), routes: spec.routes.to_vec().into(), ..spec.clone() };
    let copy = compile(&copied, Some(&interface), 4);
    assert_eq!(same(&interface, &copy), (true, true, 3));
    spec.routes.pop();
    assert_eq!(same(&copy, &compile(&spec, Some(&copy), 5)), (false, false, 5));
}

#[test]
fn a_path_mtu_outlives_every_change_but_that_of_its_node() {
    let mut spec = world::spec(3);
    let first = compile(&spec, None, 1);
    let limit = |tables: &Tables, n: usize| tables.adjacencies[tables.vteps[n].adjacency as usize].mtu_at(0);
    let cell = first.adjacencies[first.vteps[0].adjacency as usize].path_mtu().expect("a tunnel");
    cell.lower(1300, 0);
    spec.vteps[1].mac = world::pod_mac(9);
    spec.endpoints.pop();
    let second = compile(&spec, Some(&first), 2);
    assert_eq!((limit(&second, 0), limit(&second, 1)), (1300, 1450));
    spec.vteps.remove(0);
    let third = compile(&spec, Some(&second), 3);
    assert_eq!(limit(&third, 0), 1450);
}
