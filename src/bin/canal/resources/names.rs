//! Which resources a command line names.

use canal_control::resource::Kind;

use super::Trouble;
use super::documents::Namespace;

/// One resource, or all of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What.
    pub kind: Kind,
    /// Where, if it says so itself.
    pub namespace: Option<String>,
    /// Which; `None` = all.
    pub name: Option<String>,
}

impl Target {
    /// The namespace, and empty for kinds without one.
    pub fn namespace_in<'a>(&'a self, namespace: &'a Namespace) -> &'a str {
        match &self.namespace {
            _ if !self.kind.is_namespaced() => "",
            Some(own) => own,
            None => namespace.or_default(),
        }
    }
}

/// `KIND`, `KIND NAME…`, `KIND,KIND`, `KIND/NAME`, `KIND/NAMESPACE/NAME`.
pub fn targets(arguments: &[String]) -> Result<Vec<Target>, Trouble> {
    let Some((first, names)) = arguments.split_first() else {
        return Err(Trouble::failed("say which kind, or give a file with -f"));
    };
    if first.contains('/') {
        return arguments.iter().map(|argument| path(argument)).collect();
    }
    let kinds = first.split(',').map(kind).collect::<Result<Vec<_>, _>>()?;
    let of = |name: Option<&String>| {
        let target = move |kind: &Kind| Target { kind: *kind, namespace: None, name: name.cloned() };
        kinds.iter().map(target).collect::<Vec<_>>()
    };
    Ok(if names.is_empty() { of(None) } else { names.iter().flat_map(|name| of(Some(name))).collect() })
}

fn path(argument: &str) -> Result<Target, Trouble> {
    let parts: Vec<&str> = argument.split('/').collect();
    let target = |kind_name: &str, namespace: Option<&str>, name: &str| {
        let (namespace, name) = (namespace.map(str::to_owned), Some(name.to_owned()));
        Ok(Target { kind: kind(kind_name)?, namespace, name })
    };
    match parts.as_slice() {
        [kind, name] if !name.is_empty() => target(kind, None, name),
        [kind, namespace, name] if !name.is_empty() => target(kind, Some(namespace), name),
        _ => Err(Trouble::failed(format!("{argument} is not KIND/NAME or KIND/NAMESPACE/NAME"))),
    }
}

fn kind(alias: &str) -> Result<Kind, Trouble> {
    Kind::by_alias(alias).ok_or_else(|| {
        let names: Vec<&str> = Kind::all().map(|kind| kind.plural()).collect();
        Trouble::failed(format!("{alias:?} is no kind; these are: {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Vec<String> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let shown = |target: Target| {
            format!(
                "{} {} {}",
                target.kind,
                target.namespace.unwrap_or_default(),
                target.name.unwrap_or_default()
            )
        };
        targets(&arguments).unwrap().into_iter().map(shown).collect()
    }

    #[test]
    fn kinds_and_names_are_named_in_several_ways() {
        assert_eq!(shown("gnp"), ["GlobalNetworkPolicy  "]);
        assert_eq!(shown("NetworkPolicies a b"), ["NetworkPolicy  a", "NetworkPolicy  b"]);
        assert_eq!(shown("np,gnp"), ["NetworkPolicy  ", "GlobalNetworkPolicy  "]);
        assert_eq!(shown("tier/a np/x/b"), ["Tier  a", "NetworkPolicy x b"]);
        for bad in ["pod", "np/", "np/a/b/c", "tier/a np"] {
            let arguments: Vec<String> = bad.split(' ').map(str::to_owned).collect();
            assert!(targets(&arguments).is_err(), "{bad}");
        }
        assert!(targets(&[]).is_err());
    }
}
