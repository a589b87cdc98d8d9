#!/usr/bin/env bash
# Pod to remote pod over two hosts, canal beside what users have today.
#
#   sudo scripts/bench.sh [SCENARIO…] [--peers P,P…] [--runs N] [--seconds S] [--workers N] [-o table|json]
#
# scenarios  tcp-1, tcp-8  Gbit/s, one and eight streams
#            rtt           µs, 64-byte UDP on an idle path
#            memory        MB (10^6 bytes) resident in the daemon with 1,000,000 answered UDP flows and 5,000 VTEPs, and before
#                          them; canal peers only
#            start         ms from the daemon's start, and from its lease, to the first answer to a pod; canal peers only
# peers      kernel-vxlan           the kernel's VXLAN device, no policy
#            kernel-iptables-100    the same with 100 Calico-like policies: conntrack, established first, then the chains
#            canal-tap, canal-udp   one canal daemon on each of both hosts, with its default of workers (one a core, up to 4) unless
#                                   --workers says otherwise; both hosts, and all pods, share this machine's cores
#
# Every run measures each peer once, in turn, so that a slow minute of the machine meets all of them. Medians are over the runs.
# -o json prints one object a line: {"peer","scenario","metric","median","min","max","n"}; progress goes to standard error.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/topology.sh
source "$(dirname "${BASH_SOURCE[0]}")/topology.sh"

ALL_PEERS=(kernel-vxlan kernel-iptables-100 canal-tap canal-udp)
ALL_SCENARIOS=(tcp-1 tcp-8 rtt memory start)
POLICIES=100
FLOWS=1000000 VTEPS=5000
# Room for thousands of nodes.
NETWORK=10.0.0.0/8
# The echo server's first port and how many there are: 1,000,000 pairs of ports need 19 of them.
ECHO_PORT=7002 ECHO_PORTS=19
# Two runs at once need two names (and are of little worth to each other).
BASE_PREFIX=${CANAL_BENCH_NAME:-canal-bench}
BASE_STATE=/run/$BASE_PREFIX
# No server beside the daemons while measuring.
DATASTORE=dir
# The memory scenario gives every flow to one pod and forgets none of them.
CANAL_ARGS=(--flows-per-workload 1048576 --flow-timeout 'udp=1200,udp-stream=1200')
RUNS=5 SECONDS_EACH=4 OUTPUT=table PROBES=5000
# CANAL_BIN_DIR names binaries that are built already.
BIN=${CANAL_BIN_DIR:-$(target_dir)/release}

usage() {
    sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
    exit "${1:-0}"
}

# From here on the functions of topology.sh work on this peer's namespaces.
select_peer() {
    PREFIX=$BASE_PREFIX-$1 STATE=$BASE_STATE/$1
}

peer_up() {
    select_peer "$1"
    mkdir -p "$STATE"
    make_switch
    make_host 0
    make_host 1
    start_datastore
    local host
    for host in 0 1; do
        case $1 in
        kernel-*) kernel_node "$host" ;;
        canal-*) canal_node "$host" "${1#canal-}" ;;
        esac
    done
    for host in 0 1; do
        make_pod "$host" 2 "$(subnet_address "$host" 2)"
        case $1 in
        kernel-*)
            kernel_sync "$host"
            route_pod_by_kernel "$host" 2
            ;;
        canal-*) attach_pod "$host" 2 ;;
        esac
        [[ $1 != kernel-iptables-* ]] || calico_like_rules "$host" $POLICIES
    done
    wait_for 20 "$1: pod to pod" inside pod0x2 ping -nq -c 1 -W 1 "$(pod_address pod1x2)"
    wait_for 20 "$1: pod to pod, back" inside pod1x2 ping -nq -c 1 -W 1 "$(pod_address pod0x2)"
    # The echo end of the rtt scenario waits in poll and costs the others nothing.
    background pod1x2 echo "$BIN/canal-probe" echo "$(pod_address pod1x2):$ECHO_PORT" "$ECHO_PORTS"
}

# calico_like_rules HOST N: what Felix renders, reduced to the parts on the path. FORWARD -> dispatch by interface -> the endpoint's
# chain: established first, then N policies (an IP set each), of which the last one accepts.
calico_like_rules() {
    local host=host$1 n=$2 veth=cali$1x2 i
    {
        for ((i = 0; i < n; i++)); do
            printf 'create s%d hash:net\n' "$i"
            if ((i == n - 1)); then printf 'add s%d %s\n' "$i" "$NETWORK"; else printf 'add s%d 11.0.%d.0/24\n' "$i" "$i"; fi
        done
    } | inside "$host" ipset restore
    {
        printf '*filter\n:FORWARD DROP [0:0]\n:fw-%s - [0:0]\n:tw-%s - [0:0]\n' "$veth" "$veth"
        for ((i = 0; i < n; i++)); do printf ':po-%d - [0:0]\n:pi-%d - [0:0]\n' "$i" "$i"; done
        printf -- '-A FORWARD -i %s -g fw-%s\n-A FORWARD -o %s -g tw-%s\n' "$veth" "$veth" "$veth" "$veth"
        endpoint_chain "fw-$veth" po dst "$n"
        endpoint_chain "tw-$veth" pi src "$n"
        printf 'COMMIT\n'
    } | inside "$host" iptables-legacy-restore
}

# endpoint_chain CHAIN POLICY_PREFIX SIDE N
endpoint_chain() {
    local chain=$1 policy=$2 side=$3 n=$4 i
    printf -- '-A %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n' "$chain"
    printf -- '-A %s -m conntrack --ctstate INVALID -j DROP\n' "$chain"
    printf -- '-A %s -j MARK --set-xmark 0x0/0x10000\n' "$chain"
    for ((i = 0; i < n; i++)); do
        printf -- '-A %s -j %s-%d\n' "$chain" "$policy" "$i"
        printf -- '-A %s -m mark --mark 0x10000/0x10000 -j ACCEPT\n' "$chain"
        printf -- '-A %s-%d -m set --match-set s%d %s -j MARK --set-xmark 0x10000/0x10000\n' "$policy" "$i" "$i" "$side"
    done
    printf -- '-A %s -j DROP\n' "$chain"
}

# --- measuring ---

# measure PEER SCENARIO: appends "peer scenario metric value" to $SAMPLES for each of its metrics.
measure() {
    select_peer "$1"
    case $2 in
    tcp-*)
        local rate
        rate=$(tcp_rate "${2#tcp-}") || return
        sample "$1" "$2" gbit_per_s "$rate"
        ;;
    rtt)
        local trips
        trips=$(inside pod0x2 timeout 60 "$BIN/canal-probe" rtt "$(pod_address pod1x2):$ECHO_PORT" "$PROBES") || return
        sample "$1" rtt p50_us "$(jq -r .p50_us <<<"$trips")"
        sample "$1" rtt p99_us "$(jq -r .p99_us <<<"$trips")"
        [[ $(jq -r .lost <<<"$trips") -eq 0 ]] || warn "$1: $(jq -r .lost <<<"$trips") of $PROBES probes lost"
        ;;
    memory) memory "$1" ;;
    start) start_up "$1" ;;
    esac
}

# measurable PEER SCENARIO: a kernel peer has no daemon to look at.
measurable() {
    [[ $1 == canal-* || ($2 != memory && $2 != start) ]]
}

# The arguments of canal-probe's raw modes: MAC and address of pod0x2, and the echo server.
raw_pod() {
    ip -n "$(ns pod0x2)" -j link show eth0 | jq -r '.[0].address'
    pod_address pod0x2
    printf '%s:%d\n' "$(pod_address pod1x2)" "$ECHO_PORT"
}

daemon_pid() {
    local pid
    for pid in $(ip netns pids "$(ns "host$1")"); do
        [[ $(<"/proc/$pid/comm") != canal-fwd ]] || printf '%s' "$pid"
    done
}

stop_daemon() {
    local pid
    pid=$(daemon_pid "$1")
    kill -TERM "$pid"
    wait_for 20 "the end of canal on host$1" bash -c "! kill -0 $pid 2>/dev/null"
}

# resident HOST: megabytes.
resident() {
    awk '/^VmRSS:/ { printf "%.1f", $2 * 1024 / 1e6 }' "/proc/$(daemon_pid "$1")/status"
}

# Leases of nodes that do not exist, beside those that do.
many_leases() {
    local beside=$STATE/many i key
    mkdir -p "$beside"
    for ((i = 0; i < VTEPS; i++)); do
        key=10.$((100 + i / 250)).$((i % 250)).0-24
        [[ ! -e $STATE/data/subnets/$key.json ]] || continue
        printf '{"PublicIP":"172.16.%d.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":%d,"VtepMAC":"02:00:00:00:%02x:%02x"}}\n' \
            $((i / 250)) $((i % 250 + 1)) $VNI $((i / 256)) $((i % 256)) >"$beside/$key.json"
    done
    (cd "$beside" && printf '%s\n' *.json) >"$STATE/many.names"
    find "$beside" -name '*.json' -exec mv -t "$STATE/data/subnets" {} +
}

no_more_leases() {
    (cd "$STATE/data/subnets" && xargs -r rm -f <"$STATE/many.names")
}

has_vteps() {
    (($(canal_ctl 0 show vteps -o json | jq length) >= $1))
}

# memory PEER: of fresh daemons, so that no other scenario is counted.
memory() {
    local port=${1#canal-} failed='' raw
    stop_daemon 0
    canal_node 0 "$port"
    sample "$1" memory start_mb "$(resident 0)"
    many_leases
    wait_for 60 "$VTEPS VTEPs" has_vteps "$VTEPS"
    wait_for 20 "$1: pod to pod" inside pod0x2 ping -nq -c 1 -W 1 "$(pod_address pod1x2)"
    sample "$1" memory vteps_mb "$(resident 0)"
    mapfile -t raw < <(raw_pod)
    inside pod0x2 timeout 170 "$BIN/canal-probe" flows "${raw[@]}" "$FLOWS" >>"$STATE/flows.log" || failed=1
    # All at once, not one after the other: what has expired meanwhile would not count.
    local held
    held=$(canal_ctl 0 show workers -o json | jq '[.[].flows] | add')
    sample "$1" memory flows_mb "$(resident 0)"
    no_more_leases
    stop_daemon 0
    canal_node 0 "$port"
    [[ -z $failed ]] || return 1
    ((held >= FLOWS)) || {
        warn "$1: only $held of $FLOWS flows were held when it was measured"
        return 1
    }
}

# start_up PEER: the daemon starts without a lease; a pod asks every millisecond and remembers when it was first answered.
start_up() {
    local port=${1#canal-} begin lease answered key raw
    stop_daemon 0
    key=$(subnet_address 0 0)-24
    rm -f "$STATE/data/subnets/$key.json" "$STATE/first.log"
    mapfile -t raw < <(raw_pod)
    background pod0x2 first "$BIN/canal-probe" first "${raw[@]}"
    begin=$EPOCHREALTIME
    canal_node 0 "$port"
    wait_for 60 "$1: an answer" grep -q answered_at "$STATE/first.log"
    answered=$(jq -r .answered_at "$STATE/first.log")
    lease=$(stat -c %.6Y "$STATE/data/subnets/$key.json") || return
    sample "$1" start process_to_packet_ms "$(milliseconds "$begin" "$answered")"
    sample "$1" start lease_to_packet_ms "$(milliseconds "$lease" "$answered")"
}

# milliseconds FROM TO: both in seconds.
milliseconds() {
    jq -n --argjson from "$1" --argjson to "$2" '($to - $from) * 10000 | round / 10'
}

sample() {
    printf '%s %s %s %s\n' "$@" >>"$SAMPLES"
    printf '      %-20s %-6s %-20s %s\n' "$@" >&2
}

tcp_rate() {
    local address
    address=$(pod_address pod1x2)
    background pod1x2 iperf iperf3 -s -1 -B "$address"
    wait_for 10 "iperf3 listening" inside pod1x2 bash -c "ss -Hltn 'sport = :5201' | grep -q ."
    inside pod0x2 timeout $((SECONDS_EACH + 30)) iperf3 -J -c "$address" -t "$SECONDS_EACH" -O 1 -P "$1" --connect-timeout 5000 |
        jq -er '.end.sum_received.bits_per_second / 1e9 * 1000 | round / 1000'
}

# One JSON object a line, in the order of first appearance.
summary() {
    jq -Rnc '[inputs | split(" ") | {peer: .[0], scenario: .[1], metric: .[2], value: (.[3] | tonumber)}]
        | [to_entries[] | .value + {at: .key}] | group_by([.peer, .scenario, .metric]) | sort_by(.[0].at)[]
        | map(.value) as $all | ($all | sort) as $v | ($v | length) as $n
        | {peer: .[0].peer, scenario: .[0].scenario, metric: .[0].metric,
           median: (if $n % 2 == 1 then $v[($n - 1) / 2] else (($v[$n / 2 - 1] + $v[$n / 2]) / 2) end),
           min: $v[0], max: $v[-1], n: $n}' "$SAMPLES"
}

print_table() {
    summary | jq -rs '(map(select(.peer == "kernel-vxlan") | {key: (.scenario + .metric), value: .median}) | from_entries) as $base
        | (["SCENARIO", "METRIC", "PEER", "MEDIAN", "MIN", "MAX", "N", "÷ KERNEL-VXLAN"] | @tsv),
          (sort_by([.scenario, .metric])[] | [.scenario, .metric, .peer, .median, .min, .max, .n,
            (if $base[.scenario + .metric] then (.median / $base[.scenario + .metric] * 1000 | round / 1000) else "-" end)] | @tsv)' |
        column -t -s $'\t'
}

# --- running ---

down() {
    local peer
    for peer in "${ALL_PEERS[@]}"; do
        select_peer "$peer"
        tear_down
    done
    rm -rf "$BASE_STATE"
}

known() {
    local word=$1
    shift
    [[ " $* " == *" $word "* ]] || die "unknown: $word; there are: $*"
}

main() {
    local scenarios=() peers=("${ALL_PEERS[@]}") failed=() word
    while (($# > 0)); do
        case $1 in
        --peers) IFS=, read -ra peers <<<"$2" && shift 2 ;;
        --runs) RUNS=$2 && shift 2 ;;
        --seconds) SECONDS_EACH=$2 && shift 2 ;;
        --workers) CANAL_ARGS+=(--workers "$2") && shift 2 ;;
        -o) OUTPUT=$2 && shift 2 ;;
        -h | --help) usage ;;
        -*) usage 2 ;;
        *) scenarios+=("$1") && shift ;;
        esac
    done
    [[ ${#scenarios[@]} -gt 0 ]] || scenarios=("${ALL_SCENARIOS[@]}")
    for word in "${peers[@]}"; do known "$word" "${ALL_PEERS[@]}"; done
    for word in "${scenarios[@]}"; do known "$word" "${ALL_SCENARIOS[@]}"; done
    known "$OUTPUT" table json
    need_root

    exec 9>"/run/$BASE_PREFIX.lock"
    flock --nonblock 9 || die "another run of $0 is under way"
    build
    down
    trap 'exit 130' INT TERM
    trap down EXIT
    mkdir -p "$BASE_STATE"
    SAMPLES=$BASE_STATE/samples
    for word in "${peers[@]}"; do
        say "peer $word"
        peer_up "$word"
    done
    [[ ${#CANAL_ARGS[@]} -eq 0 ]] || say "canal peers run with ${CANAL_ARGS[*]}"
    run_all
    if [[ $OUTPUT == json ]]; then summary; else print_table; fi
    [[ ${#failed[@]} -eq 0 ]] || die "failed measurements: $(printf '%s; ' "${failed[@]}")"
}

build() {
    install_packages "${BUILD_PACKAGES[@]}" "${LAB_PACKAGES[@]}"
    [[ -z ${CANAL_BIN_DIR:-} ]] || return 0
    find_cargo
    say "building (release)"
    (cd "$ROOT" && cargo build --release --locked --bins -p canal -p netns-tests >&2)
}

# Uses main's peers and scenarios, and adds to its failed.
run_all() {
    local run peer scenario
    for ((run = 1; run <= RUNS; run++)); do
        for scenario in "${scenarios[@]}"; do
            say "run $run of $RUNS: $scenario"
            for peer in "${peers[@]}"; do
                measurable "$peer" "$scenario" || continue
                # One that fails must not cost the numbers of the others.
                measure "$peer" "$scenario" || failed+=("$peer $scenario")
            done
        done
    done
}

main "$@"
