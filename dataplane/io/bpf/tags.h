/*
 * The tags by which one TAP device carries the traffic of many interfaces. src/tun/tag.rs has the same numbers and
 * a test that reads this file; change both.
 *
 * A tag is an Ethernet address: CANAL_TAG_FIRST, kind, four bytes of argument (an interface index, most significant
 * byte first, unless said otherwise). Towards the daemon it stands in the source address, from the daemon in the
 * destination address. The device's own address starts with CANAL_OWN_FIRST, so that it is never mistaken for a tag.
 */
#ifndef CANAL_TAGS_H
#define CANAL_TAGS_H

#define CANAL_TAG_FIRST 0x02
#define CANAL_OWN_FIRST 0x06

/* Device to daemon. */
#define CANAL_FROM_WORKLOAD 0xc1 /* the host-side interface it came in by */
#define CANAL_FROM_UNDERLAY 0xc2 /* VXLAN, or an ICMP error about it */
#define CANAL_FROM_DIRECT 0xc3   /* a plain packet from a peer with direct routing */
#define CANAL_FROM_GATEWAY 0xc4  /* a plain packet from a host behind a gateway: the interface it came in by */

/* Daemon to device. */
#define CANAL_TO_WORKLOAD 0xd1 /* source address: the workload's own address */
#define CANAL_TO_UNDERLAY 0xd2 /* argument unused: the settings name the interface */
#define CANAL_TO_NEXT_HOP 0xd3 /* plain; argument: a gateway interface, or 0 for the underlay; source address: see below */

/* First byte of the source address of what goes to a next hop; the last four bytes are its argument. */
#define CANAL_HOP_SELF 0x00 /* the packet's own destination; argument unused */
#define CANAL_HOP_V4 0x04   /* an IPv4 address */
#define CANAL_HOP_V6 0x06   /* index into next_hops_v6 */

#endif
