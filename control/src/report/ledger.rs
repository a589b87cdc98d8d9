//! Which keys still have to be written: what they shall hold against what they hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Condition;

/// By key. A change is not written before it has lasted for one turn; after that one key is written a turn, in the order
/// of their changes. So an interface that flaps costs nothing, and a node that starts is no storm.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    wanted: BTreeMap<String, Condition>,
    /// As far as we know; `None` = something that nobody can read.
    stored: BTreeMap<String, Option<Condition>>,
    /// Changed in this turn.
    fresh: BTreeSet<String>,
    due: VecDeque<String>,
}

/// What to do to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) key: String,
    /// `None` = it shall be deleted.
    pub(super) wanted: Option<Condition>,
}

impl Ledger {
    /// All that shall be there.
    pub(super) fn want(&mut self, wanted: BTreeMap<String, Condition>) {
        let former = std::mem::replace(&mut self.wanted, wanted);
        let gone = former.keys().filter(|key| !self.wanted.contains_key(*key));
        let other = self.wanted.iter().filter(|(key, condition)| former.get(*key) != Some(condition));
        let changed: Vec<String> = gone.chain(other.map(|(key, _)| key)).cloned().collect();
        changed.into_iter().for_each(|key| self.touch(key));
    }

    /// All that is there under a prefix.
    pub(super) fn found(&mut self, prefix: &str, stored: BTreeMap<String, Option<Condition>>) {
        self.stored.retain(|key, _| !key.starts_with(prefix));
        self.stored.extend(stored);
        let keys: BTreeSet<String> = self.stored.keys().chain(self.wanted.keys()).cloned().collect();
        keys.into_iter().for_each(|key| self.touch(key));
    }

    fn touch(&mut self, key: String) {
        if self.step(&key).is_some() && !self.due.contains(&key) {
            self.fresh.insert(key);
        }
    }

    /// What has to be done to a key, if anything.
    fn step(&self, key: &str) -> Option<Step> {
        let wanted = self.wanted.get(key).copied();
        let done = match (wanted, self.stored.get(key)) {
            (None, None) => true,
            (Some(wanted), Some(stored)) => *stored == Some(wanted),
            (Some(_), None) | (None, Some(_)) => false,
        };
        (!done).then(|| Step { key: key.to_owned(), wanted })
    }

    /// What to do now.
    pub(super) fn next(&mut self) -> Option<Step> {
        while let Some(key) = self.due.pop_front() {
            // It may have become what it was.
            if let Some(step) = self.step(&key) {
                return Some(step);
            }
        }
        None
    }

    /// It has been done.
    pub(super) fn written(&mut self, step: Step) {
        match step.wanted {
            Some(condition) => drop(self.stored.insert(step.key.clone(), Some(condition))),
            None => drop(self.stored.remove(&step.key)),
        }
        // Something else may be wanted by now.
        self.touch(step.key);
    }

    /// It could not be done: again, when the others have had their turn.
    pub(super) fn failed(&mut self, step: Step) {
        self.due.push_back(step.key);
    }

    /// The turn is over.
    pub(super) fn turn(&mut self) {
        self.due.extend(std::mem::take(&mut self.fresh));
    }

    /// Nothing is left to do.
    pub(super) fn is_settled(&self) -> bool {
        self.fresh.is_empty() && self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Condition::{Down, Error, Up};

    fn wanted(of: &[(&str, Condition)]) -> BTreeMap<String, Condition> {
        of.iter().map(|(key, condition)| ((*key).to_owned(), *condition)).collect()
    }

    /// One turn, in which what is due is done.
    fn turn(ledger: &mut Ledger) -> Option<Step> {
        let step = ledger.next();
        step.clone().into_iter().for_each(|step| ledger.written(step));
        ledger.turn();
        step
    }

    fn step(key: &str, wanted: Option<Condition>) -> Option<Step> {
        Some(Step { key: key.to_owned(), wanted })
    }

    #[test]
    fn a_change_waits_for_a_turn_and_one_key_is_written_a_turn() {
        let mut ledger = Ledger::default();
        ledger.want(wanted(&[("a", Up), ("b", Down)]));
        assert_eq!(turn(&mut ledger), None);
        assert_eq!(turn(&mut ledger), step("a", Some(Up)));
        ledger.want(wanted(&[("b", Error)]));
        assert_eq!(turn(&mut ledger), step("b", Some(Error)));
        assert_eq!(turn(&mut ledger), step("a", None));
        assert!(ledger.is_settled());
        assert_eq!(turn(&mut ledger), None);
    }

    #[test]
    fn what_flaps_is_not_written() {
        let mut ledger = Ledger::default();
        ledger.found("", BTreeMap::from([("a".to_owned(), Some(Up))]));
        ledger.want(wanted(&[("a", Up)]));
        ledger.turn();
        ledger.want(wanted(&[("a", Down)]));
        ledger.turn();
        ledger.want(wanted(&[("a", Up)]));
        assert_eq!(turn(&mut ledger), None);
        assert!(ledger.is_settled());
    }

    #[test]
    fn what_others_have_made_of_it_is_repaired() {
        let mut ledger = Ledger::default();
        ledger.want(wanted(&[("a", Up), ("b", Up), ("c", Up)]));
        ledger.found(
            "",
            BTreeMap::from(
                [("a", Some(Up)), ("b", Some(Down)), ("c", None), ("d", None)]
                    .map(|(k, c)| (k.to_owned(), c)),
            ),
        );
        ledger.turn();
        let steps = [turn(&mut ledger), turn(&mut ledger), turn(&mut ledger), turn(&mut ledger)];
        assert_eq!(steps, [step("b", Some(Up)), step("c", Some(Up)), step("d", None), None]);
    }

    #[test]
    fn a_key_that_cannot_be_written_stands_in_nobodys_way() {
        let mut ledger = Ledger::default();
        ledger.want(wanted(&[("a", Up), ("b", Up)]));
        ledger.turn();
        let refused = ledger.next().unwrap();
        ledger.failed(refused);
        assert_eq!(turn(&mut ledger), step("b", Some(Up)));
        assert_eq!(turn(&mut ledger), step("a", Some(Up)));
    }

    proptest! {
        #[test]
        fn in_the_end_there_is_what_was_wanted(
            acts in proptest::collection::vec((0..4_u8, 0..5_usize, 0..4_u8), 0..60),
        ) {
            let (mut ledger, mut store) = (Ledger::default(), BTreeMap::new());
            let mut want = BTreeMap::new();
            for (act, key, condition) in acts {
                let key = ["a", "b", "c", "d", "e"][key].to_owned();
                let condition = [Some(Up), Some(Down), Some(Error), None][usize::from(condition)];
                match (act, condition) {
                    (0, Some(condition)) => drop(want.insert(key, condition)),
                    (0, None) => drop(want.remove(&key)),
                    // Somebody else writes; the ledger learns of it when it looks.
                    (1, condition) => drop(store.insert(key, condition)),
                    (2, _) => ledger.found("", store.clone()),
                    _ => {
                        if let Some(step) = ledger.next() {
                            if condition.is_none() {
                                ledger.failed(step);
                            } else {
                                match step.wanted {
                                    Some(wanted) => drop(store.insert(step.key.clone(), Some(wanted))),
                                    None => drop(store.remove(&step.key)),
                                }
                                ledger.written(step);
                            }
                        }
                        ledger.turn();
                    }
                }
                ledger.want(want.clone());
            }
            ledger.found("", store.clone());
            while !ledger.is_settled() {
                if let Some(step) = turn(&mut ledger) {
                    match step.wanted {
                        Some(wanted) => drop(store.insert(step.key, Some(wanted))),
                        None => drop(store.remove(&step.key)),
                    }
                }
            }
            let want: BTreeMap<_, _> = want.into_iter().map(|(key, condition)| (key, Some(condition))).collect();
            prop_assert_eq!(store, want);
        }
    }
}
