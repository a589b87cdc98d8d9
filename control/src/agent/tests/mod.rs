//! Stories of a node, told against a datastore in memory, a kernel in memory and an edge that only takes notes.
//! Time is tokio's paused clock: an hour takes no time at all.

mod announcements;
mod calico_network;
mod felix;
mod joining;
mod lease;
mod living;
mod outage;
mod policy;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use canal_dataplane::spec::{NodeSpec, Via};
use canal_dataplane::tables::{Publisher, Reader, Tables};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::datastore::memory::Memory;
use crate::datastore::{Datastore, Expect, KeyValue, Written};
use crate::edge::{EdgeError, EdgeFailure, EdgePlan, EdgeReport};
use crate::host::fake::{FakeKernel, address, link};
use crate::host::{Error as HostError, External, HostView, Kernel, RouteTo, select};
use crate::model::calico::WorkloadKey;
use crate::status::Reason;

const VXLAN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
const CONFIG: &str = "/coreos.com/network/config";
const DAY: Duration = Duration::from_secs(86_400);

/// A lease of a vxlan node.
fn vxlan_lease(public_ip: &str, mac: u8) -> String {
    format!(
        r#"{{"PublicIP":"{public_ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{mac:02x}"}}}}"#
    )
}

fn lease_key(subnet: &str) -> String {
    format!("/coreos.com/network/subnets/{subnet}")
}

fn workload_key(name: &str) -> String {
    WorkloadKey::new("default", &format!("n1-k8s-{name}-eth0")).key()
}

fn workload(interface: &str, address: &str) -> String {
    format!(r#"{{"spec":{{"node":"n1","interfaceName":"{interface}","ipNetworks":["{address}/32"]}}}}"#)
}

/// A host in memory: `eth0` at 192.0.2.1/24, and `canal0`, which somebody has opened.
struct FakeHost {
    kernel: FakeKernel,
    views: watch::Sender<Arc<HostView>>,
}

impl FakeHost {
    fn new() -> Arc<Self> {
        let mut own = link(9, "canal0");
        own.kind = Some("tun".into());
        own.up = false;
        let view = HostView {
            links: vec![link(2, "eth0"), own],
            addresses: vec![address(2, "192.0.2.1/24")],
            routes: vec![],
        };
        Arc::new(Self { views: watch::Sender::new(Arc::new(view.clone())), kernel: FakeKernel::new(view) })
    }

    /// Another program changes the host, and the kernel says so.
    fn change(&self, f: impl FnOnce(&mut HostView)) {
        let mut state = self.kernel.state();
        f(&mut state);
        self.views.send_replace(Arc::new(state.clone()));
    }

    fn add_veth(&self, index: u32, name: &str) {
        let mut veth = link(index, name);
        veth.kind = Some("veth".into());
        self.change(|view| view.links.push(veth));
    }
}

#[async_trait]
impl Host for FakeHost {
    fn views(&self) -> watch::Receiver<Arc<HostView>> {
        self.views.subscribe()
    }

    fn kernel(&self) -> &dyn Kernel {
        &self.kernel
    }

    async fn select(&self, wanted: &Wanted, view: &HostView) -> Result<External, SelectError> {
        select(wanted, view, None)
    }

    async fn route_to(&self, ip: IpAddr) -> Result<RouteTo, HostError> {
        let near = matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [192, 0, 2]);
        let gateway = (!near).then(|| [192, 0, 2, 254].into());
        Ok(RouteTo { ifindex: 2, gateway, prefsrc: None, local: false })
    }
}

/// What the edge was asked for.
#[derive(Default)]
struct Notes {
    plans: Vec<EdgePlan>,
    /// For each plan: the generation in force, and whether every workload in it was in the tables by then.
    seen: Vec<(u64, bool)>,
    refuse: bool,
    fail_underlay: bool,
    again: Option<Duration>,
}

struct FakeEdge {
    notes: Arc<Mutex<Notes>>,
    tables: Reader,
}

#[async_trait]
impl Edge for FakeEdge {
    async fn apply(&mut self, plan: &EdgePlan) -> Result<EdgeReport, EdgeError> {
        let mut notes = self.notes.lock().unwrap();
        let tables = self.tables.load();
        let known = plan.workloads.iter().all(|ifindex| tables.endpoint_at(*ifindex).is_some());
        notes.plans.push(plan.clone());
        notes.seen.push((tables.generation, known));
        if notes.refuse {
            return Err(EdgeError("no BPF here".into()));
        }
        let failure = EdgeFailure { ifindex: 2, underlay: true, why: "busy".into() };
        let failed = if notes.fail_underlay { vec![failure] } else { vec![] };
        Ok(EdgeReport { workloads: plan.workloads.clone(), failed, again: notes.again })
    }
}

/// One node's world.
struct World {
    store: Memory,
    host: Arc<FakeHost>,
    edge: Arc<Mutex<Notes>>,
    files: tempfile::TempDir,
    wanted: Wanted,
    gateways: Vec<String>,
    policy: PolicyMode,
    felix: Local,
    start: tokio::time::Instant,
}

/// A running agent.
struct Node {
    observer: Observer,
    tables: Reader,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), AgentError>>,
}

impl World {
    fn new() -> Self {
        Self {
            store: Memory::new(),
            host: FakeHost::new(),
            edge: Arc::default(),
            files: tempfile::tempdir().unwrap(),
            wanted: Wanted { ifaces: vec!["eth0".into()], ..Wanted::default() },
            gateways: Vec::new(),
            policy: PolicyMode::Auto,
            felix: Local::default(),
            start: tokio::time::Instant::now(),
        }
    }

    async fn with_config(config: &str) -> Self {
        let world = Self::new();
        world.put(CONFIG, config).await;
        world
    }

    async fn put(&self, key: &str, value: &str) {
        let written = self.store.put(key, value.as_bytes(), Expect::Anything, None).await.unwrap();
        assert!(matches!(written, Written::At(_)));
    }

    async fn delete(&self, key: &str) {
        self.store.delete(key, Expect::Anything).await.unwrap();
    }

    async fn get(&self, key: &str) -> Option<KeyValue> {
        let listed = self.store.list(key).await.unwrap();
        listed.entries.into_iter().find(|entry| entry.key == key)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn subnet_env(&self) -> String {
        std::fs::read_to_string(self.path("subnet.env")).unwrap_or_default()
    }

    fn start(&self) -> Node {
        self.start_on(Arc::new(self.store.clone()))
    }

    fn start_on(&self, store: Arc<dyn Datastore>) -> Node {
        let options = Options {
            nodename: "n1".into(),
            prefix: Prefix::default(),
            wanted: self.wanted.clone(),
            device: "canal0".into(),
            gateways: self.gateways.clone(),
            gateway_announce: true,
            settings: Settings::default(),
            policy: self.policy,
            felix: self.felix.clone(),
            subnet_file: self.path("subnet.env"),
            identity_file: self.path("identity.json"),
            snapshot_file: self.path("state"),
            renew_margin: RenewMargin::default(),
            ip_masq: false,
            seed: 1,
        };
        let publisher = Publisher::new(Tables::closed());
        let tables = publisher.reader();
        let edge = FakeEdge { notes: Arc::clone(&self.edge), tables: publisher.reader() };
        let (agent, observer) = Agent::new(options, store, self.host.clone(), Box::new(edge), publisher);
        let start = self.start;
        let agent = agent.with_clock(Arc::new(move || start.elapsed()));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(agent.run(async {
            let _ = stopped.await;
        }));
        Node { observer, tables, stop: Some(stop), task }
    }

    /// Lets time pass for the node and for the datastore's leases alike.
    async fn pass(&self, time: Duration) {
        let step = Duration::from_secs(60);
        let mut left = time;
        while !left.is_zero() {
            let now = left.min(step);
            tokio::time::sleep(now).await;
            self.store.advance(now);
            left -= now;
        }
    }

    /// The own lease's key, told by the node's address.
    async fn own_lease(&self) -> Option<KeyValue> {
        let listed = self.store.list("/coreos.com/network/subnets/").await.unwrap();
        let ours = |entry: &KeyValue| String::from_utf8_lossy(&entry.value).contains(r#""192.0.2.1""#);
        listed.entries.into_iter().find(ours)
    }
}

impl Node {
    fn status(&self) -> Status {
        self.observer.status.borrow().clone()
    }

    fn codes(&self) -> Vec<&'static str> {
        self.status().degraded.iter().map(Reason::code).collect()
    }

    fn spec(&self) -> Arc<NodeSpec> {
        Arc::clone(&self.observer.specs.borrow().spec)
    }

    fn via(&self, prefix: &str) -> Option<Via> {
        let prefix = prefix.parse().unwrap();
        self.spec().routes.iter().find(|route| route.prefix == prefix).map(|route| route.via.clone())
    }

    fn reaches(&self, prefix: &str, outer: &str) -> bool {
        self.via(prefix) == Some(Via::Vtep(outer.parse().unwrap()))
    }

    /// Waits, at most an hour, until the status is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) {
        let hour = Duration::from_secs(3600);
        let met = self.observer.status.wait_for(|status| wanted(status));
        let met = matches!(tokio::time::timeout(hour, met).await, Ok(Ok(_)));
        assert!(met, "never {what}: {:#?}", self.status());
    }

    async fn until_ready(&mut self) {
        self.until("ready", |status| status.ready).await;
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        (&mut self.task).await.unwrap().unwrap();
    }
}

/// Time for everything that is under way to have its effect.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
