//! What a test leaves behind: nothing when it passed, everything that explains it when it did not.
//!
//! While a test runs its captures, logs and directories live under a short temporary path (a unix socket's path is
//! limited to 107 bytes); unless [`Evidence::pass`] was called they are copied to `target/netns-failures/<test>`.

use crate::cmd;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// The working directory of one test and the knowledge whether the test has passed.
#[derive(Debug)]
pub struct Evidence {
    test: String,
    work: TempDir,
    passed: AtomicBool,
}

impl Evidence {
    /// Opens the working directory for the test that runs on this thread (libtest names the thread after it).
    pub fn new() -> Result<Self> {
        let test = std::thread::current().name().unwrap_or("unnamed").replace("::", ".");
        let work = tempfile::Builder::new().prefix("cnt").tempdir().context("making a working directory")?;
        Ok(Self { test, work, passed: AtomicBool::new(false) })
    }

    /// Where this test may write. Removed at the end.
    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// A directory below [`Evidence::work`], made if needed.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.path().join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(dir)
    }

    /// Says that the test has passed: nothing is kept.
    pub fn pass(&self) {
        self.passed.store(true, Ordering::Relaxed);
    }

    /// True after [`Evidence::pass`].
    pub fn passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    /// Keeps `text` in the file `name` of the evidence.
    pub fn note(&self, name: &str, text: &str) {
        if let Err(e) = std::fs::write(self.work.path().join(name), text) {
            eprintln!("evidence {name}: {e}");
        }
    }

    /// Prints the last `most` lines of the log at `path`.
    pub fn print_tail(&self, title: &str, path: &Path, most: usize) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(most);
        eprintln!("--- {}: {title}, last {} of {} lines", self.test, lines.len() - from, lines.len());
        for line in &lines[from..] {
            eprintln!("    {line}");
        }
    }

    fn keep(&self) -> Result<PathBuf> {
        let target = target_dir()?.join("netns-failures");
        std::fs::create_dir_all(&target)?;
        let kept = target.join(&self.test);
        if kept.exists() {
            std::fs::remove_dir_all(&kept)?;
        }
        let from = self.work.path().to_string_lossy().into_owned();
        cmd::run(&["cp", "-a", &from, &kept.to_string_lossy()])?;
        Ok(kept)
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if self.passed() {
            return;
        }
        match self.keep() {
            Ok(kept) => eprintln!("=== {} did not pass; its evidence: {}", self.test, kept.display()),
            Err(e) => eprintln!("=== {} did not pass, and its evidence is lost: {e:#}", self.test),
        }
    }
}

/// The build directory this test program lies in: `<target>/<profile>/deps/<program>`.
pub fn target_dir() -> Result<PathBuf> {
    Ok(profile_dir()?.parent().context("no target directory")?.to_owned())
}

/// `<target>/<profile>`, where the binaries built together with this program lie.
pub fn profile_dir() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let dir = program.parent().context("no directory")?;
    let dir = if dir.ends_with("deps") { dir.parent().context("no profile directory")? } else { dir };
    Ok(dir.to_owned())
}
