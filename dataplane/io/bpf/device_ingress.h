/* On the TAP device: what the daemon writes goes where the tag in the destination address says. */

static __always_inline int to_workload(struct __sk_buff *skb, __u32 ifindex)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u16 *mac = data;
	const struct workload *workload = bpf_map_lookup_elem(&workloads, &ifindex);

	if (!workload || data + ETH_HLEN > end)
		return TC_ACT_SHOT;

	/* The daemon writes the broadcast address where it does not know the workload's. */
	int unknown = (mac[3] & mac[4] & mac[5]) == 0xffff;
	__u64 address = workload->address;

	if (unknown && address) {
		mac[0] = address;
		mac[1] = address >> 16;
		mac[2] = address >> 32;
	} else {
		mac[0] = mac[3];
		mac[1] = mac[4];
		mac[2] = mac[5];
	}
	mac[3] = 0xeeee;
	mac[4] = 0xeeee;
	mac[5] = 0xeeee;
	if (workload->via == CANAL_VIA_DEVICE)
		return bpf_redirect(ifindex, 0);
	/*
	 * The other end takes the frame as it is: the type must be what its driver would have found, had it been addressed right.
	 * TCP takes nothing that came by broadcast. (Newer kernels call all that comes this way PACKET_HOST.)
	 */
	__u8 first = *(__u8 *)data;

	bpf_skb_change_type(skb, unknown || !(first & 1) ? PACKET_HOST : PACKET_MULTICAST);
	return bpf_redirect_peer(ifindex, 0);
}

/* Plain, out of a gateway interface or (0) of the underlay; the kernel resolves the next hop and writes the addresses. */
static __always_inline int to_next_hop(struct __sk_buff *skb, const struct canal_settings *set, __u32 ifindex)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const __u8 *source = data + ETH_ALEN;
	struct bpf_redir_neigh hop = {};

	if (data + ETH_HLEN > end)
		return TC_ACT_SHOT;
	if (!ifindex)
		ifindex = set->underlay_ifindex;
	else if (!bpf_map_lookup_elem(&gateways, &ifindex))
		return TC_ACT_SHOT;

	__be32 argument = *(__be16 *)(source + 2) | (__u32) * (__be16 *)(source + 4) << 16;
	__u32 index = bpf_ntohl(argument);
	const struct next_hop_v6 *known;

	switch (source[0]) {
	case CANAL_HOP_V4:
		hop.nh_family = AF_INET;
		hop.ipv4_nh = argument;
		break;
	case CANAL_HOP_V6:
		known = bpf_map_lookup_elem(&next_hops_v6, &index);
		if (!known)
			return TC_ACT_SHOT;
		hop.nh_family = AF_INET6;
		__builtin_memcpy(hop.ipv6_nh, known->address, sizeof(hop.ipv6_nh));
		break;
	case CANAL_HOP_SELF:
		if (skb->protocol != bpf_htons(ETH_P_IPV6))
			return TC_ACT_SHOT;
		hop.nh_family = AF_INET6;
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV6_TARGET, hop.ipv6_nh, sizeof(hop.ipv6_nh)))
			return TC_ACT_SHOT;
		break;
	default:
		return TC_ACT_SHOT;
	}
	return bpf_redirect_neigh(ifindex, &hop, sizeof(hop), 0);
}

SEC("classifier")
int canal_device(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct canal_settings *set = get_settings();
	const __u8 *mac = data;

	if (!set || data + ETH_HLEN > end)
		return TC_ACT_SHOT;
	/* Anything without a tag is for the host's own stack, which drops what is not addressed to the device. */
	if (mac[0] != CANAL_TAG_FIRST)
		return TC_ACT_UNSPEC;

	__be32 argument = *(__be16 *)(mac + 2) | (__u32) * (__be16 *)(mac + 4) << 16;

	switch (mac[1]) {
	case CANAL_TO_WORKLOAD:
		return to_workload(skb, bpf_ntohl(argument));
	case CANAL_TO_UNDERLAY:
		return bpf_redirect_neigh(set->underlay_ifindex, 0, 0, 0);
	case CANAL_TO_NEXT_HOP:
		return to_next_hop(skb, set, bpf_ntohl(argument));
	default:
		return TC_ACT_SHOT;
	}
}
