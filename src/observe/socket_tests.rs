//! The admin socket of a daemon without a kernel: a real inspector over tables, workers and a control side that are made
//! up, asked over a real socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use canal_control::agent::{Observer, Published};
use canal_control::felix::{Config, Local};
use canal_control::state::Calico;
use canal_control::status::Status;
use canal_dataplane::counters::Counter;
use canal_dataplane::flow::Quota;
use canal_dataplane::net::HashSeed;
use canal_dataplane::offload::Caps;
use canal_dataplane::spec::policy::EndpointPolicy;
use canal_dataplane::spec::{Endpoint, NodeSpec};
use canal_dataplane::tables::{Publisher, compile};
use canal_io::clock::coarse_ms;
use tokio::sync::{Semaphore, watch};

use super::admin::{self, Patience};
use super::client::{Client, ClientError};
use super::enforced;
use super::health::{Patient, STUCK_MS};
use super::inspector::Inspector;
use super::journal::{Journal, LogPolicy};
use super::protocol::{MAX_REQUEST, Reply, Request};
use crate::ports::{Chosen, ChosenPort, UnderlayPort};
use crate::trace::Tracer;
use crate::trace::question::{From, Protocol, Question};
use crate::worker_thread::tests::Fake;

const SEED: HashSeed = HashSeed(1, 2);

/// A daemon: it lives as long as this.
struct Daemon {
    inspector: Inspector,
    worker: Fake,
    socket: PathBuf,
    _dir: tempfile::TempDir,
    _publisher: Publisher,
    _status: watch::Sender<Status>,
    _specs: watch::Sender<Published>,
}

fn spec(endpoints: u32) -> NodeSpec {
    let endpoint = |number: u32| Endpoint {
        name: format!("default/node1-k8s-pod{number}-eth0"),
        interface: format!("cali{number}"),
        ifindex: Some(10 + number),
        mac: None,
        networks: vec![std::net::IpAddr::from((0x0a01_0002 + number).to_be_bytes()).into()],
        mtu: 1450,
        policy: EndpointPolicy::allow_all(),
    };
    NodeSpec { revision: 9, endpoints: (0..endpoints).map(endpoint).collect(), ..NodeSpec::default() }
}

/// With so many workloads, serving as patiently as this.
fn start(endpoints: u32, patience: Patience) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let spec = Arc::new(spec(endpoints));
    let publisher = Publisher::new(compile(&spec, None, 3));
    let (status, statuses) =
        watch::channel(Status { ready: true, published_generation: 3, ..Status::default() });
    let (specs, published) = watch::channel(Published { generation: 3, spec });
    let settings = Config::of(&Local::default(), "n1", &Calico::default());
    let (_, felix) = watch::channel(Arc::new(settings));
    let (control, _asks) = Observer::new(statuses, published, felix);
    let (handle, worker) = Fake::new(0);
    worker.sees(3);
    let policy = LogPolicy { denied: false, denied_rate: 1 };
    let inspector = Inspector {
        node: "node1".into(),
        device: "canal0".into(),
        caps: Caps::NONE,
        flow_capacity: 1024,
        flow_quota: Quota::of(1024),
        started: Instant::now(),
        chosen: ChosenPort::new(Chosen {
            port: UnderlayPort::Tap,
            why: "made up".into(),
            udp: None,
            xdp: Vec::new(),
        }),
        workers: [handle].into(),
        tables: publisher.reader(),
        control,
        control_beat_ms: Arc::new(Counter::default()),
        journal: Arc::new(Journal::new(policy, SEED, 0)),
        tracer: Arc::new(Tracer::new(SEED, 1)),
        waiting: Arc::new(Semaphore::new(enforced::MAX_WAITING)),
    };
    let socket = dir.path().join("canal.sock");
    let (listener, answering) = (admin::bind(&socket).unwrap(), inspector.clone());
    tokio::spawn(admin::serve(listener, patience, move |request| answering.clone().answer(request)));
    Daemon { inspector, worker, socket, _dir: dir, _publisher: publisher, _status: status, _specs: specs }
}

/// What a client does takes a thread of its own: the daemon's is busy with answering.
async fn client<T: Send + 'static>(socket: &Path, body: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    let socket = socket.to_owned();
    tokio::task::spawn_blocking(move || body(&socket)).await.unwrap()
}

#[tokio::test]
async fn every_question_is_answered_by_its_own_kind() {
    let daemon = start(3, Patience::default());
    let flows = |endpoint: &str| Request::Flows {
        limit: 7,
        endpoint: Some(endpoint.into()),
        protocol: Some("tcp".into()),
    };
    let question = |from: &str| {
        Box::new(Question::new(From::Workload(from.into()), "10.1.0.3", Protocol::Udp { port: 53 }))
    };
    let (answers, refusals) = client(&daemon.socket, {
        let requests = vec![
            Request::Ports,
            Request::Endpoints,
            Request::Policies,
            Request::Profiles,
            Request::IpSets,
            Request::Routes,
            Request::Vteps,
            Request::Fdb,
            Request::CalicoRoutes,
            Request::CalicoVteps,
            flows("pod1"),
            Request::Denied { limit: 5, after: 0 },
            Request::Drops,
            Request::Workers,
            Request::Generation,
            Request::Status,
            Request::Enforced { revision: 9, patience_ms: 0 },
            Request::Trace(question("pod0")),
        ];
        let refused = [flows("nobody"), Request::Trace(question("nobody"))];
        move |socket| {
            // All of them over one connection, the refused ones in between.
            let mut client = Client::connect(socket).unwrap();
            let refusals: Vec<_> = refused.iter().map(|request| client.ask(request)).collect();
            let answers: Vec<_> = requests.iter().map(|request| client.ask(request).unwrap()).collect();
            (answers, refusals)
        }
    })
    .await;
    let name = |reply: &Reply| {
        serde_json::to_value(reply).unwrap().as_object().unwrap().keys().next().unwrap().clone()
    };
    let names: Vec<String> = answers.iter().map(name).collect();
    assert_eq!(
        names,
        [
            "ports",
            "endpoints",
            "policies",
            "profiles",
            "ip_sets",
            "routes",
            "vteps",
            "fdb",
            "calico_routes",
            "calico_vteps",
            "flows",
            "denied",
            "drops",
            "workers",
            "generation",
            "status",
            "enforced",
            "trace"
        ]
    );
    let Reply::Endpoints(endpoints) = &answers[1] else { panic!() };
    assert_eq!(endpoints.len(), 3);
    let Reply::Status(status) = &answers[15] else { panic!() };
    assert!(status.ready && status.node == "node1", "{status:?}");
    let Reply::Trace(report) = &answers[17] else { panic!() };
    assert_eq!(report.generation, 3);
    for refusal in refusals {
        let Err(ClientError::Refused(why)) = refusal else { panic!("{refusal:?}") };
        assert!(why.contains("nobody") && why.contains("node1-k8s-pod0"), "{why}");
    }
}

/// Writes `bytes` and reads until the daemon hangs up, or `lines` lines have come.
fn converse(socket: &Path, bytes: &[u8], lines: usize) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(bytes).unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 65_536]);
    while text.lines().count() < lines || !text.ends_with('\n') {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            count => text.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
        }
    }
    text
}

#[tokio::test]
async fn nonsense_is_refused_and_the_connection_goes_on() {
    let daemon = start(1, Patience::default());
    let requests = b"{\"show\":\"everything\"}\nnot JSON\n{\"show\":\"flows\"}\n{\"show\":\"flows\",\"limit\":-1}\n\
        {\"show\":\"enforced\",\"revision\":1,\"patience_ms\":0,\"surplus\":1}\n\xff\xfe\n\n{\"show\":\"generation\"}\n";
    let text = client(&daemon.socket, |socket| converse(socket, requests, 8)).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 8, "{text}");
    assert!(lines[..7].iter().all(|line| line.starts_with("{\"error\":\"not a request: ")), "{text}");
    assert!(lines[7].starts_with("{\"ok\":{\"generation\""), "{text}");
}

#[tokio::test]
async fn a_request_that_is_too_long_ends_the_connection_and_nothing_else() {
    let daemon = start(1, Patience::default());
    let answers = client(&daemon.socket, |socket| {
        let mut other = Client::connect(socket).unwrap();
        let long = [b"{\"show\":\"".as_slice(), &vec![b'x'; 2 * MAX_REQUEST]].concat();
        let mut stream = UnixStream::connect(socket).unwrap();
        // The daemon may have hung up before all of it was written.
        let _ = stream.write_all(&long);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        (String::from_utf8(said).unwrap(), other.ask(&Request::Generation))
    })
    .await;
    assert!(answers.0.is_empty() || answers.0.contains("one line of at most 4096 bytes"), "{}", answers.0);
    assert!(matches!(answers.1, Ok(Reply::Generation(_))), "{:?}", answers.1);
}

#[tokio::test]
async fn who_does_not_read_keeps_nobody_waiting_and_is_hung_up_on() {
    /// An answer of a megabyte: more than a socket's buffers hold.
    const ENDPOINTS: u32 = 5000;
    let patience = Patience { request: Duration::from_secs(30), response: Duration::from_secs(3) };
    let daemon = start(ENDPOINTS, patience);
    let (others, rest) = client(&daemon.socket, |socket| {
        let mut slow = UnixStream::connect(socket).unwrap();
        slow.write_all(b"{\"show\":\"endpoints\"}\n").unwrap();
        let mut client = Client::connect(socket).unwrap();
        let others: Vec<bool> =
            (0..50).map(|_| matches!(client.ask(&Request::Generation), Ok(Reply::Generation(_)))).collect();
        // It reads when it has been hung up on, and finds what it was sent until then.
        let begin = Instant::now();
        while slow.write_all(b" ").is_ok() {
            assert!(begin.elapsed() < Duration::from_secs(60), "still there");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest);
        (others, rest)
    })
    .await;
    assert!(others.iter().all(|answered| *answered), "{others:?}");
    assert!(!rest.ends_with(b"\n"), "the answer was cut off: {} bytes", rest.len());
    // Who reads gets all of it.
    let all =
        client(&daemon.socket, |socket| Client::connect(socket).unwrap().ask(&Request::Endpoints)).await;
    let Ok(Reply::Endpoints(endpoints)) = all else { panic!("{all:?}") };
    assert_eq!(endpoints.len(), ENDPOINTS as usize);
}

#[tokio::test]
async fn threads_that_go_round_are_alive() {
    let daemon = start(1, Patience::default());
    let names = |daemon: &Daemon| {
        let silent = daemon.inspector.liveness().silent_ms;
        silent.into_iter().filter(|(_, ms)| *ms > STUCK_MS).map(|(name, _)| name).collect::<Vec<_>>()
    };
    let now = coarse_ms();
    daemon.worker.beats(now);
    daemon.inspector.control_beat_ms.set(now);
    assert!(names(&daemon).is_empty());
    daemon.worker.beats(now - STUCK_MS - 1);
    assert_eq!(names(&daemon), ["worker 0"]);
    daemon.worker.beats(now);
    daemon.inspector.control_beat_ms.set(now - STUCK_MS - 1);
    assert_eq!(names(&daemon), ["control"]);
    assert!(daemon.inspector.readiness().await.ready);
}
