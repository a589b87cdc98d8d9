//! What the command line and the environment ask for, checked.
//!
//! In reading order: [`argv`] makes Go-style arguments and variables into plain arguments, [`flags`] is the list
//! of flags, [`Config`] their meaning.

pub mod argv;
pub mod flags;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use canal_dataplane::limits::MAX_WORKERS;
use canal_dataplane::spec::{DscpMode, Settings};
use clap::Parser;

pub use flags::{DatastoreKind, LogFormat, LogLevel, PortChoice};
use flags::{Dscp, Flags};

/// flannel's default prefix of the network's keys.
const DEFAULT_PREFIX: &str = "/coreos.com/network";

/// flannel's default etcd servers.
const DEFAULT_ENDPOINTS: &str = "http://127.0.0.1:4001,http://127.0.0.1:2379";

/// Workers when nobody says how many: more only help above what one host's pods usually send.
const DEFAULT_WORKERS: u32 = 4;

/// Flow entries: fewer than this per worker and one busy pod evicts the others; more than the upper bound is a slip
/// of the pen (an entry takes some 100 bytes).
const FLOWS: std::ops::RangeInclusive<usize> = 1024..=1 << 26;

/// Longest interface name (IFNAMSIZ less the final zero).
const MAX_DEVICE_NAME: usize = 15;

/// What is known about the machine before anything is configured.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel's host name.
    pub hostname: String,
    /// Cores this process may run on.
    pub cores: u32,
}

/// A configuration that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's name in the datastore.
    pub node_name: String,
    /// Which interface is the underlay, and what others call us.
    pub underlay: Underlay,
    /// Where desired state is kept.
    pub datastore: DatastoreChoice,
    /// Prefix of the network's keys, without a final slash.
    pub prefix: String,
    /// `subnet.env`.
    pub subnet_file: PathBuf,
    /// How long before its end the lease is renewed.
    pub renew_margin: Duration,
    /// Masquerade what leaves the network (also written to `subnet.env`).
    pub ip_masq: bool,
    /// Choose masqueraded ports at random.
    pub ip_masq_random: bool,
    /// `/healthz` and `/readyz`; `None` = off.
    pub healthz: Option<SocketAddr>,
    /// Prometheus metrics; `None` = off.
    pub metrics: Option<SocketAddr>,
    /// The underlay port.
    pub port: PortChoice,
    /// Packet threads.
    pub workers: u32,
    /// Flow entries of each worker.
    pub flows_per_worker: usize,
    /// Name of the TAP device.
    pub device: String,
    /// How packets are treated.
    pub settings: Settings,
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

/// How the underlay interface is found, in flannel's order: names and addresses, expressions, reachability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// Names or addresses.
    pub ifaces: Vec<String>,
    /// Regular expressions.
    pub regexes: Vec<String>,
    /// An address that is reached through it.
    pub can_reach: Option<IpAddr>,
    /// What other nodes call us; the interface's own address if `None`.
    pub public_ipv4: Option<Ipv4Addr>,
    /// As above, IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
}

/// Where desired state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatastoreChoice {
    /// etcd v3.
    Etcd(Etcd),
    /// Documents under this directory.
    Dir(PathBuf),
}

/// How to reach etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct Etcd {
    /// URLs.
    pub endpoints: Vec<String>,
    /// Client certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Authorities; alone it is enough for TLS, other than in flannel.
    pub ca: Option<PathBuf>,
    /// User and password.
    pub login: Option<(String, String)>,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd")
            .field("endpoints", &self.endpoints)
            .field("identity", &self.identity)
            .field("ca", &self.ca)
            .field("login", &self.login.as_ref().map(|(user, _)| user))
            .finish()
    }
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
    #[error("--{given} needs --{missing}, too: give both or neither.")]
    Pair {
        /// Is there.
        given: &'static str,
        /// Is not.
        missing: &'static str,
    },
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
        in_range("subnet-lease-renew-margin", u64::from(flags.subnet_lease_renew_margin), 1, 1439)?;
        Ok(Self {
            node_name: node_name(flags.nodename.as_deref(), machine)?,
            underlay: underlay(&flags)?,
            datastore: datastore(&flags, &mut notes)?,
            prefix: prefix(flags.etcd_prefix.as_deref())?,
            healthz: healthz(&flags)?,
            metrics: flags.metrics_addr.as_deref().map(metrics).transpose()?,
            device: device(flags.device)?,
            subnet_file: flags.subnet_file,
            renew_margin: Duration::from_secs(u64::from(flags.subnet_lease_renew_margin) * 60),
            ip_masq: flags.ip_masq,
            ip_masq_random: !flags.ip_masq_fully_random_disable,
            port: flags.port,
            workers,
            flows_per_worker: flags.flows.div_ceil(workers as usize),
            settings: Settings {
                outer_df: flags.outer_df,
                dscp: match flags.dscp {
                    Dscp::Pipe => DscpMode::Pipe,
                    Dscp::Uniform => DscpMode::Uniform,
                },
                allow_encap_from_workloads: flags.allow_encap_from_workloads,
                outer_checksum_v4: flags.outer_checksum,
                ..Settings::default()
            },
            run_dir: flags.run_dir,
            state_dir: flags.state_dir,
            log_level: flags.log_level,
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
        (flags.v.is_some(), "v", "use --log-level"),
        (flags.vmodule.is_some(), "vmodule", "use --log-level"),
        (flags.log_backtrace_at.is_some(), "log_backtrace_at", "use --log-level"),
    ];
    let given = reasons.into_iter().filter(|(given, _, _)| *given);
    given.map(|(_, flag, why)| format!("--{flag} has no effect: {why}")).collect()
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

fn underlay(flags: &Flags) -> Result<Underlay, ConfigError> {
    Ok(Underlay {
        ifaces: flags.iface.clone(),
        regexes: flags.iface_regex.clone(),
        can_reach: address("iface-can-reach", flags.iface_can_reach.as_deref(), "an IP address")?,
        public_ipv4: address("public-ip", flags.public_ip.as_deref(), "an IPv4 address")?,
        public_ipv6: address("public-ipv6", flags.public_ipv6.as_deref(), "an IPv6 address")?,
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
    let about_etcd = [
        (flags.etcd_endpoints.is_some(), "etcd-endpoints"),
        (flags.etcd_keyfile.is_some(), "etcd-keyfile"),
        (flags.etcd_certfile.is_some(), "etcd-certfile"),
        (flags.etcd_cafile.is_some(), "etcd-cafile"),
        (flags.etcd_username.is_some(), "etcd-username"),
        (flags.etcd_password.is_some(), "etcd-password"),
        (flags.etcd_prefix.is_some(), "etcd-prefix"),
    ];
    let mut given = about_etcd.iter().filter(|(given, _)| *given).map(|(_, flag)| *flag);
    match flags.datastore {
        Some(DatastoreKind::Etcd) => etcd(flags, notes).map(DatastoreChoice::Etcd),
        Some(DatastoreKind::Dir) => {
            let unused = given.filter(|flag| *flag != "etcd-prefix");
            notes.extend(unused.map(|flag| format!("--{flag} has no effect: the datastore is a directory")));
            Ok(DatastoreChoice::Dir(flags.data_dir.clone()))
        }
        None if given.next().is_some() => etcd(flags, notes).map(DatastoreChoice::Etcd),
        None => Ok(DatastoreChoice::Dir(flags.data_dir.clone())),
    }
}

fn etcd(flags: &Flags, notes: &mut Vec<String>) -> Result<Etcd, ConfigError> {
    let text = flags.etcd_endpoints.as_deref().unwrap_or(DEFAULT_ENDPOINTS);
    let endpoints: Vec<String> =
        text.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
    let is_url = |url: &String| {
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        host.is_some_and(|host| !host.is_empty() && !host.starts_with(['/', ':']))
    };
    if endpoints.is_empty() || !endpoints.iter().all(is_url) {
        let expected = "a list of URLs such as http://10.0.0.1:2379,https://10.0.0.2:2379";
        return Err(malformed("etcd-endpoints", text, expected));
    }
    let identity = match (&flags.etcd_certfile, &flags.etcd_keyfile) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        (Some(_), None) => {
            return Err(ConfigError::Pair { given: "etcd-certfile", missing: "etcd-keyfile" });
        }
        (None, Some(_)) => {
            return Err(ConfigError::Pair { given: "etcd-keyfile", missing: "etcd-certfile" });
        }
    };
    let login = match (&flags.etcd_username, &flags.etcd_password) {
        (Some(user), Some(password)) => Some((user.clone(), password.clone())),
        (None, None) => None,
        (Some(_), None) => {
            return Err(ConfigError::Pair { given: "etcd-username", missing: "etcd-password" });
        }
        (None, Some(_)) => {
            return Err(ConfigError::Pair { given: "etcd-password", missing: "etcd-username" });
        }
    };
    let tls = identity.is_some() || flags.etcd_cafile.is_some();
    if tls && endpoints.iter().any(|url| url.starts_with("http://")) {
        notes.push(
            "certificates are given, but an etcd endpoint says http://: nothing sent there is encrypted"
                .into(),
        );
    }
    Ok(Etcd { endpoints, identity, ca: flags.etcd_cafile.clone(), login })
}

/// Cleaned as flannel joins its paths: no double slashes, none at the end.
fn prefix(given: Option<&str>) -> Result<String, ConfigError> {
    let text = given.unwrap_or(DEFAULT_PREFIX);
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() || parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(malformed("etcd-prefix", text, "a key prefix such as /coreos.com/network"));
    }
    let lead = if text.starts_with('/') { "/" } else { "" };
    Ok(format!("{lead}{}", parts.join("/")))
}

fn healthz(flags: &Flags) -> Result<Option<SocketAddr>, ConfigError> {
    let ip: IpAddr =
        flags.healthz_ip.parse().map_err(|_| malformed("healthz-ip", &flags.healthz_ip, "an IP address"))?;
    Ok((flags.healthz_port != 0).then_some(SocketAddr::new(ip, flags.healthz_port)))
}

fn metrics(text: &str) -> Result<SocketAddr, ConfigError> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse()
        .map_err(|_| malformed("metrics-addr", text, "an address and port such as 127.0.0.1:9091 or :9091"))
}

fn device(name: String) -> Result<String, ConfigError> {
    let legal = |c: u8| c.is_ascii_graphic() && !matches!(c, b'/' | b':' | b'%');
    if name.is_empty() || name.len() > MAX_DEVICE_NAME || name.starts_with('.') || !name.bytes().all(legal) {
        return Err(malformed(
            "device",
            &name,
            "an interface name: 1 to 15 letters, digits, dashes, underscores",
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
