//! External programs: run to the end with a time limit, or kept in the background and ended with their owner.

use anyhow::{Context, Result, bail};
use std::io::{Seek, Write};
use std::process::{Child, ChildStdout, Command, Output};
use std::time::{Duration, Instant};

/// No helper program takes longer than this; a hung one must not hang the whole run. Seconds.
const LIMIT_S: &str = "120";

/// Runs `argv` to its end, with the C locale and a time limit. Its exit code is for the caller to judge.
pub fn output(argv: &[&str]) -> Result<Output> {
    limited(argv).output().with_context(|| format!("starting {}", argv.join(" ")))
}

fn limited(argv: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT_S]).args(argv).env("LC_ALL", "C");
    command
}

/// The same as [`run`] with `input` as standard input.
pub fn run_with(argv: &[&str], input: &str) -> Result<String> {
    let mut file = tempfile::tempfile().context("a file for the input")?;
    file.write_all(input.as_bytes())?;
    file.rewind()?;
    finished(argv, limited(argv).stdin(file).output())
}

/// Runs `argv` and returns what it wrote to standard output; a non-zero exit is an error that quotes both outputs.
pub fn run(argv: &[&str]) -> Result<String> {
    finished(argv, limited(argv).output())
}

fn finished(argv: &[&str], done: std::io::Result<Output>) -> Result<String> {
    let done = done.with_context(|| format!("starting {}", argv.join(" ")))?;
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let stderr = String::from_utf8_lossy(&done.stderr);
        bail!("`{}` ended with {}\n{stdout}{stderr}", argv.join(" "), done.status);
    }
    Ok(stdout)
}

/// A background process that is killed when its owner is dropped, also in a panic.
#[derive(Debug)]
pub struct Background {
    name: String,
    child: Child,
}

impl Background {
    /// Starts `command`; `name` is what messages call it.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Starts `command`, whose standard output is a pipe, and returns the end to read from as well.
    pub fn start_reading(name: &str, command: &mut Command) -> Result<(Self, ChildStdout)> {
        let mut started = Self::start(name, command)?;
        let output = started.child.stdout.take().with_context(|| format!("{name} has no pipe"))?;
        Ok((started, output))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True while the process has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end; `None` when `limit` passed first.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends `signal`, unless the process has already ended.
    pub fn signal(&mut self, signal: nix::sys::signal::Signal) -> Result<()> {
        if self.is_running() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal)
                .with_context(|| format!("{signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// SIGTERM, then SIGKILL after `limit`; the exit status, or an error when it had to be killed.
    pub fn terminate(&mut self, limit: Duration) -> Result<std::process::ExitStatus> {
        self.signal(nix::sys::signal::Signal::SIGTERM)?;
        if let Some(status) = self.wait(limit)? {
            return Ok(status);
        }
        self.kill();
        bail!("{} did not end within {limit:?} of SIGTERM", self.name)
    }

    /// SIGKILL, and reaps the process.
    pub fn kill(&mut self) {
        // Errors mean that it has ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}
