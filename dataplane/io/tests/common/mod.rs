//! Network namespaces for the tests of the kernel ports: made, wired and removed by each test for itself.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod daemon;
pub mod overlay;
pub mod site;
pub mod sites;

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// True when the test may run; says so when not. In CI not being root is an error.
pub fn root(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs root and CI must run it");
    eprintln!("skipped {test}: needs root");
    false
}

/// A network namespace with a name of its own, removed when dropped.
pub struct Namespace {
    pub name: String,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    pub fn new(role: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("cio-{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// `ip` inside of it.
    pub fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        run("ip", &all);
    }

    /// A command inside of it.
    pub fn run(&self, command: &str) -> String {
        let net = format!("--net=/run/netns/{}", self.name);
        let mut all = vec![net.as_str()];
        all.extend(command.split_whitespace());
        run("nsenter", &all)
    }

    /// Runs `work` on a thread inside of it.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.name)).expect("the namespace exists");
        let named = thread::Builder::new().name(self.name.rsplit('-').next().unwrap_or("").to_owned());
        let started = named.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            work()
        });
        started.expect("the system has threads left")
    }

    /// Runs `work` inside of it and waits.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self.spawn(work).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Number of an interface in it.
    pub fn ifindex(&self, name: &str) -> u32 {
        let name = name.to_owned();
        self.enter(move || nix::net::if_::if_nametoindex(name.as_str()).expect("the interface exists"))
    }

    /// Address of an interface in it.
    pub fn mac(&self, name: &str) -> [u8; 6] {
        let text = self.run(&format!("ip -br link show dev {name}"));
        let mac: canal_dataplane::net::Mac = text.split_whitespace().nth(2).unwrap().parse().unwrap();
        mac.0
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Runs a command that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A veth pair between two namespaces.
pub fn veth(a: &Namespace, a_name: &str, b: &Namespace, b_name: &str) {
    veth_with_queues(a, a_name, b, b_name, 1);
}

/// The same, with so many queues at each end, in both directions.
pub fn veth_with_queues(a: &Namespace, a_name: &str, b: &Namespace, b_name: &str, queues: u8) {
    let end = |namespace: &Namespace, name: &str, of: &str| {
        format!("{of} {name} netns {} numtxqueues {queues} numrxqueues {queues}", namespace.name)
    };
    let (a_end, b_end) = (end(a, a_name, "link add"), end(b, b_name, "type veth peer"));
    run("ip", &format!("{a_end} {b_end}").split(' ').collect::<Vec<_>>());
    a.ip(&format!("link set {a_name} up"));
    b.ip(&format!("link set {b_name} up"));
}

/// Sends `size` bytes by TCP from a thread in `client` to `address` served in `server`; returns what arrived, checked
/// against what was sent.
pub fn tcp_transfer(client: &Namespace, server: &Namespace, address: &str, size: usize) {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    let bind = address.to_owned();
    let (ready, wait) = std::sync::mpsc::channel();
    let receiving = server.spawn(move || -> io::Result<Vec<u8>> {
        let listener = TcpListener::bind(&bind)?;
        let _ = ready.send(());
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Ok(all)
    });
    wait.recv().expect("the server listens");
    let connect = address.to_owned();
    let data: Vec<u8> = (0..size as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sent = data.clone();
    client
        .enter(move || -> io::Result<()> {
            let address = connect.parse().expect("an address");
            let mut stream = TcpStream::connect_timeout(&address, std::time::Duration::from_secs(20))?;
            stream.write_all(&sent)?;
            stream.shutdown(std::net::Shutdown::Write)
        })
        .expect("the client sends");
    let arrived = receiving.join().unwrap().expect("the server receives");
    assert_eq!(arrived.len(), data.len());
    assert!(arrived == data, "the bytes differ");
}
