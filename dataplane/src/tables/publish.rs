//! From the control thread to the workers: one pointer swap.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::Tables;

/// The control thread's end. It alone frees tables: workers hold them only between two looks.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Tables>>,
    /// Generations that some worker may still read.
    retired: Vec<Arc<Tables>>,
}

/// A worker's end.
#[derive(Debug, Clone)]
pub struct Reader {
    cache: Cache<Arc<ArcSwap<Tables>>, Arc<Tables>>,
}

impl Publisher {
    /// Starts with `tables` in force.
    pub fn new(tables: Tables) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(tables)), retired: Vec::new() }
    }

    /// Another reader, for one worker or for the admin thread.
    pub fn reader(&self) -> Reader {
        Reader { cache: Cache::new(Arc::clone(&self.current)) }
    }

    /// The tables in force.
    pub fn current(&self) -> Arc<Tables> {
        self.current.load_full()
    }

    /// Puts `tables` in force and frees those older ones that nobody reads any more.
    pub fn publish(&mut self, tables: Tables) {
        self.retired.push(self.current.swap(Arc::new(tables)));
        self.retired.retain(|old| Arc::strong_count(old) > 1);
    }

    /// Generations kept because a worker may still read them.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }
}

impl Reader {
    /// The tables in force: one load and one comparison when nothing changed. Ask once a batch.
    #[inline]
    pub fn load(&mut self) -> &Arc<Tables> {
        self.cache.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_tables_are_freed_by_the_publisher_after_the_last_look() {
        let mut publisher = Publisher::new(Tables::closed());
        let mut reader = publisher.reader();
        let old = Arc::downgrade(reader.load());
        let mut next = Tables::closed();
        next.generation = 1;
        publisher.publish(next);
        assert_eq!(publisher.retired(), 1);
        assert_eq!(reader.load().generation, 1);
        assert!(old.upgrade().is_some(), "a worker never frees tables");
        publisher.publish(Tables::closed());
        assert_eq!(publisher.retired(), 1);
        assert!(old.upgrade().is_none());
    }
}
