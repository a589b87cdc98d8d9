/* What the XDP programs share: headers, settings, sockets. */
#ifndef CANAL_XDP_COMMON_H
#define CANAL_XDP_COMMON_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "headers.h"

/* Queues of an interface; src/xdp/steering.rs has the same number. */
#define CANAL_XDP_QUEUES 256

struct ethernet_header {
	__u16 target[3];
	__u16 source[3];
	__be16 type;
} __attribute__((packed));

/* In a frame an IP header stands where no larger number is aligned. */
typedef struct ipv4_header unaligned_ipv4 __attribute__((aligned(1)));
typedef struct ipv6_header unaligned_ipv6 __attribute__((aligned(1)));

struct udp_header {
	__be16 source;
	__be16 target;
	__be16 length;
	__sum16 checksum;
} __attribute__((packed));

/* Written by the daemon as 32-bit words in this order; src/xdp/steering.rs. The first three are for the underlay. */
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

/* Of each queue, the socket that takes what is ours. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, CANAL_XDP_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xdp_sockets SEC(".maps");

static __always_inline const struct xdp_settings *get_xdp_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&xdp_settings, &zero);
}

/* A frame for the interface's own address that fits a chunk. Before the daemon has said anything, none does. */
static __always_inline int is_for_us(const struct xdp_md *ctx, const struct xdp_settings *set)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct ethernet_header *ethernet = data;

	if (!set || (void *)(ethernet + 1) > end || data + set->longest < end)
		return 0;
	return ethernet->target[0] == set->mac[0] && ethernet->target[1] == set->mac[1] &&
	       ethernet->target[2] == set->mac[2];
}

/* To the socket of the queue that it came by; without one, to the kernel. */
static __always_inline int to_socket(const struct xdp_md *ctx)
{
	return bpf_redirect_map(&xdp_sockets, ctx->rx_queue_index, XDP_PASS);
}

#endif
