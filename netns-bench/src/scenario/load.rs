//! A daemon starts and finds a large cluster in etcd: how long until it enforces all of it, and what it takes to remember.

use crate::cluster::Cluster;
use crate::report::Samples;
use anyhow::Result;
use netns_tests::wait;
use std::time::{Duration, Instant};

/// Starts the daemon anew.
pub fn measure(cluster: &mut Cluster<'_>, samples: &mut Samples) -> Result<()> {
    cluster.daemon()?.terminate()?;
    let begin = Instant::now();
    cluster.daemon()?.launch()?;
    // It answers no question before it runs.
    wait::until("the daemon answers", wait::SOON, || Ok(cluster.daemon()?.show("generation").is_ok()))?;
    cluster.wait_loaded()?;
    let took = begin.elapsed();
    cluster.daemon()?.wait_ready(Duration::from_secs(60))?;
    let resident = cluster.daemon()?.resident()?;
    let name = cluster.peer.to_string();
    let grown = resident.saturating_sub(cluster.empty) as f64;
    samples.add(&name, "load", "seconds", took.as_secs_f64());
    samples.add(&name, "load", "raw_mb", cluster.raw as f64 / 1e6);
    samples.add(&name, "load", "resident_mb", resident as f64 / 1e6);
    samples.add(
        &name,
        "load",
        "over_raw_b_per_endpoint",
        (grown - cluster.raw as f64) / cluster.endpoints as f64,
    );
    Ok(())
}
