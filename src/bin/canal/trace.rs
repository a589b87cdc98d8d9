//! `canal trace`: from the command line to a question, and from the report to lines.

mod render;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use canal::observe::client::{Client, ClientError};
use canal::observe::protocol::{Reply, Request};
use canal::trace::TraceError;
use canal::trace::offline::{Offline, OfflineError, Options};
use canal::trace::question::{Connection, From, Protocol, Question, TcpFlags};
use canal::trace::report::Report;
use canal_control::model::flannel::Prefix;
use clap::{ArgGroup, Args};

use crate::arguments::Format;

pub use render::text;

/// What a packet would experience, stage by stage: nothing is sent, and nothing of the daemon is touched. Exit status
/// 0: it gets through, 1: it does not, 2: no answer
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("sender").args(["from", "host", "vxlan_from", "direct", "from_gateway"]).multiple(true).required(true))]
pub struct Trace {
    /// Who sends it: a workload of this node (endpoint name, namespace/pod, pod, address or interface); with --host,
    /// --vxlan-from, --direct and --from-gateway the source address
    #[arg(long, value_name = "WHO")]
    pub from: Option<String>,
    /// This host's own IP stack sends it
    #[arg(long, conflicts_with_all = ["vxlan_from", "direct", "from_gateway"])]
    pub host: bool,
    /// It arrives in the tunnel from the node with this address; --from is its inner source
    #[arg(long, value_name = "NODE", requires = "from", conflicts_with_all = ["direct", "from_gateway"])]
    pub vxlan_from: Option<IpAddr>,
    /// With --vxlan-from: another network identifier than ours
    #[arg(long, value_name = "N", requires = "vxlan_from")]
    pub vni: Option<u32>,
    /// It arrives on the underlay without a tunnel, from a peer with direct routing
    #[arg(long, requires = "from", conflicts_with = "from_gateway")]
    pub direct: bool,
    /// It arrives from a host behind this gateway interface
    #[arg(long, value_name = "INTERFACE", requires = "from")]
    pub from_gateway: Option<String>,
    /// Another source address than that of the workload that sends it
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["host", "vxlan_from", "direct", "from_gateway"])]
    pub source: Option<IpAddr>,
    /// Where to: WHERE:PORT/tcp, /udp or /sctp, WHERE/icmp[:TYPE[:CODE]], WHERE/NUMBER for other protocols. WHERE is an
    /// address ([address] of IPv6 before a port) or a workload of this node
    #[arg(long, value_name = "WHERE", value_parser = target)]
    pub to: Target,
    /// Source port; ICMP echo: identifier [default: 40000]
    #[arg(long, value_name = "PORT")]
    pub from_port: Option<u16>,
    /// TCP flags, e.g. syn,ack [default: syn, or ack as part of a connection]
    #[arg(long, value_name = "FLAGS")]
    pub tcp_flags: Option<TcpFlags>,
    /// Bytes of the IP packet [default: just its headers]
    #[arg(long, value_name = "BYTES")]
    pub size: Option<u16>,
    /// IPv4: don't fragment
    #[arg(long)]
    pub df: bool,
    /// TTL or hop limit [default: 64]
    #[arg(long)]
    pub ttl: Option<u8>,
    /// Part of a connection that its sender has opened and its receiver has answered, before policy became what it is
    #[arg(long, conflicts_with = "answering")]
    pub established: bool,
    /// Part of the answer in a connection that its receiver has opened
    #[arg(long)]
    pub answering: bool,
    /// Without a daemon: by the documents in this directory (of the dir datastore, or just resources), or in this dump
    /// of etcd (etcdctl get --prefix "" -w json). What only a host could tell is assumed, and said
    #[arg(long, value_name = "PATH")]
    pub resources: Option<PathBuf>,
    /// With --resources: the node in whose place the packet is looked at
    #[arg(long, requires = "resources")]
    pub node: Option<String>,
    /// With --resources: that node's public address [default: that of its lease]
    #[arg(long, value_name = "ADDRESS", requires = "resources")]
    pub public_ip: Option<Ipv4Addr>,
    /// With --resources: MTU of its underlay
    #[arg(long, value_name = "BYTES", default_value_t = 1500, requires = "resources")]
    pub underlay_mtu: u32,
    /// With --resources: prefix of the network's keys
    #[arg(long, value_name = "PREFIX", default_value = "/coreos.com/network", requires = "resources")]
    pub etcd_prefix: String,
    /// Also the rules that did not match, however many
    #[arg(short, long)]
    pub verbose: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `--to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    place: String,
    protocol: Protocol,
}

/// Why a command line makes no question.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UsageError {
    /// `--from` is the source address here.
    #[error(
        "--from {0:?} is no address, which it has to be with --host, --vxlan-from, --direct and --from-gateway"
    )]
    NoAddress(String),
    /// `--tcp-flags` with another protocol.
    #[error("--tcp-flags are of no use without tcp in --to")]
    NotTcp,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The documents.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The question.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl Trace {
    /// Text and exit status.
    pub fn run(&self, socket: &Path) -> Result<(String, u8), Failure> {
        let report = self.report(socket)?;
        let code = if report.verdict.outcome.gets_through() { 0 } else { crate::DEGRADED };
        let text = match self.output {
            Format::Table => text(&report, self.verbose),
            Format::Json => crate::render::json(&[Reply::Trace(Box::new(report))]),
        };
        Ok((text, code))
    }

    fn report(&self, socket: &Path) -> Result<Report, Failure> {
        let question = self.question()?;
        if let Some(path) = &self.resources {
            let options = Options {
                node: self.node.clone(),
                public_ip: self.public_ip,
                underlay_mtu: self.underlay_mtu,
                prefix: Prefix::new(&self.etcd_prefix),
            };
            return Ok(Offline::read(path, &options)?.trace(&question)?);
        }
        match Client::connect(socket)?.ask(&Request::Trace(Box::new(question)))? {
            Reply::Trace(report) => Ok(*report),
            _ => Err(ClientError::Refused("answered something else than was asked".into()).into()),
        }
    }

    /// What is asked.
    pub fn question(&self) -> Result<Question, UsageError> {
        let mut protocol = self.to.protocol.clone();
        match &mut protocol {
            Protocol::Tcp { flags, .. } => *flags = self.tcp_flags,
            _ if self.tcp_flags.is_some() => return Err(UsageError::NotTcp),
            _ => {}
        }
        let address = || {
            let parse = |text: &String| text.parse().map_err(|_| UsageError::NoAddress(text.clone()));
            self.from.as_ref().map(parse).transpose()
        };
        let (from, source) = match (&self.from, self.vxlan_from) {
            (_, Some(node)) => (From::Vxlan { node, vni: self.vni }, address()?),
            _ if self.host => (From::Host, address()?),
            _ if self.direct => (From::Direct, address()?),
            _ if self.from_gateway.is_some() => {
                (From::Gateway(self.from_gateway.clone().unwrap_or_default()), address()?)
            }
            (from, None) => (From::Workload(from.clone().unwrap_or_default()), self.source),
        };
        Ok(Question {
            from,
            source,
            to: self.to.place.clone(),
            protocol,
            source_port: self.from_port,
            size: self.size,
            dont_fragment: self.df,
            ttl: self.ttl,
            connection: match (self.established, self.answering) {
                (true, _) => Connection::Established,
                (_, true) => Connection::Answering,
                _ => Connection::New,
            },
        })
    }
}

/// Reads `--to`.
fn target(text: &str) -> Result<Target, String> {
    const SHAPE: &str = "WHERE:PORT/tcp, WHERE/icmp or WHERE/NUMBER is needed";
    // Names of workloads have slashes, too.
    let (place, protocol) = text.rsplit_once('/').ok_or(SHAPE)?;
    let mut parts = protocol.split(':');
    let name = parts.next().unwrap_or_default().to_lowercase();
    let mut detail = |what: &str| {
        let parse = |text: &str| text.parse::<u8>().map_err(|_| format!("{text:?} is no ICMP {what}"));
        parts.next().map(parse).transpose()
    };
    let (place, protocol) = match name.as_str() {
        "tcp" | "udp" | "sctp" => {
            let (place, port) =
                place.rsplit_once(':').ok_or_else(|| format!("{name} needs a port: {SHAPE}"))?;
            let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
            let protocol = match name.as_str() {
                "tcp" => Protocol::Tcp { port, flags: None },
                "udp" => Protocol::Udp { port },
                _ => Protocol::Sctp { port },
            };
            (place, protocol)
        }
        // Which of the two it is follows from the addresses.
        "icmp" | "icmpv6" | "icmp6" => {
            (place, Protocol::Icmp { kind: detail("type")?, code: detail("code")? })
        }
        number => match number.parse::<u8>() {
            Ok(number) => (place, Protocol::Other(number)),
            Err(_) => return Err(format!("{number:?} is no protocol: {SHAPE}")),
        },
    };
    if parts.next().is_some() || place.is_empty() {
        return Err(SHAPE.to_owned());
    }
    let bare = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(place);
    if bare.contains(':') && bare.parse::<IpAddr>().is_err() {
        return Err(format!("{place:?} is neither an address nor a workload's name"));
    }
    Ok(Target { place: bare.to_owned(), protocol })
}

#[cfg(test)]
mod tests;
