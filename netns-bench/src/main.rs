//! canal beside what else forwards packets, measured in network namespaces of this machine.
//!
//! Peers ([`peer`]) are set up once, each in a place of its own ([`pair`],
//! [`line`], [`cluster`]); then every run measures each of them in turn
//! ([`scenario`]), so that a slow minute of the machine meets all of them. What comes out are medians ([`report`]).

mod bound;
mod bulk;
mod cluster;
mod conntrack;
mod interrupt;
mod line;
mod machine;
mod open_vswitch;
mod packets;
mod pair;
mod peer;
mod plot;
mod report;
mod rules;
mod run;
mod scenario;
mod site;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use line::Arrangement;
use peer::Peer;
use scenario::Scenario;
use std::path::PathBuf;
use std::time::Duration;

/// Measures forwarders in network namespaces, in turn, and prints medians. Progress goes to standard error.
#[derive(Parser)]
#[command(name = "canal-bench")]
struct Arguments {
    /// What to measure: tcp-1, tcp-8, rtt, memory, start (these five if none is named), idle, rtt-load; rtt-node, rtt-node-load,
    /// newflows, encap-64, decap-64, encap-imix, decap-imix, encap-1400, flows-1000, flows-100000, restart, overload;
    /// policy-change, load, updates.
    scenarios: Vec<Scenario>,
    /// Whom: kernel-vxlan, kernel-iptables-N, kernel-nftables-N, canal-PORT, canal-PORT-N, canal-gateway, canal-gateway-N, ovs-none, ovs-ct-N (where Open
    /// vSwitch is installed), af-xdp-bound; N is a number of policies.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// How often each peer is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Length of a measured interval of the scenarios that have one.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Workers of each canal daemon, where the scenario does not settle it (default: as the daemon chooses).
    #[arg(long)]
    workers: Option<usize>,
    /// Where the kernel's part of receiving runs for a forwarder in a process: on its core, or on the sender's.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["1core", "split"])]
    arrangement: Vec<Arrangement>,
    /// One short run with little data: shows that everything works and measures nothing.
    #[arg(long)]
    smoke: bool,
    /// Draw the medians as SVG pictures into this directory.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// A table, or one JSON object a line.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (mode, order) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match mode.as_str() {
        packets::generator::MODE => return packets::generator::main(&order),
        bound::MODE => return bound::main(&order),
        _ => {}
    }
    let arguments = Arguments::parse();
    ensure!(nix::unistd::geteuid().is_root(), "this needs root");
    machine::raise_session();
    interrupt::watch()?;
    let plan = site::Plan {
        seconds: Duration::from_secs(if arguments.smoke { 1 } else { arguments.seconds }),
        workers: arguments.workers,
        arrangements: arguments.arrangement,
        smoke: arguments.smoke,
    };
    // A disk's latency is nobody's here, and etcd waits for each write to be safe.
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::env::override_temp_dir(memory).ok();
    }
    let mut scenarios = arguments.scenarios;
    if scenarios.is_empty() {
        scenarios = scenario::ALL[..5].to_vec();
    }
    let runs = if arguments.smoke { 1 } else { arguments.runs as usize };
    let (samples, failed) = run::all(&scenarios, &arguments.peers, runs, &plan);
    match arguments.output {
        Output::Table => println!("{}", samples.table()),
        Output::Json => print!("{}", samples.json()),
    }
    if let Some(dir) = &arguments.plots {
        plot::write_all(dir, &samples.summaries())?;
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// The words of a text, without what surrounds them.
    fn words(text: &str) -> Vec<&str> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).collect()
    }

    /// `scripts/bench.sh --help` shows the script's first lines, because the bench may not be built yet.
    #[test]
    fn the_script_s_head_names_every_option() {
        let script = include_str!("../../scripts/bench.sh");
        let (head, _) = script.split_once("\nset ").expect("a head");
        let named = words(head);
        for argument in Arguments::command().get_arguments().filter(|argument| !argument.is_positional()) {
            let option = match (argument.get_short(), argument.get_long()) {
                (Some(short), _) => format!("-{short}"),
                (None, long) => format!("--{}", long.expect("a name")),
            };
            assert!(named.contains(&option.as_str()), "{option} is not in the head of scripts/bench.sh");
        }
    }

    /// That head leads there.
    #[test]
    fn every_scenario_is_described() {
        let (_, measuring) =
            include_str!("../../docs/testing.md").split_once("## Measuring").expect("a section");
        let described = words(measuring);
        for name in scenario::ALL.map(|scenario| scenario.to_string()) {
            assert!(described.contains(&name.as_str()), "{name} is not in docs/testing.md");
        }
    }
}
