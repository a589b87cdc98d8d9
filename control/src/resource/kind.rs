//! The kinds that can be written, and what people call them.

use std::fmt;

use super::schema::{self, Type};
use crate::model::calico::kind::Kind as Known;

/// One kind of resource.
#[derive(Clone, Copy)]
pub struct Kind {
    known: Known,
    shape: &'static Type,
}

/// Other names of a kind; its own in lower case, singular and plural, need not be listed.
const ALIASES: &[(&str, &[&str])] = &[
    ("NetworkPolicy", &["np", "policy", "policies", "pol", "pols"]),
    ("GlobalNetworkPolicy", &["gnp", "gnps"]),
    ("StagedNetworkPolicy", &["snp"]),
    ("StagedGlobalNetworkPolicy", &["sgnp"]),
    ("StagedKubernetesNetworkPolicy", &["sknp"]),
    ("Tier", &[]),
    ("Profile", &["pro", "pros"]),
    ("WorkloadEndpoint", &["wep", "weps"]),
    ("HostEndpoint", &["hep", "heps"]),
    ("NetworkSet", &["netset", "netsets"]),
    ("GlobalNetworkSet", &["gnetset", "gnetsets"]),
    ("IPPool", &["ipp", "ipps", "pool", "pools"]),
    ("IPReservation", &["reservation", "reservations"]),
    ("Node", &["no", "nos"]),
    ("FelixConfiguration", &["felixconfig", "felixconfigs"]),
    ("BGPConfiguration", &["bgpconfig", "bgpconfigs"]),
    ("BGPPeer", &["bgpp", "bgpps", "bp", "bps"]),
    ("ClusterInformation", &["clusterinfo", "clusterinfos"]),
    ("KubeControllersConfiguration", &["kubecontrollersconfig", "kubecontrollersconfigs"]),
];

impl Kind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        ALIASES.iter().filter_map(|(name, _)| Self::by_name(name))
    }

    /// As a document names it.
    pub fn by_name(name: &str) -> Option<Self> {
        let known = Known::by_name(name).filter(|_| ALIASES.iter().any(|(listed, _)| *listed == name))?;
        Some(Self { known, shape: schema::by_name(name)? })
    }

    /// As people name it on a command line: any case, singular, plural, short.
    pub fn by_alias(alias: &str) -> Option<Self> {
        let alias = alias.to_lowercase();
        let (name, _) = ALIASES.iter().find(|(name, others)| {
            name.to_lowercase() == alias
                || others.contains(&alias.as_str())
                || Known::by_name(name).is_some_and(|kind| kind.plural() == alias)
        })?;
        Self::by_name(name)
    }

    /// `kind` in a document.
    pub fn name(&self) -> &'static str {
        self.known.name()
    }

    /// Lower case, plural: its segment in a key.
    pub fn plural(&self) -> &'static str {
        self.known.plural()
    }

    /// Whether it lives in a namespace.
    pub fn is_namespaced(&self) -> bool {
        self.known.namespaced()
    }

    /// A policy, whose stored name has its tier in front.
    pub fn is_policy(&self) -> bool {
        self.name().ends_with("NetworkPolicy") && self.name() != "StagedKubernetesNetworkPolicy"
    }

    /// What all its keys start with.
    pub(super) fn prefix(&self) -> String {
        self.known.prefix()
    }

    pub(super) fn shape(&self) -> &'static Type {
        self.shape
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.known == other.known
    }
}

impl Eq for Kind {}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_listed_kind_is_known_and_every_alias_is_one_kinds() {
        assert_eq!(Kind::all().count(), ALIASES.len());
        let mut seen = BTreeSet::new();
        for kind in Kind::all() {
            let others = ALIASES.iter().find(|(name, _)| *name == kind.name()).unwrap().1;
            let own = [kind.name().to_lowercase(), kind.plural().to_owned()];
            for alias in own.iter().map(String::as_str).chain(others.iter().copied()) {
                assert!(seen.insert(alias.to_owned()), "{alias} twice");
                assert_eq!(Kind::by_alias(&alias.to_uppercase()), Some(kind), "{alias}");
            }
        }
        assert_eq!(Kind::by_alias("pod"), None);
        assert_eq!(Kind::by_name("networkpolicy"), None);
    }
}
