//! Membership in a flannel network: lease life cycle and `subnet.env`.
