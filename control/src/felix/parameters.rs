//! The settings that are obeyed.

use super::Effect;
use super::parse::{self, Parsed};
use super::values::Values;

/// A setting that is obeyed.
pub(super) struct Parameter {
    /// As Felix calls it.
    pub(super) name: &'static str,
    /// What counts where nobody says anything. Felix's, except that packets of workloads to their host are delivered (as
    /// Canal's manifests have it), and interfaces of workloads may have any name.
    pub(super) default: &'static str,
    /// Takes a value in. One that makes no sense changes nothing.
    pub(super) take: fn(&mut Values, &str) -> Parsed<()>,
    /// What comes of a value that makes sense.
    pub(super) effect: Effect,
}

const fn parameter(
    name: &'static str,
    default: &'static str,
    take: fn(&mut Values, &str) -> Parsed<()>,
) -> Parameter {
    Parameter { name, default, take, effect: Effect::Obeyed }
}

impl Parameter {
    const fn comes_to(self, effect: Effect) -> Self {
        Self { effect, ..self }
    }
}

/// Both lists are about host endpoints.
const AT_GATEWAYS: Effect = Effect::Partly(
    "policy of host endpoints judges what passes gateway interfaces; the host's own traffic is not taken off the interface",
);
const NO_CALICO_VXLAN: Effect =
    Effect::Prepared("Calico's tunnels are compiled and not used; the overlay is flannel's network");

/// What Felix leaves open into a host: its control plane, and the way to repair what was closed.
pub(super) const INBOUND: &str =
    "tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667";

/// The same out of it.
pub(super) const OUTBOUND: &str =
    "udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667";

#[rustfmt::skip]
pub(super) const PARAMETERS: [Parameter; 22] = [
    parameter("DefaultEndpointToHostAction", "Accept", |v, t| { v.endpoint_to_host = parse::to_host(t)?; Ok(()) }),
    parameter("AllowVXLANPacketsFromWorkloads", "false", |v, t| { v.vxlan_from_workloads = parse::switch(t)?; Ok(()) }),
    parameter("AllowIPIPPacketsFromWorkloads", "false", |v, t| { v.ipip_from_workloads = parse::switch(t)?; Ok(()) }),
    parameter("FailsafeInboundHostPorts", INBOUND, |v, t| { v.failsafes.inbound = parse::failsafes(t)?; Ok(()) }).comes_to(AT_GATEWAYS),
    parameter("FailsafeOutboundHostPorts", OUTBOUND, |v, t| { v.failsafes.outbound = parse::failsafes(t)?; Ok(()) }).comes_to(AT_GATEWAYS),
    parameter("VXLANPort", "4789", |v, t| { v.vxlan.port = parse::port(t)?; Ok(()) }).comes_to(NO_CALICO_VXLAN),
    parameter("VXLANVNI", "4096", |v, t| { v.vxlan.vni = parse::vni(t)?; Ok(()) }).comes_to(NO_CALICO_VXLAN),
    parameter("VXLANMTU", "0", |v, t| { v.vxlan.mtu = parse::mtu(t)?; Ok(()) }).comes_to(NO_CALICO_VXLAN),
    parameter("VXLANMTUV6", "0", |v, t| { v.vxlan.mtu_v6 = parse::mtu(t)?; Ok(()) }).comes_to(NO_CALICO_VXLAN),
    parameter("InterfacePrefix", "", |v, t| { v.interface_prefixes = parse::prefixes(t)?; Ok(()) }),
    parameter("LogSeverityScreen", "Info", |v, t| { v.severity = parse::severity(t)?; Ok(()) }),
    parameter("PrometheusMetricsEnabled", "false", |v, t| { v.metrics_enabled = parse::switch(t)?; Ok(()) }),
    parameter("PrometheusMetricsHost", "", |v, t| { v.metrics_at.set_ip(parse::host(t)?); Ok(()) }),
    parameter("PrometheusMetricsPort", "9091", |v, t| { v.metrics_at.set_port(parse::port(t)?); Ok(()) }),
    parameter("HealthEnabled", "false", |v, t| { v.health_enabled = parse::switch(t)?; Ok(()) }),
    parameter("HealthHost", "localhost", |v, t| { v.health_at.set_ip(parse::host(t)?); Ok(()) }),
    parameter("HealthPort", "9099", |v, t| { v.health_at.set_port(parse::port(t)?); Ok(()) }),
    parameter("ReportingIntervalSecs", "30", |v, t| { v.reports.interval = parse::seconds(t)?; Ok(()) }),
    parameter("ReportingTTLSecs", "90", |v, t| { v.reports.ttl = parse::seconds(t)?; Ok(()) }),
    parameter("EndpointReportingEnabled", "false", |v, t| { v.reports.endpoints = parse::switch(t)?; Ok(()) }),
    parameter("EndpointReportingDelaySecs", "1", |v, t| { v.reports.delay = parse::seconds(t)?; Ok(()) }),
    parameter("OpenstackRegion", "", |v, t| { v.reports.region = parse::region(t)?; Ok(()) }),
];
