//! Settings: each member of a FelixConfiguration or ClusterInformation is one text under a name of its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::go_json;
use super::super::number::Port;
use super::super::problem::Problem;
use super::super::v3;
use super::config_fields::Form;
pub use super::config_fields::{FIELDS, Field};
use super::duration;

/// Before the name of a setting in an annotation, which goes before the setting itself.
const ANNOTATION_PREFIX: &str = "config.projectcalico.org/";

/// Settings that a ClusterInformation has besides the Ready flag: in `spec`, and as Felix calls them.
pub const CLUSTER_FIELDS: [(&str, &str); 4] = [
    ("clusterGUID", "ClusterGUID"),
    ("clusterType", "ClusterType"),
    ("calicoVersion", "CalicoVersion"),
    ("variant", "Variant"),
];

/// Whom settings are for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All nodes.
    Global,
    /// One node; goes before those for all.
    Node(String),
}

impl Scope {
    /// From the resource's name.
    ///
    /// # Errors
    /// [`Problem::ConfigName`].
    pub fn parse(name: &str) -> Result<Self, Problem> {
        match name.strip_prefix("node.") {
            Some(node) if !node.is_empty() => Ok(Self::Node(node.to_owned())),
            None if name == "default" => Ok(Self::Global),
            _ => Err(Problem::ConfigName),
        }
    }
}

/// Settings by name. Felix does not mind upper and lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// A setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        let exact = self.0.get(name);
        let found =
            exact.or_else(|| self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v));
        found.map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Of a FelixConfiguration, and what in it makes no sense: it counts as absent.
pub fn felix(spec: &Map<String, Value>, annotations: &v3::Labels) -> (Settings, Vec<Problem>) {
    let mut settings = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, value) in spec.iter().filter(|(_, value)| !value.is_null()) {
        let known = FIELDS.iter().find(|field| field.v3.eq_ignore_ascii_case(name));
        match known {
            Some(field) => match text(field.form, value) {
                Some(text) => drop(text.map(|text| settings.insert(field.v1.to_owned(), text))),
                None => {
                    problems.push(Problem::unreadable(field.v1, value.to_string(), "value of this setting"))
                }
            },
            // One of a later version: Go's name of it begins with a capital.
            None => drop(settings.insert(capitalised(name), plain(value))),
        }
    }
    for (name, value) in annotations {
        if let Some(name) = name.strip_prefix(ANNOTATION_PREFIX) {
            settings.insert(name.to_owned(), value.clone());
        }
    }
    (Settings(settings), problems)
}

/// Of a ClusterInformation, without the Ready flag. Annotations are not looked at.
pub fn cluster(spec: &Map<String, Value>) -> Settings {
    let settings = CLUSTER_FIELDS.iter().filter_map(|(member, name)| {
        let value = go_json::member(spec, member)?.as_str().filter(|text| !text.is_empty())?;
        Some(((*name).to_owned(), value.to_owned()))
    });
    Settings(settings.collect())
}

/// A value as Felix reads it: `Some(None)` = as good as absent, `None` = not of this form.
fn text(form: Form, value: &Value) -> Option<Option<String>> {
    let text = match form {
        Form::Bool => value.as_bool()?.to_string(),
        Form::Int => value.as_i64()?.to_string(),
        Form::Text => return value.as_str().map(|text| (!text.is_empty()).then(|| text.to_owned())),
        Form::Seconds => duration::fraction(seconds(duration::parse(value.as_str()?)?)),
        Form::Milliseconds => duration::fraction(milliseconds(duration::parse(value.as_str()?)?)),
        Form::List => go_json::from_value::<Vec<String>>(value).ok()?.join(","),
        Form::ProtoPorts => proto_ports(value.as_array()?)?,
        Form::Port => port(value)?,
        Form::Ports => {
            format!("[{}]", value.as_array()?.iter().map(port).collect::<Option<Vec<_>>>()?.join(" "))
        }
        Form::Range => {
            let range = value.as_object()?;
            let end = |name| go_json::member(range, name).map_or(Some(0), Value::as_i64);
            format!("{}-{}", end("min")?, end("max")?)
        }
    };
    Some(Some(text))
}

#[allow(clippy::cast_precision_loss, reason = "as Go does it")]
fn seconds(nanoseconds: i64) -> f64 {
    (nanoseconds / 1_000_000_000) as f64 + (nanoseconds % 1_000_000_000) as f64 / 1e9
}

#[allow(clippy::cast_precision_loss, reason = "as Go does it")]
fn milliseconds(nanoseconds: i64) -> f64 {
    (nanoseconds / 1_000_000) as f64 + (nanoseconds % 1_000_000) as f64 / 1e6
}

fn port(value: &Value) -> Option<String> {
    match go_json::from_value(value).ok()? {
        Port::Unreadable(_) => None,
        port => Some(port.to_string()),
    }
}

/// `tcp:22`, `udp:10.0.0.0/8:53`, `tcp:[fd00::/8]:22`; `none` for an empty list, which is something else than no list.
fn proto_ports(list: &[Value]) -> Option<String> {
    let one = |value: &Value| {
        let entry = value.as_object()?;
        let text = |name| go_json::member(entry, name).map_or(Some(""), Value::as_str);
        let port =
            go_json::member(entry, "port").map_or(Some(0), Value::as_u64).filter(|port| *port <= 0xffff)?;
        let protocol = text("protocol")?.to_lowercase();
        Some(match text("net")? {
            "" => format!("{protocol}:{port}"),
            net if net.contains(':') => format!("{protocol}:[{net}]:{port}"),
            net => format!("{protocol}:{net}:{port}"),
        })
    };
    let parts: Vec<String> = list.iter().map(one).collect::<Option<_>>()?;
    Some(if parts.is_empty() { "none".to_owned() } else { parts.join(",") })
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str, annotations: &[(&str, &str)]) -> (Vec<String>, usize) {
        let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (settings, problems) = felix(&serde_json::from_str(spec).unwrap(), &annotations);
        (settings.iter().map(|(name, value)| format!("{name}={value}")).collect(), problems.len())
    }

    #[test]
    fn values_become_texts() {
        let spec = r#"{"ipipEnabled":false,"LogPrefix":"","healthPort":9099,"reportingInterval":"1m30s",
            "iptablesLockProbeInterval":"54.321ms","failsafeInboundHostPorts":[],"natPortRange":"100:200",
            "failsafeOutboundHostPorts":[{"protocol":"TCP","port":22},{"protocol":"udp","port":1,"net":"fd00::/8"}],
            "kubeNodePortRanges":["30000:32767",80],"externalNodesList":null,"routeTableRange":{"min":1,"max":2},
            "floatingIPs":"Enabled","later":3}"#;
        let expected = [
            "FailsafeInboundHostPorts=none",
            "FailsafeOutboundHostPorts=tcp:22,udp:[fd00::/8]:1",
            "FloatingIPs=Enabled",
            "HealthPort=9099",
            "IpInIpEnabled=false",
            "IptablesLockProbeIntervalMillis=54.321",
            "KubeNodePortRanges=[30000:32767 80]",
            "Later=3",
            "NATPortRange=100:200",
            "ReportingIntervalSecs=90",
            "RouteTableRange=1-2",
        ];
        assert_eq!(read(spec, &[]), (expected.map(str::to_owned).to_vec(), 0));
    }

    #[test]
    fn annotations_go_first_and_one_bad_value_does_not_stop_the_rest() {
        let spec = r#"{"vxlanPort":"4789","vxlanVNI":4096,"reportingTTL":"soon","ipv6Support":true}"#;
        let annotations =
            [("config.projectcalico.org/VXLANVNI", "7"), ("config.projectcalico.org/New", ""), ("x", "y")];
        assert_eq!(
            read(spec, &annotations),
            (vec!["Ipv6Support=true".into(), "New=".into(), "VXLANVNI=7".into()], 2)
        );
    }

    #[test]
    fn settings_are_for_all_or_for_one_node() {
        assert_eq!(Scope::parse("default").unwrap(), Scope::Global);
        assert_eq!(Scope::parse("node.a.b").unwrap(), Scope::Node("a.b".into()));
        assert!(Scope::parse("node.").is_err() && Scope::parse("other").is_err());
    }

    #[test]
    fn names_differ_and_are_found_in_any_case() {
        let names: std::collections::BTreeSet<_> =
            FIELDS.iter().map(|field| field.v3.to_ascii_lowercase()).collect();
        assert_eq!(names.len(), FIELDS.len());
        let (settings, _) = felix(&serde_json::from_str(r#"{"vxlanMTU":1450}"#).unwrap(), &v3::Labels::new());
        assert_eq!((settings.get("VxlanMtu"), settings.get("VXLANPort")), (Some("1450"), None));
    }
}
