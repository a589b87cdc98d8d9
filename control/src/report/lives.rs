//! That this node lives, again and again, until the key expires with it.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::outcome::Outcomes;
use super::{Reporter, Settings, in_time};
use crate::datastore::{Error, Expect};
use crate::model::calico::felix_key::FelixKey;
use crate::model::calico::timestamp::rfc3339;

/// Before the first report: a node that crashes as often as it is started does not live.
const SETTLED: Duration = Duration::from_secs(10);

/// What the keys hold.
#[derive(Debug, Serialize)]
struct Life {
    time: String,
    /// Seconds.
    uptime: f64,
    /// Nothing has been reported since the start.
    first_update: bool,
}

pub(super) async fn run(reporter: &Reporter, mut settings: watch::Receiver<Option<Settings>>) {
    let mut outcomes = Outcomes::of("that this node lives");
    let mut first = true;
    tokio::time::sleep_until(reporter.started + SETTLED).await;
    loop {
        let current = settings.borrow_and_update().clone().filter(|settings| !settings.interval.is_zero());
        if let Some(settings) = &current {
            let outcome = report(reporter, settings, first).await;
            outcomes.note(outcome.as_ref().map(drop));
            first &= outcome.is_err();
        }
        let next = current.map(|settings| Instant::now() + settings.interval);
        if changed_before(next, &mut settings).await.is_err() {
            return;
        }
    }
}

/// Returns at `next`, or when the settings change before it.
async fn changed_before(
    next: Option<Instant>,
    settings: &mut watch::Receiver<Option<Settings>>,
) -> Result<(), watch::error::RecvError> {
    match next {
        None => settings.changed().await,
        Some(next) => tokio::time::timeout_at(next, settings.changed()).await.unwrap_or(Ok(())),
    }
}

async fn report(reporter: &Reporter, settings: &Settings, first_update: bool) -> Result<(), Error> {
    let life = Life {
        time: rfc3339((reporter.clock)()),
        uptime: reporter.started.elapsed().as_secs_f64(),
        first_update,
    };
    let value = serde_json::to_vec(&life).map_err(|error| Error::Protocol(error.to_string()))?;
    let lasting = FelixKey::LastStatus(settings.region.clone(), reporter.node.clone()).path();
    let passing = FelixKey::Status(settings.region.clone(), reporter.node.clone()).path();
    let store = &reporter.store;
    in_time(store.put(&lasting, &value, Expect::Anything, None)).await?;
    let lease = match settings.ttl {
        Duration::ZERO => None,
        // A new one each time: the former one expires with nothing bound to it.
        ttl => match in_time(store.grant(ttl)).await? {
            // Nothing expires here, so nothing would be said by a key that is there.
            None => return Ok(()),
            lease => lease,
        },
    };
    in_time(store.put(&passing, &value, Expect::Anything, lease)).await.map(drop)
}
