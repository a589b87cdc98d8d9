//! Felix's settings, followed.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::felix::{Config, Effect, Local, Setting};
use crate::model::calico::v1::config::{Scope, Settings};
use crate::state::Calico;

/// The settings in force, and what has been said about them.
#[derive(Debug)]
pub(super) struct FelixFollower {
    local: Local,
    node: String,
    /// Of this node and of all, as they were last looked at.
    known: [Option<Arc<Settings>>; 2],
    config: Arc<Config>,
    /// Names that people know to have no meaning.
    told: BTreeSet<String>,
}

impl FelixFollower {
    /// By what is said on this host, until the datastore has said something.
    pub(super) fn new(local: &Local, node: &str) -> Self {
        let config = Arc::new(Config::of(local, node, &Calico::default()));
        let (local, node) = (local.clone(), node.to_owned());
        let mut follower = Self { local, node, known: [None, None], config, told: BTreeSet::new() };
        follower.tell(None);
        follower
    }

    pub(super) const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Takes in what the datastore says. Tells whether anything is different.
    pub(super) fn follow(&mut self, calico: &Calico) -> bool {
        let scopes = [Scope::Node(self.node.clone()), Scope::Global];
        let known = scopes.map(|scope| calico.settings().get(&scope).cloned());
        if known == self.known {
            return false;
        }
        self.known = known;
        let config = Config::of(&self.local, &self.node, calico);
        if config == *self.config {
            return false;
        }
        let former = std::mem::replace(&mut self.config, Arc::new(config));
        self.tell(Some(&former));
        true
    }

    /// Says what is new: once that something has no meaning, each time that something is obeyed.
    fn tell(&mut self, former: Option<&Config>) {
        for setting in &self.config.settings {
            let Setting { name, value, source, effect } = setting;
            match effect {
                Effect::Meaningless(why) => {
                    if self.told.insert(name.clone()) {
                        tracing::info!(name, value, %source, "this setting of Felix's has no meaning here: {why}");
                    }
                }
                Effect::Invalid(expected) => {
                    tracing::warn!(name, value, %source, "this setting of Felix's is not {expected}; its default counts");
                }
                Effect::Obeyed | Effect::Partly(_) | Effect::Prepared(_) => {
                    let said = former.is_some_and(|former| !former.settings.contains(setting));
                    if said {
                        tracing::info!(name, value, %source, "a setting of Felix's has changed");
                    }
                }
            }
        }
    }
}
