//! What people meet: flags, refusals, `canal show`, status, metrics and health.

use anyhow::{Result, ensure};
use netns_tests::{
    Canal, CanalOptions, Etcd, Network, Overlay, Role, Shape, Store, Topology, flannel, http, wait,
};
use serde_json::json;

fn answer(overlay: &Overlay<'_>, url: &str) -> Result<(u16, String)> {
    http::get(&overlay.host(0).ns, url)
}

#[test]
fn other_backends_are_refused_by_name() -> Result<()> {
    for backend in ["udp", "wireguard", "ipip", "ipsec", "extension", "tencent-vpc", "nonsense"] {
        let topology = Topology::build(&Shape::hosts(1))?;
        let etcd = Etcd::start(&topology)?;
        etcd.set_net_conf(&flannel::net_conf(false, &json!({"Type": backend})))?;
        let mut canal = Canal::prepare(&topology, 0, &etcd, CanalOptions::default())?;
        canal.launch()?;
        let status = canal.wait_exit(wait::SOON)?;
        ensure!(status.is_some_and(|s| !s.success()), "{backend}: {status:?}");
        ensure!(canal.log_text().contains(backend), "the refusal names {backend}");
        ensure!(etcd.raw_leases()?.is_empty(), "no lease for a backend that is refused");
        topology.pass()?;
    }
    Ok(())
}

#[test]
fn an_absent_backend_means_udp_as_flannel_reads_it_and_is_refused() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = Etcd::start(&topology)?;
    etcd.set_net_conf(&json!({"Network": "10.244.0.0/16"}))?;
    let mut canal = Canal::prepare(&topology, 0, &etcd, CanalOptions::default())?;
    canal.launch()?;
    let status = canal.wait_exit(wait::SOON)?;
    ensure!(status.is_some_and(|s| !s.success()), "{status:?}");
    ensure!(canal.log_text().contains("udp"), "{}", canal.log_text());
    topology.pass()
}

#[test]
fn alloc_takes_a_lease_and_nothing_more() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = Etcd::start(&topology)?;
    etcd.set_net_conf(&flannel::net_conf(false, &json!({"Type": "alloc"})))?;
    let canal = Canal::start(&topology, 0, &etcd, CanalOptions::default())?;
    let lease = canal.lease(&etcd)?;
    ensure!(lease.backend.is_none() && lease.mac_v4.is_none(), "{lease:?}");
    ensure!(
        std::fs::read_to_string(canal.subnet_file())?.contains("FLANNEL_MTU=1500"),
        "no tunnel, no overhead"
    );
    topology.pass()
}

#[test]
fn flannels_flags_are_accepted() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = Etcd::start(&topology)?;
    etcd.put("/other/prefix/config", &flannel::net_conf(false, &json!({})).to_string())?;
    let options = CanalOptions::with(&[
        "--etcd-prefix=/other/prefix",
        "--public-ip=192.168.77.10",
        "--subnet-lease-renew-margin=30",
        "--ip-masq=false",
        "--iptables-resync=7",
        "--iptables-forward-rules=false",
        "--ip-blackhole-route=false",
        "--healthz-ip=127.0.0.1",
        "--healthz-port=8471",
        "-v=2",
    ]);
    let canal = Canal::start(&topology, 0, &etcd, options)?;
    ensure!(etcd.list("/other/prefix/subnets/")?.len() == 1, "its lease lies under the prefix it was given");
    ensure!(
        canal.log_text().contains("iptables-resync"),
        "a flag without a meaning here is said to have none"
    );
    topology.pass()
}

#[test]
fn flannels_environment_is_accepted_and_flags_win() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = Etcd::start(&topology)?;
    etcd.put("/from/flag/config", &flannel::net_conf(false, &json!({})).to_string())?;
    let options = CanalOptions {
        env: vec![
            ("FLANNELD_ETCD_PREFIX".to_owned(), "/from/environment".to_owned()),
            ("FLANNELD_IP_MASQ".to_owned(), "false".to_owned()),
        ],
        ..CanalOptions::with(&["--etcd-prefix=/from/flag"])
    };
    let _canal = Canal::start(&topology, 0, &etcd, options)?;
    ensure!(etcd.list("/from/flag/subnets/")?.len() == 1, "the flag won");
    topology.pass()
}

#[test]
fn bad_values_are_refused_with_their_flag() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let etcd = Etcd::start(&topology)?;
    for (flag, value) in [("--subnet-lease-renew-margin", "1440"), ("--port", "smoke")] {
        let mut canal =
            Canal::prepare(&topology, 0, &etcd, CanalOptions::with(&[&format!("{flag}={value}")]))?;
        canal.launch()?;
        let status = canal.wait_exit(wait::SOON)?;
        ensure!(status.is_some_and(|s| !s.success()), "{flag}={value}: {status:?}");
    }
    topology.pass()
}

#[test]
fn an_interface_that_does_not_exist_is_refused_though_the_datastore_is_away() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut etcd = Etcd::start(&topology)?;
    etcd.stop()?;
    let host = &topology.hosts[0].ns;
    host.ip("link set eth0 down")?;
    host.ip("link set eth0 name lan0")?;
    let mut canal = Canal::prepare(&topology, 0, &etcd, CanalOptions::default())?;
    canal.launch()?;
    let status = canal.wait_exit(wait::SOON)?;
    ensure!(status.and_then(|s| s.code()) == Some(1), "{status:?}");
    let log = canal.log_text();
    ensure!(
        log.contains("--iface eth0: no such interface. Interfaces here: ") && log.contains("lan0"),
        "{log}"
    );
    topology.pass()
}

#[test]
fn everything_can_be_shown_as_a_table_and_as_json() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::Kernel])?;
    let canal = overlay.canal(0);
    let (pod, peer) = (overlay.pod(0), overlay.host(1));
    let peer_mac = overlay.kernel(1).mac();
    let expected = [
        ("ports", "canal0".to_owned()),
        ("endpoints", pod.interface.clone()),
        ("routes", overlay.subnets(1)?.v4.to_string()),
        ("vteps", peer.v4.to_string()),
        ("fdb", peer_mac.to_owned()),
        ("flows", pod.v4.to_string()),
        ("drops", "unknown_vtep".to_owned()),
        ("workers", String::new()),
        ("generation", String::new()),
    ];
    for (what, word) in expected {
        let json = canal.show(what)?.to_string();
        ensure!(json.contains(&word), "canal show {what} -o json without {word}: {json}");
        let table = canal.show_table(what)?;
        ensure!(!table.trim().is_empty(), "canal show {what} says nothing");
    }
    topology.pass()
}

#[test]
fn the_exit_code_of_status_says_content_degraded_or_nobody_there() -> Result<()> {
    const CONTENT: Option<i32> = Some(0);
    const DEGRADED: Option<i32> = Some(1);
    const NOBODY: Option<i32> = Some(2);
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut etcd = Etcd::start(&topology)?;
    let mut canal = Canal::prepare(&topology, 0, &etcd, CanalOptions::default())?;
    let expect = |canal: &Canal<'_>, code: Option<i32>, words: &[&str]| {
        wait::until(&format!("canal status: {code:?} {words:?}"), wait::SOON, || {
            // For scripts and for people alike.
            for (exit, text) in [canal.status_text()?, canal.status_table()?] {
                let said = text.to_lowercase();
                ensure!(exit == code && words.iter().all(|w| said.contains(w)), "{exit:?} {text}");
            }
            Ok(true)
        })
    };
    expect(&canal, NOBODY, &["canal.sock"])?;
    canal.launch()?;
    expect(&canal, DEGRADED, &["waiting for the network config"])?;
    etcd.set_net_conf(&flannel::net_conf(false, &json!({})))?;
    expect(&canal, CONTENT, &[])?;
    etcd.stop()?;
    expect(&canal, DEGRADED, &["datastore is away"])?;
    etcd.restart()?;
    expect(&canal, CONTENT, &[])?;
    canal.kill()?;
    expect(&canal, NOBODY, &["canal.sock"])?;
    topology.pass()
}

#[test]
fn metrics_and_health_are_served() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let options = CanalOptions::with(&[
        "--metrics-addr=127.0.0.1:9191",
        "--healthz-ip=127.0.0.1",
        "--healthz-port=8471",
    ]);
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::Canal(options)])?;
    let (code, text) = answer(&overlay, "127.0.0.1:9191/metrics")?;
    ensure!(code == 200 && text.contains("# TYPE "), "{code} {text}");
    ensure!(text.contains("unknown_vtep"), "drop reasons are labels: {text}");
    ensure!(answer(&overlay, "127.0.0.1:8471/healthz")?.0 == 200, "healthz");
    // New tables are no loss of readiness, also where a worker sleeps and has not looked at them yet.
    let pod = overlay.another_pod(0, 7)?;
    for _ in 0..5 {
        for attached in [false, true] {
            let store: &dyn Store = &overlay.store;
            if attached {
                pod.attach(store)?
            } else {
                pod.detach(store)?
            }
            wait::until("the tables have it", wait::SOON, || {
                let (code, text) = answer(&overlay, "127.0.0.1:8471/readyz")?;
                ensure!(code == 200, "{text}");
                let shown = overlay.canal(0).show("endpoints")?.to_string();
                Ok(shown.contains(&pod.interface) == attached)
            })?;
            let (code, text) = answer(&overlay, "127.0.0.1:8471/readyz")?;
            ensure!(code == 200, "{text}");
        }
    }
    topology.pass()
}

#[test]
fn felix_probes_and_dashboards_find_what_they_look_for() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut options = CanalOptions::with(&["--metrics-addr=127.0.0.1:9191"]);
    options.env.push(("FELIX_HEALTHENABLED".to_owned(), "true".to_owned()));
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::Canal(options)])?;
    let ready = || Ok(answer(&overlay, "127.0.0.1:9099/readiness")?.0 == 200);
    wait::until("/readiness says 200", wait::SOON, ready)?;
    let (code, report) = answer(&overlay, "127.0.0.1:9099/liveness")?;
    ensure!(code == 200 && report.contains("worker 0: live") && report.contains("control: live"), "{report}");
    let shown = |sample: &str| -> Result<bool> {
        Ok(answer(&overlay, "127.0.0.1:9191/metrics")?.1.lines().any(|line| line == sample))
    };
    for sample in [
        "felix_resync_state 3",
        "felix_active_local_endpoints 1",
        "felix_cluster_num_workload_endpoints 1",
        "felix_cluster_num_profiles 1",
    ] {
        wait::until(sample, wait::SOON, || shown(sample))?;
    }
    topology.pass()
}

#[test]
fn the_chosen_port_is_said_in_the_log_and_shown() -> Result<()> {
    for port in ["tap", "udp"] {
        let topology = Topology::build(&Shape::hosts(1))?;
        let overlay = Overlay::start(&topology, &Network::default(), &[Role::port(port)])?;
        let shown = overlay.canal(0).show("ports")?.to_string();
        ensure!(shown.contains(port), "{port} is not in {shown}");
        ensure!(overlay.canal(0).log_text().to_lowercase().contains(port), "nor in the log");
        topology.pass()?;
    }
    Ok(())
}
