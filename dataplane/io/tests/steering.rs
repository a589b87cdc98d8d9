//! What steering takes, what it leaves alone, and what is left of it afterwards.

mod common;

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use canal_dataplane::net::HashSeed;
use canal_dataplane::port::{Egress, Ingress, Received};
use canal_io::bpf::{AttachMode, Attachment, Hook, Steering, SteeringError, Underlay};
use canal_io::tun::{Shortfall, TapConfig, TapDevice, TapError, TapPort, TapQueue};
use common::daemon::Worker;
use common::{Namespace, root, tcp_transfer, veth};

const SEED: HashSeed = HashSeed(1, 2);

fn open(config: &TapConfig) -> (TapDevice, Vec<TapQueue>, Steering) {
    let (device, queues) = TapDevice::create(config).unwrap();
    let steering = Steering::open(&device, &queues, SEED, None).unwrap();
    (device, queues, steering)
}

fn underlay(ifindex: u32) -> Underlay {
    Underlay {
        ifindex,
        vtep_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        vtep_v6: None,
        vxlan_port: 8472,
        pod_subnets_v4: vec![(Ipv4Addr::new(10, 8, 1, 0), 24)],
        pod_subnets_v6: vec![("fd00:8:1::".parse().unwrap(), 64)],
        plain_to_gateways: false,
    }
}

/// A host with a workload at 10.8.1.5 and fd00:8:1::5 that knows its host as 169.254.1.1 and fe80::1.
fn host_with_workload() -> (Namespace, Namespace) {
    let [host, pod] = ["host", "pod"].map(Namespace::new);
    veth(&host, "wl", &pod, "eth0");
    pod.ip("addr add 10.8.1.5/32 dev eth0");
    pod.ip("addr add fd00:8:1::5/128 dev eth0 nodad");
    for gateway in ["169.254.1.1", "fe80::1"] {
        pod.ip(&format!("neigh add {gateway} lladdr ee:ee:ee:ee:ee:ee dev eth0"));
    }
    pod.ip("route add 169.254.1.1 dev eth0");
    pod.ip("route add default via 169.254.1.1");
    pod.ip("-6 route add default via fe80::1 dev eth0");
    (host, pod)
}

/// Sends everything from `wl` where `out` says, and everything else that came by `way` to `wl`.
fn route(host: &Namespace, pod: &Namespace, way: Ingress, out: fn(bool) -> Egress, direct: bool) -> Worker {
    let (wl, mac) = (host.ifindex("wl"), pod.mac("eth0"));
    let eth0 = direct.then(|| host.ifindex("eth0"));
    let open = move || {
        let (device, mut queues, mut steering) = open(&TapConfig::new(1, 1450));
        steering.attach_workload(wl).unwrap();
        if let Some(eth0) = eth0 {
            steering.set_underlay(Some(underlay(eth0))).unwrap();
        }
        (TapPort::new(&device, queues.remove(0), steering.next_hops()), steering)
    };
    Worker::start(host, open, move |packet: &mut Received| {
        let data = packet.frame.data_mut();
        let v6 = data[12..14] == [0x86, 0xdd];
        if packet.ingress == Ingress::Workload(wl) {
            // Neighbour discovery and the like are not for the other side.
            return (data[0] & 1 == 0).then(|| out(v6));
        }
        if packet.ingress != way {
            return None;
        }
        data[..6].copy_from_slice(&mac);
        Some(Egress::Workload(wl))
    })
}

#[test]
fn a_workload_and_its_host_talk() {
    if !root("a_workload_and_its_host_talk") {
        return;
    }
    let (host, pod) = host_with_workload();
    let worker = route(&host, &pod, Ingress::Host, |_| Egress::Host, false);
    host.ip("addr add 10.8.1.0/32 dev canal0");
    host.ip("route add 10.8.0.0/16 dev canal0 src 10.8.1.0");
    host.ip("addr add fd00:8:1::/128 dev canal0 nodad");
    host.ip("route add fd00:8::/32 dev canal0 src fd00:8:1::");
    for address in ["10.8.1.0", "fd00:8:1::"] {
        pod.run(&format!("ping -c 2 -i 0.2 -W 5 {address}"));
    }
    tcp_transfer(&pod, &host, "10.8.1.0:7000", 10_000_000);
    tcp_transfer(&host, &pod, "10.8.1.5:7000", 10_000_000);
    tcp_transfer(&host, &pod, "[fd00:8:1::5]:7001", 10_000_000);
    assert!(worker.largest_frame() > 30_000);
    let stats = worker.stop();
    assert_eq!((stats.tx_errors, stats.tx_full), (0, 0));
}

#[test]
fn a_peer_with_direct_routing_talks_unencapsulated() {
    if !root("a_peer_with_direct_routing_talks_unencapsulated") {
        return;
    }
    let (host, pod) = host_with_workload();
    let peer = Namespace::new("peer");
    veth(&host, "eth0", &peer, "eth0");
    for (namespace, last) in [(&host, 1), (&peer, 2)] {
        namespace.ip(&format!("addr add 192.0.2.{last}/24 dev eth0"));
        namespace.ip(&format!("addr add 2001:db8::{last}/64 dev eth0 nodad"));
    }
    peer.ip("addr add 10.8.2.9/32 dev lo");
    peer.ip("addr add fd00:8:2::9/128 dev lo");
    peer.ip("route add 10.8.1.0/24 via 192.0.2.1 src 10.8.2.9");
    peer.ip("route add fd00:8:1::/64 via 2001:db8::1 src fd00:8:2::9");
    let next_hop = |v6| {
        let text = if v6 { "2001:db8::2" } else { "192.0.2.2" };
        Egress::Direct(text.parse::<IpAddr>().unwrap())
    };
    let worker = route(&host, &pod, Ingress::Direct, next_hop, true);
    for (address, target) in [("10.8.2.9", "10.8.2.9:7000"), ("fd00:8:2::9", "[fd00:8:2::9]:7000")] {
        pod.run(&format!("ping -c 2 -i 0.2 -W 5 {address}"));
        tcp_transfer(&pod, &peer, target, 10_000_000);
    }
    tcp_transfer(&peer, &pod, "10.8.1.5:7000", 10_000_000);
    // Not ours: the host's own address on the same interface.
    peer.run("ping -c 1 -W 5 192.0.2.1");
    tcp_transfer(&peer, &host, "192.0.2.1:7002", 1_000_000);
    let stats = worker.stop();
    assert_eq!((stats.tx_errors, stats.tx_full), (0, 0));
}

/// Names of the programs at the ingress of `interface` in `namespace`.
fn programs_at(namespace: &Namespace, interface: &'static str) -> Vec<String> {
    namespace.enter(move || {
        let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).unwrap();
        programs.iter().map(|p| p.name_as_str().unwrap().to_owned()).collect()
    })
}

#[test]
fn attachments_follow_the_interfaces() {
    if !root("attachments_follow_the_interfaces") {
        return;
    }
    let (host, pod) = host_with_workload();
    let other = Namespace::new("other");
    veth(&host, "eth0", &other, "eth0");
    veth(&host, "eth1", &other, "eth1");
    let [wl, eth0, eth1] = ["wl", "eth0", "eth1"].map(|name| host.ifindex(name));
    let (ask, asked) = std::sync::mpsc::channel::<Box<dyn FnOnce(&mut Steering) + Send>>();
    let (answer, answered) = std::sync::mpsc::channel();
    let thread = host.spawn(move || {
        let (_device, _queues, mut steering) = open(&TapConfig::new(2, 1450));
        for question in asked {
            question(&mut steering);
            answer.send(steering.attached()).unwrap();
        }
    });
    let run = |what: Box<dyn FnOnce(&mut Steering) + Send>| {
        ask.send(what).unwrap();
        let mut attached: Vec<Attachment> = answered.recv().expect("the question was no failure");
        attached.retain(|a| a.hook != Hook::Device);
        attached
    };
    let workload = Attachment { ifindex: wl, hook: Hook::Workload };
    let at = |ifindex| Attachment { ifindex, hook: Hook::Underlay };
    assert_eq!(run(Box::new(|_| ())), []);
    assert_eq!(run(Box::new(move |s| s.attach_workload(wl).unwrap())), [workload]);
    assert_eq!(run(Box::new(move |s| s.attach_workload(wl).unwrap())), [workload]);
    assert_eq!(programs_at(&host, "wl"), ["canal_workload"]);
    assert_eq!(run(Box::new(move |s| s.set_underlay(Some(underlay(eth0))).unwrap())), [workload, at(eth0)]);
    assert_eq!(run(Box::new(move |s| s.set_underlay(Some(underlay(eth1))).unwrap())), [workload, at(eth1)]);
    assert_eq!((programs_at(&host, "eth0").len(), programs_at(&host, "eth1").len()), (0, 1));
    assert_eq!(run(Box::new(|s| s.set_underlay(None).unwrap())), [workload]);
    // The workload's namespace goes, its interface with it; another comes and gets another number.
    drop(pod);
    while host.run("ip -br link").contains("wl@") {
        std::thread::yield_now();
    }
    assert_eq!(run(Box::new(|_| ())), []);
    let gone = move |s: &mut Steering| {
        let result = s.attach_workload(wl);
        assert!(matches!(result, Err(SteeringError::NoInterface(index)) if index == wl), "{result:?}");
        s.detach_workload(wl).unwrap();
    };
    assert_eq!(run(Box::new(gone)), []);
    veth(&host, "wl", &other, "again");
    let again = host.ifindex("wl");
    let attached = run(Box::new(move |s| s.attach_workload(again).unwrap()));
    assert_eq!(attached, [Attachment { ifindex: again, hook: Hook::Workload }]);
    assert_eq!(run(Box::new(move |s| s.detach_workload(again).unwrap())), []);
    assert_eq!(programs_at(&host, "wl"), [""; 0]);
    // The loopback device has Ethernet frames no more than a tunnel has.
    let refuse = |s: &mut Steering| {
        let result = s.set_underlay(Some(underlay(1)));
        assert!(matches!(result, Err(SteeringError::NotEthernet(name)) if name == "lo"));
    };
    assert_eq!(run(Box::new(refuse)), []);
    drop(ask);
    thread.join().unwrap();
    assert!(!host.run("ip -br link").contains("canal0"));
}

#[test]
fn programs_of_others_stay_and_are_reported() {
    if !root("programs_of_others_stay_and_are_reported") {
        return;
    }
    let (host, _pod) = host_with_workload();
    let wl = host.ifindex("wl");
    host.enter(move || {
        // Another instance of ours stands for a foreign program: the kernel makes no difference.
        let other = TapConfig { name: "other0".into(), ..TapConfig::new(1, 1450) };
        let (_other_device, _other_queues, mut foreign) = open(&other);
        foreign.attach_workload(wl).unwrap();
        let (_device, _queues, mut steering) = open(&TapConfig::new(1, 1450));
        assert_eq!(steering.others(wl), ["canal_workload"]);
        steering.attach_workload(wl).unwrap();
        assert_eq!(steering.others(wl), ["canal_workload"]);
        drop(steering);
        assert_eq!(foreign.attached().len(), 2);
    });
}

#[test]
fn older_kernels_get_what_they_can_do() {
    if !root("older_kernels_get_what_they_can_do") {
        return;
    }
    Namespace::new("host").enter(|| {
        let (device, queues) = TapDevice::create(&TapConfig::new(4, 1450)).unwrap();
        assert_eq!(queues.len(), 4);
        assert_eq!(
            (device.abilities.tunnel_gso, device.abilities.uso, device.abilities.reason),
            (true, true, None)
        );
        assert_eq!(device.abilities.header_len(), 24);
        assert!(matches!(TapDevice::create(&TapConfig::new(1, 1450)), Err(TapError::Exists)));
        drop(queues);
        let old = TapConfig { forbid_tunnel_gso: true, ..TapConfig::new(1, 1450) };
        let (device, queues) = TapDevice::create(&old).unwrap();
        assert_eq!((device.abilities.tunnel_gso, device.abilities.uso), (false, true));
        assert_eq!(
            (device.abilities.header_len(), device.abilities.reason),
            (12, Some(Shortfall::Forbidden))
        );
        assert!(!device.abilities.caps().tunnel && device.abilities.caps().uso);
        drop(queues);
        let older = TapConfig { forbid_uso: true, ..old };
        let (device, _queues) = TapDevice::create(&older).unwrap();
        assert_eq!((device.abilities.tunnel_gso, device.abilities.uso), (false, false));
        for queues in [0, 65] {
            assert!(matches!(TapDevice::create(&TapConfig::new(queues, 1450)), Err(TapError::Config)));
        }
    });
}

const CHILD: &str = "CANAL_IO_TEST_CHILD";
const MODE: &str = "CANAL_IO_TEST_CLSACT";

/// Not a test of its own: the process that the next test kills.
#[test]
fn a_daemon_that_waits_to_be_killed() {
    let Ok(namespace) = std::env::var(CHILD) else { return };
    let namespace = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let index = |name: &str| nix::net::if_::if_nametoindex(name).unwrap();
    let mode = std::env::var_os(MODE).map(|_| AttachMode::Clsact);
    let (device, queues) = TapDevice::create(&TapConfig::new(2, 1450)).unwrap();
    let mut steering = Steering::open(&device, &queues, SEED, mode).unwrap();
    steering.attach_workload(index("wl")).unwrap();
    steering.set_underlay(Some(underlay(index("eth0")))).unwrap();
    println!("\nattached {}", steering.attached().len());
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// A daemon in `host`, attached to `wl` and `eth0`.
fn start_daemon(host: &Namespace, clsact: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_daemon_that_waits_to_be_killed", "--nocapture"]).env(CHILD, &host.name);
    if clsact {
        command.env(MODE, "1");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).find(|line| line.starts_with("attached"));
    assert_eq!(ready.as_deref(), Some("attached 3"));
    child
}

fn host_with_underlay() -> (Namespace, Namespace, Namespace) {
    let (host, pod) = host_with_workload();
    let peer = Namespace::new("peer");
    veth(&host, "eth0", &peer, "eth0");
    host.ip("addr add 192.0.2.1/24 dev eth0");
    peer.ip("addr add 192.0.2.2/24 dev eth0");
    (host, pod, peer)
}

/// Waits until `done`: the kernel takes a moment to let go of what a killed process had open.
fn soon(done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "something is left");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_killed_daemon_leaves_nothing() {
    if !root("a_killed_daemon_leaves_nothing") {
        return;
    }
    let (host, _pod, peer) = host_with_underlay();
    let mut child = start_daemon(&host, false);
    assert_eq!(programs_at(&host, "eth0"), ["canal_underlay"]);
    peer.run("ping -c 1 -W 5 192.0.2.1");
    child.kill().unwrap();
    child.wait().unwrap();
    soon(|| programs_at(&host, "eth0").is_empty() && !host.run("ip -br link").contains("canal0"));
    assert!(programs_at(&host, "wl").is_empty());
    peer.run("ping -c 1 -W 5 192.0.2.1");
}

#[test]
fn what_a_killed_daemon_leaves_on_an_older_kernel_goes_at_the_next_start() {
    if !root("what_a_killed_daemon_leaves_on_an_older_kernel_goes_at_the_next_start") {
        return;
    }
    let (host, _pod, peer) = host_with_underlay();
    let filters = |interface: &str| host.run(&format!("tc filter show dev {interface} ingress"));
    let mut child = start_daemon(&host, true);
    child.kill().unwrap();
    child.wait().unwrap();
    soon(|| !host.run("ip -br link").contains("canal0"));
    assert!(filters("eth0").contains("canal_underlay") && filters("wl").contains("canal_workload"));
    // What is left takes VXLAN only; the host's own traffic lives.
    peer.run("ping -c 1 -W 5 192.0.2.1");
    host.enter(|| {
        let (device, queues) = TapDevice::create(&TapConfig::new(1, 1450)).unwrap();
        let _steering = Steering::open(&device, &queues, SEED, Some(AttachMode::Clsact)).unwrap();
    });
    assert!(!filters("eth0").contains("canal") && !filters("wl").contains("canal"));
}
