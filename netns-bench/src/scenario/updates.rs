//! What a thousand changes a second in the datastore do to packets: round trips between two pods, before and meanwhile. The
//! server that takes the writes shares the machine; with a kernel peer its part is seen alone.

use crate::bulk;
use crate::cluster::{Cluster, update};
use crate::machine;
use crate::pair::add_trips;
use crate::report::Samples;
use crate::site::Plan;
use anyhow::{Context, Result, anyhow, ensure};
use netns_tests::traffic::{rtt, udp::Echo};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Changes a second.
const RATE: u64 = 1_000;
/// Name of the daemon's thread that follows the datastore.
const CONTROL: &str = "canal-control";
/// Writes under way at most.
const WINDOW: usize = 64;
/// Probes of a measurement.
const PROBES: usize = 10_000;
/// Pause between them.
const GAP: Duration = Duration::from_micros(200);

/// Measures idle round trips, then round trips during the changes.
pub fn measure(cluster: &mut Cluster<'_>, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let server = i32::try_from(cluster.etcd.pid().context("no server")?)?;
    // It would be on another machine.
    machine::idle_process(server)?;
    let measured = under_changes(cluster, plan, samples);
    machine::ordinary_process(server)?;
    measured
}

fn under_changes(cluster: &Cluster<'_>, plan: &Plan, samples: &mut Samples) -> Result<()> {
    let echo = Echo::start(&cluster.pods[1].ns, cluster.pods[1].v4.into())?;
    let (to, count, name) = (echo.address, plan.scale(PROBES, 300), cluster.peer.to_string());
    let probe = || cluster.pods[0].ns.enter(move || rtt::probe(to, count, GAP));
    add_trips(&probe()?, &name, "updates-idle", samples)?;
    let control = || cluster.canal.as_ref().map(|canal| canal.thread_time(CONTROL)).transpose();
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| write(cluster, &stop, &written));
        // The writer's first writes are not the ordinary case.
        while written.load(Ordering::Relaxed) < 100 && !writer.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (begin, before, used) = (Instant::now(), written.load(Ordering::Relaxed), control()?);
        let trips = probe();
        let (seconds, used_after) = (begin.elapsed().as_secs_f64(), control()?);
        let rate = (written.load(Ordering::Relaxed) - before) as f64 / seconds;
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow!("the writer panicked"))??;
        ensure!(rate > 0.0, "nothing was written");
        samples.add(&name, "updates", "updates_per_s", rate);
        if let (Some(used), Some(after)) = (used, used_after) {
            samples.add(
                &name,
                "updates",
                "control_busy_percent",
                (after - used).as_secs_f64() / seconds * 100.0,
            );
        }
        add_trips(&trips?, &name, "updates", samples)
    })
}

fn write(cluster: &Cluster<'_>, stop: &AtomicBool, written: &AtomicUsize) -> Result<()> {
    let here = cluster.topology.hosts[0].node();
    bulk::with_client(cluster.topology, &cluster.etcd, |client| async move {
        machine::idle_thread()?;
        let mut clock = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut under_way = JoinSet::new();
        for n in 0_usize.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            clock.tick().await;
            while under_way.len() >= WINDOW {
                under_way.join_next().await.transpose()?.transpose()?;
                written.fetch_add(1, Ordering::Relaxed);
            }
            while let Some(done) = under_way.try_join_next() {
                done??;
                written.fetch_add(1, Ordering::Relaxed);
            }
            let (key, value) = update(n, cluster.endpoints, cluster.policies, &here);
            let mut client = client.clone();
            under_way.spawn(async move { client.put(key, value, None).await });
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(())
    })
}
