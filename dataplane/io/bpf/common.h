/* What all programs of this object share: header offsets, the settings, the maps. */
#ifndef CANAL_COMMON_H
#define CANAL_COMMON_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "destinations.h"
#include "headers.h"
#include "tags.h"

#ifndef TC_ACT_UNSPEC
#define TC_ACT_UNSPEC (-1) /* TCX_NEXT: the next program, or the kernel's own way */
#define TC_ACT_SHOT 2
#endif

#define ETH_ALEN 6
#define ETH_HLEN 14
#define IPV4_HLEN 20
#define IPV4_TARGET 16
#define IPV6_HLEN 40
#define IPV6_TARGET 24
#define UDP_HLEN 8
#define ICMP_HLEN 8
#define VXLAN_HLEN 8

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_UDPLITE 136

#define AF_INET 2
#define AF_INET6 10

#define PACKET_HOST 0
#define PACKET_MULTICAST 2

#define CANAL_SUBNETS 4
#define CANAL_NEXT_HOPS 4096
#define CANAL_WORKLOADS 65536
#define CANAL_GATEWAYS 256

/* How a frame reaches the workload behind an interface. */
#define CANAL_VIA_PEER 1   /* veth with its other end in another namespace: straight into that end */
#define CANAL_VIA_DEVICE 2 /* any other device: out of it */

/*
 * Values of the map `workloads`. `address` is the Ethernet address from which the workload last sent to its gateway, 0
 * before it has: for workloads whose document does not say it. Only frames from the workload's own interface can change
 * it, and it is used for frames to that interface alone.
 */
struct workload {
	__u64 via;
	__u64 address;
};

/*
 * Written by the daemon as 32-bit words in this order; src/bpf/settings.rs. A change is not atomic: for one packet
 * a program may see half of it, which costs that packet at worst.
 */
struct canal_settings {
	__u32 device_ifindex;
	__u32 underlay_ifindex;
	__u32 queues;
	__be32 vxlan_port; /* a __be16 in the low half */
	__u64 seed0;
	__u64 seed1;
	__be32 vtep_v4; /* 0: none */
	__be32 vtep_v6[4];
	__u32 subnets_v4;
	__u32 subnets_v6;
	__u32 plain_to_gateways; /* peers send plain packets to hosts behind our gateways */
	struct {
		__be32 address;
		__be32 mask;
	} subnet_v4[CANAL_SUBNETS];
	struct {
		__be32 address[4];
		__be32 mask[4];
	} subnet_v6[CANAL_SUBNETS];
};
#define CANAL_SETTINGS_WORDS 56
_Static_assert(sizeof(struct canal_settings) == CANAL_SETTINGS_WORDS * 4, "settings.rs writes this many words");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct canal_settings);
} settings SEC(".maps");

/* Interfaces a workload frame may go to: a number that was freed and given to another device is not among them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CANAL_WORKLOADS);
	__type(key, __u32);
	__type(value, struct workload);
} workloads SEC(".maps");

/* Gateway interfaces: where plain packets of hosts come from, and may go to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CANAL_GATEWAYS);
	__type(key, __u32);
	__type(value, __u32);
} gateways SEC(".maps");

struct next_hop_v6 {
	__be32 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CANAL_NEXT_HOPS);
	__type(key, __u32);
	__type(value, struct next_hop_v6);
} next_hops_v6 SEC(".maps");

static __always_inline const struct canal_settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* Sends the packet to the daemon: tag into the source address, out of the TAP device. */
static __always_inline int to_daemon(struct __sk_buff *skb, const struct canal_settings *set, __u8 kind)
{
	struct {
		__u8 first, kind;
		__be32 ifindex;
	} __attribute__((packed)) tag = {CANAL_TAG_FIRST, kind, bpf_htonl(skb->ifindex)};

	if (bpf_skb_store_bytes(skb, ETH_ALEN, &tag, sizeof(tag), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(set->device_ifindex, 0);
}

#endif
