//! Compiles the eBPF programs; the objects are embedded into the crate. The programs of one object share their maps.

#[path = "bpf/build.rs"]
mod bpf;

fn main() {
    for object in ["canal", "xdp"] {
        bpf::compile(object, "v2");
    }
}
