//! What other resources stand against a write.

use serde_json::{Value, json};

use super::{Found, ResourceStore, StoreError, key, spec_of};
use crate::datastore::{Expect, Snapshot};
use crate::resource::check::policy::tier_of;
use crate::resource::check::pool::default_block_size;
use crate::resource::document::{ALLOW_PROFILE, API_VERSION, Resource};
use crate::resource::encode::encode;
use crate::resource::kind::Kind;
use crate::resource::name::DEFAULT_TIER;
use crate::resource::net::Net;
use crate::resource::schema::{Object, integer_of, object_of, text_of};
use crate::resource::stamp::Stamp;

/// Where Calico's IPAM keeps the blocks that it has cut from pools.
const BLOCKS: &str = "/calico/ipam/v2/assignment/";

/// Where it keeps what hosts hold.
const IPAM_HOSTS: &str = "/calico/ipam/v2/host/";

/// Tiers that are always there.
const FIXED_TIERS: [&str; 3] = [DEFAULT_TIER, "kube-admin", "kube-baseline"];

/// Before a resource is made.
pub(super) async fn before_create(
    store: &ResourceStore<'_>,
    resource: &Resource,
    stamp: &Stamp,
) -> Result<(), StoreError> {
    let none = Object::new();
    let spec = object_of(resource.object(), "spec").unwrap_or(&none);
    match resource.kind().name() {
        "IPPool" => pool_has_room(store, resource.name(), spec).await,
        "Node" => cluster_is_ready(store, stamp).await,
        _ if resource.kind().is_policy() => tier_exists(store, text_of(spec, "tier")).await,
        _ => Ok(()),
    }
}

async fn tier_exists(store: &ResourceStore<'_>, tier: &str) -> Result<(), StoreError> {
    if FIXED_TIERS.contains(&tier) || tier.is_empty() {
        return Ok(());
    }
    match kind("Tier") {
        Some(kind) if store.get(kind, "", tier).await?.is_none() => {
            Err(StoreError::Refused(format!("spec.tier: there is no tier {tier}: apply it first")))
        }
        _ => Ok(()),
    }
}

/// Pools do not overlap, and cut their addresses as others have cut them before.
async fn pool_has_room(store: &ResourceStore<'_>, name: &str, spec: &Object) -> Result<(), StoreError> {
    let Some(cidr) = Net::cidr_or_address(text_of(spec, "cidr")) else { return Ok(()) };
    if let Some(kind) = kind("IPPool") {
        for other in store.list(kind, None).await?.0.iter().filter(|other| other.stored_name != name) {
            let theirs = Net::cidr_or_address(text_of(&spec_of(other), "cidr"));
            if let Some(theirs) = theirs.filter(|theirs| theirs.overlaps(cidr)) {
                let sentence =
                    format!("spec.cidr: {cidr} overlaps with {theirs} of IPPool {}", other.stored_name);
                return Err(StoreError::Refused(sentence));
            }
        }
    }
    let size = integer_of(spec, "blockSize").unwrap_or_else(|| default_block_size(cidr));
    for block in blocks_in(&store.store.list(BLOCKS).await?, cidr) {
        if i64::from(block.length()) != size {
            let sentence = format!("spec.blockSize: must be {}: block {block} is in use", block.length());
            return Err(StoreError::Refused(sentence));
        }
    }
    Ok(())
}

/// Blocks under a prefix. Keys end in `10.244.0.0-26`.
fn blocks_in(listed: &Snapshot, cidr: Net) -> Vec<Net> {
    let block = |key: &str| {
        let (_, name) = key.rsplit_once('/')?;
        let (address, length) = name.rsplit_once('-')?;
        Net::cidr(&format!("{address}/{length}"))
    };
    let blocks = listed.entries.iter().filter_map(|entry| block(&entry.key));
    blocks.filter(|block| block.overlaps(cidr)).collect()
}

/// The first node makes the cluster: Felix waits for its Ready flag.
async fn cluster_is_ready(store: &ResourceStore<'_>, stamp: &Stamp) -> Result<(), StoreError> {
    let Some(kind) = kind("ClusterInformation") else { return Ok(()) };
    let name = "default";
    if store.get(kind, "", name).await?.is_some() {
        return Ok(());
    }
    let (stamp, guid) = (stamp.sibling(), stamp.uid.replace('-', ""));
    let cluster = json!({
        "apiVersion": API_VERSION,
        "kind": kind.name(),
        "metadata": { "name": name, "uid": stamp.uid, "creationTimestamp": stamp.created },
        "spec": { "clusterGUID": guid, "datastoreReady": true },
    });
    if let Value::Object(cluster) = cluster {
        let value = encode(kind.shape(), &cluster).into_bytes();
        // Whoever was faster has made one, too.
        store.store.put(&key(kind, "", name), &value, Expect::Absent, None).await?;
    }
    Ok(())
}

/// Before a resource is deleted. What calicoctl would take along is looked for instead: whoever deletes it knows then.
pub(super) async fn before_delete(store: &ResourceStore<'_>, existing: &Found) -> Result<(), StoreError> {
    let name = existing.stored_name.as_str();
    match existing.kind.name() {
        "Profile" if name == ALLOW_PROFILE => refused("this profile is built in".to_owned()),
        "Tier" if FIXED_TIERS.contains(&name) => refused(format!("tier {name} is always there")),
        "Tier" => tier_is_empty(store, name).await,
        "IPPool" => {
            let spec = spec_of(existing);
            let Some(cidr) = Net::cidr_or_address(text_of(&spec, "cidr")) else { return Ok(()) };
            match blocks_in(&store.store.list(BLOCKS).await?, cidr).first() {
                Some(block) => refused(format!(
                    "block {block} of this pool is in use: set disabled: true, wait until it is given back, or use \
                     calicoctl, which takes it away"
                )),
                None => Ok(()),
            }
        }
        "Node" => node_is_empty(store, name).await,
        _ => Ok(()),
    }
}

async fn tier_is_empty(store: &ResourceStore<'_>, tier: &str) -> Result<(), StoreError> {
    for kind in Kind::all().filter(Kind::is_policy) {
        let policies = store.list(kind, None).await?.0;
        if let Some(policy) = policies.iter().find(|policy| tier_of(&policy.object) == tier) {
            return refused(format!("{kind} {} is in this tier", policy.name()));
        }
    }
    Ok(())
}

async fn node_is_empty(store: &ResourceStore<'_>, node: &str) -> Result<(), StoreError> {
    if let Some(kind) = kind("WorkloadEndpoint") {
        let endpoints = store.list(kind, None).await?.0;
        if let Some(endpoint) = endpoints.iter().find(|endpoint| text_of(&spec_of(endpoint), "node") == node)
        {
            return refused(format!(
                "workload endpoint {}/{} is on this node",
                endpoint.namespace, endpoint.stored_name
            ));
        }
    }
    let held = store.store.list(&format!("{IPAM_HOSTS}{node}/")).await?;
    match held.entries.first() {
        Some(block) => {
            refused(format!("this node holds addresses ({}): calicoctl gives them back", block.key))
        }
        None => Ok(()),
    }
}

fn refused(sentence: String) -> Result<(), StoreError> {
    Err(StoreError::Refused(sentence))
}

fn kind(name: &str) -> Option<Kind> {
    Kind::by_name(name)
}
