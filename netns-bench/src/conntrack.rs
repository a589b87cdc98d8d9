//! The kernel's table of connections is one for all namespaces, and its size is set outside of them: it is made larger for
//! the time of a measurement, and then what it was.

use anyhow::{Context, Result};
use std::fs;

const LIMIT: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Room for connections; dropped, it puts back what was there.
#[derive(Debug)]
pub struct Room {
    before: Vec<(&'static str, String)>,
}

impl Room {
    /// Makes room for at least `connections`, with a bucket for every two of them.
    pub fn make(connections: usize) -> Result<Self> {
        // There is no such file before anybody has used the table.
        netns_tests::cmd::run(&["modprobe", "-q", "nf_conntrack"]).ok();
        let mut room = Self { before: Vec::new() };
        for (path, wanted) in [(BUCKETS, connections / 2), (LIMIT, connections)] {
            let was = fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().to_owned();
            if was.parse::<usize>().is_ok_and(|was| was < wanted) {
                fs::write(path, wanted.to_string()).with_context(|| format!("writing {path}"))?;
                room.before.push((path, was));
            }
        }
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // A new number of buckets sets a limit by itself: the limit comes last.
        for (path, was) in &self.before {
            if let Err(error) = fs::write(path, was) {
                eprintln!("putting {was} back into {path}: {error}");
            }
        }
    }
}
