//! The same outcome from scratch, by asking everybody about everything: slow, and plain to see that it is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use canal_dataplane::spec::calico::CalicoRoute;
use canal_dataplane::spec::policy::PolicyDirection::{Egress, Ingress};
use canal_dataplane::spec::policy::{
    EndpointPolicy, HostPolicy, IpSet, Members, PolicyDirection, PolicyList, RuleSet, SetId, Tier,
};
use ipnetwork::IpNetwork;

use super::change::Latest;
use super::complaints;
use super::endpoint_lists::HostLists;
use super::members::Object;
use super::policies::{self, Standing};
use super::profiles::{self, Presence};
use super::resolution::{Resolution, ResolvedHost};
use super::routes::{Entry, NodeAddresses, Reference, RouteSource};
use super::routes::{block_routes, merge, node_routes};
use super::rules::Compiled;
use super::set_definition::{SetContent, SetDefinition};
use super::tiers::Tiers;
use super::vteps;
use crate::model::calico::resources::{Policy, Profile};
use crate::model::calico::selector::Selector;

/// What these resources mean for the node of this name.
pub fn recompute(nodename: &str, source: RouteSource, latest: &Latest) -> Resolution {
    let mut oracle = Oracle::new(nodename, latest);
    oracle.find_policies();
    oracle.find_profiles();
    oracle.list_workloads();
    oracle.list_host_endpoints();
    oracle.fill_sets();
    let mut resolution = oracle.resolution;
    resolution.routes = Arc::new(routes(nodename, source, latest));
    for (name, node) in &latest.nodes {
        vteps::set_node(&mut resolution.vteps, name, node.as_deref());
    }
    resolution
}

struct Oracle<'a> {
    nodename: &'a str,
    latest: &'a Latest,
    tiers: Tiers,
    objects: Vec<Object>,
    /// Those that match a local endpoint, in the order they are asked.
    policies: Vec<Ordered<'a>>,
    definitions: BTreeMap<SetId, SetContent>,
    resolution: Resolution,
}

struct Ordered<'a> {
    policy: &'a Policy,
    ingress: Option<Arc<RuleSet>>,
    egress: Option<Arc<RuleSet>>,
}

impl<'a> Oracle<'a> {
    fn new(nodename: &'a str, latest: &'a Latest) -> Self {
        let mut tiers = Tiers::default();
        latest.tiers.iter().for_each(|(name, tier)| tiers.set(name, *tier));
        let workloads = latest.workloads.values().flatten().cloned().map(Object::Workload);
        let hosts = latest.host_endpoints.values().flatten().cloned().map(Object::Host);
        let sets = latest.network_sets.values().flatten().cloned().map(Object::NetworkSet);
        Self {
            nodename,
            latest,
            tiers,
            objects: workloads.chain(hosts).chain(sets).collect(),
            policies: Vec::new(),
            definitions: BTreeMap::new(),
            resolution: Resolution::default(),
        }
    }

    fn matches(&self, selector: &Selector, object: &Object) -> bool {
        let profile = |name: &Arc<str>| self.latest.profiles.get(&**name)?.as_ref();
        selector.matches(|label| {
            let inherited = || object.profiles().iter().find_map(|name| profile(name)?.labels.get(label));
            object.labels().get(label).or_else(inherited)
        })
    }

    fn locals(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.node() == Some(self.nodename))
    }

    fn find_policies(&mut self) {
        let stored = self.latest.policies.iter().filter_map(|(key, policy)| Some((key, policy.as_deref()?)));
        let mut stored: Vec<_> = stored.collect();
        stored.sort_by(|a, b| self.tiers.compare(*a, *b));
        for (key, policy) in stored {
            let standing = if self.tiers.get(&policy.tier).is_none() {
                Standing::NoTier
            } else if self.locals().any(|endpoint| self.matches(&policy.selector, endpoint)) {
                let [ingress, egress] = policies::halves(key, policy);
                let http = [&ingress, &egress].into_iter().flatten().any(|compiled| compiled.http);
                let [ingress, egress] = [ingress, egress].map(|half| half.map(|half| self.rules(half)));
                self.policies.push(Ordered { policy, ingress, egress });
                self.resolution.active_policies.insert(key.clone());
                Standing::Active { http }
            } else {
                Standing::Inactive
            };
            complaints::of_policy(&mut self.resolution.complaints, key, &policy.tier, standing);
        }
    }

    fn rules(&mut self, compiled: Compiled) -> Arc<RuleSet> {
        for SetDefinition { id, content } in compiled.sets {
            self.definitions.insert(id, content);
        }
        Arc::new(compiled.rules)
    }

    fn find_profiles(&mut self) {
        let names: BTreeSet<String> =
            self.locals().flat_map(Object::profiles).map(ToString::to_string).collect();
        for name in &names {
            let missing = self.stored_profile(name).is_none() && name != Profile::DEFAULT_ALLOW;
            let presence = if missing { Presence::Missing } else { Presence::Active };
            complaints::of_profile(&mut self.resolution.complaints, name, presence);
            for half in profiles::halves(name, self.stored_profile(name)) {
                self.rules(half);
            }
        }
        self.resolution.active_profiles = names;
    }

    fn stored_profile(&self, name: &str) -> Option<&'a Profile> {
        self.latest.profiles.get(name)?.as_deref()
    }

    fn profile_rules(&self, object: &Object, direction: PolicyDirection) -> Vec<Arc<RuleSet>> {
        let rules = |name: &Arc<str>| {
            let [ingress, egress] = profiles::halves(name, self.stored_profile(name));
            Arc::new(if direction == Ingress { ingress.rules } else { egress.rules })
        };
        object.profiles().iter().map(rules).collect()
    }

    /// Policies of one direction that `within` wants, by tier.
    fn tiers(
        &self,
        object: &Object,
        direction: PolicyDirection,
        within: impl Fn(&Policy) -> bool,
    ) -> Vec<Tier> {
        let mut tiers: Vec<Tier> = Vec::new();
        for Ordered { policy, ingress, egress, .. } in &self.policies {
            let rules = if direction == Ingress { ingress } else { egress };
            let (Some(rules), Some((name, end))) = (rules, self.tiers.get(&policy.tier)) else { continue };
            if !within(policy) || !self.matches(&policy.selector, object) {
                continue;
            }
            if tiers.last().is_none_or(|tier| tier.name != *name) {
                tiers.push(Tier { name: Arc::clone(name), end, policies: Vec::new() });
            }
            tiers.last_mut().into_iter().for_each(|tier| tier.policies.push(Arc::clone(rules)));
        }
        tiers
    }

    fn list_workloads(&mut self) {
        for (key, endpoint) in &self.latest.workloads {
            let Some(endpoint) = endpoint.clone().filter(|endpoint| *endpoint.node == *self.nodename) else {
                continue;
            };
            let object = Object::Workload(endpoint);
            let list = |direction| {
                let tiers = self.tiers(&object, direction, |policy| !policy.do_not_track && !policy.pre_dnat);
                Arc::new(PolicyList { tiers, profiles: self.profile_rules(&object, direction) })
            };
            let policy = EndpointPolicy { ingress: list(Ingress), egress: list(Egress) };
            self.resolution.workloads.insert(key.clone(), policy);
        }
    }

    fn list_host_endpoints(&mut self) {
        for (name, endpoint) in &self.latest.host_endpoints {
            let Some(endpoint) = endpoint.clone().filter(|endpoint| endpoint.node == self.nodename) else {
                continue;
            };
            let object = Object::Host(Arc::clone(&endpoint));
            let lists = |direction| {
                let list = |profiles, within: fn(&Policy) -> bool| {
                    Arc::new(PolicyList { tiers: self.tiers(&object, direction, within), profiles })
                };
                HostPolicy {
                    untracked: list(vec![], |policy| policy.do_not_track),
                    pre_dnat: if direction == Ingress {
                        list(vec![], |policy| policy.pre_dnat && !policy.do_not_track)
                    } else {
                        Arc::default()
                    },
                    forward: list(vec![], |policy| {
                        policy.apply_on_forward && !policy.do_not_track && !policy.pre_dnat
                    }),
                    normal: list(self.profile_rules(&object, direction), |policy| {
                        !policy.do_not_track && !policy.pre_dnat
                    }),
                }
            };
            let lists = HostLists { ingress: lists(Ingress), egress: lists(Egress) };
            self.resolution.host_endpoints.insert(name.clone(), ResolvedHost { endpoint, lists });
        }
    }

    fn fill_sets(&mut self) {
        let mut unknown: BTreeSet<Arc<str>> = BTreeSet::new();
        for (id, content) in std::mem::take(&mut self.definitions) {
            let members = match &content {
                SetContent::Selected(selector) => {
                    let objects = self.objects.iter().filter(|object| self.matches(selector, object));
                    Members::Nets(distinct(objects.flat_map(Object::nets)))
                }
                SetContent::NamedPort { selector, protocol, name } => {
                    let objects = self.objects.iter().filter(|object| self.matches(selector, object));
                    Members::Ports(distinct(objects.flat_map(|object| object.ports(*protocol, name))))
                }
                SetContent::Service { name, with_ports } => {
                    let all = self.latest.service_slices.values().flatten();
                    let slices: Vec<_> = all.filter(|slice| *slice.service == **name).collect();
                    if slices.is_empty() {
                        unknown.insert(Arc::clone(name));
                    }
                    if *with_ports {
                        Members::Ports(distinct(slices.iter().flat_map(|slice| slice.ports.iter().copied())))
                    } else {
                        let addresses = slices.iter().flat_map(|slice| slice.addresses.iter().copied());
                        Members::Nets(distinct(addresses.map(IpNetwork::from)))
                    }
                }
            };
            self.resolution.sets.insert(Arc::clone(&id), Arc::new(IpSet { id, members }));
        }
        complaints::of_services(&mut self.resolution.complaints, unknown.iter());
    }
}

fn distinct<M: Ord>(members: impl Iterator<Item = M>) -> Vec<M> {
    members.collect::<BTreeSet<M>>().into_iter().collect()
}

fn routes(nodename: &str, source: RouteSource, latest: &Latest) -> BTreeMap<IpNetwork, CalicoRoute> {
    let mut entries: BTreeMap<IpNetwork, Entry> = BTreeMap::new();
    for (name, pool) in &latest.pools {
        if let Some(pool) = pool {
            entries.entry(pool.cidr).or_default().set_pool(name, Some(pool));
        }
    }
    let mut refer = |cidr, reference, node: &str| {
        entries.entry(cidr).or_default().refer(reference, &node.into(), 1);
    };
    for block in latest.blocks.values().flatten().filter(|_| source == RouteSource::Blocks) {
        block_routes(block).for_each(|(cidr, node)| refer(cidr, Reference::Block, node));
    }
    for workload in latest.workloads.values().flatten() {
        if source == RouteSource::Workloads || *workload.node == *nodename {
            workload.networks.iter().for_each(|cidr| refer(*cidr, Reference::Workload, &workload.node));
        }
    }
    for (name, node) in &latest.nodes {
        let routes = node.iter().flat_map(|node| node_routes(node, source));
        routes.for_each(|(cidr, reference)| refer(cidr, reference, name));
    }
    let addresses = |node: &str| Some(NodeAddresses::of(latest.nodes.get(node)?.as_deref()?));
    let route = |cidr: IpNetwork| {
        let covers = |outer: &IpNetwork| {
            outer.is_ipv4() == cidr.is_ipv4() && outer.prefix() <= cidr.prefix() && outer.contains(cidr.ip())
        };
        let mut path: Vec<(IpNetwork, &Entry)> =
            entries.iter().filter(|(outer, _)| covers(outer)).map(|(outer, entry)| (*outer, entry)).collect();
        path.sort_by_key(|(outer, _)| outer.prefix());
        merge(path.into_iter(), nodename, addresses)
    };
    entries.keys().map(|cidr| (*cidr, route(*cidr))).collect()
}
