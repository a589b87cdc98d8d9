//! What operators see of policy: the log, `canal show denied`, flows and rules, all about the same packets.

use anyhow::{Context, Result, ensure};
use netns_tests::calico::{Kind, Resource, endpoint, namespace_profile};
use netns_tests::pod::NAMESPACE;
use netns_tests::traffic::{Service, tcp_connects};
use netns_tests::{CanalOptions, Network, Overlay, Pod, Role, Shape, Store, Topology, wait};
use serde_json::{Value, json};
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

const HTTP: u16 = 8080;
const OTHER: u16 = 9090;

/// A client (pod 0) and a server on one canal node; the policy of the server notes everything, and allows HTTP only.
struct Scene<'t> {
    overlay: Overlay<'t>,
    server: Pod,
    _services: Vec<Service>,
}

impl<'t> Scene<'t> {
    fn build(topology: &'t Topology, words: &[&str]) -> Result<Self> {
        let options = CanalOptions::with(words);
        let overlay = Overlay::start(topology, &Network::default(), &[Role::Canal(options)])?;
        let server = overlay.another_pod(0, 5)?;
        let services = [HTTP, OTHER].map(|port| Service::start(&server.ns, server.v4.into(), port));
        namespace_profile().put(&overlay.store)?;
        let ports = json!({"ports": [HTTP]});
        let ingress = json!([{"action": "Log"}, {"action": "Allow", "protocol": "TCP", "destination": ports}, {"action": "Deny"}]);
        let spec = json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": ingress});
        Resource::namespaced(Kind::NetworkPolicy, "default.server", spec).put(&overlay.store)?;
        let value = endpoint(&server, &[("role", "server")], &[]);
        overlay.store.put_workload(NAMESPACE, &server.endpoint_name(), &value)?;
        let services = services.into_iter().collect::<Result<_>>()?;
        let scene = Self { overlay, server, _services: services };
        wait::until("the policy is enforced", wait::SOON, || Ok(!scene.connects(OTHER)?))?;
        Ok(scene)
    }

    fn connects(&self, port: u16) -> Result<bool> {
        tcp_connects(&self.overlay.pod(0).ns, SocketAddr::new(self.server.v4.into(), port))
    }

    /// A line of the log with all of these words.
    fn logged(&self, words: &[&str]) -> bool {
        let log = self.overlay.canal(0).log_text();
        log.lines().any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// The newest record of this event about the server's port.
    fn record(&self, event: &str, port: u16) -> Result<Option<Value>> {
        let records = self.overlay.canal(0).show("denied")?;
        let records = records.as_array().context("no list")?.clone();
        let wanted = |r: &Value| r["event"] == event && r["destination_port"] == port;
        Ok(records.into_iter().rev().find(wanted))
    }

    fn expect_record(&self, event: &str, port: u16, rule: u64) -> Result<()> {
        let what = format!("a record: {event} at port {port}");
        wait::until(&what, wait::SOON, || Ok(self.record(event, port)?.is_some()))?;
        let record = self.record(event, port)?.context("gone")?;
        let (client, server) = (self.overlay.pod(0), &self.server);
        let name = |pod: &Pod| json!(format!("{NAMESPACE}/{}", pod.endpoint_name()));
        let by =
            json!([record["by"]["tier"], record["by"]["kind"], record["by"]["name"], record["by"]["rule"]]);
        ensure!(
            by == json!(["default", "NetworkPolicy", format!("{NAMESPACE}/default.server"), rule]),
            "{record:#}"
        );
        ensure!(record["source"] == json!(client.v4.to_string()), "{record:#}");
        ensure!(record["source_name"] == name(client), "{record:#}");
        ensure!(
            record["destination_name"] == name(server) && record["endpoint"] == name(server),
            "{record:#}"
        );
        ensure!(record["direction"] == "ingress" && record["protocol"] == "tcp", "{record:#}");
        ensure!(record["generation"].as_u64() > Some(0), "{record:#}");
        Ok(())
    }
}

#[test]
fn a_refused_connection_and_a_log_rule_are_in_the_log_and_in_the_records() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let scene = Scene::build(&topology, &["--log-denied=on", "--log-level=warn"])?;
    ensure!(!scene.connects(OTHER)? && scene.connects(HTTP)?, "only HTTP is allowed");
    let ends = format!("{} > {}", scene.overlay.pod(0).v4, scene.server.v4);
    let server = scene.server.endpoint_name();
    let denied = [
        "policy denied",
        "NetworkPolicy pods/default.server, ingress rule 2 (Deny)",
        &server,
        &format!("{}:{OTHER}", scene.server.v4),
    ]
    .map(|word| word.replace("pods/", &format!("{NAMESPACE}/")));
    let words: Vec<&str> = denied.iter().map(String::as_str).collect();
    wait::until(&format!("a log line: {ends} denied"), wait::SOON, || Ok(scene.logged(&words)))?;
    for port in [HTTP, OTHER] {
        let (rule, at) = ("ingress rule 0 (Log)", format!("{}:{port}", scene.server.v4));
        let words = ["policy logged", rule, "tier default", &server, &at];
        wait::until(
            &format!("a log line: {ends} logged at {port}"),
            wait::SOON,
            || Ok(scene.logged(&words)),
        )?;
    }
    scene.expect_record("denied", OTHER, 2)?;
    scene.expect_record("logged", OTHER, 0)?;
    scene.expect_record("logged", HTTP, 0)?;
    topology.pass()
}

#[test]
fn refused_connections_are_logged_on_demand_only() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let scene = Scene::build(&topology, &[])?;
    let (monitor, file) = scene.overlay.canal(0).monitor()?;
    // It begins with what comes after it has begun: the first one or two may have come before.
    wait::until("canal monitor tells of a refused connection", wait::SOON, || {
        ensure!(!scene.connects(OTHER)?, "refused");
        let text = std::fs::read_to_string(&file)?;
        let complete = text.lines().filter(|line| line.ends_with('}'));
        let records = complete.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        Ok(records.iter().any(|r| r["event"] == "denied" && r["destination_port"] == OTHER))
    })?;
    drop(monitor);
    // The record has come by all stations, and the line of the same packet's Log rule with it.
    scene.expect_record("denied", OTHER, 2)?;
    wait::until("a log line of the rule", wait::SOON, || Ok(scene.logged(&["policy logged"])))?;
    ensure!(!scene.logged(&["policy denied"]), "{}", scene.overlay.canal(0).log_text());
    topology.pass()
}

/// What there is to tell, and what became of it.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// Packets that the rules `Log` and `Deny` have met.
    met: u64,
    /// Records made of them.
    kept: u64,
    /// Records that were not.
    lost: u64,
}

impl Scene<'_> {
    fn told(&self) -> Result<Told> {
        let canal = self.overlay.canal(0);
        let policies = canal.show("policies")?;
        let sets = policies.as_array().context("no list")?;
        let name = format!("{NAMESPACE}/default.server");
        let set = sets.iter().find(|set| set["name"] == json!(name)).context("no such policy")?;
        let met = |rule: usize| set["rules"][rule]["packets"].as_u64().context("no number");
        let records = canal.show("denied")?;
        let newest = records.as_array().and_then(|records| records.last()?["number"].as_u64());
        let workers = canal.show("workers")?;
        let lost = workers.as_array().context("no list")?.iter().filter_map(|w| w["records_lost"].as_u64());
        Ok(Told { met: met(0)? + met(2)?, kept: newest.unwrap_or(0), lost: lost.sum() })
    }
}

#[test]
fn a_flood_is_counted_whole_and_told_in_part() -> Result<()> {
    const FLOOD: u64 = 3000;
    let topology = Topology::build(&Shape::hosts(1))?;
    let scene = Scene::build(&topology, &["--log-denied=on", "--log-denied-rate=5"])?;
    let (before, begin) = (scene.told()?, Instant::now());
    let to = SocketAddr::new(scene.server.v4.into(), OTHER);
    let mut after = before;
    // What the kernel's queues could not take does not count.
    wait::until("the flood has been met by rules", wait::SOON, || {
        scene.overlay.pod(0).ns.enter(move || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            (0..200).try_for_each(|_| socket.send_to(b"flood", to).map(drop))?;
            Ok(())
        })?;
        after = scene.told()?;
        Ok(after.met - before.met >= 2 * FLOOD)
    })?;
    // Each packet met Log and Deny, and each of these was either told or counted as lost.
    wait::until("everything is told or lost", wait::SOON, || {
        after = scene.told()?;
        Ok(after.kept + after.lost - before.kept - before.lost == after.met - before.met)
    })?;
    let seconds = begin.elapsed().as_secs() + 1;
    let kept = after.kept - before.kept;
    ensure!(kept >= 1 && kept <= 2 * (20 + 10 * seconds), "{kept} records in {seconds} s");
    ensure!(after.lost - before.lost >= FLOOD, "{after:?}");
    // Time enough for a line that tells how many were left out.
    wait::until("a line that says so", wait::SOON, || {
        scene.connects(OTHER)?;
        let log = scene.overlay.canal(0).log_text();
        let denied = log.lines().filter(|line| line.contains("policy denied"));
        Ok(denied.filter_map(|line| line.split("suppressed=").nth(1)).any(|rest| !rest.starts_with('0')))
    })?;
    let log = scene.overlay.canal(0).log_text();
    let lines = log.lines().filter(|line| line.contains("policy denied")).count() as u64;
    let allowed = 5 + 5 * (begin.elapsed().as_secs() + wait::SOON.as_secs());
    ensure!(lines <= allowed, "{lines} lines, {allowed} may be");
    topology.pass()
}

#[test]
fn flows_say_who_they_are_of_and_what_policy_says() -> Result<()> {
    let topology = Topology::build(&Shape::hosts(1))?;
    let scene = Scene::build(&topology, &[])?;
    ensure!(scene.connects(HTTP)?);
    let canal = scene.overlay.canal(0);
    let (client, server) = (scene.overlay.pod(0), &scene.server);
    let about = |words: &[&str]| -> Result<Vec<Value>> {
        let flows = canal.flows(words)?;
        let flows = flows.as_array().context("no list")?;
        Ok(flows.iter().filter(|flow| flow["destination_port"] == HTTP).cloned().collect())
    };
    let flows = about(&["--endpoint", &server.interface, "--proto", "tcp"])?;
    let flow = flows.first().context("no flow of the server")?;
    let name = |pod: &Pod| json!(format!("{NAMESPACE}/{}", pod.endpoint_name()));
    ensure!(flow["source_name"] == name(client) && flow["destination_name"] == name(server), "{flow:#}");
    let ingress = &flow["ingress"];
    ensure!(ingress["allowed"] == true && ingress["by"]["rule"] == 1, "{flow:#}");
    ensure!(ingress["by"]["name"] == json!(format!("{NAMESPACE}/default.server")), "{flow:#}");
    ensure!(flow["egress"]["by"]["name"] == json!(format!("kns.{NAMESPACE}")), "{flow:#}");
    ensure!(flow["bytes"][0].as_u64() > Some(0) && flow["frames"][1].as_u64() > Some(0), "{flow:#}");
    ensure!(about(&["--endpoint", &server.interface, "--proto", "udp"])?.is_empty(), "no UDP");
    ensure!(about(&["--endpoint", "10.99.99.99"])?.is_empty(), "nobody's");
    ensure!(canal.flows(&["--limit", "1"])?.as_array().map(Vec::len) == Some(1), "one at most");
    // A policy that is gone from under an answered connection shows there.
    let deny = json!({"selector": "role == 'server'", "types": ["Ingress"], "ingress": []});
    Resource::namespaced(Kind::NetworkPolicy, "default.server", deny).put(&scene.overlay.store)?;
    wait::until("flows show the new policy", wait::SOON, || {
        let flows = about(&["--endpoint", &server.interface])?;
        Ok(flows
            .iter()
            .any(|flow| flow["ingress"]["allowed"] == false && flow["ingress"]["by"]["rule"].is_null()))
    })?;
    ensure!(!scene.connects(HTTP)?);
    wait::until("the tier's end has counted it", wait::SOON, || {
        let policies = canal.show("policies")?;
        let sets = policies.as_array().context("no list")?;
        let mut ends = sets.iter().filter(|set| set["kind"] == "TierEnd" && set["direction"] == "ingress");
        Ok(ends.any(|set| set["name"] == "default" && set["rules"][0]["packets"].as_u64() > Some(0)))
    })?;
    topology.pass()
}
