//! What policy has to tell, on its way from the workers to the observe thread: bounded, without locks, and lost rather than
//! waited for.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use canal_dataplane::counters::Counters;
use canal_dataplane::policy::{Log, Record};
use crossbeam::queue::ArrayQueue;

/// Records that may wait: some seconds of what one worker's own limit lets through. Whoever reads is late by far when
/// there are more.
const WAITING: usize = 1024;

/// A record, and the worker that made it.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// Its number.
    pub worker: u32,
    /// What it has to tell.
    pub record: Record,
}

/// The queue, shared by all workers and one reader.
#[derive(Debug)]
pub struct RecordQueue {
    waiting: ArrayQueue<Told>,
    /// Both ends of what wakes the reader: a byte.
    bell: (UnixDatagram, UnixDatagram),
    /// The bell has been rung since the reader last looked: once is enough.
    rung: AtomicBool,
}

impl RecordQueue {
    /// An empty one.
    ///
    /// # Errors
    /// When the kernel refuses a descriptor.
    pub fn new() -> io::Result<Self> {
        let bell = UnixDatagram::pair()?;
        bell.0.set_nonblocking(true)?;
        bell.1.set_nonblocking(true)?;
        Ok(Self { waiting: ArrayQueue::new(WAITING), bell, rung: AtomicBool::new(false) })
    }

    /// Moves what a worker has to tell into the queue; what finds no room is counted as lost, with what the worker itself
    /// had to leave out. Never waits: at most one system call, that of the first record after the reader's last look.
    #[cold]
    pub fn publish(&self, worker: u32, log: &mut Log, counters: &Counters) {
        let (records, mut lost) = log.drain();
        let mut told = false;
        for record in records {
            match self.waiting.push(Told { worker, record }) {
                Ok(()) => told = true,
                Err(_) => lost += 1,
            }
        }
        counters.records_lost.add(lost);
        if told && !self.rung.swap(true, Ordering::SeqCst) {
            // It fails only when it has been rung and nobody listened: then it need not be rung.
            let _ = self.bell.0.send(&[0]);
        }
    }

    /// Hands every record to `reader`, for ever. Must be called in a runtime, by one reader only.
    ///
    /// # Errors
    /// When the bell cannot be waited for.
    pub async fn read(&self, mut reader: impl FnMut(Told)) -> io::Result<()> {
        let bell = tokio::net::UnixDatagram::from_std(self.bell.1.try_clone()?)?;
        loop {
            bell.recv(&mut [0]).await?;
            // In this order: whoever finds it rung has pushed before what follows.
            self.rung.store(false, Ordering::SeqCst);
            while let Some(told) = self.waiting.pop() {
                reader(told);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use canal_dataplane::net::HashSeed;
    use canal_dataplane::policy::{Decider, Event, Facts, Transport};
    use canal_dataplane::spec::policy::PolicyDirection;

    use super::*;

    /// A log with one record of each of so many senders.
    fn noted(log: &mut Log, senders: std::ops::Range<u32>, now_ms: u64) {
        for sender in senders {
            let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 + sender).into();
            let destination = [10, 9, 9, 9].into();
            let facts = Facts { source, destination, protocol: 47, transport: Transport::Other };
            log.note(Event::Denied, &facts, now_ms, || Record {
                at_ms: now_ms,
                event: Event::Denied,
                endpoint: "default/pod".into(),
                direction: PolicyDirection::Ingress,
                facts,
                bytes: 60,
                by: Decider::End,
                generation: 1,
            });
        }
    }

    /// Reads until `enough` records have come.
    async fn read(queue: &RecordQueue, enough: usize) -> Vec<Told> {
        let read = RefCell::new(Vec::new());
        let reading = queue.read(|told| read.borrow_mut().push(told));
        let counting = async {
            while read.borrow().len() < enough {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            end = reading => panic!("{end:?}"),
            () = counting => {}
        }
        read.into_inner()
    }

    #[tokio::test]
    async fn what_nobody_reads_is_lost_and_counted() {
        let (queue, counters) = (RecordQueue::new().unwrap(), Counters::default());
        let mut log = Log::new(HashSeed(1, 2), 0);
        // Each second, a hundred of two hundred senders are let through by the log itself.
        for second in 0..20u32 {
            noted(&mut log, second * 200..second * 200 + 200, u64::from(second) * 1000);
            queue.publish(3, &mut log, &counters);
        }
        assert!(log.is_empty());
        let read = read(&queue, WAITING).await;
        assert_eq!((read.len(), counters.records_lost.get()), (WAITING, 4000 - WAITING as u64));
        assert!(read.iter().all(|told| told.worker == 3));
        assert!(read.windows(2).all(|two| two[0].record.facts.source < two[1].record.facts.source));
    }

    #[tokio::test]
    async fn no_record_waits_for_the_next_one() {
        const RECORDS: u32 = 2000;
        let (queue, counters) = (Arc::new(RecordQueue::new().unwrap()), Arc::new(Counters::default()));
        let (ours, counts) = (Arc::clone(&queue), Arc::clone(&counters));
        let worker = std::thread::spawn(move || {
            let mut log = Log::new(HashSeed(1, 2), 0);
            for number in 0..RECORDS {
                noted(&mut log, number..number + 1, u64::from(number) * 1000);
                ours.publish(0, &mut log, &counts);
            }
            counts.records_lost.get()
        });
        let mut read_so_far = 0u64;
        // One at a time: the last is as certain to come as the first.
        while read_so_far + counters.records_lost.get() < u64::from(RECORDS) {
            read_so_far += read(&queue, 1).await.len() as u64;
        }
        let lost = worker.join().unwrap();
        assert_eq!(read_so_far + lost, u64::from(RECORDS));
    }
}
