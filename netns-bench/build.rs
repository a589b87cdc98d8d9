//! Compiles the eBPF programs that send and count packets; the object is embedded into the program.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("packets.bpf.o");
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let status = Command::new(&clang)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-c", "bpf/packets.bpf.c"])
        // Debian keeps <asm/types.h> where clang does not look when the target is bpf.
        .arg("-idirafter")
        .arg(format!("/usr/include/{architecture}-linux-gnu"))
        .arg("-o")
        .arg(&out)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!(
            "{clang} failed on bpf/packets.bpf.c: {status}; are libbpf-dev and linux-libc-dev installed?"
        ),
        Err(error) => panic!("cannot run {clang} (Debian package clang): {error}"),
    }
}
