//! One node of a large cluster: 100,000 endpoints and 10,000 policies in etcd, a hundred of the endpoints this node's own, and
//! two pods that really exist. A policy about the second one decides whether the first one reaches it.

mod documents;
pub mod probe;

use crate::bulk;
use crate::peer::{Forwarder, Peer};
use crate::report::Samples;
use crate::scenario::{Scenario, load, policy_change, updates};
use crate::site::{Plan, Site};
use anyhow::{Context, Result, ensure};
use netns_tests::calico::{Kind, Resource, endpoint, namespace_profile};
use netns_tests::{Canal, CanalOptions, Etcd, KernelPeer, PeerOptions, Pod, Store, Topology, flannel, pod};
use serde_json::{Value, json};

pub use documents::update;

/// MTU of pods.
const POD_MTU: u16 = 1450;
/// Connections the probes may open.
const FLOWS: &str = "1048576";

/// The node, the server, the pods.
pub struct Cluster<'t> {
    /// Who forwards.
    pub peer: Peer,
    /// Where it stands.
    pub topology: &'t Topology,
    /// The datastore.
    pub etcd: Etcd<'t>,
    /// The daemon; `None` for a kernel peer.
    pub canal: Option<Canal<'t>>,
    _kernel: Option<KernelPeer<'t>>,
    /// The pods: who asks, and who is asked.
    pub pods: [Pod; 2],
    /// Workload endpoints.
    pub endpoints: usize,
    /// Policies.
    pub policies: usize,
    /// Bytes of all keys and values of Calico's.
    pub raw: usize,
    /// Bytes resident in the daemon before it knew of any of them.
    pub empty: u64,
    /// Newest revision of what was loaded.
    pub revision: i64,
}

impl<'t> Cluster<'t> {
    /// Fills etcd and starts the node on a topology of one host.
    pub fn up(topology: &'t Topology, peer: &Peer, plan: &Plan) -> Result<Self> {
        let etcd = Etcd::start(topology)?;
        etcd.set_net_conf(&flannel::net_conf(false, &Value::Null))?;
        let (mut canal, mut kernel, mut empty) = (None, None, 0);
        let (host, subnets) = match &peer.forwarder {
            Forwarder::Canal(port) => {
                let options = CanalOptions {
                    port: port.clone(),
                    ..CanalOptions::with(&["--flows-per-workload", FLOWS])
                };
                let node = Canal::start(topology, 0, &etcd, options)?;
                empty = node.resident()?;
                let subnets = node.subnets(&etcd)?;
                (canal.insert(node).host, subnets)
            }
            _ => {
                let node = KernelPeer::new(topology, 0, PeerOptions::default())?;
                let subnets = node.subnets;
                (kernel.insert(node).host, subnets)
            }
        };
        let make = if canal.is_some() { Pod::new } else { Pod::routed_by_kernel };
        let pods = [make(topology, host, subnets, 2, POD_MTU)?, make(topology, host, subnets, 3, POD_MTU)?];
        let (endpoints, policies) = plan.scale((100_000, 10_000), (2_000, 200));
        let entries = documents::cluster(endpoints, policies, &host.node());
        let raw = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        bulk::write_all(topology, &etcd, &entries)?;
        let mut own: Vec<(String, String)> = [namespace_profile(), verdict(true)].map(|r| entry(&r)).to_vec();
        for (pod, role) in pods.iter().zip(["client", "server"]) {
            own.push((documents::workload_key(pod::NAMESPACE, &pod.endpoint_name()), {
                endpoint(pod, &[("role", role)], &[]).to_string()
            }));
        }
        let revision = bulk::write_all(topology, &etcd, &own)?;
        let cluster = Self {
            peer: peer.clone(),
            topology,
            etcd,
            canal,
            _kernel: kernel,
            pods,
            endpoints,
            policies,
            raw,
            empty,
            revision,
        };
        cluster.wait_loaded()?;
        Ok(cluster)
    }

    /// The daemon.
    pub fn daemon(&mut self) -> Result<&mut Canal<'t>> {
        self.canal.as_mut().context("no daemon")
    }

    /// Waits until the daemon enforces all that was loaded.
    pub fn wait_loaded(&self) -> Result<()> {
        let Some(canal) = &self.canal else { return Ok(()) };
        let (code, said) = canal.wait_revision(self.revision.unsigned_abs(), "100s")?;
        ensure!(code == Some(0), "canal wait: {said}");
        Ok(())
    }
}

impl Site for Cluster<'_> {
    fn measure(&mut self, scenario: Scenario, plan: &Plan, samples: &mut Samples) -> Result<()> {
        match scenario {
            Scenario::PolicyChange => policy_change::measure(self, plan, samples),
            Scenario::Load => load::measure(self, samples),
            Scenario::Updates => updates::measure(self, plan, samples),
            other => unreachable!("{other} is measured elsewhere"),
        }
    }
}

/// The policy about the server: UDP from the client passes or does not.
pub fn verdict(allow: bool) -> Resource {
    let action = if allow { "Allow" } else { "Deny" };
    let spec = json!({
        "selector": "role == 'server'",
        "types": ["Ingress"],
        "ingress": [{"action": action, "protocol": "UDP", "source": {"selector": "role == 'client'"}}],
    });
    Resource::global(Kind::GlobalNetworkPolicy, "default.verdict", spec)
}

/// Key and value.
pub fn entry(resource: &Resource) -> (String, String) {
    (resource.key(), resource.value().to_string())
}
