//! What the command line and the environment ask for, checked.
//!
//! In reading order: [`argv`] makes Go-style arguments and variables into plain arguments, [`flags`] is the list
//! of flags, `felix` what they say in Felix's words, [`datastore`] where desired state is, [`Config`] all that they mean.

pub mod argv;
pub mod datastore;
mod felix;
pub mod flags;
mod gateways;
pub mod port;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use canal_control::agent::PolicyMode;
use canal_control::datastore::etcd::OptionsError;
use canal_control::felix::Local;
use canal_control::flannel::RenewMargin;
use canal_control::host::Wanted;
use canal_control::model::flannel::Prefix;
use canal_dataplane::flow::Quota;
use canal_dataplane::limits::MAX_WORKERS;
use canal_dataplane::spec::policy::Established;
use canal_dataplane::spec::{DscpMode, Settings, Timeouts};
use clap::Parser;

pub use datastore::{DatastoreChoice, DatastoreSettings};
pub use flags::{DatastoreKind, LogFormat, LogLevel, PortChoice};
use flags::{Dscp, EstablishedChoice, Flags, PolicyChoice, Switch};
pub use port::PortChoices;

use crate::observe::journal::LogPolicy;

/// Workers when nobody says how many: more only help above what one host's pods usually send.
const DEFAULT_WORKERS: u32 = 4;

/// Flow entries: fewer than this per worker and one busy pod evicts the others; more than the upper bound is a slip
/// of the pen (an entry takes some 100 bytes).
const FLOWS: std::ops::RangeInclusive<usize> = 1024..=1 << 26;

/// Longest interface name (IFNAMSIZ less the final zero).
const MAX_DEVICE_NAME: usize = 15;

/// Longest busy polling in one go: beyond a millisecond a turn keeps other ports waiting.
const MAX_BUSY_POLL_US: u64 = 1000;

/// Most log lines a second about refused connections: what workers tell at most is of this size.
const MAX_LOG_RATE: u64 = 10_000;

/// What is known about the machine before anything is configured.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel's host name.
    pub hostname: String,
    /// Cores this process may run on.
    pub cores: u32,
    /// Variables of its environment, among them Felix's.
    pub variables: Vec<(String, String)>,
}

/// A configuration that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's name in the datastore.
    pub node_name: String,
    /// Which interface is the underlay, and what others call us; families and own device are not filled in.
    pub wanted: Wanted,
    /// Where desired state is kept.
    pub datastore: DatastoreChoice,
    /// Prefix of the network's keys.
    pub prefix: Prefix,
    /// `subnet.env`.
    pub subnet_file: PathBuf,
    /// How long before its end the lease is renewed.
    pub renew_margin: RenewMargin,
    /// What `subnet.env` says about masquerading.
    pub ip_masq: bool,
    /// `/healthz` and `/readyz`; `None` = off.
    pub healthz: Option<SocketAddr>,
    /// What the log is told of policy.
    pub log_policy: LogPolicy,
    /// Prometheus metrics; `None` = off.
    pub metrics: Option<SocketAddr>,
    /// The port of each interface.
    pub port: PortChoices,
    /// For how long AF_XDP sockets keep the kernel polling their queues; `None` = interrupts do.
    pub busy_poll: Option<Duration>,
    /// Packet threads.
    pub workers: u32,
    /// Flow entries of each worker.
    pub flows_per_worker: usize,
    /// How many of them one sender may have.
    pub flow_quota: Quota,
    /// How long after the start connections are taken up in their middle.
    pub flow_pickup: Duration,
    /// Name of the TAP device.
    pub device: String,
    /// Interfaces with plain hosts behind them, by name, each once.
    pub gateways: Vec<String>,
    /// What is behind them is announced to other nodes.
    pub gateway_announce: bool,
    /// How packets are treated.
    pub settings: Settings,
    /// Whether policy is enforced.
    pub policy: PolicyMode,
    /// What is said on this host about Felix's settings.
    pub felix: Local,
    /// Socket and lock.
    pub run_dir: PathBuf,
    /// What must survive a reboot.
    pub state_dir: PathBuf,
    /// What is logged.
    pub log_level: LogLevel,
    /// How it looks.
    pub log_format: LogFormat,
    /// Sentences to log at start: flags that were given and have no effect.
    pub notes: Vec<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run the daemon.
    Run(Box<Config>),
    /// Print the version to standard error and leave, as flannel does.
    Version,
}

/// Why a command line is refused. The text says what to do instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a command line of ours, or a call for help: clap's own text.
    #[error("{0}")]
    Usage(#[from] clap::Error),
    /// A Kubernetes mode flag.
    #[error(
        "--{0} belongs to flannel's Kubernetes mode, which canal-fwd does not have: leases are kept in etcd or in a directory. \
         Leave the flag out and give --etcd-endpoints (or --datastore dir and --data-dir)."
    )]
    Kubernetes(&'static str),
    /// A number that is out of range.
    #[error("--{flag} is {value}, which is not between {low} and {high}; give a number in that range.")]
    Range {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: u64,
        /// Least allowed.
        low: u64,
        /// Most allowed.
        high: u64,
    },
    /// A text that is not what it should be.
    #[error("--{flag} is \"{value}\", which is not {expected}.")]
    Malformed {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// One of two flags that only make sense together.
    #[error("--{given} needs --{missing}, too.")]
    Pair {
        /// Is there.
        given: &'static str,
        /// Is not.
        missing: &'static str,
    },
    /// An interface for both ends.
    #[error(
        "--gateway-iface {0} is the interface of --iface, too: other nodes are behind the one, plain hosts behind the other. \
         Give another interface."
    )]
    Both(String),
    /// A port that a gateway interface cannot have.
    #[error(
        "--port {0}=udp: {0} is a gateway interface, and UDP sockets carry VXLAN only; give {0}=tap or {0}=af-xdp."
    )]
    UdpGateway(String),
    /// A port for nothing.
    #[error("--port speaks of {0}, which is neither --iface nor a --gateway-iface.")]
    Unused(String),
    /// etcd's settings do not fit together.
    #[error("--etcd-endpoints: {0}.")]
    Etcd(#[from] OptionsError),
}

impl Config {
    /// Reads arguments (without the program's name) and environment.
    pub fn parse(
        args: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
        machine: &Machine,
    ) -> Result<Command, ConfigError> {
        let args = argv::normalise(args, environment);
        let flags = Flags::try_parse_from(std::iter::once("canal-fwd".to_owned()).chain(args))?;
        if flags.version {
            return Ok(Command::Version);
        }
        Self::check(flags, machine).map(|config| Command::Run(Box::new(config)))
    }

    fn check(flags: Flags, machine: &Machine) -> Result<Self, ConfigError> {
        refuse_kubernetes(&flags)?;
        let mut notes = without_effect(&flags);
        let workers = match flags.workers {
            Some(count) => {
                in_range("workers", u64::from(count), 1, MAX_WORKERS as u64)?;
                count
            }
            None => machine.cores.clamp(1, DEFAULT_WORKERS),
        };
        in_range("flows", flags.flows as u64, *FLOWS.start() as u64, *FLOWS.end() as u64)?;
        let flow_quota = flow_quota(&flags, workers as usize)?;
        let metrics = flags.metrics_addr.as_deref().map(metrics).transpose()?;
        let felix = felix::local(&flags, metrics, machine)?;
        let gateways = gateways::named(&flags)?;
        Ok(Self {
            node_name: node_name(flags.nodename.as_deref().or(felix.value("FelixHostname")), machine)?,
            wanted: wanted(&flags)?,
            datastore: datastore(&flags, &mut notes)?,
            prefix: flags.etcd_prefix.as_deref().map(Prefix::new).unwrap_or_default(),
            renew_margin: renew_margin(flags.subnet_lease_renew_margin)?,
            healthz: healthz(&flags)?,
            log_policy: log_policy(&flags)?,
            metrics,
            device: interface("device", flags.device)?,
            gateways,
            gateway_announce: flags.gateway_announce,
            subnet_file: flags.subnet_file,
            ip_masq: flags.ip_masq,
            port: flags.port,
            busy_poll: busy_poll(flags.busy_poll)?,
            workers,
            flow_quota,
            flow_pickup: Duration::from_secs(flags.flow_pickup.into()),
            flows_per_worker: flags.flows.div_ceil(workers as usize),
            settings: Settings {
                outer_df: flags.outer_df,
                dscp: match flags.dscp {
                    Dscp::Pipe => DscpMode::Pipe,
                    Dscp::Uniform => DscpMode::Uniform,
                },
                outer_checksum_v4: flags.outer_checksum,
                tcp_loose: flags.tcp_loose,
                timeouts: timeouts(&flags.flow_timeout)?,
                established: match flags.established {
                    EstablishedChoice::Keep => Established::Keep,
                    EstablishedChoice::Revalidate => Established::Revalidate,
                },
                ..Settings::default()
            },
            policy: match flags.policy {
                PolicyChoice::Auto => PolicyMode::Auto,
                PolicyChoice::Enforce => PolicyMode::Enforce,
                PolicyChoice::Off => PolicyMode::Off,
            },
            run_dir: flags.run_dir,
            state_dir: flags.state_dir,
            log_level: flags.log_level.unwrap_or(LogLevel::Info),
            felix,
            log_format: flags.log_format,
            notes,
        })
    }
}

fn in_range(flag: &'static str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(ConfigError::Range { flag, value, low, high }) }
}

fn malformed(flag: &'static str, value: &str, expected: &'static str) -> ConfigError {
    ConfigError::Malformed { flag, value: value.to_owned(), expected }
}

fn refuse_kubernetes(flags: &Flags) -> Result<(), ConfigError> {
    let given = [
        (flags.kube_subnet_mgr, "kube-subnet-mgr"),
        (flags.kube_api_url.is_some(), "kube-api-url"),
        (flags.kubeconfig_file.is_some(), "kubeconfig-file"),
        (flags.kube_annotation_prefix.is_some(), "kube-annotation-prefix"),
    ];
    match given.into_iter().find(|(given, _)| *given) {
        Some((_, flag)) => Err(ConfigError::Kubernetes(flag)),
        None => Ok(()),
    }
}

/// One sentence for each flag that is accepted for flannel's sake only.
fn without_effect(flags: &Flags) -> Vec<String> {
    let reasons = [
        (flags.iptables_resync.is_some(), "iptables-resync", "canal-fwd writes no iptables rule"),
        (
            flags.iptables_forward_rules.is_some(),
            "iptables-forward-rules",
            "canal-fwd writes no iptables rule",
        ),
        (
            flags.ip_blackhole_route.is_some(),
            "ip-blackhole-route",
            "packets to unassigned addresses of this node's subnet always end here",
        ),
        (
            flags.net_config_path.is_some(),
            "net-config-path",
            "the network configuration is read from the datastore",
        ),
        (
            flags.set_node_network_unavailable.is_some(),
            "set-node-network-unavailable",
            "no Kubernetes node object is written",
        ),
        (flags.ip_masq_fully_random_disable, "ip-masq-fully-random-disable", "nothing is masqueraded yet"),
        (flags.v.is_some(), "v", "use --log-level"),
        (flags.vmodule.is_some(), "vmodule", "use --log-level"),
        (flags.log_backtrace_at.is_some(), "log_backtrace_at", "use --log-level"),
    ];
    let given = reasons.into_iter().filter(|(given, _, _)| *given);
    let mut notes: Vec<String> =
        given.map(|(_, flag, why)| format!("--{flag} has no effect: {why}")).collect();
    if flags.ip_masq {
        notes.push("--ip-masq is written to the subnet file only: nothing is masqueraded yet".into());
    }
    notes
}

/// The quota of one worker: connections are spread over all of them by their hash.
fn flow_quota(flags: &Flags, workers: usize) -> Result<Quota, ConfigError> {
    let fair = Quota::of(flags.flows.div_ceil(workers));
    let Some(wanted) = flags.flows_per_workload else { return Ok(fair) };
    in_range("flows-per-workload", wanted as u64, 1, flags.flows as u64)?;
    let workload = wanted.div_ceil(workers);
    Ok(Quota { workload, node: fair.node.max(workload) })
}

fn timeouts(given: &[String]) -> Result<Timeouts, ConfigError> {
    let mut timeouts = Timeouts::default();
    for text in given {
        let expected = "NAME=SECONDS with the name of a timeout and at least one second, for example tcp-established=86400";
        let wrong = || malformed("flow-timeout", text, expected);
        let (name, seconds) = text.split_once('=').ok_or_else(wrong)?;
        let seconds: u32 =
            seconds.parse().ok().filter(|seconds| (1..=Timeouts::MAX).contains(seconds)).ok_or_else(wrong)?;
        let named = timeouts.named();
        let (_, timeout) = named.into_iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
        *timeout = seconds;
    }
    Ok(timeouts)
}

fn node_name(given: Option<&str>, machine: &Machine) -> Result<String, ConfigError> {
    // Calico, too, takes the host name in lower case.
    let name = given.map_or_else(|| machine.hostname.trim().to_lowercase(), str::to_owned);
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(legal) {
        let expected = "a node name: 1 to 253 letters, digits, dots, dashes and underscores";
        return Err(malformed("nodename", &name, expected));
    }
    Ok(name)
}

fn renew_margin(minutes: u32) -> Result<RenewMargin, ConfigError> {
    let value = u64::from(minutes);
    let range = ConfigError::Range { flag: "subnet-lease-renew-margin", value, low: 1, high: 1439 };
    RenewMargin::from_minutes(value).map_err(|_| range)
}

fn wanted(flags: &Flags) -> Result<Wanted, ConfigError> {
    Ok(Wanted {
        ifaces: flags.iface.clone(),
        regexes: flags.iface_regex.clone(),
        can_reach: address("iface-can-reach", flags.iface_can_reach.as_deref(), "an IP address")?,
        public_v4: address("public-ip", flags.public_ip.as_deref(), "an IPv4 address")?,
        public_v6: address("public-ipv6", flags.public_ipv6.as_deref(), "an IPv6 address")?,
        ..Wanted::default()
    })
}

fn address<A: std::str::FromStr>(
    flag: &'static str,
    text: Option<&str>,
    expected: &'static str,
) -> Result<Option<A>, ConfigError> {
    text.map(|text| text.parse().map_err(|_| malformed(flag, text, expected))).transpose()
}

fn datastore(flags: &Flags, notes: &mut Vec<String>) -> Result<DatastoreChoice, ConfigError> {
    let settings = DatastoreSettings {
        kind: flags.datastore,
        data_dir: flags.data_dir.clone(),
        etcd_endpoints: flags.etcd_endpoints.clone(),
        etcd_keyfile: flags.etcd_keyfile.clone(),
        etcd_certfile: flags.etcd_certfile.clone(),
        etcd_cafile: flags.etcd_cafile.clone(),
        etcd_username: flags.etcd_username.clone(),
        etcd_password: flags.etcd_password.clone(),
        names_etcd: flags.etcd_prefix.is_some(),
    };
    let choice = settings.choose()?;
    if let DatastoreChoice::Dir(_) = choice {
        let unused = settings.about_etcd();
        notes.extend(unused.map(|flag| format!("--{flag} has no effect: the datastore is a directory")));
    }
    Ok(choice)
}

fn healthz(flags: &Flags) -> Result<Option<SocketAddr>, ConfigError> {
    let ip: IpAddr =
        flags.healthz_ip.parse().map_err(|_| malformed("healthz-ip", &flags.healthz_ip, "an IP address"))?;
    Ok((flags.healthz_port != 0).then_some(SocketAddr::new(ip, flags.healthz_port)))
}

fn log_policy(flags: &Flags) -> Result<LogPolicy, ConfigError> {
    in_range("log-denied-rate", flags.log_denied_rate.into(), 1, MAX_LOG_RATE)?;
    Ok(LogPolicy { denied: flags.log_denied == Switch::On, denied_rate: flags.log_denied_rate })
}

fn metrics(text: &str) -> Result<SocketAddr, ConfigError> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse()
        .map_err(|_| malformed("metrics-addr", text, "an address and port such as 127.0.0.1:9091 or :9091"))
}

fn busy_poll(microseconds: u32) -> Result<Option<Duration>, ConfigError> {
    in_range("busy-poll", microseconds.into(), 0, MAX_BUSY_POLL_US)?;
    Ok((microseconds > 0).then(|| Duration::from_micros(microseconds.into())))
}

fn interface(flag: &'static str, name: String) -> Result<String, ConfigError> {
    let legal = |c: u8| c.is_ascii_graphic() && !matches!(c, b'/' | b':' | b'%');
    if name.is_empty() || name.len() > MAX_DEVICE_NAME || name.starts_with('.') || !name.bytes().all(legal) {
        return Err(malformed(
            flag,
            &name,
            "an interface name: 1 to 15 letters, digits, dashes, underscores",
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
