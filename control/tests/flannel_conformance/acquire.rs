//! Which subnet a node takes.

use std::sync::{Arc, Mutex};

use canal_control::datastore::{KeyValue, LeaseId};
use canal_control::flannel::acquire::{acquire, compatible};
use canal_control::flannel::candidates::{candidates4, candidates6, pick};
use canal_control::flannel::{Acquired, Rewritten};
use canal_control::model::flannel::addr::{contains4, parse_network4, parse_network6};
use canal_control::model::flannel::{LeaseValue, NetworkConfig, Prefix, Subnets};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::fake::Fake;
use super::model::{config, subnets};
use super::{same, text, texts};

/// The lease object of the leases that were there before; far from those the store will grant.
const OLDER: Option<LeaseId> = Some(1_000_000);

pub fn reuse(case: &Value) -> Result<(), String> {
    let config = config(text(case, "config"))?;
    same("compatible", Some(compatible(&config, &subnets(case))), case["compat"].as_bool())
}

pub fn candidates(case: &Value) -> Result<(), String> {
    let config = config(text(case, "config"))?;
    let held4: Vec<_> = texts(case, "leases").into_iter().map(|net| parse_network4(net).unwrap()).collect();
    let held6: Vec<_> = texts(case, "leases6").into_iter().map(|net| parse_network6(net).unwrap()).collect();
    if let Some(pool) = config.v4 {
        let free = candidates4(&pool, held4.iter().copied());
        listed(case, "candidate", &free.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    }
    if let Some(pool) = config.v6 {
        let free = candidates6(&pool, held6.iter().copied());
        listed(case, "candidate6", &free.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    }

    let mut held: Vec<Subnets> = held4.into_iter().map(|v4| Subnets { v4, v6: None }).collect();
    held.extend(held6.into_iter().map(|v6| Subnets { v4: "192.0.2.0/24".parse().unwrap(), v6: Some(v6) }));
    let picked = pick(&config, &held, &mut StdRng::seed_from_u64(1));
    match (picked, case["error"].as_str()) {
        (Ok(_), None) => Ok(()),
        (Err(error), Some(expected)) if error.to_string().starts_with(expected) => Ok(()),
        (picked, expected) => Err(format!("picked {picked:?}, expected error {expected:?}")),
    }
}

/// `<what>_count`, and either `<what>s` in full or its first and last.
fn listed(case: &Value, what: &str, got: &[String]) -> Result<(), String> {
    same(what, Some(got.len() as u64), case[format!("{what}_count")].as_u64())?;
    let list = what.replace("candidate", "candidates");
    if case[&list].is_array() {
        return same(&list, got.iter().map(String::as_str).collect(), texts(case, &list));
    }
    let first = texts(case, &format!("{list}_first"));
    let last = texts(case, &format!("{list}_last"));
    same("first", got.iter().map(String::as_str).take(first.len()).collect(), first)?;
    same("last", got[got.len().saturating_sub(last.len())..].iter().map(String::as_str).collect(), last)
}

/// A datastore with the scenario's config and leases, and the node that comes.
struct Scenario {
    store: Fake,
    prefix: Prefix,
    config: NetworkConfig,
    value: LeaseValue,
    previous: Option<Subnets>,
    rng: StdRng,
}

impl Scenario {
    fn set_up(case: &Value) -> Result<Self, String> {
        let prefix = Prefix::default();
        let store = Fake::default();
        for (key, public_ip) in case["store"]["leases"].as_object().unwrap() {
            let key = prefix.lease_key(&Subnets::from_key(key).unwrap());
            let value = json!({"PublicIP": public_ip}).to_string();
            store.state.lock().unwrap().set(&key, &value, OLDER);
        }
        let previous = case["previous_subnet"].as_str();
        Ok(Self {
            store,
            prefix,
            config: config(&case["store"]["config"].to_string())?,
            value: LeaseValue { public_ip: text(case, "node").parse().unwrap(), ..LeaseValue::default() },
            previous: previous.map(|v4| Subnets { v4: parse_network4(v4).unwrap(), v6: None }),
            rng: StdRng::seed_from_u64(9),
        })
    }

    async fn acquire(&mut self) -> Result<Acquired, String> {
        let Self { store, prefix, config, value, previous, rng } = self;
        acquire(store, prefix, config, value, *previous, rng).await.map_err(|error| error.to_string())
    }

    /// Another node creates the very key that this one is about to, once; says which.
    fn lose_a_race(&self) -> Arc<Mutex<Option<String>>> {
        let contested = Arc::new(Mutex::new(None));
        let told = contested.clone();
        self.store.before_put(move |state, key| {
            told.lock().unwrap().get_or_insert_with(|| {
                state.set(key, r#"{"PublicIP":"198.51.100.9"}"#, OLDER);
                key.to_owned()
            });
        });
        contested
    }

    fn entry(&self, key: &str) -> Option<KeyValue> {
        self.store.get(key)
    }
}

pub fn scenario(case: &Value) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let expectations = case["expect"].as_object().unwrap();
        let mut checked = 0;
        for (expectation, expected) in expectations {
            let mut scenario = Scenario::set_up(case)?;
            checked += usize::from(meets(&mut scenario, expectation, expected).await?);
        }
        if checked == 0 { Err("no expectation was understood".to_owned()) } else { Ok(()) }
    })
}

/// False for an expectation that is about flannel and not about canal.
async fn meets(scenario: &mut Scenario, expectation: &str, expected: &Value) -> Result<bool, String> {
    match expectation {
        "second_equals_first" => {
            let first = scenario.acquire().await?;
            let second = scenario.acquire().await?;
            same("same", first.lease.subnets() == second.lease.subnets(), expected == true)?;
        }
        "subnet" => {
            let got = scenario.acquire().await?.lease.subnets().v4.to_string();
            same("subnet", json!(got), expected.clone())?;
        }
        "subnet_not" => {
            let got = scenario.acquire().await?.lease.subnets().v4.to_string();
            if json!(got) == *expected {
                return Err(format!("took {got}"));
            }
        }
        "subnet_in_network" => {
            let got = scenario.acquire().await?.lease.subnets().v4;
            let network = parse_network4(expected.as_str().unwrap()).unwrap();
            same("inside", contains4(network, got), true)?;
        }
        "deleted" => {
            let gone = Subnets::from_key(expected.as_str().unwrap()).unwrap();
            let acquired = scenario.acquire().await?;
            same("reported", acquired.deleted, Some(gone))?;
            let left = scenario.entry(&scenario.prefix.lease_key(&gone));
            same("left over", left, None)?;
        }
        "put_with_new_lease" => {
            let mut own = scenario.acquire().await?.lease;
            let before = scenario.entry(own.key()).unwrap();
            let renewed = own.renew(&scenario.store).await.map_err(|error| error.to_string())?;
            same("outcome", renewed, Rewritten::Renewed)?;
            let after = scenario.entry(own.key()).unwrap();
            same("value", &after.value, &before.value)?;
            same("new lease object", after.lease != before.lease, expected == true)?;
        }
        // The only one so far: "re-list and retry up to 10 times".
        "canal_should" => {
            let contested = scenario.lose_a_race();
            let won = scenario.acquire().await?.lease;
            let contested = contested.lock().unwrap().clone().ok_or("nothing was put")?;
            same("took the contested one", won.key() == contested, false)?;
            let winner = LeaseValue::decode(&scenario.entry(&contested).unwrap().value).unwrap();
            same("winner", winner.public_ip.to_string().as_str(), "198.51.100.9")?;
        }
        "flannel" => return Ok(false),
        other => return Err(format!("unknown expectation {other}")),
    }
    Ok(true)
}
