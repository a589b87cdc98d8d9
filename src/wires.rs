//! The interfaces that AF_XDP has: taken over and given back as plans come and go, all over one memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use canal_dataplane::port::IfIndex;
use canal_io::xdp::{AttachError, Memory, Needs, Ours, XdpConfig, XdpDevice, XdpError};

use crate::edge::chain;
use crate::ports::TakenOver;
use crate::worker_thread::{Order, PortCounters, Stuck, WorkerHandle};

/// After this time an interface is asked for again that somebody else had, or for which there was no memory. What lies with
/// the interface itself is tried again when the interface is another: attaching a program makes some NICs reset their link.
const AGAIN: Duration = Duration::from_secs(10);

/// The interfaces.
pub struct Wires {
    workers: Arc<[WorkerHandle]>,
    memory: Option<Arc<Memory>>,
    open: Vec<Open>,
    refused: Vec<Refused>,
}

struct Open {
    config: XdpConfig,
    device: XdpDevice,
    counters: Vec<Arc<PortCounters>>,
}

struct Refused {
    config: XdpConfig,
    why: String,
    /// When to ask again.
    again: Option<Instant>,
}

impl Wires {
    /// None yet.
    pub fn new(workers: Arc<[WorkerHandle]>) -> Self {
        Self { workers, memory: None, open: Vec::new(), refused: Vec::new() }
    }

    /// Takes over what is `wanted` and gives back everything else. What cannot be had is for others to carry:
    /// [`Self::refusal`].
    ///
    /// # Errors
    /// When a worker does not take its sockets.
    pub fn apply(&mut self, wanted: &[XdpConfig]) -> Result<(), Stuck> {
        let now = Instant::now();
        self.refused.retain(|refused| wanted.contains(&refused.config));
        self.close(|open| !wanted.iter().any(|config| config.same_sockets(open)))?;
        for open in &mut self.open {
            let Some(config) = wanted.iter().find(|config| config.same_sockets(&open.config)) else {
                continue;
            };
            if *config != open.config {
                if let Err(error) = open.device.take(config) {
                    tracing::error!(
                        interface = config.name,
                        why = chain(&error),
                        "the XDP program is as before"
                    );
                }
                open.config = config.clone();
            }
        }
        let waits = |config: &&XdpConfig| {
            let refused = self.refused.iter().find(|refused| refused.config == **config);
            refused.is_some_and(|refused| refused.again.is_none_or(|at| now < at))
        };
        let is_open = |config: &&XdpConfig| self.open.iter().any(|open| open.config == **config);
        let missing: Vec<_> = wanted.iter().filter(|c| !is_open(c) && !waits(c)).cloned().collect();
        let (mut needs, mut possible) = (Needs::default(), Vec::new());
        for config in missing {
            match Needs::of(&config) {
                Ok(of_it) => {
                    needs = needs.and(of_it);
                    possible.push(config);
                }
                Err(error) => self.refuse(config, &error, now),
            }
        }
        if possible.is_empty() {
            return Ok(());
        }
        // What cannot say what it needs is going.
        let of_open = self.open.iter().filter_map(|open| Needs::of(&open.config).ok());
        let needs = of_open.fold(needs, Needs::and);
        if !self.memory.as_ref().is_some_and(|memory| memory.serves(needs)) {
            possible.extend(self.open.iter().map(|open| open.config.clone()));
            self.close(|_| true)?;
            self.memory = None;
        }
        for config in possible {
            match self.open(&config, needs) {
                Ok(()) => self.refused.retain(|refused| refused.config != config),
                Err(Failure::Xdp(error)) => self.refuse(config, &error, now),
                Err(Failure::Stuck(stuck)) => return Err(stuck),
            }
        }
        Ok(())
    }

    /// Why AF_XDP does not have this interface, if it was to.
    pub fn refusal(&self, ifindex: IfIndex) -> Option<&str> {
        let refused = self.refused.iter().find(|refused| refused.config.ifindex == ifindex);
        refused.map(|refused| refused.why.as_str())
    }

    /// How long until it pays to apply the same again.
    pub fn again(&self) -> Option<Duration> {
        let at = self.refused.iter().filter_map(|refused| refused.again).min()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// What is taken over.
    pub fn taken_over(&self) -> Vec<TakenOver> {
        let taken = |open: &Open| TakenOver {
            interface: open.config.name.clone(),
            gateway: matches!(open.config.ours, Ours::Plain(_)),
            abilities: open.device.abilities().clone(),
            counters: open.counters.clone(),
        };
        self.open.iter().map(taken).collect()
    }

    fn open(&mut self, config: &XdpConfig, needs: Needs) -> Result<(), Failure> {
        let memory = match &self.memory {
            Some(memory) => Arc::clone(memory),
            None => self.share(Memory::new(needs).map_err(XdpError::Memory)?)?,
        };
        let (device, wires) = XdpDevice::open(config, &memory)?;
        let abilities = device.abilities();
        tracing::info!(interface = config.name, ?abilities, "AF_XDP has taken the interface over");
        if wires.iter().any(Option::is_none) {
            let queues = abilities.queues;
            tracing::info!(queues, "workers without a queue of their own send through the TAP device");
        }
        let counters: Vec<_> = self.workers.iter().map(|_| Arc::<PortCounters>::default()).collect();
        // Kept before anything can fail: dropped, it leaves the interface.
        self.open.push(Open { config: config.clone(), device, counters: counters.clone() });
        for ((worker, wire), counters) in self.workers.iter().zip(wires).zip(counters) {
            if let Some(wire) = wire {
                worker.order(Order::Attach(Box::new(wire), counters))?;
            }
        }
        Ok(())
    }

    /// Makes `memory` that of all interfaces to come.
    fn share(&mut self, memory: Arc<Memory>) -> Result<Arc<Memory>, Stuck> {
        for worker in self.workers.iter() {
            worker.order(Order::Home(Arc::clone(&memory)))?;
        }
        Ok(Arc::clone(self.memory.insert(memory)))
    }

    /// Gives interfaces back.
    fn close(&mut self, which: impl Fn(&XdpConfig) -> bool) -> Result<(), Stuck> {
        for Open { config, device, .. } in self.open.extract_if(.., |open| which(&open.config)) {
            for worker in self.workers.iter() {
                worker.order(Order::Detach(config.ifindex))?;
            }
            device.close();
        }
        Ok(())
    }

    fn refuse(&mut self, config: XdpConfig, error: &XdpError, now: Instant) {
        let passing = matches!(
            error,
            XdpError::Attach(AttachError::Taken(_)) | XdpError::Memory(_) | XdpError::Socket(_)
        );
        let (why, again) = (chain(error), passing.then(|| now + AGAIN));
        if let Some(refused) = self.refused.iter_mut().find(|refused| refused.config == config) {
            refused.again = again;
            if refused.why == why {
                return;
            }
        }
        tracing::warn!(interface = config.name, why, "AF_XDP cannot have the interface");
        self.refused.retain(|refused| refused.config != config);
        self.refused.push(Refused { config, why, again });
    }
}

/// Why an interface was not taken over.
enum Failure {
    Xdp(XdpError),
    Stuck(Stuck),
}

impl From<XdpError> for Failure {
    fn from(error: XdpError) -> Self {
        Self::Xdp(error)
    }
}

impl From<Stuck> for Failure {
    fn from(error: Stuck) -> Self {
        Self::Stuck(error)
    }
}
