//! A sorted list in which everybody knows their place.

use std::cmp::Ordering;

/// Sorts few numbers out of many by the order of all, without comparing them.
#[derive(Debug, Default)]
pub struct Precedence {
    sorted: Vec<u32>,
    /// By number; `u32::MAX` = not in the list.
    ranks: Vec<u32>,
}

impl Precedence {
    /// Puts a number into its place.
    pub fn insert(&mut self, id: u32, mut compare: impl FnMut(u32, u32) -> Ordering) {
        let at = self.sorted.partition_point(|have| compare(*have, id).is_lt());
        self.sorted.insert(at, id);
        self.renumber(at);
    }

    /// Takes a number out, if it is in.
    pub fn remove(&mut self, id: u32) {
        if let Some(rank) = self.rank(id) {
            self.sorted.remove(rank as usize);
            self.ranks[id as usize] = u32::MAX;
            self.renumber(rank as usize);
        }
    }

    /// The order has changed.
    pub fn sort(&mut self, mut compare: impl FnMut(u32, u32) -> Ordering) {
        self.sorted.sort_by(|a, b| compare(*a, *b));
        self.renumber(0);
    }

    /// Its place.
    pub fn rank(&self, id: u32) -> Option<u32> {
        self.ranks.get(id as usize).copied().filter(|rank| *rank != u32::MAX)
    }

    /// Who has a place.
    pub fn at(&self, rank: u32) -> u32 {
        self.sorted[rank as usize]
    }

    fn renumber(&mut self, from: usize) {
        for (rank, id) in (0u32..).zip(&self.sorted).skip(from) {
            let id = *id as usize;
            if self.ranks.len() <= id {
                self.ranks.resize(id + 1, u32::MAX);
            }
            self.ranks[id] = rank;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_knows_their_place() {
        let names = ["d", "b", "a", "c"];
        let by_name = |a: u32, b: u32| names[a as usize].cmp(names[b as usize]);
        let mut precedence = Precedence::default();
        (0..4).for_each(|id| precedence.insert(id, by_name));
        let ranks = |precedence: &Precedence| (0..5).map(|id| precedence.rank(id)).collect::<Vec<_>>();
        assert_eq!(ranks(&precedence), [Some(3), Some(1), Some(0), Some(2), None]);
        precedence.remove(1);
        precedence.remove(1);
        assert_eq!(ranks(&precedence), [Some(2), None, Some(0), Some(1), None]);
        precedence.sort(|a, b| by_name(b, a));
        assert_eq!((0..3).map(|rank| precedence.at(rank)).collect::<Vec<_>>(), [0, 3, 2]);
    }
}
