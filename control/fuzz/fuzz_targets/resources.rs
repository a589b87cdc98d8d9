//! Files of resources: what is accepted is stored as something that is accepted again and stored the same.
#![no_main]

use canal_control::resource::{Resource, Stamp, prepare, read};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(found) = read(data) else { return };
    let stamp = Stamp { created: "2024-01-02T03:04:05Z".to_owned(), uid: "u".to_owned() };
    for (_, value) in found {
        let Ok(resource) = Resource::check(&value, "default") else { continue };
        let Ok(prepared) = prepare(&resource, None, &stamp) else { continue };
        let bytes = prepared.encode(resource.kind());
        let stored: Value = serde_json::from_slice(&bytes).expect("what is stored is JSON");
        let again = prepare(&resource, stored.as_object(), &stamp).expect("what is stored can be replaced by the same");
        assert_eq!(again.encode(resource.kind()), bytes);
    }
});
