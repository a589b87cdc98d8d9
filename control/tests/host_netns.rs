//! The host side against the real kernel, each test in a network namespace of its own that ends with its thread.
//!
//! iproute2 is the disturber and the second opinion. Needs root.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use canal_control::host::{
    Desired, Error, HostView, HostWatch, Kernel, Netlink, Outcome, Route, Wanted, keep, reconcile,
};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use tokio::sync::watch;

/// Longest wait for something that must happen; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the story in a fresh network namespace, or says why not.
fn in_namespace<F: Future<Output = ()>>(story: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "namespace tests need root");
        eprintln!("skipped: needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        ip("link set lo up");
        // One thread: sockets opened by its tasks belong to its namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(story());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// `ip …` in this thread's namespace.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

fn ip_json(arguments: &str) -> Vec<Value> {
    let text = ip(&format!("-j {arguments}"));
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).expect("JSON") }
}

/// An underlay with a gateway in name only, and a stand-in for the overlay's device.
fn make_host() {
    ip("link add eth0 type veth peer name wire0");
    ip("link set wire0 up");
    ip("link set eth0 up");
    ip("addr add 192.168.50.11/24 dev eth0");
    ip("addr add fd50::11/64 dev eth0 nodad");
    ip("route add default via 192.168.50.1 dev eth0");
    ip("route add 172.30.0.0/16 via 192.168.50.2 dev eth0");
    make_device();
}

fn make_device() {
    ip("link add canal0 type veth peer name canal0p");
    ip("link set canal0p up");
}

fn desired() -> Desired {
    Desired {
        device: "canal0".into(),
        mtu: 1430,
        up: true,
        noarp: true,
        addresses: vec!["10.244.3.0/32".parse().unwrap(), "fd00:3::/128".parse().unwrap()],
        routes: vec![
            Route { dst: "10.244.0.0/16".parse().unwrap(), src: "10.244.3.0".parse().ok(), metric: 0 },
            Route { dst: "fd00::/32".parse().unwrap(), src: "fd00:3::".parse().ok(), metric: 0 },
        ],
    }
}

/// Our device as iproute2 shows it: (flags, mtu, qlen, addresses, IPv4 routes, IPv6 routes).
type Shown = (bool, bool, u64, u64, Vec<String>, Vec<String>, Vec<String>);

fn shown() -> Shown {
    let link = &ip_json("addr show dev canal0")[0];
    let flag = |name: &str| link["flags"].as_array().unwrap().iter().any(|flag| flag == name);
    let addresses = link["addr_info"].as_array().unwrap().iter();
    let addresses =
        addresses.map(|a| format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"])).collect();
    let routes = |family: &str| {
        let routes = ip_json(&format!("-N {family} route show dev canal0"));
        let one = |r: &Value| {
            format!(
                "{} src {} proto {} scope {} metric {}",
                r["dst"], r["prefsrc"], r["protocol"], r["scope"], r["metric"]
            )
        };
        routes.iter().map(one).collect()
    };
    let number = |key: &str| link[key].as_u64().unwrap();
    (flag("UP"), flag("NOARP"), number("mtu"), number("txqlen"), addresses, routes("-4"), routes("-6"))
}

fn as_desired() -> Shown {
    let v4 = r#""10.244.0.0/16" src "10.244.3.0" proto "202" scope "253" metric null"#;
    let v6 = r#""fd00::/32" src "fd00:3::" proto "202" scope null metric 1024"#;
    let addresses = vec!["10.244.3.0/32".to_owned(), "fd00:3::/128".to_owned()];
    (true, true, 1430, 1000, addresses, vec![v4.to_owned()], vec![v6.to_owned()])
}

/// Everything on the host that is not ours, in iproute2's words.
fn foreign() -> String {
    let rules = ip("rule show") + &ip("-6 rule show");
    let routes =
        ip("route show dev eth0") + &ip("-6 route show dev eth0") + &ip("route show dev lo table local");
    let devices = ["lo", "eth0", "wire0"].map(|device| ip(&format!("-o addr show dev {device}")));
    rules + &routes + &devices.concat()
}

async fn in_sync(netlink: &Netlink, desired: &Desired) -> usize {
    match reconcile(netlink, desired).await.expect("netlink") {
        Outcome::InSync { applied } => applied,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_device_becomes_as_desired_whatever_is_done_to_it() {
    in_namespace(|| async {
        make_host();
        let before = foreign();
        let netlink = Netlink::connect().unwrap();
        let desired = desired();

        assert!(in_sync(&netlink, &desired).await > 0);
        assert_eq!(shown(), as_desired());
        assert_eq!(in_sync(&netlink, &desired).await, 0);

        let disturbances = [
            "addr del 10.244.3.0/32 dev canal0",
            "-6 addr flush dev canal0",
            "route flush dev canal0",
            "route add 10.99.0.0/24 dev canal0",
            "-6 route add fd99::/64 dev canal0 metric 5",
            "route change 10.244.0.0/16 dev canal0 scope link",
            "addr add 10.1.2.3/24 dev canal0",
            "link set canal0 mtu 9000 arp on txqueuelen 10",
            "link set canal0 down",
            "link set canal0 addrgenmode eui64",
        ];
        for disturbance in disturbances {
            ip(disturbance);
            assert!(in_sync(&netlink, &desired).await > 0, "{disturbance}");
            assert_eq!(shown(), as_desired(), "{disturbance}");
        }

        ip("link del canal0");
        assert!(matches!(reconcile(&netlink, &desired).await.unwrap(), Outcome::NoDevice));
        make_device();
        in_sync(&netlink, &desired).await;
        assert_eq!(shown(), as_desired());
        assert_eq!(foreign(), before);
    });
}

#[test]
fn a_tap_without_a_reader_can_be_configured_and_another_lease_taken() {
    in_namespace(|| async {
        ip("tuntap add dev canal0 mode tap multi_queue vnet_hdr");
        let netlink = Netlink::connect().unwrap();
        let mut desired = desired();
        in_sync(&netlink, &desired).await;
        assert_eq!(shown(), as_desired());
        let view = netlink.view("canal0").await.unwrap();
        assert_eq!(view.link_by_name("canal0").unwrap().kind.as_deref(), Some("tun"));

        // Another subnet, and a destination that no longer exists.
        desired.addresses[0] = "10.244.9.0/32".parse().unwrap();
        desired.routes[0].src = "10.244.9.0".parse().ok();
        desired.routes.pop();
        in_sync(&netlink, &desired).await;
        let (.., addresses, v4, v6) = shown();
        assert_eq!(addresses, ["10.244.9.0/32", "fd00:3::/128"]);
        assert!(v4.len() == 1 && v4[0].contains("10.244.9.0"), "{v4:?}");
        assert!(v6.is_empty(), "{v6:?}");
    });
}

#[test]
fn a_route_of_another_device_is_left_alone_and_reported() {
    in_namespace(|| async {
        make_host();
        ip("route add 10.244.0.0/16 via 192.168.50.9 dev eth0");
        ip("-6 route add fd00::/32 via fd50::9 dev eth0");
        let before = foreign();
        let netlink = Netlink::connect().unwrap();
        let Outcome::Degraded { missing } = reconcile(&netlink, &desired()).await.unwrap() else {
            panic!("in sync although both destinations are taken");
        };
        let reasons: Vec<String> = missing
            .iter()
            .map(|(op, error)| format!("{op}: {}", error.as_ref().expect("a reason")))
            .collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons.iter().all(|reason| reason.contains("EEXIST")), "{reasons:?}");
        assert_eq!(foreign(), before);
    });
}

#[test]
fn routes_are_looked_up_as_the_kernel_would() {
    in_namespace(|| async {
        make_host();
        let netlink = Netlink::connect().unwrap();
        let view = netlink.view("canal0").await.unwrap();
        let eth0 = view.link_by_name("eth0").unwrap().index;
        let get = |text: &'static str| {
            let netlink = netlink.clone();
            async move { netlink.route_get(text.parse().unwrap()).await }
        };
        let own: Option<IpAddr> = "192.168.50.11".parse().ok();

        let neighbour = get("192.168.50.7").await.unwrap();
        assert_eq!((neighbour.ifindex, neighbour.gateway, neighbour.prefsrc), (eth0, None, own));
        let beyond = get("172.30.1.1").await.unwrap();
        assert_eq!((beyond.ifindex, beyond.gateway), (eth0, "192.168.50.2".parse().ok()));
        let ourselves = get("192.168.50.11").await.unwrap();
        assert!(ourselves.local);
        let v6 = get("fd50::7").await.unwrap();
        assert_eq!((v6.ifindex, v6.gateway, v6.prefsrc), (eth0, None, "fd50::11".parse().ok()));
        assert!(matches!(get("fd77::1").await, Err(Error::NoRoute(_))));
        ip("route add unreachable 172.31.0.0/16");
        ip("route add blackhole 172.29.0.0/16");
        assert!(matches!(get("172.31.0.1").await, Err(Error::NoRoute(_))));
        assert!(matches!(get("172.29.0.1").await, Err(Error::NoRoute(_))));
    });
}

#[test]
fn the_external_interface_is_chosen_on_a_real_host() {
    in_namespace(|| async {
        make_host();
        ip("link add eth1 type veth peer name wire1");
        ip("link set eth1 up mtu 9000");
        ip("link set wire1 up");
        ip("addr add 10.20.0.5/16 dev eth1");
        let netlink = Netlink::connect().unwrap();
        let view = netlink.view("canal0").await.unwrap();
        let wanted = Wanted { ipv4: true, own_device: "canal0".into(), ..Wanted::default() };

        let dual = Wanted { ipv6: true, ..wanted.clone() };
        let external = netlink.select_external(&dual, &view).await.unwrap();
        assert_eq!(external.name, "eth0");
        assert_eq!((external.v4, external.v6), ("192.168.50.11".parse().ok(), "fd50::11".parse().ok()));

        let reach = Wanted { can_reach: "10.20.7.7".parse().ok(), ..wanted.clone() };
        let external = netlink.select_external(&reach, &view).await.unwrap();
        assert_eq!(
            (external.name.as_str(), external.mtu, external.v4),
            ("eth1", 9000, "10.20.0.5".parse().ok())
        );

        let nowhere = Wanted { can_reach: "fd77::1".parse().ok(), ..wanted };
        let error = netlink.select_external(&nowhere, &view).await.unwrap_err();
        assert!(error.to_string().contains("--iface-can-reach fd77::1: no route to it"), "{error}");
    });
}

/// Waits until the view is as wished.
async fn until(
    views: &mut watch::Receiver<Arc<HostView>>,
    what: &str,
    wish: impl FnMut(&Arc<HostView>) -> bool,
) {
    let seen = tokio::time::timeout(PATIENCE, views.wait_for(wish)).await.map(|seen| drop(seen.unwrap()));
    assert!(seen.is_ok(), "not seen: {what}; last view: {:#?}", views.borrow());
}

#[test]
fn changes_are_seen_and_a_storm_ends_in_the_truth() {
    in_namespace(|| async {
        make_host();
        let watch = HostWatch::start("canal0", &[]).await.unwrap();
        let mut views = watch.views();
        let has = |view: &HostView, text: &str| view.owner_of(text.parse().unwrap()).is_some();
        assert!(has(&views.borrow(), "192.168.50.11"));

        ip("addr add 192.168.50.12/24 dev eth0");
        until(&mut views, "a new address", |view| has(view, "192.168.50.12")).await;
        ip("route del default");
        until(&mut views, "no default route", |view| view.default_routes(false).next().is_none()).await;
        ip("route add default via 192.168.50.1 dev eth0 metric 50");
        until(&mut views, "a default route", |view| {
            view.default_routes(false).any(|route| route.metric == 50)
        })
        .await;
        ip("link set canal0 up");
        ip("route add 10.244.0.0/16 dev canal0");
        let own = |view: &HostView| {
            let own = view.link_by_name("canal0").map(|link| link.index);
            own.is_some_and(|own| view.routes_of(own).any(|route| route.dst.prefix() == 16))
        };
        until(&mut views, "our route", |view| own(view)).await;
        // The kernel says nothing about the route here, only about the link.
        ip("link set canal0 down");
        until(&mut views, "our route gone", |view| !own(view)).await;

        // Our device goes and comes back with a route at once, and another one flaps.
        let batch: String = (0..300)
            .map(|i| {
                format!(
                    "link set eth0 down\nlink set eth0 up\naddr add 10.77.{}.{}/32 dev eth0\n",
                    i / 250,
                    i % 250
                )
            })
            .collect();
        let file = std::env::temp_dir().join(format!("canal-host-{}", std::process::id()));
        std::fs::write(&file, batch).unwrap();
        ip("link del canal0");
        ip(&format!("-batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();
        make_device();
        ip("link set canal0 up");
        ip("route add 10.244.0.0/16 dev canal0");
        until(&mut views, "our route again", |view| own(view)).await;
        let truth = Netlink::connect().unwrap().view("canal0").await.unwrap();
        assert_eq!(
            truth.addresses.iter().filter(|address| address.net.to_string().starts_with("10.77.")).count(),
            300
        );
        until(&mut views, "the truth", |view| **view == truth).await;
    });
}

#[test]
fn the_device_is_kept_as_desired_while_it_is_disturbed() {
    in_namespace(|| async {
        make_host();
        let before = foreign();
        let netlink = Netlink::connect().unwrap();
        let watch = HostWatch::start("canal0", &[]).await.unwrap();
        let (_wishes, wished) = watch::channel(Arc::new(desired()));
        let story = async {
            settled().await;
            ip("addr del 10.244.3.0/32 dev canal0");
            settled().await;
            ip("link set canal0 down");
            settled().await;
            ip("link del canal0");
            make_device();
            settled().await;
        };
        tokio::select! {
            () = keep(&netlink, wished, watch.views(), |_| {}) => panic!("nobody ended it"),
            () = story => {}
        }
        assert_eq!(foreign(), before);
    });
}

/// Waits until iproute2 shows the device as desired.
async fn settled() {
    let settled = async {
        while shown() != as_desired() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, settled).await.is_err() {
        assert_eq!(shown(), as_desired());
    }
}
