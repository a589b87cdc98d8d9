//! Felix's status keys in a real etcd, as others read them.

#[allow(dead_code, reason = "shared with the datastore's tests, which use more of it")]
mod etcd_server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use canal_control::datastore::Datastore;
use canal_control::model::calico::WorkloadKey;
use canal_control::report::{Condition, Reporter, Settings};
use etcd_server::{Server, Tls};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

const HOST: &str = "/calico/felix/v2/no-region/host/n1/";

async fn value(store: &dyn Datastore, key: &str) -> Option<Value> {
    let found = store.get(key).await.unwrap()?;
    Some(serde_json::from_slice(&found.value).unwrap())
}

/// Waits until a key is as expected.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn reports_are_written_renewed_and_expire() {
    if !etcd_server::available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let store: Arc<dyn Datastore> = Arc::new(server.store());
    let stale = format!("{HOST}workload/k8s/ns%2fgone/endpoint/eth0");
    store.put(&stale, br#"{"status":"up"}"#, canal_control::datastore::Expect::Absent, None).await.unwrap();
    let settings = Settings {
        interval: Duration::from_millis(200),
        ttl: Duration::from_secs(2),
        endpoints: true,
        delay: Duration::from_millis(20),
        ..Settings::default()
    };
    let key = WorkloadKey::new("ns", "n1-k8s-web--0-eth0");
    let (_settings, known_settings) = watch::channel(Some(settings));
    let (conditions, known) = watch::channel(Some(BTreeMap::from([(key.clone(), Condition::Up)])));
    let reporter = Reporter {
        store: Arc::clone(&store),
        node: "n1".into(),
        clock: Arc::new(|| SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_164_645)),
        // Long enough ago for the first report to be due.
        started: Instant::now() - Duration::from_secs(10),
        seed: 1,
    };
    let task = tokio::spawn(reporter.run(known_settings, known));

    let status = format!("{HOST}status");
    until("a second report", async || {
        value(&*store, &status).await.is_some_and(|status| status["first_update"] == false)
    })
    .await;
    let found = value(&*store, &status).await.unwrap();
    assert_eq!(found["time"], "2024-01-02T03:04:05Z");
    assert!(found["uptime"].as_f64().unwrap() >= 10.0);
    assert!(store.get(&status).await.unwrap().unwrap().lease.is_some());
    let last = format!("{HOST}last_reported_status");
    assert_eq!(store.get(&last).await.unwrap().unwrap().lease, None);

    let endpoint = format!("{HOST}workload/k8s/ns%2fweb-0/endpoint/eth0");
    until("an endpoint's status", async || {
        value(&*store, &endpoint).await == Some(json!({"status": "up"}))
            && value(&*store, &stale).await.is_none()
    })
    .await;
    conditions.send_replace(Some(BTreeMap::from([(key, Condition::Down)])));
    until("its change", async || value(&*store, &endpoint).await == Some(json!({"status": "down"}))).await;

    task.abort();
    until("its end", async || value(&*store, &status).await.is_none()).await;
    assert_eq!(value(&*store, &last).await.unwrap()["first_update"], false);
    assert_eq!(value(&*store, &endpoint).await, Some(json!({"status": "down"})));
}
