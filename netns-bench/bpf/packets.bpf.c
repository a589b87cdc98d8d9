// SPDX-License-Identifier: Apache-2.0
// The two ends of a packet measurement, as XDP programs: one makes packets (the kernel runs it over "live frames"), the other
// counts what comes out of the forwarder and takes it away.
//
// A packet of the generator is a template with the two inner ports, the lengths and the header checksums rewritten. Flow n
// has the source port 10000 + n % 50000 and the destination port 10000 + n / 50000.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERNET 14
#define OUTER 50 // Ethernet, IPv4, UDP, VXLAN of the tunnel, without the inner Ethernet header
#define PLAIN_HEADERS 42
#define TUNNEL_HEADERS (OUTER + PLAIN_HEADERS)
#define TEMPLATE 96
#define FIRST_PORT 10000
#define PORTS 50000
#define VXLAN_PORT 8472
#define BURST_PS (100 * 1000 * 1000ULL) // what a late generator may catch up with: 100 us

const volatile __u32 gen_ifindex;  // where the packets leave
const volatile __u32 gen_length;   // bytes of a frame, without the tunnel's
const volatile __u32 gen_flows;    // how many flows take turns
const volatile __u32 gen_first;    // number of the first one
const volatile __u32 gen_tunnel;   // frames are encapsulated
const volatile __u32 gen_replies;  // ports swapped: answers to the flows of the other direction
const volatile __u32 gen_mix;      // 7 of 64 bytes, 4 of 570, 1 of gen_length
const volatile __u64 gen_packets;  // how many in all; 0: no end
const volatile __u64 gen_gap_ps;   // time from packet to packet; 0: as fast as it goes
const volatile __u8 gen_template[TEMPLATE];

struct progress {
    __u64 sent;
    __u64 next_ps;
    __u32 turn;
    __u32 mixed;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct progress);
} progress SEC(".maps");

// The header checksum of the template was taken with a total length of zero.
static __always_inline __u16 with_length(__u16 checksum, __u16 length)
{
    __u32 sum = (__u16)~bpf_ntohs(checksum);
    sum += length;
    sum = (sum & 0xffff) + (sum >> 16);
    return bpf_htons((__u16)~sum);
}

static __always_inline void put16(__u8 *at, __u16 value)
{
    *(__u16 *)at = bpf_htons(value);
}

static __always_inline __u16 template16(int at)
{
    return gen_template[at] | (__u16)gen_template[at + 1] << 8;
}

// Lengths of an IPv4 header and the UDP header behind it.
static __always_inline void put_lengths(__u8 *ip, int at, __u16 length)
{
    put16(ip + 2, length);
    *(__u16 *)(ip + 10) = with_length(template16(at + 10), length);
    put16(ip + 24, length - 20);
}

SEC("xdp") int generate(struct xdp_md *ctx)
{
    __u32 zero = 0;
    struct progress *p = bpf_map_lookup_elem(&progress, &zero);
    if (!p)
        return XDP_ABORTED;
    // A dropped frame goes back to its pool at once.
    if (gen_packets && p->sent >= gen_packets)
        return XDP_DROP;
    if (gen_gap_ps) {
        __u64 now = bpf_ktime_get_ns() * 1000;
        if (now < p->next_ps)
            return XDP_DROP;
        if (now - p->next_ps > BURST_PS)
            p->next_ps = now - BURST_PS;
        p->next_ps += gen_gap_ps;
    }
    __u32 outer = gen_tunnel ? OUTER : 0, length = gen_length;
    if (gen_mix) {
        __u32 nth = p->mixed;
        p->mixed = nth == 11 ? 0 : nth + 1;
        length = nth < 7 ? 64 : nth < 11 ? 570 : gen_length;
        if (length != gen_length && bpf_xdp_adjust_tail(ctx, (int)length - (int)gen_length))
            return XDP_ABORTED;
    }
    __u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    __u32 flow = gen_first + p->turn;
    p->turn = p->turn + 1 >= gen_flows ? 0 : p->turn + 1;
    __u16 from = FIRST_PORT + flow % PORTS, to = FIRST_PORT + flow / PORTS;
    __u8 *inner;
    if (gen_tunnel) {
        if (data + TUNNEL_HEADERS > end)
            return XDP_ABORTED;
#pragma unroll
        for (int i = 0; i < TUNNEL_HEADERS; i++)
            data[i] = gen_template[i];
        // The sender's choice of a source port for the flow.
        put16(data + 34, 0xc000 | (flow & 0x3fff));
        put_lengths(data + ETHERNET, ETHERNET, outer + length - ETHERNET);
        put_lengths(data + OUTER + ETHERNET, OUTER + ETHERNET, length - ETHERNET);
        inner = data + OUTER + 34;
    } else {
        if (data + PLAIN_HEADERS > end)
            return XDP_ABORTED;
#pragma unroll
        for (int i = 0; i < PLAIN_HEADERS; i++)
            data[i] = gen_template[i];
        put_lengths(data + ETHERNET, ETHERNET, length - ETHERNET);
        inner = data + 34;
    }
    put16(inner, gen_replies ? to : from);
    put16(inner + 2, gen_replies ? from : to);
    p->sent++;
    return bpf_redirect(gen_ifindex, 0);
}

// --- counting ---

enum { GOOD, OTHER, COUNTERS };

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counted SEC(".maps");

const volatile __u32 sink_tunnel;       // expects VXLAN, else plain packets
const volatile __u32 sink_vni;
const volatile __u32 sink_outer_to;     // network byte order
const volatile __u32 sink_inner_from;   // network byte order
const volatile __u32 sink_inner_to;     // network byte order

static __always_inline void count(__u32 which)
{
    __u64 *counter = bpf_map_lookup_elem(&counted, &which);
    if (counter)
        ++*counter;
}

static __always_inline int is_udp(__u8 *frame)
{
    return *(__u16 *)(frame + 12) == bpf_htons(0x0800) && frame[14] == 0x45 && frame[23] == 17;
}

// A UDP packet from a port of the generator to one: the echo server's port is below.
static __always_inline int is_generated(__u8 *frame)
{
    return bpf_ntohs(*(__u16 *)(frame + 34)) >= FIRST_PORT && bpf_ntohs(*(__u16 *)(frame + 36)) >= FIRST_PORT;
}

// The inner packet: between the two pods, UDP, the generator's.
static __always_inline int is_ours(__u8 *inner)
{
    return is_udp(inner) && *(__u32 *)(inner + 26) == sink_inner_from && *(__u32 *)(inner + 30) == sink_inner_to &&
           is_generated(inner);
}

// True for what is for the measurement, which is counted. The rest (ARP, the datastore's connections, probes) is the kernel's.
static __always_inline int judge(__u8 *data, __u8 *end)
{
    if (data + PLAIN_HEADERS > end || !is_udp(data))
        return 0;
    int good;
    if (sink_tunnel) {
        if (*(__u16 *)(data + 36) != bpf_htons(VXLAN_PORT))
            return 0;
        if (data + TUNNEL_HEADERS <= end && is_udp(data + OUTER) && !is_generated(data + OUTER))
            return 0;
        good = data + TUNNEL_HEADERS <= end && *(__u32 *)(data + 30) == sink_outer_to && data[42] == 0x08 &&
               bpf_ntohl(*(__u32 *)(data + 46)) >> 8 == sink_vni && is_ours(data + OUTER);
    } else {
        if (*(__u32 *)(data + 30) != sink_inner_to || !is_generated(data))
            return 0;
        good = is_ours(data);
    }
    count(good ? GOOD : OTHER);
    return 1;
}

// For what comes through the device.
SEC("xdp") int sink(struct xdp_md *ctx)
{
    return judge((void *)(long)ctx->data, (void *)(long)ctx->data_end) ? XDP_DROP : XDP_PASS;
}

// For what was redirected to the peer of the device's other end: it has been received already, and no XDP program sees it.
SEC("classifier") int sink_received(struct __sk_buff *skb)
{
    __u32 wanted = skb->len < TUNNEL_HEADERS ? skb->len : TUNNEL_HEADERS;
    if (skb->data_end - skb->data < wanted && bpf_skb_pull_data(skb, wanted))
        return TC_ACT_UNSPEC;
    return judge((void *)(long)skb->data, (void *)(long)skb->data_end) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Apache-2.0";
