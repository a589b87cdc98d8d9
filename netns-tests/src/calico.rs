//! Calico's resources, as calicoctl and Calico's controllers write them into etcd.

use crate::etcd::Etcd;
use crate::pod::Pod;
use anyhow::Result;
use serde_json::{Map, Value, json};

const PREFIX: &str = "/calico/resources/v3/projectcalico.org";

/// Kinds that the tests write: kind, and what its keys are called.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Rules for the pods of one namespace.
    NetworkPolicy,
    /// Rules for pods of all namespaces.
    GlobalNetworkPolicy,
    /// Labels and rules that endpoints inherit.
    Profile,
    /// Addresses with labels, for all namespaces.
    GlobalNetworkSet,
    /// One of the hosts' own interfaces.
    HostEndpoint,
    /// Groups of policies that are asked one after another.
    Tier,
    /// Felix's settings.
    FelixConfiguration,
    /// Whether the datastore is ready.
    ClusterInformation,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "networkpolicies",
            Self::GlobalNetworkPolicy => "globalnetworkpolicies",
            Self::Profile => "profiles",
            Self::GlobalNetworkSet => "globalnetworksets",
            Self::HostEndpoint => "hostendpoints",
            Self::Tier => "tiers",
            Self::FelixConfiguration => "felixconfigurations",
            Self::ClusterInformation => "clusterinformations",
        }
    }
}

/// A resource by name, with what it says.
#[derive(Clone, Debug)]
pub struct Resource {
    kind: Kind,
    namespace: Option<String>,
    name: String,
    labels: Value,
    spec: Value,
}

impl Resource {
    /// A resource that belongs to no namespace.
    pub fn global(kind: Kind, name: &str, spec: Value) -> Self {
        Self { kind, namespace: None, name: name.to_owned(), labels: json!({}), spec }
    }

    /// A resource of the pods' namespace.
    pub fn namespaced(kind: Kind, name: &str, spec: Value) -> Self {
        Self { namespace: Some(crate::pod::NAMESPACE.to_owned()), ..Self::global(kind, name, spec) }
    }

    /// The same with labels.
    #[must_use]
    pub fn labelled(mut self, labels: Value) -> Self {
        self.labels = labels;
        self
    }

    /// Its key.
    pub fn key(&self) -> String {
        let namespace = self.namespace.as_ref().map_or_else(String::new, |n| format!("{n}/"));
        format!("{PREFIX}/{}/{namespace}{}", self.kind.plural(), self.name)
    }

    /// Its value.
    pub fn value(&self) -> Value {
        let mut metadata = json!({
            "name": self.name,
            "uid": "6d1a5b0e-6f63-4b0c-9c3f-5d6f1b1c0a01",
            "creationTimestamp": "2024-01-02T03:04:05Z",
            "labels": self.labels,
        });
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = json!(namespace);
        }
        json!({
            "kind": format!("{:?}", self.kind),
            "apiVersion": "projectcalico.org/v3",
            "metadata": metadata,
            "spec": self.spec,
        })
    }

    /// Writes it.
    pub fn put(&self, etcd: &Etcd<'_>) -> Result<()> {
        etcd.put(&self.key(), &self.value().to_string())
    }

    /// Deletes it.
    pub fn delete(&self, etcd: &Etcd<'_>) -> Result<()> {
        etcd.delete(&self.key())
    }
}

/// The profile of the pods' namespace, as Calico's controllers write it: everything is allowed, and the namespace's labels
/// are inherited.
pub fn namespace_profile() -> Resource {
    let any = json!([{"action": "Allow", "source": {}, "destination": {}}]);
    let name = crate::pod::NAMESPACE;
    let labels = json!({"pcns.projectcalico.org/name": name});
    let spec = json!({"ingress": any, "egress": any, "labelsToApply": labels});
    Resource::global(Kind::Profile, &format!("kns.{name}"), spec)
}

/// Calico's own sign that its datastore is in use.
pub fn ready(ready: bool) -> Resource {
    let spec = json!({"datastoreReady": ready, "clusterGUID": "abcdef", "clusterType": "canal"});
    Resource::global(Kind::ClusterInformation, "default", spec)
}

/// A pod's endpoint with more labels, and named ports as (name, protocol, number).
pub fn endpoint(pod: &Pod, labels: &[(&str, &str)], ports: &[(&str, &str, u16)]) -> Value {
    let mut endpoint = pod.endpoint();
    let own: Map<String, Value> = labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    if let Some(map) = endpoint["metadata"]["labels"].as_object_mut() {
        map.extend(own);
    }
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}))
        .collect();
    endpoint["spec"]["ports"] = json!(ports);
    endpoint
}
