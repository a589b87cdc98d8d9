//! Calico's keys: what is read is written so that it reads the same.
#![no_main]

use canal_control::model::calico::felix_key::FelixKey;
use canal_control::model::calico::names::WorkloadIds;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(key) = FelixKey::parse(text) {
        let path = key.path();
        let again = FelixKey::parse(&path);
        let known = !matches!(&key, FelixKey::Resource(resource) if resource.kind.is_none());
        assert!(!known || again.as_ref() == Some(&key), "{key:?}: {path}");
    }
    if let Ok(ids) = WorkloadIds::parse(text)
        && let Ok(name) = ids.name()
    {
        assert_eq!(ids.matches(&name), Ok(true));
        assert!(name.starts_with(&ids.prefix().expect("a name has a prefix")));
    }
});
