/*
 * On the underlay interface: takes what is ours and leaves everything else alone, the host's own traffic first of all.
 *
 * Ours: UDP to our VTEP address and port; "fragmentation needed" errors about what our VTEP sent; plain packets to our
 * own pod subnets, and from the overlay to hosts behind our gateways where peers send them plain. Fragments, IPv4 options
 * and IPv6 extension headers before UDP take the kernel's way: it reassembles and strips, and what was VXLAN reaches the
 * daemon's UDP socket.
 */

static __always_inline int same_v6(const __be32 *a, const __be32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline int in_subnets_v4(const struct canal_settings *set, __be32 address)
{
#pragma unroll
	for (int i = 0; i < CANAL_SUBNETS; i++)
		if (i < set->subnets_v4 && (address & set->subnet_v4[i].mask) == set->subnet_v4[i].address)
			return 1;
	return 0;
}

static __always_inline int in_subnets_v6(const struct canal_settings *set, const __be32 *address)
{
#pragma unroll
	for (int i = 0; i < CANAL_SUBNETS; i++) {
		if (i >= set->subnets_v6)
			break;
		__be32 difference = 0;
#pragma unroll
		for (int word = 0; word < 4; word++)
			difference |= (address[word] & set->subnet_v6[i].mask[word]) ^ set->subnet_v6[i].address[word];
		if (!difference)
			return 1;
	}
	return 0;
}

/* Destination port of the UDP header at `offset`, 0 when there is none. */
static __always_inline __be16 udp_target_port(struct __sk_buff *skb, __u32 offset)
{
	__be16 port = 0;

	if (bpf_skb_load_bytes(skb, offset + 2, &port, sizeof(port)))
		return 0;
	return port;
}

/* RFC 792: the error quotes the header of the packet it is about and eight bytes more. */
static __always_inline int quotes_us_v4(struct __sk_buff *skb, const struct canal_settings *set, __u32 offset)
{
	struct ipv4_header quoted;

	if (bpf_skb_load_bytes(skb, offset, &quoted, sizeof(quoted)))
		return 0;
	if (quoted.protocol != IPPROTO_UDP || quoted.source != set->vtep_v4)
		return 0;
	return udp_target_port(skb, offset + (quoted.version_length & 0xf) * 4) == (__be16)set->vxlan_port;
}

static __always_inline int quotes_us_v6(struct __sk_buff *skb, const struct canal_settings *set, __u32 offset)
{
	struct ipv6_header quoted;

	if (bpf_skb_load_bytes(skb, offset, &quoted, sizeof(quoted)))
		return 0;
	if (quoted.next_header != IPPROTO_UDP || !same_v6(quoted.source, set->vtep_v6))
		return 0;
	return udp_target_port(skb, offset + IPV6_HLEN) == (__be16)set->vxlan_port;
}

static __always_inline int underlay_v4(struct __sk_buff *skb, const struct canal_settings *set)
{
	struct ipv4_header ip;
	__u8 icmp[2];

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version_length >> 4 != 4)
		return TC_ACT_UNSPEC;
	if (in_subnets_v4(set, ip.target))
		return to_daemon(skb, set, CANAL_FROM_DIRECT);
	if (set->plain_to_gateways && whose_v4(ip.target) == CANAL_BEHIND && whose_v4(ip.source) == CANAL_OVERLAYS)
		return to_daemon(skb, set, CANAL_FROM_DIRECT);
	if (!set->vtep_v4 || ip.version_length != 0x45 || ip.fragment & bpf_htons(IPV4_FRAGMENT))
		return TC_ACT_UNSPEC;
	if (ip.protocol == IPPROTO_UDP) {
		if (ip.target != set->vtep_v4)
			return TC_ACT_UNSPEC;
		if (udp_target_port(skb, ETH_HLEN + IPV4_HLEN) != (__be16)set->vxlan_port)
			return TC_ACT_UNSPEC;
		return to_daemon(skb, set, CANAL_FROM_UNDERLAY);
	}
	if (ip.protocol == IPPROTO_ICMP) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV4_HLEN, icmp, sizeof(icmp)))
			return TC_ACT_UNSPEC;
		if (icmp[0] == 3 && icmp[1] == 4 && quotes_us_v4(skb, set, ETH_HLEN + IPV4_HLEN + ICMP_HLEN))
			return to_daemon(skb, set, CANAL_FROM_UNDERLAY);
	}
	return TC_ACT_UNSPEC;
}

static __always_inline int underlay_v6(struct __sk_buff *skb, const struct canal_settings *set)
{
	struct ipv6_header ip;
	__u8 type;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version_class >> 4 != 6)
		return TC_ACT_UNSPEC;
	if (in_subnets_v6(set, ip.target))
		return to_daemon(skb, set, CANAL_FROM_DIRECT);
	if (set->plain_to_gateways && whose_v6(ip.target) == CANAL_BEHIND && whose_v6(ip.source) == CANAL_OVERLAYS)
		return to_daemon(skb, set, CANAL_FROM_DIRECT);
	if (!(set->vtep_v6[0] | set->vtep_v6[1] | set->vtep_v6[2] | set->vtep_v6[3]))
		return TC_ACT_UNSPEC;
	if (ip.next_header == IPPROTO_UDP) {
		if (!same_v6(ip.target, set->vtep_v6))
			return TC_ACT_UNSPEC;
		if (udp_target_port(skb, ETH_HLEN + IPV6_HLEN) != (__be16)set->vxlan_port)
			return TC_ACT_UNSPEC;
		return to_daemon(skb, set, CANAL_FROM_UNDERLAY);
	}
	if (ip.next_header == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV6_HLEN, &type, sizeof(type)))
			return TC_ACT_UNSPEC;
		if (type == 2 && quotes_us_v6(skb, set, ETH_HLEN + IPV6_HLEN + ICMP_HLEN))
			return to_daemon(skb, set, CANAL_FROM_UNDERLAY);
	}
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int canal_underlay(struct __sk_buff *skb)
{
	const struct canal_settings *set = get_settings();

	/* A VLAN tag belongs to another interface; a frame for another station, to nobody here. */
	if (!set || skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return underlay_v4(skb, set);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return underlay_v6(skb, set);
	return TC_ACT_UNSPEC;
}
