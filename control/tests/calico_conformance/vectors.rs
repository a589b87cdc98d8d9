//! Names and addresses made of hashes.

use canal_control::model::calico::derived::{pod_interface, vtep_mac as derived_mac};
use canal_control::model::calico::selector::{Selector, named_port_id, service_id};
use serde_json::Value;

use super::{same, text};

pub fn ipset_id(case: &Value) -> Result<(), String> {
    let definition = &case["definition"];
    let id = if definition["service"].is_string() {
        service_id(text(definition, "service"), definition["include_ports"] == true)
    } else {
        let selector = Selector::parse(text(definition, "selector")).map_err(|error| error.to_string())?;
        match definition["named_port"].as_str() {
            Some(port) => named_port_id(&selector, text(definition, "protocol"), port),
            None => selector.id().to_owned(),
        }
    };
    same("id", id.as_str(), text(case, "id"))
}

pub fn veth_name(case: &Value) -> Result<(), String> {
    same("veth", pod_interface(text(case, "namespace"), text(case, "pod")).as_str(), text(case, "veth"))
}

pub fn vtep_mac(case: &Value) -> Result<(), String> {
    let mac = |v6| derived_mac(text(case, "node"), v6).to_string();
    same("mac_v4", mac(false).as_str(), text(case, "mac_v4"))?;
    same("mac_v6", mac(true).as_str(), text(case, "mac_v6"))
}
