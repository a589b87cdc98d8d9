//! The network config: never a panic, and what passes the checks is usable.
#![no_main]

use canal_control::flannel::candidates::{MAX_CANDIDATES, candidates4, candidates6};
use canal_control::model::flannel::NetworkConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(config) = NetworkConfig::read(data) else { return };
    let _ = config.backend();
    assert!(config.changed_members(&config.clone()).is_empty());
    if let Some(pool) = config.v4 {
        assert!(pool.subnet_len <= 30 && pool.subnet_len >= pool.network.prefix() + 2);
        assert!(candidates4(&pool, []).len() <= MAX_CANDIDATES);
    }
    if let Some(pool) = config.v6 {
        assert!(pool.subnet_len <= 126 && pool.subnet_len >= pool.network.prefix() + 2);
        assert!(candidates6(&pool, []).len() <= MAX_CANDIDATES);
    }
});
