//! Twice as many packets as the daemon can carry: who still gets an answer, how soon, where the rest is counted, and what
//! happens afterwards.

use crate::bulk;
use crate::line::node::{HEALTH_PORT, METRICS};
use crate::line::{Line, Rate};
use crate::packets::Direction;
use crate::pair::add_trips;
use crate::report::Samples;
use crate::scenario::opening;
use crate::scenario::rate::{self, Traffic};
use crate::site::Plan;
use anyhow::{Context, Result, ensure};
use netns_tests::calico::{Kind, Resource};
use netns_tests::http;
use netns_tests::traffic::rtt;
use serde_json::json;
use std::time::{Duration, Instant};

/// What is offered, by what can be carried.
const FACTOR: f64 = 2.0;
/// What packets look like.
const TRAFFIC: Traffic = Traffic { direction: Direction::Encap, length: 64, mix: false, flows: 100 };
/// Questions of each kind, and changes in the datastore.
const QUESTIONS: usize = 100;
/// Round trips, the pause between them, and how long each may take: many are lost. In a smoke run the daemon may be slow.
const PROBES: usize = 500;
const GAP: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_millis(50);
const SMOKE_PATIENCE: Duration = Duration::from_millis(200);
/// Time for what is on its way to come out.
const DRAIN: Duration = Duration::from_millis(300);

/// Measures the arrangements that are asked for.
pub fn measure(line: &mut Line<'_>, plan: &Plan, samples: &mut Samples) -> Result<()> {
    for (arrangement, name) in line.arrangements(plan) {
        line.arrange(arrangement)?;
        opening::open(line, &TRAFFIC)?;
        let carried = rate::best(line, &TRAFFIC, plan)?;
        samples.add(&name, "overload", "carried_pps", carried.forwarded);
        let before = steady(line, &carried, plan)?;
        overload(line, &name, carried.forwarded * FACTOR, plan, samples)?;
        let after = steady(line, &carried, plan)?;
        samples.add(&name, "overload", "after_by_before", after.forwarded / before.forwarded.max(1.0));
    }
    Ok(())
}

/// The load under which most was carried, without time to get used to it.
fn steady(line: &Line<'_>, carried: &Rate, plan: &Plan) -> Result<Rate> {
    let window = Duration::from_millis(plan.scale(500, 200));
    line.measure_rate(&TRAFFIC.stream(Some(carried.offered)), Duration::ZERO, window)
}

fn overload(line: &mut Line<'_>, name: &str, load: f64, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let (counted, came_out) = (Counted::now(line)?, line.count(Direction::Encap)?);
    let begin = Instant::now();
    let generator = line.start(&TRAFFIC.stream(Some(load)))?;
    // Until the queues are full.
    std::thread::sleep(DRAIN);
    let asked = ask(line, name, plan, samples);
    let sent = generator.finish()?;
    let seconds = begin.elapsed().as_secs_f64();
    std::thread::sleep(DRAIN);
    asked?;
    let (counted_after, came_out_after) = (Counted::now(line)?, line.count(Direction::Encap)?);
    let carried = came_out_after.good - came_out.good;
    samples.add(name, "overload", "offered_pps", sent as f64 / seconds);
    let lost = counted_after.since(&counted);
    let known = lost.total() + carried as f64;
    let unknown = sent as f64 - known;
    for (metric, packets) in [
        ("carried_percent", carried as f64),
        ("lost_at_interfaces_percent", lost.interfaces),
        ("lost_at_device_percent", lost.device),
        ("lost_in_daemon_percent", lost.daemon),
        ("unaccounted_percent", unknown),
    ] {
        samples.add(name, "overload", metric, packets / sent as f64 * 100.0);
    }
    Ok(())
}

/// Asks everything that can be asked, while packets come.
fn ask(line: &mut Line<'_>, name: &str, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let count = plan.scale(QUESTIONS, 5);
    let host = &line.topology.hosts[0].ns;
    let (ready, metrics) = (format!("127.0.0.1:{HEALTH_PORT}/readyz"), format!("{METRICS}/metrics"));
    let answers = |url: &str| -> Result<()> {
        let (code, text) = http::get(host, url)?;
        ensure!(code == 200, "{url}: {code} {text}");
        Ok(())
    };
    let canal = line.node.daemon()?;
    let mut note = |metrics: [&'static str; 2], times| {
        let [middle, most] = metrics;
        samples.add_percentiles(name, "overload", times, &[(middle, 50.0), (most, 99.0)]);
    };
    note(["status_p50_ms", "status_p99_ms"], times(count, || canal.status().map(drop))?);
    note(["cli_p50_ms", "cli_p99_ms"], times(count, || canal.show_table("drops").map(drop))?);
    note(["readyz_p50_ms", "readyz_p99_ms"], times(count, || answers(&ready))?);
    note(["metrics_p50_ms", "metrics_p99_ms"], times(count, || answers(&metrics))?);
    note(["enforced_p50_ms", "enforced_p99_ms"], changes(line, count)?);
    let (to, count) = (line.remote.echo, plan.scale(PROBES, 50));
    let patience = plan.scale(PATIENCE, SMOKE_PATIENCE);
    let trips = line.station.ns.enter(move || rtt::probe_within(to, count, GAP, patience))?;
    add_trips(&trips, name, "overload", samples)
}

fn times(count: usize, mut question: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let once = |_| {
        let begin = Instant::now();
        question()?;
        Ok(begin.elapsed())
    };
    (0..count).map(once).collect()
}

/// An address joins the set of the pod's first policy: from the write until `canal wait` says that all workers know.
fn changes(line: &mut Line<'_>, count: usize) -> Result<Vec<Duration>> {
    let (topology, etcd) = (line.topology, &line.etcd);
    let canal = line.node.daemon()?;
    bulk::with_client(topology, etcd, |mut client| async move {
        let mut seen = Vec::with_capacity(count);
        for n in 0..count {
            let nets = json!({"nets": [format!("12.0.{}.{}/32", n / 250, n % 250)]});
            let set =
                Resource::global(Kind::GlobalNetworkSet, "overload", nets).labelled(json!({"set": "s0"}));
            let begin = Instant::now();
            let done = client.put(set.key(), set.value().to_string(), None).await?;
            let revision = done.header().context("no revision")?.revision();
            let (code, said) = canal.wait_revision(revision.unsigned_abs(), "20s")?;
            ensure!(code == Some(0), "canal wait: {said}");
            seen.push(begin.elapsed());
        }
        Ok(seen)
    })
}

/// Packets lost on the way, by who counts them.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// The kernel, at the interfaces of pod and underlay.
    interfaces: f64,
    /// The kernel, at the daemon's own device: its queue was full.
    device: f64,
    /// The daemon: dropped, or not to be sent, or not to be received.
    daemon: f64,
}

impl Counted {
    fn now(line: &mut Line<'_>) -> Result<Self> {
        let (host, station) = (&line.topology.hosts[0].ns, &line.station.ns);
        let lost = |interface: &str, direction| host.link_counter(interface, direction, "dropped");
        // A veth's two ends both count what does not get from one to the other. The sending one is asked: the receiving one
        // also counts what no AF_XDP socket had room for, and of that the daemon knows.
        let interfaces = station.link_counter("eth0", "tx", "dropped")? + lost("eth0", "tx")?;
        let device = lost("canal0", "tx")? + lost("canal0", "rx")?;
        let daemon = line.node.daemon()?.lost()?;
        Ok(Self { interfaces: interfaces as f64, device: device as f64, daemon: daemon as f64 })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            interfaces: self.interfaces - before.interfaces,
            device: self.device - before.device,
            daemon: self.daemon - before.daemon,
        }
    }

    fn total(&self) -> f64 {
        self.interfaces + self.device + self.daemon
    }
}
