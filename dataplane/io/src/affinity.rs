//! Which core a worker runs on.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Cores this thread may use, ascending: what cgroups and `taskset` left of the machine.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Binds the calling thread to `core`.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_core() {
        let cores = std::thread::spawn(|| {
            let last = *allowed_cores().unwrap().last().unwrap();
            pin(last).unwrap();
            (last, allowed_cores().unwrap())
        });
        let (last, left) = cores.join().unwrap();
        assert_eq!(left, [last]);
        assert!(pin(CpuSet::count()).is_err());
    }
}
