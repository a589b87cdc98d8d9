//! A running stream of packets, each the first of its flow, so that each is judged anew: when was each sent, and when did it
//! arrive?

use anyhow::{Context, Result, anyhow};
use netns_tests::frames::{self, Link, mac};
use netns_tests::packet_socket::PacketSocket;
use netns_tests::{Pod, plan};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets a probe has room for.
const ROOM: usize = 1 << 20;
/// Pause between packets; with what a sleep takes beyond it there are some 10,000 packets a second.
const GAP: Duration = Duration::from_micros(40);
/// First source port, and how many there are; each destination port has all of them.
const PORTS: (u16, usize) = (10_000, 50_000);
/// First destination port.
const TO_PORT: u16 = 20_000;
/// Where payload begins in a frame without IP options.
const PAYLOAD_AT: usize = 14 + 20 + 8;

/// What is known of the packets; times in nanoseconds since the probe's start, 0: not yet.
#[derive(Debug)]
struct Log {
    begin: Instant,
    sent: Vec<AtomicU64>,
    arrived: Vec<AtomicU64>,
    /// Packets sent.
    count: AtomicUsize,
    /// One more than the number of the newest packet that arrived.
    newest: AtomicUsize,
    stop: AtomicBool,
}

/// The stream; it ends with the value.
#[derive(Debug)]
pub struct Probe {
    log: Arc<Log>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Probe {
    /// Sends from one pod to the other.
    pub fn start(from: &Pod, to: &Pod) -> Result<Self> {
        let times = || (0..ROOM).map(|_| AtomicU64::new(0)).collect();
        let log = Arc::new(Log {
            begin: Instant::now(),
            sent: times(),
            arrived: times(),
            count: AtomicUsize::new(0),
            newest: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let link = Link { from: mac(&from.mac), to: mac(plan::GATEWAY_MAC) };
        let mut frame = frames::udp(link, (from.v4.into(), PORTS.0), (to.v4.into(), TO_PORT), 64, &[0; 8]);
        // No checksum (RFC 768): the ports change.
        frame[40..42].fill(0);
        let (source, sink) = (PacketSocket::open(&from.ns, "eth0")?, PacketSocket::open(&to.ns, "eth0")?);
        let (here, there) = (Arc::clone(&log), Arc::clone(&log));
        let threads = vec![
            std::thread::spawn(move || send(&here, &source, frame)),
            std::thread::spawn(move || receive(&there, &sink)),
        ];
        Ok(Self { log, threads })
    }

    /// The probe's clock.
    pub fn now(&self) -> Duration {
        self.log.begin.elapsed()
    }

    /// Number of the next packet.
    pub fn next(&self) -> usize {
        self.log.count.load(Ordering::Acquire)
    }

    /// When the first packet from number `from` on that arrived did so; waits for it.
    pub fn first_arrival(&self, from: usize, limit: Duration) -> Result<Duration> {
        self.until("a packet that arrives", limit, || {
            let newest = self.log.newest.load(Ordering::Acquire);
            (from..newest).find_map(|n| time(&self.log.arrived[n]))
        })
    }

    /// When the first packet was sent after which none arrived any more, as `silence` packets in a row tell.
    pub fn first_loss(&self, silence: usize, limit: Duration) -> Result<Duration> {
        self.until("packets that do not arrive", limit, || {
            let (newest, count) = (self.log.newest.load(Ordering::Acquire), self.next());
            (count >= newest + silence).then(|| time(&self.log.sent[newest])).flatten()
        })
    }

    fn until(&self, what: &str, limit: Duration, look: impl Fn() -> Option<Duration>) -> Result<Duration> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if Instant::now() > end {
                return Err(anyhow!("no {what} within {limit:?}"));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Ends it, and says what went wrong meanwhile.
    pub fn finish(mut self) -> Result<()> {
        self.log.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).try_for_each(|t| t.join().map_err(|_| anyhow!("a probe's end panicked"))?)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.log.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn time(at: &AtomicU64) -> Option<Duration> {
    let ns = at.load(Ordering::Acquire);
    (ns > 0).then(|| Duration::from_nanos(ns))
}

fn nanoseconds(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn send(log: &Log, socket: &PacketSocket, mut frame: Vec<u8>) -> Result<()> {
    for n in 0..ROOM {
        if log.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (from, to) = (PORTS.0 + (n % PORTS.1) as u16, TO_PORT + (n / PORTS.1) as u16);
        frame[34..36].copy_from_slice(&from.to_be_bytes());
        frame[36..38].copy_from_slice(&to.to_be_bytes());
        frame[PAYLOAD_AT..PAYLOAD_AT + 8].copy_from_slice(&(n as u64).to_be_bytes());
        log.sent[n].store(nanoseconds(log.begin), Ordering::Release);
        socket.send(&frame)?;
        log.count.store(n + 1, Ordering::Release);
        std::thread::sleep(GAP);
    }
    Err(anyhow!("more than {ROOM} packets: the measurement takes too long"))
}

fn receive(log: &Log, socket: &PacketSocket) -> Result<()> {
    let mut buffer = [0; 128];
    while !log.stop.load(Ordering::Relaxed) {
        let Some(frame) = socket.receive(&mut buffer)? else { continue };
        let ours = frame.len() >= PAYLOAD_AT + 8
            && frame[12..14] == [8, 0]
            && frame[23] == 17
            && u16::from_be_bytes([frame[36], frame[37]]) >= TO_PORT;
        if !ours {
            continue;
        }
        let number = u64::from_be_bytes(frame[PAYLOAD_AT..PAYLOAD_AT + 8].try_into().context("8 bytes")?);
        let number = usize::try_from(number)?;
        if number < ROOM {
            log.arrived[number].store(nanoseconds(log.begin), Ordering::Release);
            log.newest.fetch_max(number + 1, Ordering::AcqRel);
        }
    }
    Ok(())
}
