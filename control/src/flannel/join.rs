//! Joining a network: config, identity and lease in the order flannel takes them.

use std::io;
use std::time::Duration;

use rand::Rng;

use super::acquire::{AcquireError, Acquired, acquire, find_own};
use super::identity::{Identity, StoredIdentity};
use super::listing::Listing;
use super::membership::Membership;
use super::options::MembershipOptions;
use super::renewal::Renewal;
use super::subnet_env;
use crate::datastore::{self, Datastore};
use crate::model::flannel::{
    Backend, BackendError, ConfigError, LeaseValue, NetworkConfig, Prefix, VxlanData, VxlanOptions,
};

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody has written the network config. Try again: the operator may be about to.
    #[error("no network config at {key}")]
    NoConfig {
        /// Where it should be.
        key: String,
    },
    /// The document is wrong. Try again: it may be corrected.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The backend is not one that canal speaks.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The network is dual-stack and the node has no public IPv6 address.
    #[error("the network has EnableIPv6 set: this node needs a public IPv6 address (--public-ipv6)")]
    NoPublicIpv6,
    /// No lease.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// A file of this node's could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
}

/// Reads the network config.
///
/// # Errors
/// [`JoinError::NoConfig`], [`JoinError::Config`] and [`JoinError::Datastore`]; flannel tries again
/// every second for ever.
pub async fn read_config(store: &dyn Datastore, prefix: &Prefix) -> Result<NetworkConfig, JoinError> {
    let key = prefix.config_key();
    let listed = store.list(&key).await?;
    match listed.entries.iter().find(|entry| entry.key == key) {
        Some(entry) => Ok(NetworkConfig::read(&entry.value)?),
        None => Err(JoinError::NoConfig { key }),
    }
}

/// What a node publishes in its lease.
///
/// # Errors
/// [`JoinError::NoPublicIpv6`].
pub fn lease_value(
    config: &NetworkConfig,
    backend: &Backend,
    options: &MembershipOptions,
    identity: &Identity,
) -> Result<LeaseValue, JoinError> {
    let dual = config.v6.is_some();
    let public_ipv6 = if dual { Some(options.public_ipv6.ok_or(JoinError::NoPublicIpv6)?) } else { None };
    let (backend_data, backend_v6_data) = match backend {
        Backend::Vxlan(VxlanOptions { vni, .. }) => {
            let data = |vtep_mac| VxlanData { vni: Some(*vni), vtep_mac }.encode();
            (Some(data(identity.vtep_mac)), dual.then(|| data(identity.vtep_v6_mac)))
        }
        Backend::HostGw | Backend::Alloc => (None, None),
    };
    Ok(LeaseValue {
        public_ip: options.public_ip,
        public_ipv6,
        backend_type: backend.lease_type().to_owned(),
        backend_data,
        backend_v6_data,
    })
}

/// Joins the network under `options.prefix`; `now` is [`super::renewal::boot_time`].
///
/// The endpoints' addresses are saved before the lease that names them is written. The subnet file
/// is only read: it is for the caller to write once the node really forwards.
///
/// # Errors
/// [`JoinError`]; nothing stays behind that the next try would not find and use.
pub async fn join(
    store: &dyn Datastore,
    options: &MembershipOptions,
    rng: &mut impl Rng,
    now: Duration,
) -> Result<Membership, JoinError> {
    let config = read_config(store, &options.prefix).await?;
    let backend = config.backend()?;
    if config.v4.is_none() {
        return Err(AcquireError::Ipv6Only.into());
    }

    let file_error =
        |path: &std::path::Path, source| JoinError::File { path: path.display().to_string(), source };
    let stored =
        StoredIdentity::load(&options.identity_file).map_err(|e| file_error(&options.identity_file, e))?;
    let listing = Listing::read(&store.list(&options.prefix.subnets()).await?);
    let former = find_own(&listing, &config, options.public_ip).map(|lease| &lease.value);
    let identity = Identity::settle(stored, former, rng);
    identity.save(&options.identity_file).map_err(|e| file_error(&options.identity_file, e))?;

    let value = lease_value(&config, &backend, options, &identity)?;
    let previous =
        subnet_env::previous(&options.subnet_file).map_err(|e| file_error(&options.subnet_file, e))?;
    let acquired = acquire(store, &options.prefix, &config, &value, previous, rng).await?;

    let mut renewal = Renewal::never(options.renew_margin);
    if !acquired.lease.is_permanent() {
        renewal.granted(now);
    }
    let Acquired { lease, origin, deleted, duplicate } = acquired;
    Ok(Membership { config, backend, identity, lease, origin, deleted, duplicate, renewal })
}

#[cfg(test)]
mod tests {
    use super::super::acquire::Origin;
    use super::super::fake::Fake;
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const CONFIG: &str = "/coreos.com/network/config";

    fn options(root: &std::path::Path) -> MembershipOptions {
        let subnet_file = root.join("flannel/subnet.env");
        MembershipOptions {
            identity_file: MembershipOptions::identity_beside(&subnet_file),
            subnet_file,
            ..MembershipOptions::new("192.0.2.1".parse().unwrap())
        }
    }

    async fn join_with(fake: &Fake, options: &MembershipOptions, seed: u64) -> Result<Membership, JoinError> {
        join(fake, options, &mut StdRng::seed_from_u64(seed), Duration::from_secs(1000)).await
    }

    #[tokio::test]
    async fn a_restart_keeps_subnet_and_endpoint_whatever_is_left_of_the_state() {
        let root = tempfile::tempdir().unwrap();
        let options = options(root.path());
        let fake = Fake::with(&[(CONFIG, r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#, None)]);
        let first = join_with(&fake, &options, 1).await.unwrap();
        assert_eq!(first.origin, Origin::Picked);
        assert!(first.renewal.is_due(Duration::from_secs(1000 + 23 * 3600)));
        first.subnet_env(1450, false).write(&options.subnet_file).unwrap();

        // Reboot: /run is empty, the lease is there.
        std::fs::remove_dir_all(options.subnet_file.parent().unwrap()).unwrap();
        let rebooted = join_with(&fake, &options, 2).await.unwrap();
        assert_eq!(rebooted.origin, Origin::OwnLease);
        assert_eq!(rebooted.identity.vtep_mac, first.identity.vtep_mac);
        assert_eq!(rebooted.duplicate, None);

        // The lease has expired, the files are there.
        rebooted.subnet_env(1450, false).write(&options.subnet_file).unwrap();
        fake.state.lock().unwrap().unset(first.lease.key());
        let late = join_with(&fake, &options, 3).await.unwrap();
        assert_eq!(late.origin, Origin::SubnetFile);
        assert_eq!(late.lease.subnets(), first.lease.subnets());
        assert_eq!(late.identity, rebooted.identity);
    }

    #[tokio::test]
    async fn what_stands_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let options = options(root.path());
        let failure = async |config: Option<&str>| {
            let entries: Vec<_> = config.map(|text| (CONFIG, text, None)).into_iter().collect();
            join_with(&Fake::with(&entries), &options, 1).await.unwrap_err()
        };
        assert!(matches!(failure(None).await, JoinError::NoConfig { .. }));
        assert!(matches!(failure(Some("{")).await, JoinError::Config(_)));
        assert!(matches!(failure(Some(r#"{"Network":"10.5.0.0/16"}"#)).await, JoinError::Backend(_)));
        let dual = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"host-gw"}}"#;
        assert!(matches!(failure(Some(dual)).await, JoinError::NoPublicIpv6));
        let v6_only =
            r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"alloc"}}"#;
        assert!(matches!(failure(Some(v6_only)).await, JoinError::Acquire(AcquireError::Ipv6Only)));
    }
}
