//! flannel's etcd v3 data model: keys, network config, lease values.
