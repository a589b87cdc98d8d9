//! How this node's endpoints are, one key each.
//!
//! Host endpoints are not reported: their policy is enforced for what passes gateway interfaces only, and `up` would say
//! that it is for the host's own traffic, too. What an earlier Felix said of them is taken away.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::{Ledger, Step};
use super::outcome::Outcomes;
use super::{Condition, Conditions, Reporter, Settings, in_time};
use crate::datastore::{Error, Expect, Snapshot};
use crate::model::calico::WorkloadKey;
use crate::model::calico::felix_key::{FelixKey, WorkloadPath};

/// Turns between two looks at what is stored.
const TURNS_BETWEEN_LOOKS: u32 = 180;

/// Shortest turn, whatever the settings say.
const SHORTEST_TURN: Duration = Duration::from_millis(10);

/// What a key holds.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    status: Condition,
}

/// Until nobody is left who could tell anything.
pub(super) async fn run(
    reporter: &Reporter,
    mut settings: watch::Receiver<Option<Settings>>,
    mut conditions: watch::Receiver<Conditions>,
) {
    let mut endpoints = Endpoints::new(reporter);
    loop {
        let current = settings.borrow_and_update().clone();
        let due = current.as_ref().and_then(|settings| {
            let known = conditions.borrow_and_update();
            endpoints.want(settings, known.as_ref());
            endpoints.due(settings)
        });
        tokio::select! {
            () = until(due) => if let Some(settings) = &current { endpoints.turn(settings).await },
            changed = settings.changed() => if changed.is_err() { return },
            changed = conditions.changed() => if changed.is_err() { return },
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

struct Endpoints<'a> {
    reporter: &'a Reporter,
    ledger: Ledger,
    outcomes: Outcomes,
    random: StdRng,
    next_turn: Instant,
    /// When to look at what is stored.
    next_look: Instant,
}

impl<'a> Endpoints<'a> {
    fn new(reporter: &'a Reporter) -> Self {
        let now = Instant::now();
        Self {
            reporter,
            ledger: Ledger::default(),
            outcomes: Outcomes::of("the condition of endpoints"),
            random: StdRng::seed_from_u64(reporter.seed),
            next_turn: now,
            next_look: now,
        }
    }

    /// Takes in what there is to say. Switched off, what was said is taken back.
    fn want(&mut self, settings: &Settings, known: Option<&BTreeMap<WorkloadKey, Condition>>) {
        match known {
            _ if !settings.endpoints => self.ledger.want(BTreeMap::new()),
            None => {}
            Some(known) => {
                let keyed = known.iter().filter_map(|(key, condition)| {
                    Some((status_key(&settings.region, &self.reporter.node, key)?, *condition))
                });
                self.ledger.want(keyed.collect());
            }
        }
    }

    fn due(&self, settings: &Settings) -> Option<Instant> {
        if !self.ledger.is_settled() {
            Some(self.next_turn)
        } else {
            settings.endpoints.then(|| self.next_look.max(self.next_turn))
        }
    }

    async fn turn(&mut self, settings: &Settings) {
        if settings.endpoints && Instant::now() >= self.next_look {
            self.look(settings).await;
        }
        if let Some(step) = self.ledger.next() {
            let outcome = self.write(&step).await;
            self.outcomes.note(outcome.as_ref().map(drop));
            match outcome {
                Ok(()) => self.ledger.written(step),
                Err(_) => self.ledger.failed(step),
            }
        }
        self.ledger.turn();
        self.next_turn = Instant::now() + self.jitter(settings.delay.max(SHORTEST_TURN));
    }

    /// Others may have written our keys, and we may have died before we took one away.
    async fn look(&mut self, settings: &Settings) {
        let node = &self.reporter.node;
        let prefixes = [
            format!("/calico/felix/v2/{}/host/{node}/workload/", settings.region),
            format!("/calico/felix/v1/host/{node}/endpoint/"),
        ];
        for prefix in prefixes {
            let listed = in_time(self.reporter.store.list(&prefix)).await;
            self.outcomes.note(listed.as_ref().map(drop));
            if let Ok(listed) = listed {
                self.ledger.found(&prefix, stored(&listed));
            }
        }
        self.next_look =
            Instant::now() + self.jitter(settings.delay.max(SHORTEST_TURN) * TURNS_BETWEEN_LOOKS);
    }

    async fn write(&self, step: &Step) -> Result<(), Error> {
        let store = &self.reporter.store;
        match step.wanted {
            Some(status) => {
                let value = serde_json::to_vec(&Value { status });
                let value = value.map_err(|error| Error::Protocol(error.to_string()))?;
                in_time(store.put(&step.key, &value, Expect::Anything, None)).await.map(drop)
            }
            None => in_time(store.delete(&step.key, Expect::Anything)).await.map(drop),
        }
    }

    /// So long, or up to a tenth longer: nodes that lost the store together do not return together.
    fn jitter(&mut self, time: Duration) -> Duration {
        self.random.random_range(time..=time + time / 10)
    }
}

/// What is stored. Keys of others that happen to lie among ours are left alone.
fn stored(listed: &Snapshot) -> BTreeMap<String, Option<Condition>> {
    let ours = |key: &str| {
        matches!(FelixKey::parse(key), Some(FelixKey::WorkloadStatus(..) | FelixKey::HostEndpointStatus(..)))
    };
    let entries = listed.entries.iter().filter(|entry| ours(&entry.key));
    let condition = |value: &[u8]| Some(serde_json::from_slice::<Value>(value).ok()?.status);
    entries.map(|entry| (entry.key.clone(), condition(&entry.value))).collect()
}

/// `None` for a name that is no endpoint's.
fn status_key(region: &str, node: &str, key: &WorkloadKey) -> Option<String> {
    let [_, orchestrator, third, endpoint] = key.segments()?;
    let workload = format!("{}/{third}", key.namespace());
    let path = WorkloadPath { node: node.to_owned(), orchestrator, workload, endpoint };
    Some(FelixKey::WorkloadStatus(region.to_owned(), path).path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_felixs() {
        let key = |name: &str| WorkloadKey::new("ns", name);
        let path = status_key("no-region", "n-1", &key("n--1-k8s-web--0-eth0")).unwrap();
        assert_eq!(path, "/calico/felix/v2/no-region/host/n-1/workload/k8s/ns%2fweb-0/endpoint/eth0");
        assert_eq!(status_key("no-region", "n", &key("n-k8s")), None);
    }
}
