//! Kernel state that canal owns on the host: desired state, read-back, difference.
