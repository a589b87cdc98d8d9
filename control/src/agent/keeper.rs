//! Keeps the lease: a task of its own, because a datastore that is slow to answer must not keep anything else waiting.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::datastore::{Change, Datastore};
use crate::flannel::acquire::LEASE_TTL;
use crate::flannel::{LeaseError, Membership, Observed, Rewritten};
use crate::model::flannel::LeaseValue;

/// Time since boot, suspension included; see [`crate::flannel::renewal::boot_time`].
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// First pause after a failure or after somebody else's write; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// flannel's pause between attempts to renew.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Somebody else's writes further apart than this are no contest.
const CALM: Duration = Duration::from_secs(300);

/// What the agent wants of the lease.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// What is to be published.
    pub(super) value: LeaseValue,
    /// The last change of the lease's key that was seen.
    pub(super) change: Option<Change>,
    /// Counts the occasions on which the key must be written whatever is known of it, e.g. the store's history is new
    /// and revisions mean nothing.
    pub(super) rewrites: u64,
    /// The datastore has a config that this lease fits. Without one nothing that was lost is made again.
    pub(super) wanted: bool,
}

/// How the lease is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LeaseReport {
    pub(super) condition: Condition,
    /// When it expires unless renewed; `None` = never, or unknown.
    pub(super) expires_at: Option<Instant>,
}

/// What can be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Ours, as we left it.
    Held,
    /// Ours, but somebody writes it again and again.
    Contended,
    /// It could not be written when it had to be.
    NotRenewed { why: String },
    /// It is not in the datastore, as far as we know.
    Lost { why: String },
    /// Another node has it.
    Taken { by: Ipv4Addr },
}

pub(super) struct Keeper {
    store: Arc<dyn Datastore>,
    membership: Membership,
    clock: Clock,
    wishes: watch::Receiver<Wish>,
    report: watch::Sender<LeaseReport>,
    /// Rewrites that have been done.
    rewritten: u64,
    /// Lost histories that have been taken note of.
    doubted: u64,
    looked_at: Option<Change>,
    /// The key is gone.
    lost: bool,
    /// It was taken in an earlier run, and nobody has told yet whether it still is.
    unsure: bool,
    /// The last write failed.
    again: bool,
    /// Not before this, after a failure or a contest.
    pause: Duration,
    paused_until: Option<Instant>,
    last_contest: Option<Instant>,
}

impl Keeper {
    /// For a lease that was just taken, or that has to be made sure of (`remembered`).
    pub(super) fn new(
        store: Arc<dyn Datastore>,
        membership: Membership,
        clock: Clock,
        wishes: watch::Receiver<Wish>,
        remembered: bool,
    ) -> (Self, watch::Receiver<LeaseReport>) {
        let expires = !remembered && !membership.lease().is_permanent();
        let condition = if remembered {
            Condition::NotRenewed { why: "the datastore has not answered yet".into() }
        } else {
            Condition::Held
        };
        let expires_at = expires.then(|| Instant::now() + LEASE_TTL);
        let (report, reports) = watch::channel(LeaseReport { condition, expires_at });
        let keeper = Self {
            store,
            membership,
            clock,
            wishes,
            report,
            rewritten: 0,
            doubted: 0,
            looked_at: None,
            lost: false,
            unsure: remembered,
            again: false,
            pause: FIRST_PAUSE,
            paused_until: None,
            last_contest: None,
        };
        (keeper, reports)
    }

    /// Runs until the agent is gone.
    pub(super) async fn run(mut self) {
        loop {
            let wish = self.wishes.borrow_and_update().clone();
            self.look(&wish);
            if self.paused_until.is_none_or(|until| Instant::now() >= until) {
                self.act(&wish).await;
            }
            let paused = self.paused_until.map(|until| until.saturating_duration_since(Instant::now()));
            let wait = paused.filter(|wait| !wait.is_zero());
            let wait = wait.unwrap_or_else(|| self.membership.wait((self.clock)()).max(FIRST_PAUSE));
            tokio::select! {
                changed = self.wishes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes in what was seen of the key.
    fn look(&mut self, wish: &Wish) {
        if wish.rewrites != self.doubted {
            self.doubted = wish.rewrites;
            self.membership.doubt((self.clock)());
        }
        // Once each: what it said may be of a history that has been lost since.
        if wish.change == self.looked_at {
            return;
        }
        self.looked_at.clone_from(&wish.change);
        let Some(change) = &wish.change else { return };
        match self.membership.observe(change, (self.clock)()) {
            Observed::Unchanged | Observed::Touched { same_value: true } => {}
            Observed::Lost => {
                if !self.lost {
                    tracing::warn!(subnets = %self.membership.lease().subnets(), "our lease is gone from the datastore");
                    self.say(Condition::Lost { why: "the datastore has not answered yet".into() });
                }
                self.lost = true;
            }
            Observed::Touched { same_value: false } => self.contest(),
            Observed::TakenBy(by) => self.say(Condition::Taken { by }),
        }
    }

    /// Somebody writes our lease in our name. Two machines of one address would do so as fast as the datastore lets
    /// them, hence a pause that grows.
    fn contest(&mut self) {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        if self.last_contest.is_some_and(|last| now - last < CALM) {
            self.hold_off();
            self.say(Condition::Contended);
        }
        self.last_contest = Some(now);
    }

    fn hold_off(&mut self) {
        self.paused_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Writes the key if it has to be.
    async fn act(&mut self, wish: &Wish) {
        let now = (self.clock)();
        let other_value = wish.value != *self.membership.lease().value();
        let rewrite = wish.rewrites != self.rewritten;
        if self.unsure && !wish.wanted {
            return;
        }
        if (self.lost || rewrite) && !wish.wanted {
            let why = "there is no network config that it fits".to_owned();
            return self.say(Condition::Lost { why });
        }
        let outcome = if other_value || rewrite || self.again {
            self.membership.publish(&*self.store, wish.value.clone(), now).await.map(Some)
        } else {
            self.membership.renew_if_due(&*self.store, now).await
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(how)) => {
                if how != Rewritten::Renewed || other_value {
                    tracing::info!(subnets = %self.membership.lease().subnets(), ?how, "lease written");
                }
                self.rewritten = wish.rewrites;
                (self.lost, self.unsure, self.again) = (false, false, false);
                self.paused_until = None;
                if self.last_contest.is_none_or(|last| last.elapsed() >= CALM) {
                    self.pause = FIRST_PAUSE;
                }
                let expires = !self.membership.lease().is_permanent();
                // The clock was read before the lease object was asked for: early rather than late.
                let gone = (self.clock)().saturating_sub(now);
                let expires_at = expires.then(|| Instant::now() + LEASE_TTL.saturating_sub(gone));
                self.report.send_replace(LeaseReport { condition: Condition::Held, expires_at });
            }
            Err(LeaseError::TakenBy { public_ip, .. }) => {
                if !matches!(self.report.borrow().condition, Condition::Taken { by } if by == public_ip) {
                    tracing::error!(
                        subnets = %self.membership.lease().subnets(),
                        "our subnets were taken by the node {public_ip}; running pods go on"
                    );
                }
                self.again = true;
                self.hold_off();
                self.say(Condition::Taken { by: public_ip });
            }
            Err(error) => {
                self.again = true;
                self.hold_off();
                let why = error.to_string();
                let lost = self.lost || self.membership.is_expired(now);
                self.say(if lost { Condition::Lost { why } } else { Condition::NotRenewed { why } });
            }
        }
    }

    fn say(&self, condition: Condition) {
        self.report.send_if_modified(|report| {
            let news = report.condition != condition;
            if news {
                report.condition = condition;
            }
            news
        });
    }
}
