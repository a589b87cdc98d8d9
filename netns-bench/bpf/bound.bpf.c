// SPDX-License-Identifier: Apache-2.0
// On both interfaces of the emptiest AF_XDP forwarder: every frame is its socket's, whatever is in it.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} bound_socket SEC(".maps");

SEC("xdp") int to_socket(struct xdp_md *ctx)
{
    return bpf_redirect_map(&bound_socket, 0, XDP_PASS);
}

char LICENSE[] SEC("license") = "Apache-2.0";
