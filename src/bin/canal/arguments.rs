//! The command line of `canal`.

use std::path::PathBuf;
use std::time::Duration;

use canal::observe::protocol::{MAX_FLOWS, Request};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::resources;
use crate::trace::Trace;

/// Looks into a running canal-fwd, and keeps Calico's resources.
#[derive(Debug, Parser)]
#[command(name = "canal", version, max_term_width = 100)]
pub struct Arguments {
    /// Socket of the daemon (CANAL_SOCKET)
    #[arg(long, env = "CANAL_SOCKET", default_value = "/run/canal/canal.sock", global = true)]
    pub socket: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// What the daemon knows and does
    Show(Show),
    /// Is the daemon well? Exit status 0: yes, 1: no (and why), 2: it does not answer
    Status {
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Connections that policy refuses, and those that Log rules note, as they come
    Monitor {
        /// How to print; json: one object a line
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Until every worker of this host enforces a revision of the datastore. Exit status 0: they do, 1: not in time, or
    /// something hinders it (and what), 2: the daemon does not answer
    Wait {
        /// The datastore's revision, as etcd gives it for a write
        #[arg(long = "rev", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        revision: u64,
        /// How long at most: a number with ms, s or m
        #[arg(long, default_value = "30s", value_parser = duration)]
        timeout: Duration,
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// What a packet would experience, stage by stage
    Trace(Box<Trace>),
    /// What a drop reason means; all of them without one
    Explain {
        /// As in `canal show drops` and the metrics
        reason: Option<String>,
    },
    /// Write resources: create them, or replace what is there
    Apply(resources::Apply),
    /// Show resources
    Get(resources::Get),
    /// Delete resources
    Delete(resources::Delete),
    /// Check files of resources without a datastore
    Validate(resources::Validate),
}

#[derive(Debug, Args)]
pub struct Show {
    /// What to show
    #[arg(value_enum)]
    pub topic: Topic,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Drops: also the reasons that never happened
    #[arg(long)]
    pub all: bool,
    /// Flows: at most so many; denied: the last so many
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=MAX_FLOWS as i64))]
    pub limit: u32,
    /// Flows: only those of this workload (endpoint name, namespace/pod, pod, interface), address or network
    #[arg(long, value_name = "WHO")]
    pub endpoint: Option<String>,
    /// Flows: only those of this protocol (tcp, udp, icmp, icmp6, sctp, a number)
    #[arg(long, value_name = "PROTOCOL")]
    pub proto: Option<String>,
    /// Workers: what happens from now on for so long, and not since the start; a number with ms, s or m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub over: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// Kernel ports of each worker, and why these
    Ports,
    /// Local workloads
    Endpoints,
    /// Policies that local workloads have, and what their rules have met
    Policies,
    /// Profiles likewise
    Profiles,
    /// Sets of addresses that rules name
    #[value(name = "ipsets")]
    IpSets,
    /// Where destinations are
    Routes,
    /// Interfaces with plain hosts behind them
    Gateways,
    /// Remote tunnel end points
    Vteps,
    /// Inner Ethernet address to outer address, as `bridge fdb` says it
    Fdb,
    /// Where Calico's own pools, blocks and nodes say that destinations are; nothing is forwarded by it
    CalicoRoutes,
    /// Ends of Calico's own VXLAN tunnels; none is used
    CalicoVteps,
    /// Flow table entries
    Flows,
    /// Connections that policy refused, and those that Log rules noted: the last ones
    Denied,
    /// Dropped packets by reason
    Drops,
    /// Packet threads
    Workers,
    /// Which tables are in force
    Generation,
    /// Felix's settings, who said so, and what comes of them
    Config,
    /// Everything above
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For eyes
    Table,
    /// For programs
    Json,
}

/// `250ms`, `30s`, `2m`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| "a number with ms, s or m is needed".to_owned())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => return Err(format!("{unit:?} is none of ms, s and m")),
    };
    milliseconds.map(Duration::from_millis).ok_or_else(|| "that is too long".to_owned())
}

impl Show {
    /// What has to be asked.
    pub fn requests(&self) -> Vec<Request> {
        let limit = self.limit as usize;
        let flows = Request::Flows { limit, endpoint: self.endpoint.clone(), protocol: self.proto.clone() };
        let denied = Request::Denied { limit, after: 0 };
        match self.topic {
            Topic::Ports => vec![Request::Ports],
            Topic::Endpoints => vec![Request::Endpoints],
            Topic::Policies => vec![Request::Policies],
            Topic::Profiles => vec![Request::Profiles],
            Topic::IpSets => vec![Request::IpSets],
            Topic::Routes => vec![Request::Routes],
            Topic::Gateways => vec![Request::Gateways],
            Topic::Vteps => vec![Request::Vteps],
            Topic::Fdb => vec![Request::Fdb],
            Topic::CalicoRoutes => vec![Request::CalicoRoutes],
            Topic::CalicoVteps => vec![Request::CalicoVteps],
            Topic::Flows => vec![flows],
            Topic::Denied => vec![denied],
            Topic::Drops => vec![Request::Drops],
            Topic::Workers => vec![Request::Workers],
            Topic::Generation => vec![Request::Generation],
            Topic::Config => vec![Request::Config],
            Topic::All => vec![
                Request::Generation,
                Request::Config,
                Request::Ports,
                Request::Workers,
                Request::Endpoints,
                Request::Policies,
                Request::Profiles,
                Request::IpSets,
                Request::Routes,
                Request::Gateways,
                Request::Vteps,
                Request::Fdb,
                Request::CalicoRoutes,
                Request::CalicoVteps,
                Request::Drops,
                denied,
                flows,
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_socket_may_be_given_anywhere() {
        for line in [
            "canal --socket /s show flows --limit 7 -o json",
            "canal show flows -o json --limit 7 --socket /s",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.socket, PathBuf::from("/s"));
            let Command::Show(show) = arguments.command else { panic!("{line}") };
            let flows = Request::Flows { limit: 7, endpoint: None, protocol: None };
            assert_eq!((show.output, show.requests()), (Format::Json, vec![flows]));
        }
        let line = "canal show flows --endpoint web --proto tcp";
        let Command::Show(show) = Arguments::try_parse_from(line.split(' ')).unwrap().command else {
            panic!()
        };
        let (endpoint, protocol) = (Some("web".into()), Some("tcp".into()));
        assert_eq!(show.requests(), [Request::Flows { limit: 1000, endpoint, protocol }]);
        assert!(Arguments::try_parse_from(["canal", "show", "flows", "--limit", "0"]).is_err());
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for wrong in ["", "s", "1h", "1.5s", "-1s", "18446744073709551615m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for line in ["canal wait", "canal wait --rev 0", "canal wait --rev x"] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn all_is_everything() {
        let topics = Topic::value_variants().iter().filter(|topic| **topic != Topic::All);
        let show = |topic| Show {
            topic,
            output: Format::Table,
            all: false,
            limit: 1000,
            endpoint: None,
            proto: None,
            over: None,
        };
        let all = show(Topic::All).requests();
        for topic in topics.clone() {
            assert!(all.contains(&show(*topic).requests()[0]), "{topic:?}");
        }
        assert_eq!(all.len(), topics.count());
    }
}
