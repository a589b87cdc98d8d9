//! `canal-probe`: the ends of a measurement, for scripts. Run each end in its namespace.

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, Parser, Subcommand};
use netns_tests::frames::{Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::plan;
use netns_tests::traffic::{Flows, Goal, rtt, tcp};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Sends and checks test traffic.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Accepts one transfer, compares every byte, prints how many came.
    Receive { listen: SocketAddr },
    /// Sends so many bytes and prints the rate; fails unless the receiver verified all of them.
    Send { to: SocketAddr, bytes: u64 },
    /// Answers UDP probes until it is killed, on so many ports from the given one on.
    Echo {
        listen: SocketAddr,
        #[arg(default_value_t = 1)]
        ports: u16,
    },
    /// Sends UDP probes and prints p50, p99 and losses as one JSON object, times in microseconds.
    Rtt {
        to: SocketAddr,
        #[arg(default_value_t = 5000)]
        count: usize,
    },
    /// Sends one datagram of each of so many flows to an echo server's ports, prints how many were answered, and fails
    /// unless all were.
    Flows {
        #[command(flatten)]
        pod: RawPod,
        count: usize,
    },
    /// Sends a datagram every millisecond until one is answered, and prints when that was (seconds since 1970).
    First {
        #[command(flatten)]
        pod: RawPod,
    },
}

/// A pod that sends raw frames from its eth0 and so asks nobody for its gateway's address.
#[derive(Args)]
struct RawPod {
    /// Its MAC address.
    mac: String,
    /// Its address.
    from: Ipv4Addr,
    /// The echo server, by its first port.
    to: SocketAddrV4,
}

impl RawPod {
    fn flows(&self) -> Result<(PacketSocket, Flows)> {
        let link = Link { from: mac(&self.mac), to: mac(plan::GATEWAY_MAC) };
        Ok((PacketSocket::here("eth0")?, Flows::new(link, self.from, self.to)))
    }
}

/// Seed of the pattern: both ends are this program.
const SEED: u64 = 0x0063_616e_616c;
/// Pause between probes: the path is idle, and not asleep. Microseconds.
const GAP_US: u64 = 200;
/// Pause between the datagrams of which the first answer is waited for.
const FIRST_GAP: Duration = Duration::from_millis(1);
/// How long it is waited for.
const FIRST_LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    match Arguments::parse().mode {
        Mode::Receive { listen } => {
            let listener = TcpListener::bind(listen).with_context(|| listen.to_string())?;
            let count = tcp::receive(&listener, SEED, &AtomicU64::new(0))?;
            println!("{{\"verified_bytes\":{count}}}");
        }
        Mode::Send { to, bytes } => send(to, bytes)?,
        Mode::Echo { listen, ports } => std::thread::scope(|scope| {
            let first = listen.port();
            let all = (first..=first.saturating_add(ports.max(1) - 1))
                .map(|port| SocketAddr::new(listen.ip(), port));
            let threads: Vec<_> = all.map(|address| scope.spawn(move || echo(address))).collect();
            threads.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?)
        })?,
        Mode::Rtt { to, count } => {
            let trips = rtt::probe(to, count, Duration::from_micros(GAP_US))?;
            let us = |percent| trips.percentile(percent).map_or(f64::NAN, |t| t.as_nanos() as f64 / 1000.0);
            println!("{{\"p50_us\":{:.1},\"p99_us\":{:.1},\"lost\":{}}}", us(50.0), us(99.0), trips.lost);
        }
        Mode::Flows { pod, count } => {
            let (socket, mut flows) = pod.flows()?;
            let outcome = flows.drive(&socket, count, |n| {
                if n.is_multiple_of(100_000) {
                    eprintln!("  {n} flows answered");
                }
            })?;
            println!("{{\"answered\":{},\"sent\":{}}}", outcome.answered, outcome.sent);
            ensure!(outcome.answered == count, "{} flows stayed without an answer", count - outcome.answered);
        }
        Mode::First { pod } => {
            let (socket, mut flows) = pod.flows()?;
            let sent = flows.until_answered(&socket, FIRST_GAP, FIRST_LIMIT)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
            println!("{{\"answered_at\":{now:.6},\"sent\":{sent}}}");
        }
    }
    Ok(())
}

fn echo(listen: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| listen.to_string())?;
    let mut buffer = [0; 2048];
    loop {
        let (n, from) = socket.recv_from(&mut buffer)?;
        // A lost answer is what the other end counts.
        socket.send_to(&buffer[..n], from).ok();
    }
}

/// Sends, with a line on standard error every second.
fn send(to: SocketAddr, bytes: u64) -> Result<()> {
    let progress = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&progress);
    let begin = Instant::now();
    let sender = std::thread::spawn(move || tcp::send(to, SEED, &Goal::Bytes(bytes), None, &seen));
    let mut next = begin + Duration::from_secs(1);
    while !sender.is_finished() {
        std::thread::sleep(Duration::from_millis(5));
        if Instant::now() >= next {
            let done = progress.load(Ordering::Relaxed);
            eprintln!("  {:3} %  {} MB", done * 100 / bytes.max(1), done / 1_000_000);
            next += Duration::from_secs(1);
        }
    }
    let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    let seconds = begin.elapsed().as_secs_f64();
    println!("{{\"verified_bytes\":{sent},\"gbit_per_s\":{:.2}}}", sent as f64 * 8e-9 / seconds);
    Ok(())
}
