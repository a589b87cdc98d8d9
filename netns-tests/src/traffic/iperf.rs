//! iperf3, for rates: never for a test's verdict.

use crate::cmd::Background;
use crate::netns::Netns;
use anyhow::{Context, Result};
use serde_json::Value;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

/// Runs iperf3 for `seconds` from `client` to `address` in `server` and returns what arrived, in bits a second.
pub fn iperf3(client: &Netns, server: &Netns, address: IpAddr, seconds: u32, extra: &[&str]) -> Result<f64> {
    let address = address.to_string();
    let mut command = server.command("iperf3");
    command.args(["-s", "-1", "-B", &address]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut listening = Background::start("iperf3 server", &mut command)?;
    crate::wait::until("iperf3 listening", crate::wait::SOON, || {
        Ok(server.run(&["ss", "-Hltn", "sport = :5201"])?.contains(":5201"))
    })?;
    let seconds_text = seconds.to_string();
    let mut argv = vec!["iperf3", "-J", "-c", &address, "-t", &seconds_text, "--connect-timeout", "5000"];
    argv.extend(extra);
    let report: Value = serde_json::from_str(&client.run(&argv)?).context("iperf3's report")?;
    listening.wait(Duration::from_secs(5))?;
    let end = &report["end"];
    let rate = end["sum_received"]["bits_per_second"].as_f64().or(end["sum"]["bits_per_second"].as_f64());
    rate.with_context(|| format!("no rate in {end}"))
}
