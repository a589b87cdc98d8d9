//! Filters of `canal show flows`: whatever is asked for, it is refused, or it wants exactly the connections that its words
//! name.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use canal::observe::flow_filter::FlowFilter;
use canal_dataplane::net::{Direction, FlowKey};
use canal_dataplane::spec::NodeSpec;
use canal_dataplane::testing::world;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// A node with two workloads.
static SPEC: LazyLock<NodeSpec> = LazyLock::new(|| world::spec(2));

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    endpoint: Option<&'a str>,
    protocol: Option<&'a str>,
    /// A connection: protocol, family, addresses.
    connection: (u8, bool, u128, u128),
    /// One of its ends is a workload of the node.
    local: bool,
}

impl Input<'_> {
    fn key(&self) -> FlowKey {
        let (protocol, v6, one, other) = self.connection;
        let own = world::pod(1, 1, v6);
        let one = match own {
            IpAddr::V4(own) if self.local => own.to_bits().into(),
            IpAddr::V6(own) if self.local => own.to_bits(),
            _ => one,
        };
        match v6 {
            true => FlowKey::v6(one, other, (1, 2), protocol, false).0,
            false => FlowKey::v4(one as u32, other as u32, (1, 2), protocol, false).0,
        }
    }
}

fuzz_target!(|input: Input| {
    let key = input.key();
    let whole = FlowFilter::new(&SPEC, input.endpoint, input.protocol);
    let by_endpoint = FlowFilter::new(&SPEC, input.endpoint, None);
    let by_protocol = FlowFilter::new(&SPEC, None, input.protocol);
    // Both words make sense, or it is refused with a sentence.
    match (&by_endpoint, &by_protocol) {
        (Ok(endpoint), Ok(protocol)) => {
            let whole = whole.expect("each half makes sense");
            assert_eq!(whole.wants(&key), endpoint.wants(&key) && protocol.wants(&key));
        }
        _ => assert!(!whole.expect_err("one half makes no sense").is_empty()),
    }
    if let Some(number) = input.protocol.and_then(|text| text.parse::<u8>().ok()) {
        assert_eq!(by_protocol.map(|filter| filter.wants(&key)), Ok(key.protocol() == number));
    }
    if let Some(Ok(address)) = input.endpoint.map(str::parse::<IpAddr>) {
        let ((one, _), (other, _)) = key.ends(Direction::Forward);
        let wanted = by_endpoint.expect("an address makes sense").wants(&key);
        // A workload is asked for by any of its addresses, and found by all of them.
        let of_workload = SPEC.endpoints.iter().any(|endpoint| {
            endpoint.networks.iter().any(|network| network.contains(address))
        });
        assert!(of_workload || wanted == (one == address || other == address), "{address}");
        assert!(wanted || (one != address && other != address), "{address}");
    }
});
