//! Sets of port numbers.

/// Ascending ranges that neither overlap nor touch; both ends included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Every port.
    pub fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    /// The ports of any ranges; one whose end comes before its start holds none.
    pub fn of(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        let mut set: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match set.last_mut() {
                Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = (*end).max(last),
                _ => set.push((first, last)),
            }
        }
        Self(set)
    }

    /// Is it every port?
    pub fn is_all(&self) -> bool {
        self.0 == [(0, u16::MAX)]
    }

    /// Is it none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Is this port in it?
    pub fn contains(&self, port: u16) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= port);
        at > 0 && port <= self.0[at - 1].1
    }

    /// Its ranges.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Every port that is not in it.
    pub fn complement(&self) -> Self {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        let mut from = Some(0);
        for (first, last) in &self.0 {
            let start = from.unwrap_or(u16::MAX);
            if *first > start {
                left.push((start, first - 1));
            }
            from = last.checked_add(1);
        }
        left.extend(from.map(|start| (start, u16::MAX)));
        Self(left)
    }

    /// The ports that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        if self.is_all() {
            return other.clone();
        }
        let mut both = Vec::new();
        let (mut a, mut b) = (&self.0[..], &other.0[..]);
        while let (Some((a_first, a_last)), Some((b_first, b_last))) = (a.first(), b.first()) {
            let (first, last) = (*a_first.max(b_first), *a_last.min(b_last));
            if first <= last {
                both.push((first, last));
            }
            if a_last <= b_last {
                a = &a[1..];
            } else {
                b = &b[1..];
            }
        }
        Self(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
        let port = prop_oneof![0u16..12, 65_530u16..=65_535];
        prop::collection::vec((port.clone(), port), 0..5)
    }

    proptest! {
        #[test]
        fn equals_asking_every_range(a in ranges(), b in ranges()) {
            let among = |ranges: &[(u16, u16)], port| ranges.iter().any(|(f, l)| (*f..=*l).contains(&port));
            let (x, y) = (PortSet::of(a.clone()), PortSet::of(b.clone()));
            let (not_x, both) = (x.complement(), x.intersection(&y));
            for port in (0..16).chain(65_520..=65_535) {
                prop_assert_eq!(x.contains(port), among(&a, port));
                prop_assert_eq!(not_x.contains(port), !among(&a, port));
                prop_assert_eq!(both.contains(port), among(&a, port) && among(&b, port));
            }
            prop_assert_eq!(not_x.complement(), x.clone());
            prop_assert_eq!(PortSet::all().intersection(&x), x.clone());
            prop_assert_eq!(x.is_empty(), not_x.is_all());
        }
    }
}
