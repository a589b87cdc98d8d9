//! Sentences about what cannot be done as it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::policies::Standing;
use super::profiles::Presence;
use crate::model::calico::resources::PolicyKey;

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
const SERVICES: &str = "service ";

/// About a policy.
pub fn of_policy(complaints: &mut BTreeMap<String, String>, key: &PolicyKey, tier: &str, standing: Standing) {
    let kind = if key.namespace.is_empty() { "globalnetworkpolicies" } else { "networkpolicies" };
    let key = format!("{RESOURCES}{kind}/{}", key.tie_break);
    let sentence = match standing {
        Standing::NoTier => Some(format!("its tier {tier:?} does not exist; the policy is not in force")),
        Standing::Active { http: true } => {
            Some("http criteria are not enforced here: what the rest of their rule allows, passes".to_owned())
        }
        Standing::Active { http: false } | Standing::Inactive => None,
    };
    set(complaints, key, sentence);
}

/// About a profile.
pub fn of_profile(complaints: &mut BTreeMap<String, String>, name: &str, presence: Presence) {
    let missing = presence == Presence::Missing;
    let sentence = "it does not exist; workloads that name it get no further than that: denied";
    set(complaints, format!("{RESOURCES}profiles/{name}"), missing.then(|| sentence.to_owned()));
}

/// About services that rules name, all there are.
pub fn of_services<'a>(
    complaints: &mut BTreeMap<String, String>,
    unknown: impl Iterator<Item = &'a Arc<str>>,
) {
    complaints.retain(|key, _| !key.starts_with(SERVICES));
    for service in unknown {
        let sentence = "nothing tells which addresses stand behind it: an Allow that names it allows nobody, a Deny denies nobody";
        complaints.insert(format!("{SERVICES}{service}"), sentence.to_owned());
    }
}

fn set(complaints: &mut BTreeMap<String, String>, key: String, sentence: Option<String>) {
    match sentence {
        Some(sentence) => complaints.insert(key, sentence),
        None => complaints.remove(&key),
    };
}
