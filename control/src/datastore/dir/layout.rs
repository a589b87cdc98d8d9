//! Which file holds which key.
//!
//! ```text
//! <dir>/net-conf.{json,yaml,yml}  or config.*   <flannel prefix>/config
//! <dir>/subnets/10.244.1.0-24.{json,yaml,yml}   <flannel prefix>/subnets/10.244.1.0-24
//! <dir>/resources/**/*.{json,yaml,yml}          /calico/resources/v3/projectcalico.org/…
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::model::calico::keys::RESOURCES_PREFIX;
use crate::model::calico::kind::Kind;

/// Directory of the leases.
pub(super) const SUBNETS: &str = "subnets";

/// Directory of Calico's resources.
pub(super) const RESOURCES: &str = "resources";

/// Names the network configuration goes by, without extension.
const NET_CONF: [&str; 2] = ["net-conf", "config"];

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259.
    Json,
    /// YAML, several documents if the place allows them.
    Yaml,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One value for this key.
    Value {
        /// The key, known from the file's name.
        key: String,
    },
    /// Calico resources; each says itself which key it is.
    Resources,
}

/// flannel's key space as file names.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
    prefix: String,
}

impl Layout {
    /// `prefix` is cleaned as flannel does: no slash at the end, none doubled.
    pub(super) fn new(root: PathBuf, prefix: &str) -> Self {
        let mut clean = String::new();
        for (n, segment) in prefix.split('/').enumerate() {
            if n == 0 || !segment.is_empty() {
                if n > 0 {
                    clean.push('/');
                }
                clean.push_str(segment);
            }
        }
        Self { root, prefix: clean }
    }

    /// The key of the network configuration.
    fn config_key(&self) -> String {
        format!("{}/config", self.prefix)
    }

    /// What a file directly in the root holds; `None` if it is none of ours.
    pub(super) fn root_file(&self, name: &str) -> Option<(Place, Format)> {
        let (stem, format) = split(name)?;
        NET_CONF.contains(&stem).then(|| (Place::Value { key: self.config_key() }, format))
    }

    /// What a file in `subnets/` holds: `Err` if its name is not a subnet's.
    pub(super) fn subnet_file(&self, name: &str) -> Option<Result<(Place, Format), ()>> {
        let (stem, format) = split(name)?;
        Some(if is_subnet(stem) {
            Ok((Place::Value { key: format!("{}/{SUBNETS}/{stem}", self.prefix) }, format))
        } else {
            Err(())
        })
    }

    /// What a file below `resources/` holds.
    pub(super) fn resource_file(name: &str) -> Option<(Place, Format)> {
        split(name).map(|(_, format)| (Place::Resources, format))
    }

    /// The file a new key is written to; `None` if no file can hold it.
    pub(super) fn file_for(&self, key: &str) -> Option<(PathBuf, Place)> {
        if key == self.config_key() {
            return Some((self.root.join("net-conf.json"), Place::Value { key: key.to_owned() }));
        }
        let in_prefix = key.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('/'));
        if let Some(stem) = in_prefix.and_then(|rest| rest.strip_prefix("subnets/")) {
            let file = self.root.join(SUBNETS).join(format!("{stem}.json"));
            return is_subnet(stem).then(|| (file, Place::Value { key: key.to_owned() }));
        }
        let mut segments = key.strip_prefix(RESOURCES_PREFIX)?.split('/');
        let kind = Kind::by_plural(segments.next()?)?;
        let mut path = self.root.join(RESOURCES).join(kind.plural());
        if kind.namespaced() {
            path.push(segments.next().filter(|namespace| is_file_name(namespace))?);
        }
        let name = segments.next().filter(|name| is_file_name(name))?;
        path.push(format!("{name}.json"));
        segments.next().is_none().then_some((path, Place::Resources))
    }
}

/// Files editors, copiers and canal itself leave behind while they write.
pub(super) fn is_ignored(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with('~') || name.ends_with(".swp") || name.ends_with(".tmp")
}

fn split(name: &str) -> Option<(&str, Format)> {
    if is_ignored(name) {
        return None;
    }
    let (stem, extension) = name.rsplit_once('.')?;
    let format = match extension {
        "json" => Format::Json,
        "yaml" | "yml" => Format::Yaml,
        _ => return None,
    };
    (!stem.is_empty()).then_some((stem, format))
}

/// flannel's subnet key: `a.b.c.d-len`, or with `&v6-len` behind it. /32 and /128 are no subnets to flannel.
fn is_subnet(stem: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
    let below = |text: &str, limit: u8| digits(text) && text.parse::<u8>().is_ok_and(|length| length < limit);
    let v4 = |text: &str| {
        text.rsplit_once('-')
            .is_some_and(|(address, length)| address.parse::<Ipv4Addr>().is_ok() && below(length, 32))
    };
    let v6 = |text: &str| {
        text.rsplit_once('-')
            .is_some_and(|(address, length)| address.parse::<Ipv6Addr>().is_ok() && below(length, 128))
    };
    match stem.split_once('&') {
        None => v4(stem),
        Some((first, second)) => v4(first) && v6(second),
    }
}

/// A key segment that is safe as part of a path (no traversal, nothing [`is_ignored`] would hide).
fn is_file_name(segment: &str) -> bool {
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    !segment.is_empty() && segment.len() <= 200 && !segment.starts_with('.') && segment.chars().all(named)
}

/// A path as text for messages.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new("/etc/canal".into(), "/coreos.com//network/")
    }

    #[test]
    fn files_have_keys() {
        let value = |key: &str, format| Some((Place::Value { key: key.to_owned() }, format));
        assert_eq!(layout().root_file("net-conf.json"), value("/coreos.com/network/config", Format::Json));
        assert_eq!(layout().root_file("config.yml"), value("/coreos.com/network/config", Format::Yaml));
        assert_eq!(layout().root_file("subnet.env"), None);
        assert_eq!(
            layout().subnet_file("10.244.1.0-24&fd00:1::-64.json"),
            Some(Ok((
                Place::Value { key: "/coreos.com/network/subnets/10.244.1.0-24&fd00:1::-64".to_owned() },
                Format::Json
            )))
        );
        for name in ["junk.json", "10.244.1.0-32.json", "10.244.1.0.json", "10.244.1.0-24&fd00::-128.yaml"] {
            assert_eq!(layout().subnet_file(name), Some(Err(())), "{name}");
        }
        for name in
            [".net-conf.json.swp", "net-conf.json~", "#a.yaml#", "a.tmp", ".hidden.yaml", "a.txt", ".yaml"]
        {
            assert_eq!(Layout::resource_file(name), None, "{name}");
        }
    }

    #[test]
    fn keys_have_files() {
        let file = |key: &str| layout().file_for(key).map(|(path, _)| shown(&path));
        let some = |path: &str| Some(format!("/etc/canal/{path}"));
        assert_eq!(file("/coreos.com/network/config"), some("net-conf.json"));
        assert_eq!(file("/coreos.com/network/subnets/10.1.0.0-16"), some("subnets/10.1.0.0-16.json"));
        assert_eq!(file("/coreos.com/network/subnets/../x-1"), None);
        let resource = |rest: &str| file(&format!("{RESOURCES_PREFIX}{rest}"));
        assert_eq!(resource("tiers/default"), some("resources/tiers/default.json"));
        assert_eq!(resource("networkpolicies/ns/p"), some("resources/networkpolicies/ns/p.json"));
        for bad in ["tiers/a/b", "networkpolicies/p", "tiers/..", "nokind/x", "tiers/", "tiers/.hidden"] {
            assert_eq!(resource(bad), None, "{bad}");
        }
        assert_eq!(file("/calico/ipam/v2/config"), None);
    }
}
