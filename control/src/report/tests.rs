//! Reports as others read them, against a datastore in memory. Time is tokio's paused clock.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::*;
use crate::datastore::Expect;
use crate::datastore::memory::{Fault, Memory};

const STATUS: &str = "/calico/felix/v2/no-region/host/n1/status";
const LAST: &str = "/calico/felix/v2/no-region/host/n1/last_reported_status";

struct World {
    store: Memory,
    settings: watch::Sender<Option<Settings>>,
    conditions: watch::Sender<Conditions>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    fn start(settings: Option<Settings>) -> Self {
        let store = Memory::new();
        let started = Instant::now();
        let reporter = Reporter {
            store: Arc::new(store.clone()),
            node: "n1".into(),
            clock: Arc::new(move || UNIX_EPOCH + Duration::from_secs(1_704_164_645) + started.elapsed()),
            started,
            seed: 7,
        };
        let (settings, known_settings) = watch::channel(settings);
        let (conditions, known) = watch::channel(None);
        let task = tokio::spawn(reporter.run(known_settings, known));
        Self { store, settings, conditions, task }
    }

    /// Lets time pass, for the store's leases, too.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.store.advance(Duration::from_secs(1));
        }
    }

    async fn get(&self, key: &str) -> Option<Value> {
        let found = self.store.get(key).await.unwrap()?;
        Some(serde_json::from_slice(&found.value).unwrap())
    }

    fn say(&self, conditions: &[(&str, Condition)]) {
        let key = |pod: &str| WorkloadKey::new("ns", &format!("n1-k8s-{pod}-eth0"));
        let conditions = conditions.iter().map(|(pod, condition)| (key(pod), *condition)).collect();
        self.conditions.send_replace(Some(conditions));
    }

    /// Status of a pod, as stored.
    async fn of(&self, pod: &str) -> Option<Value> {
        let found = self.get(&pod_key("no-region", pod)).await?;
        Some(found["status"].clone())
    }
}

fn pod_key(region: &str, pod: &str) -> String {
    format!("/calico/felix/v2/{region}/host/n1/workload/k8s/ns%2f{pod}/endpoint/eth0")
}

fn reporting() -> Settings {
    Settings { endpoints: true, interval: Duration::ZERO, ..Settings::default() }
}

#[tokio::test(start_paused = true)]
async fn a_node_says_that_it_lives_until_it_does_not() {
    let world = World::start(Some(Settings::default()));
    world.pass(9).await;
    assert_eq!(world.get(STATUS).await, None);
    world.pass(2).await;
    let first = json!({"time": "2024-01-02T03:04:15Z", "uptime": 10.0, "first_update": true});
    assert_eq!(world.get(STATUS).await, Some(first.clone()));
    assert_eq!(world.get(LAST).await, Some(first));
    world.pass(30).await;
    let second = json!({"time": "2024-01-02T03:04:45Z", "uptime": 40.0, "first_update": false});
    assert_eq!(world.get(STATUS).await, Some(second.clone()));
    world.task.abort();
    world.pass(87).await;
    assert_eq!(world.get(STATUS).await, Some(second.clone()), "the first lease's end is nothing to it");
    world.pass(3).await;
    assert_eq!((world.get(STATUS).await, world.get(LAST).await), (None, Some(second)));
}

#[tokio::test(start_paused = true)]
async fn first_is_the_first_that_arrived() {
    let world = World::start(Some(Settings::default()));
    world.store.set_fault(Some(Fault::Unavailable));
    world.pass(45).await;
    world.store.set_fault(None);
    assert_eq!(world.get(LAST).await, None);
    world.pass(30).await;
    assert_eq!(world.get(LAST).await.unwrap()["first_update"], true);
    world.pass(30).await;
    assert_eq!(world.get(LAST).await.unwrap()["first_update"], false);
}

#[tokio::test(start_paused = true)]
async fn settings_are_followed() {
    let world = World::start(None);
    world.pass(60).await;
    assert_eq!(world.store.revision(), 1, "nothing is written where Calico is not in use");
    let region = "region-a".to_owned();
    world.settings.send_replace(Some(Settings { region, ttl: Duration::ZERO, ..Settings::default() }));
    world.pass(1).await;
    let status = world.store.get("/calico/felix/v2/region-a/host/n1/status").await.unwrap().unwrap();
    assert_eq!(status.lease, None);
    let revision = world.store.revision();
    world.settings.send_replace(Some(Settings { interval: Duration::ZERO, ..Settings::default() }));
    world.pass(120).await;
    assert_eq!(world.store.revision(), revision, "an interval of zero switches it off");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_keeps_nobody_waiting() {
    let world = World::start(Some(Settings::default()));
    world.store.set_latency(Duration::from_secs(3));
    world.pass(60).await;
    world.store.set_latency(Duration::ZERO);
    world.pass(60).await;
    assert!(world.get(STATUS).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_reported_one_by_one() {
    let world = World::start(Some(reporting()));
    world.pass(5).await;
    world.say(&[("a", Condition::Up), ("b", Condition::Error)]);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.store.revision(), 1, "a change waits for a turn");
    world.pass(1).await;
    assert_eq!((world.of("a").await, world.of("b").await), (Some("up".into()), None));
    world.pass(1).await;
    assert_eq!(world.of("b").await, Some("error".into()));
    world.say(&[("b", Condition::Down)]);
    world.pass(4).await;
    assert_eq!((world.of("a").await, world.of("b").await), (None, Some("down".into())));
    let revision = world.store.revision();
    world.pass(600).await;
    assert_eq!(world.store.revision(), revision, "what is there is not written again");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_and_others_wrote_is_repaired() {
    let world = World::start(None);
    let host_endpoint = "/calico/felix/v1/host/n1/endpoint/eth0";
    let others = "/calico/felix/v2/no-region/host/n1/workload/other";
    for (key, value) in [
        (pod_key("no-region", "a").as_str(), r#"{"status":"up"}"#),
        (&pod_key("no-region", "gone"), r#"{"status":"up"}"#),
        (&pod_key("no-region", "broken"), "{"),
        (host_endpoint, r#"{"status":"up"}"#),
        (others, "theirs"),
        (&pod_key("no-region", "x").replace("n1", "n10"), r#"{"status":"up"}"#),
    ] {
        world.store.put(key, value.as_bytes(), Expect::Absent, None).await.unwrap();
    }
    let before = world.store.get(&pod_key("no-region", "a")).await.unwrap();
    world.say(&[("a", Condition::Up), ("broken", Condition::Up)]);
    world.settings.send_replace(Some(reporting()));
    world.pass(10).await;
    assert_eq!(world.store.get(&pod_key("no-region", "a")).await.unwrap(), before, "it was right");
    assert_eq!((world.of("gone").await, world.of("broken").await), (None, Some("up".into())));
    assert_eq!(world.get(host_endpoint).await, None);
    let left: Vec<_> = world.store.list("/calico/felix/").await.unwrap().entries;
    assert_eq!(left.len(), 4);
    world.store.delete(&pod_key("no-region", "a"), Expect::Anything).await.unwrap();
    world.pass(210).await;
    assert_eq!(world.of("a").await, Some("up".into()));
}

#[tokio::test(start_paused = true)]
async fn another_region_and_the_end_of_reports_leave_nothing() {
    let world = World::start(Some(reporting()));
    world.say(&[("a", Condition::Up)]);
    world.pass(5).await;
    assert_eq!(world.of("a").await, Some("up".into()));
    world.settings.send_replace(Some(Settings { region: "region-b".into(), ..reporting() }));
    world.pass(5).await;
    assert_eq!(world.of("a").await, None);
    assert!(world.get(&pod_key("region-b", "a")).await.is_some());
    // A datastore that may not be used for a while is no reason to say anything else.
    world.settings.send_replace(None);
    world.pass(5).await;
    assert!(world.get(&pod_key("region-b", "a")).await.is_some());
    world.settings.send_replace(Some(Settings {
        endpoints: false,
        region: "region-b".into(),
        ..reporting()
    }));
    world.pass(5).await;
    assert_eq!(world.store.list("/calico/felix/").await.unwrap().entries, []);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_gets_it_all_later() {
    let world = World::start(Some(reporting()));
    world.store.set_fault(Some(Fault::Unavailable));
    world.say(&[("a", Condition::Up), ("b", Condition::Up)]);
    world.pass(20).await;
    world.say(&[("b", Condition::Down), ("c", Condition::Up)]);
    world.pass(20).await;
    world.store.set_fault(None);
    world.pass(5).await;
    assert_eq!(world.of("a").await, None);
    assert_eq!((world.of("b").await, world.of("c").await), (Some("down".into()), Some("up".into())));
}
