/* On every workload's host-side interface: whatever the workload sends goes to the daemon, nothing to the host. */

/*
 * Notes where the frame came from, if it goes to one station: that is the gateway. What is sent to many may be a bridge's in
 * between. A workload that sends from many addresses in turn is its own problem.
 */
static __always_inline void note_address(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const __u16 *mac = data;
	__u32 ifindex = skb->ifindex;

	if (data + ETH_HLEN > end || *(__u8 *)mac & 1 || *(__u8 *)(mac + 3) & 1)
		return;

	__u64 address = mac[3] | (__u64)mac[4] << 16 | (__u64)mac[5] << 32;
	struct workload *workload = bpf_map_lookup_elem(&workloads, &ifindex);

	/* One store, so that no reader sees half of it; none while nothing changes. */
	if (workload && workload->address != address)
		workload->address = address;
}

SEC("classifier")
int canal_workload(struct __sk_buff *skb)
{
	const struct canal_settings *set = get_settings();

	if (!set)
		return TC_ACT_SHOT;
	note_address(skb);
	return to_daemon(skb, set, CANAL_FROM_WORKLOAD);
}
