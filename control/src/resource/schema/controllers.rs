//! What kube-controllers shall do.

use super::meta::{API_VERSION, KIND, METADATA, labels};
use super::{PORT_OR_ZERO, Shape, TEXT, Type, always, keep, omit, plain};
use crate::resource::text;

const PERIOD: super::Field = keep("reconcilerPeriod", Shape::Duration);
const ON_OFF: Shape = Shape::Text(text::ON_OFF);

pub(super) static KUBE_CONTROLLERS_CONFIGURATION: Type = plain(
    "KubeControllersConfiguration",
    &[
        KIND,
        API_VERSION,
        METADATA,
        always("spec", Shape::Object(&KUBE_CONTROLLERS_CONFIGURATION_SPEC)),
        always("status", Shape::Object(&KUBE_CONTROLLERS_CONFIGURATION_STATUS)),
    ],
);

/// Written by kube-controllers.
static KUBE_CONTROLLERS_CONFIGURATION_STATUS: Type = plain(
    "KubeControllersConfigurationStatus",
    &[keep("runningConfig", Shape::Any), omit("environmentVars", Shape::Texts(super::nothing))],
);

pub(super) static KUBE_CONTROLLERS_CONFIGURATION_SPEC: Type = plain(
    "KubeControllersConfigurationSpec",
    &[
        omit("logSeverityScreen", Shape::Text(text::CONTROLLER_LOG_LEVEL)),
        omit("healthChecks", ON_OFF),
        keep("etcdV3CompactionPeriod", Shape::Duration),
        keep("prometheusMetricsPort", PORT_OR_ZERO),
        always("controllers", Shape::Object(&CONTROLLERS_CONFIG)),
        keep("debugProfilePort", PORT_OR_ZERO),
    ],
);

pub(super) static CONTROLLERS_CONFIG: Type = plain(
    "ControllersConfig",
    &[
        keep("node", Shape::Object(&NODE_CONTROLLER_CONFIG)),
        keep("policy", Shape::Object(&POLICY_CONTROLLER_CONFIG)),
        keep("workloadEndpoint", Shape::Object(&WORKLOAD_ENDPOINT_CONTROLLER_CONFIG)),
        keep("serviceAccount", Shape::Object(&SERVICE_ACCOUNT_CONTROLLER_CONFIG)),
        keep("namespace", Shape::Object(&NAMESPACE_CONTROLLER_CONFIG)),
        keep("loadBalancer", Shape::Object(&LOAD_BALANCER_CONTROLLER_CONFIG)),
        keep("policyMigration", Shape::Object(&MIGRATION_CONTROLLER_CONFIG)),
    ],
);

pub(super) static NODE_CONTROLLER_CONFIG: Type = plain(
    "NodeControllerConfig",
    &[
        PERIOD,
        omit("syncLabels", ON_OFF),
        keep("hostEndpoint", Shape::Object(&AUTO_HOST_ENDPOINT_CONFIG)),
        keep("leakGracePeriod", Shape::Duration),
    ],
);

pub(super) static AUTO_HOST_ENDPOINT_CONFIG: Type = plain(
    "AutoHostEndpointConfig",
    &[
        omit("autoCreate", ON_OFF),
        omit("createDefaultHostEndpoint", ON_OFF),
        omit("templates", Shape::List(&Shape::Object(&TEMPLATE))),
    ],
);

static TEMPLATE: Type = plain(
    "Template",
    &[
        omit("generateName", Shape::Text(text::NAME)),
        omit("interfaceCIDRs", Shape::List(&Shape::Text(text::CIDR))),
        omit("interfacePattern", Shape::Text(text::REGEX)),
        omit("labels", Shape::Texts(labels)),
        omit("nodeSelector", Shape::Selector),
    ],
);

pub(super) static POLICY_CONTROLLER_CONFIG: Type = plain("PolicyControllerConfig", &[PERIOD]);

pub(super) static WORKLOAD_ENDPOINT_CONTROLLER_CONFIG: Type =
    plain("WorkloadEndpointControllerConfig", &[PERIOD]);

pub(super) static SERVICE_ACCOUNT_CONTROLLER_CONFIG: Type =
    plain("ServiceAccountControllerConfig", &[PERIOD]);

pub(super) static NAMESPACE_CONTROLLER_CONFIG: Type = plain("NamespaceControllerConfig", &[PERIOD]);

static LOAD_BALANCER_CONTROLLER_CONFIG: Type =
    plain("LoadBalancerControllerConfig", &[omit("assignIPs", Shape::Text(text::ASSIGN_IPS))]);

static MIGRATION_CONTROLLER_CONFIG: Type = plain("MigrationControllerConfig", &[omit("enabled", TEXT)]);
