/*
 * On the underlay interface, before the kernel has made a packet of a frame: gives VXLAN for our VTEP to the AF_XDP socket
 * of the queue that it came by. Everything else goes on to the kernel: the host's own traffic, other stations' frames,
 * fragments, IPv4 options and IPv6 extension headers, ICMP errors, super-frames, and all frames of a queue without a socket.
 * There canal_underlay (underlay_ingress.h) and the UDP socket wait for what is ours all the same.
 *
 * An object of its own: a kernel that does not take it keeps the other programs.
 */

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_UDP 17
/* More fragments, or an offset. */
#define IPV4_FRAGMENT 0x3fff

/* Queues of an interface; src/xdp/steering.rs has the same number. */
#define CANAL_XDP_QUEUES 256

struct ethernet_header {
	__u16 target[3];
	__u16 source[3];
	__be16 type;
} __attribute__((packed));

struct ipv4_header {
	__u8 version_length;
	__u8 tos;
	__be16 total_length;
	__be16 identification;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__sum16 checksum;
	__be32 source;
	__be32 target;
} __attribute__((packed));

struct ipv6_header {
	__u8 version_class;
	__u8 class_flow[3];
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__be32 source[4];
	__be32 target[4];
} __attribute__((packed));

struct udp_header {
	__be16 source;
	__be16 target;
	__be16 length;
	__sum16 checksum;
} __attribute__((packed));

/* Written by the daemon as 32-bit words in this order; src/xdp/steering.rs. */
struct xdp_settings {
	__be32 vtep_v4; /* 0: none */
	__be32 vtep_v6[4];
	__be16 vxlan_port; /* 0: nothing is ours */
	__u16 mac[3];      /* the interface's own address */
	__u32 longest;     /* bytes of a frame that fits a chunk of the sockets' memory */
};
#define XDP_SETTINGS_WORDS 8
_Static_assert(sizeof(struct xdp_settings) == XDP_SETTINGS_WORDS * 4, "steering.rs writes this many words");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xdp_settings);
} xdp_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, CANAL_XDP_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xdp_sockets SEC(".maps");

static __always_inline int is_ours(const struct udp_header *udp, const void *end, const struct xdp_settings *set)
{
	return (const void *)(udp + 1) <= end && udp->target == set->vxlan_port;
}

SEC("xdp")
int canal_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct ethernet_header *ethernet = data;
	__u32 zero = 0;
	const struct xdp_settings *set = bpf_map_lookup_elem(&xdp_settings, &zero);

	if (!set || !set->vxlan_port || (void *)(ethernet + 1) > end || data + set->longest < end)
		return XDP_PASS;
	if (ethernet->target[0] != set->mac[0] || ethernet->target[1] != set->mac[1] ||
	    ethernet->target[2] != set->mac[2])
		return XDP_PASS;
	if (ethernet->type == bpf_htons(ETH_P_IP)) {
		const struct ipv4_header *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->version_length != 0x45 || ip->protocol != IPPROTO_UDP ||
		    ip->fragment & bpf_htons(IPV4_FRAGMENT) || !set->vtep_v4 || ip->target != set->vtep_v4)
			return XDP_PASS;
		if (!is_ours((void *)(ip + 1), end, set))
			return XDP_PASS;
	} else if (ethernet->type == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6_header *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->version_class >> 4 != 6 || ip->next_header != IPPROTO_UDP ||
		    !(set->vtep_v6[0] | set->vtep_v6[1] | set->vtep_v6[2] | set->vtep_v6[3]) ||
		    ip->target[0] != set->vtep_v6[0] || ip->target[1] != set->vtep_v6[1] ||
		    ip->target[2] != set->vtep_v6[2] || ip->target[3] != set->vtep_v6[3])
			return XDP_PASS;
		if (!is_ours((void *)(ip + 1), end, set))
			return XDP_PASS;
	} else {
		return XDP_PASS;
	}
	return bpf_redirect_map(&xdp_sockets, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Apache-2.0";
