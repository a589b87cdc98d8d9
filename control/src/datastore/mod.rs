//! Where desired state is kept: one trait over etcd, a directory, and memory.
