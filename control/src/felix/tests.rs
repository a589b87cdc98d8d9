//! Who is heard, and what comes of it.

use std::num::NonZeroU16;
use std::time::Duration;

use canal_dataplane::net::Vni;
use canal_dataplane::spec::policy::{EndpointToHost, Failsafe, Failsafes};

use super::*;
use crate::datastore::{Change, KeyValue};
use crate::model::flannel::Prefix;
use crate::state::State;

/// A state with these FelixConfigurations: name, spec.
fn state(configurations: &[(&str, &str)]) -> State {
    let mut state = State::new("n1", &Prefix::default());
    let change = |(name, spec): &(&str, &str)| {
        let key = format!("{}{name}", Kind::FelixConfiguration.prefix());
        let value =
            format!(r#"{{"kind":"FelixConfiguration","metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
        let entry = KeyValue { key: key.clone(), value: value.into(), mod_revision: 2, lease: None };
        Change { key, value: Some(entry), revision: 2 }
    };
    state.apply(&configurations.iter().map(change).collect::<Vec<_>>());
    state
}

fn config(local: &Local, configurations: &[(&str, &str)]) -> Config {
    Config::of(local, "n1", state(configurations).calico())
}

fn local(flags: &[(&'static str, &'static str, &str)], variables: &[(&str, &str)]) -> Local {
    let given = |(setting, flag, value): &(&'static str, &'static str, &str)| Given {
        setting,
        flag,
        value: (*value).to_owned(),
    };
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Local::new(flags.iter().map(given).collect(), variables)
}

impl Config {
    /// `value from source`.
    fn told(&self, name: &str) -> String {
        let setting = self.settings.iter().find(|setting| setting.name == name).unwrap();
        format!("{} from {}", setting.value, setting.source)
    }
}

#[test]
fn the_last_word_is_the_nearest() {
    let name = "DefaultEndpointToHostAction";
    let flag = [(name, "endpoint-to-host", "Accept")];
    let variable = [("felix_defaultEndpointToHostAction", "RETURN"), ("PATH", "/bin")];
    let stored = [
        ("node.n1", r#"{"defaultEndpointToHostAction":"Drop"}"#),
        ("node.n2", r#"{"defaultEndpointToHostAction":"Nonsense"}"#),
        ("default", r#"{"defaultEndpointToHostAction":"Accept"}"#),
    ];
    for (local, stored, told, means) in [
        (local(&flag, &variable), &stored[..], "Accept from --endpoint-to-host", EndpointToHost::Accept),
        (
            local(&[], &variable),
            &stored,
            "RETURN from felix_defaultEndpointToHostAction",
            EndpointToHost::Accept,
        ),
        (local(&[], &[]), &stored, "Drop from FelixConfiguration node.n1", EndpointToHost::Drop),
        (local(&[], &[]), &stored[1..], "Accept from FelixConfiguration default", EndpointToHost::Accept),
        (
            local(&[], &[("FELIX_DEFAULTENDPOINTTOHOSTACTION", "")]),
            &[],
            "Accept from default",
            EndpointToHost::Accept,
        ),
    ] {
        let config = config(&local, stored);
        assert_eq!((config.told(name).as_str(), config.values.endpoint_to_host), (told, means));
        assert_eq!(config.complaints().count(), 0);
    }
}

#[test]
fn nothing_said_means_the_defaults_all_of_which_make_sense() {
    let config = config(&Local::default(), &[]);
    assert_eq!(config.values, Values::default());
    let sound = |setting: &&Setting| {
        matches!(setting.effect, Effect::Obeyed | Effect::Partly(_) | Effect::Prepared(_))
    };
    let odd: Vec<_> = config.settings.iter().filter(|setting| !sound(setting)).collect();
    assert_eq!(odd, Vec::<&Setting>::new());
    let named = |effect: fn(&Effect) -> bool| {
        let settings = config.settings.iter().filter(move |setting| effect(&setting.effect));
        settings.map(|setting| setting.name.as_str()).collect::<Vec<_>>()
    };
    let partly = named(|effect| matches!(effect, Effect::Partly(why) if why.contains("gateway interfaces")));
    assert_eq!(partly, ["FailsafeInboundHostPorts", "FailsafeOutboundHostPorts"]);
    let prepared = named(|effect| matches!(effect, Effect::Prepared(_)));
    assert_eq!(prepared, ["VXLANMTU", "VXLANMTUV6", "VXLANPort", "VXLANVNI"]);
    assert!(config.settings.is_sorted_by_key(|setting| &setting.name));
    let Failsafes { inbound, outbound } = &config.values.failsafes;
    assert_eq!((inbound.len(), outbound.len()), (9, 9));
    assert!(inbound.contains(&Failsafe { protocol: 6, port: 22, net: None }));
    assert!(outbound.contains(&Failsafe { protocol: 17, port: 53, net: None }));
    assert_eq!((config.values.metrics(), config.values.health()), (None, None));
}

#[test]
fn every_setting_is_obeyed_as_a_resource_and_as_a_variable_says_it() {
    let spec = r#"{"defaultEndpointToHostAction":"Drop","allowVXLANPacketsFromWorkloads":true,
        "allowIPIPPacketsFromWorkloads":true,"failsafeInboundHostPorts":[],
        "failsafeOutboundHostPorts":[{"protocol":"udp","port":53,"net":"10.1.2.3/8"},{"protocol":"TCP","port":22,"net":"fd00::/8"}],
        "interfacePrefix":"cali,tap","logSeverityScreen":"Warning","prometheusMetricsEnabled":true,
        "prometheusMetricsHost":"127.0.0.1","prometheusMetricsPort":9191,"healthEnabled":true,"healthHost":"::1",
        "healthPort":9199,"reportingInterval":"0s","reportingTTL":"1m30.5s","endpointReportingEnabled":true,
        "endpointReportingDelay":"250ms","openstackRegion":"europe","vxlanPort":4790,"vxlanVNI":77,"vxlanMTU":1400,
        "vxlanMTUV6":1380}"#;
    let values = config(&Local::default(), &[("default", spec)]).values;
    let expected = Values {
        endpoint_to_host: EndpointToHost::Drop,
        vxlan_from_workloads: true,
        ipip_from_workloads: true,
        failsafes: Failsafes {
            inbound: vec![],
            outbound: vec![
                Failsafe { protocol: 6, port: 22, net: "fd00::/8".parse().ok() },
                Failsafe { protocol: 17, port: 53, net: "10.0.0.0/8".parse().ok() },
            ],
        },
        vxlan: CalicoVxlan {
            port: 4790,
            vni: Vni::new(77).unwrap(),
            mtu: NonZeroU16::new(1400),
            mtu_v6: NonZeroU16::new(1380),
        },
        interface_prefixes: vec!["cali".into(), "tap".into()],
        severity: Severity::Warning,
        metrics_enabled: true,
        metrics_at: "127.0.0.1:9191".parse().unwrap(),
        health_enabled: true,
        health_at: "[::1]:9199".parse().unwrap(),
        reports: crate::report::Settings {
            region: "region-europe".into(),
            interval: Duration::ZERO,
            ttl: Duration::from_millis(90_500),
            endpoints: true,
            delay: Duration::from_millis(250),
        },
    };
    assert_eq!(values, expected);
    // The same as texts: what the first round made of it.
    let told = config(&Local::default(), &[("default", spec)]).settings;
    let variables: Vec<_> =
        told.iter().map(|s| (format!("FELIX_{}", s.name.to_uppercase()), s.value.clone())).collect();
    assert_eq!(config(&Local::new(vec![], variables), &[]).values, expected);
}

#[test]
fn what_makes_no_sense_counts_as_the_default_and_is_complained_of() {
    let nonsense = [
        ("DEFAULTENDPOINTTOHOSTACTION", "perhaps"),
        ("ALLOWVXLANPACKETSFROMWORKLOADS", "perhaps"),
        ("FAILSAFEINBOUNDHOSTPORTS", "tcp:22,icmp:8"),
        ("FAILSAFEOUTBOUNDHOSTPORTS", "tcp:65536"),
        ("INTERFACEPREFIX", "cali,,tap"),
        ("LOGSEVERITYSCREEN", "loud"),
        ("PROMETHEUSMETRICSHOST", "example"),
        ("PROMETHEUSMETRICSPORT", "0"),
        ("REPORTINGINTERVALSECS", "-1"),
        ("REPORTINGTTLSECS", "NaN"),
        ("ENDPOINTREPORTINGDELAYSECS", "1e300"),
        ("OPENSTACKREGION", "a/b"),
    ];
    let variables = nonsense.map(|(name, value)| (format!("FELIX_{name}"), value.to_owned()));
    let config = config(&Local::new(vec![], variables), &[]);
    assert_eq!(config.values, Values::default());
    assert_eq!(config.complaints().count(), nonsense.len());
    let stored = self::config(&Local::default(), &[("node.n1", r#"{"logSeverityScreen":"loud"}"#)]);
    let [complaint] = stored.complaints().collect::<Vec<_>>().try_into().unwrap();
    assert!(complaint.key.ends_with("felixconfigurations/node.n1"), "{complaint:?}");
    assert!(complaint.sentence.starts_with(r#"LogSeverityScreen is "loud", not "#), "{complaint:?}");
}

#[test]
fn none_is_nothing() {
    let names = [
        "FAILSAFEINBOUNDHOSTPORTS",
        "ALLOWVXLANPACKETSFROMWORKLOADS",
        "REPORTINGINTERVALSECS",
        "OPENSTACKREGION",
        "LOGSEVERITYSCREEN",
    ];
    let variables = names.map(|name| (format!("FELIX_{name}"), "None".to_owned()));
    let config = config(&Local::new(vec![], variables), &[]);
    assert_eq!(config.complaints().count(), 0);
    let values = &config.values;
    assert_eq!((values.failsafes.inbound.len(), values.reports.interval), (0, Duration::ZERO));
    assert_eq!((values.severity, values.reports.region.as_str()), (Severity::Off, "no-region"));
}

#[test]
fn what_has_no_meaning_here_is_shown_with_a_reason() {
    let variables =
        [("FELIX_IPV6SUPPORT", "false"), ("FELIX_ETCDENDPOINTS", "x"), ("FELIX_BPFENABLED", "true")];
    let stored = [("default", r#"{"serviceLoopPrevention":"Drop","bpfEnabled":false,"somethingNew":"yes"}"#)];
    let config = config(&local(&[], &variables), &stored);
    let mut told = Vec::new();
    for setting in &config.settings {
        if let Effect::Meaningless(why) = setting.effect {
            told.push((setting.name.as_str(), setting.value.as_str(), why));
        }
    }
    let expected = [
        ("BPFEnabled", "true", "Felix's eBPF dataplane is not used"),
        ("Ipv6Support", "false", "the families are those of flannel's network"),
        ("ServiceLoopPrevention", "Drop", "addresses of services have no route, so nothing loops"),
        ("SomethingNew", "yes", "nothing here is about it"),
    ];
    assert_eq!(told, expected);
    // Of every setting of Felix's it is known what it is about.
    let unknown = FIELDS.iter().map(|field| field.v1).filter(|name| {
        !PARAMETERS.iter().any(|parameter| parameter.name == *name)
            && meaningless::why(name) == "nothing here is about it"
    });
    assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&str>::new());
}
