use super::*;
use crate::host::fake::{address, link};
use crate::host::view::HostRoute;

/// lo, eth0 (v4 and v6), wlan0 (v4 only), empty0 (nothing), canal0 (ours).
fn host() -> HostView {
    let loopback = Link { loopback: true, ..link(1, "lo") };
    let default = |dst: &str, ifindex, metric| HostRoute {
        dst: dst.parse().unwrap(),
        metric,
        ifindex,
        gateway: None,
        weight: std::num::NonZeroU16::MIN,
        src: None,
        scope: Scope::Global,
        protocol: 3,
    };
    let mut view = HostView {
        links: vec![
            loopback,
            Link { mtu: 9000, ..link(2, "eth0") },
            link(3, "wlan0"),
            Link { up: false, ..link(4, "empty0") },
            link(7, "canal0"),
        ],
        addresses: vec![
            Address { scope: Scope::Host, ..address(1, "127.0.0.1/8") },
            address(2, "192.168.50.11/24"),
            address(2, "192.168.50.12/24"),
            Address { scope: Scope::Link, ..address(2, "fe80::11/64") },
            address(2, "fd50::11/64"),
            address(3, "10.20.0.5/16"),
            address(7, "10.244.3.0/32"),
        ],
        routes: vec![default("0.0.0.0/0", 3, 600), default("0.0.0.0/0", 2, 100), default("::/0", 2, 1024)],
    };
    view.sort();
    view
}

fn wanted() -> Wanted {
    Wanted { ipv4: true, own_device: "canal0".into(), ..Wanted::default() }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn chosen(wanted: &Wanted) -> (String, String) {
    let external = select(wanted, &host(), None).unwrap();
    (external.name, external.v4.unwrap().to_string())
}

fn refused(wanted: &Wanted) -> Vec<(By, Why)> {
    match select(wanted, &host(), None) {
        Err(SelectError::NoInterface { tried, .. }) => {
            tried.into_iter().map(|attempt| (attempt.by, attempt.why)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_options_the_best_default_route_decides() {
    let external = select(&wanted(), &host(), None).unwrap();
    let expected = External {
        ifindex: 2,
        name: "eth0".into(),
        mtu: 9000,
        v4: "192.168.50.11".parse().ok(),
        v6: None,
        public_v4: "192.168.50.11".parse().ok(),
        public_v6: None,
    };
    assert_eq!(external, expected);
}

#[test]
fn a_dual_stack_network_takes_the_global_ipv6_address_too() {
    let external = select(&Wanted { ipv6: true, ..wanted() }, &host(), None).unwrap();
    assert_eq!(external.v6, "fd50::11".parse().ok());
    assert_eq!(external.public_v6, "fd50::11".parse().ok());
}

#[test]
fn an_ipv6_only_network_follows_the_ipv6_default_route() {
    let external = select(&Wanted { ipv4: false, ipv6: true, ..wanted() }, &host(), None).unwrap();
    assert_eq!((external.name.as_str(), external.v4, external.public_v4), ("eth0", None, None));
}

#[test]
fn public_addresses_are_told_to_others_and_not_bound() {
    let wanted = Wanted {
        public_v4: "203.0.113.9".parse().ok(),
        public_v6: "2001:db8::9".parse().ok(),
        ipv6: true,
        ..wanted()
    };
    let external = select(&wanted, &host(), None).unwrap();
    assert_eq!((external.v4, external.public_v4), ("192.168.50.11".parse().ok(), wanted.public_v4));
    assert_eq!((external.v6, external.public_v6), ("fd50::11".parse().ok(), wanted.public_v6));
}

#[test]
fn iface_is_a_name_or_an_address_and_the_first_that_fits_wins() {
    let with = |ifaces: &[&str]| chosen(&Wanted { ifaces: strings(ifaces), ..wanted() });
    assert_eq!(with(&["wlan0"]), ("wlan0".into(), "10.20.0.5".into()));
    assert_eq!(with(&["eth9", "empty0", "192.168.50.12", "wlan0"]), ("eth0".into(), "192.168.50.12".into()));
    // An IPv6 address names the interface; its IPv4 address is chosen as ever.
    assert_eq!(with(&["fd50::11"]), ("eth0".into(), "192.168.50.11".into()));
}

#[test]
fn regexes_come_after_ifaces_and_see_addresses_before_names() {
    let with = |ifaces: &[&str], regexes: &[&str]| {
        chosen(&Wanted { ifaces: strings(ifaces), regexes: strings(regexes), ..wanted() })
    };
    assert_eq!(with(&["wlan0"], &["eth"]), ("wlan0".into(), "10.20.0.5".into()));
    assert_eq!(with(&["eth9"], &["^eth"]), ("eth0".into(), "192.168.50.11".into()));
    assert_eq!(with(&[], &[r"50\.12$"]), ("eth0".into(), "192.168.50.12".into()));
    // `1` is in eth0's addresses; a name that matches as well comes later.
    assert_eq!(with(&[], &["wlan|50.11"]), ("eth0".into(), "192.168.50.11".into()));
    assert_eq!(with(&[], &["nothing", "wlan"]), ("wlan0".into(), "10.20.0.5".into()));
}

#[test]
fn a_regex_for_everything_means_the_network_and_not_ourselves() {
    let wanted = Wanted { regexes: strings(&["."]), ..wanted() };
    assert_eq!(chosen(&wanted).0, "eth0");
    let only_ours = Wanted { regexes: strings(&["^canal0$", "^lo$", "^127", r"^10\.244"]), ..wanted };
    assert!(refused(&only_ours).iter().all(|(_, why)| *why == Why::NoMatch));
}

#[test]
fn can_reach_uses_the_kernels_route_and_source() {
    let wanted = Wanted { can_reach: "10.20.9.9".parse().ok(), ifaces: strings(&["eth9"]), ..wanted() };
    assert_eq!(wanted.must_reach(&host()), wanted.can_reach);
    let reach = |ifindex, src: &str| {
        Some(RouteTo { ifindex, gateway: None, prefsrc: src.parse().ok(), local: false })
    };
    let external = select(&wanted, &host(), reach(2, "192.168.50.12")).unwrap();
    assert_eq!((external.name.as_str(), external.v4), ("eth0", "192.168.50.12".parse().ok()));
    let expected = [
        (By::Iface("eth9".into()), Why::NoSuchInterface),
        (By::CanReach("10.20.9.9".parse().unwrap()), Why::NoRoute),
    ];
    assert_eq!(refused(&wanted), expected);
    // An earlier option that is enough spares the question.
    assert_eq!(Wanted { ifaces: strings(&["wlan0"]), ..wanted }.must_reach(&host()), None);
}

#[test]
fn names_of_nothing_are_refused_before_a_network_is_known_and_all_else_may_still_come() {
    let absent = |names: &[&str]| Wanted { ifaces: strings(names), ..Wanted::default() };
    let wanted = absent(&["eth9", "eth8"]);
    let error = wanted.check_names(&host()).unwrap_err();
    assert_eq!(error.to_string(), select(&wanted, &host(), None).unwrap_err().to_string());

    let may_come = [
        Wanted::default(),
        absent(&["eth9", "wlan0"]),
        absent(&["empty0"]),
        absent(&["eth9", "10.0.0.9"]),
        Wanted { regexes: strings(&["^10\\.9"]), ..absent(&["eth9"]) },
        Wanted { can_reach: "10.0.0.9".parse().ok(), ..absent(&["eth9"]) },
    ];
    for wanted in may_come {
        wanted.check_names(&host()).unwrap_or_else(|error| panic!("{wanted:?}: {error}"));
    }
    let no_regex = Wanted { regexes: strings(&["("]), ..Wanted::default() };
    assert!(matches!(no_regex.check_names(&host()), Err(SelectError::Regex { .. })));
}

#[test]
fn every_reason_is_named() {
    let wanted = Wanted {
        ifaces: strings(&["eth9", "10.0.0.9", "canal0", "10.244.3.0", "empty0", "wlan0"]),
        regexes: strings(&["^wlan"]),
        ipv6: true,
        ..wanted()
    };
    let whys: Vec<Why> = refused(&wanted).into_iter().map(|(_, why)| why).collect();
    assert_eq!(
        whys,
        [
            Why::NoSuchInterface,
            Why::NoSuchAddress,
            Why::OwnDevice,
            Why::OwnDevice,
            Why::NoIpv4("empty0".into()),
            Why::NoIpv6("wlan0".into()),
            Why::NoIpv6("wlan0".into()),
        ]
    );
}

#[test]
fn the_message_says_what_there_is_and_what_to_do() {
    let mut view = host();
    view.routes.clear();
    let error = select(&wanted(), &view, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no interface to reach other nodes through: there is no default route. Interfaces here: lo 127.0.0.1; eth0 \
         192.168.50.11, 192.168.50.12, fe80::11, fd50::11; wlan0 10.20.0.5; empty0 (down); canal0 10.244.3.0. Name \
         one with --iface"
    );
    let error = select(&Wanted { regexes: strings(&["("]), ..wanted() }, &view, None).unwrap_err();
    assert!(error.to_string().starts_with("--iface-regex \"(\": "), "{error}");
}

#[test]
fn the_best_address_of_an_interface_is_chosen() {
    let flags = |net: &str, flags: u32| Address { flags, ..address(2, net) };
    let permanent = Address::PERMANENT;
    // Best first; each prefix of the list taken away makes the next one the choice.
    let ranked = [
        flags("fd50::1/64", permanent),
        flags("fd50::2/64", permanent | Address::TEMPORARY),
        flags("fd50::3/64", 0),
        flags("fd50::4/64", Address::TEMPORARY),
        flags("fd50::5/64", permanent | Address::TENTATIVE),
        flags("fe80::6/64", permanent),
    ];
    let useless = [
        flags("fd50::7/64", permanent | Address::DEPRECATED),
        flags("fd50::8/64", permanent | Address::DUPLICATE),
        Address { scope: Scope::Host, ..address(2, "fd50::9/128") },
    ];
    for best in 0..=ranked.len() {
        let mut addresses = useless.to_vec();
        addresses.extend(ranked[best..].iter().rev().cloned());
        let view = HostView { links: vec![link(2, "eth0")], addresses, ..HostView::default() };
        let expected = ranked.get(best).map(|address| address.net.ip());
        assert_eq!(best_address(&view, 2, true), expected);
    }
}

#[test]
fn equal_addresses_keep_the_kernels_order() {
    let view = HostView {
        links: vec![link(2, "eth0")],
        addresses: vec![address(2, "10.0.0.9/24"), address(2, "10.0.0.1/24")],
        ..HostView::default()
    };
    assert_eq!(best_address(&view, 2, false), "10.0.0.9".parse().ok());
}
