/* The XDP programs, in an object of their own: a kernel that does not take it keeps the others. */

#include "xdp_common.h"
#include "destinations.h"
#include "xdp_gateway.h"
#include "xdp_underlay.h"

char LICENSE[] SEC("license") = "Apache-2.0";
