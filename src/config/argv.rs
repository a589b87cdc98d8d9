//! From an argument list in Go's style, and the environment, to one that clap reads the same way Go does.

use std::collections::BTreeSet;

use clap::CommandFactory;

use super::flags::{FLANNEL_FLAGS, Flags};

/// Prefix of the variables that stand for flannel's flags.
const FLANNEL_PREFIX: &str = "FLANNELD_";

/// Prefix of the variables that stand for our own flags.
const OWN_PREFIX: &str = "CANAL_";

/// The variable that stands for a flag: `etcd-endpoints` is `FLANNELD_ETCD_ENDPOINTS`, `workers` is `CANAL_WORKERS`.
pub fn variable(flag: &str) -> String {
    let prefix = if FLANNEL_FLAGS.contains(&flag) { FLANNEL_PREFIX } else { OWN_PREFIX };
    format!("{prefix}{}", flag.to_uppercase().replace('-', "_"))
}

/// Rewrites `args` (without the program's name) so that clap takes them as Go's flag package would, and adds what
/// the environment says about flags that are not among them.
///
/// * one dash is as good as two;
/// * a flag that is not boolean takes the next argument whatever it looks like;
/// * an empty value means "not set" and hides the variable, an empty variable means nothing.
pub fn normalise(
    args: impl IntoIterator<Item = String>,
    environment: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let known = known_flags();
    let mut out = Vec::new();
    let mut given = BTreeSet::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let Some(flag) = flag_text(&arg) else {
            out.push(arg);
            continue;
        };
        let (name, mut value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let boolean = known.iter().find(|(known, _)| known == name).map(|(_, boolean)| *boolean);
        if value.is_none() && boolean == Some(false) {
            value = args.next();
            if value.is_none() {
                // Nothing follows: clap says which value is missing.
                out.push(format!("--{name}"));
                continue;
            }
        }
        given.insert(name.to_owned());
        match value {
            Some(value) if value.is_empty() && boolean.is_some() => {}
            Some(value) => out.push(format!("--{name}={value}")),
            None => out.push(format!("--{name}")),
        }
    }
    for (name, _) in known.iter().filter(|(name, _)| !given.contains(name)) {
        if let Some(value) = environment(&variable(name)).filter(|value| !value.is_empty()) {
            out.push(format!("--{name}={value}"));
        }
    }
    out
}

/// What follows the dashes; `None` for values, `-`, `--` and the two forms of the help flag.
fn flag_text(arg: &str) -> Option<&str> {
    let flag = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'))?;
    (!flag.is_empty() && flag != "h" && flag != "help").then_some(flag)
}

/// Every flag's name, and whether it is boolean.
fn known_flags() -> Vec<(String, bool)> {
    Flags::command()
        .get_arguments()
        .filter_map(|arg| {
            let boolean = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
            Some((arg.get_long()?.to_owned(), boolean))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str, environment: &[(&str, &str)]) -> Vec<String> {
        normalise(line.split_whitespace().map(str::to_owned), |name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        assert_eq!(
            args("-etcd-endpoints=http://a:1 --iface eth0", &[]),
            ["--etcd-endpoints=http://a:1", "--iface=eth0"]
        );
        assert_eq!(args("-v 4 -ip-masq -version", &[]), ["--v=4", "--ip-masq", "--version"]);
        assert_eq!(args("-h", &[]), ["-h"]);
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        assert_eq!(args("--etcd-password --iface --iface x", &[]), ["--etcd-password=--iface", "--iface=x"]);
        assert_eq!(args("--etcd-password=a=b", &[]), ["--etcd-password=a=b"]);
        assert_eq!(args("--iface", &[]), ["--iface"]);
    }

    #[test]
    fn a_boolean_takes_no_following_argument() {
        assert_eq!(args("--ip-masq false", &[]), ["--ip-masq", "false"]);
        assert_eq!(args("-ip-masq=0", &[]), ["--ip-masq=0"]);
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_the_variable_over_nothing() {
        let environment = [("FLANNELD_IFACE", "eth1"), ("FLANNELD_PUBLIC_IP", ""), ("CANAL_WORKERS", "3")];
        assert_eq!(args("", &environment), ["--workers=3", "--iface=eth1"]);
        assert_eq!(args("-iface eth0 --workers=1", &environment), ["--iface=eth0", "--workers=1"]);
    }

    #[test]
    fn an_empty_value_means_not_set_and_hides_the_variable() {
        let environment = [("FLANNELD_PUBLIC_IP", "10.0.0.1")];
        assert_eq!(args("--public-ip=", &environment), [] as [&str; 0]);
        assert_eq!(args("", &environment), ["--public-ip=10.0.0.1"]);
    }

    #[test]
    fn unknown_flags_are_left_for_clap_to_refuse() {
        assert_eq!(args("-nonsense=1 --ifac eth0", &[]), ["--nonsense=1", "--ifac", "eth0"]);
    }

    #[test]
    fn variables_are_named_after_flags() {
        assert_eq!(variable("etcd-endpoints"), "FLANNELD_ETCD_ENDPOINTS");
        assert_eq!(variable("log-level"), "CANAL_LOG_LEVEL");
    }
}
