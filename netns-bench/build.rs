//! Compiles the eBPF programs that send, count and steer packets; the objects are embedded into the program.

#[path = "../dataplane/io/bpf/build.rs"]
mod bpf;

fn main() {
    for object in ["packets", "bound"] {
        bpf::compile(object, "v3");
    }
}
