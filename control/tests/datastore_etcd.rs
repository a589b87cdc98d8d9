//! The etcd datastore and the syncer over it, against a real etcd process on loopback.

mod etcd_server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use canal_control::datastore::etcd::{ClientCertificate, Credentials, Etcd, TlsFiles, parse_endpoints};
use canal_control::datastore::syncer::{Batch, Phase, Syncer};
use canal_control::datastore::{Datastore, Error, Expect, Outline, WatchEvent, Written};
use etcd_client::{Client, PermissionType, Txn, TxnOp};
use etcd_server::{Server, Tls, available, free_port};
use futures::{StreamExt, TryStreamExt};
use tokio::time::timeout;

/// How long anything may take before the test is called failed; nothing asserts how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

type View = BTreeMap<String, Vec<u8>>;

fn apply(view: &mut View, batch: &Batch) {
    for change in &batch.changes {
        match &change.value {
            Some(entry) => view.insert(change.key.clone(), entry.value.clone()),
            None => view.remove(&change.key),
        };
    }
}

/// Takes batches in until `done`.
async fn until(syncer: &mut Syncer, view: &mut View, done: impl Fn(&View, &Batch) -> bool) -> Batch {
    timeout(PATIENCE, async {
        loop {
            let batch = syncer.batches.recv().await.expect("the syncer runs");
            apply(view, &batch);
            if done(view, &batch) {
                return batch;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no batch made it true; view: {view:?}"))
}

async fn put(store: &Etcd, key: &str, value: &str) -> Written {
    store.put(key, value.as_bytes(), Expect::Anything, None).await.expect("a put")
}

async fn admin(server: &Server) -> Client {
    Client::connect([&server.url], None).await.unwrap()
}

#[tokio::test]
async fn a_long_listing_is_paged_at_one_revision() {
    if !available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let mut client = admin(&server).await;
    for block in 0..1000 {
        let puts: Vec<TxnOp> =
            (0..100).map(|n| TxnOp::put(format!("/many/{:05}", block * 100 + n), "v", None)).collect();
        client.txn(Txn::new().and_then(puts)).await.unwrap();
    }
    client.put("/manz", "outside", None).await.unwrap();
    let mut options = server.options();
    options.page_keys = 777;
    let store = Arc::new(Etcd::new(options).unwrap());
    let listed = store.list("/many/").await.unwrap();
    assert_eq!(listed.entries.len(), 100_000);
    assert!(listed.entries.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(listed.revision, 1002);
    assert_ne!(listed.history, 0);
    let pages: Vec<_> = store.pages("/many/").try_collect().await.unwrap();
    assert_eq!(pages.len(), 100_000usize.div_ceil(777));
    assert!(pages.iter().all(|page| (page.revision, page.history) == (listed.revision, listed.history)));
    assert!(pages.into_iter().flat_map(|page| page.entries).eq(listed.entries));
    assert_eq!(store.pages("/none/").count().await, 1);
    let mut syncer = Syncer::start(store.clone(), &["/many/"], 1);
    let mut view = View::new();
    until(&mut syncer, &mut view, |_, batch| batch.in_sync).await;
    assert_eq!(view.len(), 100_000);
    assert_eq!(store.list("").await.unwrap().entries.len(), 100_001);
    assert_eq!(store.list("/none/").await.unwrap().entries, []);
}

#[tokio::test]
async fn pages_too_large_for_one_message_are_asked_for_in_smaller_ones() {
    if !available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let store = server.store();
    let value = vec![b'x'; 1_400_000];
    for n in 0..60 {
        store.put(&format!("/big/{n:02}"), &value, Expect::Absent, None).await.unwrap();
    }
    let listed = store.list("/big/").await.unwrap();
    assert_eq!(listed.entries.len(), 60);
    // Catching up with the same history is one message of etcd's: it is answered by "list instead".
    let mut stream = store.watch("/big/", 2).await.unwrap();
    let event = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Compacted { .. }), "{event:?}");
}

#[tokio::test]
async fn writes_are_conditional_and_watched() {
    if !available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let store = server.store();
    assert_eq!(store.put("/k/a", b"1", Expect::Absent, None).await.unwrap(), Written::At(2));
    assert_eq!(store.put("/k/a", b"2", Expect::Absent, None).await.unwrap(), Written::Conflict);
    assert_eq!(store.put("/k/a", b"2", Expect::Unchanged(2), None).await.unwrap(), Written::At(3));
    assert_eq!(store.delete("/k/a", Expect::Unchanged(2)).await.unwrap(), Written::Conflict);
    assert_eq!(store.delete("/k/a", Expect::Unchanged(3)).await.unwrap(), Written::At(4));
    put(&store, "/kz", "another prefix").await;
    let mut stream = store.watch("/k/", 2).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let WatchEvent::Changes { revision, changes } =
            timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap()
        else {
            panic!("compacted");
        };
        assert!(changes.last().is_none_or(|change| change.revision == revision));
        seen.extend(changes);
    }
    let seen: Vec<_> =
        seen.into_iter().map(|c| (c.key, c.revision, c.value.map(|entry| entry.value))).collect();
    assert_eq!(
        seen,
        [
            ("/k/a".to_owned(), 2, Some(b"1".to_vec())),
            ("/k/a".to_owned(), 3, Some(b"2".to_vec())),
            ("/k/a".to_owned(), 4, None)
        ]
    );
}

#[tokio::test]
async fn a_restart_is_survived_without_listing_again() {
    if !available() {
        return;
    }
    let mut server = Server::start(Tls::Off).await;
    let store = Arc::new(server.store());
    put(&store, "/s/1", "one").await;
    put(&store, "/s/2", "two").await;
    let mut syncer = Syncer::start(store.clone(), &["/s/"], 1);
    let mut view = View::new();
    until(&mut syncer, &mut view, |_, batch| batch.in_sync).await;
    server.stop();
    let mut status = syncer.status.clone();
    timeout(PATIENCE, status.wait_for(|status| status.last_error.is_some())).await.unwrap().unwrap();
    assert_eq!(syncer.status.borrow().phase, Phase::InSync);
    server.run();
    server.until_healthy().await;
    // Another client: the store under test is on its own way back.
    put(&server.store(), "/s/1", "changed").await;
    let other = server.store();
    other.delete("/s/2", Expect::Anything).await.unwrap();
    until(&mut syncer, &mut view, |view, batch| {
        assert!(!batch.revision_went_back);
        view.len() == 1 && view["/s/1"] == b"changed"
    })
    .await;
    let status = syncer.status.borrow().clone();
    assert_eq!(status.relists, 0);
    assert!(status.reconnects > 0);
}

#[tokio::test]
async fn history_compacted_while_away_is_listed_again() {
    if !available() {
        return;
    }
    let mut server = Server::start(Tls::Off).await;
    let store = Arc::new(server.store());
    for key in ["/s/kept", "/s/gone", "/s/changed"] {
        put(&store, key, "1").await;
    }
    let mut syncer = Syncer::start(store.clone(), &["/s/"], 1);
    let mut view = View::new();
    until(&mut syncer, &mut view, |_, batch| batch.in_sync).await;

    // The syncer's address is taken by nobody while the same data is written to and compacted elsewhere.
    server.stop();
    let mut status = syncer.status.clone();
    timeout(PATIENCE, status.wait_for(|status| status.last_error.is_some())).await.unwrap().unwrap();
    let usual = server.url.clone();
    server.url = format!("http://127.0.0.1:{}", free_port());
    server.run();
    server.until_healthy().await;
    let other = server.store();
    other.delete("/s/gone", Expect::Anything).await.unwrap();
    let Written::At(revision) = put(&other, "/s/changed", "2").await else { panic!("conflict") };
    admin(&server).await.compact(revision, None).await.unwrap();
    server.stop();
    server.url = usual;
    server.run();

    let batch = until(&mut syncer, &mut view, |view, _| view.len() == 2).await;
    let told: Vec<_> = batch.changes.iter().map(|c| (c.key.as_str(), c.value.is_some())).collect();
    assert_eq!(told, [("/s/changed", true), ("/s/gone", false)]);
    assert_eq!(syncer.status.borrow().relists, 1);
}

#[tokio::test]
async fn a_wiped_etcd_is_noticed_and_marked() {
    if !available() {
        return;
    }
    let mut server = Server::start(Tls::Off).await;
    let store = Arc::new(server.store());
    for n in 0..20 {
        put(&store, &format!("/s/{n}"), "v").await;
    }
    let mut syncer = Syncer::start(store.clone(), &["/s/"], 1);
    let mut view = View::new();
    until(&mut syncer, &mut view, |_, batch| batch.in_sync).await;
    server.stop();
    server.wipe();
    server.run();
    let batch = until(&mut syncer, &mut view, |_, batch| batch.revision_went_back).await;
    assert_eq!((batch.changes.len(), view.len(), batch.in_sync), (20, 0, true));
    server.until_healthy().await;
    put(&server.store(), "/s/new", "v").await;
    until(&mut syncer, &mut view, |view, _| view.contains_key("/s/new")).await;

    // Asked directly, without the syncer's own check: a revision of the future is answered, not waited for.
    let mut stream = store.watch("/s/", 1000).await.unwrap();
    let first = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, WatchEvent::Changes { revision: 2, changes: Vec::new() });
}

#[tokio::test]
async fn a_lease_object_takes_its_keys_along() {
    if !available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let store = Arc::new(server.store());
    let brief = store.grant(Duration::from_secs(1)).await.unwrap();
    let long = store.grant(Duration::from_secs(3600)).await.unwrap();
    store.put("/s/brief", b"v", Expect::Absent, brief).await.unwrap();
    store.put("/s/long", b"v", Expect::Absent, long).await.unwrap();
    let mut syncer = Syncer::start(store.clone(), &["/s/"], 1);
    let mut view = View::new();
    until(&mut syncer, &mut view, |view, _| view.contains_key("/s/long")).await;
    assert_eq!(store.list("/s/long").await.unwrap().entries[0].lease, long);
    until(&mut syncer, &mut view, |view, _| !view.contains_key("/s/brief")).await;
    store.revoke(long.unwrap()).await.unwrap();
    until(&mut syncer, &mut view, |view, _| view.is_empty()).await;
    store.revoke(long.unwrap()).await.expect("revoking twice is no error");
    let dangling = store.put("/s/x", b"v", Expect::Absent, long).await;
    assert!(matches!(dangling, Err(Error::Protocol(_))), "{dangling:?}");
}

async fn enable_users(server: &Server) {
    let mut client = admin(server).await;
    client.role_add("canal").await.unwrap();
    let range = etcd_client::Permission::with_prefix(etcd_client::Permission::new(
        PermissionType::Readwrite,
        "/mine/",
    ));
    client.role_grant_permission("canal", range).await.unwrap();
    for (user, role) in [("root", "root"), ("canal", "canal")] {
        if role == "root" {
            client.role_add("root").await.unwrap();
        }
        client.user_add(user, "pa55", None).await.unwrap();
        client.user_grant_role(user, role).await.unwrap();
    }
    client.auth_enable().await.unwrap();
}

fn with_user(server: &Server, user: &str, password: &str) -> Etcd {
    let mut options = server.options();
    options.credentials = Some(Credentials { user: user.to_owned(), password: password.to_owned() });
    Etcd::new(options).unwrap()
}

#[tokio::test]
async fn users_are_told_apart_and_logged_in_again_after_a_restart() {
    if !available() {
        return;
    }
    let mut server = Server::start(Tls::Off).await;
    let early = with_user(&server, "canal", "pa55");
    put(&early, "/mine/before", "users exist").await;
    enable_users(&server).await;

    let anonymous = server.store();
    assert!(matches!(anonymous.list("/mine/").await, Err(Error::Denied(_))));
    let refused = anonymous.watch("/mine/", 1).await.err();
    assert!(matches!(refused, Some(Error::Denied(_))), "{refused:?}");
    let wrong = with_user(&server, "canal", "wrong").list("/mine/").await;
    assert!(matches!(wrong, Err(Error::Denied(_))), "{wrong:?}");
    let canal = Arc::new(with_user(&server, "canal", "pa55"));
    let elsewhere = canal.list("/theirs/").await;
    assert!(matches!(elsewhere, Err(Error::Denied(_))), "{elsewhere:?}");
    let elsewhere = canal.watch("/theirs/", 1).await.err();
    assert!(matches!(elsewhere, Some(Error::Denied(_))), "{elsewhere:?}");
    assert!(matches!(canal.put("/theirs/x", b"v", Expect::Absent, None).await, Err(Error::Denied(_))));

    let mut syncer = Syncer::start(canal.clone(), &["/mine/"], 1);
    let mut view = View::new();
    until(&mut syncer, &mut view, |_, batch| batch.in_sync).await;
    // Simple tokens live in the server's memory: after a restart every one of them is invalid.
    server.stop();
    server.run();
    server.until_healthy().await;
    put(&with_user(&server, "canal", "pa55"), "/mine/after", "v").await;
    until(&mut syncer, &mut view, |view, _| view.contains_key("/mine/after")).await;
    put(&canal, "/mine/again", "v").await;
    until(&mut syncer, &mut view, |view, _| view.contains_key("/mine/again")).await;
    // The client from before there were users finds its way as well.
    assert!(tokio::time::timeout(PATIENCE, until_listed(&early)).await.is_ok());
}

async fn until_listed(store: &Etcd) {
    while store.list("/mine/").await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn tls_with_a_ca_alone() {
    if !available() {
        return;
    }
    let server = Server::start(Tls::Server).await;
    let mut options = server.options();
    options.tls = Some(server.ca());
    let store = Etcd::new(options.clone()).unwrap();
    put(&store, "/t/1", "v").await;
    assert_eq!(store.list("/t/").await.unwrap().entries.len(), 1);
    options.tls = Some(TlsFiles { ca: server.file("stranger.crt"), client: None });
    let stranger = Etcd::new(options.clone()).unwrap().list("/t/").await;
    assert!(matches!(&stranger, Err(Error::Denied(text)) if text.contains("certificate")), "{stranger:?}");
    options.tls = Some(TlsFiles { ca: server.file("missing.crt"), client: None });
    let missing = Etcd::new(options.clone()).unwrap().list("/t/").await;
    assert!(matches!(&missing, Err(Error::Io { path, .. }) if path.ends_with("missing.crt")), "{missing:?}");
    options.tls = Some(TlsFiles { ca: server.file("server.ext"), client: None });
    let garbage = Etcd::new(options).unwrap().list("/t/").await;
    assert!(matches!(garbage, Err(Error::Denied(_))), "{garbage:?}");
}

#[tokio::test]
async fn tls_with_a_client_certificate() {
    if !available() {
        return;
    }
    let server = Server::start(Tls::Mutual).await;
    let identity = |name: &str| {
        Some(ClientCertificate {
            certificate: server.file(&format!("{name}.crt")),
            key: server.file(&format!("{name}.key")),
        })
    };
    let store = |client| {
        let mut options = server.options();
        options.tls = Some(TlsFiles { ca: server.file("ca.crt"), client });
        Etcd::new(options).unwrap()
    };
    let good = store(identity("client"));
    timeout(PATIENCE, async {
        while good.list("/t/").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    put(&good, "/t/1", "v").await;
    assert_eq!(good.list("/t/").await.unwrap().entries.len(), 1);
    for (who, client) in [("nobody", None), ("stranger", identity("stranger"))] {
        let refused = store(client).list("/t/").await;
        // Denied where the server's alert arrives, else a closed connection; the words are the same.
        let text = refused.expect_err(who).to_string();
        assert!(text.contains("ertificate"), "{who}: {text}");
    }
}

#[tokio::test]
async fn a_dead_endpoint_is_stepped_over() {
    if !available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let mut options = server.options();
    options.endpoints = parse_endpoints(&format!("http://127.0.0.1:{},{}", free_port(), server.url)).unwrap();
    let store = Etcd::new(options).unwrap();
    assert_eq!(store.list("/").await.unwrap().entries.len(), 0);
    put(&store, "/k", "v").await;
    assert!(store.watch("/", 1).await.is_ok());

    let nobody = Etcd::new({
        let mut options = server.options();
        options.endpoints = parse_endpoints(&format!("http://127.0.0.1:{}", free_port())).unwrap();
        options
    })
    .unwrap();
    assert!(matches!(nobody.list("/").await, Err(Error::Unavailable(_))));
    assert!(matches!(nobody.put("/k", b"", Expect::Anything, None).await, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn an_outline_says_what_a_listing_would() {
    if !available() {
        return;
    }
    let server = Server::start(Tls::Off).await;
    let store = Arc::new(server.store());
    put(&store, "/a/1", "v").await;
    put(&store, "/a/2", "v").await;
    put(&store, "/b/1", "v").await;
    for prefix in ["/a/", "/b/", "/none/", ""] {
        assert_eq!(store.outline(prefix).await.unwrap(), Outline::from(&store.list(prefix).await.unwrap()));
    }
    let mut syncer = Syncer::start(store.clone(), &["/a/", "/b/"], 1);
    let mut view = View::new();
    until(&mut syncer, &mut view, |_, batch| batch.in_sync).await;
    let Written::At(revision) = put(&store, "/a/3", "v").await else { panic!("nobody else writes") };
    let batch = until(&mut syncer, &mut view, |_, batch| batch.revision == revision).await;
    assert!(batch.complete < revision, "/b/ cannot know");
    syncer.ask(revision);
    let batch = until(&mut syncer, &mut view, |_, batch| batch.complete == revision).await;
    assert_eq!(batch.changes, []);
}
