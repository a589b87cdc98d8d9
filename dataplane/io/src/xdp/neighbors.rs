//! Ethernet addresses of next hops: what `bpf_redirect_neigh` does for the TAP port has to be known here beforehand.
//!
//! A thread asks the kernel for route and neighbour of every address that is sent to, whenever the kernel's tables change and
//! every few seconds, and keeps the kernel's own entries fresh. Workers read one word. What is not known goes the TAP port's
//! way, where the kernel waits for the neighbour's answer: nothing is lost, and nothing is resolved by us.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use canal_dataplane::port::IfIndex;
use crossbeam::queue::ArrayQueue;
use foldhash::fast::RandomState;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::lookup::Lookup;
use crate::netlink::Netlink;

/// Addresses that are resolved: as many VTEPs as there are; more go the TAP port's way.
const MAX_HOPS: usize = 65_536;
/// New addresses that may wait for the thread.
const ASKED: usize = 1024;
/// Between two looks at everything when nothing has changed: half of what the kernel calls a neighbour reachable for.
const EVERY: Duration = Duration::from_secs(10);
/// After a look at everything nothing is looked at for a while, so that what happens meanwhile is seen at once and a
/// flapping neighbour does not take the machine: a moment first, twice as long each time, up to this.
const FIRST_REST: Duration = Duration::from_millis(2);
const LAST_REST: Duration = Duration::from_millis(200);
/// Looks after which an address that nobody sends to is forgotten.
const IDLE_LOOKS: u32 = 12;

/// `RTMGRP_LINK`, `RTMGRP_NEIGH`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x4 | 0x40 | 0x400;

/// Set beside an address of 48 bits that is known.
const KNOWN: u64 = 1 << 63;

type Table = HashMap<IpAddr, Arc<Hop>, RandomState>;

/// One address that is sent to.
#[derive(Debug, Default)]
struct Hop {
    /// The next hop's Ethernet address with [`KNOWN`], or 0.
    mac: AtomicU64,
    /// Somebody has sent to it since the last look.
    used: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    table: Arc<ArcSwap<Table>>,
    asked: ArrayQueue<IpAddr>,
    wake: EventFd,
    stop: AtomicBool,
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Neighbors {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbors {
    /// Starts to resolve next hops on interface `ifindex`.
    ///
    /// # Errors
    /// When the system refuses a thread or a socket.
    pub fn start(ifindex: IfIndex) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            table: Arc::default(),
            asked: ArrayQueue::new(ASKED),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            stop: AtomicBool::new(false),
        });
        let resolver = Resolver {
            lookup: Lookup::open(ifindex)?,
            news: Netlink::open(GROUPS)?,
            shared: Arc::clone(&shared),
            idle: HashMap::new(),
        };
        let name = std::thread::Builder::new().name("canal-neighbors".into());
        let thread = name.spawn(move || resolver.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// For a worker.
    pub fn hops(&self) -> Hops {
        let table = Cache::new(Arc::clone(&self.shared.table));
        Hops { table, shared: Arc::clone(&self.shared), last: None }
    }
}

impl Drop for Neighbors {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Full already: the thread wakes all the same.
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic there has been printed; nothing is resolved any more, which costs speed only.
            let _ = thread.join();
        }
    }
}

/// What a worker sees.
pub struct Hops {
    table: Cache<Arc<ArcSwap<Table>>, Arc<Table>>,
    shared: Arc<Shared>,
    last: Option<(IpAddr, Arc<Hop>)>,
}

impl Hops {
    /// The Ethernet address by which `target` is reached. `None`: not known (yet).
    #[inline]
    pub fn mac(&mut self, target: IpAddr) -> Option<[u8; 6]> {
        if let Some((last, hop)) = &self.last
            && *last == target
            && let Some(mac) = read(hop)
        {
            return Some(mac);
        }
        self.find(target)
    }

    fn find(&mut self, target: IpAddr) -> Option<[u8; 6]> {
        let Some(hop) = self.table.load().get(&target) else {
            // Full: it is asked again with the next packet.
            if self.shared.asked.push(target).is_ok() {
                let _ = self.shared.wake.write(1);
            }
            return None;
        };
        let mac = read(hop);
        self.last = Some((target, Arc::clone(hop)));
        mac
    }
}

#[inline]
fn read(hop: &Hop) -> Option<[u8; 6]> {
    // Written only when it says otherwise: the word is shared by all workers.
    if !hop.used.load(Ordering::Relaxed) {
        hop.used.store(true, Ordering::Relaxed);
    }
    let word = hop.mac.load(Ordering::Relaxed);
    let [_, _, mac @ ..] = word.to_be_bytes();
    (word & KNOWN != 0).then_some(mac)
}

struct Resolver {
    lookup: Lookup,
    news: Netlink,
    shared: Arc<Shared>,
    /// Looks since an address was last sent to.
    idle: HashMap<IpAddr, u32>,
}

impl Resolver {
    fn run(mut self) {
        let Ok(epoll) = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC) else { return };
        let watched = epoll.add(&self.shared.wake, EpollEvent::new(EpollFlags::EPOLLIN, 0)).is_ok()
            && epoll.add(&self.news, EpollEvent::new(EpollFlags::EPOLLIN, 1)).is_ok();
        let (mut looked, mut rest) = (Instant::now(), FIRST_REST);
        while watched && !self.shared.stop.load(Ordering::Relaxed) {
            let wait = EVERY.saturating_sub(looked.elapsed()).as_millis() as u16;
            let quiet = Instant::now();
            // An error is a signal; then it is as if the time were up.
            let _ = epoll.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::from(wait));
            let _ = self.shared.wake.read();
            self.learn();
            let due = looked.elapsed() >= EVERY;
            if quiet.elapsed() > LAST_REST {
                rest = FIRST_REST;
            }
            if self.news.has_news(self.lookup.ifindex()) || due {
                self.look(due);
                looked = if due { Instant::now() } else { looked };
                // Whoever drops us wakes us.
                std::thread::park_timeout(rest);
                rest = (2 * rest).min(LAST_REST);
            }
        }
    }

    /// Takes up the addresses that were asked for.
    fn learn(&mut self) {
        let mut table = None;
        while let Some(target) = self.shared.asked.pop() {
            let table = table.get_or_insert_with(|| Table::clone(&self.shared.table.load()));
            if table.len() < MAX_HOPS && !table.contains_key(&target) {
                let hop = Arc::new(Hop::default());
                self.resolve(target, &hop);
                table.insert(target, hop);
            }
        }
        if let Some(table) = table {
            self.shared.table.store(Arc::new(table));
        }
    }

    /// Looks at everything; when it is time for it (`due`), forgets what nobody sends to.
    fn look(&mut self, due: bool) {
        let table = self.shared.table.load_full();
        let mut gone = Vec::new();
        for (target, hop) in table.iter() {
            if due {
                let idle = self.idle.entry(*target).or_default();
                *idle = if hop.used.swap(false, Ordering::Relaxed) { 0 } else { *idle + 1 };
                if *idle > IDLE_LOOKS {
                    gone.push(*target);
                    continue;
                }
            }
            self.resolve(*target, hop);
        }
        if !gone.is_empty() {
            let mut table = Table::clone(&table);
            for target in gone {
                self.idle.remove(&target);
                if let Some(hop) = table.remove(&target) {
                    // A worker may hold it still.
                    hop.mac.store(0, Ordering::Relaxed);
                }
            }
            self.shared.table.store(Arc::new(table));
        }
    }

    fn resolve(&self, target: IpAddr, hop: &Hop) {
        let word = self.lookup.next_hop(target).map_or(0, |mac| {
            let [a, b, c, d, e, f] = mac;
            KNOWN | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
        });
        hop.mac.store(word, Ordering::Relaxed);
    }
}
