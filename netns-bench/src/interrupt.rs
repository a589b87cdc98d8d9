//! An interrupted bench takes down what it has set up.

use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on the first SIGINT or SIGTERM only asks; the second ends the process as it is.
pub fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            for _ in 0..2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                eprintln!("!!! interrupted: ending after this measurement");
                if ASKED.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

/// An error once somebody has asked to end.
pub fn check() -> Result<()> {
    ensure!(!ASKED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
