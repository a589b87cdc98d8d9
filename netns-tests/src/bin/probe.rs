//! `canal-probe`: the ends of a measurement, for scripts. Run each end in its namespace.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use netns_tests::traffic::{Goal, rtt, tcp};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
    /// Answers UDP probes until it is killed.
    Echo { listen: SocketAddr },
    /// Sends UDP probes and prints p50, p99 and losses as one JSON object, times in microseconds.
    Rtt {
        to: SocketAddr,
        #[arg(default_value_t = 5000)]
        count: usize,
    },
}

/// Seed of the pattern: both ends are this program.
const SEED: u64 = 0x0063_616e_616c;
/// Pause between probes: the path is idle, and not asleep. Microseconds.
const GAP_US: u64 = 200;

fn main() -> Result<()> {
    match Arguments::parse().mode {
        Mode::Receive { listen } => {
            let listener = TcpListener::bind(listen).with_context(|| listen.to_string())?;
            let count = tcp::receive(&listener, SEED, &AtomicU64::new(0))?;
            println!("{{\"verified_bytes\":{count}}}");
        }
        Mode::Send { to, bytes } => send(to, bytes)?,
        Mode::Echo { listen } => {
            let socket = UdpSocket::bind(listen).with_context(|| listen.to_string())?;
            let mut buffer = [0; 2048];
            loop {
                let (n, from) = socket.recv_from(&mut buffer)?;
                socket.send_to(&buffer[..n], from)?;
            }
        }
        Mode::Rtt { to, count } => {
            let trips = rtt::probe(to, count, Duration::from_micros(GAP_US))?;
            let us = |percent| trips.percentile(percent).map_or(f64::NAN, |t| t.as_nanos() as f64 / 1000.0);
            println!("{{\"p50_us\":{:.1},\"p99_us\":{:.1},\"lost\":{}}}", us(50.0), us(99.0), trips.lost);
        }
    }
    Ok(())
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
