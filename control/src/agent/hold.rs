//! Keeping what was there before: a datastore that lost its content must not cost running pods their network.

use std::time::Duration;

use tokio::time::Instant;

use crate::datastore::{Change, Revision};
use crate::model::flannel::NetworkConfig;
use crate::state::{ConfigState, State};

/// How long after the config is back other nodes have to make their leases again: flannel leaves when its lease is
/// deleted, and whatever started it starts it anew.
const REFILL: Duration = Duration::from_secs(60);

/// What was there before, and why it is still in force. What the datastore says now goes before it, key by key.
#[derive(Debug)]
pub(super) struct Hold {
    /// What was there before.
    former: State,
    /// What is in force: that, and over it what the datastore says now.
    merged: State,
    cause: Cause,
    /// When it ends, once the datastore is being filled again.
    until: Option<Instant>,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Started while the datastore was away, with what was saved so many seconds before.
    Saved {
        /// Seconds.
        age_s: u64,
    },
    /// The datastore lost its content.
    Wiped,
}

impl Hold {
    /// The datastore had this, and lost it.
    pub(super) fn wiped(former: State) -> Self {
        Self::new(former, Cause::Wiped)
    }

    /// This was saved; the datastore has said nothing yet.
    pub(super) fn saved(former: State, age_s: u64) -> Self {
        Self::new(former, Cause::Saved { age_s })
    }

    fn new(former: State, cause: Cause) -> Self {
        let former = former.aged();
        Self { merged: former.clone(), former, cause, until: None }
    }

    /// What is in force.
    pub(super) const fn merged(&self) -> &State {
        &self.merged
    }

    /// The datastore has said this, and has been read up to `revision`. Costs as much as there are changes, however much
    /// is held: a datastore that is filled again says it in small pieces.
    pub(super) fn take(&mut self, changes: &[Change], revision: Revision) {
        for change in changes {
            if change.value.is_some() {
                self.merged.apply(std::slice::from_ref(change));
            } else {
                self.merged.restore(&self.former, &change.key);
            }
        }
        if revision > 0 {
            self.merged.reached(revision);
        }
    }

    pub(super) const fn cause(&self) -> Cause {
        self.cause
    }

    /// When to ask [`Self::is_over`] again without anything having happened.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Judges what the datastore has by now. What was saved ends with the first complete listing that has a config,
    /// for that is the truth; what was lost ends [`REFILL`] after a config is back.
    pub(super) fn is_over(&mut self, live: &State, complete: bool, now: Instant) -> bool {
        let filled: Option<&NetworkConfig> = match live.config() {
            ConfigState::Valid(config) => Some(config),
            ConfigState::Invalid | ConfigState::Absent => None,
        };
        if !complete {
            return false;
        }
        if filled.is_none() {
            // Whether it was lost while we ran or before makes no difference.
            (self.cause, self.until) = (Cause::Wiped, None);
            return false;
        }
        match self.cause {
            Cause::Saved { .. } => true,
            Cause::Wiped => now >= *self.until.get_or_insert(now + REFILL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::KeyValue;
    use crate::model::flannel::Prefix;

    fn state(config: Option<&str>) -> State {
        let key = "/coreos.com/network/config".to_owned();
        let value = config.map(|text| KeyValue {
            key: key.clone(),
            value: text.into(),
            mod_revision: 2,
            lease: None,
        });
        let mut state = State::new("n1", &Prefix::default());
        state.apply(&[Change { key, value, revision: 2 }]);
        state
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_saved_ends_with_the_first_complete_listing() {
        let (empty, full) = (state(None), state(Some(r#"{"Network":"10.1.0.0/16"}"#)));
        let mut hold = Hold::saved(full.clone(), 5);
        let now = Instant::now();
        assert!(!hold.is_over(&full, false, now));
        assert!(hold.is_over(&full, true, now));
        assert!(!hold.is_over(&empty, true, now));
        assert_eq!(hold.cause(), Cause::Wiped);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_lost_ends_a_while_after_the_config_is_back() {
        let (empty, full) = (state(None), state(Some(r#"{"Network":"10.1.0.0/16"}"#)));
        let mut hold = Hold::wiped(full.clone());
        let start = Instant::now();
        assert!(!hold.is_over(&full, true, start));
        assert_eq!(hold.until(), Some(start + REFILL));
        assert!(!hold.is_over(&empty, true, start + REFILL), "gone again");
        assert!(!hold.is_over(&full, true, start + REFILL));
        assert!(hold.is_over(&full, true, start + REFILL * 2));
    }
}
