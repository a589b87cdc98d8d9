#!/usr/bin/env bash
# Namespaces for the test bed and the benches: a switch, hosts around it, pods on the hosts. Sourced, never run.
#
# The caller sets PREFIX (every namespace is called $PREFIX-…) and STATE (a directory for pids, logs and data). Hosts are
# numbered from 0; host I has 192.168.77.(10+I) on eth0; the switch, where etcd listens, has 192.168.77.1.

NETWORK=10.244.0.0/16
GATEWAY=169.254.1.1
GATEWAY_MAC=ee:ee:ee:ee:ee:ee
FLANNEL_PREFIX=/coreos.com/network
WORKLOADS=/calico/resources/v3/projectcalico.org/workloadendpoints/default
ETCD_URL=http://192.168.77.1:2379
VNI=1 VXLAN_PORT=8472

ns() { printf '%s-%s' "$PREFIX" "$1"; }
inside() {
    local name=$1
    shift
    nsenter --net="/run/netns/$(ns "$name")" -- "$@"
}
host_address() { printf '192.168.77.%d' $((10 + $1)); }
base_of() { printf '%s.0' "${1%.*}"; }

new_namespace() {
    local name
    name=$(ns "$1")
    ip netns add "$name"
    ip -n "$name" link set lo up
    inside "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
        net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
}

make_switch() {
    new_namespace switch
    ip -n "$(ns switch)" link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
    ip -n "$(ns switch)" addr add 192.168.77.1/24 dev br0
    ip -n "$(ns switch)" link set br0 up
}

# make_host I: a namespace with eth0 on the switch and a default route.
make_host() {
    local name=host$1
    new_namespace "$name"
    ip -n "$(ns switch)" link add "h$1" type veth peer name eth0 netns "$(ns "$name")"
    ip -n "$(ns switch)" link set "h$1" master br0 up
    ip -n "$(ns "$name")" addr add "$(host_address "$1")/24" dev eth0
    ip -n "$(ns "$name")" link set eth0 up
    ip -n "$(ns "$name")" route add default via 192.168.77.1
}

# make_pod HOST NUMBER ADDRESS: namespace podHxN with the veth end eth0; the other end is caliHxN on the host.
make_pod() {
    local host=$1 pod=pod$1x$2 veth=cali$1x$2 address=$3
    new_namespace "$pod"
    ip -n "$(ns "host$host")" link add "$veth" address "$GATEWAY_MAC" mtu 1450 type veth \
        peer name eth0 mtu 1450 netns "$(ns "$pod")"
    ip -n "$(ns "host$host")" link set "$veth" up
    ip -n "$(ns "$pod")" addr add "$address/32" dev eth0
    ip -n "$(ns "$pod")" link set eth0 up
    ip -n "$(ns "$pod")" route add "$GATEWAY" dev eth0 scope link
    ip -n "$(ns "$pod")" route add default via "$GATEWAY" dev eth0
    printf '%s\n' "$address" >"$STATE/$pod.address"
}

pod_address() { cat "$STATE/$1.address"; }

# The kernel routes this pod, as on a node with flannel and without canal.
route_pod_by_kernel() {
    ip -n "$(ns "host$1")" addr add "$GATEWAY/32" dev "cali$1x$2"
    ip -n "$(ns "host$1")" route add "$(pod_address "pod$1x$2")" dev "cali$1x$2"
}

# canal carries this pod: its workload endpoint is written.
attach_pod() {
    local host=$1 number=$2 name=node$1-k8s-pod$2-eth0 resource mac
    mac=$(ip -n "$(ns "pod${host}x$number")" -j link show eth0 | jq -r '.[0].address')
    resource=$(jq -nc --arg name "$name" --arg node "node$host" --arg pod "pod$number" --arg mac "$mac" \
        --arg veth "cali${host}x$number" --arg net "$(pod_address "pod${host}x$number")/32" '{
            kind: "WorkloadEndpoint", apiVersion: "projectcalico.org/v3",
            metadata: {name: $name, namespace: "default",
                       labels: {"projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}},
            spec: {orchestrator: "k8s", node: $node, pod: $pod, endpoint: "eth0", ipNetworks: [$net],
                   profiles: ["kns.default"], interfaceName: $veth, mac: $mac}}')
    store_put "$WORKLOADS/$name" "resources/workloadendpoint.default.$name.yaml" "$resource"
}

# --- datastore: etcd in the switch namespace, or a directory ---

DATASTORE=${DATASTORE:-etcd}

start_datastore() {
    if [[ $DATASTORE == dir ]]; then
        mkdir -p "$STATE/data/subnets" "$STATE/data/resources"
    else
        background switch etcd etcd --data-dir "$STATE/etcd" --listen-client-urls "$ETCD_URL" \
            --advertise-client-urls "$ETCD_URL" --listen-peer-urls http://127.0.0.1:2380 \
            --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
        wait_for 20 "etcd" inside switch etcdctl --endpoints "$ETCD_URL" --command-timeout=1s endpoint health
    fi
    store_put "$FLANNEL_PREFIX/config" net-conf.json \
        "{\"Network\":\"$NETWORK\",\"Backend\":{\"Type\":\"vxlan\",\"VNI\":$VNI,\"Port\":$VXLAN_PORT}}"
}

# store_put ETCD_KEY FILE VALUE
store_put() {
    if [[ $DATASTORE == dir ]]; then
        printf '%s\n' "$3" >"$STATE/data/$2.tmp"
        mv "$STATE/data/$2.tmp" "$STATE/data/$2"
    else
        inside switch etcdctl --endpoints "$ETCD_URL" put -- "$1" "$3" >/dev/null
    fi
}

# Every lease: "10.244.1.0-24 {json}".
store_leases() {
    local file
    if [[ $DATASTORE == dir ]]; then
        for file in "$STATE"/data/subnets/*.json; do
            [[ ! -e $file ]] || printf '%s %s\n' "$(basename "$file" .json)" "$(jq -c . "$file")"
        done
    else
        inside switch etcdctl --endpoints "$ETCD_URL" get --prefix -w json -- "$FLANNEL_PREFIX/subnets/" |
            jq -r '.kvs[]? | ((.key | @base64d | sub(".*/"; "")) + " " + (.value | @base64d))'
    fi
}

# --- nodes ---

# kernel_node I: flannel.1 made with iproute2, and its lease.
kernel_node() {
    local name=host$1 base=10.244.10$1.0 mac=02:ca:fe:00:01:0$1
    inside "$name" sysctl -qw net.ipv4.ip_forward=1
    ip -n "$(ns "$name")" link add flannel.$VNI address "$mac" type vxlan id $VNI dev eth0 \
        local "$(host_address "$1")" dstport $VXLAN_PORT nolearning
    ip -n "$(ns "$name")" link set flannel.$VNI mtu 1450
    ip -n "$(ns "$name")" addr add "$base/32" dev flannel.$VNI
    ip -n "$(ns "$name")" link set flannel.$VNI up
    store_put "$FLANNEL_PREFIX/subnets/$base-24" "subnets/$base-24.json" \
        "{\"PublicIP\":\"$(host_address "$1")\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{\"VNI\":$VNI,\"VtepMAC\":\"$mac\"}}"
    printf '%s\n' "$base" >"$STATE/$name.base"
}

# kernel_sync I: programs every other node's lease into the kernel node's neighbours, FDB and routes.
kernel_sync() {
    local name key lease base mac public
    name=$(ns "host$1")
    while read -r key lease; do
        base=${key%%-*}
        public=$(jq -r .PublicIP <<<"$lease")
        mac=$(jq -r '.BackendData.VtepMAC // empty' <<<"$lease")
        [[ -n $mac && $public != "$(host_address "$1")" ]] || continue
        ip -n "$name" neigh replace "$base" lladdr "$mac" dev flannel.$VNI nud permanent
        bridge -n "$name" fdb replace "$mac" dev flannel.$VNI self dst "$public" permanent
        ip -n "$name" route replace "$base/24" via "$base" dev flannel.$VNI onlink
    done < <(store_leases)
}

# canal_node I PORT: starts canal-fwd and waits until it says that it is ready.
canal_node() {
    local name=host$1 dir=$STATE/host$1 store=(--etcd-endpoints "$ETCD_URL")
    [[ $DATASTORE != dir ]] || store=(--datastore dir --data-dir "$STATE/data")
    mkdir -p "$dir"
    background "$name" "canal-$name" "$BIN/canal-fwd" --iface eth0 --nodename "node$1" --port "$2" "${store[@]}" \
        --run-dir "$dir/run" --state-dir "$dir/state" --subnet-file "$dir/subnet.env" "${CANAL_ARGS[@]}"
    wait_for 20 "canal on $name" canal_ctl "$1" status
    # shellcheck disable=SC1091  # written by the daemon
    base_of "$(. "$dir/subnet.env" && printf '%s' "${FLANNEL_SUBNET%/*}")" >"$STATE/$name.base"
}

CANAL_ARGS=()

canal_ctl() {
    local host=$1
    shift
    inside "host$host" "$BIN/canal" --socket "$STATE/host$host/run/canal.sock" "$@"
}

# The nth address of a host's subnet.
subnet_address() {
    local base
    base=$(<"$STATE/host$1.base")
    printf '%s.%d' "${base%.*}" "$2"
}

# --- processes ---

# background NAMESPACE NAME COMMAND…: runs it in the namespace, in a session of its own, logged to $STATE/NAME.log.
background() {
    local namespace=$1 log=$STATE/$2.log
    shift 2
    setsid nsenter --net="/run/netns/$(ns "$namespace")" -- "$@" </dev/null >>"$log" 2>&1 9>&- &
    disown
}

# wait_for SECONDS WHAT COMMAND…
wait_for() {
    local end=$((SECONDS + $1)) what=$2 said
    shift 2
    until said=$("$@" 2>&1); do
        if ((SECONDS >= end)); then
            printf '%s\n' "$said" >&2
            tail -n 20 "$STATE"/*.log >&2 || true
            die "$what: not ready"
        fi
        sleep 0.1
    done
}

# Ends every process in our namespaces, removes the namespaces and the state. May be called at any time, any number of times.
tear_down() {
    local name signal pids
    for signal in TERM KILL; do
        pids=$(our_pids)
        [[ -n $pids ]] || break
        # shellcheck disable=SC2086  # a list
        kill -s "$signal" $pids 2>/dev/null || true
        for _ in $(seq 50); do
            [[ -n $(our_pids) ]] || break
            sleep 0.1
        done
    done
    while read -r name _; do
        [[ $name != "$PREFIX"-* ]] || ip netns del "$name" || true
    done < <(ip netns list 2>/dev/null)
    [[ -z $STATE ]] || rm -rf "$STATE"
}

# Processes in our namespaces, without this script and its parents.
our_pids() {
    local name pid
    while read -r name _; do
        [[ $name == "$PREFIX"-* ]] || continue
        for pid in $(ip netns pids "$name" 2>/dev/null); do
            [[ $pid -eq $$ || $pid -eq $PPID ]] || printf '%s ' "$pid"
        done
    done < <(ip netns list 2>/dev/null)
}
