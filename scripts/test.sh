#!/usr/bin/env bash
# Everything CI runs.   sudo scripts/test.sh [PHASE…]     (no phase: all of them, in this order)
#
# Each phase has a time limit and a log under target/test-logs. A phase that cannot run is reported as SKIP, loudly, and is a
# failure when CI=true. CANAL_CONFORMANCE_DIR says where the recorded cases are (default: ../shared/conformance).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

# name:limit in seconds
PHASES=(packages:900 fmt:60 shell:60 layers:120 clippy:1800 unit:2400 fuzz:1500 release:2400 netns:2400)
SKIPPED=77
FUZZ_CRATES=(fuzz dataplane/fuzz control/fuzz)
# Inputs of the smoke run per target, and their greatest size: enough to reach every parser's first branches.
FUZZ_INPUTS=200 FUZZ_BYTES=600

usage() {
    printf 'usage: %s [PHASE…]\nphases: %s\n' "$0" "${PHASES[*]%%:*}"
    exit "${1:-0}"
}

skip() {
    warn "SKIP: $*"
    exit "$SKIPPED"
}

phase_packages() {
    install_packages "${BUILD_PACKAGES[@]}" "${LAB_PACKAGES[@]}" shellcheck
    find_cargo
    cargo --version
    cargo fmt --version
    cargo clippy --version
}

phase_fmt() { cargo fmt --all --check; }

phase_shell() {
    local script
    for script in scripts/*.sh .ci/run; do bash -n "$script"; done
    shellcheck --external-sources scripts/*.sh .ci/run
}

phase_layers() { scripts/layers.sh; }

phase_clippy() { cargo clippy --workspace --all-targets --locked -- -D warnings; }

phase_unit() {
    export CANAL_CONFORMANCE_DIR=${CANAL_CONFORMANCE_DIR:-$ROOT/../shared/conformance}
    if [[ ! -d $CANAL_CONFORMANCE_DIR ]]; then
        [[ ${CI:-} != true ]] || die "no conformance cases in $CANAL_CONFORMANCE_DIR"
        warn "SKIP: the conformance cases are not in $CANAL_CONFORMANCE_DIR; the other tests run"
    fi
    # --no-fail-fast: one red crate must not hide another.
    cargo test --locked --no-fail-fast
}

phase_fuzz() {
    local crate missing=()
    for crate in "${FUZZ_CRATES[@]}"; do
        if [[ -f $crate/Cargo.toml ]]; then fuzz_smoke "$crate"; else missing+=("$crate"); fi
    done
    [[ ${#missing[@]} -eq 0 ]] || skip "there is no ${missing[*]}"
}

# Without cargo-fuzz: the plain binary of each target runs every given file once. Finds panics, explores nothing.
fuzz_smoke() {
    local crate=$1 inputs target program i
    (cd "$crate" && cargo build --bins)
    inputs=$(mktemp -d)
    # shellcheck disable=SC2064  # expand now: the directory is this one
    trap "rm -rf '$inputs'" EXIT
    for ((i = 0; i < FUZZ_INPUTS; i++)); do
        head -c $((RANDOM % FUZZ_BYTES)) /dev/urandom >"$inputs/random-$i"
    done
    while read -r target; do
        program=$(fuzz_program "$crate" "$target")
        local files=("$inputs"/*)
        [[ ! -d $crate/corpus/$target ]] || files+=("$crate/corpus/$target"/*)
        say "fuzz smoke: $crate $target, ${#files[@]} inputs"
        "$program" "${files[@]}" >"$inputs.log" 2>&1 || {
            tail -40 "$inputs.log"
            die "fuzz target $target failed"
        }
        rm -f "$inputs.log"
    done < <(fuzz_metadata "$crate" | jq -r '.packages[0].targets[] | select(.kind[0] == "bin") | .name')
}

fuzz_metadata() {
    cargo metadata --no-deps --format-version 1 --manifest-path "$1/Cargo.toml"
}

fuzz_program() {
    printf '%s/debug/%s\n' "$(fuzz_metadata "$1" | jq -r .target_directory)" "$2"
}

phase_release() { cargo build --release --locked --bins -p canal -p netns-tests -p netns-bench; }

phase_netns() {
    need_root
    local bin
    bin=$(target_dir)/release
    [[ -x $bin/canal-fwd ]] || die "no release build in $bin: run the phase release first"
    # A failed test leaves captures and logs in target/netns-failures.
    # The bench only shows that it still runs: what it measures beside other tests is worth nothing.
    export CANAL_BIN_DIR=$bin RUST_LIB_BACKTRACE=0
    local threads="--test-threads=${NETNS_THREADS:-2}" code=0
    cargo test --locked --no-fail-fast -p netns-tests -p netns-bench -- "$threads" || code=$?
    # Once more what a port can break: rules of the wire, and restarts under traffic.
    CANAL_TEST_PORT=af-xdp cargo test --locked --no-fail-fast -p netns-tests --test wire_rules --test restart -- "$threads" \
        --skip by_the_kernel_too --skip over_the_udp_port --skip a_second_daemon || code=$?
    return "$code"
}

# Runs one phase in a process of its own, with its limit; the result goes into RESULTS.
run_phase() {
    local name=$1 limit=$2 log code=0 begin=$SECONDS
    log=$(target_dir)/test-logs/$name.log
    mkdir -p "$(dirname "$log")"
    say "phase $name"
    timeout --foreground --kill-after=20 "$limit" "$0" --run "$name" 2>&1 | tee "$log" || code=${PIPESTATUS[0]}
    local took=$((SECONDS - begin)) verdict
    case $code in
    0) verdict="${GREEN}ok${PLAIN}" ;;
    "$SKIPPED")
        verdict="${YELLOW}SKIP${PLAIN}"
        [[ ${CI:-} != true ]] || failed+=("$name (skipped in CI)")
        ;;
    124 | 137)
        verdict="${RED}TIME LIMIT of $limit s${PLAIN}"
        failed+=("$name")
        ;;
    *)
        verdict="${RED}FAILED ($code)${PLAIN}"
        failed+=("$name")
        ;;
    esac
    RESULTS+=("$(printf '  %-10s %5d s  %s  %s' "$name" "$took" "$verdict" "$(phase_note "$name" "$log")")")
}

# What is worth saying about a phase in one line: how many tests ran, what was skipped inside it.
phase_note() {
    local log=$2 counts skips
    counts=$(awk '/^test result:/ { p += $4; f += $6; i += $8 } END { if (NR) printf "%d passed, %d failed, %d ignored", p, f, i }' "$log")
    skips=$(grep -ci 'SKIP' "$log" || true)
    case $1 in unit | netns) printf '%s' "$counts" ;; esac
    [[ $skips -eq 0 ]] || printf ' (%s lines say SKIP, see %s)' "$skips" "$log"
}

main() {
    [[ ${1:-} != --help && ${1:-} != -h ]] || usage
    if (find_cargo) 2>/dev/null; then find_cargo; fi
    if [[ ${1:-} == --run ]]; then
        "phase_$2"
        return
    fi
    local wanted=" $* " entry name ran=0
    failed=() RESULTS=()
    for entry in "${PHASES[@]}"; do
        name=${entry%%:*}
        [[ $# -eq 0 || $wanted == *" $name "* ]] || continue
        run_phase "$name" "${entry##*:}"
        ran=$((ran + 1))
    done
    [[ $ran -gt 0 && ( $# -eq 0 || $ran -eq $# ) ]] || usage 2
    say "summary"
    printf '%s\n' "${RESULTS[@]}" >&2
    [[ ${#failed[@]} -eq 0 ]] || die "failed: ${failed[*]}"
    say "${GREEN}all $ran phases passed${PLAIN}"
}

main "$@"
