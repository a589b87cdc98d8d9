/* canal's steering programs, one object so that they share their maps. */

#include "common.h"
#include "device_ingress.h"
#include "gateway_ingress.h"
#include "queue_steering.h"
#include "underlay_ingress.h"
#include "workload_ingress.h"

char LICENSE[] SEC("license") = "Apache-2.0";
