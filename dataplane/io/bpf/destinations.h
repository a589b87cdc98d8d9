/* Where packets from hosts behind gateways may go: src/bpf/destinations.rs writes it. */
#ifndef CANAL_DESTINATIONS_H
#define CANAL_DESTINATIONS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define CANAL_DESTINATIONS 262144

/*
 * Whose a destination is, for packets from hosts behind gateways, by the longest prefix: 1 = the overlay's, 0 or none = the
 * kernel's business.
 */
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

#endif
