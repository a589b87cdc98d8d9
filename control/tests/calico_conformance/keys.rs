//! Paths: what they are keys of.

use canal_control::model::calico::felix_key::{FelixKey, WorkloadPath};
use canal_control::model::calico::keys::ResourceKey;
use canal_control::model::calico::kind::Kind;
use serde_json::Value;

use super::{same, text};

pub fn parse(case: &Value) -> Result<(), String> {
    let path = text(case, "path");
    let key = FelixKey::parse(path);
    let (kind, shown) = key.as_ref().map_or(("<nil>", "<nil>".to_owned()), described);
    same("key_type", kind, text(case, "key_type"))?;
    same("key", shown.as_str(), text(case, "key"))?;
    same("invalid", Some(key.is_none()), case["invalid"].as_bool())?;
    match key {
        // Nothing leads from an unknown kind back to its path.
        None | Some(FelixKey::Resource(ResourceKey { kind: None, .. })) => Ok(()),
        Some(key) => same("path", key.path().as_str(), path),
    }
}

/// Type and text of the key in libcalico-go.
fn described(key: &FelixKey) -> (&'static str, String) {
    match key {
        FelixKey::Ready => ("ReadyFlagKey", "ReadyFlagKey()".to_owned()),
        FelixKey::GlobalConfig(name) => ("GlobalConfigKey", format!("GlobalFelixConfig(name={name})")),
        FelixKey::HostConfig(node, name) => ("HostConfigKey", format!("HostConfig(node={node},name={name})")),
        FelixKey::HostIp(node) => ("HostIPKey", format!("Node(name={node})")),
        FelixKey::Wireguard(node) => ("WireguardKey", format!("Node(nodename={node})")),
        FelixKey::HostEndpoint(node, name) => {
            ("HostEndpointKey", format!("HostEndpoint(node={node}, name={name})"))
        }
        FelixKey::Workload(path) => ("WorkloadEndpointKey", workload("WorkloadEndpoint(node", path)),
        FelixKey::Policy(name) => ("PolicyKey", format!("Policy(name={name})")),
        FelixKey::ProfileRules(name) => ("ProfileRulesKey", format!("ProfileRules(name={name})")),
        FelixKey::ProfileLabels(name) => ("ProfileLabelsKey", format!("ProfileLabels(name={name})")),
        FelixKey::ProfileTags(name) => ("ProfileTagsKey", format!("ProfileTags(name={name})")),
        FelixKey::NetworkSet(name) => ("NetworkSetKey", format!("NetworkSet(name={name})")),
        FelixKey::Pool(cidr) => ("IPPoolKey", format!("IPPool(cidr={cidr})")),
        FelixKey::Block(cidr) => ("BlockKey", format!("BlockKey(cidr={cidr})")),
        FelixKey::BlockAffinity(node, cidr) => {
            ("BlockAffinityKey", format!("BlockAffinityKey(cidr={cidr}, host={node})"))
        }
        FelixKey::Resource(key) => {
            ("ResourceKey", format!("{}({})", key.kind.map_or("", Kind::name), key.full_name()))
        }
        FelixKey::Status(_, node) => ("ActiveStatusReportKey", format!("StatusReport(hostname={node})")),
        FelixKey::LastStatus(_, node) => ("LastStatusReportKey", format!("StatusReport(hostname={node})")),
        FelixKey::WorkloadStatus(_, path) => {
            ("WorkloadEndpointStatusKey", workload("WorkloadEndpointStatus(hostname", path))
        }
        FelixKey::HostEndpointStatus(node, name) => {
            ("HostEndpointStatusKey", format!("HostEndpointStatus(hostname={node}, name={name})"))
        }
        FelixKey::GlobalBgpConfig(name) => ("GlobalBGPConfigKey", format!("GlobalBGPConfig(name={name})")),
        FelixKey::NodeBgpConfig(node, name) => {
            ("NodeBGPConfigKey", format!("HostBGPConfig(node={node}; name={name})"))
        }
    }
}

fn workload(begin: &str, path: &WorkloadPath) -> String {
    let WorkloadPath { node, orchestrator, workload, endpoint } = path;
    format!("{begin}={node}, orchestrator={orchestrator}, workload={workload}, name={endpoint})")
}
