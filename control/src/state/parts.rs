//! What documents have in common: the pods of one deployment have the same labels, those of one node its name, the
//! policies of one namespace the same selectors, most rules a side that says nothing.

use std::sync::Arc;

use super::interner::{FEW, Interner};
use crate::model::calico::WorkloadEndpoint;
use crate::model::calico::resources::{
    Entity, HostEndpoint, Labels, NamedPort, Names, NetworkSet, Policy, Profile, Rule,
};
use crate::model::calico::selector::Selector;

/// Parts of documents, kept once however many documents have them. Says nothing about the state it is part of: equal states
/// may differ here.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    texts: Interner<Arc<str>>,
    names: Interner<Names>,
    labels: Interner<Arc<Labels>>,
    ports: Interner<Arc<[NamedPort]>>,
    selectors: Interner<Selector>,
    entities: Interner<Arc<Entity>>,
    /// Documents that went since unused parts were looked for.
    gone: usize,
}

impl PartialEq for Parts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Parts {
    /// Makes an endpoint of shared parts.
    pub(super) fn share_workload(&mut self, endpoint: &mut WorkloadEndpoint) {
        self.texts.share(&mut endpoint.node);
        self.share_labels(&mut endpoint.labels);
        self.share_names(&mut endpoint.profiles);
        let texts = &mut self.texts;
        self.ports.share_with(&mut endpoint.ports, |ports| {
            Arc::make_mut(ports).iter_mut().for_each(|port| texts.share(&mut port.name));
        });
    }

    /// A host's, too.
    pub(super) fn share_host(&mut self, endpoint: &mut HostEndpoint) {
        self.share_labels(&mut endpoint.labels);
        self.share_names(&mut endpoint.profiles);
    }

    /// A network set.
    pub(super) fn share_set(&mut self, set: &mut NetworkSet) {
        self.share_labels(&mut set.labels);
        self.share_names(&mut set.profiles);
    }

    /// A policy.
    pub(super) fn share_policy(&mut self, policy: &mut Policy) {
        self.texts.share(&mut policy.tier);
        self.selectors.share(&mut policy.selector);
        policy.ingress.iter_mut().chain(&mut policy.egress).flatten().for_each(|rule| self.share_rule(rule));
    }

    /// A profile.
    pub(super) fn share_profile(&mut self, profile: &mut Profile) {
        self.share_labels(&mut profile.labels);
        profile.ingress.iter_mut().chain(&mut profile.egress).for_each(|rule| self.share_rule(rule));
    }

    fn share_rule(&mut self, rule: &mut Rule) {
        let Self { selectors, entities, .. } = self;
        for side in [&mut rule.source, &mut rule.destination] {
            entities.share_with(side, |side| {
                let side = Arc::make_mut(side);
                side.selector.iter_mut().chain(&mut side.not_selector).for_each(|one| selectors.share(one));
            });
        }
    }

    fn share_labels(&mut self, labels: &mut Arc<Labels>) {
        let texts = &mut self.texts;
        self.labels.share_with(labels, |labels| {
            Arc::make_mut(labels).texts_mut().for_each(|text| texts.share(text));
        });
    }

    fn share_names(&mut self, names: &mut Names) {
        let texts = &mut self.texts;
        self.names.share_with(names, |names| {
            Arc::make_mut(names).iter_mut().for_each(|name| texts.share(name));
        });
    }

    /// A document may have gone, and nobody else may have its parts. Looking costs as much as there are parts, hence not
    /// every time.
    pub(super) fn lose(&mut self) {
        self.gone += 1;
        if self.gone > FEW.max(self.len()) {
            self.sweep();
        }
    }

    fn len(&self) -> usize {
        let Self { texts, names, labels, ports, selectors, entities, gone: _ } = self;
        texts.len() + names.len() + labels.len() + ports.len() + selectors.len() + entities.len()
    }

    fn sweep(&mut self) {
        self.gone = 0;
        self.names.sweep();
        self.labels.sweep();
        self.ports.sweep();
        self.entities.sweep();
        // These are parts of those.
        self.texts.sweep();
        self.selectors.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::calico::resources::Action;

    fn labels(n: usize) -> Arc<Labels> {
        Arc::new(Labels::from([("app", "web".to_owned()), ("n", n.to_string())]))
    }

    #[test]
    fn what_is_new_is_made_of_what_is_known() {
        let mut parts = Parts::default();
        let sets = [labels(1), labels(2), labels(1)].map(|mut labels| {
            parts.share_labels(&mut labels);
            labels
        });
        assert_eq!(*sets[0], *labels(1));
        assert!(Arc::ptr_eq(&sets[0], &sets[2]));
        let first =
            |labels: &Labels| labels.iter().next().map(|(name, value)| (name.as_ptr(), value.as_ptr()));
        assert_eq!(first(&sets[0]), first(&sets[1]));
    }

    #[test]
    fn rules_share_sides_and_sides_share_selectors() {
        let mut parts = Parts::default();
        let side = |service: Option<&str>| {
            let selector = Some(Selector::parse("a == 'b'").unwrap());
            Arc::new(Entity { selector, service: service.map(str::to_owned), ..Entity::default() })
        };
        let mut rule =
            Rule { source: side(None), destination: side(Some("a/b")), ..Rule::any(Action::Allow) };
        let mut same = Rule { source: side(None), ..Rule::any(Action::Deny) };
        parts.share_rule(&mut rule);
        parts.share_rule(&mut same);
        assert!(Arc::ptr_eq(&rule.source, &same.source));
        // Theirs and the one that is kept.
        assert_eq!(rule.source.selector.as_ref().map(Selector::clones), Some(3));
        assert_eq!((&rule.source, &rule.destination), (&side(None), &side(Some("a/b"))));
    }

    #[test]
    fn parts_of_documents_that_went_are_let_go() {
        let mut parts = Parts::default();
        for n in 0..FEW / 2 {
            parts.share_labels(&mut labels(n));
        }
        assert!(parts.len() > FEW);
        for _ in 0..3 * FEW {
            parts.lose();
        }
        assert_eq!(parts.len(), 0);
    }
}
