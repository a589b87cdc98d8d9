/*
 * On the underlay interface, before the kernel has made a packet of a frame: gives VXLAN for our VTEP to the AF_XDP socket
 * of the queue that it came by. Everything else goes on to the kernel: the host's own traffic, other stations' frames,
 * fragments, IPv4 options and IPv6 extension headers, ICMP errors, super-frames, and all frames of a queue without a socket.
 * There canal_underlay (underlay_ingress.h) and the UDP socket wait for what is ours all the same.
 */

static __always_inline int is_ours(const struct udp_header *udp, const void *end, const struct xdp_settings *set)
{
	return (const void *)(udp + 1) <= end && udp->target == set->vxlan_port;
}

SEC("xdp")
int canal_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct xdp_settings *set = get_xdp_settings();
	const struct ethernet_header *ethernet = data;

	if (!is_for_us(ctx, set) || !set->vxlan_port || (void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->type == bpf_htons(ETH_P_IP)) {
		const unaligned_ipv4 *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->version_length != 0x45 || ip->protocol != IPPROTO_UDP ||
		    ip->fragment & bpf_htons(IPV4_FRAGMENT) || !set->vtep_v4 || ip->target != set->vtep_v4)
			return XDP_PASS;
		if (!is_ours((void *)(ip + 1), end, set))
			return XDP_PASS;
	} else if (ethernet->type == bpf_htons(ETH_P_IPV6)) {
		const unaligned_ipv6 *ip = (void *)(ethernet + 1);

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
	return to_socket(ctx);
}

