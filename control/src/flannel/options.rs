//! What an operator may say about membership.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::renewal::RenewMargin;
use crate::model::flannel::Prefix;

/// Settings of one node's membership; flannel's flags of the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipOptions {
    /// `--etcd-prefix`.
    pub prefix: Prefix,
    /// `--public-ip`, or the interface's address. A node is known by it: a lease found under this
    /// address is taken for this node's own.
    pub public_ip: Ipv4Addr,
    /// `--public-ipv6`, or the interface's address. Needed when the network is dual-stack.
    pub public_ipv6: Option<Ipv6Addr>,
    /// `--subnet-file`.
    pub subnet_file: PathBuf,
    /// Where the addresses of this node's tunnel endpoints are kept.
    pub identity_file: PathBuf,
    /// `--subnet-lease-renew-margin`.
    pub renew_margin: RenewMargin,
    /// `--ip-masq`, only to be written to the subnet file here.
    pub ip_masq: bool,
}

impl MembershipOptions {
    /// flannel's default for `--subnet-file`.
    pub const SUBNET_FILE: &str = "/run/flannel/subnet.env";

    /// flannel's defaults for the node with this address.
    pub fn new(public_ip: Ipv4Addr) -> Self {
        let subnet_file = PathBuf::from(Self::SUBNET_FILE);
        Self {
            prefix: Prefix::default(),
            public_ip,
            public_ipv6: None,
            identity_file: Self::identity_beside(&subnet_file),
            subnet_file,
            renew_margin: RenewMargin::default(),
            ip_masq: false,
        }
    }

    /// The identity file's default place: beside the subnet file.
    pub fn identity_beside(subnet_file: &Path) -> PathBuf {
        subnet_file.with_file_name("canal-vtep.json")
    }
}
