//! Pods as Calico lays them: a namespace, a veth, a /32 (and /128) and the gateway 169.254.1.1.

use crate::netns::Netns;
use crate::plan::{self, Subnets};
use crate::store::Store;
use crate::topology::{Host, Topology, offloads_off, prepare};
use anyhow::Result;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The Kubernetes namespace of every pod here.
pub const NAMESPACE: &str = "default";

/// One pod; its veth disappears with its namespace.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace; the interface inside is `eth0`.
    pub ns: Netns,
    /// Name of the host side of the veth.
    pub interface: String,
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address, in dual-stack networks.
    pub v6: Option<Ipv6Addr>,
    /// MAC of `eth0` inside.
    pub mac: String,
    node: String,
    number: u8,
}

impl Pod {
    /// Makes pod `number` of `subnets` on `host` and leaves it to canal: the host side has neither address nor route.
    pub fn new(topology: &Topology, host: &Host, subnets: Subnets, number: u8, mtu: u16) -> Result<Self> {
        let ns = Netns::new(&format!("pod{}x{number}", host.index))?;
        prepare(&ns)?;
        let pod = Self {
            ns,
            interface: format!("cali{:02x}{number:02x}", host.index),
            v4: subnets.pod_v4(number),
            v6: subnets.pod_v6(number),
            mac: format!("02:bb:00:00:{:02x}:{number:02x}", host.index),
            node: host.node(),
            number,
        };
        let interface = &pod.interface;
        host.ns.ip(&format!(
            "link add {interface} address {} mtu {mtu} type veth peer name eth0 address {} mtu {mtu} netns {}",
            plan::GATEWAY_MAC,
            pod.mac,
            pod.ns.name()
        ))?;
        host.ns.ip(&format!("link set {interface} up"))?;
        pod.configure()?;
        if !topology.offloads {
            offloads_off(&pod.ns, "eth0")?;
            offloads_off(&host.ns, interface)?;
        }
        topology.capture(&pod.ns, "eth0")?;
        Ok(pod)
    }

    /// Makes a pod that the host's kernel routes, as on a node that runs flannel and no canal.
    pub fn routed_by_kernel(
        topology: &Topology,
        host: &Host,
        subnets: Subnets,
        number: u8,
        mtu: u16,
    ) -> Result<Self> {
        let pod = Self::new(topology, host, subnets, number, mtu)?;
        let interface = &pod.interface;
        // The gateway address on each host side: the kernel answers for it, no proxying needed.
        host.ns.ip(&format!("addr add {}/32 dev {interface}", plan::GATEWAY_V4))?;
        for address in pod.addresses() {
            host.ns.ip(&format!("route add {address} dev {interface}"))?;
        }
        Ok(pod)
    }

    fn configure(&self) -> Result<()> {
        self.ns.ip(&format!("addr add {}/32 dev eth0", self.v4))?;
        if let Some(v6) = self.v6 {
            self.ns.ip(&format!("addr add {v6}/128 dev eth0 nodad"))?;
        }
        self.ns.ip("link set eth0 up")?;
        self.ns.ip(&format!("route add {} dev eth0 scope link", plan::GATEWAY_V4))?;
        self.ns.ip(&format!("route add default via {} dev eth0", plan::GATEWAY_V4))?;
        if self.v6.is_some() {
            self.ns.ip(&format!("-6 route add default via {} dev eth0", plan::GATEWAY_V6))?;
        }
        Ok(())
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut all = vec![IpAddr::V4(self.v4)];
        all.extend(self.v6.map(IpAddr::V6));
        all
    }

    /// Its address of the same family as `other`.
    ///
    /// # Panics
    /// When an IPv6 address is asked of an IPv4-only pod: a mistake of the test.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        match other {
            IpAddr::V4(_) => IpAddr::V4(self.v4),
            IpAddr::V6(_) => IpAddr::V6(self.v6.expect("a dual-stack pod")),
        }
    }

    /// Name of its workload endpoint: node, orchestrator, pod and interface, joined by dashes.
    pub fn endpoint_name(&self) -> String {
        format!("{}-k8s-pod{}-eth0", self.node, self.number)
    }

    /// Its workload endpoint, as Calico's CNI plugin writes it.
    pub fn endpoint(&self) -> Value {
        let networks: Vec<String> = self
            .addresses()
            .iter()
            .map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 }))
            .collect();
        json!({
            "kind": "WorkloadEndpoint",
            "apiVersion": "projectcalico.org/v3",
            "metadata": {
                "name": self.endpoint_name(),
                "namespace": NAMESPACE,
                "labels": {"projectcalico.org/namespace": NAMESPACE, "projectcalico.org/orchestrator": "k8s"},
            },
            "spec": {
                "orchestrator": "k8s",
                "node": self.node,
                "containerID": format!("{:064x}", self.number),
                "pod": format!("pod{}", self.number),
                "endpoint": "eth0",
                "ipNetworks": networks,
                "profiles": [format!("kns.{NAMESPACE}")],
                "interfaceName": self.interface,
                "mac": self.mac,
            },
        })
    }

    /// Makes the pod known: canal attaches its veth.
    pub fn attach(&self, store: &dyn Store) -> Result<()> {
        store.put_workload(NAMESPACE, &self.endpoint_name(), &self.endpoint())
    }

    /// Takes the pod's endpoint away: canal detaches its veth.
    pub fn detach(&self, store: &dyn Store) -> Result<()> {
        store.delete_workload(NAMESPACE, &self.endpoint_name())
    }
}
