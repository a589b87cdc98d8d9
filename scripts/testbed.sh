#!/usr/bin/env bash
# Two canal hosts and a plain kernel flannel node in namespaces of this machine.
#
#   sudo scripts/testbed.sh demo            build, start, exchange traffic in every direction, print a table, tear down
#   sudo scripts/testbed.sh up | down       keep it standing for play; take it away
#   sudo scripts/testbed.sh status          what canal says on each host
#   sudo scripts/testbed.sh shell HOST      a shell in host0, host1 (canal), host2 (kernel), pod0x2, … or switch
#   sudo scripts/testbed.sh sync            tell the kernel node what the leases say now
#
#   --datastore etcd|dir   where the documents live (default etcd; dir needs no server)
#   --port auto|tap|udp    the daemons' underlay port
#   --bytes N              size of the verified transfer of the demo (default 1000000000)
#   --peer kernel          every node is a kernel node: proves the test bed itself
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PREFIX=canal-tb STATE=/run/canal-testbed
# shellcheck source=scripts/topology.sh
source "$(dirname "${BASH_SOURCE[0]}")/topology.sh"

HOSTS=(0 1 2)
# Pods: host and number; two on the first host, so that local traffic is seen too.
PODS=("0 2" "0 3" "1 2" "2 2")
PORT=auto BYTES=1000000000 PEER=canal
IPERF_SECONDS=${IPERF_SECONDS:-3}
# CANAL_BIN_DIR names binaries that are built already.
BIN=${CANAL_BIN_DIR:-$(target_dir)/release}

usage() {
    print_head
    exit "${1:-0}"
}

is_kernel() { [[ $PEER == kernel || $1 -eq 2 ]]; }
kind_of() { if is_kernel "$1"; then printf 'kernel'; else printf 'canal'; fi; }

build() {
    install_packages "${BUILD_PACKAGES[@]}" "${LAB_PACKAGES[@]}"
    [[ -z ${CANAL_BIN_DIR:-} ]] || return 0
    find_cargo
    say "building (release)"
    (cd "$ROOT" && cargo build --release --locked --bins -p canal -p netns-tests >&2)
}

up() {
    [[ ! -d $STATE ]] || die "it is up already (or was left half-way): $0 down"
    # Whatever goes wrong from here on, nothing stays behind; `up` lifts this when all of it stands.
    trap 'exit 130' INT TERM
    trap tear_down EXIT
    mkdir -p "$STATE"
    printf '%s\n' "$DATASTORE" >"$STATE/datastore"
    printf '%s\n' "$PEER" >"$STATE/peer"
    say "switch and hosts"
    make_switch
    local host pod
    for host in "${HOSTS[@]}"; do make_host "$host"; done
    say "datastore: $DATASTORE"
    start_datastore
    for host in "${HOSTS[@]}"; do
        say "host$host: $(kind_of "$host") node at $(host_address "$host")"
        if is_kernel "$host"; then kernel_node "$host"; else canal_node "$host" "$PORT"; fi
    done
    for pod in "${PODS[@]}"; do
        # shellcheck disable=SC2086  # host and number
        add_pod $pod
    done
    sync_kernel_nodes
    say "waiting until every pod reaches every other"
    wait_for_mesh
}

add_pod() {
    make_pod "$1" "$2" "$(subnet_address "$1" "$2")"
    if is_kernel "$1"; then route_pod_by_kernel "$1" "$2"; else attach_pod "$1" "$2"; fi
    say "pod$1x$2 on host$1: $(pod_address "pod$1x$2")"
}

sync_kernel_nodes() {
    local host
    for host in "${HOSTS[@]}"; do
        ! is_kernel "$host" || kernel_sync "$host"
    done
}

pod_names() {
    local pod
    for pod in "${PODS[@]}"; do printf 'pod%s ' "${pod/ /x}"; done
}

wait_for_mesh() {
    local from to
    for from in $(pod_names); do
        for to in $(pod_names); do
            wait_for 20 "$from -> $to" inside "$from" ping -nq -c 1 -W 1 "$(pod_address "$to")"
        done
    done
}

# --- the demo ---

demo() {
    build
    tear_down
    up
    ROWS=() FAILURES=0
    local from to
    for from in $(pod_names); do
        for to in $(pod_names); do
            [[ $from == "$to" ]] || exchange "$from" "$to"
        done
    done
    reach_hosts
    print_table
    show_drops
    if ((FAILURES > 0)); then die "$FAILURES of the exchanges failed; logs were in $STATE"; fi
    say "${GREEN}every direction works${PLAIN}; taking it down"
}

row() { ROWS+=("$(printf '%s\t' "$@")"); }
fail() { FAILURES=$((FAILURES + 1)); }

label() {
    local host=${1#pod}
    printf '%s (%s)' "$1" "$(kind_of "${host%%x*}")"
}

# exchange FROM TO: ping, a verified transfer, iperf3; one row of the table.
exchange() {
    local address ping tcp rate
    address=$(pod_address "$2")
    say "$(label "$1") -> $(label "$2")"
    ping=$(ping_summary "$1" "$address")
    tcp=$(verified_transfer "$1" "$2" "$address") || { fail; tcp=FAILED; }
    rate=$(iperf_rate "$1" "$2" "$address") || { fail; rate=FAILED; }
    [[ $ping != *FAILED* ]] || fail
    row "$(label "$1")" "$(label "$2")" "$ping" "$tcp" "$rate"
}

ping_summary() {
    local said
    if said=$(inside "$1" ping -n -i 0.05 -c 10 -W 1 "$2") && grep -q ' 0% packet loss' <<<"$said"; then
        awk -F'[ =/]' '/ttl=/ { for (i = 1; i <= NF; i++) if ($i == "ttl") t = $(i + 1) } /^rtt/ { printf "ok, ttl %s, %s ms", t, $8 }' <<<"$said"
    else
        printf 'FAILED'
    fi
}

# Both ends compare every byte with a pattern; the receiver's count is checked by the sender.
verified_transfer() {
    local listen=$3:7001
    background "$2" receive "$BIN/canal-probe" receive "$listen"
    wait_for_listener "$2" 7001
    inside "$1" timeout 180 "$BIN/canal-probe" send "$listen" "$BYTES" |
        jq -r '"\(.verified_bytes / 1e6 | floor) MB verified, \(.gbit_per_s) Gbit/s"'
}

iperf_rate() {
    background "$2" iperf iperf3 -s -1 -B "$3"
    wait_for_listener "$2" 5201
    inside "$1" timeout 60 iperf3 -J -c "$3" -t "$IPERF_SECONDS" --connect-timeout 5000 |
        jq -er '.end.sum_received.bits_per_second / 1e9 * 100 | floor / 100 | "\(.) Gbit/s"'
}

wait_for_listener() {
    wait_for 10 "listener in $1" inside "$1" bash -c "ss -Hltn 'sport = :$2' | grep -q ."
}

# Hosts and pods: own host, remote host, both ways round.
reach_hosts() {
    local pod host result
    for pod in $(pod_names); do
        for host in "${HOSTS[@]}"; do
            say "$(label "$pod") <-> host$host"
            result=$(ping_summary "$pod" "$(subnet_address "$host" 0)")
            [[ $result != *FAILED* ]] || fail
            row "$(label "$pod")" "host$host ($(kind_of "$host"))" "$result" - -
            result=$(ping_summary "host$host" "$(pod_address "$pod")")
            [[ $result != *FAILED* ]] || fail
            row "host$host ($(kind_of "$host"))" "$(label "$pod")" "$result" - -
        done
    done
}

print_table() {
    printf '\n'
    { printf 'FROM\tTO\tPING\tTCP (%s MB)\tIPERF3\n' $((BYTES / 1000000)) && printf '%s\n' "${ROWS[@]}"; } | column -t -s $'\t'
    printf '\n'
}

show_drops() {
    local host
    for host in "${HOSTS[@]}"; do
        is_kernel "$host" || { printf 'host%s, canal show drops\n' "$host" && canal_ctl "$host" show drops; }
    done
}

# --- for play ---

status() {
    [[ -d $STATE ]] || die "it is not up: $0 up"
    local host code=0
    for host in "${HOSTS[@]}"; do
        printf '%shost%s%s (%s, %s, pods %s)\n' "$BOLD" "$host" "$PLAIN" "$(kind_of "$host")" "$(host_address "$host")" \
            "$(subnet_address "$host" 0)/24"
        if is_kernel "$host"; then
            ip -n "$(ns "host$host")" route show dev flannel.$VNI
        else
            canal_ctl "$host" status || code=1
        fi
    done
    return "$code"
}

shell_in() {
    [[ -e /run/netns/$(ns "$1") ]] || die "no $1; there are: $(ip netns list | awk -v p="$PREFIX-" 'index($1, p) == 1 { print substr($1, length(p) + 1) }' | xargs)"
    local bin
    bin=$(readlink -f "$BIN")
    say "in $1; leave with exit. canal answers with: canal --socket $STATE/$1/run/canal.sock show ports"
    PATH=$bin:$PATH PS1="[$1] \\w # " inside "$1" "${SHELL:-/bin/bash}" -i
}

main() {
    local words=()
    while (($# > 0)); do
        case $1 in
        --datastore) DATASTORE=$2 && shift 2 ;;
        --port) PORT=$2 && shift 2 ;;
        --bytes) BYTES=$2 && shift 2 ;;
        --peer) PEER=$2 && shift 2 ;;
        -h | --help) usage ;;
        *) words+=("$1") && shift ;;
        esac
    done
    set -- "${words[@]}"
    [[ $DATASTORE == etcd || $DATASTORE == dir ]] || die "--datastore is etcd or dir"
    [[ $# -gt 0 ]] || usage 2
    need_root
    # A standing bed remembers how it was made.
    [[ $1 == up || $1 == demo || ! -f $STATE/peer ]] || DATASTORE=$(<"$STATE/datastore") PEER=$(<"$STATE/peer")
    case $1 in
    demo) demo ;;
    up)
        build
        up
        trap - EXIT
        say "it stands: $0 shell host0 | status | down"
        ;;
    down) tear_down ;;
    status) status ;;
    sync) sync_kernel_nodes ;;
    shell)
        [[ $# -eq 2 ]] || usage 2
        shell_in "$2"
        ;;
    *) usage 2 ;;
    esac
}

main "$@"
