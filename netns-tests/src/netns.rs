//! Network namespaces with an owner: made with a unique name, entered by closures and child processes, removed on drop.

use crate::cmd;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

/// Every namespace of this crate is called `cnt-<pid>-<n>-<role>`, so that a later run can tell whose leftovers they are.
const PREFIX: &str = "cnt";
static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// One network namespace, deleted (with every interface in it) when the value is dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with loopback up. `role` is a short word for people.
    ///
    /// # Panics
    /// Without root: these tests never skip in silence.
    pub fn new(role: &str) -> Result<Self> {
        assert!(nix::unistd::geteuid().is_root(), "the namespace tests need root: sudo scripts/test.sh");
        SWEEP.call_once(sweep);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{n}-{role}", std::process::id());
        cmd::run(&["ip", "netns", "add", &name])?;
        let ns = Self { name };
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip -n <ns> <words>`; the words are separated by blanks.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut argv = vec!["ip", "-n", &self.name];
        argv.extend(words.split_whitespace());
        cmd::run(&argv)
    }

    /// What the kernel has counted at an interface: `direction` is `rx` or `tx`, `what` one of the numbers of `ip -s -j link`.
    pub fn link_counter(&self, interface: &str, direction: &str, what: &str) -> Result<u64> {
        let links: Value = serde_json::from_str(&self.ip(&format!("-j -s link show dev {interface}"))?)?;
        let counter = links[0]["stats64"][direction][what].as_u64();
        counter.with_context(|| format!("no {direction} {what} of {interface}"))
    }

    /// Runs `argv` inside, to its end; a non-zero exit is an error.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let net = format!("--net={}", self.path().display());
        let mut all = vec!["nsenter", net.as_str(), "--"];
        all.extend(argv);
        cmd::run(&all)
    }

    /// Runs `argv` inside, to its end, whatever the exit code.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        let net = format!("--net={}", self.path().display());
        let mut all = vec!["nsenter", net.as_str(), "--"];
        all.extend(argv);
        cmd::output(&all)
    }

    /// Runs `argv` inside, to its end, with `input` as its standard input; a non-zero exit is an error.
    pub fn run_with(&self, argv: &[&str], input: &str) -> Result<String> {
        let net = format!("--net={}", self.path().display());
        let mut all = vec!["nsenter", net.as_str(), "--"];
        all.extend(argv);
        cmd::run_with(&all, input)
    }

    /// A command that will run inside, in the background, and that dies with the thread that starts it. (`ip netns exec`
    /// would also remount /sys and hide cgroups.)
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program).env("LC_ALL", "C");
        command
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. Sockets made there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let result = std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    join(&path)?;
                    work()
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts `work` on a thread of its own inside the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let path = self.path();
        std::thread::spawn(move || {
            join(&path)?;
            work()
        })
    }

    /// Sets a sysctl such as `net.ipv4.ip_forward`. A dot inside an interface name is written as `/`, as sysctl(8) does.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let swapped: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
        let value = value.to_owned();
        self.enter(move || {
            std::fs::write(format!("/proc/sys/{swapped}"), value).with_context(|| format!("sysctl {swapped}"))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(e) = cmd::run(&["ip", "netns", "del", &self.name]) {
            eprintln!("removing namespace {}: {e:#}", self.name);
        }
    }
}

fn join(path: &std::path::Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("joining {}", path.display()))
}

/// Removes namespaces whose test process is gone: a killed run drops nothing.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        if parts.next() != Some(PREFIX) {
            continue;
        }
        let owner = parts.next().and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            cmd::run(&["ip", "netns", "del", &name]).ok();
        }
    }
}
