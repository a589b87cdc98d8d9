//! One question to the kernel by netlink: is an interface a pair whose other end is in another namespace?

use std::io;

use canal_dataplane::port::IfIndex;

use crate::netlink::{Attributes, IFINFO, Netlink, link_request};

const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;

/// True when `ifindex` is one end of a veth or netkit pair and the other end is in another network namespace.
pub(super) fn is_pair_across_namespaces(ifindex: IfIndex) -> io::Result<bool> {
    Ok(describes_pair_across_namespaces(&Netlink::open(0)?.ask(&link_request(ifindex))?))
}

/// `message`: the answer behind its netlink header.
fn describes_pair_across_namespaces(message: &[u8]) -> bool {
    let Some(attributes) = message.get(IFINFO..) else { return false };
    let is_pair = Attributes(attributes)
        .filter(|(name, _)| *name == IFLA_LINKINFO)
        .flat_map(|(_, value)| Attributes(value))
        .any(|(name, value)| {
            name == IFLA_INFO_KIND && matches!(value, b"veth\0" | b"netkit\0" | b"veth" | b"netkit")
        });
    is_pair && Attributes(attributes).any(|(name, _)| name == IFLA_LINK_NETNSID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(name.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; IFINFO];
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn a_veth_counts_only_with_a_foreign_namespace() {
        let info = |kind: &[u8]| attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, kind));
        let elsewhere = attribute(IFLA_LINK_NETNSID, &[0; 4]);
        assert!(describes_pair_across_namespaces(&message(&[info(b"veth\0"), elsewhere.clone()])));
        assert!(!describes_pair_across_namespaces(&message(&[info(b"veth\0")])));
        assert!(!describes_pair_across_namespaces(&message(&[info(b"dummy\0"), elsewhere.clone()])));
        assert!(!describes_pair_across_namespaces(&message(&[elsewhere])));
        assert!(!describes_pair_across_namespaces(&[0; 10]));
        assert!(!describes_pair_across_namespaces(&message(&[vec![1, 0, 0, 0]])));
    }
}
