//! What the settings mean.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use canal_dataplane::net::Vni;
use canal_dataplane::spec::Settings;
use canal_dataplane::spec::policy::{EndpointToHost, Failsafes};

use super::parameters::PARAMETERS;
use crate::report;

/// The least important message that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say everything")]
pub enum Severity {
    Off,
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

/// Calico's own VXLAN tunnels: `VXLANPort`, `VXLANVNI`, `VXLANMTU`, `VXLANMTUV6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalicoVxlan {
    /// UDP destination port.
    pub port: u16,
    /// The overlay.
    pub vni: Vni,
    /// Largest inner IP packet over IPv4, bytes; `None` = what the interface below leaves.
    pub mtu: Option<NonZeroU16>,
    /// The same over IPv6.
    pub mtu_v6: Option<NonZeroU16>,
}

/// What is obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// `DefaultEndpointToHostAction`. `Return` means `Accept`: the host's own rules come after the dataplane.
    pub endpoint_to_host: EndpointToHost,
    /// `AllowVXLANPacketsFromWorkloads`.
    pub vxlan_from_workloads: bool,
    /// `AllowIPIPPacketsFromWorkloads`.
    pub ipip_from_workloads: bool,
    /// `FailsafeInboundHostPorts`, `FailsafeOutboundHostPorts`.
    pub failsafes: Failsafes,
    /// Of the tunnels that Calico would have.
    pub vxlan: CalicoVxlan,
    /// `InterfacePrefix`: beginnings of the names that workloads' interfaces have. Empty = any name will do.
    pub interface_prefixes: Vec<String>,
    /// `LogSeverityScreen`.
    pub severity: Severity,
    /// `PrometheusMetricsEnabled`.
    pub metrics_enabled: bool,
    /// `PrometheusMetricsHost`, `PrometheusMetricsPort`.
    pub metrics_at: SocketAddr,
    /// `HealthEnabled`.
    pub health_enabled: bool,
    /// `HealthHost`, `HealthPort`.
    pub health_at: SocketAddr,
    /// `Reporting…`, `EndpointReporting…`, `OpenstackRegion`.
    pub reports: report::Settings,
}

impl Default for Values {
    fn default() -> Self {
        let mut values = Self {
            endpoint_to_host: EndpointToHost::Accept,
            vxlan_from_workloads: false,
            ipip_from_workloads: false,
            failsafes: Failsafes::default(),
            vxlan: CalicoVxlan { port: 4789, vni: Vni::CALICO, mtu: None, mtu_v6: None },
            interface_prefixes: Vec::new(),
            severity: Severity::Info,
            metrics_enabled: false,
            metrics_at: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9091),
            health_enabled: false,
            health_at: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9099),
            reports: report::Settings::default(),
        };
        for parameter in &PARAMETERS {
            let taken = (parameter.take)(&mut values, parameter.default);
            debug_assert!(taken.is_ok(), "the default of {}", parameter.name);
        }
        values
    }
}

impl Values {
    /// These settings of the dataplane, with what Felix's say of them.
    pub const fn over(&self, settings: Settings) -> Settings {
        Settings {
            endpoint_to_host: self.endpoint_to_host,
            allow_vxlan_from_workloads: self.vxlan_from_workloads,
            allow_ipip_from_workloads: self.ipip_from_workloads,
            ..settings
        }
    }

    /// Whether an interface may be a workload's.
    pub fn is_workload_interface(&self, name: &str) -> bool {
        let prefixes = &self.interface_prefixes;
        prefixes.is_empty() || prefixes.iter().any(|prefix| name.starts_with(prefix))
    }

    /// Whether an interface may be the host's own.
    pub fn is_host_interface(&self, name: &str) -> bool {
        self.interface_prefixes.is_empty() || !self.is_workload_interface(name)
    }

    /// Where metrics are served, if they are.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics_enabled.then_some(self.metrics_at)
    }

    /// Where probes are answered, if they are.
    pub fn health(&self) -> Option<SocketAddr> {
        self.health_enabled.then_some(self.health_at)
    }
}
