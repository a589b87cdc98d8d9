//! The command line of `canal-fwd` as it is written down; [`super::Config`] is what it means.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::port::PortChoices;

/// flannel's flags. Their variables start with `FLANNELD_`, those of all others with `CANAL_`.
pub const FLANNEL_FLAGS: &[&str] = &[
    "etcd-endpoints",
    "etcd-prefix",
    "etcd-keyfile",
    "etcd-certfile",
    "etcd-cafile",
    "etcd-username",
    "etcd-password",
    "iface",
    "iface-regex",
    "iface-can-reach",
    "public-ip",
    "public-ipv6",
    "subnet-file",
    "subnet-lease-renew-margin",
    "ip-masq",
    "ip-masq-fully-random-disable",
    "iptables-resync",
    "iptables-forward-rules",
    "ip-blackhole-route",
    "healthz-ip",
    "healthz-port",
    "kube-subnet-mgr",
    "kube-api-url",
    "kubeconfig-file",
    "kube-annotation-prefix",
    "net-config-path",
    "set-node-network-unavailable",
    "version",
    "v",
    "vmodule",
    "log_backtrace_at",
];

/// Where desired state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DatastoreKind {
    /// etcd v3, shared with other hosts.
    Etcd,
    /// A directory of YAML and JSON documents on this host.
    Dir,
}

/// How encapsulated packets cross the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PortChoice {
    /// The fastest that this kernel accepts.
    Auto,
    /// Steered into and written to the TAP device, with tunnel segmentation offload.
    Tap,
    /// UDP sockets.
    Udp,
    /// AF_XDP sockets: the most packets a second, fewer bytes. Never chosen by itself.
    AfXdp,
}

/// Whether policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyChoice {
    /// As soon as the datastore has any.
    Auto,
    /// Always: workloads without any are denied everything.
    Enforce,
    /// Never: everything is allowed.
    Off,
}

/// Packets of workloads to their own host, once egress policy has let them pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ToHost {
    /// Delivered.
    Accept,
    /// Dropped.
    Drop,
    /// Delivered: the host's own rules come after the dataplane anyway.
    Return,
}

/// What a change of policy means for answered connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EstablishedChoice {
    /// They go on.
    Keep,
    /// Their next packet is judged by the new policy.
    Revalidate,
}

/// A thing that is done or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say everything")]
pub enum Switch {
    On,
    Off,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For eyes.
    Text,
    /// One JSON object a line.
    Json,
}

/// Treatment of DSCP at the ends of a tunnel (RFC 2983).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dscp {
    /// Outer 0, inner left alone.
    Pipe,
    /// Copied outward and back.
    Uniform,
}

/// The least important message that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say everything")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Joins this host to a flannel network, as a userspace dataplane.
///
/// flannel's flags are accepted in Go's style, too (-iface=eth0), and from FLANNELD_* variables; ours from CANAL_*.
/// Felix's settings are obeyed from FELIX_* and from the datastore.
#[derive(Clone, Debug, Parser)]
#[command(name = "canal-fwd", disable_version_flag = true, args_override_self = true, max_term_width = 100)]
pub struct Flags {
    /// How packets get in and out: auto, tap, udp or af-xdp; for single interfaces: eth0=af-xdp,eth1=tap
    #[arg(long, default_value = "auto", help_heading = "Dataplane")]
    pub port: PortChoices,
    /// Microseconds for which AF_XDP sockets keep the kernel polling their queues; 0 = interrupts do
    #[arg(long, default_value_t = 0, help_heading = "Dataplane")]
    pub busy_poll: u32,
    /// Packet threads, each pinned to a core [default: one per core, up to 4]
    #[arg(long, help_heading = "Dataplane")]
    pub workers: Option<u32>,
    /// Flow table entries of all workers together
    #[arg(long, default_value_t = 1_048_576, help_heading = "Dataplane")]
    pub flows: usize,
    /// Flow table entries one workload may have, of --flows [default: an eighth]; a remote node may have half of all
    #[arg(long, help_heading = "Dataplane")]
    pub flows_per_workload: Option<usize>,
    /// How long an idle connection is remembered, NAME=SECONDS (repeatable): tcp-established, udp-stream, …, as the kernel's
    /// nf_conntrack_*_timeout_* are called
    #[arg(long, value_name = "NAME=SECONDS", value_delimiter = ',', help_heading = "Dataplane")]
    pub flow_timeout: Vec<String>,
    /// Take up TCP and SCTP connections in their middle at any time, not only after a start (the kernel's nf_conntrack_tcp_loose)
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = go_bool, help_heading = "Dataplane")]
    pub tcp_loose: bool,
    /// Seconds after the start in which TCP and SCTP connections of a former daemon are taken up in their middle
    #[arg(long, default_value_t = 60, help_heading = "Dataplane")]
    pub flow_pickup: u32,
    /// Name of the TAP device
    #[arg(long, default_value = "canal0", help_heading = "Dataplane")]
    pub device: String,
    /// Interface with plain hosts behind it, which reach the overlay through this node; may be repeated
    #[arg(long, value_delimiter = ',', help_heading = "Dataplane")]
    pub gateway_iface: Vec<String>,
    /// Announce networks behind gateway interfaces, so that all nodes, flannel's among them, send there through this node
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = go_bool, help_heading = "Dataplane")]
    pub gateway_announce: bool,
    /// Set DF in outer IPv4 headers
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = go_bool, help_heading = "Dataplane")]
    pub outer_df: bool,
    /// What happens to DSCP at the ends of a tunnel
    #[arg(long, value_enum, default_value = "pipe", help_heading = "Dataplane")]
    pub dscp: Dscp,
    /// Send a UDP checksum in outer IPv4 packets, too
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = go_bool, help_heading = "Dataplane")]
    pub outer_checksum: bool,
    /// Let workloads send VXLAN and IP-in-IP themselves [default: as Felix's settings say, else not]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, help_heading = "Dataplane")]
    pub allow_encap_from_workloads: Option<bool>,

    /// Whether policy between workloads is enforced
    #[arg(long, value_enum, default_value = "auto", help_heading = "Policy")]
    pub policy: PolicyChoice,
    /// Packets of workloads to this host, once egress policy has let them pass [default: as Felix's settings say, else
    /// accept]
    #[arg(long, value_enum, help_heading = "Policy")]
    pub endpoint_to_host: Option<ToHost>,
    /// What a change of policy means for connections that have been answered
    #[arg(long, value_enum, default_value = "keep", help_heading = "Policy")]
    pub established: EstablishedChoice,

    /// Where desired state is kept [default: etcd when any etcd flag is given, else dir]
    #[arg(long, value_enum, help_heading = "State")]
    pub datastore: Option<DatastoreKind>,
    /// Documents of the dir datastore
    #[arg(long, default_value = "/etc/canal", help_heading = "State")]
    pub data_dir: PathBuf,
    /// Socket and lock of the running daemon
    #[arg(long, default_value = "/run/canal", help_heading = "State")]
    pub run_dir: PathBuf,
    /// What must survive a reboot: MAC address, last good snapshot
    #[arg(long, default_value = "/var/lib/canal", help_heading = "State")]
    pub state_dir: PathBuf,
    /// This node's name in the datastore [default: the host name]
    #[arg(long, help_heading = "State")]
    pub nodename: Option<String>,

    /// Serve Prometheus metrics on this address:port (":9091" = every address) [default: as Felix's settings say, else off]
    #[arg(long, help_heading = "Observation")]
    pub metrics_addr: Option<String>,
    /// Least important message to log [default: as Felix's settings say, else info]
    #[arg(long, value_enum, help_heading = "Observation")]
    pub log_level: Option<LogLevel>,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text", help_heading = "Observation")]
    pub log_format: LogFormat,
    /// Log connections that policy refuses (what Log rules note is always logged)
    #[arg(long, value_enum, default_value = "off", help_heading = "Observation")]
    pub log_denied: Switch,
    /// Lines a second about refused connections, at most
    #[arg(long, default_value_t = 10, help_heading = "Observation")]
    pub log_denied_rate: u32,
    /// Serve /liveness and /readiness as Felix does [default: as Felix's settings say (FELIX_HEALTHENABLED), else not]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, help_heading = "Observation")]
    pub health_enabled: Option<bool>,
    /// Address of /liveness and /readiness [default: as Felix's settings say (FELIX_HEALTHHOST), else localhost]
    #[arg(long, help_heading = "Observation")]
    pub health_host: Option<String>,
    /// Port of /liveness and /readiness [default: as Felix's settings say (FELIX_HEALTHPORT), else 9099]
    #[arg(long, help_heading = "Observation")]
    pub health_port: Option<u16>,
    /// Address of /healthz and /readyz
    #[arg(long, default_value = "0.0.0.0", help_heading = "Observation")]
    pub healthz_ip: String,
    /// Port of /healthz, /readyz, /liveness and /readiness; 0 = off
    #[arg(long, default_value_t = 0, help_heading = "Observation")]
    pub healthz_port: u16,

    /// etcd servers, separated by commas [default: http://127.0.0.1:4001,http://127.0.0.1:2379]
    #[arg(long, help_heading = "flannel")]
    pub etcd_endpoints: Option<String>,
    /// Prefix of the network's keys
    #[arg(long, help_heading = "flannel")]
    pub etcd_prefix: Option<String>,
    /// Client key
    #[arg(long, help_heading = "flannel")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Client certificate
    #[arg(long, help_heading = "flannel")]
    pub etcd_certfile: Option<PathBuf>,
    /// Certificates of the authorities that etcd's own certificate may come from
    #[arg(long, help_heading = "flannel")]
    pub etcd_cafile: Option<PathBuf>,
    /// etcd user
    #[arg(long, help_heading = "flannel")]
    pub etcd_username: Option<String>,
    /// Password of the etcd user (better given as FLANNELD_ETCD_PASSWORD: arguments can be seen by everyone)
    #[arg(long, help_heading = "flannel")]
    pub etcd_password: Option<String>,
    /// Underlay interface, by name or address; may be repeated, the first that exists is used
    #[arg(long, help_heading = "flannel")]
    pub iface: Vec<String>,
    /// Underlay interface, by a regular expression tried on addresses, then names; may be repeated
    #[arg(long, help_heading = "flannel")]
    pub iface_regex: Vec<String>,
    /// Underlay interface, by an address that is reached through it
    #[arg(long, help_heading = "flannel")]
    pub iface_can_reach: Option<String>,
    /// IPv4 address that other nodes use for this one [default: the interface's]
    #[arg(long, help_heading = "flannel")]
    pub public_ip: Option<String>,
    /// IPv6 address that other nodes use for this one [default: the interface's]
    #[arg(long, help_heading = "flannel")]
    pub public_ipv6: Option<String>,
    /// Where the lease is written for other programs
    #[arg(long, default_value = "/run/flannel/subnet.env", help_heading = "flannel")]
    pub subnet_file: PathBuf,
    /// Minutes before its end at which the lease is renewed
    #[arg(long, default_value_t = 60, help_heading = "flannel")]
    pub subnet_lease_renew_margin: u32,
    /// Say in the subnet file that this host masquerades (canal-fwd itself does not yet)
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = go_bool, help_heading = "flannel")]
    pub ip_masq: bool,
    /// Accepted; nothing is masqueraded yet
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = go_bool, help_heading = "flannel")]
    pub ip_masq_fully_random_disable: bool,
    /// Print the version to standard error
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = go_bool, help_heading = "flannel")]
    pub version: bool,

    /// Accepted; packets to unassigned local addresses always end here
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, help_heading = "flannel, without effect")]
    pub ip_blackhole_route: Option<bool>,
    /// Accepted; there are no rules to write again
    #[arg(long, help_heading = "flannel, without effect")]
    pub iptables_resync: Option<String>,
    /// Accepted; no rule is written
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, help_heading = "flannel, without effect")]
    pub iptables_forward_rules: Option<bool>,
    /// Accepted; the network configuration is read from the datastore
    #[arg(long, help_heading = "flannel, without effect")]
    pub net_config_path: Option<String>,
    /// Accepted; no Kubernetes node object is written
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, help_heading = "flannel, without effect")]
    pub set_node_network_unavailable: Option<bool>,
    /// Accepted; see --log-level
    #[arg(long, help_heading = "flannel, without effect")]
    pub v: Option<String>,
    /// Accepted; see --log-level
    #[arg(long, help_heading = "flannel, without effect")]
    pub vmodule: Option<String>,
    /// Accepted; see --log-level
    #[arg(long = "log_backtrace_at", help_heading = "flannel, without effect")]
    pub log_backtrace_at: Option<String>,

    /// Refused: leases are kept in etcd or a directory
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = go_bool, hide = true)]
    pub kube_subnet_mgr: bool,
    /// Refused
    #[arg(long, hide = true)]
    pub kube_api_url: Option<String>,
    /// Refused
    #[arg(long, hide = true)]
    pub kubeconfig_file: Option<String>,
    /// Refused
    #[arg(long, hide = true)]
    pub kube_annotation_prefix: Option<String>,
}

/// The spellings of truth that Go's `strconv.ParseBool` knows.
fn go_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("say true or false"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flannel_flag_exists() {
        Flags::command().debug_assert();
        let command = Flags::command();
        let known: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
        for flag in FLANNEL_FLAGS {
            assert!(known.contains(flag), "--{flag}");
        }
    }

    #[test]
    fn booleans_are_spelt_as_in_go() {
        let read = |arg: &str| Flags::try_parse_from(["canal-fwd", arg]).map(|flags| flags.ip_masq);
        assert!(read("--ip-masq").unwrap() && read("--ip-masq=T").unwrap() && read("--ip-masq=1").unwrap());
        assert!(!read("--ip-masq=False").unwrap());
        assert!(read("--ip-masq=yes").unwrap_err().to_string().contains("say true or false"));
    }
}
