//! The time from a start without a lease to the first answered packet of a pod, which asks every millisecond.

use crate::pair::{ECHO_PORT, Pair};
use crate::report::Samples;
use anyhow::{Context, Result, anyhow};
use netns_tests::frames::{Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::Flows;
use netns_tests::{Store, plan};
use std::net::SocketAddrV4;
use std::time::{Duration, SystemTime};

/// Pause between the pod's datagrams.
const GAP: Duration = Duration::from_millis(1);
/// How long it asks.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures from the start of the process, and from the moment its lease is written.
pub fn measure(pair: &mut Pair<'_>, samples: &mut Samples) -> Result<()> {
    let key = pair.overlay.lease(0)?.subnets.key();
    pair.overlay.canal_mut(0).terminate()?;
    pair.overlay.store.delete_lease(&key)?;
    let (pod, remote) = (pair.overlay.pod(0), pair.overlay.pod(1));
    let link = Link { from: mac(&pod.mac), to: mac(plan::GATEWAY_MAC) };
    let mut flows = Flows::new(link, pod.v4, SocketAddrV4::new(remote.v4, ECHO_PORT));
    let socket = PacketSocket::open(&pod.ns, "eth0")?;
    let asking = std::thread::spawn(move || -> Result<SystemTime> {
        flows.until_answered(&socket, GAP, LIMIT)?;
        Ok(SystemTime::now())
    });
    let begin = SystemTime::now();
    pair.overlay.canal_mut(0).restart()?;
    let answered = asking.join().map_err(|_| anyhow!("the pod panicked"))??;
    let written = std::fs::metadata(pair.data.join(format!("subnets/{key}.json")))
        .context("the daemon took another lease")?
        .modified()?;
    for (metric, from) in [("process_to_packet_ms", begin), ("lease_to_packet_ms", written)] {
        let took = answered.duration_since(from).context("answered before it was possible")?;
        samples.add(&pair.peer.to_string(), "start", metric, took.as_secs_f64() * 1e3);
    }
    Ok(())
}
