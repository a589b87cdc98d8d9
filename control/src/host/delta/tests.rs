use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::host::fake::{self, FakeKernel};
use crate::host::view::{Address, Scope};

const OWN: u32 = 7;
const FOREIGN: u32 = 2;

/// A small world, so that what is there and what is wanted often meet.
const ADDRESSES: [&str; 9] = [
    "10.244.3.0/32",
    "10.244.3.1/24",
    "10.244.3.2/24",
    "10.244.3.2/32",
    "10.9.9.9/8",
    "fd00:3::/128",
    "fd00:3::1/64",
    "fd00:3::2/64",
    "fe80::5/64",
];
const DESTINATIONS: [&str; 6] =
    ["10.244.0.0/16", "10.244.0.7/16", "10.244.4.0/24", "10.0.0.1/32", "fd00::/32", "fd00:4::9/48"];

fn desired() -> Desired {
    Desired {
        device: "canal0".into(),
        mtu: 1450,
        up: true,
        noarp: true,
        addresses: vec!["10.244.3.0/32".parse().unwrap(), "fd00:3::/128".parse().unwrap()],
        routes: vec![
            Route { dst: "10.244.0.0/16".parse().unwrap(), src: "10.244.3.0".parse().ok(), metric: 0 },
            Route { dst: "fd00::/48".parse().unwrap(), src: "fd00:3::".parse().ok(), metric: 0 },
        ],
    }
}

fn own_link() -> Link {
    Link { up: false, running: false, ..fake::link(OWN, "canal0") }
}

#[test]
fn a_fresh_device_is_configured_before_it_comes_up_and_routed_last() {
    let view = HostView { links: vec![fake::link(FOREIGN, "eth0"), own_link()], ..HostView::default() };
    let desired = desired();
    let changes: Vec<Change> = diff(&desired, &view).into_iter().map(|op| op.change).collect();
    let routes: Vec<Route> = desired.routes.iter().map(|route| route.canonical()).collect();
    assert_eq!(
        changes,
        [
            Change::NoAddrGen,
            Change::TxQueueLen(1000),
            Change::Mtu(1450),
            Change::NoArp(true),
            Change::Up(true),
            Change::AddressAdd(desired.addresses[0]),
            Change::AddressAdd(desired.addresses[1]),
            Change::RouteAdd(routes[0]),
            Change::RouteAdd(routes[1]),
        ]
    );
}

#[test]
fn nothing_is_done_to_a_device_that_does_not_exist() {
    let view = HostView { links: vec![fake::link(FOREIGN, "eth0")], ..HostView::default() };
    assert_eq!(diff(&desired(), &view), []);
}

#[test]
fn a_new_source_address_replaces_the_route_that_names_the_old_one() {
    let kernel = FakeKernel::new(HostView { links: vec![own_link()], ..HostView::default() });
    let mut desired = desired();
    settle(&desired, &kernel, 1);
    desired.addresses[0] = "10.244.9.0/32".parse().unwrap();
    desired.routes[0].src = "10.244.9.0".parse().ok();
    let changes: Vec<Change> = settle(&desired, &kernel, 1).into_iter().map(|op| op.change).collect();
    let old = Route { src: "10.244.3.0".parse().ok(), ..desired.routes[0] };
    assert_eq!(
        changes,
        [
            Change::RouteDel(old.on(OWN)),
            Change::AddressDel("10.244.3.0/32".parse().unwrap()),
            Change::AddressAdd(desired.addresses[0]),
            Change::RouteAdd(desired.routes[0]),
        ]
    );
}

#[test]
fn a_route_the_kernel_made_stays() {
    let mut desired = desired();
    desired.routes.clear();
    let kernel = FakeKernel::new(HostView { links: vec![own_link()], ..HostView::default() });
    settle(&desired, &kernel, 1);
    let made = HostRoute {
        protocol: PROTOCOL_KERNEL,
        ..Route { dst: "fe80::/64".parse().unwrap(), src: None, metric: 256 }.on(OWN)
    };
    kernel.state().routes.push(made);
    assert_eq!(diff(&desired, &kernel.state()), []);
}

/// Applies differences up to `rounds` times and asserts that nothing is left; returns the operations done.
fn settle(desired: &Desired, kernel: &FakeKernel, rounds: usize) -> Vec<Op> {
    for _ in 0..rounds {
        let ops = diff(desired, &kernel.state().clone());
        for op in &ops {
            assert_eq!(op.ifindex, OWN, "{op}");
            // Some are refused in a round that a side effect has overtaken; the next one sees that.
            let _overtaken = kernel.obey(op);
        }
    }
    assert_eq!(diff(desired, &kernel.state().clone()), []);
    kernel.take_obeyed()
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn a_desired() -> impl Strategy<Value = Desired> {
    let addresses = subsequence(ADDRESSES.to_vec(), 0..=ADDRESSES.len()).prop_shuffle();
    let routes = prop::collection::vec((select(DESTINATIONS.to_vec()), any::<Option<u8>>(), 0u32..3), 0..8);
    (any::<bool>(), any::<bool>(), 1280u32..9000, addresses, routes).prop_map(
        |(up, noarp, mtu, addresses, routes)| {
            let addresses: Vec<IpNetwork> = addresses.into_iter().map(net).collect();
            let route = |(dst, src, metric): (&str, Option<u8>, u32)| {
                let dst = net(dst);
                let sources: Vec<IpAddr> = addresses.iter().map(|net| net.ip()).collect();
                let sources: Vec<_> = sources.iter().filter(|ip| ip.is_ipv6() == dst.is_ipv6()).collect();
                let src = src.and_then(|pick| sources.get(usize::from(pick) % sources.len().max(1)));
                Route { dst, src: src.copied().copied(), metric }
            };
            let routes = routes.into_iter().map(route).collect();
            Desired { device: "canal0".into(), mtu, up, noarp, addresses, routes }
        },
    )
}

/// A host after some history: an earlier desired state was reached, then somebody disturbed it.
fn a_host() -> impl Strategy<Value = HostView> {
    let addresses = subsequence(ADDRESSES.to_vec(), 0..=4);
    let routes = subsequence(DESTINATIONS.to_vec(), 0..=3);
    let link = (any::<bool>(), any::<bool>(), prop::option::of(0u8..4), 0u32..2000, 1280u32..9000);
    (a_desired(), link, addresses, routes).prop_map(|(earlier, link, addresses, routes)| {
        let mut eth0 =
            vec![fake::address(FOREIGN, "192.168.50.11/24"), fake::address(FOREIGN, "10.244.3.2/24")];
        eth0[1].scope = Scope::Site;
        let default = Route { dst: net("0.0.0.0/0"), src: None, metric: 100 }.on(FOREIGN);
        let kernel = FakeKernel::new(HostView {
            links: vec![fake::link(FOREIGN, "eth0"), own_link()],
            addresses: eth0,
            routes: vec![default],
        });
        settle(&earlier, &kernel, 3);
        for address in addresses {
            let _there = kernel.obey(&Op { ifindex: OWN, change: Change::AddressAdd(net(address)) });
        }
        for dst in routes {
            let route = Route { dst: net(dst), src: None, metric: 1 }.canonical();
            let _there = kernel.obey(&Op { ifindex: OWN, change: Change::RouteAdd(route) });
        }
        let mut view = kernel.state().clone();
        let own = view.links.iter_mut().find(|link| link.index == OWN).expect("canal0");
        (own.up, own.noarp, own.addr_gen_mode, own.tx_queue_len, own.mtu) = link;
        if !own.up {
            view.routes.retain(|route| route.ifindex != OWN);
        }
        view
    })
}

/// Everything that is not ours.
fn foreign(view: &HostView) -> HostView {
    let mut view = view.clone();
    view.links.retain(|link| link.index != OWN);
    view.addresses.retain(|address| address.ifindex != OWN);
    view.routes.retain(|route| route.ifindex != OWN);
    view
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_host_becomes_as_desired_and_the_rest_of_it_stays(desired in a_desired(), host in a_host()) {
        let kernel = FakeKernel::new(host.clone());
        settle(&desired, &kernel, 3);
        let view = kernel.state().clone();

        let link = view.link_by_index(OWN).unwrap();
        prop_assert_eq!((link.up, link.noarp, link.mtu), (desired.up, desired.noarp, desired.mtu));
        prop_assert!(link.tx_queue_len >= 1000);
        prop_assert!(matches!(link.addr_gen_mode, None | Some(ADDR_GEN_MODE_NONE)));
        let addresses: BTreeSet<IpNetwork> = view.addresses_of(OWN).map(|address| address.net).collect();
        prop_assert_eq!(addresses, desired.canonical_addresses());
        let routes: BTreeSet<(IpNetwork, u32, Option<IpAddr>)> =
            view.routes_of(OWN).map(|route| (route.dst, route.metric, route.src)).collect();
        let wanted = desired.canonical_routes();
        prop_assert_eq!(routes, wanted.iter().map(|route| (route.dst, route.metric, route.src)).collect());

        prop_assert_eq!(foreign(&view), foreign(&host));
    }

    #[test]
    fn one_round_is_enough_for_the_addresses_canal_uses(host in a_host(), mtu in 1280u32..9000) {
        let host_only = |address: &Address| {
            address.ifindex != OWN || address.net.prefix() == if address.net.is_ipv4() { 32 } else { 128 }
        };
        let mut host = host;
        host.addresses.retain(host_only);
        let kernel = FakeKernel::new(host);
        settle(&Desired { mtu, ..desired() }, &kernel, 1);
    }
}
