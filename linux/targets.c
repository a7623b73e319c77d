// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Where records go beside the ring.
 */
#include <linux/kprobes.h>

#include "shim.h"

/* hit: as in an NMI */
u32 dprobes_host_deliver(u32 targets, const struct dprobes_header *head, const u8 *elements, uintptr_t length)
{
	const struct dprobes_exit_to event = { .major = head->major, .minor = head->minor, .address = head->address };
	u32 untaken = targets;

	/* First what is seen even if the machine dies in the others. */
	if (targets & DPROBES_TARGET_SERIAL && dprobes_serial(head, elements, length))
		untaken &= ~DPROBES_TARGET_SERIAL;
	if (targets & DPROBES_TARGET_TRACE && !dprobes_pass_to_tracer(&event, elements, length))
		untaken &= ~DPROBES_TARGET_TRACE;
	if (targets & DPROBES_TARGET_KERNEL_LOG && dprobes_klog(head, elements, length))
		untaken &= ~DPROBES_TARGET_KERNEL_LOG;
	return untaken;
}
NOKPROBE_SYMBOL(dprobes_host_deliver);

/* When a program is inserted: can records go there? */
u32 dprobes_host_target(u32 target)
{
	switch (target) {
	case DPROBES_TARGET_KERNEL_LOG:
		return dprobes_klog_open() ? 0 : DPROBES_FACILITY_ERROR_ABSENT;
	case DPROBES_TARGET_SERIAL:
		return dprobes_serial_is_there() ? 0 : DPROBES_FACILITY_ERROR_ABSENT;
	case DPROBES_TARGET_TRACE:
		/* Somebody may listen later. */
		return 0;
	default:
		return DPROBES_FACILITY_ERROR_ABSENT;
	}
}
