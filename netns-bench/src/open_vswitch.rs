//! Open vSwitch in user space (Debian's package `openvswitch-switch`): AF_XDP ports on both interfaces, a VXLAN port, flows in
//! OpenFlow. Started in the host's namespace, with database and sockets of its own; nothing is left when it ends.

use crate::machine::FORWARDER_CORE;
use crate::packets::{Ends, template};
use crate::rules::{Policies, openflow};
use anyhow::{Context, Result, ensure};
use netns_tests::cmd::{self, Background};
use netns_tests::frames::mac_text;
use netns_tests::plan::VXLAN_PORT;
use netns_tests::topology::Host;
use netns_tests::{Topology, wait};
use nix::sys::signal::Signal;
use openflow::{Actions, POD_PORT, TUNNEL_PORT};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where Debian keeps the database's form.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Connections there is room for.
const CONNECTIONS: usize = super::line::CONNECTIONS;

/// The switch; its processes end with the value, and what they made ends with them.
#[derive(Debug)]
pub struct OpenVSwitch<'t> {
    switch: Background,
    _database: Background,
    dir: PathBuf,
    host: &'t Host,
}

/// Whether the package is there.
pub fn is_installed() -> bool {
    Path::new(SCHEMA).exists()
        && Command::new("ovs-vswitchd")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

impl<'t> OpenVSwitch<'t> {
    /// Starts it between the pod behind `interface` and `eth0`.
    pub fn start(
        topology: &'t Topology,
        interface: &str,
        ends: &Ends,
        policies: Option<&Policies>,
    ) -> Result<Self> {
        let host = &topology.hosts[0];
        let dir = topology.evidence.dir("ovs")?;
        let place = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let database = place("conf.db");
        cmd::run(&["ovsdb-tool", "create", &database, SCHEMA])?;
        let socket = format!("punix:{}", place("db.sock"));
        let _database =
            daemon(host, &dir, "ovsdb-server", &[&database, &format!("--remote={socket}"), "--no-chdir"])?;
        wait::until("the switch's database", wait::SOON, || Ok(dir.join("db.sock").exists()))?;
        // What tells the database how the switch is to be waits for it until it is so.
        let configure = |words: &str| vsctl(&dir, &format!("--no-wait {words}"));
        configure("init")?;
        configure(&format!("set Open_vSwitch . other_config:pmd-cpu-mask={:#x}", 1 << FORWARDER_CORE))?;
        let database = format!("unix:{}", place("db.sock"));
        let switch = daemon(host, &dir, "ovs-vswitchd", &[&database, "--no-chdir"])?;
        let switch = Self { switch, _database, dir, host };
        switch.add_ports(interface, ends)?;
        switch.add_flows(ends, policies)?;
        Ok(switch)
    }

    fn add_ports(&self, interface: &str, ends: &Ends) -> Result<()> {
        // The underlay's address moves to the bridge: the switch routes tunnels by way of its own ports only.
        self.host.ns.ip("addr flush dev eth0")?;
        let afxdp = "type=afxdp options:n_rxq=1 options:xdp-mode=native";
        let mac = self.host.mac();
        vsctl(
            &self.dir,
            &format!(
                "--timeout=20 add-br br-phy -- set bridge br-phy datapath_type=netdev other_config:hwaddr={mac} \
                 -- add-port br-phy eth0 -- set interface eth0 {afxdp} \
                 -- add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=secure \
                 -- add-port br-int {interface} -- set interface {interface} {afxdp} ofport_request={POD_PORT} \
                 -- add-port br-int vxlan0 -- set interface vxlan0 type=vxlan options:remote_ip={} options:local_ip={} \
                 options:key={} options:dst_port={VXLAN_PORT} ofport_request={TUNNEL_PORT}",
                ends.remote_vtep,
                ends.vtep,
                template::VNI,
            ),
        )?;
        for name in ["eth0", interface] {
            let error = vsctl(&self.dir, &format!("get interface {name} error"))?;
            ensure!(error.trim() == "[]", "Open vSwitch on {name}: {error}");
        }
        self.host.ns.ip(&format!("addr add {}/24 dev br-phy", ends.vtep))?;
        self.host.ns.ip("link set br-phy up")?;
        Ok(())
    }

    fn add_flows(&self, ends: &Ends, policies: Option<&Policies>) -> Result<()> {
        let next_hop = mac_text(ends.remote_underlay_mac);
        self.tell(&["tnl/neigh/set", "br-phy", &ends.remote_vtep.to_string(), &next_hop])?;
        self.tell(&["dpctl/ct-set-maxconns", &CONNECTIONS.to_string()])?;
        let route = |from: &str, to: &str, port: u16| {
            format!("set_field:{from}->eth_src,set_field:{to}->eth_dst,dec_ttl,output:{port}")
        };
        let actions = Actions {
            out: route(&mac_text(ends.vtep_mac), &mac_text(ends.remote_vtep_mac), TUNNEL_PORT),
            into: route(&mac_text(ends.router_mac), &mac_text(ends.pod_mac), POD_PORT),
        };
        let flows = openflow::flows(ends.pod, &actions, policies);
        let bridge = format!("unix:{}", self.dir.join("br-int.mgmt").display());
        cmd::run_with(&["ovs-ofctl", "add-flows", &bridge, "-"], &flows).map(drop).context("the flows")
    }

    fn tell(&self, words: &[&str]) -> Result<String> {
        let socket = self.dir.join("ovs-vswitchd.ctl").to_string_lossy().into_owned();
        cmd::run(&[&["ovs-appctl", "-t", &socket], words].concat())
    }

    /// Its forwarding thread never sleeps by itself: asleep, it is stopped.
    pub fn set_awake(&mut self, awake: bool) -> Result<()> {
        self.switch.signal(if awake { Signal::SIGCONT } else { Signal::SIGSTOP })
    }
}

/// Starts one of the two processes, in the foreground.
fn daemon(host: &Host, dir: &Path, name: &str, words: &[&str]) -> Result<Background> {
    let control = dir.join(format!("{name}.ctl"));
    let mut command = host.ns.command(name);
    command.args(words).arg(format!("--unixctl={}", control.display()));
    command.arg(format!("--log-file={}", dir.join(format!("{name}.log")).display()));
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, dir);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = Background::start(name, &mut command)?;
    wait::until(&format!("{name} answers"), Duration::from_secs(20), || {
        ensure!(process.is_running(), "{name} has ended");
        Ok(control.exists())
    })?;
    Ok(process)
}

fn vsctl(dir: &Path, words: &str) -> Result<String> {
    let database = format!("--db=unix:{}", dir.join("db.sock").display());
    let mut argv = vec!["ovs-vsctl", &database];
    argv.extend(words.split_whitespace());
    cmd::run(&argv)
}
