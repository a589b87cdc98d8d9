//! The machine under the measurement: who runs on which core, with what priority, and what a core has done.
//!
//! Two cores are enough: the forwarder on the first, the ends of the measurement on the last.

use anyhow::{Context, Result, ensure};
use netns_tests::{Netns, cmd, wait};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use std::time::Duration;

/// The core of the forwarder.
pub const FORWARDER_CORE: usize = 0;

/// The core of the generator and of the sinks.
pub fn other_core() -> Result<usize> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > 1, "a generator beside a forwarder needs two cores");
    Ok(cores - 1)
}

/// Other sessions' processes must not take our time: where the kernel groups processes by session, a session as a whole has
/// a priority. Without that there is nothing to raise.
pub fn raise_session() {
    nix::unistd::setsid().ok();
    std::fs::write("/proc/self/autogroup", "-19").ok();
}

/// A process that only stands in for other machines runs when nobody else wants to.
pub fn idle_process(pid: i32) -> Result<()> {
    cmd::run(&["chrt", "--all-tasks", "--idle", "--pid", "0", &pid.to_string()]).map(drop)
}

/// As before [`idle_process`].
pub fn ordinary_process(pid: i32) -> Result<()> {
    cmd::run(&["chrt", "--all-tasks", "--other", "--pid", "0", &pid.to_string()]).map(drop)
}

/// The calling thread runs from now on when nobody else wants to.
pub fn idle_thread() -> Result<()> {
    cmd::run(&["chrt", "--idle", "--pid", "0", &nix::unistd::gettid().to_string()]).map(drop)
}

/// Time a core has spent, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct CoreTime {
    busy: u64,
    total: u64,
}

impl CoreTime {
    /// What `core` has spent since the start of the machine.
    pub fn now(core: usize) -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let name = format!("cpu{core}");
        let line = text.lines().find(|line| line.split(' ').next() == Some(&name)).context("no such core")?;
        Self::parse(line).context("/proc/stat")
    }

    /// Fields of proc(5): user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in those already.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<u64> =
            line.split_whitespace().skip(1).take(8).map_while(|f| f.parse().ok()).collect();
        let total: u64 = fields.iter().sum();
        Some(Self { busy: total - fields.get(3)? - fields.get(4)?, total })
    }

    /// The part of the time since `before` in which the core worked.
    pub fn busy_since(&self, before: &Self) -> f64 {
        (self.busy - before.busy) as f64 / (self.total - before.total).max(1) as f64
    }
}

/// Writes attributes of `/sys/class/net/<interface>`, which shows the namespace it was mounted from.
fn set_device(ns: &Netns, interface: &str, attributes: &[(&str, &str)]) -> Result<()> {
    ns.enter(|| {
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), nothing).context("mounting /sys")?;
        for (name, value) in attributes {
            let path = format!("/sys/class/net/{interface}/{name}");
            std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))?;
        }
        Ok(())
    })
}

/// How urgent a receiving thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Before all ordinary threads.
    First,
    /// As the most urgent of the ordinary ones.
    Ordinary,
}

/// How an interface receives. The kernel may keep its threads for later when they are not wanted.
#[derive(Debug)]
pub struct Receivers {
    interface: String,
    threads: Vec<i32>,
}

impl Receivers {
    /// Of `interface`, as the kernel does it by itself.
    pub fn new(interface: &str) -> Self {
        Self { interface: interface.to_owned(), threads: Vec::new() }
    }

    /// Gives the interface, which is in `ns`, threads of its own on `core`.
    pub fn on_core(&mut self, ns: &Netns, core: usize, urgency: Urgency) -> Result<()> {
        let before = receivers(&self.interface)?;
        self.set(ns, &[("threaded", "1")])?;
        wait::until("threads that receive", Duration::from_secs(5), || {
            let now = receivers(&self.interface)?;
            let fresh: Vec<i32> = now.iter().copied().filter(|pid| !before.contains(pid)).collect();
            self.threads.retain(|pid| now.contains(pid));
            self.threads.extend(fresh);
            Ok(!self.threads.is_empty())
        })?;
        let mut set = CpuSet::new();
        set.set(core)?;
        for pid in &self.threads {
            sched_setaffinity(Pid::from_raw(*pid), &set)?;
            let pid = pid.to_string();
            match urgency {
                Urgency::First => cmd::run(&["chrt", "-f", "-p", "50", &pid])?,
                Urgency::Ordinary => cmd::run(&["renice", "-n", "-20", "-p", &pid])?,
            };
        }
        Ok(())
    }

    /// What the interface receives is worked off by whoever sends it.
    pub fn with_sender(&self, ns: &Netns) -> Result<()> {
        self.set(ns, &[("threaded", "0")])
    }

    /// Sets attributes of the interface.
    pub fn set(&self, ns: &Netns, attributes: &[(&str, &str)]) -> Result<()> {
        set_device(ns, &self.interface, attributes)
    }
}

/// The kernel's receiving threads of interfaces of this name, in any namespace.
fn receivers(interface: &str) -> Result<Vec<i32>> {
    let prefix = format!("napi/{interface}-");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_are_not_work() {
        let before = CoreTime::parse("cpu0 10 0 20 100 5 0 5 0 0 0").expect("fields");
        let after = CoreTime::parse("cpu0 20 0 40 130 15 10 15 10 7 0").expect("fields");
        assert_eq!(after.busy_since(&before), 60.0 / 100.0);
    }
}
