/*
 * On every gateway interface: takes what hosts behind it send into the overlay. All else is left alone: what is for the
 * host itself, ARP and neighbour discovery, and what the host forwards by routes of its own.
 */

SEC("classifier")
int canal_gateway(struct __sk_buff *skb)
{
	const struct canal_settings *set = get_settings();
	struct destination_v4 v4 = {.length = 32};
	struct destination_v6 v6 = {.length = 128};
	const __u32 *overlay = 0;

	/* A VLAN tag belongs to another interface; a frame for another station, to nobody here. */
	if (!set || skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV4_TARGET, &v4.address, sizeof(v4.address)))
			return TC_ACT_UNSPEC;
		overlay = bpf_map_lookup_elem(&destinations_v4, &v4);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + IPV6_TARGET, v6.address, sizeof(v6.address)))
			return TC_ACT_UNSPEC;
		overlay = bpf_map_lookup_elem(&destinations_v6, &v6);
	}
	if (!overlay || !*overlay)
		return TC_ACT_UNSPEC;
	return to_daemon(skb, set, CANAL_FROM_GATEWAY);
}
