//! TCP transfers in which the receiver compares every byte and tells the sender how many it got.

use super::pattern::{BLOCK, Checker, Pattern};
use crate::netns::Netns;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A stream that is silent for so long is broken: longer than any interruption a test causes.
const SILENCE: Duration = Duration::from_secs(60);

/// When the sender stops.
#[derive(Clone, Debug)]
pub enum Goal {
    /// After so many bytes.
    Bytes(u64),
    /// When somebody sets the flag.
    Until(Arc<AtomicBool>),
}

/// Accepts one connection, compares what arrives with the stream of `seed` and answers with the number of bytes.
pub fn receive(listener: &TcpListener, seed: u64, progress: &AtomicU64) -> Result<u64> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut checker = Checker::new(seed);
    let mut buffer = vec![0; BLOCK];
    loop {
        let n = stream.read(&mut buffer).context("receiving")?;
        if n == 0 {
            break;
        }
        if let Err(offset) = checker.take(&buffer[..n]) {
            bail!("byte {offset} is wrong: the path corrupts data");
        }
        progress.store(checker.count(), Ordering::Relaxed);
    }
    stream.write_all(&checker.count().to_be_bytes())?;
    Ok(checker.count())
}

/// Sends the stream of `seed` to `to` until `goal`, no faster than `rate` bytes a second, and checks the receiver's count.
pub fn send(to: SocketAddr, seed: u64, goal: &Goal, rate: Option<u64>, progress: &AtomicU64) -> Result<u64> {
    let mut stream =
        TcpStream::connect_timeout(&to, Duration::from_secs(15)).with_context(|| format!("{to}"))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut pattern = Pattern::new(seed);
    let mut block = vec![0; BLOCK];
    let mut sent = 0;
    let begin = Instant::now();
    loop {
        let left = match goal {
            Goal::Bytes(all) => all - sent,
            Goal::Until(stop) if stop.load(Ordering::Relaxed) => 0,
            Goal::Until(_) => BLOCK as u64,
        };
        if left == 0 {
            break;
        }
        let n = left.min(BLOCK as u64) as usize;
        pattern.fill(&mut block[..n]);
        stream.write_all(&block[..n]).context("sending")?;
        sent += n as u64;
        progress.store(sent, Ordering::Relaxed);
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).context("waiting for the receiver's count")?;
    let received = u64::from_be_bytes(answer);
    ensure!(received == sent, "sent {sent} bytes, the receiver counted {received}");
    Ok(sent)
}

/// A transfer between two namespaces that runs by itself.
#[derive(Debug)]
pub struct Transfer {
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<u64>>,
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Transfer {
    /// Sends `bytes` from `client` to `address` in `server`.
    pub fn of_bytes(client: &Netns, server: &Netns, address: IpAddr, bytes: u64) -> Result<Self> {
        Self::start(client, server, address, Goal::Bytes(bytes), None)
    }

    /// Sends from `client` to `address` in `server` until [`Transfer::finish`], `rate` bytes a second.
    pub fn endless(client: &Netns, server: &Netns, address: IpAddr, rate: u64) -> Result<Self> {
        Self::start(client, server, address, Goal::Until(Arc::default()), Some(rate))
    }

    fn start(client: &Netns, server: &Netns, address: IpAddr, goal: Goal, rate: Option<u64>) -> Result<Self> {
        let listener = server.enter(move || TcpListener::bind((address, 0)).context("listening"))?;
        let to = listener.local_addr()?;
        let seed = u64::from(to.port()) << 32 | u64::from(std::process::id());
        let received = Arc::new(AtomicU64::new(0));
        let stop = match &goal {
            Goal::Until(stop) => Arc::clone(stop),
            Goal::Bytes(_) => Arc::default(),
        };
        let progress = Arc::clone(&received);
        let receiver = server.spawn(move || receive(&listener, seed, &progress));
        let sender = client.spawn(move || send(to, seed, &goal, rate, &AtomicU64::new(0)));
        Ok(Self { sender, receiver, received, stop })
    }

    /// Bytes the receiver has verified so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until `more` further bytes have arrived: the proof that the path carries traffic now.
    pub fn expect_progress(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.received() + more;
        crate::wait::until(&format!("{more} more bytes"), limit, || Ok(self.received() >= goal))
    }

    /// Ends an endless transfer, waits for either kind and returns the bytes both ends agree on.
    pub fn finish(self, limit: Duration) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + limit;
        while !self.sender.is_finished() {
            ensure!(Instant::now() < until, "{} bytes after {limit:?}, and not finished", self.received());
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = self.sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        let sent = sent.with_context(|| {
            format!("sender, {} bytes had arrived", self.received.load(Ordering::Relaxed))
        })?;
        let received = self.receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
        ensure!(received? == sent, "the ends disagree");
        Ok(sent)
    }
}

/// Sends `bytes` from `client` to `address` in `server` and waits for the end.
pub fn transfer(client: &Netns, server: &Netns, address: IpAddr, bytes: u64) -> Result<()> {
    let transfer = Transfer::of_bytes(client, server, address, bytes)?;
    let limit = Duration::from_secs(60);
    let names = format!("TCP {} -> {} ({address})", client.name(), server.name());
    transfer.finish(limit).with_context(|| names)?;
    Ok(())
}

/// Tries to connect from `client` to a listener on `address` in `server`; it must not succeed within a second.
pub fn expect_refused(client: &Netns, server: &Netns, address: IpAddr) -> Result<()> {
    let listener = server.enter(move || TcpListener::bind((address, 0)).context("listening"))?;
    let to = listener.local_addr()?;
    let connected =
        client.enter(move || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok()))?;
    ensure!(!connected, "{} reached {to}, which it must not", client.name());
    Ok(())
}
