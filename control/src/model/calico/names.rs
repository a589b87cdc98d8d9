//! Names of workload endpoints: four segments joined with dashes, dashes inside a segment doubled.
//!
//! `<node>-<orchestrator>-<third>-<endpoint>`; the third is the pod, the container, or whatever the orchestrator has.

/// What a workload endpoint's name is made of. Empty = not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadIds {
    /// Where it runs.
    pub node: String,
    /// `k8s`, `cni`, `libnetwork` or another one.
    pub orchestrator: String,
    /// Its interface inside the container.
    pub endpoint: String,
    /// Third segment with other orchestrators.
    pub workload: String,
    /// Third segment with `k8s`.
    pub pod: String,
    /// Third segment with `cni`.
    pub container_id: String,
}

/// Why there is no name: the field, as the resource's `spec` calls it, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name needs it.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// It would run into the separators.
    #[error("{0} begins or ends with a dash")]
    Dash(&'static str),
    /// More segments than there can be.
    #[error("the name has more than four segments")]
    TooMany,
}

impl WorkloadIds {
    /// The full name.
    ///
    /// # Errors
    /// The first field that is empty, or begins or ends with a dash.
    pub fn name(&self) -> Result<String, NameError> {
        let parts = self.segments()?.into_iter().map(|(field, value)| escaped(field, value));
        Ok(parts.collect::<Result<Vec<_>, _>>()?.join("-"))
    }

    /// What the names of all endpoints begin with that have these ids: up to the first empty one. Names found by it
    /// must be compared with [`Self::matches`]: the prefix for pod `a` finds those of pod `a-1`, too.
    ///
    /// # Errors
    /// As [`Self::name`], except that only the node must not be empty.
    pub fn prefix(&self) -> Result<String, NameError> {
        let segments = self.segments()?;
        let complete = segments.iter().all(|(_, value)| !value.is_empty());
        let known = segments.into_iter().take_while(|(_, value)| !value.is_empty());
        let parts: Vec<String> =
            known.map(|(field, value)| escaped(field, value)).collect::<Result<_, _>>()?;
        Ok(parts.join("-") + if complete { "" } else { "-" })
    }

    /// Whether a name is one of an endpoint with these ids; those that are empty may be anything.
    ///
    /// # Errors
    /// [`NameError::Empty`] without a node.
    pub fn matches(&self, name: &str) -> Result<bool, NameError> {
        let wanted = self.segments()?;
        let agree = |(have, (_, wanted)): (String, (_, &str))| wanted.is_empty() || wanted == have;
        Ok(segments(name).is_some_and(|have| have.into_iter().zip(wanted).all(agree)))
    }

    /// What a name, or the beginning of one, says.
    ///
    /// # Errors
    /// [`NameError`] for the empty name and for one with five segments and more.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty("name"));
        }
        let mut parts = split(name).into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let mut ids = Self { node: next(), orchestrator: next(), ..Self::default() };
        let (third, endpoint) = (next(), next());
        match ids.orchestrator.as_str() {
            "k8s" => ids.pod = third,
            "cni" => ids.container_id = third,
            "libnetwork" => {}
            _ => ids.workload = third,
        }
        ids.endpoint = endpoint;
        if parts.next().is_some() { Err(NameError::TooMany) } else { Ok(ids) }
    }

    /// The four segments with the fields they come from.
    fn segments(&self) -> Result<[(&'static str, &str); 4], NameError> {
        if self.node.is_empty() {
            return Err(NameError::Empty("node"));
        }
        let third = match self.orchestrator.as_str() {
            "k8s" => ("pod", self.pod.as_str()),
            "cni" => ("containerID", self.container_id.as_str()),
            "libnetwork" => ("orchestrator", self.orchestrator.as_str()),
            _ => ("workload", self.workload.as_str()),
        };
        let orchestrator = ("orchestrator", self.orchestrator.as_str());
        Ok([("node", &self.node), orchestrator, third, ("endpoint", &self.endpoint)])
    }
}

fn escaped(field: &'static str, value: &str) -> Result<String, NameError> {
    if value.is_empty() {
        Err(NameError::Empty(field))
    } else if value.starts_with('-') || value.ends_with('-') {
        Err(NameError::Dash(field))
    } else {
        Ok(value.replace('-', "--"))
    }
}

/// The four segments of a complete name: node, orchestrator, third, endpoint.
pub fn segments(name: &str) -> Option<[String; 4]> {
    // Four segments of one character and three dashes.
    const SHORTEST: usize = 7;
    if name.len() < SHORTEST { None } else { split(name).try_into().ok() }
}

/// Splits at single dashes and turns double ones into one. The first character separates nothing, as in libcalico-go.
fn split(name: &str) -> Vec<String> {
    let bytes = name.as_bytes();
    let mut parts = Vec::with_capacity(4);
    let (mut start, mut at) = (0, 1);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'-', Some(b'-')) => at += 2,
            (b'-', _) => {
                parts.push(name[start..at].replace("--", "-"));
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    parts.push(name[start..].replace("--", "-"));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_split_at_single_dashes() {
        let split = |name| segments(name).map(|parts| parts.join("|"));
        assert_eq!(split("a--b--c-k8s-x----y-eth0").as_deref(), Some("a-b-c|k8s|x--y|eth0"));
        assert_eq!(split("-a-k8s-p-e").as_deref(), Some("-a|k8s|p|e"));
        for bad in ["", "n--", "n-o-w", "a-b", "----a-b-c-d", "a-b-c-d-e"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_prefix_finds_more_than_it_means() {
        let ids = WorkloadIds {
            node: "n".into(),
            orchestrator: "k8s".into(),
            pod: "pod".into(),
            ..Default::default()
        };
        assert_eq!(ids.prefix().unwrap(), "n-k8s-pod-");
        assert_eq!(ids.name(), Err(NameError::Empty("endpoint")));
        assert!("n-k8s-pod--1-eth0".starts_with("n-k8s-pod-"));
        assert_eq!(ids.matches("n-k8s-pod--1-eth0"), Ok(false));
        assert_eq!(ids.matches("n-k8s-pod-eth0"), Ok(true));
    }

    proptest! {
        #[test]
        fn what_is_named_is_read_back(
            node in "[a-z]([a-z.-]{0,8}[a-z])?", orchestrator in "k8s|cni|openstack|a--b",
            third in "[a-z]([a-z-]{0,8}[a-z])?", endpoint in "[a-z0-9]([a-z0-9-]{0,4}[a-z0-9])?",
        ) {
            let mut ids = WorkloadIds { node, orchestrator, endpoint, ..Default::default() };
            match ids.orchestrator.as_str() {
                "k8s" => ids.pod = third,
                "cni" => ids.container_id = third,
                _ => ids.workload = third,
            }
            let name = ids.name().unwrap();
            prop_assert_eq!(ids.matches(&name), Ok(true));
            prop_assert_eq!(WorkloadIds::parse(&name), Ok(ids));
        }
    }
}
