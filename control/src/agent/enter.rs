//! The way into the network: wait for datastore and config, choose the interface, take a lease. Or, when the datastore
//! does not answer, go on by what was saved.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::feeds::Feeds;
use super::{Agent, AgentError, Options, saved};
use crate::flannel::identity::StoredIdentity;
use crate::flannel::{AcquireError, Identity, JoinError, Membership, MembershipOptions, join};
use crate::host::{External, Wanted};
use crate::model::flannel::{Backend, NetworkConfig};
use crate::resolve::{missing_gateways, pod_mtu};
use crate::state::{ConfigState, State};
use crate::status::{Heard, MAX_COMPLAINTS, Reason, Status};

/// flannel's pause between attempts to read the config.
const RETRY: Duration = Duration::from_secs(1);

/// How long the datastore may take before we go on by what was saved: a server that restarts together with the node
/// should be waited for, pods that restart together with the node should not wait longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node that has joined.
pub(super) struct Entered {
    pub(super) membership: Membership,
    pub(super) external: External,
    /// By what was saved: the datastore has not been asked.
    pub(super) remembered: bool,
}

/// What is in the way.
enum Obstacle {
    /// Waiting may help.
    Wait(Reason),
    /// The datastore does not do what it is asked; what was saved may help.
    Away(Reason),
    /// Nothing helps.
    Fatal(AgentError),
}

impl<E: Into<AgentError>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}

impl Agent {
    /// Returns once there is a lease, real or remembered.
    pub(super) async fn enter(&mut self, feeds: &mut Feeds) -> Result<Entered, AgentError> {
        let patience = Instant::now() + PATIENCE;
        let mut may_remember = true;
        let mut next_try = Instant::now();
        loop {
            let obstacle = if !feeds.network_in_sync {
                let why = feeds.network_status().last_error.unwrap_or_else(|| "no answer".to_owned());
                Obstacle::Away(Reason::WaitingForDatastore { why })
            } else {
                next_try = Instant::now() + RETRY;
                match self.try_join(&feeds.live).await {
                    Ok(entered) => {
                        // Whatever was lost before this node joined was never in force here.
                        feeds.release();
                        return Ok(entered);
                    }
                    Err(obstacle) => obstacle,
                }
            };
            let reason = match obstacle {
                Obstacle::Fatal(error) => return Err(error),
                Obstacle::Wait(reason) => reason,
                Obstacle::Away(reason) => {
                    if may_remember && Instant::now() >= patience {
                        may_remember = false;
                        if let Some(entered) = self.remember(feeds).await? {
                            return Ok(entered);
                        }
                    }
                    reason
                }
            };
            self.say_waiting(feeds, reason);
            wait(feeds, next_try, may_remember.then_some(patience)).await;
        }
    }

    fn say_waiting(&self, feeds: &Feeds, reason: Reason) {
        let mut complaints = feeds.unusable_complaints();
        complaints.extend(feeds.live.complaints().cloned());
        let complaints_total = complaints.len();
        complaints.truncate(MAX_COMPLAINTS);
        let views = self.host.views();
        let view = views.borrow();
        let missing = missing_gateways(&self.options.gateways, &view).map(|why| Reason::Gateway { why });
        let status = Status {
            datastore: self.store.describe(),
            connected: feeds.network_status().last_error.is_none(),
            in_sync: feeds.network_in_sync,
            last_contact: feeds.network_status().last_contact,
            heard: Heard { revision: feeds.heard(), at: None },
            degraded: std::iter::once(reason).chain(feeds.unusable_reason()).chain(missing).collect(),
            complaints,
            complaints_total,
            ..Status::default()
        };
        self.status.send_if_modified(|current| {
            if current.degraded != status.degraded {
                status.degraded.iter().for_each(|reason| tracing::info!("{reason}"));
            }
            let news = *current != status;
            *current = status;
            news
        });
    }

    async fn try_join(&mut self, live: &State) -> Result<Entered, Obstacle> {
        let key = self.options.prefix.config_key();
        let config = match live.config() {
            ConfigState::Valid(config) => config,
            ConfigState::Absent => {
                let why = JoinError::NoConfig { key }.to_string();
                return Err(Obstacle::Wait(Reason::WaitingForConfig { why }));
            }
            ConfigState::Invalid => {
                let complaint = live.complaints().find(|complaint| complaint.key == key);
                let why = complaint.map_or_else(String::new, |complaint| complaint.sentence.clone());
                return Err(Obstacle::Wait(Reason::WaitingForConfig { why }));
            }
        };
        let (_, external, options) = self.prepare(config).await?;
        let mut rng = self.rng();
        match join(&*self.store, &options, &mut rng, (self.clock)()).await {
            Ok(membership) => Ok(Entered { membership, external, remembered: false }),
            Err(error) => Err(obstacle(error)),
        }
    }

    /// Everything that can be refused before the datastore is written to.
    async fn prepare(
        &mut self,
        config: &NetworkConfig,
    ) -> Result<(Backend, External, MembershipOptions), AgentError> {
        let backend = config.backend()?;
        if config.v4.is_none() {
            return Err(AgentError::Join(AcquireError::Ipv6Only.into()));
        }
        let view = self.host.views().borrow().clone();
        let external = self.host.select(&self.wanted(config), &view).await?;
        pod_mtu(config, &backend, external.mtu)?;
        let options = self.membership_options(&external);
        Ok((backend, external, options))
    }

    /// Which interface is looked for in a network of this config.
    pub(super) fn wanted(&self, config: &NetworkConfig) -> Wanted {
        Wanted {
            ipv4: config.v4.is_some(),
            ipv6: config.v6.is_some(),
            own_device: self.options.device.clone(),
            ..self.options.wanted.clone()
        }
    }

    /// Membership by way of this interface.
    pub(super) fn membership_options(&self, external: &External) -> MembershipOptions {
        let options = &self.options;
        MembershipOptions {
            prefix: options.prefix.clone(),
            // A network without IPv4 is refused, and an interface without it is not selected for one that has it.
            public_ip: external.public_v4.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
            public_ipv6: external.public_v6,
            subnet_file: options.subnet_file.clone(),
            identity_file: options.identity_file.clone(),
            renew_margin: options.renew_margin,
            ip_masq: options.ip_masq,
        }
    }

    fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.options.seed)
    }

    /// By what was saved, if it is of use: then it is in force until the datastore has answered.
    async fn remember(&mut self, feeds: &mut Feeds) -> Result<Option<Entered>, AgentError> {
        let source = self.store.describe();
        let Options { snapshot_file, nodename, prefix, .. } = &self.options;
        let loaded = saved::load(snapshot_file, &source, nodename, prefix);
        let (state, age) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::info!("the datastore is away, and going on without it is not possible: {error}");
                return Ok(None);
            }
        };
        let ConfigState::Valid(config) = state.config() else { return Ok(None) };
        let (backend, external, options) = self.prepare(config).await?;
        let own = state.leases().values().find(|lease| lease.value.public_ip == options.public_ip);
        let Some(own) = own else {
            tracing::info!(public_ip = %options.public_ip, "what was saved has no lease of this node");
            return Ok(None);
        };
        let stored = StoredIdentity::load(&options.identity_file).unwrap_or_default();
        let identity = Identity::settle(stored, Some(&own.value), &mut self.rng());
        let membership = Membership::remembered(
            (**config).clone(),
            backend,
            identity,
            &options,
            own.subnets,
            own.value.clone(),
            (self.clock)(),
        );
        tracing::warn!(?age, subnets = %own.subnets, "the datastore is away; going on by what was saved");
        feeds.hold_saved(state, age.as_secs());
        Ok(Some(Entered { membership, external, remembered: true }))
    }
}

/// Until something may have changed.
async fn wait(feeds: &mut Feeds, next_try: Instant, patience: Option<Instant>) {
    let mut due = if feeds.network_in_sync { next_try } else { Instant::now() + RETRY };
    if let Some(patience) = patience.filter(|patience| *patience > Instant::now()) {
        due = due.min(patience);
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => return,
            batch = feeds.next() => {
                let before = (feeds.network_in_sync, feeds.live.config().clone());
                feeds.take(batch);
                if before != (feeds.network_in_sync, feeds.live.config().clone()) {
                    return;
                }
            }
        }
    }
}

fn obstacle(error: JoinError) -> Obstacle {
    let why = error.to_string();
    match error {
        JoinError::NoConfig { .. } | JoinError::Config(_) => Obstacle::Wait(Reason::WaitingForConfig { why }),
        JoinError::Backend(error) => Obstacle::Fatal(error.into()),
        JoinError::NoPublicIpv6
        | JoinError::Acquire(AcquireError::Ipv6Only | AcquireError::OutOfSubnets(_)) => {
            Obstacle::Fatal(AgentError::Join(error))
        }
        JoinError::Acquire(AcquireError::RaceLost) => Obstacle::Wait(Reason::Joining { why }),
        JoinError::File { .. } => Obstacle::Wait(Reason::File { why }),
        JoinError::Acquire(AcquireError::Datastore(_)) | JoinError::Datastore(_) => {
            Obstacle::Away(Reason::Joining { why })
        }
    }
}
