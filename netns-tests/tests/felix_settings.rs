//! Felix's settings in a real etcd, changed under a running daemon; what it reports of itself; what it shows.

use anyhow::{Context, Result, ensure};
use netns_tests::calico::{Kind, Resource, namespace_profile, ready};
use netns_tests::frames::{self, Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::plan::{GATEWAY_MAC, VXLAN_PORT};
use netns_tests::traffic::{Service, tcp_connects};
use netns_tests::{CanalOptions, Network, Overlay, Pod, Role, Shape, Topology, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

const PORT: u16 = 8080;

fn felix(name: &str, spec: Value) -> Resource {
    Resource::global(Kind::FelixConfiguration, name, spec)
}

fn wait_tcp(what: &str, pod: &Pod, to: SocketAddr, passes: bool) -> Result<()> {
    let what = format!("{what}: TCP {} -> {to} passes={passes}", pod.ns.name());
    wait::until(&what, wait::SOON, || Ok(tcp_connects(&pod.ns, to)? == passes))
}

/// What `canal show config` says of a setting: value, source, effect.
fn setting(overlay: &Overlay<'_>, name: &str) -> Result<[String; 3]> {
    let shown = overlay.canal(0).show("config")?;
    let all = shown.as_array().context("a list")?;
    let found = all.iter().find(|one| one["name"] == name).with_context(|| format!("no {name}: {shown}"))?;
    let text = |member: &str| found[member].as_str().unwrap_or_default().to_owned();
    Ok([text("value"), text("source"), text("effect")])
}

/// Status code of a GET in the first host's namespace; `None` without a connection.
fn get(overlay: &Overlay<'_>, to: SocketAddr, path: &str) -> Result<Option<(u16, String)>> {
    let path = path.to_owned();
    overlay.host(0).ns.enter(move || {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(2)) else {
            return Ok(None);
        };
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let code = text.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Some((code, text)))
    })
}

#[test]
fn a_pod_reaches_its_own_host_as_the_configuration_says_at_the_moment() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    let (pod, host) = (overlay.pod(0), overlay.host(0));
    let addresses = [overlay.subnets(0)?.v4, host.v4];
    let services: Vec<Service> =
        addresses.iter().map(|a| Service::start(&host.ns, (*a).into(), PORT)).collect::<Result<_>>()?;
    let pods = Service::start(&pod.ns, pod.v4.into(), PORT)?;
    let expect = |what: &str, passes: bool| -> Result<()> {
        for address in addresses {
            wait_tcp(what, pod, SocketAddr::new(address.into(), PORT), passes)?;
        }
        let to = SocketAddr::new(pod.v4.into(), PORT);
        ensure!(tcp_connects(&host.ns, to)?, "{what}: the host reaches its pod whatever is set");
        Ok(())
    };
    let action = |name: &str, action: &str| -> Result<()> {
        felix(name, json!({"defaultEndpointToHostAction": action})).put(&overlay.store)
    };
    let own = format!("node.{}", host.node());
    expect("nothing is set", true)?;
    action("default", "Drop")?;
    expect("Drop for all nodes", false)?;
    action(&own, "Return")?;
    expect("Return for this one", true)?;
    let source = format!("FelixConfiguration {own}");
    let name = "DefaultEndpointToHostAction";
    ensure!(setting(&overlay, name)? == ["Return".to_owned(), source, "obeyed".to_owned()]);
    action(&own, "Drop")?;
    expect("Drop for this one", false)?;
    action("node.somebody-else", "Accept")?;
    action("default", "Accept")?;
    overlay.wait_enforced()?;
    expect("Accept for others", false)?;
    felix(&own, Value::Null).delete(&overlay.store)?;
    expect("without one of its own", true)?;
    ensure!(overlay.canal(0).drops()?.get("endpoint_to_host_denied").is_some_and(|n| *n > 0), "counted");
    drop((services, pods));
    topology.pass()
}

#[test]
fn a_pod_speaks_vxlan_and_ip_in_ip_as_the_configuration_says_at_the_moment() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(2))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal(), Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    let (from, to) = (overlay.pod(0), overlay.pod(1));
    let link = Link { from: mac(&from.mac), to: mac(GATEWAY_MAC) };
    let socket = PacketSocket::open(&from.ns, "eth0")?;
    let sink = PacketSocket::open(&to.ns, "eth0")?;
    let vxlan = frames::udp(link, (from.v4.into(), 50_000), (to.v4.into(), VXLAN_PORT), 64, b"not really");
    let mut ip_in_ip = frames::udp(link, (from.v4.into(), 1), (to.v4.into(), 2), 64, b"not really");
    ip_in_ip[23] = 4;
    let ip_in_ip = frames::with_header_checksum(ip_in_ip);
    let arrives = |frame: &[u8]| -> Result<bool> {
        socket.send(frame)?;
        let ends_and_protocol = |frame: &[u8]| (frame[26..34].to_vec(), frame[23]);
        let ours = |seen: &[u8]| {
            (seen.len() > 34 && ends_and_protocol(seen) == ends_and_protocol(frame)).then_some(())
        };
        Ok(!sink.collect(Duration::from_millis(400), ours)?.is_empty())
    };
    let expect = |what: &str, spec: Option<Value>, passes: [bool; 2]| -> Result<()> {
        if let Some(spec) = spec {
            felix("default", spec).put(&overlay.store)?;
        }
        for (name, frame, passes) in [("VXLAN", &vxlan, passes[0]), ("IP in IP", &ip_in_ip, passes[1])] {
            let what = format!("{what}: {name} passes={passes}");
            wait::until(&what, wait::SOON, || Ok(arrives(frame)? == passes))?;
            ensure!(arrives(frame)? == passes, "{what}, but not the second time");
        }
        Ok(())
    };
    expect("nothing is set", None, [false, false])?;
    expect("VXLAN alone", Some(json!({"allowVXLANPacketsFromWorkloads": true})), [true, false])?;
    expect("IP in IP alone", Some(json!({"allowIPIPPacketsFromWorkloads": true})), [false, true])?;
    let both = json!({"allowVXLANPacketsFromWorkloads": true, "allowIPIPPacketsFromWorkloads": true});
    expect("both", Some(both), [true, true])?;
    expect("neither again, though connections are known", Some(json!({})), [false, false])?;
    topology.pass()
}

#[test]
fn flags_go_before_variables_and_those_before_the_datastore() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut options = CanalOptions::with(&["--endpoint-to-host", "accept"]);
    options.env = [
        ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Drop"),
        ("Felix_AllowIPIPPacketsFromWorkloads", "true"),
        ("FELIX_IPV6SUPPORT", "false"),
        ("FELIX_HEALTHPORT", "many"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::Canal(options)])?;
    felix("default", json!({"allowIPIPPacketsFromWorkloads": false, "reportingInterval": "5s"}))
        .put(&overlay.store)?;
    let expect = |name: &str, words: [&str; 3]| -> Result<()> {
        let what = format!("{name} is {words:?}");
        wait::until(&what, wait::SOON, || Ok(setting(&overlay, name)? == words.map(str::to_owned)))
    };
    expect("DefaultEndpointToHostAction", ["Accept", "--endpoint-to-host", "obeyed"])?;
    expect("AllowIPIPPacketsFromWorkloads", ["true", "Felix_AllowIPIPPacketsFromWorkloads", "obeyed"])?;
    expect("ReportingIntervalSecs", ["5", "FelixConfiguration default", "obeyed"])?;
    expect("Ipv6Support", ["false", "FELIX_IPV6SUPPORT", "meaningless"])?;
    expect("HealthPort", ["many", "FELIX_HEALTHPORT", "invalid"])?;
    expect("AllowVXLANPacketsFromWorkloads", ["false", "default", "obeyed"])?;
    let (_, status) = overlay.canal(0).status_table()?;
    ensure!(status.contains("HealthPort is \"many\""), "{status}");
    let table = overlay.canal(0).show_table("config")?;
    ensure!(table.contains("the families are those of flannel's network"), "{table}");
    topology.pass()
}

#[test]
fn probes_and_metrics_are_served_where_the_configuration_says() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    let [health, metrics, other]: [SocketAddr; 3] =
        ["127.0.0.1:9099".parse()?, "127.0.0.1:9091".parse()?, "127.0.0.1:9199".parse()?];
    let code = |to: SocketAddr, path: &str| -> Result<Option<u16>> {
        Ok(get(&overlay, to, path)?.map(|(code, _)| code))
    };
    ensure!(code(health, "/liveness")?.is_none(), "nothing is enabled");
    felix("default", json!({"healthEnabled": true, "prometheusMetricsEnabled": true})).put(&overlay.store)?;
    for (to, path) in [(health, "/liveness"), (health, "/readiness"), (metrics, "/metrics")] {
        let what = format!("http://{to}{path} says 200");
        wait::until(&what, wait::SOON, || Ok(code(to, path)? == Some(200)))?;
    }
    felix("default", json!({"healthEnabled": true, "healthPort": 9199})).put(&overlay.store)?;
    wait::until("probes move", wait::SOON, || Ok(code(other, "/readiness")? == Some(200)))?;
    wait::until("and leave", wait::SOON, || Ok(code(health, "/readiness")?.is_none()))?;
    wait::until("metrics go", wait::SOON, || Ok(code(metrics, "/metrics")?.is_none()))?;
    topology.pass()
}

#[test]
fn the_log_is_as_loud_as_the_configuration_says() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    ensure!(!overlay.canal(0).log_text().contains("DEBUG"), "info is the default");
    felix("default", json!({"logSeverityScreen": "Debug"})).put(&overlay.store)?;
    let mut number = 10;
    wait::until("debug lines", wait::SOON, || {
        // Something has to happen to be spoken of.
        let pod = overlay.another_pod(0, number)?;
        pod.detach(&overlay.store)?;
        number += 1;
        Ok(overlay.canal(0).log_text().contains("DEBUG"))
    })?;
    topology.pass()
}

/// CPU time a process has used, in clock ticks.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

#[test]
fn the_node_reports_itself_and_its_pods_and_takes_back_what_is_over() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let mut overlay = Overlay::start(&topology, &Network::default(), &[Role::canal()])?;
    namespace_profile().put(&overlay.store)?;
    let node = overlay.host(0).node();
    let prefix = format!("/calico/felix/v2/no-region/host/{node}/");
    let stale = format!("{prefix}workload/k8s/default%2fgone/endpoint/eth0");
    overlay.store.put(&stale, r#"{"status":"up"}"#)?;
    let quick = json!({"reportingInterval": "1s", "reportingTTL": "3s", "endpointReportingEnabled": true,
                       "endpointReportingDelay": "50ms"});
    felix("default", quick).put(&overlay.store)?;
    ready(true).put(&overlay.store)?;
    let value = |overlay: &Overlay<'_>, key: &str| -> Result<Option<(Value, i64)>> {
        let found = overlay.store.list(key)?.into_iter().find(|(found, _, _)| found == key);
        found.map(|(_, value, lease)| Ok((serde_json::from_str(&value)?, lease))).transpose()
    };
    let status = format!("{prefix}status");
    wait::until("the node lives", wait::SOON, || {
        Ok(value(&overlay, &status)?.is_some_and(|(status, _)| status["first_update"] == false))
    })?;
    let (said, lease) = value(&overlay, &status)?.context("it has just been there")?;
    ensure!(lease != 0 && said["uptime"].as_f64().is_some_and(|seconds| seconds >= 10.0), "{said}");
    let (_, lease) =
        value(&overlay, &format!("{prefix}last_reported_status"))?.context("the one that stays")?;
    ensure!(lease == 0, "it expires");
    let pod = |number: u8| format!("{prefix}workload/k8s/default%2fpod{number}/endpoint/eth0");
    let expect = |overlay: &Overlay<'_>, what: &str, key: &str, word: Option<&str>| -> Result<()> {
        let wanted = word.map(|word| json!({"status": word}));
        wait::until(what, wait::SOON, || Ok(value(overlay, key)?.map(|(value, _)| value) == wanted))
    };
    expect(&overlay, "the first pod is up", &pod(2), Some("up"))?;
    expect(&overlay, "nobody has the stale one", &stale, None)?;
    // The host's end: with the pod's own its routes would go.
    let interface = overlay.pod(0).interface.clone();
    overlay.host(0).ns.ip(&format!("link set {interface} down"))?;
    expect(&overlay, "its carrier is gone", &pod(2), Some("down"))?;
    overlay.host(0).ns.ip(&format!("link set {interface} up"))?;
    expect(&overlay, "and back", &pod(2), Some("up"))?;
    let another = overlay.another_pod(0, 9)?;
    expect(&overlay, "another one", &pod(9), Some("up"))?;
    // Away with etcd: nothing spins meanwhile, and what went shows afterwards.
    overlay.store.stop()?;
    let pid = overlay.canal(0).pid().context("it runs")?;
    let before = cpu_ticks(pid)?;
    std::thread::sleep(Duration::from_secs(4));
    let spent = cpu_ticks(pid)? - before;
    ensure!(spent < 200, "{spent} hundredths of a second in four while etcd was away");
    overlay.store.restart()?;
    another.detach(&overlay.store)?;
    expect(&overlay, "it is gone", &pod(9), None)?;
    expect(&overlay, "the other one stays", &pod(2), Some("up"))?;
    felix("default", json!({"reportingInterval": "0s"})).put(&overlay.store)?;
    expect(&overlay, "nothing is reported of pods any more", &pod(2), None)?;
    expect(&overlay, "nor of the node", &status, None)?;
    topology.pass()
}
