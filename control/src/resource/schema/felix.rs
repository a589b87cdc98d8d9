//! Felix's configuration: every field of every version, so that none that an operator has set is lost.

use super::meta::{API_VERSION, KIND, METADATA};
use super::{
    INTEGER, Object, PORT_OR_ZERO, Shape, TEXT, Type, UNSIGNED32, always, integer_of, keep, list_of, omit,
    plain, required, text_of, texts_of,
};
use crate::resource::error::Report;
use crate::resource::net::Net;
use crate::resource::text::{self, LABEL_MAX, is_dns_label};
use crate::resource::{duration, number};

const BOOL: Shape = Shape::Bool;
const DURATION: Shape = Shape::Duration;
const NATURAL_OR_OFF: Shape = Shape::Integer(-1, i64::MAX);
const CIDRS: Shape = Shape::List(&Shape::Text(text::CIDR));
const FAILSAFES: Shape = Shape::List(&Shape::Object(&FAILSAFE_PORT));
const LOG_LEVEL: Shape = Shape::Text(text::LOG_LEVEL);

/// Ranges that Felix puts into one iptables rule.
const NODE_PORT_RANGES_MAX: usize = 7;

/// What the name of a region is put behind to name a namespace.
const REGION_PREFIX: &str = "openstack-region-";

/// Route tables that ranges may cover together.
const TABLES_MAX: i64 = 0xffff;

pub(super) static FELIX_CONFIGURATION: Type = plain(
    "FelixConfiguration",
    &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&FELIX_CONFIGURATION_SPEC))],
);

pub(super) static FELIX_CONFIGURATION_SPEC: Type = Type {
    name: "FelixConfigurationSpec",
    fields: &[
        keep("useInternalDataplaneDriver", BOOL),
        omit("dataplaneDriver", TEXT),
        keep("dataplaneWatchdogTimeout", DURATION),
        keep("ipv6Support", BOOL),
        keep("routeRefreshInterval", DURATION),
        keep("interfaceRefreshInterval", DURATION),
        keep("iptablesRefreshInterval", DURATION),
        keep("iptablesPostWriteCheckInterval", DURATION),
        omit("iptablesLockFilePath", TEXT),
        keep("iptablesLockTimeout", DURATION),
        keep("iptablesLockProbeInterval", DURATION),
        omit("featureDetectOverride", Shape::Text(text::KEY_VALUES)),
        omit("featureGates", Shape::Text(text::KEY_VALUES)),
        keep("ipsetsRefreshInterval", DURATION),
        keep("maxIpsetSize", INTEGER),
        keep("iptablesBackend", Shape::Text(text::IPTABLES_BACKEND)),
        keep("xdpRefreshInterval", DURATION),
        keep("netlinkTimeout", DURATION),
        omit("metadataAddr", TEXT),
        keep("metadataPort", INTEGER),
        omit("openstackRegion", TEXT),
        omit("interfacePrefix", TEXT),
        omit("interfaceExclude", TEXT),
        omit("chainInsertMode", TEXT),
        omit("defaultEndpointToHostAction", Shape::Text(text::DROP_ACCEPT_RETURN)),
        omit("iptablesFilterAllowAction", Shape::Text(text::ACCEPT_RETURN)),
        omit("iptablesMangleAllowAction", Shape::Text(text::ACCEPT_RETURN)),
        omit("iptablesFilterDenyAction", Shape::Text(text::DROP_REJECT)),
        omit("logPrefix", TEXT),
        keep("logActionRateLimit", TEXT),
        keep("logActionRateLimitBurst", INTEGER),
        omit("logFilePath", TEXT),
        omit("logSeverityFile", LOG_LEVEL),
        omit("logSeverityScreen", LOG_LEVEL),
        omit("logSeveritySys", LOG_LEVEL),
        omit("logDebugFilenameRegex", Shape::Text(text::REGEX)),
        keep("ipipEnabled", BOOL),
        keep("ipipMTU", INTEGER),
        keep("vxlanEnabled", BOOL),
        keep("vxlanMTU", INTEGER),
        keep("vxlanMTUV6", INTEGER),
        keep("vxlanPort", INTEGER),
        keep("vxlanVNI", INTEGER),
        keep("allowVXLANPacketsFromWorkloads", BOOL),
        keep("allowIPIPPacketsFromWorkloads", BOOL),
        keep("reportingInterval", DURATION),
        keep("reportingTTL", DURATION),
        keep("endpointReportingEnabled", BOOL),
        keep("endpointReportingDelay", DURATION),
        omit("endpointStatusPathPrefix", TEXT),
        keep("iptablesMarkMask", UNSIGNED32),
        keep("disableConntrackInvalidCheck", BOOL),
        keep("healthEnabled", BOOL),
        keep("healthHost", TEXT),
        keep("healthPort", INTEGER),
        omit("healthTimeoutOverrides", Shape::List(&Shape::Object(&HEALTH_TIMEOUT_OVERRIDE))),
        keep("prometheusMetricsEnabled", BOOL),
        omit("prometheusMetricsHost", Shape::Text(text::PROMETHEUS_HOST)),
        keep("prometheusMetricsPort", INTEGER),
        keep("prometheusGoMetricsEnabled", BOOL),
        keep("prometheusProcessMetricsEnabled", BOOL),
        keep("prometheusWireGuardMetricsEnabled", BOOL),
        keep("failsafeInboundHostPorts", FAILSAFES),
        keep("failsafeOutboundHostPorts", FAILSAFES),
        keep("kubeNodePortRanges", Shape::List(&Shape::Port)),
        omit("policySyncPathPrefix", TEXT),
        keep("usageReportingEnabled", BOOL),
        keep("usageReportingInitialDelay", DURATION),
        keep("usageReportingInterval", DURATION),
        keep("natPortRange", Shape::Port),
        omit("natOutgoingAddress", Shape::Text(text::IPV4)),
        keep("natOutgoingExclusions", TEXT),
        omit("deviceRouteSourceAddress", Shape::Text(text::IPV4)),
        omit("deviceRouteSourceAddressIPv6", Shape::Text(text::IPV6)),
        keep("deviceRouteProtocol", INTEGER),
        keep("removeExternalRoutes", BOOL),
        omit("ipForwarding", Shape::Text(text::ON_OFF)),
        keep("externalNodesList", Shape::List(&TEXT)),
        omit("debugMemoryProfilePath", TEXT),
        keep("debugDisableLogDropping", BOOL),
        keep("debugSimulateCalcGraphHangAfter", DURATION),
        keep("debugSimulateDataplaneHangAfter", DURATION),
        keep("debugSimulateDataplaneApplyDelay", DURATION),
        keep("debugHost", TEXT),
        keep("debugPort", PORT_OR_ZERO),
        omit("iptablesNATOutgoingInterfaceFilter", Shape::Text(text::INTERFACE_FILTER)),
        keep("sidecarAccelerationEnabled", BOOL),
        keep("xdpEnabled", BOOL),
        keep("genericXDPEnabled", BOOL),
        keep("nftablesMode", TEXT),
        keep("nftablesRefreshInterval", DURATION),
        omit("nftablesFilterAllowAction", Shape::Text(text::ACCEPT_RETURN)),
        omit("nftablesMangleAllowAction", Shape::Text(text::ACCEPT_RETURN)),
        omit("nftablesFilterDenyAction", Shape::Text(text::DROP_REJECT)),
        keep("nftablesMarkMask", UNSIGNED32),
        keep("bpfEnabled", BOOL),
        keep("bpfDisableUnprivileged", BOOL),
        keep("bpfJITHardening", TEXT),
        always("bpfLogLevel", Shape::Text(text::BPF_LOG_LEVEL)),
        keep("bpfConntrackLogLevel", TEXT),
        keep("bpfConntrackCleanupMode", TEXT),
        keep("bpfConntrackTimeouts", Shape::Any),
        keep("bpfLogFilters", Shape::Texts(super::nothing)),
        omit("bpfCTLBLogFilter", TEXT),
        omit("bpfDataIfacePattern", Shape::Text(text::REGEX)),
        omit("bpfL3IfacePattern", Shape::Text(text::REGEX)),
        keep("bpfConnectTimeLoadBalancingEnabled", BOOL),
        keep("bpfConnectTimeLoadBalancing", Shape::Text(text::BPF_CONNECT_TIME)),
        keep("bpfHostNetworkedNATWithoutCTLB", Shape::Text(text::ON_OFF)),
        omit("bpfExternalServiceMode", Shape::Text(text::BPF_SERVICE_MODE)),
        keep("bpfDSROptoutCIDRs", CIDRS),
        keep("bpfExtToServiceConnmark", UNSIGNED32),
        keep("bpfKubeProxyIptablesCleanupEnabled", BOOL),
        keep("bpfKubeProxyMinSyncPeriod", DURATION),
        keep("bpfKubeProxyHealthzPort", INTEGER),
        keep("bpfKubeProxyEndpointSlicesEnabled", BOOL),
        keep("bpfPSNATPorts", Shape::Port),
        keep("bpfMapSizeNATFrontend", INTEGER),
        keep("bpfMapSizeNATBackend", INTEGER),
        keep("bpfMapSizeNATAffinity", INTEGER),
        keep("bpfMapSizeRoute", INTEGER),
        keep("bpfMapSizeConntrack", INTEGER),
        keep("bpfMapSizePerCpuConntrack", INTEGER),
        keep("bpfMapSizeConntrackScaling", TEXT),
        keep("bpfMapSizeConntrackCleanupQueue", INTEGER),
        keep("bpfMapSizeIPSets", INTEGER),
        keep("bpfMapSizeIfState", INTEGER),
        keep("bpfHostConntrackBypass", BOOL),
        omit("bpfEnforceRPF", TEXT),
        keep("bpfPolicyDebugEnabled", BOOL),
        keep("bpfForceTrackPacketsFromIfaces", Shape::List(&Shape::Text(text::INTERFACE_FILTER))),
        omit("bpfDisableGROForIfaces", Shape::Text(text::REGEX)),
        keep("bpfExcludeCIDRsFromNAT", CIDRS),
        omit("bpfRedirectToPeer", TEXT),
        keep("bpfAttachType", TEXT),
        keep("bpfExportBufferSizeMB", INTEGER),
        omit("bpfProfiling", Shape::Text(text::ON_OFF)),
        omit("routeSource", TEXT),
        keep("routeTableRanges", Shape::List(&Shape::Object(&ROUTE_TABLE_ID_RANGE))),
        keep("routeTableRange", Shape::Object(&ROUTE_TABLE_RANGE)),
        keep("routeSyncDisabled", BOOL),
        keep("programClusterRoutes", TEXT),
        keep("wireguardEnabled", BOOL),
        keep("wireguardEnabledV6", BOOL),
        keep("wireguardThreadingEnabled", BOOL),
        keep("wireguardListeningPort", Shape::Integer(1, 65535)),
        keep("wireguardListeningPortV6", Shape::Integer(1, 65535)),
        keep("wireguardRoutingRulePriority", Shape::Integer(1, 32765)),
        omit("wireguardInterfaceName", Shape::Text(text::INTERFACE)),
        omit("wireguardInterfaceNameV6", Shape::Text(text::INTERFACE)),
        keep("wireguardMTU", INTEGER),
        keep("wireguardMTUV6", INTEGER),
        keep("wireguardHostEncryptionEnabled", BOOL),
        keep("wireguardKeepAlive", DURATION),
        keep("awsSrcDstCheck", Shape::Text(text::SRC_DST_CHECK)),
        omit("serviceLoopPrevention", Shape::Text(text::DROP_REJECT_DISABLED)),
        omit("workloadSourceSpoofing", Shape::Text(text::DISABLED_ANY)),
        omit("mtuIfacePattern", Shape::Text(text::REGEX)),
        keep("requireMTUFile", BOOL),
        keep("floatingIPs", Shape::Text(text::ON_OFF)),
        keep("windowsManageFirewallRules", Shape::Text(text::ON_OFF)),
        keep("goGCThreshold", NATURAL_OR_OFF),
        keep("goMemoryLimitMB", NATURAL_OR_OFF),
        keep("goMaxProcs", NATURAL_OR_OFF),
        keep("cgroupV2Path", TEXT),
        keep("flowLogsFlushInterval", DURATION),
        keep("flowLogsCollectorDebugTrace", BOOL),
        keep("flowLogsGoldmaneServer", TEXT),
        keep("flowLogsLocalReporter", Shape::Text(text::ON_OFF)),
        keep("flowLogsPolicyEvaluationMode", TEXT),
        keep("istioAmbientMode", TEXT),
        keep("istioDSCPMark", Shape::Any),
    ],
    check: felix,
};

/// As it stands in a list of failsafe ports, where libcalico-go does not look at it.
static FAILSAFE_PORT: Type =
    plain("FailsafePort", &[always("protocol", TEXT), always("port", PORT_OR_ZERO), always("net", TEXT)]);

/// The same by itself.
pub(super) static PROTO_PORT: Type = plain(
    "ProtoPort",
    &[required("protocol", Shape::Text(text::TRANSPORT)), always("port", PORT_OR_ZERO), always("net", TEXT)],
);

pub(super) static ROUTE_TABLE_RANGE: Type = Type {
    name: "RouteTableRange",
    fields: &[required("min", INTEGER), required("max", INTEGER)],
    check: |range, report| {
        let (min, max) = bounds(range);
        if !(1 <= min && min <= max && max <= 250) {
            report.here("must be a range of route tables from 1 to 250");
        }
    },
};

pub(super) static ROUTE_TABLE_ID_RANGE: Type = Type {
    name: "RouteTableIDRange",
    fields: &[required("min", INTEGER), required("max", INTEGER)],
    check: |range, report| {
        let (min, max) = bounds(range);
        if !(1 <= min && min <= max && max <= i64::from(u32::MAX)) {
            report.here("must be a range of route tables from 1 to 4294967295");
        }
    },
};

pub(super) static HEALTH_TIMEOUT_OVERRIDE: Type = Type {
    name: "HealthTimeoutOverride",
    fields: &[required("name", Shape::Text(text::HEALTH_NAME)), always("timeout", DURATION)],
    check: |health, report| {
        if duration::parse(text_of(health, "timeout")).is_some_and(i64::is_negative) {
            report.wrong("timeout", "must not be negative");
        }
    },
};

fn bounds(range: &Object) -> (i64, i64) {
    (integer_of(range, "min").unwrap_or_default(), integer_of(range, "max").unwrap_or_default())
}

fn felix(spec: &Object, report: &mut Report) {
    let ranges = list_of(spec, "kubeNodePortRanges");
    if ranges.len() > NODE_PORT_RANGES_MAX {
        report.wrong("kubeNodePortRanges", format!("must have at most {NODE_PORT_RANGES_MAX} ranges"));
    }
    if ranges.iter().any(number::is_named) {
        report.wrong("kubeNodePortRanges", "must not have named ports");
    }
    report.at("externalNodesList", |report| {
        for (n, text) in texts_of(spec, "externalNodesList").enumerate() {
            if !Net::cidr_or_address(text).is_some_and(Net::is_v4) {
                report.item(n, |report| report.here("must be an IPv4 prefix or address"));
            }
        }
    });
    let region = text_of(spec, "openstackRegion");
    let longest = LABEL_MAX - REGION_PREFIX.len();
    if !region.is_empty() && (region.len() > longest || !is_dns_label(region)) {
        report.wrong(
            "openstackRegion",
            format!("must be at most {longest} lower case letters, digits and '-'"),
        );
    }
    let tables = list_of(spec, "routeTableRanges");
    if !tables.is_empty() && spec.contains_key("routeTableRange") {
        report.wrong("routeTableRange", "must not be given beside routeTableRanges");
    }
    let covered = tables.iter().filter_map(|range| range.as_object()).map(|range| {
        let (min, max) = bounds(range);
        (max - min).saturating_add(1)
    });
    if covered.fold(0_i64, i64::saturating_add) > TABLES_MAX {
        report.wrong("routeTableRanges", format!("must cover at most {TABLES_MAX} tables"));
    }
}
