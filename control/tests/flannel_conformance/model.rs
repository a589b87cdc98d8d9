//! Documents: keys, config, lease values, MTU, subnet file.

use canal_control::flannel::join::lease_value as own_lease_value;
use canal_control::flannel::{Identity, MembershipOptions, SubnetEnv, subnet_env as env_file};
use canal_control::model::flannel::addr::{
    self, GoIpv6, contains4, contains6, parse_network4, parse_network6,
};
use canal_control::model::flannel::mtu::{Underlay, flannel_overhead, overlay_mtu};
use canal_control::model::flannel::{Backend, ConfigDocument, LeaseValue, NetworkConfig, Subnets};
use canal_dataplane::net::Mac;
use ipnetwork::Ipv6Network;
use serde_json::{Map, Value, json};

use super::{same, text, texts};

fn go6(net: Ipv6Network) -> String {
    format!("{}/{}", GoIpv6(net.ip()), net.prefix())
}

pub fn config(text: &str) -> Result<NetworkConfig, String> {
    NetworkConfig::read(text.as_bytes()).map_err(|error| error.to_string())
}

/// `subnet` and `subnet6` (may be absent, empty or `::/0`, all of which mean none) of a case.
pub fn subnets(case: &Value) -> Subnets {
    let v6 = case["subnet6"].as_str().filter(|v6| !v6.is_empty() && *v6 != "::/0");
    Subnets {
        v4: parse_network4(text(case, "subnet")).unwrap(),
        v6: v6.map(|v6| {
            // Not masked: a key's host bits count.
            let (base, length) = v6.split_once('/').unwrap();
            Ipv6Network::new(addr::parse_ipv6(base).unwrap(), length.parse().unwrap()).unwrap()
        }),
    }
}

pub fn network_config(case: &Value) -> Result<(), String> {
    let document = match ConfigDocument::parse(text(case, "config").as_bytes()) {
        Err(_) if case["parse_error"].is_string() => return Ok(()),
        Err(error) => return Err(format!("refused: {error}")),
        Ok(document) => document,
    };
    if case["parse_error"].is_string() {
        return Err("was parsed".to_owned());
    }
    let mut got = json!({
        "BackendType": document.backend_type,
        "EnableIPv4": document.enable_ipv4,
        "EnableIPv6": document.enable_ipv6,
        "EnableNFTables": document.enable_nftables,
    });
    match (document.check(), case["check_error"].as_str()) {
        (Err(error), Some(expected)) => same("check error", error.to_string().as_str(), expected)?,
        (Err(error), None) => return Err(format!("refused: {error}")),
        (Ok(_), Some(expected)) => return Err(format!("passed, expected {expected:?}")),
        (Ok(config), None) => {
            let members = got.as_object_mut().unwrap();
            add_pools(members, &config);
        }
    }
    same("config", &got, &case["parsed"])
}

fn add_pools(members: &mut Map<String, Value>, config: &NetworkConfig) {
    if let Some(pool) = config.v4 {
        members.insert("Network".into(), pool.network.to_string().into());
        members.insert("SubnetLen".into(), pool.subnet_len.into());
        members.insert("SubnetMin".into(), pool.subnet_min.to_string().into());
        members.insert("SubnetMax".into(), pool.subnet_max.to_string().into());
    }
    if let Some(pool) = config.v6 {
        members.insert("IPv6Network".into(), go6(pool.network).into());
        members.insert("IPv6SubnetLen".into(), pool.subnet_len.into());
        members.insert("IPv6SubnetMin".into(), GoIpv6(pool.subnet_min).to_string().into());
        members.insert("IPv6SubnetMax".into(), GoIpv6(pool.subnet_max).to_string().into());
    }
}

pub fn subnet_key(case: &Value) -> Result<(), String> {
    let found = Subnets::from_key(text(case, "key"));
    let Some(found) = found else {
        return same("a subnet key", false, case["ok"] == true);
    };
    same("a subnet key", true, case["ok"] == true)?;
    let v6 = case["subnet6"].as_str().filter(|v6| *v6 != "::/0");
    same("subnet", found.v4.to_string().as_str(), text(case, "subnet"))?;
    same("subnet6", found.v6.map(go6).as_deref(), v6)?;
    same("key made again", found.to_string().as_str(), text(case, "remade_key"))
}

pub fn lease_value(case: &Value) -> Result<(), String> {
    let lease = match LeaseValue::decode(text(case, "value").as_bytes()) {
        Err(_) if case["error"].is_string() => return Ok(()),
        Err(error) => return Err(format!("refused: {error}")),
        Ok(lease) => lease,
    };
    if case["error"].is_string() {
        return Err(format!("was read as {lease:?}"));
    }
    same("public_ip", lease.public_ip.to_string().as_str(), text(case, "public_ip"))?;
    let v6 = lease.public_ipv6.map(|v6| GoIpv6(v6).to_string());
    same("public_ipv6", v6.as_deref(), case["public_ipv6"].as_str())?;
    same("backend_type", lease.backend_type.as_str(), text(case, "backend_type"))?;
    same("written", lease.encode().as_str(), text(case, "remarshalled"))
}

pub fn contains_cidr(case: &Value) -> Result<(), String> {
    let (outer, inner) = (text(case, "network"), text(case, "cidr"));
    let contains = match (parse_network4(outer), parse_network4(inner)) {
        (Ok(outer), Ok(inner)) => contains4(outer, inner),
        _ => contains6(parse_network6(outer).unwrap(), parse_network6(inner).unwrap()),
    };
    same("contains", Some(contains), case["contains"].as_bool())
}

pub fn ip(case: &Value) -> Result<(), String> {
    match text(case, "kind") {
        "ip4net" => {
            let net = |member| parse_network4(text(case, member)).unwrap();
            let (a, b) = (net("a"), net("b"));
            same("next", addr::next4(a).to_string().as_str(), text(case, "a_next"))?;
            same("contains", Some(contains4(a, b)), case["a_contains_b"].as_bool())?;
            same("overlaps", Some(addr::overlaps4(a, b)), case["overlaps"].as_bool())
        }
        // Where canal asks this question it asks the standard library.
        "private" => {
            let private = match text(case, "ip").parse().unwrap() {
                std::net::IpAddr::V4(v4) => v4.is_private(),
                std::net::IpAddr::V6(v6) => v6.is_unique_local(),
            };
            same("private", Some(private), case["private"].as_bool())
        }
        other => Err(format!("unknown kind {other}")),
    }
}

pub fn mtu(case: &Value) -> Result<(), String> {
    let number = |member: &str| case[member].as_u64().map(|n| u32::try_from(n).unwrap());
    let (kind, option) = text(case, "backend").split_once(' ').unwrap_or((text(case, "backend"), ""));
    let ext = number("ext_mtu").unwrap();
    let configured = number("backend_mtu");

    let overhead = flannel_overhead(kind, option == "UDPEncap").ok_or("unknown backend")?;
    same("FLANNEL_MTU of flannel", Some(configured.unwrap_or(ext) - overhead), number("flannel_mtu"))?;

    let document = json!({"Network": "10.0.0.0/8", "Backend": {"Type": kind, "MTU": configured}});
    let Ok(backend) = config(&document.to_string())?.backend() else {
        return Ok(());
    };
    // Over IPv6 flannel's device is smaller than what it writes; canal writes what is true.
    let (underlay, expected) = match option {
        "v6 device" => (Underlay::V6, number("device_mtu")),
        _ => (Underlay::V4, number("flannel_mtu")),
    };
    same("overlay MTU", overlay_mtu(&backend, ext, underlay).ok(), expected)
}

pub fn subnet_env(case: &Value) -> Result<(), String> {
    let file = case["file"].as_str();
    let key = case["key"].as_str().unwrap_or_default();
    let read: Vec<String> = match (file, key.contains("IPV6")) {
        (None, _) => Vec::new(),
        (Some(file), false) => env_file::networks4(file, key).iter().map(ToString::to_string).collect(),
        (Some(file), true) => env_file::networks6(file, key).into_iter().map(go6).collect(),
    };
    match text(case, "kind") {
        "write" => {
            let config = config(text(case, "config"))?;
            let mtu = case["mtu"].as_u64().unwrap().try_into().unwrap();
            let env = SubnetEnv::new(&config, &subnets(case), mtu, case["ipmasq"] == true);
            same("file", env.to_string().as_str(), text(case, "file"))
        }
        "read-list" => same("list", read.iter().map(String::as_str).collect(), texts(case, "expect")),
        "read-one" => same("one", env_file::one(read).as_deref(), case["expect"].as_str()),
        other => Err(format!("unknown kind {other}")),
    }
}

/// Real leases are read and written back; where canal has the backend it would publish the same.
/// The kernel state also listed is a kernel node's.
pub fn backend_observed(case: &Value) -> Result<(), String> {
    let config = config(&case["config"].to_string())?;
    let overhead = flannel_overhead(&config.backend_type, false).ok_or("unknown backend")?;
    same("MTU", format!("MTU {}", 1500 - overhead).as_str(), text(case, "subnet_env"))?;

    let leases = case["leases"].as_object().unwrap();
    for (key, value) in leases {
        let value = value.as_str().unwrap();
        let subnets = Subnets::from_key(key).ok_or("not a subnet key")?;
        same("key", &subnets.to_string(), key)?;
        let lease = LeaseValue::decode(value.as_bytes()).map_err(|error| error.to_string())?;
        same("value", lease.encode().as_str(), value)?;
        if let Ok(backend) = config.backend() {
            same("what canal publishes", publish(&config, &backend, &lease).as_str(), value)?;
        }
    }
    Ok(())
}

/// The value canal writes on a node with that node's addresses.
fn publish(config: &NetworkConfig, backend: &Backend, seen: &LeaseValue) -> String {
    let mut options = MembershipOptions::new(seen.public_ip);
    options.public_ipv6 = seen.public_ipv6;
    let identity = Identity {
        vtep_mac: seen.vxlan().unwrap().map_or(Mac::ZERO, |data| data.vtep_mac),
        vtep_v6_mac: seen.vxlan_v6().unwrap().map_or(Mac::ZERO, |data| data.vtep_mac),
    };
    own_lease_value(config, backend, &options, &identity).unwrap().encode()
}
