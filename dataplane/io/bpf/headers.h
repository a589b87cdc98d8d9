/* IP headers, and the numbers in front of them, as they are on the wire. */
#ifndef CANAL_HEADERS_H
#define CANAL_HEADERS_H

#include <linux/types.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_UDP 17
/* More fragments, or an offset: the packet is a piece. */
#define IPV4_FRAGMENT 0x3fff

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
};

struct ipv6_header {
	__u8 version_class;
	__u8 class_flow[3];
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__be32 source[4];
	__be32 target[4];
};

#endif
