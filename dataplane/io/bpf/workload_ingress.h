/* On every workload's host-side interface: whatever the workload sends goes to the daemon, nothing to the host. */

SEC("classifier")
int canal_workload(struct __sk_buff *skb)
{
	const struct canal_settings *set = get_settings();

	if (!set)
		return TC_ACT_SHOT;
	return to_daemon(skb, set, CANAL_FROM_WORKLOAD);
}
