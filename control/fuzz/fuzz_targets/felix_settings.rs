//! Felix's settings, from variables and from a FelixConfiguration of any bytes: what is obeyed is bounded, and says the same
//! again when it is said again as it is shown.
#![no_main]

use canal_control::datastore::{Change, KeyValue};
use canal_control::felix::{Config, Effect, Local, Setting};
use canal_control::model::calico::kind::Kind;
use canal_control::model::flannel::Prefix;
use canal_control::state::State;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Which setting, and its value as text.
    variables: Vec<(u8, &'a str)>,
    /// A FelixConfiguration's `spec` as text, or a whole document.
    resource: &'a [u8],
    whole: bool,
}

/// A datastore with this FelixConfiguration.
fn datastore(input: &Input) -> State {
    let mut state = State::new("n1", &Prefix::default());
    let value = if input.whole {
        input.resource.to_vec()
    } else {
        [&b"{\"metadata\":{\"name\":\"default\"},\"spec\":"[..], input.resource, b"}"].concat()
    };
    let key = format!("{}default", Kind::FelixConfiguration.prefix());
    let entry = KeyValue { key: key.clone(), value, mod_revision: 1, lease: None };
    state.apply(&[Change { key, revision: 1, value: Some(entry) }]);
    state
}

fn is_valid(setting: &&Setting) -> bool {
    matches!(setting.effect, Effect::Obeyed | Effect::Partly(_) | Effect::Prepared(_))
}

fuzz_target!(|input: Input| {
    let known = Config::of(&Local::default(), "n1", State::new("n1", &Prefix::default()).calico()).settings;
    let variables = input.variables.iter().map(|(which, text)| {
        (format!("FELIX_{}", known[usize::from(*which) % known.len()].name), (*text).to_owned())
    });
    let local = Local::new(vec![], variables);
    let config = Config::of(&local, "n1", datastore(&input).calico());

    let failsafes = &config.values.failsafes;
    for list in [&failsafes.inbound, &failsafes.outbound] {
        assert!(list.is_sorted_by(|a, b| a < b), "sorted, once each");
        assert!(list.iter().filter_map(|one| one.net).all(|net| net.ip() == net.network()));
    }
    assert!(config.values.interface_prefixes.iter().all(|prefix| (1..=15).contains(&prefix.len())));
    assert!(!config.values.reports.region.contains('/'), "it is a segment of a key");
    assert_ne!(config.values.metrics_at.port(), 0);
    assert_ne!(config.values.vxlan.port, 0);
    let invalid = config.settings.iter().filter(|setting| matches!(setting.effect, Effect::Invalid(_))).count();
    assert_eq!(config.complaints().count(), invalid, "what counts as the default is complained of");

    let told = config.settings.iter().filter(is_valid);
    let told = told.map(|setting| (format!("FELIX_{}", setting.name), setting.value.clone()));
    let empty = State::new("n1", &Prefix::default());
    let again = Config::of(&Local::new(vec![], told), "n1", empty.calico());
    assert_eq!(again.values, config.values);
});
