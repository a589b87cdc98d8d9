//! The settings that a FelixConfiguration has, and what their values look like.

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// In `spec`; upper and lower case do not matter.
    pub v3: &'static str,
    /// As Felix calls it.
    pub v1: &'static str,
    pub(super) form: Form,
}

/// How a value is written in JSON, which says how Felix reads it as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `true`, `false`.
    Bool,
    /// A whole number.
    Int,
    /// As it is; empty = absent.
    Text,
    /// A duration, in seconds.
    Seconds,
    /// A duration, in milliseconds.
    Milliseconds,
    /// Texts, with commas between.
    List,
    /// Objects of `protocol`, `port` and perhaps `net`; with commas between.
    ProtoPorts,
    /// A port or a range of them.
    Port,
    /// Several, in brackets.
    Ports,
    /// An object of `min` and `max`.
    Range,
}

const fn field(name: &'static str, form: Form) -> Field {
    Field { v3: name, v1: name, form }
}

const fn aliased(v3: &'static str, v1: &'static str, form: Form) -> Field {
    Field { v3, v1, form }
}

/// All of version 3.22. Later ones need no form of their own here.
pub const FIELDS: [Field; 96] = [
    field("UseInternalDataplaneDriver", Form::Bool),
    field("DataplaneDriver", Form::Text),
    field("Ipv6Support", Form::Bool),
    field("RouteRefreshInterval", Form::Seconds),
    field("InterfaceRefreshInterval", Form::Seconds),
    field("IptablesRefreshInterval", Form::Seconds),
    aliased("iptablesPostWriteCheckInterval", "IptablesPostWriteCheckIntervalSecs", Form::Seconds),
    field("IptablesLockFilePath", Form::Text),
    aliased("iptablesLockTimeout", "IptablesLockTimeoutSecs", Form::Seconds),
    aliased("iptablesLockProbeInterval", "IptablesLockProbeIntervalMillis", Form::Milliseconds),
    field("FeatureDetectOverride", Form::Text),
    field("IpsetsRefreshInterval", Form::Seconds),
    field("MaxIpsetSize", Form::Int),
    field("IptablesBackend", Form::Text),
    field("XDPRefreshInterval", Form::Seconds),
    aliased("netlinkTimeout", "NetlinkTimeoutSecs", Form::Seconds),
    field("MetadataAddr", Form::Text),
    field("MetadataPort", Form::Int),
    field("OpenstackRegion", Form::Text),
    field("InterfacePrefix", Form::Text),
    field("InterfaceExclude", Form::Text),
    field("ChainInsertMode", Form::Text),
    field("DefaultEndpointToHostAction", Form::Text),
    field("IptablesFilterAllowAction", Form::Text),
    field("IptablesMangleAllowAction", Form::Text),
    field("LogPrefix", Form::Text),
    field("LogFilePath", Form::Text),
    field("LogSeverityFile", Form::Text),
    field("LogSeverityScreen", Form::Text),
    field("LogSeveritySys", Form::Text),
    aliased("ipipEnabled", "IpInIpEnabled", Form::Bool),
    aliased("ipipMTU", "IpInIpMtu", Form::Int),
    field("VXLANEnabled", Form::Bool),
    field("VXLANMTU", Form::Int),
    field("VXLANPort", Form::Int),
    field("VXLANVNI", Form::Int),
    field("AllowVXLANPacketsFromWorkloads", Form::Bool),
    field("AllowIPIPPacketsFromWorkloads", Form::Bool),
    aliased("reportingInterval", "ReportingIntervalSecs", Form::Seconds),
    aliased("reportingTTL", "ReportingTTLSecs", Form::Seconds),
    field("EndpointReportingEnabled", Form::Bool),
    aliased("endpointReportingDelay", "EndpointReportingDelaySecs", Form::Seconds),
    field("IptablesMarkMask", Form::Int),
    field("DisableConntrackInvalidCheck", Form::Bool),
    field("HealthEnabled", Form::Bool),
    field("HealthHost", Form::Text),
    field("HealthPort", Form::Int),
    field("PrometheusMetricsEnabled", Form::Bool),
    field("PrometheusMetricsHost", Form::Text),
    field("PrometheusMetricsPort", Form::Int),
    field("PrometheusGoMetricsEnabled", Form::Bool),
    field("PrometheusProcessMetricsEnabled", Form::Bool),
    field("PrometheusWireGuardMetricsEnabled", Form::Bool),
    field("FailsafeInboundHostPorts", Form::ProtoPorts),
    field("FailsafeOutboundHostPorts", Form::ProtoPorts),
    field("KubeNodePortRanges", Form::Ports),
    field("PolicySyncPathPrefix", Form::Text),
    field("UsageReportingEnabled", Form::Bool),
    aliased("usageReportingInitialDelay", "UsageReportingInitialDelaySecs", Form::Seconds),
    aliased("usageReportingInterval", "UsageReportingIntervalSecs", Form::Seconds),
    field("NATPortRange", Form::Port),
    field("NATOutgoingAddress", Form::Text),
    field("DeviceRouteSourceAddress", Form::Text),
    field("DeviceRouteProtocol", Form::Int),
    field("RemoveExternalRoutes", Form::Bool),
    aliased("externalNodesList", "ExternalNodesCIDRList", Form::List),
    field("DebugMemoryProfilePath", Form::Text),
    field("DebugDisableLogDropping", Form::Bool),
    field("DebugSimulateCalcGraphHangAfter", Form::Seconds),
    field("DebugSimulateDataplaneHangAfter", Form::Seconds),
    field("IptablesNATOutgoingInterfaceFilter", Form::Text),
    field("SidecarAccelerationEnabled", Form::Bool),
    field("XDPEnabled", Form::Bool),
    field("GenericXDPEnabled", Form::Bool),
    field("BPFEnabled", Form::Bool),
    field("BPFDisableUnprivileged", Form::Bool),
    field("BPFLogLevel", Form::Text),
    field("BPFDataIfacePattern", Form::Text),
    field("BPFConnectTimeLoadBalancingEnabled", Form::Bool),
    field("BPFExternalServiceMode", Form::Text),
    field("BPFExtToServiceConnmark", Form::Int),
    field("BPFKubeProxyIptablesCleanupEnabled", Form::Bool),
    field("BPFKubeProxyMinSyncPeriod", Form::Seconds),
    field("BPFKubeProxyEndpointSlicesEnabled", Form::Bool),
    field("BPFPSNATPorts", Form::Port),
    field("RouteSource", Form::Text),
    field("RouteTableRange", Form::Range),
    field("WireguardEnabled", Form::Bool),
    field("WireguardListeningPort", Form::Int),
    field("WireguardRoutingRulePriority", Form::Int),
    field("WireguardInterfaceName", Form::Text),
    field("WireguardMTU", Form::Int),
    field("WireguardHostEncryptionEnabled", Form::Bool),
    field("AWSSrcDstCheck", Form::Text),
    field("ServiceLoopPrevention", Form::Text),
    field("MTUIfacePattern", Form::Text),
];
