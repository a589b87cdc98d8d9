/*
 * Which queue of the TAP device, or which of the sockets at the VXLAN port, hence which worker, gets a packet: the one
 * that owns the inner flow. The number is canal_dataplane::net::FlowKey::owner of the same packet; a difference costs a
 * hand-over, no packet.
 */

#define MAX_EXTENSION_HEADERS 8 /* limits::MAX_EXTENSION_HEADERS */

/* No socket has this number: the kernel picks one by its hash of the outer addresses and ports. */
#define CANAL_ANY_SOCKET (-1)

struct flow {
	__u32 source, target; /* folded to 32 bits, host order */
	__u16 source_port, target_port;
	__u8 protocol;
};

static __always_inline __u64 flow_end(const struct canal_settings *set, __u32 address, __u16 port)
{
	return (((__u64)address << 16 | port) ^ set->seed0) * (set->seed1 | 1);
}

static __always_inline __u32 owner(const struct canal_settings *set, const struct flow *flow)
{
	__u64 sum = flow_end(set, flow->source, flow->source_port) +
		    flow_end(set, flow->target, flow->target_port) + flow->protocol;
	__u32 hash = ((sum ^ sum >> 32) * (set->seed1 | 1)) >> 32;

	return (__u64)hash * set->queues >> 32;
}

static __always_inline void read_ports(struct __sk_buff *skb, __u32 offset, struct flow *flow)
{
	__be16 words[3];

	switch (flow->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_UDPLITE:
		if (bpf_skb_load_bytes(skb, offset, words, 4))
			return;
		flow->source_port = bpf_ntohs(words[0]);
		flow->target_port = bpf_ntohs(words[1]);
		return;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (bpf_skb_load_bytes(skb, offset, words, 6))
			return;
		__u8 type = bpf_ntohs(words[0]) >> 8;

		if (flow->protocol == IPPROTO_ICMP ? type == 8 || type == 0 : type == 128 || type == 129)
			flow->source_port = flow->target_port = bpf_ntohs(words[2]);
	}
}

static __always_inline int flow_v4(struct __sk_buff *skb, __u32 offset, struct flow *flow)
{
	struct ipv4_header ip;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return 0;
	flow->source = bpf_ntohl(ip.source);
	flow->target = bpf_ntohl(ip.target);
	flow->protocol = ip.protocol;
	if (!(ip.fragment & bpf_htons(IPV4_FRAGMENT)))
		read_ports(skb, offset + (ip.version_length & 0xf) * 4, flow);
	return 1;
}

static __always_inline __u32 folded(const __be32 *address)
{
	return bpf_ntohl(address[0] ^ address[1] ^ address[2] ^ address[3]);
}

static __always_inline int flow_v6(struct __sk_buff *skb, __u32 offset, struct flow *flow)
{
	struct ipv6_header ip;
	__u8 extension[4], fragment = 0;

	if (bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)))
		return 0;
	flow->source = folded(ip.source);
	flow->target = folded(ip.target);
	flow->protocol = ip.next_header;
	offset += IPV6_HLEN;
#pragma unroll
	for (int i = 0; i <= MAX_EXTENSION_HEADERS; i++) {
		switch (flow->protocol) {
		case 0:  /* hop by hop */
		case 43: /* routing */
		case 60: /* destination options */
			if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)))
				return 1;
			offset += (extension[1] + 1) * 8;
			break;
		case 51: /* authentication */
			if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)))
				return 1;
			offset += (extension[1] + 2) * 4;
			break;
		case 44: /* fragment; one with neither offset nor successor is whole (RFC 6946) */
			if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)))
				return 1;
			offset += 8;
			if (extension[2] | (extension[3] & 0xf8)) {
				flow->protocol = extension[0];
				return 1;
			}
			fragment |= extension[3] & 1;
			break;
		default:
			if (!fragment)
				read_ports(skb, offset, flow);
			return 1;
		}
		flow->protocol = extension[0];
	}
	return 1;
}

/* The flow of a packet of that Ethernet type; 0 when there is none. */
static __always_inline int read_flow(struct __sk_buff *skb, __be16 type, __u32 offset, struct flow *flow)
{
	if (type == bpf_htons(ETH_P_IP))
		return flow_v4(skb, offset, flow);
	return type == bpf_htons(ETH_P_IPV6) && flow_v6(skb, offset, flow);
}

/* Offset of the inner Ethernet header of a VXLAN frame; 0 for anything else from the underlay. */
static __always_inline __u32 inner_ethernet(struct __sk_buff *skb, __be16 type)
{
	__u8 protocol;

	if (type == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 9, &protocol, 1) || protocol != IPPROTO_UDP)
			return 0;
		return ETH_HLEN + IPV4_HLEN + UDP_HLEN + VXLAN_HLEN;
	}
	if (type == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 6, &protocol, 1) || protocol != IPPROTO_UDP)
			return 0;
		return ETH_HLEN + IPV6_HLEN + UDP_HLEN + VXLAN_HLEN;
	}
	return 0;
}

SEC("socket")
int canal_queue(struct __sk_buff *skb)
{
	const struct canal_settings *set = get_settings();
	struct flow flow = {};
	__u8 tag[2];
	__be16 type;
	__u32 offset = 0;

	if (!set || bpf_skb_load_bytes(skb, ETH_ALEN, tag, sizeof(tag)) ||
	    bpf_skb_load_bytes(skb, 2 * ETH_ALEN, &type, sizeof(type)))
		return 0;
	if (tag[0] == CANAL_TAG_FIRST && tag[1] == CANAL_FROM_UNDERLAY) {
		offset = inner_ethernet(skb, type);
		if (!offset || bpf_skb_load_bytes(skb, offset + 2 * ETH_ALEN, &type, sizeof(type)))
			return 0;
	}
	if (read_flow(skb, type, offset + ETH_HLEN, &flow))
		return owner(set, &flow);
	return 0;
}

/* Of a group of sockets that share a port. The kernel shows what is behind the UDP header. */
SEC("socket")
int canal_socket(struct __sk_buff *skb)
{
	const struct canal_settings *set = get_settings();
	struct flow flow = {};
	__be16 type;

	if (set && !bpf_skb_load_bytes(skb, VXLAN_HLEN + 2 * ETH_ALEN, &type, sizeof(type)) &&
	    read_flow(skb, type, VXLAN_HLEN + ETH_HLEN, &flow))
		return owner(set, &flow);
	return CANAL_ANY_SOCKET;
}
