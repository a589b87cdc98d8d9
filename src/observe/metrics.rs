//! Prometheus' text format. Every name here is described in `docs/metrics.md`; a test compares the two.

use std::future::Future;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use canal_control::status::{ApplyStatus, ClusterStatus};

use super::exposition::{Exposition, nanoseconds, ratio, seconds};
use super::felix_metrics;
use super::flow_shares::FlowShares;
use super::protocol::{CensusView, DropView, GenerationView, PortView, StatusView, WorkerView};

/// Everything that is exported, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Packet threads.
    pub workers: Vec<WorkerView>,
    /// Port queues.
    pub ports: Vec<PortView>,
    /// Name of the TAP device, and frames that the kernel has lost there; `None`: it does not say.
    pub device: Option<(String, u64)>,
    /// Every reason.
    pub drops: Vec<DropView>,
    /// Flows of all workers together, by protocol and state.
    pub census: Vec<CensusView>,
    /// Flows that local workloads have opened.
    pub flow_shares: FlowShares,
    /// How many of them one workload may have at one worker.
    pub flow_quota: usize,
    /// Log lines left out: about `Log` rules, and about refused connections.
    pub suppressed: [u64; 2],
    /// What there is of Calico's resources.
    pub cluster: ClusterStatus,
    /// What publishing has taken.
    pub applied: ApplyStatus,
    /// Tables in force.
    pub generation: GenerationView,
    /// The daemon's state.
    pub status: StatusView,
    /// Local workloads.
    pub endpoints: usize,
    /// Routes to other nodes and of own subnets.
    pub routes: usize,
    /// Remote tunnel end points.
    pub vteps: usize,
    /// Gateway interfaces that exist.
    pub gateways: usize,
    /// Flow entries of all workers together.
    pub flow_capacity: usize,
}

/// `/metrics`; `facts` is asked at every scrape.
pub fn router<F, Fut>(facts: F) -> Router
where
    F: Fn() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Facts> + Send,
{
    let answer = async move || ([(CONTENT_TYPE, "text/plain; version=0.0.4")], render(&facts().await));
    Router::new().route("/metrics", get(answer))
}

/// What one worker counts: name, help, value.
type Column<T> = (&'static str, &'static str, fn(&T) -> u64);

const WORKER_COUNTERS: &[Column<WorkerView>] = &[
    ("received_frames", "Frames taken from ports (a super-frame counts once).", |w| w.received),
    ("received_bytes", "Bytes of frames taken from ports.", |w| w.received_bytes),
    ("forwarded_frames", "Frames given to ports.", |w| w.forwarded),
    ("forwarded_bytes", "Bytes of frames given to ports.", |w| w.forwarded_bytes),
    ("encapsulated_frames", "Frames encapsulated.", |w| w.encapsulated),
    ("decapsulated_frames", "Frames decapsulated.", |w| w.decapsulated),
    ("to_host_frames", "Frames delivered to the host's IP stack.", |w| w.to_host),
    ("replies", "ARP and ND answers and ICMP errors sent.", |w| w.replies),
    ("handed_over_frames", "Frames handed to another worker.", |w| w.handed_over),
    ("taken_over_frames", "Frames taken over from other workers.", |w| w.taken_over),
    ("batches", "Batches of received or taken-over frames.", |w| w.batches),
    ("sleeps", "How often a worker slept.", |w| w.sleeps),
    ("timed_turns", "Turns whose parts have been timed.", |w| w.timed_turns),
    ("timed_frames", "Frames that these turns handled.", |w| w.timed_frames),
    ("flow_hits", "Flow look-ups that found an entry.", |w| w.flow_hits),
    ("flows_created", "Flows created.", |w| w.flows_created),
    ("flows_expired", "Flows ended by time-out.", |w| w.flows_expired),
    ("flows_evicted", "Flows evicted for want of room.", |w| w.flows_evicted),
    ("flows_cut", "Flows ended because an end of theirs went away or may no longer take part.", |w| {
        w.flows_cut
    }),
    ("vxlan_reserved_bits", "VXLAN packets that carried reserved flag bits.", |w| w.vxlan_reserved_bits),
    ("icmp_limited", "ICMP errors not sent because of the rate limit.", |w| w.icmp_limited),
];

const PORT_COUNTERS: &[Column<PortView>] = &[
    ("received_frames", "Frames received by a port.", |p| p.rx_frames),
    ("received_bytes", "Bytes received by a port.", |p| p.rx_bytes),
    ("received_dropped", "Frames a port received and could not deliver.", |p| p.rx_dropped),
    ("sent_frames", "Frames sent by a port.", |p| p.tx_frames),
    ("sent_bytes", "Bytes sent by a port.", |p| p.tx_bytes),
    ("sent_full", "Frames dropped because the kernel's queue was full.", |p| p.tx_full),
    ("sent_errors", "Frames the kernel refused.", |p| p.tx_errors),
];

/// The text of one scrape.
pub fn render(facts: &Facts) -> String {
    let mut text = Exposition::default();
    for (name, help, value) in WORKER_COUNTERS {
        text.head(&format!("canal_worker_{name}_total"), "counter", help);
        for worker in &facts.workers {
            text.sample(&[("worker", &worker.worker.to_string())], value(worker));
        }
    }
    times(&mut text, &facts.workers);
    text.head("canal_worker_flows", "gauge", "Flows held now.");
    for worker in &facts.workers {
        text.sample(&[("worker", &worker.worker.to_string())], worker.flows);
    }
    text.head("canal_worker_generation", "gauge", "Table generation a worker uses.");
    for worker in &facts.workers {
        text.sample(&[("worker", &worker.worker.to_string())], worker.seen_generation);
    }
    text.head("canal_dropped_frames_total", "counter", "Frames dropped, by worker and reason.");
    for drop in &facts.drops {
        for (worker, frames) in drop.workers.iter().enumerate() {
            text.sample(&[("worker", &worker.to_string()), ("reason", &drop.reason)], *frames);
        }
    }
    for (name, help, value) in PORT_COUNTERS {
        text.head(&format!("canal_port_{name}_total"), "counter", help);
        for port in &facts.ports {
            let worker = port.worker.to_string();
            text.sample(&[("worker", &worker), ("port", &port.name), ("kind", &port.kind)], value(port));
        }
    }
    let help = "Frames the kernel dropped at the TAP device because no worker took them in time.";
    text.head("canal_device_lost_frames_total", "counter", help);
    if let Some((device, lost)) = &facts.device {
        text.sample(&[("device", device)], *lost);
    }
    policy(&mut text, facts);
    shares(&mut text, facts);
    state(&mut text, facts);
    felix_metrics::write(&mut text, facts);
    text.into_text()
}

fn times(text: &mut Exposition, workers: &[WorkerView]) {
    text.head(
        "canal_worker_time_seconds_total",
        "counter",
        "How a worker's time divides into waiting and work.",
    );
    for worker in workers {
        let index = worker.worker.to_string();
        for (state, ns) in [("busy", worker.busy_ns), ("idle", worker.idle_ns)] {
            text.sample(&[("worker", &index), ("state", state)], nanoseconds(ns));
        }
    }
    text.head("canal_worker_timed_seconds_total", "counter", "What the parts of timed turns have taken.");
    for worker in workers {
        let index = worker.worker.to_string();
        for part in &worker.parts {
            text.sample(&[("worker", &index), ("part", &part.part)], nanoseconds(part.timed_ns));
        }
    }
}

fn policy(text: &mut Exposition, facts: &Facts) {
    let help = "Answers of policy about packets that open connections, by worker, direction and answer.";
    text.head("canal_policy_verdicts_total", "counter", help);
    for worker in &facts.workers {
        let index = worker.worker.to_string();
        for answers in &worker.verdicts {
            for (verdict, count) in [("allowed", answers.allowed), ("denied", answers.denied)] {
                let direction = answers.direction.as_str();
                let labels = [("worker", index.as_str()), ("direction", direction), ("verdict", verdict)];
                text.sample(&labels, count);
            }
        }
    }
    let help = "What policy had to tell and was not kept because there was too much of it.";
    text.head("canal_policy_records_lost_total", "counter", help);
    for worker in &facts.workers {
        text.sample(&[("worker", &worker.worker.to_string())], worker.records_lost);
    }
    let help = "Log lines about policy that were left out because there were too many.";
    text.head("canal_policy_lines_suppressed_total", "counter", help);
    for (event, count) in ["logged", "denied"].into_iter().zip(facts.suppressed) {
        text.sample(&[("event", event)], count);
    }
    let policy = facts.status.policy.clone().unwrap_or_default();
    text.gauge("canal_policy_enforced", "1 when policy is enforced, else 0.", policy.enforced.into());
    text.gauge("canal_policies", "Policies that a local endpoint has.", policy.policies as u64);
    text.gauge("canal_profiles", "Profiles that a local endpoint has.", policy.profiles as u64);
    text.gauge("canal_ip_sets", "Sets of addresses that rules of these name.", policy.sets as u64);
    text.head("canal_flows", "gauge", "Flows held now, by protocol and state.");
    for CensusView { protocol, state, flows } in &facts.census {
        text.sample(&[("protocol", protocol), ("state", state)], flows);
    }
}

/// What each workload has of the flow tables; `flow_shares` says how many of them are listed at most.
fn shares(text: &mut Exposition, facts: &Facts) {
    let (listed, quota) = (&facts.flow_shares.listed, facts.flow_quota as u64);
    text.head("canal_endpoint_flows", "gauge", "Flows that a local workload has opened, held now.");
    for share in listed {
        text.sample(&[("endpoint", &share.endpoint)], share.flows);
    }
    let help = "How much of its quota a local workload has taken up, at the worker where that is most.";
    text.head("canal_endpoint_flow_quota_ratio", "gauge", help);
    for share in listed {
        text.sample(&[("endpoint", &share.endpoint)], ratio(share.most, quota));
    }
    let help = "Flows of local workloads that are not listed one by one.";
    text.gauge("canal_endpoint_flows_unlisted", help, facts.flow_shares.unlisted);
    text.gauge("canal_flow_quota", "Flows that a local workload may have at one worker.", quota);
}

fn state(text: &mut Exposition, facts: &Facts) {
    let status = &facts.status;
    let mut gauge = |name: &str, help: &str, value: u64| text.gauge(name, help, value);
    gauge("canal_flow_capacity", "Flow table entries of all workers together.", facts.flow_capacity as u64);
    gauge("canal_endpoints", "Local workloads.", facts.endpoints as u64);
    gauge("canal_routes", "Routes to other nodes and of own subnets.", facts.routes as u64);
    gauge("canal_vteps", "Remote tunnel end points.", facts.vteps as u64);
    gauge("canal_gateways", "Gateway interfaces that exist.", facts.gateways as u64);
    gauge("canal_generation", "Table generation published last.", facts.generation.generation);
    gauge("canal_revision", "Datastore revision that is in force.", status.datastore.in_force);
    gauge(
        "canal_revision_complete",
        "Datastore revision up to which nothing is known to be missing.",
        status.datastore.complete,
    );
    gauge("canal_ready", "1 when the daemon is ready, else 0.", u64::from(status.ready));
    gauge(
        "canal_datastore_connected",
        "1 when the datastore can be reached, else 0.",
        u64::from(status.datastore.connected),
    );
    gauge(
        "canal_datastore_in_sync",
        "1 when a complete picture has been read since the start, else 0.",
        u64::from(status.datastore.in_sync),
    );
    gauge("canal_datastore_revision", "Datastore revision read last.", status.datastore.revision);
    gauge(
        "canal_late_workers",
        "Workers behind that generation.",
        status.datastore.late_workers.len() as u64,
    );
    gauge("canal_complaints", "Values in the datastore that cannot be used.", status.complaints_total as u64);
    gauge("canal_uptime_seconds", "Seconds since the daemon started.", status.uptime_s);
    gauge("canal_lease_held", "1 when this node has a lease, else 0.", u64::from(status.lease.is_some()));
    text.head(
        "canal_lease_expires_in_seconds",
        "gauge",
        "Seconds until the lease ends unless renewed; absent without a lease and for leases without end.",
    );
    if let Some(seconds) = status.lease.as_ref().and_then(|lease| lease.expires_in_s) {
        text.sample(&[], seconds);
    }
    text.head(
        "canal_revision_behind_seconds",
        "gauge",
        "How long something that has been read is not in force; 0 = everything is.",
    );
    text.sample(&[], seconds(status.datastore.behind_ms));
    text.head(
        "canal_datastore_silent_seconds",
        "gauge",
        "Since the datastore last said anything; absent before the first answer.",
    );
    if let Some(silent) = status.datastore.silent_ms {
        text.sample(&[], seconds(silent));
    }
    text.head("canal_build_info", "gauge", "Always 1; the version is in the label.");
    text.sample(&[("version", &status.version), ("port", &status.port)], 1);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use canal_dataplane::counters::Counters;
    use canal_dataplane::spec::policy::PolicyDirection;
    use canal_dataplane::verdict::DropReason;

    use super::*;
    use crate::observe::flow_shares::FlowShare;
    use crate::observe::http::{LIFETIME, tests};
    use crate::observe::protocol::{DatastoreView, LeaseView};
    use crate::observe::views;

    fn facts() -> Facts {
        let counters = [Counters::default(), Counters::default()];
        counters[0].received.add(5);
        counters[1].drop(DropReason::NoRoute);
        counters[1].records_lost.add(9);
        counters[0].busy_ns.set(2_000_000_001);
        counters[1].verdict(PolicyDirection::Egress, false);
        Facts {
            workers: (0..2).map(|i| views::worker(i, Some(i), &counters[i as usize])).collect(),
            ports: vec![PortView {
                name: "canal0".into(),
                kind: "tap".into(),
                tx_full: 4,
                ..PortView::default()
            }],
            device: Some(("canal0".into(), 77)),
            drops: views::drops(counters.iter()),
            census: views::census(counters.iter()),
            flow_shares: FlowShares {
                listed: vec![FlowShare { endpoint: "default/a".into(), flows: 12, most: 8 }],
                unlisted: 3,
            },
            flow_quota: 64,
            suppressed: [1, 2],
            cluster: ClusterStatus { tiers: 3, ..ClusterStatus::default() },
            applied: ApplyStatus { count: 2, total_us: 1500 },
            generation: GenerationView { generation: 3, revision: 11, complete: true, workers: vec![3, 3] },
            status: StatusView {
                ready: true,
                complaints_total: 300,
                version: "0.1\"x\\".into(),
                port: "tap".into(),
                datastore: DatastoreView {
                    connected: true,
                    silent_ms: Some(1_020),
                    in_force: 12,
                    behind_ms: 7,
                    late_workers: vec![1],
                    ..DatastoreView::default()
                },
                lease: Some(LeaseView { expires_in_s: Some(86_000), ..LeaseView::default() }),
                ..StatusView::default()
            },
            vteps: 2,
            gateways: 1,
            ..Facts::default()
        }
    }

    fn names(text: &str) -> BTreeSet<&str> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
    }

    #[test]
    fn every_drop_reason_is_always_there() {
        let text = render(&facts());
        for reason in DropReason::ALL {
            for worker in 0..2 {
                let count = u64::from(*reason == DropReason::NoRoute && worker == 1);
                let sample = format!(
                    "canal_dropped_frames_total{{worker=\"{worker}\",reason=\"{}\"}} {count}\n",
                    reason.label()
                );
                assert!(text.contains(&sample), "{sample}");
            }
        }
    }

    #[test]
    fn samples_follow_their_heads_and_are_well_formed() {
        let text = render(&facts());
        let (mut name, mut summary) = ("", false);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                name = rest.split(' ').nth(1).unwrap();
                summary = rest == format!("TYPE {name} summary");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let series = series.split('{').next().unwrap();
            let of_summary = ["_sum", "_count"].iter().find_map(|suffix| series.strip_suffix(suffix));
            assert_eq!(if summary { of_summary.unwrap() } else { series }, name, "{line}");
            value.parse::<f64>().unwrap();
        }
        for sample in [
            "canal_worker_received_frames_total{worker=\"0\"} 5\n",
            "canal_worker_time_seconds_total{worker=\"0\",state=\"busy\"} 2.000000001\n",
            "canal_worker_timed_seconds_total{worker=\"1\",part=\"encap\"} 0.000000000\n",
            "canal_port_sent_full_total{worker=\"0\",port=\"canal0\",kind=\"tap\"} 4\n",
            "canal_device_lost_frames_total{device=\"canal0\"} 77\n",
            "canal_lease_expires_in_seconds 86000\n",
            "canal_policy_verdicts_total{worker=\"1\",direction=\"egress\",verdict=\"denied\"} 1\n",
            "canal_policy_verdicts_total{worker=\"1\",direction=\"ingress\",verdict=\"denied\"} 0\n",
            "canal_policy_records_lost_total{worker=\"1\"} 9\n",
            "canal_policy_lines_suppressed_total{event=\"denied\"} 2\n",
            "canal_flows{protocol=\"tcp\",state=\"ESTABLISHED\"} 0\n",
            "canal_endpoint_flows{endpoint=\"default/a\"} 12\n",
            "canal_endpoint_flow_quota_ratio{endpoint=\"default/a\"} 0.1250\n",
            "canal_endpoint_flows_unlisted 3\n",
            "canal_flow_quota 64\n",
            "canal_complaints 300\n",
            "felix_cluster_num_tiers 3\n",
            "felix_int_dataplane_apply_time_seconds_sum 0.001500\n",
            "felix_int_dataplane_apply_time_seconds_count 2\n",
            "canal_generation 3\n",
            "canal_datastore_connected 1\n",
            "canal_datastore_silent_seconds 1.020\n",
            "canal_revision 12\n",
            "canal_revision_behind_seconds 0.007\n",
            "canal_late_workers 1\n",
            "canal_build_info{version=\"0.1\\\"x\\\\\",port=\"tap\"} 1\n",
        ] {
            assert!(text.contains(sample), "{sample}\n{text}");
        }
    }

    #[test]
    fn the_manual_names_every_metric_and_no_other() {
        let manual = include_str!("../../docs/metrics.md");
        let text = render(&facts());
        let described: BTreeSet<&str> = manual
            .split('`')
            .filter(|word| word.starts_with("canal_") || word.starts_with("felix_"))
            .filter(|word| !word.contains(['{', ' ']))
            .collect();
        assert_eq!(described, names(&text));
    }

    #[test]
    fn nothing_known_yet_is_a_valid_scrape_with_the_same_names() {
        assert_eq!(names(&render(&Facts::default())), names(&render(&facts())));
        assert!(!render(&Facts::default()).contains("canal_lease_expires_in_seconds 0"));
    }

    #[tokio::test]
    async fn metrics_are_served_in_prometheus_format() {
        let address = tests::start(router(async || facts()), LIFETIME).await;
        assert_eq!(tests::fetch(address, "/metrics").await, (200, render(&facts())));
    }
}
