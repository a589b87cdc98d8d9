//! Network sets and what is known of the cluster.

use super::meta::{API_VERSION, KIND, METADATA};
use super::{Object, Shape, TEXT, Type, always, keep, object_of, omit, plain};
use crate::resource::error::Report;
use crate::resource::text;

/// The label that stands for a namespace inside of Felix.
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

const NETS: super::Field = omit("nets", Shape::List(&Shape::Text(text::CIDR)));

pub(super) static NETWORK_SET_SPEC: Type = plain("NetworkSetSpec", &[NETS]);

pub(super) static NETWORK_SET: Type = Type {
    name: "NetworkSet",
    fields: &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&NETWORK_SET_SPEC))],
    check: no_namespace_label,
};

pub(super) static GLOBAL_NETWORK_SET_SPEC: Type = plain("GlobalNetworkSetSpec", &[NETS]);

pub(super) static GLOBAL_NETWORK_SET: Type = Type {
    name: "GlobalNetworkSet",
    fields: &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&GLOBAL_NETWORK_SET_SPEC))],
    check: no_namespace_label,
};

pub(super) static CLUSTER_INFORMATION_SPEC: Type = plain(
    "ClusterInformationSpec",
    &[
        omit("clusterGUID", TEXT),
        omit("clusterType", TEXT),
        omit("calicoVersion", TEXT),
        keep("datastoreReady", Shape::Bool),
        omit("variant", TEXT),
    ],
);

pub(super) static CLUSTER_INFORMATION: Type = plain(
    "ClusterInformation",
    &[KIND, API_VERSION, METADATA, always("spec", Shape::Object(&CLUSTER_INFORMATION_SPEC))],
);

fn no_namespace_label(set: &Object, report: &mut Report) {
    let labels = object_of(set, "metadata").and_then(|meta| object_of(meta, "labels"));
    if labels.is_some_and(|labels| labels.contains_key(NAMESPACE_LABEL)) {
        report.at("metadata", |report| {
            report.at("labels", |report| {
                report.wrong(NAMESPACE_LABEL, "must not be set: a set's namespace gives it")
            });
        });
    }
}
