#!/usr/bin/env bash
# canal beside what else forwards packets, measured in network namespaces of this machine.
#
#   sudo scripts/bench.sh [SCENARIO…] [--peers P,P…] [--runs N] [--seconds S] [--workers N] [--arrangement 1core|split] [--plots DIR] [--smoke] [-o table|json]
#
# Builds what is measured and the bench, which does the rest. Scenarios and peers are in docs/testing.md under "Measuring", numbers
# in docs/performance.md; once it is built, `target/release/canal-bench --help` says what each option does.
# CANAL_BIN_DIR names binaries that are built already: canal-fwd, canal and canal-bench.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for word in "$@"; do
    [[ $word != --help && $word != -h ]] || {
        print_head
        exit
    }
done
need_root
# One at a time: two would measure each other.
exec 9>/run/canal-bench.lock
flock --nonblock 9 || die "another run of $0 is under way"
install_packages "${BUILD_PACKAGES[@]}" "${LAB_PACKAGES[@]}"
if [[ -z ${CANAL_BIN_DIR:-} ]]; then
    find_cargo
    say "building (release)"
    (cd "$ROOT" && cargo build --release --locked --bins -p canal -p netns-bench >&2)
    CANAL_BIN_DIR=$(target_dir)/release
fi
export CANAL_BIN_DIR
exec "$CANAL_BIN_DIR/canal-bench" "$@"
