//! The same without a daemon: documents from a directory or a dump, a host that is assumed around them.
//!
//! [`documents`] reads, [`node`] assumes what only the host could tell and says so; everything else is the daemon's:
//! state, resolution, tables, pipeline.

pub mod documents;
pub mod node;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::path::Path;

use canal_control::datastore::Change;
use canal_control::model::flannel::{BackendError, Prefix};
use canal_control::resolve::calico::{in_use, resolution};
use canal_control::resolve::{Policy, Resolved, resolve};
use canal_control::state::State;
use canal_dataplane::net::HashSeed;
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::tables::{Tables, compile};

use super::question::Question;
use super::report::Report;
use super::{TraceError, Tracer};
use node::Assumed;

/// Keys of the hashes: any will do, the same ones give the same report.
const SEED: HashSeed = HashSeed(0x5eed, 0x5eed);

/// Most complaints that a report repeats.
const MAX_COMPLAINTS: usize = 50;

/// What the documents do not say.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node in whose place the packet is looked at; `None` = the only one that has workloads.
    pub node: Option<String>,
    /// Its public address; `None` = that of its lease.
    pub public_ip: Option<Ipv4Addr>,
    /// MTU of its underlay interface, bytes.
    pub underlay_mtu: u32,
    /// Where the network lives among the keys.
    pub prefix: Prefix,
}

/// Why there is nothing to trace in.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It cannot be read.
    #[error("{path}: {why}")]
    Unreadable {
        /// What was to be read.
        path: String,
        /// Why not.
        why: String,
    },
    /// Nobody knows whose view is meant.
    #[error("give --node: {0}")]
    WhichNode(String),
    /// The network config breaks flannel's rules.
    #[error("the network config is not valid: {0}")]
    Config(String),
    /// The network's backend is none of ours.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A node made of documents.
#[derive(Debug)]
pub struct Offline {
    spec: NodeSpec,
    tables: Tables,
    /// What was assumed, and what could not be used.
    lines: Vec<String>,
}

impl Offline {
    /// Reads what is at `path`, a directory or a dump.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn read(path: &Path, options: &Options) -> Result<Self, OfflineError> {
        let found = documents::read(path, &options.prefix)?;
        let revision = found.entries.iter().map(|entry| entry.mod_revision).max().unwrap_or(0);
        let changes: Vec<Change> = found
            .entries
            .into_iter()
            .map(|entry| Change { key: entry.key.clone(), revision: entry.mod_revision, value: Some(entry) })
            .collect();
        let state = |node: &str| {
            let mut state = State::new(node, &options.prefix);
            state.apply(&changes);
            state.reached(revision);
            state
        };
        let node = node::choose(&state(""), options.node.as_deref())?;
        let state = state(&node);
        let assumed = Assumed::new(&state, options)?;
        let resolution = resolution(&state);
        let policy = if in_use(state.calico()) { Policy::Enforced } else { Policy::Open };
        let Resolved { spec, complaints, .. } = resolve(&state, &assumed.facts(), &resolution, policy);
        let mut lines = assumed.lines.clone();
        let ignored = complaints.iter().map(|complaint| format!("{}: {}", complaint.key, complaint.sentence));
        let mut ignored: Vec<String> = found.complaints.into_iter().chain(ignored).collect();
        let more = ignored.len().saturating_sub(MAX_COMPLAINTS);
        ignored.truncate(MAX_COMPLAINTS);
        lines.extend(ignored.into_iter().map(|line| format!("not used: {line}")));
        if more > 0 {
            lines.push(format!("not used: and {more} more"));
        }
        let tables = compile(&spec, None, 1);
        Ok(Self { spec, tables, lines })
    }

    /// What becomes of a packet there.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn trace(&self, question: &Question) -> Result<Report, TraceError> {
        let mut report = Tracer::new(SEED, 1).trace(question, &self.spec, &self.tables, 0)?;
        report.assumptions.clone_from(&self.lines);
        Ok(report)
    }
}
