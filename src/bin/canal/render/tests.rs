use canal::observe::protocol::{
    BehindView, CalicoNetworkView, CalicoRouteView, CalicoVtepView, LeaseView, PartView, ReasonView,
    RuleView, WorkerView,
};

use super::*;

fn port(worker: u32) -> PortView {
    PortView {
        worker,
        name: "canal0".into(),
        kind: "tap".into(),
        carries: vec!["workloads".into(), "underlay".into()],
        offloads: vec!["checksum".into(), "tunnel".into()],
        why: "the kernel takes tunnel super-frames".into(),
        rx_frames: 10 * u64::from(worker),
        ..PortView::default()
    }
}

fn one(reply: Reply) -> String {
    tables(&[reply], false)
}

#[test]
fn ports_say_why_once() {
    assert_eq!(
        one(Reply::Ports(vec![port(0), port(1)])),
        "\
WORKER  PORT    KIND  CARRIES             OFFLOADS         RX  RX-BYTES  RX-DROP  TX  TX-BYTES  TX-FULL  TX-ERR
     0  canal0  tap   workloads,underlay  checksum,tunnel   0         0        0   0         0        0       0
     1  canal0  tap   workloads,underlay  checksum,tunnel  10         0        0   0         0        0       0
tap: the kernel takes tunnel super-frames
"
    );
}

#[test]
fn endpoints_routes_and_vteps_are_tables() {
    let endpoint = EndpointView {
        name: "default/a".into(),
        interface: "cali1".into(),
        ifindex: None,
        mac: None,
        networks: vec!["10.1.1.2/32".into(), "fd00::2/128".into()],
        mtu: 1450,
        ingress: ["default/web", "default/db", "kns.a", "ksa.a"].map(Into::into).into(),
        egress: vec![],
    };
    assert_eq!(
        one(Reply::Endpoints(vec![endpoint])),
        "\
ENDPOINT   INTERFACE  IFINDEX  MAC  NETWORKS                  MTU  INGRESS                    EGRESS
default/a  cali1            -  -    10.1.1.2/32,fd00::2/128  1450  default/web,default/db,+2  denied
"
    );
    let route = |prefix: &str, kind: &str, via: &str, mtu| RouteView {
        prefix: prefix.into(),
        kind: kind.into(),
        via: via.into(),
        mtu,
    };
    let routes = vec![
        route("10.1.1.0/24", "drop", "unassigned_address", None),
        route("10.1.2.0/24", "vtep", "192.0.2.2", Some(1450)),
    ];
    assert_eq!(
        one(Reply::Routes(routes)),
        "\
PREFIX       KIND  VIA                  MTU
10.1.1.0/24  drop  unassigned_address     -
10.1.2.0/24  vtep  192.0.2.2           1450
"
    );
    let vtep = VtepView {
        outer: "192.0.2.2".parse().unwrap(),
        mac: "02:00:00:00:00:02".into(),
        owns: vec!["10.1.2.0/24".into()],
        mtu: 1300,
        path_mtu: Some(1300),
    };
    assert_eq!(
        one(Reply::Vteps(vec![vtep])),
        "\
OUTER      MAC                OWNS          MTU  PATH-MTU
192.0.2.2  02:00:00:00:00:02  10.1.2.0/24  1300      1300
"
    );
}

#[test]
fn gateways_show_what_is_behind_them() {
    let behind = |prefix: &str, hops: &[(&str, u16)], announced: &str| BehindView {
        prefix: prefix.into(),
        next_hops: hops
            .iter()
            .map(|(hop, weight)| HopView {
                address: hop.parse().unwrap(),
                state: "STALE".into(),
                weight: *weight,
            })
            .collect(),
        announced: announced.into(),
    };
    let gateways = vec![
        GatewayView {
            name: "eth1".into(),
            ifindex: Some(7),
            mtu: 1500,
            networks: vec![
                behind("172.16.1.0/24", &[], "yes"),
                behind("172.20.0.0/16", &[("172.16.1.11", 3), ("172.16.1.12", 1)], "no"),
            ],
            host_endpoint: Some("edge".into()),
            ingress: vec!["in".into()],
            egress: vec![],
        },
        GatewayView {
            name: "eth2".into(),
            ifindex: None,
            mtu: 0,
            networks: vec![],
            host_endpoint: None,
            ingress: vec![],
            egress: vec![],
        },
    ];
    assert_eq!(
        one(Reply::Gateways(gateways)),
        "\
INTERFACE      MTU  NETWORK        NEXT-HOPS                                      ANNOUNCED  HOST-ENDPOINT
eth1          1500  172.16.1.0/24  on link                                        yes        edge in in out -
eth1          1500  172.20.0.0/16  172.16.1.11 STALE weight 3, 172.16.1.12 STALE  no         edge in in out -
eth2       missing  -              -                                              -          -
"
    );
}

#[test]
fn the_fdb_reads_like_that_of_a_bridge() {
    let entry = FdbView {
        mac: "02:00:00:00:00:02".into(),
        dev: "canal0".into(),
        dst: "192.0.2.2".parse().unwrap(),
        vni: 1,
        port: 8472,
    };
    assert_eq!(
        one(Reply::Fdb(vec![entry])),
        "02:00:00:00:00:02 dev canal0 dst 192.0.2.2 port 8472 vni 1 self permanent\n"
    );
}

#[test]
fn flows_show_both_ends() {
    let flow = FlowView {
        worker: 1,
        protocol: "tcp".into(),
        source: "fd00::1".parse().unwrap(),
        source_port: 4000,
        source_name: Some("default/a".into()),
        destination: "fd00::2".parse().unwrap(),
        destination_port: 80,
        destination_name: Some("vtep 192.0.2.2".into()),
        egress: Some(RulingView { allowed: true, by: rule(None, "kns.a", 0) }),
        ingress: None,
        state: "ESTABLISHED".into(),
        answered: true,
        frames: [3, 2],
        bytes: [400, 90],
        idle_ms: 7_999,
        left_ms: 112_001,
        via: ["vtep 192.0.2.2".into(), "default/a".into()],
    };
    assert_eq!(
        one(Reply::Flows(vec![flow])),
        "\
WORKER  PROTO  SOURCE          DESTINATION   STATE        FRAMES   BYTES  IDLE  LEFT  FROM       TO              EGRESS         INGRESS
     1  tcp    [fd00::1]:4000  [fd00::2]:80  ESTABLISHED     3/2  400/90    7s  112s  default/a  vtep 192.0.2.2  allow kns.a#0  -
"
    );
}

fn rule(tier: Option<&str>, name: &str, rule: usize) -> DeciderView {
    DeciderView {
        tier: tier.map(Into::into),
        kind: Some("NetworkPolicy".into()),
        name: Some(name.into()),
        rule: Some(rule),
        text: format!("NetworkPolicy {name}, ingress rule {rule} (Deny)"),
    }
}

/// A record with this number.
pub fn record(number: u64) -> RecordView {
    RecordView {
        number,
        at_ms: 1_700_000_000_007,
        event: "denied".into(),
        worker: 0,
        generation: 4,
        endpoint: "default/b".into(),
        direction: "ingress".into(),
        by: rule(Some("default"), "default/web", 1),
        protocol: "tcp".into(),
        source: "10.0.0.1".parse().unwrap(),
        source_port: Some(4000),
        source_name: Some("default/a".into()),
        destination: "10.0.0.2".parse().unwrap(),
        destination_port: Some(80),
        destination_name: None,
        icmp: None,
        bytes: 60,
    }
}

#[test]
fn records_name_ends_and_rule() {
    let ends =
        [DeciderView { tier: Some("default".into()), ..DeciderView::default() }, DeciderView::default()];
    let ping = RecordView {
        protocol: "icmp".into(),
        source_port: None,
        destination_port: None,
        icmp: Some([8, 0]),
        ..record(2)
    };
    let [by_tier, by_end] = ends.map(|by| RecordView { by, ..ping.clone() });
    assert_eq!(
        one(Reply::Denied(vec![record(1), by_tier, by_end])),
        "\
TIME           EVENT   DIRECTION  PROTO  SOURCE         DESTINATION  FROM       TO  BY                     GENERATION
22:13:20.007Z  denied  ingress    tcp    10.0.0.1:4000  10.0.0.2:80  default/a  -   default/default/web#1           4
22:13:20.007Z  denied  ingress    icmp   10.0.0.1       10.0.0.2     default/a  -   end of default                  4
22:13:20.007Z  denied  ingress    icmp   10.0.0.1       10.0.0.2     default/a  -   end                             4
"
    );
    assert_eq!(
        record_line(&ping),
        "22:13:20.007Z denied 10.0.0.1 (default/a) > 10.0.0.2 icmp type 8 code 0, 60 bytes: NetworkPolicy default/web, \
         ingress rule 1 (Deny)\n"
    );
    let line = json_line(&ping);
    assert_eq!(serde_json::from_str::<RecordView>(&line).unwrap(), ping);
    assert_eq!(line.lines().count(), 1);
    assert_eq!(one(Reply::Denied(vec![])), "no denied or logged connections\n");
}

fn drops() -> Reply {
    let drop = |reason: &str, frames, sentence: &str| DropView {
        reason: reason.into(),
        frames,
        sentence: sentence.into(),
        workers: vec![frames],
    };
    Reply::Drops(vec![drop("no_route", 12, "No route."), drop("too_big", 0, "Too big.")])
}

#[test]
fn drops_that_never_happened_are_shown_only_on_request() {
    assert_eq!(
        tables(&[drops()], false),
        "\
REASON    FRAMES  MEANING
no_route      12  No route.
"
    );
    assert!(tables(&[drops()], true).contains("too_big        0  Too big.\n"));
}

#[test]
fn workers_and_generation() {
    let worker = WorkerView { worker: 0, core: Some(1), received: 1_000_000, ..WorkerView::default() };
    assert_eq!(
        one(Reply::Workers(vec![worker])),
        "\
WORKER  CORE  BUSY  SLEEPS  BATCH       RX  TX  ENCAP  DECAP  HOST  REPLIES  HANDED  DROPS  FLOWS  GENERATION
     0     1     -       0      -  1000000   0      0      0     0        0       0      0      0           0
"
    );
    let part = |part: &str, timed_ns| PartView { part: part.into(), timed_ns, ns_per_frame: None };
    let timed = |worker, frames: u64| WorkerView {
        worker,
        received: 40,
        handed_over: frames,
        batches: 16,
        busy_ns: frames,
        idle_ns: 1,
        timed_frames: frames,
        parts: vec![
            part("receive", 1000 * frames),
            part("neighbor", 0),
            part("encap", 5 * u64::from(worker) * frames / 2),
        ],
        ..WorkerView::default()
    };
    assert_eq!(
        one(Reply::Workers([timed(0, 0), timed(1, 2)].map(WorkerView::with_rates).into())),
        "\
WORKER  CORE   BUSY  SLEEPS  BATCH  RX  TX  ENCAP  DECAP  HOST  REPLIES    HANDED  DROPS  FLOWS  GENERATION
     0     -   0.0%       0    2.5  40   0      0      0     0        0         0      0      0           0
     1     -  66.7%       0    2.5  40   0      0      0     0        0  2 (5.0%)      0      0           0

NS/FRAME      WORKER 0  WORKER 1
receive              -    1000.0
encap                -       2.5
all                  -    1002.5
frames timed         0         2
"
    );
    let generation = GenerationView { generation: 4, revision: 9, complete: false, workers: vec![4, 3] };
    assert_eq!(
        one(Reply::Generation(generation)),
        "generation 4 of revision 9 (no complete picture yet: everything is dropped); seen by workers: 4,3\n"
    );
}

#[test]
fn empty_tables_say_so() {
    assert_eq!(one(Reply::Vteps(vec![])), "no vteps\n");
    assert_eq!(one(Reply::Fdb(vec![])), "no fdb entries\n");
}

#[test]
fn several_tables_have_headings() {
    let text = tables(&[Reply::Vteps(vec![]), Reply::Fdb(vec![])], false);
    assert_eq!(text, "vteps\n-----\nno vteps\n\nfdb\n---\nno fdb entries\n");
}

#[test]
fn json_is_the_value_itself_or_an_object_of_values() {
    let one: Value = serde_json::from_str(&json(&[drops()])).unwrap();
    assert_eq!(one[0]["reason"], "no_route");
    let both: Value = serde_json::from_str(&json(&[drops(), Reply::Fdb(vec![])])).unwrap();
    assert_eq!(both["drops"][1]["frames"], 0);
    assert_eq!(both["fdb"], Value::Array(vec![]));
}

#[test]
fn the_status_says_what_is_wrong() {
    let mut view = StatusView {
        ready: false,
        reasons: vec![ReasonView { code: "joining".into(), sentence: "no lease yet".into() }],
        version: "0.1.0".into(),
        pid: 7,
        uptime_s: 5,
        node: "node-1".into(),
        port: "udp".into(),
        port_why: "asked for".into(),
        datastore: DatastoreView {
            name: "etcd http://e:2379".into(),
            revision: 3,
            ..DatastoreView::default()
        },
        lease: None,
        calico_network: None,
        policy: Some(PolicyView::default()),
        complaints: vec!["/x: not JSON".into()],
        complaints_total: 1,
    };
    assert_eq!(
        status(&view),
        "\
not ready
  no lease yet
node       node-1
daemon     canal-fwd 0.1.0, pid 7, up 5 s
port       udp (asked for)
datastore  etcd http://e:2379, not connected, not in sync
revision   3 read, nothing in force
lease      none
policy     none in the datastore: everything is allowed
ignored    /x: not JSON
"
    );
    view.ready = true;
    assert!(status(&view).starts_with("ready, but degraded\n  no lease yet\n"));
    view.reasons.clear();
    view.complaints.clear();
    view.lease = Some(LeaseView {
        subnets: vec!["10.1.1.0/24".into()],
        public: vec!["192.0.2.1".parse().unwrap()],
        backend: "vxlan".into(),
        mtu: 1450,
        expires_in_s: Some(86_000),
    });
    let counts = PolicyView { workloads: 4, policies: 3, profiles: 2, sets: 5, ..PolicyView::default() };
    view.policy = Some(PolicyView { enforced: true, host_endpoints: 1, ..counts.clone() });
    let line = "policy     enforced: 3 policies, 2 profiles, 5 sets for 4 workloads; 1 host endpoints, enforced for what passes gateway interfaces; the host's own traffic is not taken off the interface\n";
    assert!(status(&view).ends_with(line));
    view.calico_network =
        Some(CalicoNetworkView { vxlan_pools: 2, ipip_nodes: 1, ..CalicoNetworkView::default() });
    let line = "calico     2 VXLAN pools, 1 nodes with an IP-in-IP tunnel: not used, packets go as flannel's network says \
                (canal show calico-routes)\n";
    assert!(status(&view).ends_with(line), "{}", status(&view));
    view.calico_network = None;
    view.policy = Some(PolicyView { switched_off: true, ..counts });
    assert!(status(&view).ends_with("policy     off: everything is allowed\n"));
    view.policy = None;
    assert!(status(&view).starts_with("ready\nnode "));
    assert!(status(&view).ends_with("lease      10.1.1.0/24 at 192.0.2.1, vxlan, mtu 1450, 86000 s left\n"));
}

#[test]
fn a_network_of_calicos_is_a_table() {
    let pool = CalicoRouteView {
        prefix: "10.9.0.0/16".into(),
        kind: "CIDR_INFO".into(),
        pool: "VXLAN".into(),
        way: "host routes".into(),
        ..CalicoRouteView::default()
    };
    let block = CalicoRouteView {
        prefix: "10.9.2.0/26".into(),
        kind: "REMOTE_WORKLOAD".into(),
        node: Some("node2".into()),
        node_ip: "192.0.2.2".parse().ok(),
        flags: vec!["nat_outgoing".into()],
        way: "vxlan".into(),
        via: "192.0.2.2".parse().ok(),
        mtu: Some(1450),
        ..pool.clone()
    };
    assert_eq!(
        one(Reply::CalicoRoutes(vec![pool, block])),
        "\
PREFIX       KIND             POOL   NODE   NODE-IP    FLAGS         WAY               MTU
10.9.0.0/16  CIDR_INFO        VXLAN  -      -          -             host routes         -
10.9.2.0/26  REMOTE_WORKLOAD  VXLAN  node2  192.0.2.2  nat_outgoing  vxlan 192.0.2.2  1450
"
    );
    let end = CalicoVtepView {
        node: "node2".into(),
        address: "10.9.2.0".parse().unwrap(),
        mac: "66:00:00:00:00:02".into(),
        node_ip: "192.0.2.2".parse().unwrap(),
    };
    assert_eq!(
        one(Reply::CalicoVteps(vec![end])),
        "\
NODE   ADDRESS   MAC                NODE-IP
node2  10.9.2.0  66:00:00:00:00:02  192.0.2.2
"
    );
    assert_eq!(one(Reply::CalicoRoutes(vec![])), "no routes of Calico's\n");
    assert_eq!(one(Reply::CalicoVteps(vec![])), "no tunnel ends of Calico's\n");
}

#[test]
fn the_status_says_how_far_what_was_read_is_enforced() {
    let mut datastore =
        DatastoreView { revision: 9, in_force: 9, in_force_ms: Some(12_345), ..DatastoreView::default() };
    assert_eq!(revision(&datastore), "9 read, in force for 12 s");
    datastore.late_workers = vec![0, 2];
    assert_eq!(revision(&datastore), "9 read, in force for 12 s; not used yet by worker 0,2");
    let behind = DatastoreView { in_force: 7, behind_ms: 1_250, late_workers: vec![], ..datastore };
    assert_eq!(revision(&behind), "9 read 1.2 s ago, 7 in force");
    assert_eq!(
        [0, 999, 1000, 9_999, 10_000, 600_000].map(ago),
        ["0 ms", "999 ms", "1.0 s", "9.9 s", "10 s", "10 min"]
    );
}

#[test]
fn waiting_ends_with_a_reason() {
    let view = EnforcedView { revision: 7, enforced: true, generation: 3, ..EnforcedView::default() };
    assert_eq!(enforced(&view), "revision 7 is enforced by every worker (generation 3)\n");
    let view = EnforcedView { revision: 7, reasons: vec!["a".into(), "b".into()], ..EnforcedView::default() };
    assert_eq!(enforced(&view), "revision 7 is not enforced yet\n  a\n  b\n");
    assert!(
        enforced(&EnforcedView { degraded: true, ..view }).starts_with("revision 7 cannot be waited for\n")
    );
}

#[test]
fn policies_are_shown_rule_by_rule_and_sets_in_part() {
    let rule = RuleView {
        rule: 0,
        action: "Allow".into(),
        criteria: "tcp to ports 80".into(),
        packets: 7,
        bytes: 420,
    };
    let web = RuleSetView {
        kind: "NetworkPolicy".into(),
        name: "default/web".into(),
        tier: Some("default".into()),
        direction: "ingress".into(),
        endpoints: 2,
        rules: vec![rule],
    };
    let bare = RuleSetView { name: "default/deny".into(), rules: vec![], ..web.clone() };
    let end = RuleView { rule: 0, action: "Deny".into(), criteria: "no rule".into(), packets: 3, bytes: 180 };
    let end = RuleSetView { kind: "TierEnd".into(), name: "default".into(), rules: vec![end], ..web.clone() };
    assert_eq!(
        one(Reply::Policies(vec![web, bare, end])),
        "\
TIER     NAME          DIRECTION  RULE  ACTION  MATCHES          PACKETS  BYTES
default  default/web   ingress       0  Allow   tcp to ports 80        7    420
default  default/deny  ingress       -  -       no rules               0      0
default  -             ingress     end  Deny    no rule                3    180
"
    );
    assert_eq!(one(Reply::Profiles(vec![])), "no profiles\n");
    let members = (1..=4).map(|n| format!("10.0.0.{n}/32")).collect();
    let set = IpSetView { id: "s:x".into(), kind: "networks".into(), count: 4, members };
    assert_eq!(
        one(Reply::IpSets(vec![set])),
        "\
ID   KIND      COUNT  MEMBERS
s:x  networks      4  10.0.0.1/32 10.0.0.2/32 10.0.0.3/32 +1
"
    );
}

#[test]
fn settings_say_who_said_them_and_what_comes_of_it() {
    let setting = |name: &str, value: &str, source: &str, effect: &str, why: Option<&str>| SettingView {
        name: name.into(),
        value: value.into(),
        source: source.into(),
        effect: effect.into(),
        why: why.map(Into::into),
    };
    let settings = vec![
        setting("HealthEnabled", "true", "FELIX_HEALTHENABLED", "obeyed", None),
        setting("OpenstackRegion", "", "default", "obeyed", None),
        setting("HealthPort", "0", "FelixConfiguration node.n1", "invalid", Some("not a port")),
    ];
    assert_eq!(
        one(Reply::Config(settings)),
        "\
SETTING          VALUE  SOURCE                      EFFECT
HealthEnabled    true   FELIX_HEALTHENABLED         obeyed
OpenstackRegion  -      default                     obeyed
HealthPort       0      FelixConfiguration node.n1  invalid: not a port
"
    );
}
