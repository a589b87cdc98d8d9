#!/usr/bin/env bash
# The rules of the house that a script can check: who may depend on whom, and what must appear nowhere.
# Prints every violation with its place; exits 1 if there is any.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

# Files that may hold unsafe code; each begins with #![allow(unsafe_code)] and justifies every block.
UNSAFE_FILES=(
    dataplane/src/prefetch.rs
    dataplane/io/src/checksum.rs
    dataplane/io/src/heap.rs
    dataplane/tests/counting/mod.rs
    dataplane/io/src/tun/ioctl.rs
    dataplane/io/src/udp/message.rs
    dataplane/io/src/xdp/region.rs
    dataplane/io/src/xdp/ring.rs
    dataplane/io/src/xdp/socket.rs
    netns-tests/src/sys.rs
)

violations=0
violation() {
    printf '%s\n' "$*" | sed "s/^/${RED}layers:${PLAIN} /"
    violations=$((violations + 1))
}

# Rust sources below the directories that end up in a program: no tests, benches, fuzz targets or build scripts.
sources() {
    find "$@" -name '*.rs' -not -name build.rs -not -name tests.rs -not -path '*/tests/*' -not -path '*/fuzz/*' -not -path '*/benches/*' 2>/dev/null | sort
}

# A file as production code: without comments and without what follows its first #[cfg(test)] module.
production() {
    awk '/^ *#\[cfg\(test\)\]/ { held = 1; next }
         held && /^ *(pub )?mod / { exit }
         { held = 0; sub(/^ *\/\/.*/, ""); print FILENAME ":" FNR ": " $0 }' "$1"
}

# forbid RULE PATTERN FILE…: no production line of the files matches. Text that matches $EXCEPT does not count.
EXCEPT='never-in-any-source'
forbid() {
    local rule=$1 pattern=$2 file hits
    shift 2
    for file in "$@"; do
        hits=$(production "$file" | sed -E "s/$EXCEPT//g" | grep -E "^[^:]+:[0-9]+: .*($pattern)" || true)
        [[ -z $hits ]] || violation "$rule: $hits"
    done
}

# Names of the packages that PACKAGE depends on in production, one a line.
dependencies() {
    jq -r --arg p "$1" '.packages[] | select(.name == $p) | .dependencies[] | select(.kind == null) | .name' <<<"$METADATA"
}

# Everything PACKAGE pulls in, directly or not.
closure() {
    cargo tree --locked -p "$1" -e normal --prefix none --format '{p}' | awk '{print $1}' | sort -u
}

rule1_core_is_pure() {
    local allowed=' arc-swap ipnetwork hashbrown foldhash thiserror ' name
    for name in $(dependencies canal-dataplane); do
        [[ $allowed == *" $name "* ]] || violation "rule 1: canal-dataplane depends on $name, which is not known to be pure"
    done
    # What a dependency uses inside is its own matter, except a runtime, a logger or a way into the kernel.
    for name in tokio mio tracing nix rand; do
        ! closure canal-dataplane | grep -qx "$name" || violation "rule 1: canal-dataplane pulls in $name"
    done
    local io='std::(fs|io|env|process|thread|time::(Instant|SystemTime))|(e?print(ln)?|dbg)!|(Udp|Tcp|Unix)(Socket|Stream|Listener)'
    mapfile -t files < <(sources dataplane/src)
    forbid "rule 1 (no I/O, time, threads or logging in the core)" "$io" "${files[@]}"
}

rule2_edges_are_strangers() {
    ! closure canal-control | grep -qx canal-io || violation "rule 2: canal-control depends on canal-io"
    ! closure canal-io | grep -qx canal-control || violation "rule 2: canal-io depends on canal-control"
}

rule3_control_knows_the_contract_only() {
    mapfile -t files < <(sources control/src)
    # A number that names an interface is part of the contract, wherever it is declared.
    local EXCEPT='canal_dataplane::port::IfIndex'
    forbid "rule 3 (control uses spec, tables, publish and drop names only)" \
        'canal_dataplane::(\{.*\b)?(stage|flow|pipeline|worker|frame|port|packet|batch|segment|coalesce)\b' "${files[@]}"
}

rule4_stages_are_strangers() {
    local file other names=()
    mapfile -t files < <(sources dataplane/src/stage)
    for file in "${files[@]}"; do
        [[ $file == */mod.rs ]] || names+=("$(basename "$file" .rs)")
    done
    for file in "${files[@]}"; do
        [[ $file != */mod.rs ]] || continue
        for other in "${names[@]}"; do
            [[ $other != "$(basename "$file" .rs)" ]] || continue
            forbid "rule 4 (a stage never imports a stage)" "(crate::stage|super)::(\\{.*\\b)?$other\\b" "$file"
        done
    done
}

rule5_fast_path_does_not_allocate() {
    # The rule itself is a test with a counting allocator; here only: nobody has removed it.
    grep -rlq 'impl.*GlobalAlloc for' --include='*.rs' dataplane benches src 2>/dev/null ||
        violation "rule 5: no test with a counting allocator"
}

rule6_unsafe_in_named_files() {
    local file
    while read -r file; do
        [[ " ${UNSAFE_FILES[*]} " == *" $file "* ]] && continue
        violation "rule 6: unsafe code in $file, which is not in the list of $0"
    done < <(git ls-files '*.rs' | xargs grep -lE '(^|[^A-Za-z_"])unsafe( |\{)|allow\(unsafe_code\)' | sort)
    for file in "${UNSAFE_FILES[@]}"; do
        grep -q 'allow(unsafe_code)' "$file" 2>/dev/null || violation "rule 6: $file is listed and holds no unsafe code"
    done
}

rule7_core_types_are_not_serialised() {
    ! dependencies canal-dataplane | grep -q '^serde' || violation "rule 7: canal-dataplane depends on serde"
}

rule8_no_shell_no_firewall() {
    mapfile -t files < <(sources src dataplane control)
    forbid "rule 8 (no program is spawned)" 'Command::new|std::process::Command|libc::system|execv' "${files[@]}"
}

METADATA=$(cargo metadata --no-deps --locked --format-version 1)
rule1_core_is_pure
rule2_edges_are_strangers
rule3_control_knows_the_contract_only
rule4_stages_are_strangers
rule5_fast_path_does_not_allocate
rule6_unsafe_in_named_files
rule7_core_types_are_not_serialised
rule8_no_shell_no_firewall

[[ $violations -eq 0 ]] || die "$violations violations of the layer rules"
say "layer rules hold"
