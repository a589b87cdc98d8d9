//! Compiles the eBPF programs with clang; the objects are embedded into the crate.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The objects: the programs of one share their maps.
const OBJECTS: [&str; 2] = ["canal", "xdp"];

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for object in OBJECTS {
        compile(&format!("bpf/{object}.bpf.c"), &out.join(format!("{object}.bpf.o")));
    }
}

fn compile(source: &str, object: &Path) {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    // Debian keeps <asm/types.h> in a directory named after the architecture, which clang does not search when the
    // target is bpf.
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let status = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v2", "-O2", "-g", "-Wall", "-Werror", "-c", source])
        .arg("-idirafter")
        .arg(format!("/usr/include/{architecture}-linux-gnu"))
        .arg("-o")
        .arg(object)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            panic!("{clang} failed on {source}: {status}; are libbpf-dev and linux-libc-dev installed?")
        }
        Err(error) => panic!("cannot run {clang} (Debian package clang): {error}"),
    }
}
