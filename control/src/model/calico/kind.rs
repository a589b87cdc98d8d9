//! The kinds of Calico's v3 resources: what they are called in a document and in a key.

use super::keys::RESOURCES_PREFIX;

/// One kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// BGP settings; here only the networks of services.
    BgpConfiguration,
    /// Routes given to peers.
    BgpFilter,
    /// A BGP session.
    BgpPeer,
    /// What a node says of itself.
    CalicoNodeStatus,
    /// Cluster-wide facts, the datastore's Ready flag among them.
    ClusterInformation,
    /// Felix's settings, for all nodes or for one.
    FelixConfiguration,
    /// Policy without namespace.
    GlobalNetworkPolicy,
    /// Networks with labels.
    GlobalNetworkSet,
    /// An interface of a host.
    HostEndpoint,
    /// Settings of the address management.
    IpamConfig,
    /// Where addresses come from.
    IpPool,
    /// Addresses that are not given out.
    IpReservation,
    /// Settings of kube-controllers.
    KubeControllersConfiguration,
    /// Policy in a namespace.
    NetworkPolicy,
    /// Networks with labels, in a namespace.
    NetworkSet,
    /// A host.
    Node,
    /// Labels and rules that endpoints share.
    Profile,
    /// Policy that is only tried out.
    StagedGlobalNetworkPolicy,
    /// Policy that is only tried out.
    StagedKubernetesNetworkPolicy,
    /// Policy that is only tried out.
    StagedNetworkPolicy,
    /// What policies are sorted into.
    Tier,
    /// An interface of a pod.
    WorkloadEndpoint,
}

impl Kind {
    /// All of them, sorted by name.
    pub const ALL: [Self; 22] = [
        Self::BgpConfiguration,
        Self::BgpFilter,
        Self::BgpPeer,
        Self::CalicoNodeStatus,
        Self::ClusterInformation,
        Self::FelixConfiguration,
        Self::GlobalNetworkPolicy,
        Self::GlobalNetworkSet,
        Self::HostEndpoint,
        Self::IpamConfig,
        Self::IpPool,
        Self::IpReservation,
        Self::KubeControllersConfiguration,
        Self::NetworkPolicy,
        Self::NetworkSet,
        Self::Node,
        Self::Profile,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::Tier,
        Self::WorkloadEndpoint,
    ];

    /// `kind` in a document.
    pub const fn name(self) -> &'static str {
        self.spelling().0
    }

    /// Its segment in a key: plural, lower case.
    pub const fn plural(self) -> &'static str {
        self.spelling().1
    }

    /// Whether keys have a namespace before the name.
    pub const fn namespaced(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy
                | Self::NetworkSet
                | Self::StagedKubernetesNetworkPolicy
                | Self::StagedNetworkPolicy
                | Self::WorkloadEndpoint
        )
    }

    /// What the keys of all resources of the kind start with; ends with a slash.
    pub fn prefix(self) -> String {
        format!("{RESOURCES_PREFIX}{}/", self.plural())
    }

    /// The kind that a key's segment names.
    pub fn by_plural(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    /// The kind that a document names.
    pub fn by_name(name: &str) -> Option<Self> {
        // Newer versions write the long name under the same key.
        let name = if name == "IPAMConfiguration" { "IPAMConfig" } else { name };
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    const fn spelling(self) -> (&'static str, &'static str) {
        match self {
            Self::BgpConfiguration => ("BGPConfiguration", "bgpconfigurations"),
            Self::BgpFilter => ("BGPFilter", "bgpfilters"),
            Self::BgpPeer => ("BGPPeer", "bgppeers"),
            Self::CalicoNodeStatus => ("CalicoNodeStatus", "caliconodestatuses"),
            Self::ClusterInformation => ("ClusterInformation", "clusterinformations"),
            Self::FelixConfiguration => ("FelixConfiguration", "felixconfigurations"),
            Self::GlobalNetworkPolicy => ("GlobalNetworkPolicy", "globalnetworkpolicies"),
            Self::GlobalNetworkSet => ("GlobalNetworkSet", "globalnetworksets"),
            Self::HostEndpoint => ("HostEndpoint", "hostendpoints"),
            Self::IpamConfig => ("IPAMConfig", "ipamconfigs"),
            Self::IpPool => ("IPPool", "ippools"),
            Self::IpReservation => ("IPReservation", "ipreservations"),
            Self::KubeControllersConfiguration => {
                ("KubeControllersConfiguration", "kubecontrollersconfigurations")
            }
            Self::NetworkPolicy => ("NetworkPolicy", "networkpolicies"),
            Self::NetworkSet => ("NetworkSet", "networksets"),
            Self::Node => ("Node", "nodes"),
            Self::Profile => ("Profile", "profiles"),
            Self::StagedGlobalNetworkPolicy => ("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies"),
            Self::StagedKubernetesNetworkPolicy => {
                ("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies")
            }
            Self::StagedNetworkPolicy => ("StagedNetworkPolicy", "stagednetworkpolicies"),
            Self::Tier => ("Tier", "tiers"),
            Self::WorkloadEndpoint => ("WorkloadEndpoint", "workloadendpoints"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_lower_case_and_found_both_ways() {
        for kind in Kind::ALL {
            assert!(kind.plural().chars().all(|c| c.is_ascii_lowercase()), "{}", kind.plural());
            assert_eq!(
                (Kind::by_name(kind.name()), Kind::by_plural(kind.plural())),
                (Some(kind), Some(kind))
            );
        }
        assert!(Kind::ALL.is_sorted_by_key(|kind| kind.name().to_ascii_lowercase()));
        assert_eq!(Kind::by_name("networkpolicy"), None);
        assert_eq!(Kind::by_name("IPAMConfiguration"), Some(Kind::IpamConfig));
    }
}
