/*
 * On a gateway interface: gives plain packets of the hosts behind it, for destinations of the overlay, to the AF_XDP socket
 * of the queue that they came by. Everything else goes on to the kernel, where canal_gateway (gateway_ingress.h) takes what
 * is ours of it: fragments, IPv4 options, some IPv6 extension headers, super-frames.
 */

#define IPPROTO_HOPOPTS 0
#define IPPROTO_FRAGMENT 44

SEC("xdp")
int canal_xdp_gate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct xdp_settings *set = get_xdp_settings();
	const struct ethernet_header *ethernet = data;
	__u32 whose = CANAL_KERNELS;
	__be32 target[4];

	if (!is_for_us(ctx, set) || (void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->type == bpf_htons(ETH_P_IP)) {
		const unaligned_ipv4 *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->version_length != 0x45 || ip->fragment & bpf_htons(IPV4_FRAGMENT))
			return XDP_PASS;
		whose = whose_v4(ip->target);
	} else if (ethernet->type == bpf_htons(ETH_P_IPV6)) {
		const unaligned_ipv6 *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->version_class >> 4 != 6 || ip->next_header == IPPROTO_HOPOPTS ||
		    ip->next_header == IPPROTO_FRAGMENT)
			return XDP_PASS;
		__builtin_memcpy(target, ip->target, sizeof(target));
		whose = whose_v6(target);
	}
	return whose == CANAL_OVERLAYS ? to_socket(ctx) : XDP_PASS;
}
