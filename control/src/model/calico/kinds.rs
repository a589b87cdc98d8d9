//! Calico's v3 kinds: what they are called in a key and whether they live in a namespace.

/// Where Calico keeps its v3 resources in etcd.
pub const RESOURCES_PREFIX: &str = "/calico/resources/v3/projectcalico.org/";

/// One kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `kind` in a document.
    pub name: &'static str,
    /// Its segment in a key: plural, lower case.
    pub plural: &'static str,
    /// Keys have a namespace before the name.
    pub namespaced: bool,
}

const fn global(name: &'static str, plural: &'static str) -> Kind {
    Kind { name, plural, namespaced: false }
}

const fn namespaced(name: &'static str, plural: &'static str) -> Kind {
    Kind { name, plural, namespaced: true }
}

const KINDS: [Kind; 23] = [
    global("BGPConfiguration", "bgpconfigurations"),
    global("BGPFilter", "bgpfilters"),
    global("BGPPeer", "bgppeers"),
    global("CalicoNodeStatus", "caliconodestatuses"),
    global("ClusterInformation", "clusterinformations"),
    global("FelixConfiguration", "felixconfigurations"),
    global("GlobalNetworkPolicy", "globalnetworkpolicies"),
    global("GlobalNetworkSet", "globalnetworksets"),
    global("HostEndpoint", "hostendpoints"),
    global("IPAMConfig", "ipamconfigs"),
    global("IPAMConfiguration", "ipamconfigs"),
    global("IPPool", "ippools"),
    global("IPReservation", "ipreservations"),
    global("KubeControllersConfiguration", "kubecontrollersconfigurations"),
    global("Node", "nodes"),
    global("Profile", "profiles"),
    global("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies"),
    global("Tier", "tiers"),
    namespaced("NetworkPolicy", "networkpolicies"),
    namespaced("NetworkSet", "networksets"),
    namespaced("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies"),
    namespaced("StagedNetworkPolicy", "stagednetworkpolicies"),
    namespaced("WorkloadEndpoint", "workloadendpoints"),
];

impl Kind {
    /// What the keys of all resources of the kind start with; ends with a slash.
    pub fn prefix(&self) -> String {
        format!("{RESOURCES_PREFIX}{}/", self.plural)
    }
}

/// The kind a document names.
pub fn by_name(name: &str) -> Option<Kind> {
    KINDS.into_iter().find(|kind| kind.name == name)
}

/// The kind a key names.
pub fn by_plural(plural: &str) -> Option<Kind> {
    KINDS.into_iter().find(|kind| kind.plural == plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_lower_case_and_found_both_ways() {
        for kind in KINDS {
            assert!(kind.plural.chars().all(|c| c.is_ascii_lowercase()), "{}", kind.plural);
            assert_eq!(by_name(kind.name), Some(kind));
            assert_eq!(by_plural(kind.plural).map(|found| found.namespaced), Some(kind.namespaced));
        }
        assert_eq!(by_name("networkpolicy"), None);
    }
}
