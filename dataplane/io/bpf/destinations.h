/* Whose addresses are where plain packets are concerned: src/bpf/destinations.rs writes it. */
#ifndef CANAL_DESTINATIONS_H
#define CANAL_DESTINATIONS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define CANAL_DESTINATIONS 262144

/* By the longest prefix; the kernel's where there is none. */
#define CANAL_KERNELS 0
#define CANAL_OVERLAYS 1 /* pods and nodes */
#define CANAL_BEHIND 2   /* hosts behind gateways of ours */

struct destination_v4 {
	__u32 length;
	__be32 address;
};

struct destination_v6 {
	__u32 length;
	__be32 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CANAL_DESTINATIONS);
	__type(key, struct destination_v4);
	__type(value, __u32);
} destinations_v4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CANAL_DESTINATIONS);
	__type(key, struct destination_v6);
	__type(value, __u32);
} destinations_v6 SEC(".maps");

static __always_inline __u32 whose_v4(__be32 address)
{
	struct destination_v4 key = {.length = 32, .address = address};
	const __u32 *whose = bpf_map_lookup_elem(&destinations_v4, &key);

	return whose ? *whose : CANAL_KERNELS;
}

static __always_inline __u32 whose_v6(const __be32 *address)
{
	struct destination_v6 key = {.length = 128};
	const __u32 *whose;

	__builtin_memcpy(key.address, address, sizeof(key.address));
	whose = bpf_map_lookup_elem(&destinations_v6, &key);
	return whose ? *whose : CANAL_KERNELS;
}

#endif
