//! What a host's policy never closes.

use std::net::IpAddr;

use super::facts::{Facts, Transport};
use crate::spec::policy::{Failsafe, Failsafes, PolicyDirection};

/// Is this a packet to a port that stays open, on its way into the host or out of it?
pub fn is_spared(failsafes: &Failsafes, direction: PolicyDirection, facts: &Facts) -> bool {
    let Transport::Ports(_, port) = facts.transport else { return false };
    listed(of(failsafes, direction), facts.protocol, port, peer(direction, facts))
}

/// The same, or an answer to such a packet that went the other way: before connections are tracked nobody knows which.
pub fn is_spared_untracked(failsafes: &Failsafes, direction: PolicyDirection, facts: &Facts) -> bool {
    let Transport::Ports(source, _) = facts.transport else { return false };
    let others = match direction {
        PolicyDirection::Ingress => &failsafes.outbound,
        PolicyDirection::Egress => &failsafes.inbound,
    };
    is_spared(failsafes, direction, facts) || listed(others, facts.protocol, source, peer(direction, facts))
}

fn of(failsafes: &Failsafes, direction: PolicyDirection) -> &[Failsafe] {
    match direction {
        PolicyDirection::Ingress => &failsafes.inbound,
        PolicyDirection::Egress => &failsafes.outbound,
    }
}

/// The end of the packet that is not the host's.
pub(crate) const fn peer(direction: PolicyDirection, facts: &Facts) -> IpAddr {
    match direction {
        PolicyDirection::Ingress => facts.source,
        PolicyDirection::Egress => facts.destination,
    }
}

fn listed(failsafes: &[Failsafe], protocol: u8, port: u16, peer: IpAddr) -> bool {
    failsafes.iter().any(|failsafe| {
        failsafe.protocol == protocol
            && failsafe.port == port
            && failsafe.net.is_none_or(|net| net.contains(peer))
    })
}

#[cfg(test)]
mod tests {
    use PolicyDirection::{Egress, Ingress};

    use super::*;

    fn packet(from: [u8; 4], source: u16, to: [u8; 4], port: u16) -> Facts {
        Facts {
            source: from.into(),
            destination: to.into(),
            protocol: 6,
            transport: Transport::Ports(source, port),
        }
    }

    #[test]
    fn ports_are_open_one_way_and_their_answers_before_tracking_only() {
        let failsafes = Failsafes {
            inbound: vec![Failsafe { protocol: 6, port: 22, net: "192.0.2.0/24".parse().ok() }],
            outbound: vec![Failsafe { protocol: 6, port: 2379, net: None }],
        };
        let (host, friend, stranger) = ([192, 0, 2, 1], [192, 0, 2, 9], [198, 51, 100, 1]);
        for (direction, facts, tracked, untracked) in [
            (Ingress, packet(friend, 5000, host, 22), true, true),
            (Ingress, packet(stranger, 5000, host, 22), false, false),
            (Ingress, packet(friend, 22, host, 5000), false, false),
            (Ingress, packet(stranger, 2379, host, 5000), false, true),
            (Egress, packet(host, 5000, stranger, 2379), true, true),
            (Egress, packet(host, 22, friend, 5000), false, true),
            (Egress, packet(host, 22, stranger, 5000), false, false),
            (Egress, packet(host, 5000, friend, 22), false, false),
        ] {
            assert_eq!(is_spared(&failsafes, direction, &facts), tracked, "{direction:?} {facts:?}");
            assert_eq!(
                is_spared_untracked(&failsafes, direction, &facts),
                untracked,
                "{direction:?} {facts:?}"
            );
        }
        let udp = Facts { protocol: 17, ..packet(friend, 5000, host, 22) };
        let unseen = Facts { transport: Transport::Unseen, ..packet(friend, 5000, host, 22) };
        for facts in [udp, unseen] {
            assert!(!is_spared_untracked(&failsafes, Ingress, &facts), "{facts:?}");
        }
    }
}
