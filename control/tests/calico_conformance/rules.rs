//! Rules.

use canal_control::model::calico::decode::{Converted, Key, convert as convert_value};
use serde_json::{Value, json};

use super::{same, text, v1_json};

/// The rule in a policy of its own, so that it takes the way that rules in etcd take.
pub fn convert(case: &Value) -> Result<(), String> {
    let namespace = text(case, "namespace");
    let place = if namespace.is_empty() {
        "globalnetworkpolicies".to_owned()
    } else {
        format!("networkpolicies/{namespace}")
    };
    let key = Key::parse(&format!("/calico/resources/v3/projectcalico.org/{place}/x")).unwrap();
    let value = json!({ "spec": { "ingress": [case["v3_rule"]] } }).to_string();
    match convert_value(&key, value.as_bytes()) {
        Ok(Converted::Policy(_, policy)) => {
            same("v1_rule", &v1_json::rule(&policy.inbound[0]), &case["v1_rule"])
        }
        other => Err(format!("{other:?}")),
    }
}
