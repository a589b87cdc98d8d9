/*
 * On every gateway interface: takes what hosts behind it send into the overlay. All else is left alone: what is for the
 * host itself, ARP and neighbour discovery, and what the host forwards by routes of its own.
 */

SEC("classifier")
int canal_gateway(struct __sk_buff *skb)
{
	const struct canal_settings *set = get_settings();
	__u32 whose = CANAL_KERNELS;
	__be32 target[4];

	/* A VLAN tag belongs to another interface; a frame for another station, to nobody here. */
	if (!set || skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV4_TARGET, target, sizeof(target[0])))
			return TC_ACT_UNSPEC;
		whose = whose_v4(target[0]);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV6_TARGET, target, sizeof(target)))
			return TC_ACT_UNSPEC;
		whose = whose_v6(target);
	}
	return whose == CANAL_OVERLAYS ? to_daemon(skb, set, CANAL_FROM_GATEWAY) : TC_ACT_UNSPEC;
}
