//! What a running node says of itself.

use super::hold::{Cause, Hold};
use super::keeper::Condition;
use super::running::Running;
use crate::model::flannel::Backend;
use crate::state::ConfigState;
use crate::status::{Heard, LeaseStatus, MAX_COMPLAINTS, OverlayStatus, Reason, Status, UnderlayStatus};

impl Running {
    /// What has been read and is about to be put in force: that may take a while, during which it shows.
    pub(super) fn report_heard(&mut self) {
        let heard = self.feeds.heard();
        self.agent.status.send_if_modified(|current| current.heard.advance(heard));
    }

    pub(super) fn report(&mut self) {
        self.device_worked |= self.device_sender.is_none() && self.device_trouble.borrow().is_none();
        self.network_error = self.feeds.network_status().last_error;
        let (mut status, heard) = (self.status(), self.feeds.heard());
        self.agent.status.send_if_modified(|current| {
            // By code: an outage says something else at each attempt.
            let known = |reason: &&Reason| current.degraded.iter().any(|old| old.code() == reason.code());
            for reason in status.degraded.iter().filter(|reason| !known(reason)) {
                tracing::warn!("{reason}");
            }
            if current.ready != status.ready {
                tracing::info!(ready = status.ready, "readiness changed");
            }
            status.heard = current.heard;
            status.heard.advance(heard);
            let news = *current != status;
            *current = status;
            news
        });
    }

    fn status(&self) -> Status {
        let lease = self.reports.borrow().clone();
        let network = self.feeds.network_status();
        let (external, subnets) = (&self.external, &self.joined.subnets);
        let vxlan = match self.joined.backend {
            Backend::Vxlan(options) => Some(options),
            Backend::HostGw | Backend::Alloc => None,
        };
        let taken = matches!(lease.condition, Condition::Taken { .. });
        let public = external.public_v4.map(Into::into).into_iter().chain(external.public_v6.map(Into::into));
        let degraded = self.reasons(&lease.condition, network.last_error.as_deref());
        let mut complaints = self.feeds.unusable_complaints();
        complaints.extend(self.complaints.iter().cloned());
        let complaints_total = complaints.len();
        complaints.truncate(MAX_COMPLAINTS);
        Status {
            datastore: self.agent.store.describe(),
            connected: network.last_error.is_none() && network.last_contact.is_some(),
            in_sync: self.feeds.network_in_sync,
            last_contact: network.last_contact,
            heard: Heard::default(),
            in_force: self.in_force,
            published_generation: self.generation,
            lease: Some(LeaseStatus {
                subnet: subnets.v4,
                subnet_v6: subnets.v6,
                expires_at: lease.expires_at,
            }),
            underlay: Some(UnderlayStatus {
                name: external.name.clone(),
                public: public.collect(),
                mtu: external.mtu,
            }),
            overlay: Some(OverlayStatus {
                backend: backend_name(&self.joined.backend),
                vni: vxlan.map(|options| options.vni),
                port: vxlan.map(|options| options.port),
                mtu: self.desired.borrow().mtu,
            }),
            announcements: self.announcing.status(),
            policy: self.published.is_some().then(|| self.calico.status()),
            cluster: self.calico.cluster(),
            calico_network: self.calico.network(),
            applied: self.applied,
            ready: self.published.is_some() && !taken && self.steering.underlay_works && self.device_worked,
            degraded,
            complaints,
            complaints_total,
        }
    }

    fn reasons(&self, lease: &Condition, network: Option<&str>) -> Vec<Reason> {
        let mut reasons = Vec::new();
        match lease.clone() {
            Condition::Held => {}
            Condition::Contended => reasons.push(Reason::LeaseContended),
            Condition::NotRenewed { why } => reasons.push(Reason::LeaseNotRenewed { why }),
            Condition::Lost { why } => reasons.push(Reason::LeaseLost { why }),
            Condition::Taken { by } => reasons.push(Reason::LeaseTaken { by }),
        }
        if let Some(why) = network {
            reasons.push(Reason::DatastoreAway { why: why.to_owned() });
        }
        match self.feeds.hold.as_ref().map(Hold::cause) {
            None => {}
            Some(Cause::Wiped) => reasons.push(Reason::Wiped),
            Some(Cause::Saved { age_s }) => reasons.push(Reason::Saved { age_s }),
        }
        match self.feeds.live.config() {
            ConfigState::Valid(config) => {
                let members = self.joined.config.changed_members(config);
                if !members.is_empty() {
                    reasons.push(Reason::RestartRequired { members });
                }
            }
            ConfigState::Invalid => reasons.push(Reason::ConfigInvalid),
            ConfigState::Absent => {}
        }
        if !self.feeds.ready() {
            reasons.push(Reason::CalicoNotReady);
        }
        if !self.feeds.workloads_in_sync && self.feeds.complete() {
            let why = self.feeds.workloads_status().last_error;
            reasons.push(Reason::NoWorkloads { why: why.unwrap_or_else(|| "no answer".to_owned()) });
        }
        reasons.extend(self.feeds.unusable_reason());
        reasons.extend(self.underlay_trouble.clone().map(|why| Reason::Underlay { why }));
        reasons.extend(self.gateway_trouble.iter().cloned().map(|why| Reason::Gateway { why }));
        reasons.extend(self.announcing.status().into_iter().filter_map(|announcement| {
            let problem = announcement.problem?;
            let networks: Vec<String> = announcement.networks.iter().map(ToString::to_string).collect();
            Some(Reason::Gateway { why: format!("{} is not announced: {problem}", networks.join(" and ")) })
        }));
        reasons.extend(self.device_trouble.borrow().clone().map(|why| Reason::Device { why }));
        reasons.extend(self.steering.trouble.iter().cloned().map(|why| Reason::Steering { why }));
        reasons.extend(self.subnet_file.trouble.clone().map(|why| Reason::File { why }));
        reasons.extend(self.saver.trouble.clone().map(|why| Reason::File { why }));
        reasons
    }
}

const fn backend_name(backend: &Backend) -> &'static str {
    match backend {
        Backend::Vxlan(_) => "vxlan",
        Backend::HostGw => "host-gw",
        Backend::Alloc => "alloc",
    }
}
