//! Taking a lease: the plan from a listing, and carrying it out against a datastore.

use std::net::Ipv4Addr;
use std::time::Duration;

use canal_dataplane::net::Mac;
use rand::{Rng, RngExt as _};

use super::candidates::{self, OutOfSubnets};
use super::listing::{Lease, Listing};
use super::own::OwnLease;
use crate::datastore::{self, Datastore, Expect, Written};
use crate::model::flannel::addr::{overlaps4, overlaps6};
use crate::model::flannel::{LeaseValue, NetworkConfig, Prefix, Subnets};

/// How long a lease lives without renewal; flannel's `subnetTTL`.
pub const LEASE_TTL: Duration = Duration::from_secs(86_400);

/// How often the listing is taken anew when another node was faster; flannel's `raceRetries`.
pub const RACE_RETRIES: usize = 10;

/// Longest pause before listing again, so that nodes that lost one race do not run the next in step.
const MAX_JITTER: Duration = Duration::from_millis(100);

/// Why no lease was taken.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Every subnet is held.
    #[error(transparent)]
    OutOfSubnets(#[from] OutOfSubnets),
    /// `EnableIPv4` is false: flannel's own keys for such a network name the IPv4 subnet
    /// 0.0.0.0/0, and its nodes hang on them.
    #[error(
        "an IPv6-only network cannot be shared with flannel nodes over etcd: set EnableIPv4, and Network, in the network config"
    )]
    Ipv6Only,
    /// Others were faster each time.
    #[error("lost the race for a subnet {RACE_RETRIES} times in a row")]
    RaceLost,
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
}

/// What to do about a lease, given what others hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A lease with this node's address exists and fits: write the new value over it.
    Reuse(Lease),
    /// Create this one.
    Create {
        /// The subnets to lease.
        subnets: Subnets,
        /// Where they come from.
        origin: Origin,
        /// A lease with this node's address that no longer fits the config: to be deleted first.
        instead_of: Option<Lease>,
    },
}

/// Where the subnets of a lease come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A lease in the datastore with this node's address.
    OwnLease,
    /// The subnet file of an earlier run.
    SubnetFile,
    /// Picked among the free ones.
    Picked,
}

/// A lease that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// The lease.
    pub lease: OwnLease,
    /// Where its subnets come from.
    pub origin: Origin,
    /// The former lease, deleted because it did not fit the config any more.
    pub deleted: Option<Subnets>,
    /// Set when the lease taken over was another machine's, it seems.
    pub duplicate: Option<DuplicatePublicIp>,
}

/// A lease was found under this node's address, but with an Ethernet address this node does not
/// know: after a loss of this node's state that is normal, otherwise two machines publish one
/// address (as Vagrant's NAT gives every machine 10.0.2.15) and take the lease from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the lease of {subnets} under this node's public address {public_ip} was published with VTEP address {theirs}, \
     this node has {ours}: if another machine uses {public_ip} too, set --public-ip"
)]
pub struct DuplicatePublicIp {
    /// The address.
    pub public_ip: Ipv4Addr,
    /// The subnets of the lease found.
    pub subnets: Subnets,
    /// The tunnel endpoint's address in it.
    pub theirs: Mac,
    /// This node's.
    pub ours: Mac,
}

/// True when a lease of these subnets is one that this config would give out.
pub fn compatible(config: &NetworkConfig, subnets: &Subnets) -> bool {
    let v4 = config.v4.is_some_and(|pool| {
        (pool.subnet_min..=pool.subnet_max).contains(&subnets.v4.ip())
            && subnets.v4.prefix() == pool.subnet_len
    });
    let v6 = match (config.v6, subnets.v6) {
        (None, None) => true,
        (Some(pool), Some(v6)) => {
            (pool.subnet_min..=pool.subnet_max).contains(&v6.ip()) && v6.prefix() == pool.subnet_len
        }
        (None, Some(_)) | (Some(_), None) => false,
    };
    v4 && v6
}

/// The lease of the node with this public address: the first in key order, as in flannel, but one that fits the config
/// before one that does not: a node may have others, of networks behind its gateways.
pub fn find_own<'a>(listing: &'a Listing, config: &NetworkConfig, public_ip: Ipv4Addr) -> Option<&'a Lease> {
    let own = || listing.leases.iter().filter(|lease| lease.value.public_ip == public_ip);
    own().find(|lease| compatible(config, &lease.subnets)).or_else(|| own().next())
}

/// Decides by flannel's order: own lease, then the subnet of an earlier run, then a free one.
///
/// # Errors
/// [`AcquireError::Ipv6Only`] and [`AcquireError::OutOfSubnets`].
pub fn plan(
    config: &NetworkConfig,
    public_ip: Ipv4Addr,
    previous: Option<Subnets>,
    listing: &Listing,
    rng: &mut impl Rng,
) -> Result<Plan, AcquireError> {
    if config.v4.is_none() {
        return Err(AcquireError::Ipv6Only);
    }
    let own = find_own(listing, config, public_ip);
    if let Some(lease) = own.filter(|lease| compatible(config, &lease.subnets)) {
        return Ok(Plan::Reuse(lease.clone()));
    }
    let instead_of = own.cloned();
    let gone = instead_of.as_ref().map(|lease| lease.subnets);
    let held: Vec<Subnets> = listing.held().filter(|subnets| Some(*subnets) != gone).collect();
    let free = |wanted: &Subnets| !held.iter().any(|other| overlap(wanted, other));
    if let Some(subnets) = previous.filter(|subnets| compatible(config, subnets) && free(subnets)) {
        return Ok(Plan::Create { subnets, origin: Origin::SubnetFile, instead_of });
    }
    let subnets = candidates::pick(config, &held, rng)?;
    Ok(Plan::Create { subnets, origin: Origin::Picked, instead_of })
}

fn overlap(a: &Subnets, b: &Subnets) -> bool {
    let v6 = a.v6.zip(b.v6).is_some_and(|(a, b)| overlaps6(a, b));
    overlaps4(a.v4, b.v4) || v6
}

/// Takes a lease with this value, the node's address being the value's `public_ip`.
///
/// Every write is conditional: a listing that has become stale starts the next of
/// [`RACE_RETRIES`] rounds. A reservation (a key without lease object) stays one.
///
/// # Errors
/// [`AcquireError`]; after an error of the datastore nothing is known about the last write, and
/// calling again finds out.
pub async fn acquire(
    store: &dyn Datastore,
    prefix: &Prefix,
    config: &NetworkConfig,
    value: &LeaseValue,
    previous: Option<Subnets>,
    rng: &mut impl Rng,
) -> Result<Acquired, AcquireError> {
    for _ in 0..RACE_RETRIES {
        let listing = Listing::read(&store.list(&prefix.subnets()).await?);
        let plan = plan(config, value.public_ip, previous, &listing, rng)?;
        if let Some(acquired) = carry_out(store, prefix, value, plan).await? {
            return Ok(acquired);
        }
        tokio::time::sleep(MAX_JITTER.mul_f64(rng.random::<f64>())).await;
    }
    Err(AcquireError::RaceLost)
}

/// `None` when the listing the plan was made from is out of date.
async fn carry_out(
    store: &dyn Datastore,
    prefix: &Prefix,
    value: &LeaseValue,
    plan: Plan,
) -> Result<Option<Acquired>, datastore::Error> {
    match plan {
        Plan::Reuse(found) => {
            let duplicate = duplicate(&found, value);
            let reserved = found.lease.is_none();
            let expect = Expect::Unchanged(found.mod_revision);
            let mut lease = OwnLease::unwritten(found.key, found.subnets, value.clone(), reserved);
            let done = lease.write(store, expect).await?;
            Ok(done.then_some(Acquired { lease, origin: Origin::OwnLease, deleted: None, duplicate }))
        }
        Plan::Create { subnets, origin, instead_of } => {
            if let Some(old) = &instead_of {
                let deleted = store.delete(&old.key, Expect::Unchanged(old.mod_revision)).await?;
                if deleted == Written::Conflict {
                    return Ok(None);
                }
            }
            let key = prefix.lease_key(&subnets);
            let mut lease = OwnLease::unwritten(key, subnets, value.clone(), false);
            let done = lease.write(store, Expect::Absent).await?;
            let deleted = instead_of.map(|old| old.subnets);
            Ok(done.then_some(Acquired { lease, origin, deleted, duplicate: None }))
        }
    }
}

fn duplicate(found: &Lease, value: &LeaseValue) -> Option<DuplicatePublicIp> {
    let theirs = found.value.vxlan().ok().flatten()?.vtep_mac;
    let ours = value.vxlan().ok().flatten()?.vtep_mac;
    (theirs != ours).then_some(DuplicatePublicIp {
        public_ip: value.public_ip,
        subnets: found.subnets,
        theirs,
        ours,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;
    use crate::model::flannel::VxlanData;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const NODE: &str = "1.2.3.4";

    fn config(text: &str) -> NetworkConfig {
        NetworkConfig::read(text.as_bytes()).unwrap()
    }

    fn narrow() -> NetworkConfig {
        config(r#"{"Network":"10.3.0.0/16","SubnetMin":"10.3.1.0","SubnetMax":"10.3.2.0"}"#)
    }

    fn value() -> LeaseValue {
        LeaseValue { public_ip: NODE.parse().unwrap(), ..Default::default() }
    }

    fn subnets(last: &str) -> Subnets {
        Subnets::from_key(last).unwrap()
    }

    fn key(last: &str) -> String {
        format!("/coreos.com/network/subnets/{last}")
    }

    const THEIRS: &str = r#"{"PublicIP":"9.9.9.9","PublicIPv6":null}"#;
    const OURS: &str = r#"{"PublicIP":"1.2.3.4","PublicIPv6":null}"#;

    async fn take(
        fake: &Fake,
        config: &NetworkConfig,
        previous: Option<&str>,
    ) -> Result<Acquired, AcquireError> {
        let mut rng = StdRng::seed_from_u64(3);
        acquire(fake, &Prefix::default(), config, &value(), previous.map(subnets), &mut rng).await
    }

    #[tokio::test]
    async fn a_new_lease_is_written_as_flannel_writes_it() {
        let fake = Fake::with(&[(&key("10.3.1.0-24"), THEIRS, Some(77))]);
        let acquired = take(&fake, &narrow(), None).await.unwrap();
        assert_eq!(acquired.lease.subnets(), &subnets("10.3.2.0-24"));
        assert_eq!(acquired.origin, Origin::Picked);
        let written = fake.get(&key("10.3.2.0-24")).unwrap();
        assert_eq!(written.value, OURS.as_bytes());
        assert_eq!(written.lease, Some(1));
        assert!(!acquired.lease.is_permanent());
    }

    #[tokio::test]
    async fn a_lost_race_is_run_again_from_a_new_listing() {
        let fake = Fake::default();
        let mut once = true;
        fake.before_put(move |state, _| {
            if std::mem::take(&mut once) {
                state.set(&key("10.3.2.0-24"), THEIRS, Some(77));
                state.set(&key("10.3.1.0-24"), THEIRS, Some(77));
                state.entries.remove(&key("10.3.1.0-24"));
            }
        });
        let acquired = take(&fake, &narrow(), Some("10.3.2.0-24")).await.unwrap();
        assert_eq!(acquired.lease.subnets(), &subnets("10.3.1.0-24"));
        assert_eq!(fake.state.lock().unwrap().revoked, [1], "the lease object of the lost write is given up");
    }

    #[tokio::test]
    async fn others_that_take_everything_meanwhile_leave_no_subnet() {
        let fake = Fake::default();
        fake.before_put(|state, _| {
            state.set(&key("10.3.1.0-24"), THEIRS, Some(77));
            state.set(&key("10.3.2.0-24"), THEIRS, Some(77));
        });
        assert!(matches!(take(&fake, &narrow(), None).await, Err(AcquireError::OutOfSubnets(_))));
    }

    #[tokio::test]
    async fn a_race_lost_ten_times_is_an_error() {
        let fake = Fake::with(&[(&key("10.3.1.0-24"), OURS, Some(77))]);
        fake.before_put(|state, _| state.set(&key("10.3.1.0-24"), OURS, Some(77)));
        assert!(matches!(take(&fake, &narrow(), None).await, Err(AcquireError::RaceLost)));
        assert_eq!(fake.log().len(), RACE_RETRIES);
    }

    #[tokio::test]
    async fn a_reservation_stays_without_lease_object() {
        let fake = Fake::with(&[(&key("10.3.1.0-24"), OURS, None)]);
        let acquired = take(&fake, &narrow(), None).await.unwrap();
        assert_eq!(acquired.origin, Origin::OwnLease);
        assert!(acquired.lease.is_permanent());
        assert_eq!(fake.get(&key("10.3.1.0-24")).unwrap().lease, None);
        assert_eq!(fake.state.lock().unwrap().granted, 0);
    }

    #[tokio::test]
    async fn an_unfit_lease_is_deleted_and_its_room_is_free() {
        let fake =
            Fake::with(&[(&key("10.3.0.0-22"), OURS, Some(77)), (&key("10.3.1.0-24"), THEIRS, Some(88))]);
        let acquired = take(&fake, &narrow(), None).await.unwrap();
        assert_eq!(acquired.deleted, Some(subnets("10.3.0.0-22")));
        assert_eq!(acquired.lease.subnets(), &subnets("10.3.2.0-24"));
        assert_eq!(fake.get(&key("10.3.0.0-22")), None);
    }

    #[tokio::test]
    async fn a_network_behind_a_gateway_is_not_taken_for_the_nodes_own_subnet() {
        let fake =
            Fake::with(&[(&key("10.1.0.0-16"), OURS, Some(77)), (&key("10.3.1.0-24"), OURS, Some(77))]);
        let acquired = take(&fake, &narrow(), None).await.unwrap();
        assert_eq!((acquired.lease.subnets(), acquired.deleted), (&subnets("10.3.1.0-24"), None));
        assert!(fake.get(&key("10.1.0.0-16")).is_some());
    }

    #[tokio::test]
    async fn a_key_with_an_unreadable_value_is_still_taken() {
        let fake = Fake::with(&[(&key("10.3.1.0-24"), "{", Some(77)), (&key("junk"), "{}", None)]);
        for previous in [None, Some("10.3.1.0-24")] {
            let Ok(acquired) = take(&fake, &narrow(), previous).await else { panic!("{previous:?}") };
            assert_eq!(acquired.lease.subnets(), &subnets("10.3.2.0-24"));
        }
        assert_eq!(fake.get(&key("10.3.1.0-24")).unwrap().value, b"{");
    }

    #[tokio::test]
    async fn a_lease_with_another_endpoint_address_is_taken_with_a_warning() {
        let with_mac = |mac: &str| LeaseValue {
            backend_type: "vxlan".into(),
            backend_data: Some(VxlanData { vni: None, vtep_mac: mac.parse().unwrap() }.encode()),
            ..value()
        };
        let (ours, theirs) = (with_mac("02:00:00:00:00:01"), with_mac("02:00:00:00:00:02"));
        let mut rng = StdRng::seed_from_u64(3);
        for (found, warned) in [(&theirs, true), (&ours, false)] {
            let fake = Fake::with(&[(&key("10.3.1.0-24"), &found.encode(), Some(77))]);
            let acquired =
                acquire(&fake, &Prefix::default(), &narrow(), &ours, None, &mut rng).await.unwrap();
            assert_eq!(acquired.duplicate.is_some(), warned);
            assert_eq!(fake.get(&key("10.3.1.0-24")).unwrap().value, ours.encode().as_bytes());
        }
    }

    #[test]
    fn an_ipv6_only_network_is_refused() {
        let config = config(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48"}"#);
        let mut rng = StdRng::seed_from_u64(3);
        let refused = plan(&config, NODE.parse().unwrap(), None, &Listing::default(), &mut rng);
        assert!(matches!(refused, Err(AcquireError::Ipv6Only)));
    }
}
