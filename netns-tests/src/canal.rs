//! The daemon under test: started in a host's namespace, asked over its socket, ended in every way there is.

use crate::cmd::{self, Background};
use crate::evidence::{self, Evidence};
use crate::flannel::Lease;
use crate::plan::Subnets;
use crate::store::Store;
use crate::topology::{Host, Topology};
use crate::{admin, wait};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Everything `canal show` can be asked for.
const SHOWN: [&str; 15] = [
    "ports",
    "endpoints",
    "policies",
    "profiles",
    "ipsets",
    "routes",
    "gateways",
    "vteps",
    "fdb",
    "flows",
    "denied",
    "drops",
    "workers",
    "generation",
    "config",
];

/// Lines of its log shown on the terminal when a test fails; the whole of it is in the evidence.
const TAIL_LINES: usize = 60;

/// A tick of `/proc/PID/stat`: the kernel's USER_HZ is 100 wherever canal runs.
const TICK_MS: u64 = 10;

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct CanalOptions {
    /// `--port`: `auto`, `tap`, `udp` or `af-xdp`.
    pub port: String,
    /// `--workers`.
    pub workers: usize,
    /// Further arguments.
    pub extra: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
}

impl Default for CanalOptions {
    /// The port named by `CANAL_TEST_PORT`, else `auto`; one worker (the machine has two cores and two daemons).
    fn default() -> Self {
        let port = std::env::var("CANAL_TEST_PORT").unwrap_or_else(|_| "auto".to_owned());
        Self { port, workers: 1, extra: Vec::new(), env: Vec::new() }
    }
}

impl CanalOptions {
    /// The default with further arguments.
    pub fn with(words: &[&str]) -> Self {
        Self { extra: words.iter().map(|w| (*w).to_owned()).collect(), ..Self::default() }
    }
}

/// A canal node. What it wrote stays over restarts; the process ends with the value.
#[derive(Debug)]
pub struct Canal<'t> {
    /// The host it runs on.
    pub host: &'t Host,
    options: CanalOptions,
    store_args: Vec<String>,
    process: Option<Background>,
    dir: PathBuf,
    evidence: Arc<Evidence>,
}

impl<'t> Canal<'t> {
    /// Starts the daemon on host `index` and waits until it says that it is ready.
    pub fn start(
        topology: &'t Topology,
        index: usize,
        store: &dyn Store,
        options: CanalOptions,
    ) -> Result<Self> {
        let mut canal = Self::prepare(topology, index, store, options)?;
        canal.launch()?;
        canal.wait_ready(wait::SOON)?;
        Ok(canal)
    }

    /// Prepares the node without starting it.
    pub fn prepare(
        topology: &'t Topology,
        index: usize,
        store: &dyn Store,
        options: CanalOptions,
    ) -> Result<Self> {
        let host = &topology.hosts[index];
        let evidence = Arc::clone(&topology.evidence);
        let dir = evidence.dir(&format!("h{index}"))?;
        Ok(Self { host, options, store_args: store.daemon_args(), process: None, dir, evidence })
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("run/canal.sock")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("canal.log")
    }

    /// Path of the `subnet.env` it writes.
    pub fn subnet_file(&self) -> PathBuf {
        self.dir.join("subnet.env")
    }

    /// Directory of what it keeps over restarts.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Starts the process and does not wait for anything.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "it runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.host.ns.command(binary("canal-fwd")?);
        command.args(["--iface", "eth0", "--nodename", &self.host.node()]);
        command.args(["--port", &self.options.port, "--workers", &self.options.workers.to_string()]);
        command.args(&self.store_args);
        for (flag, path) in [("--run-dir", "run"), ("--state-dir", "state"), ("--subnet-file", "subnet.env")]
        {
            command.arg(flag).arg(self.dir.join(path));
        }
        command.args(&self.options.extra);
        command.envs(self.options.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(Background::start("canal-fwd", &mut command)?);
        Ok(())
    }

    /// Waits until `canal status` is content.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let result = wait::until("canal ready", limit, || {
            ensure!(self.is_running(), "canal-fwd has ended");
            self.status()?;
            Ok(true)
        });
        result.with_context(|| format!("on {}", self.host.node()))
    }

    /// True while the process lives.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Background::is_running)
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Background::pid)
    }

    /// Bytes of memory it has resident (`VmRSS`).
    pub fn resident(&self) -> Result<u64> {
        let pid = self.pid().context("it does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        Ok(kib * 1024)
    }

    /// Processor time that its threads of this name have used so far.
    pub fn thread_time(&self, name: &str) -> Result<Duration> {
        let pid = self.pid().context("it does not run")?;
        let mut total = Duration::ZERO;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim() == name {
                // Nanoseconds on a processor, waiting for one, and how often.
                let spent = std::fs::read_to_string(task.join("schedstat"))?;
                let spent = spent.split(' ').next().context("schedstat")?.parse()?;
                total += Duration::from_nanos(spent);
            }
        }
        Ok(total)
    }

    /// Processor time that all its threads have used so far, also those that have ended, to the kernel's tick.
    pub fn processor_time(&self) -> Result<Duration> {
        let pid = self.pid().context("it does not run")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which may hold anything: the 14th and the 15th field of proc(5) are the 12th and 13th.
        let (_, fields) = stat.rsplit_once(") ").context("stat")?;
        let spent = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = spent.sum::<Result<_, _>>().context("utime, stime")?;
        Ok(Duration::from_millis(ticks * TICK_MS))
    }

    /// SIGTERM, and its exit status.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("it does not run")?;
        process.terminate(Duration::from_secs(10))
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("it does not run")?;
        process.signal(Signal::SIGKILL)?;
        process.kill();
        Ok(())
    }

    /// Waits for the process to end by itself; `None` when it goes on.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.process.as_mut().context("it does not run")?.wait(limit)
    }

    /// Starts it again after an end, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready(wait::SOON)
    }

    fn ask(&self, words: &[&str]) -> Result<Output> {
        let program = binary("canal")?.to_string_lossy().into_owned();
        let socket = self.socket().to_string_lossy().into_owned();
        let mut argv = vec![program.as_str(), "--socket", &socket];
        argv.extend(words);
        cmd::output(&argv)
    }

    /// Answer of `canal show <what> -o json`.
    pub fn show(&self, what: &str) -> Result<Value> {
        let answer = self.ask(&["show", what, "-o", "json"])?;
        let stderr = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.status.success(), "canal show {what}: {stderr}");
        serde_json::from_slice(&answer.stdout).with_context(|| format!("canal show {what}"))
    }

    /// Answer of `canal show flows -o json` with further words.
    pub fn flows(&self, words: &[&str]) -> Result<Value> {
        let words = [&["show", "flows", "-o", "json"], words].concat();
        let answer = self.ask(&words)?;
        let stderr = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.status.success(), "{words:?}: {stderr}");
        serde_json::from_slice(&answer.stdout).with_context(|| format!("{words:?}"))
    }

    /// `canal monitor -o json` in the background, and the file that it writes to.
    pub fn monitor(&self) -> Result<(Background, PathBuf)> {
        let path = self.dir.join("monitor.json");
        let mut command = Command::new(binary("canal")?);
        command.arg("--socket").arg(self.socket()).args(["monitor", "-o", "json"]);
        command.stdin(Stdio::null()).stdout(File::create(&path)?);
        Ok((Background::start("canal monitor", &mut command)?, path))
    }

    /// Answer of `canal show <what>` for people.
    pub fn show_table(&self, what: &str) -> Result<String> {
        let answer = self.ask(&["show", what])?;
        ensure!(answer.status.success(), "canal show {what}: {}", String::from_utf8_lossy(&answer.stderr));
        Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
    }

    /// `canal status -o json` when it is content; its words otherwise as the error.
    pub fn status(&self) -> Result<Value> {
        let answer = self.ask(&["status", "-o", "json"])?;
        let said = String::from_utf8_lossy(&answer.stdout);
        ensure!(answer.status.success(), "canal status: {said}{}", String::from_utf8_lossy(&answer.stderr));
        serde_json::from_slice(&answer.stdout).context("canal status")
    }

    /// Exit code and whole text of `canal status -o json`, for the tests of a degraded daemon.
    pub fn status_text(&self) -> Result<(Option<i32>, String)> {
        self.status_of(&["status", "-o", "json"])
    }

    /// The same for people.
    pub fn status_table(&self) -> Result<(Option<i32>, String)> {
        self.status_of(&["status"])
    }

    fn status_of(&self, words: &[&str]) -> Result<(Option<i32>, String)> {
        let answer = self.ask(words)?;
        let text = [answer.stdout, answer.stderr].concat();
        Ok((answer.status.code(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// Exit code and answer of `canal trace … -o json`; what it said instead of an answer is the error.
    pub fn trace(&self, words: &[&str]) -> Result<(Option<i32>, Value)> {
        let words = [&["trace", "-o", "json"], words].concat();
        let answer = self.ask(&words)?;
        let stderr = String::from_utf8_lossy(&answer.stderr);
        let report =
            serde_json::from_slice(&answer.stdout).with_context(|| format!("{words:?}: {stderr}"))?;
        Ok((answer.status.code(), report))
    }

    /// Exit code and text of `canal wait --rev`.
    pub fn wait_revision(&self, revision: u64, timeout: &str) -> Result<(Option<i32>, String)> {
        self.status_of(&["wait", "--rev", &revision.to_string(), "--timeout", timeout])
    }

    /// Drop counters by reason.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>> {
        Ok(admin::drops(&self.show("drops")?))
    }

    /// AF_XDP sockets, by worker and interface.
    pub fn xdp_ports(&self) -> Result<Vec<Value>> {
        let ports = self.show("ports")?;
        let ports = ports.as_array().context("no list of ports")?;
        Ok(ports.iter().filter(|port| port["kind"] == "af-xdp").cloned().collect())
    }

    /// All packets that the daemon says are lost: dropped for a reason, or not to be received or sent by a port.
    pub fn lost(&self) -> Result<u64> {
        let ports = self.show("ports")?;
        let ports = ports.as_array().context("no list of ports")?.iter();
        let fields = ["rx_dropped", "tx_full", "tx_errors"];
        let by_ports: u64 =
            ports.flat_map(|port| fields.map(|field| port[field].as_u64().unwrap_or(0))).sum();
        Ok(by_ports + self.drops()?.values().sum::<u64>())
    }

    /// Runs `work` and waits until the drop counters of `reasons` have together grown by `least` or more.
    pub fn expect_drops(
        &self,
        reasons: &[&str],
        least: u64,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let before = self.drops()?;
        work()?;
        let mut grown = BTreeMap::new();
        let counted = wait::until(&format!("{least} drops for {reasons:?}"), Duration::from_secs(5), || {
            grown = admin::growth(&before, &self.drops()?);
            Ok(reasons.iter().filter_map(|r| grown.get(*r)).sum::<u64>() >= least)
        });
        counted.with_context(|| format!("what grew: {grown:?}"))
    }

    /// The lease it holds, found by its public address.
    pub fn lease(&self, store: &dyn Store) -> Result<Lease> {
        let mine = store.leases()?.into_iter().find(|l| l.public_v4 == self.host.v4);
        mine.with_context(|| format!("no lease of {}", self.host.v4))
    }

    /// The subnets it holds.
    pub fn subnets(&self, store: &dyn Store) -> Result<Subnets> {
        Ok(self.lease(store)?.subnets)
    }

    /// Everything it has written to its log.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Waits until `canal show endpoints` names `interface`, or no longer does. If so, by the number that it has now: the
    /// daemon hears of an interface that has taken over another's name a moment later.
    pub fn wait_endpoint(&self, interface: &str, present: bool) -> Result<()> {
        wait::until(&format!("endpoint {interface} present={present}"), wait::SOON, || {
            let index = self.host.ns.enter(|| Ok(nix::net::if_::if_nametoindex(interface).ok()))?;
            let shown = self.show("endpoints")?;
            let endpoints = shown.as_array().context("no list of endpoints")?;
            let named = endpoints.iter().find(|endpoint| endpoint["interface"] == interface);
            Ok(match named {
                Some(endpoint) => present && endpoint["ifindex"].as_u64() == index.map(u64::from),
                None => !present,
            })
        })
    }

    /// Waits until `canal show vteps` names `address`, or no longer does.
    pub fn wait_vtep(&self, address: &str, present: bool) -> Result<()> {
        let quoted = format!("\"{address}\"");
        wait::until(&format!("VTEP {address} present={present}"), wait::SOON, || {
            Ok(self.show("vteps")?.to_string().contains(&quoted) == present)
        })
    }
}

impl Drop for Canal<'_> {
    fn drop(&mut self) {
        if self.evidence.passed() {
            return;
        }
        if self.is_running() {
            let mut text = String::new();
            for what in SHOWN {
                let shown = self.show_table(what).unwrap_or_else(|e| format!("{e:#}"));
                text.push_str(&format!("== canal show {what}\n{shown}\n"));
            }
            self.evidence.note(&format!("{}.show", self.host.node()), &text);
            eprintln!("{text}");
        }
        self.evidence.print_tail(&format!("canal-fwd on {}", self.host.node()), &self.log(), TAIL_LINES);
    }
}

/// A binary of this project: from `CANAL_BIN_DIR`, else beside this test program, else of the release build.
///
/// # Errors
/// When it has not been built: never a reason to skip.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CANAL_BIN_DIR") {
        let path = PathBuf::from(dir).join(name);
        ensure!(path.exists(), "{} does not exist", path.display());
        return Ok(path);
    }
    let places = [evidence::profile_dir()?, evidence::target_dir()?.join("release")];
    let found = places.iter().map(|dir| dir.join(name)).find(|path| path.exists());
    found.with_context(|| format!("{name} is not built: cargo build --release, or set CANAL_BIN_DIR"))
}
