//! Compiling eBPF programs with clang, for the build scripts that include this file.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Compiles `bpf/<name>.bpf.c` to `$OUT_DIR/<name>.bpf.o`, for the instruction set `cpu` ("v2", "v3").
pub fn compile(name: &str, cpu: &str) {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    let source = format!("bpf/{name}.bpf.c");
    let out =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(format!("{name}.bpf.o"));
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    // Debian keeps <asm/types.h> in a directory named after the architecture, which clang does not search when the
    // target is bpf.
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let status = Command::new(&clang)
        .args(["-target", "bpf", &format!("-mcpu={cpu}"), "-O2", "-g", "-Wall", "-Werror", "-c", &source])
        .arg("-idirafter")
        .arg(format!("/usr/include/{architecture}-linux-gnu"))
        .arg("-o")
        .arg(&out)
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            panic!("{clang} failed on {source}: {status}; are libbpf-dev and linux-libc-dev installed?")
        }
        Err(error) => panic!("cannot run {clang} (Debian package clang): {error}"),
    }
}
