//! Values under small numbers: where many things refer to many things, four bytes a reference.

use std::ops::{Index, IndexMut};

/// Values under numbers that are given anew once they are free.
#[derive(Clone, Debug)]
pub struct Slots<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Keeps a value; the number it gets.
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.values[slot as usize] = Some(value);
            return slot;
        }
        self.values.push(Some(value));
        u32::try_from(self.values.len() - 1).unwrap_or_else(|_| unreachable!("memory holds fewer objects"))
    }

    /// Frees a number.
    pub fn remove(&mut self, slot: u32) -> Option<T> {
        let value = self.values.get_mut(slot as usize)?.take();
        if value.is_some() {
            self.free.push(slot);
        }
        value
    }

    /// What is under a number.
    pub fn get(&self, slot: u32) -> Option<&T> {
        self.values.get(slot as usize)?.as_ref()
    }

    /// Numbers in use and what they stand for, in order of numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.values).filter_map(|(slot, value)| Some((slot, value.as_ref()?)))
    }
}

impl<T> Index<u32> for Slots<T> {
    type Output = T;

    fn index(&self, slot: u32) -> &T {
        self.values[slot as usize].as_ref().unwrap_or_else(|| unreachable!("slot {slot} is free"))
    }
}

impl<T> IndexMut<u32> for Slots<T> {
    fn index_mut(&mut self, slot: u32) -> &mut T {
        self.values[slot as usize].as_mut().unwrap_or_else(|| unreachable!("slot {slot} is free"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_anew() {
        let mut slots = Slots::default();
        let [a, b] = ["a", "b"].map(|value| slots.insert(value));
        assert_eq!((slots.remove(a), slots.remove(a), slots.get(a)), (Some("a"), None, None));
        let c = slots.insert("c");
        assert_eq!((c, slots[b], slots[c]), (a, "b", "c"));
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(a, &"c"), (b, &"b")]);
    }
}
