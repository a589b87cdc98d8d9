//! The directory datastore on a real file system: by hand, by canal, and by the syncer.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use canal_control::datastore::dir::{Dir, FILE_BYTES_MAX, Reason};
use canal_control::datastore::syncer::{Batch, Syncer};
use canal_control::datastore::{Datastore, Error, Expect, Written};
use tokio::time::{sleep, timeout};

const PREFIX: &str = "/coreos.com/network";
const CONFIG: &str = "/coreos.com/network/config";
const LEASE: &str = "/coreos.com/network/subnets/10.244.1.0-24";
const LEASE_VALUE: &[u8] = br#"{"PublicIP":"192.168.50.11","PublicIPv6":null,"BackendType":"vxlan"}"#;
const POLICIES: &str = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/";

/// How long anything may take before the test is called failed; nothing asserts how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

type View = BTreeMap<String, String>;

fn policy(name: &str, order: u32) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: {name}\nspec:\n  order: \
         {order}\n"
    )
}

fn open(root: &Path) -> Dir {
    Dir::open(root, PREFIX).unwrap()
}

async fn view(dir: &Dir) -> View {
    let listed = dir.list("/").await.unwrap().entries;
    listed.into_iter().map(|e| (e.key, String::from_utf8(e.value).unwrap())).collect()
}

/// Waits until the store's content satisfies `done`.
async fn until(dir: &Dir, done: impl Fn(&View) -> bool) -> View {
    let mut last = View::new();
    let wait = async {
        loop {
            last = view(dir).await;
            if done(&last) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        panic!("it never became true: {last:?}; complaints: {:?}", dir.complaints());
    }
    last
}

async fn until_complaint(dir: &Dir, done: impl Fn(&Reason) -> bool) {
    let wait = async {
        while !dir.complaints().iter().any(|complaint| done(&complaint.reason)) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "complaints: {:?}", dir.complaints());
}

fn apply(view: &mut View, batch: &Batch) {
    for change in &batch.changes {
        match &change.value {
            Some(e) => view.insert(change.key.clone(), String::from_utf8(e.value.clone()).unwrap()),
            None => view.remove(&change.key),
        };
    }
}

#[tokio::test]
async fn the_directory_shows_etcds_key_space() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("subnets")).unwrap();
    fs::create_dir_all(root.path().join("resources/team")).unwrap();
    fs::write(root.path().join("net-conf.yaml"), "Network: 10.244.0.0/16\nBackend: {Type: vxlan}\n").unwrap();
    fs::write(root.path().join("subnets/10.244.1.0-24.json"), LEASE_VALUE).unwrap();
    fs::write(root.path().join("subnets/10.244.2.0-24&fd00:1::-64.json"), LEASE_VALUE).unwrap();
    fs::write(
        root.path().join("resources/team/all.yaml"),
        format!("{}---\n{}", policy("a", 1), policy("b", 2)),
    )
    .unwrap();
    for ignored in
        [".net-conf.json.swp", "net-conf.json~", "subnet.env", "resources/.#all.yaml", "resources/x.tmp"]
    {
        fs::write(root.path().join(ignored), "{").unwrap();
    }
    let dir = open(root.path());
    let view = view(&dir).await;
    assert_eq!(view[CONFIG], r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#);
    assert_eq!(view[LEASE].as_bytes(), LEASE_VALUE);
    let keys: Vec<&str> = view.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            &format!("{POLICIES}a"),
            &format!("{POLICIES}b"),
            CONFIG,
            LEASE,
            "/coreos.com/network/subnets/10.244.2.0-24&fd00:1::-64",
        ]
    );
    assert_eq!(dir.complaints(), []);
    assert!(dir.describe().starts_with("directory /"));
    assert_eq!(dir.grant(Duration::from_secs(1)).await.unwrap(), None);
}

#[tokio::test]
async fn edits_arrive_at_the_syncer() {
    let root = tempfile::tempdir().unwrap();
    let dir = Arc::new(open(root.path()));
    let mut syncer = Syncer::start(dir.clone(), &["/calico/", PREFIX], 1);
    let mut seen = View::new();
    let mut batches = async |done: &dyn Fn(&View) -> bool| {
        let wait = async {
            while !done(&seen) {
                let batch = syncer.batches.recv().await.unwrap();
                apply(&mut seen, &batch);
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok());
    };
    fs::create_dir_all(root.path().join("resources/deep/er")).unwrap();
    fs::write(root.path().join("resources/deep/er/p.yaml"), policy("p", 1)).unwrap();
    batches(&|view| view.len() == 1).await;
    fs::write(root.path().join("net-conf.json"), "{}").unwrap();
    batches(&|view| view.contains_key(CONFIG)).await;
    fs::write(root.path().join("resources/deep/er/p.yaml"), policy("p", 7)).unwrap();
    batches(&|view| view[&format!("{POLICIES}p")].contains("\"order\":7")).await;
    fs::remove_dir_all(root.path().join("resources/deep")).unwrap();
    batches(&|view| view.len() == 1).await;
    // As Kubernetes mounts do it: files are links, and one link behind them is swapped.
    for (version, order) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(root.path().join(version)).unwrap();
        fs::write(root.path().join(version).join("p.yaml"), policy("p", order)).unwrap();
    }
    symlink("..1", root.path().join("..data")).unwrap();
    symlink("../..data/p.yaml", root.path().join("resources/p.yaml")).unwrap();
    batches(&|view| view.get(&format!("{POLICIES}p")).is_some_and(|p| p.contains("\"order\":1"))).await;
    symlink("..2", root.path().join("..new")).unwrap();
    fs::rename(root.path().join("..new"), root.path().join("..data")).unwrap();
    batches(&|view| view[&format!("{POLICIES}p")].contains("\"order\":2")).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_keeps_its_last_good_content() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("resources")).unwrap();
    let file = root.path().join("resources/p.yaml");
    fs::write(&file, policy("p", 1)).unwrap();
    let dir = open(root.path());
    let good = view(&dir).await;
    assert_eq!(good.len(), 1);

    let mut unusable = dir.unusable();
    assert!(unusable.borrow().is_empty());
    fs::write(&file, "apiVersion: [").unwrap();
    until_complaint(&dir, |reason| matches!(reason, Reason::Yaml(_))).await;
    assert_eq!(view(&dir).await, good);
    let told = unusable.wait_for(|unusable| !unusable.is_empty()).await.unwrap().clone();
    assert_eq!((told.len(), Path::new(&told[0].place)), (1, file.as_path()));
    assert!(told[0].why.starts_with("not valid YAML"), "{}", told[0].why);
    fs::write(&file, "").unwrap();
    until_complaint(&dir, |reason| *reason == Reason::Empty).await;
    assert_eq!(view(&dir).await, good);
    fs::File::create(&file).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
    until_complaint(&dir, |reason| matches!(reason, Reason::TooLarge { .. })).await;
    assert_eq!(view(&dir).await, good);

    fs::write(&file, policy("q", 2)).unwrap();
    let now = until(&dir, |view| view.contains_key(&format!("{POLICIES}q"))).await;
    assert_eq!(now.len(), 1);
    assert_eq!(dir.complaints(), []);
    assert!(timeout(PATIENCE, unusable.wait_for(|unusable| unusable.is_empty())).await.is_ok(), "mended");
    fs::create_dir(root.path().join("subnets")).unwrap();
    fs::write(root.path().join("subnets/junk.json"), "{}").unwrap();
    until_complaint(&dir, |reason| *reason == Reason::NotASubnet).await;
    fs::remove_file(&file).unwrap();
    until(&dir, View::is_empty).await;
}

#[tokio::test]
async fn of_two_files_with_one_key_the_first_counts() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("resources")).unwrap();
    fs::write(root.path().join("resources/b.yaml"), policy("p", 2)).unwrap();
    let dir = open(root.path());
    assert!(view(&dir).await[&format!("{POLICIES}p")].contains("\"order\":2"));
    fs::write(root.path().join("resources/a.yaml"), policy("p", 1)).unwrap();
    until(&dir, |view| view[&format!("{POLICIES}p")].contains("\"order\":1")).await;
    let complaints = dir.complaints();
    assert_eq!(complaints.len(), 1);
    assert_eq!(complaints[0].path, root.path().join("resources/b.yaml"));
    assert!(
        matches!(&complaints[0].reason, Reason::Duplicate { first, .. } if first.ends_with("resources/a.yaml"))
    );
    fs::remove_file(root.path().join("resources/a.yaml")).unwrap();
    until(&dir, |view| view[&format!("{POLICIES}p")].contains("\"order\":2")).await;
}

#[tokio::test]
async fn canal_writes_files() {
    let root = tempfile::tempdir().unwrap();
    let dir = open(root.path());
    let put = |key: &'static str, value: &'static [u8], expect| dir.put(key, value, expect, None);
    let Written::At(first) = put(LEASE, LEASE_VALUE, Expect::Absent).await.unwrap() else {
        panic!("nobody else is there")
    };
    assert_eq!(fs::read(root.path().join("subnets/10.244.1.0-24.json")).unwrap(), LEASE_VALUE);
    assert_eq!(put(LEASE, b"{}", Expect::Absent).await.unwrap(), Written::Conflict);
    assert_eq!(put(LEASE, b"{}", Expect::Unchanged(first - 1)).await.unwrap(), Written::Conflict);
    let Written::At(second) = put(LEASE, b"{}", Expect::Unchanged(first)).await.unwrap() else {
        panic!("nobody changed it")
    };
    assert!(second > first);
    assert_eq!(dir.delete(LEASE, Expect::Unchanged(first)).await.unwrap(), Written::Conflict);
    dir.delete(LEASE, Expect::Unchanged(second)).await.unwrap();
    assert_eq!(view(&dir).await, View::new());
    assert!(!root.path().join("subnets/10.244.1.0-24.json").exists());

    let resource = br#"{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"t"}}"#;
    let tier = "/calico/resources/v3/projectcalico.org/tiers/t";
    put(tier, resource, Expect::Absent).await.unwrap();
    assert!(root.path().join("resources/tiers/t.json").exists());
    for (key, value) in [
        ("/calico/resources/v3/projectcalico.org/tiers/other", resource.as_slice()),
        (LEASE, b"not json"),
        ("/calico/ipam/v2/config", b"{}"),
        ("/coreos.com/network/subnets/junk", b"{}"),
    ] {
        let refused = dir.put(key, value, Expect::Anything, None).await;
        assert!(matches!(refused, Err(Error::Io { .. })), "{key}: {refused:?}");
    }
    assert_eq!(view(&dir).await.len(), 1, "nothing refused was written");

    // A key that lives in a file made by hand is changed there, unless others live in it as well.
    fs::write(root.path().join("net-conf.yaml"), "Network: 10.1.0.0/16\n").unwrap();
    until(&dir, |view| view.contains_key(CONFIG)).await;
    put(CONFIG, b"{\"Network\":\"10.2.0.0/16\"}", Expect::Anything).await.unwrap();
    assert!(!root.path().join("net-conf.json").exists());
    assert!(view(&dir).await[CONFIG].contains("10.2.0.0"));
    fs::write(root.path().join("resources/two.yaml"), format!("{}---\n{}", policy("a", 1), policy("b", 2)))
        .unwrap();
    until(&dir, |view| view.contains_key(&format!("{POLICIES}a"))).await;
    let shared = dir.delete(&format!("{POLICIES}a"), Expect::Anything).await;
    assert!(matches!(&shared, Err(Error::Io { path, .. }) if path.ends_with("two.yaml")), "{shared:?}");
    let names: Vec<_> = fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_one_wins() {
    let root = tempfile::tempdir().unwrap();
    // As many processes would: each with a datastore of its own.
    let writers = (0..8).map(|n| {
        let root = root.path().to_owned();
        tokio::spawn(async move {
            let dir = open(&root);
            let value = format!("{{\"n\":{n}}}");
            let mut won = 0;
            for subnet in 0..10 {
                let key = format!("{PREFIX}/subnets/10.244.{subnet}.0-24");
                if let Written::At(_) = dir.put(&key, value.as_bytes(), Expect::Absent, None).await.unwrap() {
                    won += 1;
                }
            }
            won
        })
    });
    let mut won = 0;
    for writer in writers.collect::<Vec<_>>() {
        won += writer.await.unwrap();
    }
    assert_eq!(won, 10, "each subnet has exactly one winner");
    assert_eq!(view(&open(root.path())).await.len(), 10);
}

#[tokio::test]
async fn a_missing_directory_is_a_store_that_is_away() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("etc/canal");
    let dir = Arc::new(open(&root));
    assert!(matches!(dir.list("/").await, Err(Error::Unavailable(_))));
    assert!(matches!(dir.watch("/", 1).await.err(), Some(Error::Unavailable(_))));
    assert!(matches!(dir.put(LEASE, b"{}", Expect::Absent, None).await, Err(Error::Unavailable(_))));

    let mut syncer = Syncer::start(dir.clone(), &[PREFIX], 1);
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("net-conf.json"), "{\"a\":1}").unwrap();
    let mut seen = View::new();
    let mut next = async |done: &dyn Fn(&View) -> bool| {
        let wait = async {
            while !done(&seen) {
                let batch = syncer.batches.recv().await.unwrap();
                apply(&mut seen, &batch);
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok());
    };
    next(&|view| view.contains_key(CONFIG)).await;

    // Taken away, the keys stay what they were; put back with other content, they follow.
    fs::rename(&root, parent.path().join("away")).unwrap();
    let away = async {
        while dir.list("/").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, away).await.is_ok());
    fs::write(parent.path().join("away/net-conf.json"), "{\"a\":2}").unwrap();
    fs::rename(parent.path().join("away"), &root).unwrap();
    next(&|view| view.get(CONFIG).is_some_and(|config| config == "{\"a\":2}")).await;
    fs::write(root.join("net-conf.json"), "{\"a\":3}").unwrap();
    next(&|view| view.get(CONFIG).is_some_and(|config| config == "{\"a\":3}")).await;
}
