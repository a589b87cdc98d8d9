#!/usr/bin/env bash
# Shared by the scripts beside it: messages, Debian packages, finding cargo. Sourced, never run.
# shellcheck disable=SC2034  # its users are in other files

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What building needs, and what the namespaces need besides.
BUILD_PACKAGES=(gcc g++ libc6-dev make pkg-config clang libclang-dev m4 libelf-dev zlib1g-dev protobuf-compiler libprotobuf-dev libbpf-dev)
LAB_PACKAGES=(iproute2 iputils-ping ethtool iperf3 tcpdump etcd-server etcd-client nftables iptables ipset conntrack jq openssl procps util-linux bsdextrautils)

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
    RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' BOLD=$'\e[1m' PLAIN=$'\e[0m'
else
    RED='' GREEN='' YELLOW='' BOLD='' PLAIN=''
fi

say() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*" >&2; }
warn() { printf '%s!!! %s%s\n' "$YELLOW" "$*" "$PLAIN" >&2; }
die() {
    printf '%s!!! %s%s\n' "$RED" "$*" "$PLAIN" >&2
    exit 1
}

# What a script is for and how it is called: the comment that it begins with.
print_head() { sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "$0"; }

need_root() {
    [[ $EUID -eq 0 ]] || die "this needs root: sudo $0"
}

# Installs the named packages that are missing; says which.
install_packages() {
    local package missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ $EUID -eq 0 ]] || die "missing packages, and only root can install them: ${missing[*]}"
    say "installing ${missing[*]}"
    # Installing etcd must not start a server on the host: only the namespaces run one.
    local guard=/usr/sbin/policy-rc.d made=
    if [[ ! -e $guard ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod +x "$guard"
        made=1
    fi
    local failed=
    { DEBIAN_FRONTEND=noninteractive apt-get -q update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } >&2 || failed=1
    [[ -z $made ]] || rm -f "$guard"
    [[ -z $failed ]] || die "apt-get could not install: ${missing[*]}"
}

# Under sudo the toolchain of the calling user is used, if root has none.
find_cargo() {
    command -v cargo >/dev/null && return
    local home
    home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
    if [[ -x $home/.cargo/bin/cargo ]]; then
        export PATH=$home/.cargo/bin:$PATH RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup} CARGO_HOME=${CARGO_HOME:-$home/.cargo}
        return
    fi
    die "cargo is not installed (Rust 1.91 or later: https://rustup.rs)"
}

target_dir() {
    printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}"
}

# Removes every network namespace whose name begins with $1.
remove_namespaces() {
    local name
    while read -r name _; do
        [[ $name == "$1"* ]] || continue
        ip netns del "$name" || true
    done < <(ip netns list)
}
