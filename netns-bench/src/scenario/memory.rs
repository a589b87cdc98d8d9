//! Memory of the daemon, in megabytes (10^6 bytes): when it has started, with thousands of nodes, with a million answered
//! flows as well. Of fresh daemons, so that no other scenario is counted.

use crate::pair::{ECHO_PORT, FLOWS, Pair};
use crate::report::Samples;
use crate::site::Plan;
use anyhow::{Context, Result, ensure};
use netns_tests::frames::{Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::traffic::{Flows, Ping};
use netns_tests::{Store, plan, wait};
use std::net::SocketAddrV4;
use std::time::Duration;

/// Nodes that do not exist beside those that do.
const VTEPS: usize = 5_000;

/// Measures, and leaves a fresh daemon behind.
pub fn measure(pair: &mut Pair<'_>, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let vteps = plan.scale(VTEPS, 50);
    restart(pair)?;
    let result = grow(pair, vteps, plan.scale(FLOWS, 10_000), samples);
    for (key, _) in leases(vteps) {
        // A lease that was never written needs no deleting.
        pair.overlay.store.delete_lease(&key).ok();
    }
    restart(pair)?;
    result
}

fn restart(pair: &mut Pair<'_>) -> Result<()> {
    pair.overlay.canal_mut(0).terminate()?;
    pair.overlay.canal_mut(0).restart()
}

fn leases(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|n| {
        let (a, b) = (n / 250, n % 250);
        let value = format!(
            r#"{{"PublicIP":"172.16.{a}.{b}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:01:{a:02x}:{b:02x}"}}}}"#
        );
        (format!("10.{}.{b}.0-24", 100 + a), value)
    })
}

fn grow(pair: &Pair<'_>, vteps: usize, count: usize, samples: &mut Samples) -> Result<()> {
    let (overlay, name) = (&pair.overlay, pair.peer.to_string());
    let (canal, pod, remote) = (overlay.canal(0), overlay.pod(0), overlay.pod(1));
    let mut note = |metric, bytes: u64| samples.add(&name, "memory", metric, bytes as f64 / 1e6);
    note("start_mb", canal.resident()?);
    for (key, value) in leases(vteps) {
        overlay.store.put_lease(&key, &value)?;
    }
    wait::until("every VTEP is known", Duration::from_secs(60), || {
        Ok(canal.show("vteps")?.as_array().context("a list")?.len() > vteps)
    })?;
    Ping::to(remote.v4).expect_all(&pod.ns)?;
    note("vteps_mb", canal.resident()?);
    let link = Link { from: mac(&pod.mac), to: mac(plan::GATEWAY_MAC) };
    let mut flows = Flows::new(link, pod.v4, SocketAddrV4::new(remote.v4, ECHO_PORT));
    let socket = PacketSocket::open(&pod.ns, "eth0")?;
    let outcome = flows.drive(&socket, count, |_| {})?;
    ensure!(outcome.answered == count, "{outcome:?}");
    // All at once, not one after the other: what has expired meanwhile would not count.
    wait::until("every flow is counted", Duration::from_secs(10), || {
        let workers = canal.show("workers")?;
        let held = workers.as_array().context("a list")?.iter().filter_map(|w| w["flows"].as_u64());
        Ok(held.sum::<u64>() >= count as u64)
    })?;
    note("flows_mb", canal.resident()?);
    Ok(())
}
