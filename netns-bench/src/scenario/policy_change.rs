//! How long after a write into etcd the first packet meets the new verdict, in milliseconds.
//!
//! A policy is turned over again and again. When it turns to "allow", the first packet counts that arrives, with the time of
//! its arrival; when it turns to "deny", the first that does not, with the time of its sending (nobody sees it end).

use crate::bulk;
use crate::cluster::probe::Probe;
use crate::cluster::{Cluster, entry, verdict};
use crate::report::Samples;
use crate::site::Plan;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Changes of a measurement.
const CHANGES: usize = 1_000;
/// Packets in a row that do not arrive: losses that are not the policy's are never that many.
const SILENCE: usize = 30;
/// How long a change may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Pause between a change that was seen and the next.
const PAUSE: Duration = Duration::from_millis(3);

/// Measures from the start of the write, its return, and how long the write itself took.
pub fn measure(cluster: &mut Cluster<'_>, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let changes = plan.scale(CHANGES, 20);
    let probe = Probe::start(&cluster.pods[0], &cluster.pods[1])?;
    let (topology, etcd) = (cluster.topology, &cluster.etcd);
    let seen = bulk::with_client(topology, etcd, |mut client| {
        let probe = &probe;
        async move {
            // Whatever was in force before: the first change is one.
            let (key, value) = entry(&verdict(true));
            client.put(key.as_str(), value, None).await?;
            probe.first_arrival(probe.next(), LIMIT)?;
            let mut seen = Vec::with_capacity(changes);
            for n in 0..changes {
                let allow = n % 2 == 1;
                let value = entry(&verdict(allow)).1;
                std::thread::sleep(PAUSE);
                let (next, start) = (probe.next(), probe.now());
                client.put(key.as_str(), value, None).await?;
                let returned = probe.now();
                let enforced = if allow {
                    probe.first_arrival(next, LIMIT)?
                } else {
                    probe.first_loss(SILENCE, LIMIT)?
                };
                seen.push(Seen { put: returned - start, enforced: enforced.saturating_sub(start) });
            }
            Ok(seen)
        }
    })?;
    // The next scenario's packets are to pass.
    let (key, value) = entry(&verdict(true));
    etcd.put(&key, &value)?;
    probe.first_arrival(probe.next(), LIMIT)?;
    probe.finish()?;
    ensure!(seen.len() == changes, "{} changes seen", seen.len());
    let name = cluster.peer.to_string();
    let times = |part: fn(&Seen) -> Duration| seen.iter().map(part).collect();
    samples.add_percentiles(&name, "policy-change", times(|s| s.put), &[("put_p50_ms", 50.0)]);
    let metrics = [("enforced_p50_ms", 50.0), ("enforced_p99_ms", 99.0), ("enforced_max_ms", 100.0)];
    samples.add_percentiles(&name, "policy-change", times(|s| s.enforced), &metrics);
    Ok(())
}

/// One change; both times since the start of the write.
struct Seen {
    put: Duration,
    enforced: Duration,
}
